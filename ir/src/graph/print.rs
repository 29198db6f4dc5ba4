//! The text form of a graph: a line per node with everything but the numbers of the model. Of weights and
//! other constants it shows the shapes.

use super::{Graph, Op};
use crate::op::{Activation, Elementary, Polynomial};
use std::fmt;

impl Op {
    /// The operator's attributes and the shapes of its constants; empty where its name says everything.
    fn attributes(&self) -> String {
        let windows = |kernel: &[usize; 2], stride: &[usize; 2]| {
            format!("{}x{} stride {stride:?}", kernel[0], kernel[1])
        };
        match self {
            Self::Input
            | Self::Add
            | Self::Multiply
            | Self::Divide
            | Self::Reshape
            | Self::Constant(_) => String::new(),
            Self::Convolution { geometry: g, weights, bias } => {
                let dilation = match g.dilation {
                    [1, 1] => String::new(),
                    dilation => format!(" dilation {dilation:?}"),
                };
                format!(
                    "{}{dilation} padding {:?} groups {} weights {} bias {}",
                    windows(&g.kernel, &g.stride),
                    g.padding,
                    g.groups,
                    weights.shape,
                    bias.shape
                )
            }
            Self::MatrixProduct { weights, bias } => {
                format!("weights {} bias {}", weights.shape, bias.shape)
            }
            Self::Affine { scale, shift } => format!("scale {} shift {}", scale.shape, shift.shape),
            Self::Activation(activation) => activation_text(activation),
            Self::SumWindows { kernel, stride } => windows(kernel, stride),
            Self::SumAxes(axes) => format!("axes {axes:?}"),
            Self::MaxWindows { kernel, stride, dilation, padding } => {
                format!("{} dilation {dilation:?} padding {padding:?}", windows(kernel, stride))
            }
            Self::AverageWindows { kernel, stride, padding } => {
                format!("{} padding {padding:?}", windows(kernel, stride))
            }
            Self::Transpose(permutation) => format!("{permutation:?}"),
            Self::Take { axis, indices } => format!("axis {axis} of {}", indices_text(indices)),
            Self::Concat(axis)
            | Self::Softmax(axis)
            | Self::LogSoftmax(axis)
            | Self::ArgMax(axis) => {
                format!("axis {axis}")
            }
            Self::Integers(integers) => format!("{integers:?}"),
        }
    }
}

/// The name, and what it is composed of where it is no single function.
fn activation_text(activation: &Activation) -> String {
    let expression = match activation {
        Activation::Exact(expression) => expression,
        Activation::Polynomial(polynomial) => return polynomial_text(polynomial),
        Activation::Trigonometric(_) => return activation.name(),
    };
    let text = |operation: &Elementary| match operation {
        Elementary::Affine { operand, scale, .. } => format!("affine x{operand} ({})", scale.len()),
        Elementary::Sum(a, b) => format!("x{a} + x{b}"),
        Elementary::Product(a, b) => format!("x{a}·x{b}"),
        Elementary::Quotient(a, b) => format!("x{a}/x{b}"),
        Elementary::Power { operand, exponent } => format!("x{operand}^{exponent}"),
        Elementary::Apply { function, operand } => format!("{function:?} x{operand}"),
    };
    match expression.operations.as_slice() {
        [Elementary::Apply { function, operand: 0 }] => format!("{function:?}"),
        operations => operations.iter().map(text).collect::<Vec<_>>().join("; "),
    }
}

/// The powers that it has, and how many rows of coefficients.
fn polynomial_text(polynomial: &Polynomial) -> String {
    let rows = &polynomial.coefficients;
    let is_there = |power: &usize| rows.iter().any(|row| row[*power] != 0.0);
    let powers = (0..=polynomial.degree()).filter(is_there).map(|power| match power {
        0 => "1".to_owned(),
        1 => "x".to_owned(),
        power => format!("x^{power}"),
    });
    format!("polynomial of {}; {} rows", powers.collect::<Vec<_>>().join(", "), rows.len())
}

/// Indices as ranges: `3..7, zero, 9`.
fn indices_text(indices: &[Option<u32>]) -> String {
    let mut runs: Vec<(Option<u32>, usize)> = Vec::new();
    for index in indices {
        match (runs.last_mut(), index) {
            (Some((None, count)), None) => *count += 1,
            (Some((Some(start), count)), Some(i)) if *start as usize + *count == *i as usize => {
                *count += 1;
            }
            _ => runs.push((*index, 1)),
        }
    }
    let text = |(start, count): &(Option<u32>, usize)| match (start, count) {
        (None, 1) => "zero".to_owned(),
        (None, count) => format!("{count} zeros"),
        (Some(start), 1) => start.to_string(),
        (Some(start), count) => format!("{start}..{}", *start as usize + count),
    };
    let most = 12;
    let more =
        if runs.len() > most { format!(", {} more", runs.len() - most) } else { String::new() };
    format!("{}{more}", runs.iter().take(most).map(text).collect::<Vec<_>>().join(", "))
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in self.order() {
            let node = self.node(id);
            let operands: Vec<String> = self.operands(id).iter().map(|o| o.to_string()).collect();
            let attributes = node.op.attributes();
            let attributes =
                if attributes.is_empty() { attributes } else { format!(" [{attributes}]") };
            writeln!(
                f,
                "{id}: {} = {}{attributes}({}) {}{}",
                node.shape,
                node.op.name(),
                operands.join(", "),
                node.name,
                if node.statistics.is_some() { ", statistics" } else { "" }
            )?;
        }
        writeln!(f, "output {}", self.output())
    }
}
