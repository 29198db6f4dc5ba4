//! One step's correlations for a whole batch, in the order and the words that the online loop reads, and
//! how they come to it in time.

use super::{missing, no_thread};
use crate::Error;
use crate::layout::{computed, fill_online, pattern, to_online};
use crate::offline::{MaterialError, Party0Material, Party1Material, masks};
use crate::protocol::polynomial::{self, PolynomialCorrelation, PolynomialShares};
use crate::protocol::square::{self, SquareCorrelation, SquareShares};
use crate::secret::{Elements, SecretTensor, WideElements};
use crate::words::{Words, WordsMut, each_slice};
use ir::op::matrix::Word;
use ir::plan::{Plan, Step, StepOp, StepWeights, Weights};
use ir::ring::low_mask;
use ir::{Shape, Tensor};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::Builder;
use zeroize::{Zeroize, Zeroizing};

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
    /// The stocks of a batch, in this order of steps: about `ahead` bytes of them now, the rest in the course
    /// of the phase, by a thread of its own, from items that may stand in a file.
    pub fn new(
        plan: &Plan,
        batch: usize,
        ahead: usize,
        order: Vec<usize>,
        mut make: impl FnMut(usize) -> Result<S, Error> + Send + 'a,
    ) -> Result<Self, Error> {
        let mut budget = ahead;
        let fits = |&&index: &&usize| {
            let rest = budget.checked_sub(bytes(plan, index) * batch);
            rest.inspect(|rest| budget = *rest).is_some()
        };
        let count = order.iter().take_while(fits).count();
        let now = order[..count].iter().map(|&index| Ok((index, make(index)?)));
        let ready = now.collect::<Result<_, Error>>()?;
        let (later, spent) = (order[count..].to_vec(), Vec::with_capacity(count));
        Ok(Self { ready, later, spent, make: Box::new(make) })
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
        if later.is_empty() {
            return run(&mut Stream { ready, spent, behind: None });
        }
        std::thread::scope(|scope| {
            let (made, coming) = sync_channel(1);
            let (back, returned) = channel();
            let supply = move || {
                for index in later.drain(..) {
                    if made.send(make(index).map(|stock| (index, stock))).is_err() {
                        return;
                    }
                    // Wiped here, where time is.
                    returned.try_iter().for_each(drop::<S>);
                }
                drop(made);
                returned.iter().for_each(drop);
            };
            let supplier = Builder::new().spawn_scoped(scope, supply).map_err(no_thread)?;
            let ended = run(&mut Stream { ready, spent, behind: Some((coming, back)) });
            let stopped = |_| Error::Internal("the thread that takes correlations stopped".into());
            supplier.join().map_err(stopped)?;
            ended
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
            let all = shape.elements() * items.len();
            let mut value = Zeroizing::new(Words::zeros(step.ring, all));
            let bias = bias(step, secrets);
            each(items, value.part_mut(0..all), |item, mut share| {
                item.linear(index, share.borrow())?;
                each_slice!(WordsMut, share, share => {
                    let mask = Word::low(low_mask(step.ring));
                    share.chunks_mut(bias.len()).for_each(|share| {
                        let pairs = share.iter_mut().zip(bias.iter());
                        pairs.for_each(|(s, b)| {
                            *s = Word::and(Word::minus(Word::low(*b), *s), mask);
                        });
                    });
                });
                Ok(())
            })?;
            Stock0::Linear(std::mem::take(&mut *value))
        }
        StepOp::Phase(phase) => {
            let (elements, per) = (shape.elements(), 2 * phase.harmonics as usize);
            let all = elements * items.len();
            let mut u = Zeroizing::new(vec![0; all]);
            let mut products = Zeroizing::new(Words::zeros(phase.q, all * per));
            let rooms = products.part_mut(0..all * per).chunks(elements * per);
            let mut work: Vec<_> =
                items.iter_mut().zip(u.chunks_exact_mut(elements).zip(rooms)).collect();
            work.par_iter_mut()
                .try_for_each(|(item, (u, products))| item.phase(index, u, products.borrow()))?;
            drop(work);
            Stock0::Phase(u, products)
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
    let all = shape.elements() * items.len();
    let mut fresh = Zeroizing::new(Words::zeros(step.ring, all));
    let room = fresh.part_mut(0..all);
    if known.fresh.is_empty() {
        each(items, room, |item, room| item.fresh(index, room))?;
    } else {
        let rooms = room.chunks(shape.elements());
        known.fresh.iter().zip(rooms).for_each(|(mask, room)| write_mask(shape, mask, room));
    }
    let kind = match &step.op {
        StepOp::Phase(phase) => {
            let all = all * 2 * phase.harmonics as usize;
            let mut products = Zeroizing::new(Words::zeros(phase.q, all));
            each(items, products.part_mut(0..all), |item, room| item.phase(index, room))?;
            Kind1::Phase(products)
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
            let all = step.shape.elements() * found.len();
            let mut masks = Zeroizing::new(Words::zeros(step.ring, all));
            let rooms = masks.part_mut(0..all).chunks(step.shape.elements());
            for (item, room) in found.iter().zip(rooms) {
                if let Some(mask) = &item[index] {
                    write_mask(&step.shape, mask, room);
                }
            }
            masks
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

/// Calls `of` with every item and its part of some words, on all cores.
fn each<M: Send>(
    items: &mut [M],
    words: WordsMut<'_>,
    of: impl Fn(&mut M, WordsMut<'_>) -> Result<(), MaterialError> + Sync,
) -> Result<(), MaterialError> {
    let part = words.len() / items.len().max(1);
    let mut work: Vec<_> = items.iter_mut().zip(words.chunks(part)).collect();
    work.par_iter_mut().try_for_each(|(item, words)| of(item, words.borrow()))
}

/// Writes an item's mask in the order online.
fn write_mask(shape: &Shape, mask: &Tensor<u64>, room: WordsMut<'_>) {
    let mut left = mask.data.as_slice();
    each_slice!(WordsMut, room, room => fill_online(shape, 1, room, |next| {
        let (now, later) = left.split_at(next.len());
        next.iter_mut().zip(now).for_each(|(to, v)| *to = Word::low(*v));
        left = later;
    }));
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

/// The bias in the order in which the step is computed; it repeats.
fn bias(step: &Step, secrets: &StepWeights) -> Zeroizing<Vec<u64>> {
    const SHORTEST: usize = 512;
    Zeroizing::new(match secrets {
        StepWeights::Linear { bias, .. } if bias.len() == step.shape.elements() => {
            to_online(&computed(step), 1, bias)
        }
        StepWeights::Linear { bias, .. } if !bias.is_empty() => match step.op {
            StepOp::MatrixProduct { .. } => bias.repeat(SHORTEST.div_ceil(bias.len())),
            _ => pattern(&step.shape, bias),
        },
        _ => vec![0; SHORTEST],
    })
}
