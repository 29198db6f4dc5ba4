//! Public local steps on party 0's masked values, for a whole batch in the order online.

use super::schedule::{Form, Run};
use crate::layout::{axis, to_online, to_row_major};
use crate::steps::truncate;
use crate::words::{Words, WordsMut, WordsRef, each_slice, each_width};
use ir::plan::{Local, Step, StepOp, StepWeights};
use ir::ring::low_mask;
use ir::word::{Word, vectorized};
use ir::{Shape, Tensor};

/// Computes a public step from its operands, which have these shapes.
pub fn public<'v>(
    step: &Step,
    form: &Form,
    shapes: impl Fn(usize) -> &'v Shape,
    operand: impl Fn(usize) -> &'v Words,
    out: &mut Words,
) {
    if matches!(form, Form::Rows) {
        return in_rows(step, shapes, operand, out);
    }
    let shape = shapes(0);
    each_width!(out, out => {
        let mask = Word::low(low_mask(step.ring));
        let StepOp::Local(kind) = &step.op else { return };
        match (form, kind) {
            (Form::Rows, _) => {}
            (Form::Joined(runs), _) => {
                let (joined, mut at) = (runs.iter().sum(), 0);
                for (i, &run) in runs.iter().enumerate() {
                    each_width!(operand(i), x => join(run, joined, at, x, out, mask));
                    at += run;
                }
            }
            (Form::Moved(runs), _) => each_width!(operand(0), x => {
                moved(runs, shape.elements(), step.shape.elements(), x, out, mask);
            }),
            (Form::Sums(axes, dims), _) => {
                each_width!(operand(0), x => sum_axes(dims, axes, x, out, mask));
            }
            (Form::Same, Local::SumPool { kernel, stride }) => {
                each_width!(operand(0), x => sum_windows(shape, *kernel, *stride, x, out, mask));
            }
            (Form::Same, Local::Add) => {
                each_width!(operand(0), x => reduced(x, out, mask));
                each_width!(operand(1), x => add(x, out, mask));
            }
            (Form::Same, Local::Scale { factor }) => {
                each_width!(operand(0), x => scaled(x, out, mask, *factor));
            }
            (Form::Same, Local::Truncate { shift }) => {
                each_width!(operand(0), x => truncated(x, out, step.ring, *shift));
            }
            // These have forms of their own.
            (
                Form::Same,
                Local::ReduceSum { .. }
                | Local::Reshape
                | Local::Transpose { .. }
                | Local::Gather { .. }
                | Local::Concat { .. },
            ) => {}
        }
    });
}

/// Computes a step by its definition, item by item, in row-major order.
fn in_rows<'v>(
    step: &Step,
    shapes: impl Fn(usize) -> &'v Shape,
    operand: impl Fn(usize) -> &'v Words,
    out: &mut Words,
) {
    let elements = step.shape.elements();
    for item in 0..out.len() / elements {
        let of_item = |i: usize| {
            let (shape, words) = (shapes(i), operand(i));
            let all: Vec<u64> = each_width!(words, words => {
                let start = item * shape.elements();
                words[start..start + shape.elements()].iter().map(|v| v.element()).collect()
            });
            Tensor::new(shape.clone(), to_row_major(shape, &all))
        };
        let tensors: Vec<Tensor<u64>> = (0..step.operands.len()).map(of_item).collect();
        let operands: Vec<&Tensor<u64>> = tensors.iter().collect();
        let result = step.apply(&StepWeights::None, &operands);
        let online = to_online(&step.shape, 1, &result.data);
        each_width!(out, out => {
            let out = &mut out[item * elements..(item + 1) * elements];
            out.iter_mut().zip(online).for_each(|(out, v)| *out = Word::low(v));
        });
    }
}

/// Applies an elementwise step to `v` in place; an addition adds `other`.
pub fn in_place(step: &Step, v: WordsMut<'_>, other: Option<WordsRef<'_>>) {
    each_slice!(WordsMut, v, v => {
        let mask = Word::low(low_mask(step.ring));
        match (&step.op, other) {
            (_, Some(other)) => each_slice!(WordsRef, other, x => add(x, v, mask)),
            (StepOp::Local(Local::Scale { factor }), _) => {
                let factor = Word::low(*factor as u64);
                vectorized(#[inline(always)] || {
                    v.iter_mut().for_each(|v| *v = Word::and(Word::times(*v, factor), mask));
                });
            }
            (StepOp::Local(Local::Truncate { shift }), _) => vectorized(#[inline(always)] || {
                v.iter_mut().for_each(|v| *v = truncate::masked(*v, step.ring, *shift));
            }),
            _ => {}
        }
    });
}

/// Copies the elements into another ring.
fn reduced<S: Word, W: Word>(x: &[S], out: &mut [W], mask: W) {
    let pairs = out.iter_mut().zip(x);
    vectorized(
        #[inline(always)]
        || pairs.for_each(|(out, x)| *out = W::low(x.element()).and(mask)),
    );
}

fn scaled<S: Word, W: Word>(x: &[S], out: &mut [W], mask: W, factor: i64) {
    let (pairs, factor) = (out.iter_mut().zip(x), W::low(factor as u64));
    vectorized(
        #[inline(always)]
        || pairs.for_each(|(out, x)| *out = W::low(x.element()).times(factor).and(mask)),
    );
}

fn truncated<S: Word, W: Word>(x: &[S], out: &mut [W], ring: u32, shift: u32) {
    let pairs = out.iter_mut().zip(x);
    vectorized(
        #[inline(always)]
        || {
            let cut = |x: &S| W::low(truncate::masked(x.element(), ring, shift));
            pairs.for_each(|(out, x)| *out = cut(x));
        },
    );
}

fn add<S: Word, W: Word>(x: &[S], out: &mut [W], mask: W) {
    vectorized(
        #[inline(always)]
        || {
            for (out, x) in out.iter_mut().zip(x) {
                *out = out.plus(W::low(x.element())).and(mask);
            }
        },
    );
}

fn moved<S: Word, W: Word>(
    runs: &[Run],
    elements: usize,
    results: usize,
    x: &[S],
    out: &mut [W],
    mask: W,
) {
    for (x, out) in x.chunks_exact(elements).zip(out.chunks_exact_mut(results)) {
        let mut rest = out;
        for &Run { from, count } in runs {
            let (now, later) = rest.split_at_mut(count);
            match from {
                Some(from) => {
                    let pairs = now.iter_mut().zip(&x[from..from + count]);
                    pairs.for_each(|(out, x)| *out = W::low(x.element()).and(mask));
                }
                None => now.fill(W::default()),
            }
            rest = later;
        }
    }
}

/// Copies runs of `run` elements into runs of `joined`, each from `at` on.
fn join<S: Word, W: Word>(run: usize, joined: usize, at: usize, x: &[S], out: &mut [W], mask: W) {
    for (x, out) in x.chunks_exact(run).zip(out.chunks_exact_mut(joined)) {
        let pairs = out[at..at + run].iter_mut().zip(x);
        pairs.for_each(|(out, x)| *out = W::low(x.element()).and(mask));
    }
}

/// Sums windows of the last two axes of a shape.
fn sum_windows<S: Word, W: Word>(
    shape: &Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    x: &[S],
    out: &mut [W],
    mask: W,
) {
    let rank = shape.rank();
    let (h, w) = (shape.0[rank - 2], shape.0[rank - 1]);
    let inner = if axis(shape, rank - 1) == rank - 1 { 1 } else { shape.channels() };
    let (oh, ow) = ((h - kernel[0]) / stride[0] + 1, (w - kernel[1]) / stride[1] + 1);
    vectorized(
        #[inline(always)]
        || {
            let planes = x.chunks_exact(h * w * inner).zip(out.chunks_exact_mut(oh * ow * inner));
            for (x, sums) in planes {
                for (position, sums) in sums.chunks_exact_mut(inner).enumerate() {
                    let (y, column) = (position / ow * stride[0], position % ow * stride[1]);
                    sums.fill(W::default());
                    for dy in 0..kernel[0] {
                        let start = ((y + dy) * w + column) * inner;
                        for x in x[start..start + kernel[1] * inner].chunks_exact(inner) {
                            let pairs = sums.iter_mut().zip(x);
                            pairs.for_each(|(s, x)| *s = s.plus(W::low(x.element())));
                        }
                    }
                    sums.iter_mut().for_each(|s| *s = s.and(mask));
                }
            }
        },
    );
}

/// Sums over sorted axes; adjacent axes are summed as one.
fn sum_axes<S: Word, W: Word>(dims: &[usize], axes: &[usize], x: &[S], out: &mut [W], mask: W) {
    let Some((&last, before)) = axes.split_last() else {
        return reduced(x, out, mask);
    };
    let first = before.iter().rev().fold(last, |first, &a| if a + 1 == first { a } else { first });
    let before = &before[..before.len() - (last - first)];
    let inner: usize = dims[last + 1..].iter().product();
    let middle: usize = dims[first..=last].iter().product();
    if !before.is_empty() {
        let mut sums = vec![W::default(); x.len() / middle];
        sum_axes(dims, &axes[before.len()..], x, &mut sums, mask);
        let mut dims = dims.to_vec();
        dims[first..=last].fill(1);
        return sum_axes(&dims, before, &sums, out, mask);
    }
    vectorized(
        #[inline(always)]
        || {
            for (x, sums) in x.chunks_exact(middle * inner).zip(out.chunks_exact_mut(inner)) {
                sums.fill(W::default());
                for x in x.chunks_exact(inner) {
                    let pairs = sums.iter_mut().zip(x);
                    pairs.for_each(|(s, x)| *s = s.plus(W::low(x.element())));
                }
                sums.iter_mut().for_each(|s| *s = s.and(mask));
            }
        },
    );
}
