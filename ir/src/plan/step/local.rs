//! Public steps: each party applies them to what it holds, masked values or masks alike.

use super::{Step, err, widest};
use crate::plan::evaluate::{Coins, truncate_signed};
use crate::ring::low_mask;
use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The kinds of public steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Local {
    /// Sum of two values.
    Add,
    /// Product with a public integer.
    Scale {
        /// The factor.
        factor: i64,
    },
    /// Sums over windows of the last two axes.
    SumPool {
        /// Window size.
        kernel: [usize; 2],
        /// Step between windows.
        stride: [usize; 2],
    },
    /// Sums over axes, which stay with length 1.
    ReduceSum {
        /// The axes.
        axes: Vec<usize>,
    },
    /// The same elements under another shape.
    Reshape,
    /// Permutation of the axes.
    Transpose {
        /// Axis `i` of the result is axis `permutation[i]`.
        permutation: Vec<usize>,
    },
    /// Selection along an axis, `None` is zero.
    Gather {
        /// The axis.
        axis: usize,
        /// Source index of every entry.
        indices: Vec<Option<u32>>,
    },
    /// Joins values along an axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Division by `2^shift`, to one unit: `k_in = k + shift`.
    Truncate {
        /// Bits dropped.
        shift: u32,
    },
}

impl Local {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Scale { .. } => "scale",
            Self::SumPool { .. } => "sum pool",
            Self::ReduceSum { .. } => "reduce sum",
            Self::Reshape => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Gather { .. } => "gather",
            Self::Concat { .. } => "concat",
            Self::Truncate { .. } => "truncate",
        }
    }

    pub(super) fn parameters(&self) -> String {
        match self {
            Self::Scale { factor } => format!("by {factor}"),
            Self::Truncate { shift } => format!("t {shift}"),
            Self::Add
            | Self::SumPool { .. }
            | Self::ReduceSum { .. }
            | Self::Reshape
            | Self::Transpose { .. }
            | Self::Gather { .. }
            | Self::Concat { .. } => String::new(),
        }
    }

    pub(super) fn arity(&self) -> RangeInclusive<usize> {
        match self {
            Self::Add => 2..=2,
            Self::Concat { .. } => 1..=usize::MAX,
            Self::Scale { .. }
            | Self::SumPool { .. }
            | Self::ReduceSum { .. }
            | Self::Reshape
            | Self::Transpose { .. }
            | Self::Gather { .. }
            | Self::Truncate { .. } => 1..=1,
        }
    }

    /// Bits that are needed of the operands for `k` bits of the result: fewer by the powers of two in a factor,
    /// more by the bits that a truncation drops.
    pub(super) fn operand_bits(&self, k: u32) -> u32 {
        match self {
            Self::Scale { factor } => k.saturating_sub(factor.trailing_zeros()).max(1),
            Self::Truncate { shift } => k + shift,
            Self::Add
            | Self::SumPool { .. }
            | Self::ReduceSum { .. }
            | Self::Reshape
            | Self::Transpose { .. }
            | Self::Gather { .. }
            | Self::Concat { .. } => k,
        }
    }

    pub(super) fn check_rings(&self, k: u32, operands: &[&Step]) -> Result<(), String> {
        if matches!(self, Self::Truncate { shift } if *shift > 63) {
            return err("shift out of range");
        }
        widest(operands, self.operand_bits(k))
    }

    pub(super) fn shape(&self, step: &Step, operands: &[&Step]) -> Result<Shape, String> {
        let input = &operands[0].shape;
        let mut shape = input.clone();
        match self {
            Self::Add => {
                if operands[1].shape != *input {
                    return err("operands have different shapes");
                }
            }
            Self::Scale { .. } | Self::Truncate { .. } => {}
            Self::SumPool { kernel, stride } => {
                let rank = shape.rank();
                if rank < 2 || kernel.contains(&0) || stride.contains(&0) {
                    return err("windows need two axes");
                }
                for axis in 0..2 {
                    let length = &mut shape.0[rank - 2 + axis];
                    *length = length.checked_sub(kernel[axis]).ok_or("window too large")?
                        / stride[axis]
                        + 1;
                }
            }
            Self::ReduceSum { axes } => {
                for &axis in axes {
                    *shape.0.get_mut(axis).ok_or("axis out of range")? = 1;
                }
            }
            Self::Reshape => {
                if step.shape.elements() != input.elements() {
                    return err("another number of elements");
                }
                return Ok(step.shape.clone());
            }
            Self::Transpose { permutation } => {
                let mut sorted = permutation.clone();
                sorted.sort_unstable();
                if sorted != (0..input.rank()).collect::<Vec<_>>() {
                    return err("no permutation of the axes");
                }
                return Ok(Shape(permutation.iter().map(|&axis| input.0[axis]).collect()));
            }
            Self::Gather { axis, indices } => {
                let length = shape.0.get_mut(*axis).ok_or("axis out of range")?;
                if indices.iter().flatten().any(|&i| i as usize >= *length) {
                    return err("index out of range");
                }
                *length = indices.len();
            }
            Self::Concat { axis } => {
                let mut sum = 0usize;
                for operand in operands {
                    let mut other = operand.shape.clone();
                    let length = other.0.get_mut(*axis).ok_or("axis out of range")?;
                    sum = sum.checked_add(*length).ok_or("too long")?;
                    *length = *input.0.get(*axis).ok_or("axis out of range")?;
                    if other != *input {
                        return err("operands do not join");
                    }
                }
                shape.0[*axis] = sum;
            }
        }
        Ok(shape)
    }

    /// Applies the step to one party's sides of the operands. A truncation drops the low bits of masked value and
    /// mask alike, which leaves a masked value in the smaller ring.
    pub(super) fn apply(&self, step: &Step, operands: &[&Tensor<u64>]) -> Tensor<u64> {
        let x = operands[0];
        let mut y = match self {
            Self::Add => x.add(operands[1]),
            Self::Scale { factor } => x.map(|v| v.wrapping_mul(*factor as u64)),
            Self::SumPool { kernel, stride } => x.sum_windows(*kernel, *stride),
            Self::ReduceSum { axes } => x.sum_axes(axes),
            Self::Reshape => x.clone().reshape(step.shape.clone()),
            Self::Transpose { permutation } => x.transpose(permutation),
            Self::Gather { axis, indices } => x.take(*axis, indices),
            Self::Concat { axis } => Tensor::concat(operands, *axis),
            Self::Truncate { shift } => x.map(|v| v >> shift),
        };
        let mask = low_mask(step.ring);
        y.data.iter_mut().for_each(|v| *v &= mask);
        y
    }

    /// The exact meaning: a truncation adds a carry.
    pub(in crate::plan) fn value(
        &self,
        step: &Step,
        operands: &[&Tensor<u64>],
        coins: &mut Coins,
    ) -> Tensor<u64> {
        let Self::Truncate { shift } = self else { return self.apply(step, operands) };
        let (k, mask) = (step.ring + shift, low_mask(step.ring));
        let truncated = |&y: &u64| truncate_signed(y, k, *shift, coins) as u64 & mask;
        Tensor::new(step.shape.clone(), operands[0].data.iter().map(truncated).collect())
    }
}
