//! One step's correlations for a whole batch, in the order and the words that the online loop reads.

use crate::Error;
use crate::layout::{for_each_online, to_online};
use crate::offline::{MaterialError, Party0Material, Party1Material};
use crate::protocol::phase::PhaseCorrelation;
use crate::protocol::polynomial::{self, PolynomialCorrelation, PolynomialShares};
use crate::protocol::square::{self, SquareCorrelation, SquareShares};
use crate::secret::{Elements, WideElements};
use crate::words::{Words, each_width};
use ir::Shape;
use ir::op::matrix::Word;
use ir::plan::{Plan, Step, StepOp, StepWeights, Weights};
use ir::ring::low_mask;
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Bytes of correlations that are brought into this form before the online phase; the rest is when its
/// step comes.
pub const AHEAD: usize = 1 << 30;

/// Party 0's part.
pub enum Stock0 {
    /// Bias less the share `s₀`, to which the products are added.
    Linear(Words),
    /// `u`, and the shares of `G_1, H_1, …`.
    Phase(Zeroizing<Vec<u16>>, Zeroizing<Words>),
    /// As the items have it.
    Square(SquareCorrelation),
    /// As the items have it.
    Polynomial(PolynomialCorrelation),
}

/// Party 1's part.
pub enum Stock1 {
    /// The shares of `G_1, H_1, …`.
    Phase(Zeroizing<Words>),
    /// As the items have it.
    Square(SquareShares),
    /// As the items have it.
    Polynomial(PolynomialShares),
}

/// Bytes of a step's correlations for one item, about.
pub fn bytes(plan: &Plan, index: usize) -> usize {
    plan.correlation(index).map_or(0, |c| c.elements * Words::bits(c.bits) as usize / 8)
}

/// Takes party 0's material of a step from every item; `None` for steps that use none.
pub fn stock0<M: Party0Material>(
    plan: &Plan,
    weights: &Weights,
    index: usize,
    items: &mut [M],
) -> Result<Option<Stock0>, Error> {
    let (step, secrets) = (&plan.steps[index], &weights.steps[index]);
    let shape = &step.shape;
    Ok(Some(match &step.op {
        op if op.is_secret_linear() => {
            let bias = bias(step, secrets);
            let shares = take(items, |item| {
                let mut share = item.linear(index)?.0;
                let pairs = share.iter_mut().zip(bias.iter());
                pairs.for_each(|(s, b)| *s = b.wrapping_sub(*s) & low_mask(step.ring));
                Ok(share)
            })?;
            let is_product = matches!(op, StepOp::MatrixProduct { .. });
            let row_major = Shape::new([shape.elements()]);
            Stock0::Linear(words(
                if is_product { &row_major } else { shape },
                1,
                step.ring,
                &shares,
            ))
        }
        StepOp::Phase(phase) => {
            let parts = take(items, |item| item.phase(index))?;
            let mut u = Zeroizing::new(Vec::with_capacity(parts.len() * shape.elements()));
            parts.iter().for_each(|part| {
                for_each_online(shape, 1, &part.u, |v| u.push(v as u16));
            });
            let products: Vec<Elements> =
                parts.into_iter().map(|PhaseCorrelation { products, .. }| products).collect();
            let per = 2 * phase.harmonics as usize;
            Stock0::Phase(u, Zeroizing::new(words(shape, per, phase.q, &products)))
        }
        StepOp::Square(_) => {
            let parts = take(items, |item| item.square(index))?;
            Stock0::Square(SquareCorrelation {
                u: join(shape, 1, parts.iter().map(|p| &p.u)),
                bits: join(shape, 1, parts.iter().map(|p| &p.bits)),
                products: join(shape, square::PRODUCTS, parts.iter().map(|p| &p.products)),
            })
        }
        StepOp::Polynomial { degree, .. } => {
            let parts = take(items, |item| item.polynomial(index))?;
            let degree = *degree as usize;
            let per = polynomial::PRODUCTS * degree;
            Stock0::Polynomial(PolynomialCorrelation {
                u: join_wide(shape, degree - 1, parts.iter().map(|p| &p.u)),
                bits: join(shape, 1, parts.iter().map(|p| &p.bits)),
                products: join_wide(shape, per, parts.iter().map(|p| &p.products)),
            })
        }
        _ => return Ok(None),
    }))
}

/// Takes party 1's material of an activation step from every item; `None` for other steps.
pub fn stock1<M: Party1Material>(
    plan: &Plan,
    index: usize,
    items: &mut [M],
) -> Result<Option<Stock1>, Error> {
    let step = &plan.steps[index];
    let shape = &step.shape;
    Ok(Some(match &step.op {
        StepOp::Phase(phase) => {
            let parts = take(items, |item| Ok(item.phase(index)?.0))?;
            let per = 2 * phase.harmonics as usize;
            Stock1::Phase(Zeroizing::new(words(shape, per, phase.q, &parts)))
        }
        StepOp::Square(_) => {
            let parts = take(items, |item| Ok(item.square(index)?.0))?;
            Stock1::Square(SquareShares(join(shape, square::PRODUCTS, parts.iter())))
        }
        StepOp::Polynomial { degree, .. } => {
            let parts = take(items, |item| Ok(item.polynomial(index)?.0))?;
            let per = polynomial::PRODUCTS * *degree as usize;
            Stock1::Polynomial(PolynomialShares(join_wide(shape, per, parts.iter())))
        }
        _ => return Ok(None),
    }))
}

fn take<M: Send, T: Send>(
    items: &mut [M],
    of: impl Fn(&mut M) -> Result<T, MaterialError> + Send + Sync,
) -> Result<Vec<T>, Error> {
    Ok(items.par_iter_mut().map(of).collect::<Result<_, _>>()?)
}

/// The items' elements, `per` words each, in the order online and in words of a ring of `ring` bits.
pub fn words<T: std::ops::Deref<Target = Vec<u64>>>(
    shape: &Shape,
    per: usize,
    ring: u32,
    items: &[T],
) -> Words {
    let mut words = Words::zeros(ring, shape.elements() * per * items.len());
    each_width!(&mut words, words => {
        let mut words = words.iter_mut();
        for item in items {
            for_each_online(shape, per, item, |v| {
                if let Some(word) = words.next() {
                    *word = Word::low(v);
                }
            });
        }
    });
    words
}

fn join<'a>(shape: &Shape, per: usize, items: impl Iterator<Item = &'a Elements>) -> Elements {
    Zeroizing::new(items.flat_map(|item| to_online(shape, per, item)).collect())
}

fn join_wide<'a>(
    shape: &Shape,
    per: usize,
    items: impl Iterator<Item = &'a WideElements>,
) -> WideElements {
    Zeroizing::new(items.flat_map(|item| to_online(shape, per.max(1), item)).collect())
}

/// The bias of every element, row-major.
fn bias(step: &Step, secrets: &StepWeights) -> Zeroizing<Vec<u64>> {
    let StepWeights::Linear { bias, .. } = secrets else {
        return Zeroizing::new(vec![0; step.shape.elements()]);
    };
    let run = match step.op {
        _ if bias.len() == step.shape.elements() => 1,
        StepOp::MatrixProduct { .. } => 1,
        _ => step.shape.channel_stride(),
    };
    Zeroizing::new((0..step.shape.elements()).map(|i| bias[i / run % bias.len()]).collect())
}
