//! One step's correlations for a whole batch, in the order and the words that the online loop reads, and
//! how they come to it in time.

use super::missing;
use crate::Error;
use crate::layout::{to_online, write_online};
use crate::offline::{MaterialError, Party0Material, Party1Material, masks};
use crate::protocol::polynomial::{self, PolynomialCorrelation, PolynomialShares};
use crate::protocol::square::{self, SquareCorrelation, SquareShares};
use crate::secret::{Elements, SecretTensor, WideElements};
use crate::words::{Words, WordsRef, each_slice, each_width};
use ir::op::matrix::Word;
use ir::plan::{Plan, Step, StepOp, StepWeights, Weights};
use ir::ring::low_mask;
use ir::{Shape, Tensor};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of correlations that are brought into this form before the online phase. The rest is in the course
/// of it, by a thread of its own, from items that may stand in a file.
const AHEAD: usize = 1 << 30;

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

impl Drop for Stock0 {
    fn drop(&mut self) {
        if let Self::Linear(words) = self {
            words.zeroize();
        }
    }
}

/// Party 1's part of an activation.
pub struct Activation {
    /// The operand's masks; nothing for phases, which do not ask for them.
    pub operand: Option<Elements>,
    /// The fresh masks of its values.
    pub fresh: Zeroizing<Words>,
    /// Its correlations.
    pub kind: Kind1,
}

/// Party 1's shares of products.
pub enum Kind1 {
    /// The shares of `G_1, H_1, …`.
    Phase(Zeroizing<Words>),
    /// As the items have it.
    Square(SquareShares),
    /// As the items have it.
    Polynomial(PolynomialShares),
}

/// Bytes of a step's correlations for one item, about.
fn bytes(plan: &Plan, index: usize) -> usize {
    let products = plan.correlation(index).map_or(0, |c| c.elements * Words::bits(c.bits) as usize);
    let step = &plan.steps[index];
    (products + step.shape.elements() * Words::bits(step.ring) as usize) / 8
}

/// Stocks of steps in the order in which they are used: as many as are worth it are made at once, the
/// rest in time.
pub struct Feed<'a, S> {
    ready: VecDeque<(usize, S)>,
    /// The others.
    later: Vec<usize>,
    /// What was used of those that were ready, to be wiped after the phase.
    spent: Vec<S>,
    make: Box<dyn FnMut(usize) -> Result<S, Error> + Send + 'a>,
}

impl<'a, S: Send> Feed<'a, S> {
    /// The stocks of a batch, in this order of steps.
    pub fn new(
        plan: &Plan,
        batch: usize,
        order: Vec<usize>,
        mut make: impl FnMut(usize) -> Result<S, Error> + Send + 'a,
    ) -> Result<Self, Error> {
        let mut budget = AHEAD;
        let fits = |&&index: &&usize| {
            let rest = budget.checked_sub(bytes(plan, index) * batch);
            rest.inspect(|rest| budget = *rest).is_some()
        };
        let count = order.iter().take_while(fits).count();
        let now = order[..count].iter().map(|&index| Ok((index, make(index)?)));
        let ready = now.collect::<Result<_, Error>>()?;
        let later = order[count..].to_vec();
        Ok(Self { ready, later, spent: vec![], make: Box::new(make) })
    }

    /// Calls `run` with the stocks, once.
    ///
    /// # Errors
    /// Those of `run`, and of making a stock.
    pub fn during<T>(
        &mut self,
        run: impl FnOnce(&mut Stream<'_, S>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self { ready, later, spent, make } = self;
        spent.reserve(ready.len());
        if later.is_empty() {
            return run(&mut Stream { ready, spent, behind: None });
        }
        std::thread::scope(|scope| {
            let (made, coming) = sync_channel(1);
            let (back, returned) = channel();
            scope.spawn(move || {
                for index in later.drain(..) {
                    if made.send(make(index).map(|stock| (index, stock))).is_err() {
                        return;
                    }
                    // Wiped here, where time is.
                    returned.try_iter().for_each(drop::<S>);
                }
                drop(made);
                returned.iter().for_each(drop);
            });
            run(&mut Stream { ready, spent, behind: Some((coming, back)) })
        })
    }
}

/// Stocks as they are used.
pub struct Stream<'a, S> {
    ready: &'a mut VecDeque<(usize, S)>,
    spent: &'a mut Vec<S>,
    /// Those that are made meanwhile, and where they go back to.
    behind: Option<(Receiver<Made<S>>, Sender<S>)>,
}

/// A step and its stock.
type Made<S> = Result<(usize, S), Error>;

impl<S> Stream<'_, S> {
    /// The next stock, which must be this step's.
    pub fn next(&mut self, index: usize) -> Result<S, Error> {
        let next = match (self.ready.pop_front(), &self.behind) {
            (Some(next), _) => Some(next),
            (None, Some((coming, _))) => coming.recv().ok().transpose()?,
            (None, None) => None,
        };
        next.filter(|(of, _)| *of == index).map(|(_, stock)| stock).ok_or_else(|| missing(index))
    }

    /// Takes back what was used.
    pub fn spent(&mut self, stock: S) {
        match &self.behind {
            Some((_, back)) => drop(back.send(stock)),
            None => self.spent.push(stock),
        }
    }
}

/// Takes party 0's material of a step from every item.
pub fn stock0<M: Party0Material>(
    plan: &Plan,
    weights: &Weights,
    index: usize,
    items: &mut [M],
) -> Result<Stock0, Error> {
    let (step, secrets) = (&plan.steps[index], &weights.steps[index]);
    let shape = &step.shape;
    Ok(match &step.op {
        op if op.is_secret_linear() => {
            let bias = bias(step, secrets);
            let shares = take(items, |item| {
                let mut share = item.linear(index)?.0;
                each_width!(&mut *share, share => {
                    let mask = Word::low(low_mask(step.ring));
                    let pairs = share.iter_mut().zip(bias.iter());
                    pairs.for_each(|(s, b)| *s = Word::and(Word::minus(Word::low(*b), *s), mask));
                });
                Ok(share)
            })?;
            let is_product = matches!(op, StepOp::MatrixProduct { .. });
            let row_major = Shape::new([shape.elements()]);
            let shape = if is_product { &row_major } else { shape };
            let shares = shares.iter().map(|share| share.part(0..share.len()));
            Stock0::Linear(std::mem::take(&mut *words(shape, 1, step.ring, shares)))
        }
        StepOp::Phase(phase) => {
            let parts = take(items, |item| item.phase(index))?;
            let elements = shape.elements();
            let mut u = Zeroizing::new(vec![0; parts.len() * elements]);
            for (u, part) in u.chunks_exact_mut(elements).zip(&parts) {
                write_online(shape, 1, &part.u, u, |v| v as u16);
            }
            let per = 2 * phase.harmonics as usize;
            let products = parts.iter().map(|part| part.products.part(0..part.products.len()));
            Stock0::Phase(u, words(shape, per, phase.q, products))
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
        _ => return Err(missing(index)),
    })
}

/// Takes party 1's material of an activation step from every item; `known` are its masks if they were
/// taken before.
pub fn stock1<M: Party1Material>(
    plan: &Plan,
    index: usize,
    items: &mut [M],
    known: KnownMasks,
) -> Result<Activation, Error> {
    let step = &plan.steps[index];
    let shape = &step.shape;
    let fresh =
        if known.fresh.is_empty() { take(items, |item| item.mask(index))? } else { known.fresh };
    let fresh = words(shape, 1, step.ring, fresh.iter().map(|mask| WordsRef::W64(&mask.data)));
    let kind = match &step.op {
        StepOp::Phase(phase) => {
            let parts = take(items, |item| Ok(item.phase(index)?.0))?;
            let per = 2 * phase.harmonics as usize;
            Kind1::Phase(words(
                shape,
                per,
                phase.q,
                parts.iter().map(|part| part.part(0..part.len())),
            ))
        }
        StepOp::Square(_) => {
            let parts = take(items, |item| Ok(item.square(index)?.0))?;
            Kind1::Square(SquareShares(join(shape, square::PRODUCTS, parts.iter())))
        }
        StepOp::Polynomial { degree, .. } => {
            let parts = take(items, |item| Ok(item.polynomial(index)?.0))?;
            let per = polynomial::PRODUCTS * *degree as usize;
            Kind1::Polynomial(PolynomialShares(join_wide(shape, per, parts.iter())))
        }
        _ => return Err(missing(index)),
    };
    let operand = known.operand.map(|masks| {
        let items = masks.iter().flat_map(|mask| to_online(shape, 1, &mask.data));
        Zeroizing::new(items.collect())
    });
    Ok(Activation { operand, fresh, kind })
}

/// Party 1's masks that are needed before an activation asks for them.
pub struct Known {
    /// Of the input.
    pub input: Zeroizing<Words>,
    /// Of the output.
    pub output: Zeroizing<Words>,
    /// Of the steps.
    pub steps: Vec<KnownMasks>,
}

/// Masks of an activation, by item.
#[derive(Default)]
pub struct KnownMasks {
    /// Of its operand, for activations that ask for them.
    operand: Option<Vec<SecretTensor>>,
    /// The fresh ones of its values, if other masks follow from them.
    fresh: Vec<SecretTensor>,
}

impl Known {
    /// Takes them from every item.
    pub fn new<M: Party1Material>(plan: &Plan, items: &mut [M]) -> Result<Self, Error> {
        let asks = |step: &&Step| matches!(step.op, StepOp::Square(_) | StepOp::Polynomial { .. });
        let operands = plan.steps.iter().filter(asks).map(|step| step.operands[0].index());
        let output = plan.output.index();
        let kept: Vec<usize> = operands.chain([0, output]).collect();
        let wanted = masks::with_origins(plan, kept.iter().copied());
        let of_item = |item: &mut M| {
            let mut found: Vec<Option<SecretTensor>> = plan.steps.iter().map(|_| None).collect();
            masks::walk_to(
                plan,
                &wanted,
                |step| item.mask(step),
                |index, _, mask| {
                    let is_fresh = plan.steps[index].op.is_activation();
                    if is_fresh || kept.contains(&index) {
                        found[index] = Some(SecretTensor::new(mask.clone()));
                    }
                    Ok(())
                },
            )?;
            Ok(found)
        };
        let mut found = take(items, of_item)?;
        let mut steps: Vec<KnownMasks> = plan.steps.iter().map(|_| KnownMasks::default()).collect();
        for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| asks(step)) {
            let operand = step.operands[0].index();
            let of = |item: &Vec<Option<SecretTensor>>| {
                let mask = item[operand].as_ref().ok_or_else(|| missing(operand))?;
                Ok(SecretTensor::new(Tensor::clone(mask)))
            };
            steps[index].operand = Some(found.iter().map(of).collect::<Result<_, Error>>()?);
        }
        let of_step = |index: usize| {
            let step = &plan.steps[index];
            let items: Vec<&SecretTensor> = found.iter().flat_map(|item| &item[index]).collect();
            words(&step.shape, 1, step.ring, items.iter().map(|mask| WordsRef::W64(&mask.data)))
        };
        let (input, output) = (of_step(0), of_step(output));
        for (index, known) in steps.iter_mut().enumerate() {
            if plan.steps[index].op.is_activation() {
                known.fresh = found.iter_mut().filter_map(|item| item[index].take()).collect();
            }
        }
        Ok(Self { input, output, steps })
    }
}

fn take<M: Send, T: Send>(
    items: &mut [M],
    of: impl Fn(&mut M) -> Result<T, MaterialError> + Send + Sync,
) -> Result<Vec<T>, Error> {
    Ok(items.par_iter_mut().map(of).collect::<Result<_, _>>()?)
}

/// The items' elements, `per` words each, in the order online and in words of a ring of `ring` bits.
fn words<'i>(
    shape: &Shape,
    per: usize,
    ring: u32,
    items: impl ExactSizeIterator<Item = WordsRef<'i>>,
) -> Zeroizing<Words> {
    let length = shape.elements() * per;
    let mut words = Zeroizing::new(Words::zeros(ring, length * items.len()));
    each_width!(&mut *words, words => {
        for (words, item) in words.chunks_exact_mut(length).zip(items) {
            each_slice!(WordsRef, item, item => {
                write_online(shape, per, item, words, |v| Word::low(v.element()));
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
