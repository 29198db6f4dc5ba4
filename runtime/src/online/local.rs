//! Public local steps on party 0's masked values, for a whole batch in the order online.

use crate::layout::{axis, dims, to_online, to_row_major};
use crate::protocol::truncate;
use crate::words::{Words, each_width};
use ir::op::matrix::{Word, vectorized};
use ir::plan::{Step, StepOp};
use ir::ring::low_mask;
use ir::{Shape, Tensor};

/// The value of a public step from those of its operands and their shapes.
pub fn public(step: &Step, shapes: &[&Shape], operands: &[&Words]) -> Words {
    match step.ring {
        0..=16 => Words::W16(of_words(step, shapes, operands)),
        17..=32 => Words::W32(of_words(step, shapes, operands)),
        _ => Words::W64(of_words(step, shapes, operands)),
    }
}

fn of_words<W: Word>(step: &Step, shapes: &[&Shape], operands: &[&Words]) -> Vec<W> {
    let mask = W::low(low_mask(step.ring));
    match &step.op {
        StepOp::Scale { factor } => {
            let factor = W::low(*factor as u64);

            convert(
                operands[0],
                #[inline(always)]
                |v: u64| W::low(v).times(factor).and(mask),
            )
        }
        StepOp::Rescale { shift } => convert(
            operands[0],
            #[inline(always)]
            |v: u64| W::low(truncate::masked(v, step.ring, *shift)),
        ),
        StepOp::Add => {
            let mut sum = reduced::<W>(operands[0], mask);
            each_width!(operands[1], x => vectorized(
                #[inline(always)]
                || for (sum, x) in sum.iter_mut().zip(x) {
                    *sum = sum.plus(W::low(x.element())).and(mask);
                }
            ));
            sum
        }
        StepOp::Concat { axis: along } => {
            let parts: Vec<Vec<W>> = operands.iter().map(|x| reduced(x, mask)).collect();
            concat(shapes, &parts, *along)
        }
        op => {
            let x = reduced::<W>(operands[0], mask);
            let mut y = structural(op, shapes[0], &step.shape, x);
            vectorized(
                #[inline(always)]
                || y.iter_mut().for_each(|v| *v = v.and(mask)),
            );
            y
        }
    }
}

#[inline(always)]
fn convert<W: Word>(words: &Words, of: impl Fn(u64) -> W) -> Vec<W> {
    each_width!(words, words => vectorized(
        #[inline(always)]
        || words.iter().map(|v| of(v.element())).collect()
    ))
}

fn reduced<W: Word>(words: &Words, mask: W) -> Vec<W> {
    convert(
        words,
        #[inline(always)]
        |v: u64| W::low(v).and(mask),
    )
}

/// Steps that move or add elements of one operand.
fn structural<W: Word>(op: &StepOp, shape: &Shape, result: &Shape, x: Vec<W>) -> Vec<W> {
    let dims = dims(shape);
    match op {
        StepOp::Reshape => to_online(result, 1, &to_row_major(shape, &x)),
        StepOp::Take { axis: along, indices } => take(&dims, axis(shape, *along), indices, &x),
        StepOp::SumWindows { kernel, stride } => sum_windows(shape, *kernel, *stride, &x),
        StepOp::SumAxes { axes } => {
            let mut axes: Vec<usize> = axes.iter().map(|&a| axis(shape, a)).collect();
            axes.sort_unstable();
            axes.dedup();
            sum_axes(&dims, &axes, &x)
        }
        StepOp::Transpose { permutation } => {
            let each = |item: &[W]| {
                let item = Tensor::new(shape.clone(), to_row_major(shape, item));
                to_online(result, 1, &item.transpose(permutation).data)
            };
            x.chunks_exact(shape.elements()).flat_map(each).collect()
        }
        StepOp::Input
        | StepOp::Constant
        | StepOp::Convolution { .. }
        | StepOp::MatrixProduct { .. }
        | StepOp::Diagonal { .. }
        | StepOp::Add
        | StepOp::Scale { .. }
        | StepOp::Concat { .. }
        | StepOp::Rescale { .. }
        | StepOp::Phase(_)
        | StepOp::Square(_)
        | StepOp::Polynomial { .. } => unreachable!("{} is handled elsewhere", op.name()),
    }
}

fn take<W: Word>(dims: &[usize], axis: usize, indices: &[Option<u32>], x: &[W]) -> Vec<W> {
    let inner: usize = dims[axis + 1..].iter().product();
    let mut runs: Vec<(Option<usize>, usize)> = vec![];
    for index in indices.iter().map(|index| index.map(|i| i as usize)) {
        match (runs.last_mut(), index) {
            (Some((None, count)), None) => *count += 1,
            (Some((Some(first), count)), Some(i)) if *first + *count == i => *count += 1,
            _ => runs.push((index, 1)),
        }
    }
    let mut taken = Vec::with_capacity(x.len() / dims[axis] * indices.len());
    for block in x.chunks_exact(dims[axis] * inner) {
        for &(first, count) in &runs {
            match first {
                Some(first) => {
                    taken.extend_from_slice(&block[first * inner..(first + count) * inner]);
                }
                None => taken.resize(taken.len() + count * inner, W::default()),
            }
        }
    }
    taken
}

fn concat<W: Word>(shapes: &[&Shape], parts: &[Vec<W>], along: usize) -> Vec<W> {
    let run = |shape: &Shape| dims(shape)[axis(shape, along)..].iter().product::<usize>();
    let runs: Vec<usize> = shapes.iter().map(|shape| run(shape)).collect();
    let mut joined = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    for block in 0..parts[0].len() / runs[0] {
        for (part, run) in parts.iter().zip(&runs) {
            joined.extend_from_slice(&part[block * run..(block + 1) * run]);
        }
    }
    joined
}

/// Sums windows of the last two axes of a shape.
fn sum_windows<W: Word>(shape: &Shape, kernel: [usize; 2], stride: [usize; 2], x: &[W]) -> Vec<W> {
    let rank = shape.rank();
    let (h, w) = (shape.0[rank - 2], shape.0[rank - 1]);
    let inner = if axis(shape, rank - 1) == rank - 1 { 1 } else { shape.channels() };
    let (oh, ow) = ((h - kernel[0]) / stride[0] + 1, (w - kernel[1]) / stride[1] + 1);
    let mut sums = vec![W::default(); x.len() / (h * w) * oh * ow];
    vectorized(
        #[inline(always)]
        || {
            let planes = x.chunks_exact(h * w * inner).zip(sums.chunks_exact_mut(oh * ow * inner));
            for (x, sums) in planes {
                for (place, sums) in sums.chunks_exact_mut(inner).enumerate() {
                    let (y, column) = (place / ow * stride[0], place % ow * stride[1]);
                    for dy in 0..kernel[0] {
                        let start = ((y + dy) * w + column) * inner;
                        for x in x[start..start + kernel[1] * inner].chunks_exact(inner) {
                            sums.iter_mut().zip(x).for_each(|(s, &x)| *s = s.plus(x));
                        }
                    }
                }
            }
        },
    );
    sums
}

/// Sums over sorted axes; neighbours are summed as one.
fn sum_axes<W: Word>(dims: &[usize], axes: &[usize], x: &[W]) -> Vec<W> {
    let Some((&last, before)) = axes.split_last() else { return x.to_vec() };
    let first = before.iter().rev().fold(last, |first, &a| if a + 1 == first { a } else { first });
    let before = &before[..before.len() - (last - first)];
    let inner: usize = dims[last + 1..].iter().product();
    let middle: usize = dims[first..=last].iter().product();
    let mut sums = vec![W::default(); x.len() / middle];
    vectorized(
        #[inline(always)]
        || {
            for (x, sums) in x.chunks_exact(middle * inner).zip(sums.chunks_exact_mut(inner)) {
                for x in x.chunks_exact(inner) {
                    sums.iter_mut().zip(x).for_each(|(s, &x)| *s = s.plus(x));
                }
            }
        },
    );
    let mut dims = dims.to_vec();
    dims[first..=last].fill(1);
    if before.is_empty() { sums } else { sum_axes(&dims, before, &sums) }
}
