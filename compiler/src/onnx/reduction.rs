//! Reductions over axes.

use super::builder::Builder;
use super::linear_map::{along, matrix};
use super::node::{Call, Refusal, axes_of, axis_of, invalid, refuse};
use super::pooling::maxima;
use super::structure::join;
use ir::graph::NodeId;
use ir::op::{Elementary, Function};

/// What a reduction is about.
struct Reduction {
    x: NodeId,
    axes: Vec<usize>,
    keeps: bool,
}

/// Axes are an attribute or, in newer files, an operand; none means all, or nothing on request.
fn reduction(b: &Builder, call: &Call) -> Result<Reduction, Refusal> {
    let x = call.value(0)?;
    let rank = b.rank(x);
    let axes = call.axes("axes", 1)?.unwrap_or_default();
    let axes = if !axes.is_empty() {
        axes_of(&axes, rank)?
    } else if call.int("noop_with_empty_axes", 0) != 0 {
        Vec::new()
    } else {
        (0..rank).collect()
    };
    Ok(Reduction { x, axes, keeps: call.int("keepdims", 1) != 0 })
}

impl Reduction {
    /// The number of elements that become one.
    fn count(&self, b: &Builder) -> usize {
        let dims = b.dims(self.x);
        self.axes.iter().map(|&axis| dims[axis]).product()
    }

    fn sum(&self, b: &mut Builder, of: NodeId) -> Result<NodeId, Refusal> {
        let sums = b.sum_axes(of, &self.axes)?;
        self.drop_axes(b, sums)
    }

    /// Removes the reduced axes from a result that still has them, unless they are kept.
    fn drop_axes(&self, b: &mut Builder, y: NodeId) -> Result<NodeId, Refusal> {
        if self.keeps {
            return Ok(y);
        }
        let dims = b.dims(y);
        let rest = dims.iter().enumerate().filter(|(i, _)| !self.axes.contains(i));
        let rest: Vec<usize> = rest.map(|(_, &d)| d).collect();
        b.reshape(y, &rest)
    }

    fn max(&self, b: &mut Builder, of: NodeId) -> Result<NodeId, Refusal> {
        let mut dims = b.dims(of);
        let mut permutation: Vec<usize> =
            (0..dims.len()).filter(|axis| !self.axes.contains(axis)).collect();
        permutation.extend(&self.axes);
        let turned = b.transpose(of, &permutation)?;
        let count = self.count(b);
        let runs = b.shape(of).elements() / count;
        let y = maxima(b, turned, runs, count)?;
        self.axes.iter().for_each(|&axis| dims[axis] = 1);
        let y = b.reshape(y, &dims)?;
        self.drop_axes(b, y)
    }
}

pub(super) fn reduce_sum(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    reduction.sum(b, reduction.x)
}

pub(super) fn reduce_mean(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    let sums = b.sum_axes(reduction.x, &reduction.axes)?;
    let mean = b.scaled(sums, 1.0 / reduction.count(b) as f32, 0.0)?;
    reduction.drop_axes(b, mean)
}

pub(super) fn reduce_max(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    reduction.max(b, reduction.x)
}

pub(super) fn reduce_min(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    let negative = b.scaled(reduction.x, -1.0, 0.0)?;
    let y = reduction.max(b, negative)?;
    b.scaled(y, -1.0, 0.0)
}

pub(super) fn reduce_l1(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    let absolute = b.function(reduction.x, Function::Abs)?;
    reduction.sum(b, absolute)
}

pub(super) fn reduce_sum_square(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    let squares = b.expression(reduction.x, vec![Elementary::Product(0, 0)])?;
    reduction.sum(b, squares)
}

pub(super) fn reduce_l2(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let sums = reduce_sum_square(b, call)?;
    b.function(sums, Function::Sqrt)
}

/// `ln Σ x`
pub(super) fn reduce_log_sum(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let sums = reduce_sum(b, call)?;
    b.function(sums, Function::Log)
}

/// `ln Σ e^x`
pub(super) fn reduce_log_sum_exp(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    let mut dims = b.dims(reduction.x);
    let kept: Vec<usize> = (0..dims.len()).filter(|axis| !reduction.axes.contains(axis)).collect();
    let turned = b.transpose(reduction.x, &[kept.as_slice(), &reduction.axes].concat())?;
    let mut rows: Vec<usize> = kept.iter().map(|&axis| dims[axis]).collect();
    rows.push(reduction.count(b));
    let flat = b.reshape(turned, &rows)?;
    let y = log_sum_exp(b, flat, kept.len())?;
    reduction.axes.iter().for_each(|&axis| dims[axis] = 1);
    let y = b.reshape(y, &dims)?;
    reduction.drop_axes(b, y)
}

/// `ln Σ e^x` along an axis, which stays with length 1: a tree of `ln(e^a + e^b) = a + softplus(b − a)`, whose
/// values are of the size of its operands', where exponentials are of any.
pub(super) fn log_sum_exp(b: &mut Builder, mut x: NodeId, axis: usize) -> Result<NodeId, Refusal> {
    loop {
        let length = b.dims(x)[axis];
        if length == 1 {
            return Ok(x);
        }
        let half = (length / 2) as i64;
        let left = b.window(x, axis, 0, half)?;
        let right = b.window(x, axis, half, 2 * half)?;
        let negative = b.scaled(left, -1.0, 0.0)?;
        let difference = b.sum(right, negative)?;
        let excess = b.function(difference, Function::Softplus)?;
        let mut parts = vec![b.sum(left, excess)?];
        if length % 2 == 1 {
            parts.push(b.window(x, axis, 2 * half, length as i64)?);
        }
        x = join(b, &parts, axis)?;
    }
}

/// A product of one factor each; more are products of values.
pub(super) fn reduce_prod(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let reduction = reduction(b, call)?;
    match reduction.count(b) {
        1 => reduction.drop_axes(b, reduction.x),
        _ => Err(refuse(
            "a product of values computed from the input is not supported",
            "expected sums, or functions of one value",
        )),
    }
}

/// Sums of all entries up to each along an axis, as a product with a triangle of ones.
pub(super) fn cum_sum(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    let &[axis] = call.integers(1)?.as_slice() else {
        return Err(invalid("its axis is no number"));
    };
    let axis = axis_of(axis, dims.len())?;
    let (exclusive, reverse) = (call.int("exclusive", 0) != 0, call.int("reverse", 0) != 0);
    let ones = matrix(dims[axis], dims[axis], |row, column| {
        let (before, to) = if reverse { (row, column) } else { (column, row) };
        if before < to || (before == to && !exclusive) { 1.0 } else { 0.0 }
    })?;
    along(b, x, axis, ones)
}
