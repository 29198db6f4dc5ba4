//! The exchanges of the offline phase, whatever the kind of the step: what is done stands in the plan.
//!
//! Each is about a part of a step's elements, and goes in turns ([`ir::plan::Action`]): party 1 asks with its masks,
//! party 0 answers, party 1 finishes. Where
//! party 0 chooses in transfers of its own, party 1 sends once more and party 0 finishes last. Lengths are those
//! of [`ir::plan::Cost`].

use super::reverse::Answered;
use super::{linear, phase, polynomial, select, square, table};
use crate::Error;
use crate::preprocess::expand::{Domain, Seed};
use crate::preprocess::rlwe::{PublicKeys, SecretKeys};
use crate::preprocess::transfer::{Block, TransferError, Transfers};
use crate::secret::{Elements, WideElements};
use ir::plan::{
    Exchange, Interactive, Linear, Method, Packing, Plan, Polynomial, SlotPacking, Step, StepOp,
    StepWeights, Weights,
};
use zeroize::{Zeroize, Zeroizing};

/// What an exchange makes for one party of a field of the step's correlation, element by element.
pub enum Share {
    /// Of at most 64 bits each.
    Narrow(Elements),
    /// Of at most 127 bits each.
    Wide(WideElements),
    /// A field of the step as a whole, item by item.
    Whole(Elements),
}

/// The fields that an exchange makes for one party, from the first on.
pub type Shares = Vec<Share>;

/// How a party goes on when it has taken the peer's message; `S` is what it keeps until the next one.
pub enum Turn<S> {
    /// With a message, and there is more to come.
    More(S, Vec<u8>),
    /// It has its shares, and perhaps a last message.
    Done(Shares, Option<Vec<u8>>),
}

fn narrow(elements: Elements) -> Shares {
    vec![Share::Narrow(elements)]
}

fn all_narrow<const N: usize>(fields: [Elements; N]) -> Shares {
    fields.into_iter().map(Share::Narrow).collect()
}

/// What a party works with: `K` are its keys.
pub struct Tools<'a, K> {
    /// Its transfers with the peer.
    pub transfers: &'a mut Transfers,
    /// Its keys.
    pub keys: &'a K,
    /// The number of the exchange, another one for each of a session.
    pub number: u32,
    /// That of the group's first exchange.
    pub group: u32,
}

impl<K> Tools<'_, K> {
    /// The names of the permutations of an exchange's shared trees, item by item.
    fn tree_names(&self, exchange: &Exchange) -> Vec<Block> {
        let name = |item| self.transfers.trees_name(self.group, item, exchange.step);
        exchange.items.clone().map(name).collect()
    }
}

/// Party 1 after its first message.
pub enum Asked {
    /// `W·r` by encryption.
    Encryption(Box<Packing>),
    /// Products with secret factors.
    Hadamard(linear::hadamard::Asked),
    /// Of a phase step, by trees.
    Trees(phase::trees::Asked),
    /// Of a phase step, by encryption.
    Slots(SlotPacking),
    /// Of a square step.
    Square(square::offline::Asked),
    /// Of a polynomial step.
    Polynomial(polynomial::offline::Asked),
    /// Of a select step.
    Select(select::offline::Asked),
    /// Of a table step.
    Table(Trees),
}

/// Party 0 after its answer.
pub enum Open {
    /// Of a phase step, by encryption.
    Slots(Answered<Elements>, SlotPacking),
    /// Of a square step.
    Square(Answered<Elements>),
    /// Of a polynomial step.
    Polynomial(Answered<WideElements>),
    /// Of a select step.
    Select(select::offline::Answered),
    /// Of a table step.
    Table(Trees),
}

/// Either party's trees of a table step, as far as they are made.
pub struct Trees {
    making: Box<table::offline::Making>,
    /// The field of the whole step.
    whole: Elements,
}

impl Trees {
    fn new(transfers: &Transfers, making: table::offline::Making, names: &[Block]) -> Self {
        let whole = table::offline::whole(names, transfers.sender.delta());
        Self { making: Box::new(making), whole }
    }

    fn take(self, transfers: &mut Transfers, message: &[u8]) -> Result<Turn<Self>, TransferError> {
        let Self { making, whole } = self;
        Ok(match making.take(transfers, message)? {
            table::offline::Turn::More(making, message) => {
                Turn::More(Self { making, whole }, message)
            }
            table::offline::Turn::Done(made) => {
                let fields = all_narrow([made.seeds, made.factors, made.shifts]);
                let fields = std::iter::once(Share::Whole(whole)).chain(fields);
                Turn::Done(fields.collect(), None)
            }
        })
    }
}

/// The masks of one operand of an exchange's items.
pub type Masks<'a> = Vec<&'a [u64]>;

/// The exchange's elements of the masks of an operand that is read elementwise.
fn elements(exchange: &Exchange, masks: &Masks<'_>) -> Elements {
    let range = exchange.elements.clone();
    Zeroizing::new(masks.iter().flat_map(|m| m[range.clone()].iter().copied()).collect())
}

fn no_such(exchange: &Exchange) -> Error {
    Error::Internal(format!("step v{} has no such exchange", exchange.step))
}

/// Party 1's first message for its masks of the operands, operand by operand.
///
/// # Errors
/// If the exchange is none of the step's: a defect.
pub fn ask(
    tools: &mut Tools<'_, SecretKeys>,
    plan: &Plan,
    exchange: &Exchange,
    masks: &[Masks<'_>],
) -> Result<(Asked, Vec<u8>), Error> {
    let Step { ring, op, operands, .. } = &plan.steps[exchange.step];
    let names = tools.tree_names(exchange);
    let Tools { transfers, keys, number, .. } = tools;
    let first = masks.first().ok_or_else(|| no_such(exchange))?;
    let operand_ring = plan.step(operands[0]).ring;
    Ok(match (op, &exchange.method) {
        (
            StepOp::Linear(Linear::Convolution { .. } | Linear::MatrixProduct { .. }),
            Method::Encryption(packing),
        ) => {
            let message = keys.encrypt(packing, *number, first);
            (Asked::Encryption(packing.clone()), message)
        }
        (StepOp::Linear(Linear::Hadamard { .. }), Method::Transfers) => {
            let (asked, message) =
                linear::hadamard::ask(transfers, *ring, &elements(exchange, first));
            (Asked::Hadamard(asked), message)
        }
        (StepOp::Interactive(Interactive::Phase(phase)), Method::Trees) => {
            let masks = elements(exchange, first);
            let (asked, message) = phase::trees::ask(transfers, phase, operand_ring, &masks);
            (Asked::Trees(asked), message)
        }
        (StepOp::Interactive(Interactive::Phase(phase)), Method::Slots(packing)) => {
            let (masks, of) = (elements(exchange, first), (phase, operand_ring));
            let message = phase::slots::ask(keys, packing, *number, of, &masks);
            (Asked::Slots(packing.clone()), message)
        }
        (StepOp::Interactive(Interactive::Square(square)), Method::Transfers) => {
            let (asked, message) =
                square::offline::ask(transfers, square, &elements(exchange, first));
            (Asked::Square(asked), message)
        }
        (
            StepOp::Interactive(Interactive::Polynomial(Polynomial { square, degree })),
            Method::Transfers,
        ) => {
            let masks = elements(exchange, first);
            let (asked, message) = polynomial::offline::ask(transfers, square, *degree, &masks);
            (Asked::Polynomial(asked), message)
        }
        (StepOp::Interactive(Interactive::Select(kind)), Method::Transfers) => {
            let masks = elements(exchange, first);
            let (asked, message) = select::offline::ask(transfers, kind, *ring, &masks);
            (Asked::Select(asked), message)
        }
        (StepOp::Interactive(Interactive::Table(kind)), Method::SharedTrees) => {
            let masks = elements(exchange, first);
            let (making, message) = table::offline::ask(transfers, kind, &names, &masks);
            (Asked::Table(Trees::new(transfers, making, &names)), message)
        }
        (
            StepOp::Input
            | StepOp::Constant
            | StepOp::Local(_)
            | StepOp::Linear(_)
            | StepOp::Interactive(
                Interactive::Phase(_)
                | Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
            ),
            _,
        ) => return Err(no_such(exchange)),
    })
}

impl Asked {
    /// Party 1's next turn, from party 0's message.
    ///
    /// # Errors
    /// If the message is none of this protocol.
    pub fn take(
        self,
        transfers: &mut Transfers,
        keys: &SecretKeys,
        answer: &[u8],
    ) -> Result<Turn<Self>, TransferError> {
        let (shares, last) = match self {
            Self::Encryption(packing) => {
                let shares = keys.decrypt(&packing, answer).map_err(TransferError::Ciphertext)?;
                let shares = shares.iter().flat_map(|s| s.iter().copied()).collect();
                (narrow(Zeroizing::new(shares)), None)
            }
            Self::Hadamard(asked) => (narrow(asked.finish(transfers, answer)?), None),
            Self::Trees(asked) => (narrow(asked.finish(transfers, answer)?), None),
            Self::Slots(packing) => {
                let (last, shares) = phase::slots::finish(transfers, keys, &packing, answer)?;
                (narrow(shares), Some(last))
            }
            Self::Square(asked) => {
                let (last, shares) = asked.finish(transfers, answer)?;
                (narrow(shares), Some(last))
            }
            Self::Polynomial(asked) => {
                let (last, shares) = asked.finish(transfers, answer)?;
                (vec![Share::Wide(shares)], Some(last))
            }
            Self::Select(asked) => {
                let (last, fields) = asked.finish(transfers, answer)?;
                (all_narrow(fields), Some(last))
            }
            Self::Table(trees) => {
                return Ok(match trees.take(transfers, answer)? {
                    Turn::More(trees, message) => Turn::More(Self::Table(trees), message),
                    Turn::Done(shares, last) => Turn::Done(shares, last),
                });
            }
        };
        Ok(Turn::Done(shares, last))
    }
}

/// Party 0's first message of an exchange in which it does not wait for party 1's. `seeds` are those of the exchange's
/// items.
///
/// # Errors
/// If the exchange is none of the step's: a defect.
pub fn open(
    tools: &mut Tools<'_, PublicKeys>,
    plan: &Plan,
    exchange: &Exchange,
    seeds: &[Seed],
) -> Result<(Open, Vec<u8>), Error> {
    let (index, step) = (exchange.step, &plan.steps[exchange.step]);
    match (&step.op, &exchange.method) {
        (StepOp::Interactive(Interactive::Table(kind)), Method::SharedTrees) => {
            let all = step.shape.elements();
            let draws = seeds.iter().map(|seed| seed.elements(index, Domain::Opening, all, kind.p));
            let (u, names) = (part(draws, exchange, 1), tools.tree_names(exchange));
            let (making, message) = table::offline::open(tools.transfers, kind, &names, &u);
            Ok((Open::Table(Trees::new(tools.transfers, making, &names)), message))
        }
        (
            StepOp::Input
            | StepOp::Constant
            | StepOp::Local(_)
            | StepOp::Linear(_)
            | StepOp::Interactive(
                Interactive::Phase(_)
                | Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
            ),
            _,
        ) => Err(no_such(exchange)),
    }
}

/// Party 0's answer to party 1's first message. `seeds` are those of the exchange's items, from which expands what it draws itself.
///
/// # Errors
/// If party 1's message is none of this protocol, or the exchange none of the step's.
pub fn answer(
    tools: &mut Tools<'_, PublicKeys>,
    plan: &Plan,
    weights: &Weights,
    exchange: &Exchange,
    seeds: &[Seed],
    message: &[u8],
) -> Result<Turn<Open>, Error> {
    let refused = |e: TransferError| Error::Peer(e.to_string());
    let Tools { transfers, keys, number, .. } = tools;
    let (index, step) = (exchange.step, &plan.steps[exchange.step]);
    let all = step.shape.elements();
    // Several items come with all of their elements.
    let start = exchange.elements.start;
    let range = start..start + seeds.len() * exchange.elements.len();
    let draw = |domain: Domain, bits: u32| {
        part(seeds.iter().map(|seed| seed.elements(index, domain, all, bits)), exchange, 1)
    };
    Ok(match (&step.op, &weights.steps[index], &exchange.method) {
        (
            StepOp::Linear(Linear::Convolution { .. } | Linear::MatrixProduct { .. }),
            StepWeights::Linear { weights, .. },
            Method::Encryption(packing),
        ) => {
            let share = |seed: &Seed| seed.elements(index, Domain::Mask, all, step.ring);
            let shares: Vec<Elements> = seeds.iter().map(share).collect();
            let answer = keys.answer(packing, *number, weights, message, &shares);
            let answer = answer.map_err(|e| Error::Peer(e.to_string()))?;
            let shares = shares.iter().flat_map(|s| s.iter().copied()).collect();
            Turn::Done(narrow(Zeroizing::new(shares)), Some(answer))
        }
        (
            StepOp::Linear(Linear::Hadamard { .. }),
            StepWeights::Linear { weights, .. },
            Method::Transfers,
        ) => {
            let factors = Zeroizing::new(weights[exchange.elements.clone()].repeat(seeds.len()));
            let (answer, shares) =
                linear::hadamard::answer(transfers, step.ring, &factors, message)
                    .map_err(refused)?;
            Turn::Done(narrow(shares), Some(answer))
        }
        (
            StepOp::Interactive(Interactive::Phase(phase)),
            StepWeights::Phase { harmonics, .. },
            Method::Trees,
        ) => {
            let u = draw(Domain::Opening, phase.p);
            let (answer, shares) =
                phase::trees::answer(transfers, phase, step, harmonics, range, &u, message)
                    .map_err(refused)?;
            Turn::Done(narrow(shares), Some(answer))
        }
        (
            StepOp::Interactive(Interactive::Phase(phase)),
            StepWeights::Phase { harmonics, .. },
            Method::Slots(packing),
        ) => {
            let u = draw(Domain::Opening, phase.p);
            let factors = phase::trees::factors(phase, step, harmonics, range, &u);
            let (open, answer) =
                phase::slots::answer(transfers, keys, packing, *number, &factors, message)
                    .map_err(refused)?;
            Turn::More(Open::Slots(open, packing.clone()), answer)
        }
        (StepOp::Interactive(Interactive::Square(square)), _, Method::Transfers) => {
            let (u, bits) = (draw(Domain::Opening, square.p), draw(Domain::Bits, 2));
            let (open, answer) =
                square::offline::answer(transfers, square, &u, &bits, message).map_err(refused)?;
            Turn::More(Open::Square(open), answer)
        }
        (
            StepOp::Interactive(Interactive::Polynomial(Polynomial { square, degree })),
            StepWeights::Polynomial { coefficients },
            Method::Transfers,
        ) => {
            let own = *degree as usize - 1;
            let pads = seeds
                .iter()
                .map(|seed| seed.wide_elements(index, Domain::Opening, all * own, square.q));
            let u = part(pads, exchange, own);
            let bits = draw(Domain::Bits, 1);
            let own = (&u[..], &bits[..]);
            let (open, answer) = polynomial::offline::answer(
                transfers,
                square,
                step,
                coefficients,
                range,
                own,
                message,
            )
            .map_err(refused)?;
            Turn::More(Open::Polynomial(open), answer)
        }
        (StepOp::Interactive(Interactive::Select(kind)), _, Method::Transfers) => {
            let wraps = draw(Domain::Bits, 1);
            let (open, answer) =
                select::offline::answer(transfers, kind, step.ring, &wraps, message)
                    .map_err(refused)?;
            Turn::More(Open::Select(open), answer)
        }
        (
            StepOp::Input
            | StepOp::Constant
            | StepOp::Local(_)
            | StepOp::Linear(_)
            | StepOp::Interactive(
                Interactive::Phase(_)
                | Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
            ),
            ..,
        ) => return Err(no_such(exchange)),
    })
}

impl Open {
    /// Party 0's next turn, from party 1's message.
    ///
    /// # Errors
    /// If the message is none of this protocol.
    pub fn take(
        self,
        transfers: &mut Transfers,
        step: &Step,
        message: &[u8],
    ) -> Result<Turn<Self>, TransferError> {
        let shares = match (self, &step.op) {
            (Self::Table(trees), _) => {
                return Ok(match trees.take(transfers, message)? {
                    Turn::More(trees, message) => Turn::More(Self::Table(trees), message),
                    Turn::Done(shares, last) => Turn::Done(shares, last),
                });
            }
            (Self::Select(open), StepOp::Interactive(Interactive::Select(select))) => {
                all_narrow(open.finish(transfers, select, step.ring, message)?)
            }
            (Self::Square(open), StepOp::Interactive(Interactive::Square(square))) => {
                narrow(open.finish(transfers, square, message)?)
            }
            (
                Self::Polynomial(open),
                StepOp::Interactive(Interactive::Polynomial(Polynomial { square, degree })),
            ) => vec![Share::Wide(open.finish(transfers, square, *degree, message)?)],
            (Self::Slots(open, packing), _) => {
                narrow(open.finish_slots(transfers, &packing, message)?)
            }
            (Self::Square(_) | Self::Polynomial(_) | Self::Select(_), _) => {
                return Err(TransferError::Padding);
            }
        };
        Ok(Turn::Done(shares, None))
    }
}

/// The exchange's elements, `per` words each, of what was drawn for the whole step of every item.
fn part<T: Zeroize + Copy>(
    draws: impl Iterator<Item = Zeroizing<Vec<T>>>,
    exchange: &Exchange,
    per: usize,
) -> Zeroizing<Vec<T>> {
    let range = exchange.elements.start * per..exchange.elements.end * per;
    let mut all = Zeroizing::new(Vec::new());
    draws.for_each(|draw| all.extend_from_slice(&draw[range.clone()]));
    all
}
