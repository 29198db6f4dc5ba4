//! The exchange of any kind of step with products: what kind it is stands in the plan.

use super::{Answered, diagonal, phase, polynomial, slots, square};
use crate::offline::expand::Seed;
use crate::offline::item::{party0_bits, party0_question, party0_wide_question};
use crate::offline::rlwe::{PublicKeys, SecretKeys};
use crate::offline::transfer::{TransferError, Transfers};
use crate::secret::{Elements, WideElements};
use ir::plan::{Exchange, PhaseProducts, Plan, SlotPacking, Step, StepOp, StepWeights, Weights};
use zeroize::{Zeroize, Zeroizing};

/// One party's shares of an exchange's products, element by element.
pub enum Shares {
    /// In rings of at most 64 bits.
    Narrow(Elements),
    /// In rings of at most 127 bits.
    Wide(WideElements),
}

/// What a party makes products with: `K` are its keys.
pub struct Tools<'a, K> {
    /// Its transfers with the peer.
    pub transfers: &'a mut Transfers,
    /// Its keys.
    pub keys: &'a K,
    /// The number of the exchange, another one for each of a session.
    pub number: u32,
}

/// Party 1 after its first message.
pub enum Begun {
    /// Of a phase step, by trees.
    Phase(phase::Asked),
    /// Of a phase step, by encryption.
    Slots(SlotPacking),
    /// Of a square step.
    Square(square::Asked),
    /// Of a polynomial step.
    Polynomial(polynomial::Asked),
    /// Of a diagonal step.
    Diagonal(diagonal::Asked),
}

/// Party 0 after its answer.
pub enum Open {
    /// Nothing is missing.
    Done(Shares),
    /// Of a phase step, by encryption.
    Slots(Answered<Elements>, SlotPacking),
    /// Of a square step.
    Square(Answered<Elements>),
    /// Of a polynomial step.
    Polynomial(Answered<WideElements>),
}

/// Party 1's first message for the operand's masks, element by element; `None` if the step has no products.
pub fn begin(
    tools: &mut Tools<'_, SecretKeys>,
    plan: &Plan,
    step: usize,
    masks: &[u64],
) -> Option<(Begun, Vec<u8>)> {
    let Step { ring, op, operands, .. } = &plan.steps[step];
    let Tools { transfers, keys, number } = tools;
    match op {
        StepOp::Phase(phase) => {
            let ring = plan.step(*operands.first()?).ring;
            match plan.phase_products(step, masks.len())? {
                PhaseProducts::Trees => {
                    let (asked, message) = phase::ask(transfers, phase, ring, masks);
                    Some((Begun::Phase(asked), message))
                }
                PhaseProducts::Slots(packing) => {
                    let message = slots::ask(keys, &packing, *number, (phase, ring), masks);
                    Some((Begun::Slots(packing), message))
                }
            }
        }
        StepOp::Square(square) => {
            let (asked, message) = square::ask(transfers, square, masks);
            Some((Begun::Square(asked), message))
        }
        StepOp::Polynomial { square, degree } => {
            let (asked, message) = polynomial::ask(transfers, square, *degree, masks);
            Some((Begun::Polynomial(asked), message))
        }
        StepOp::Diagonal { .. } => {
            let (asked, message) = diagonal::ask(transfers, *ring, masks);
            Some((Begun::Diagonal(asked), message))
        }
        _ => None,
    }
}

impl Begun {
    /// Party 1's shares from party 0's answer, and its last message where the kind has one.
    ///
    /// # Errors
    /// If the answer is none of this protocol.
    pub fn finish(
        self,
        transfers: &mut Transfers,
        keys: &SecretKeys,
        answer: &[u8],
    ) -> Result<(Shares, Option<Vec<u8>>), TransferError> {
        Ok(match self {
            Self::Phase(asked) => (Shares::Narrow(asked.finish(transfers, answer)?), None),
            Self::Slots(packing) => {
                let (last, shares) = slots::finish(transfers, keys, &packing, answer)?;
                (Shares::Narrow(shares), Some(last))
            }
            Self::Diagonal(asked) => (Shares::Narrow(asked.finish(transfers, answer)?), None),
            Self::Square(asked) => {
                let (last, shares) = asked.finish(transfers, answer)?;
                (Shares::Narrow(shares), Some(last))
            }
            Self::Polynomial(asked) => {
                let (last, shares) = asked.finish(transfers, answer)?;
                (Shares::Wide(shares), Some(last))
            }
        })
    }
}

/// Party 0's answer. `seeds` are those of the exchange's items, from which `u` and `β` expand. `None` if
/// the step has no products or other weights.
///
/// # Errors
/// If party 1's message is none of this protocol.
pub fn answer(
    tools: &mut Tools<'_, PublicKeys>,
    plan: &Plan,
    weights: &Weights,
    exchange: &Exchange,
    seeds: &[Seed],
    message: &[u8],
) -> Result<Option<(Vec<u8>, Open)>, TransferError> {
    let Tools { transfers, keys, number } = tools;
    let (index, step) = (exchange.step, &plan.steps[exchange.step]);
    // Several items come with all of their elements.
    let start = exchange.elements.start;
    let elements = start..start + seeds.len() * exchange.elements.len();
    let draw = |of: fn(&Plan, &Seed, usize) -> Elements| {
        part(seeds.iter().map(|seed| of(plan, seed, index)), exchange, 1)
    };
    Ok(Some(match (&step.op, &weights.steps[index]) {
        (StepOp::Phase(phase), StepWeights::Phase { harmonics, .. }) => {
            let u = draw(party0_question);
            match PhaseProducts::cheapest(phase, u.len(), &plan.rlwe) {
                PhaseProducts::Trees => {
                    let (answer, shares) =
                        phase::answer(transfers, phase, step, harmonics, elements, &u, message)?;
                    (answer, Open::Done(Shares::Narrow(shares)))
                }
                PhaseProducts::Slots(packing) => {
                    let factors = phase::factors(phase, step, harmonics, elements, &u);
                    let (open, answer) =
                        slots::answer(transfers, keys, &packing, *number, &factors, message)?;
                    (answer, Open::Slots(open, packing))
                }
            }
        }
        (StepOp::Square(square), _) => {
            let (u, bits) = (draw(party0_question), draw(party0_bits));
            let (open, answer) = square::answer(transfers, square, &u, &bits, message)?;
            (answer, Open::Square(open))
        }
        (StepOp::Polynomial { square, degree }, StepWeights::Polynomial { coefficients }) => {
            let questions = seeds.iter().map(|seed| party0_wide_question(plan, seed, index));
            let u = part(questions, exchange, *degree as usize - 1);
            let bits = draw(party0_bits);
            let own = (&u[..], &bits[..]);
            let (open, answer) =
                polynomial::answer(transfers, square, step, coefficients, elements, own, message)?;
            (answer, Open::Polynomial(open))
        }
        (StepOp::Diagonal { .. }, StepWeights::Linear { weights, .. }) => {
            let factors = weights[exchange.elements.clone()].repeat(seeds.len());
            let factors = Zeroizing::new(factors);
            let (answer, shares) = diagonal::answer(transfers, step.ring, &factors, message)?;
            (answer, Open::Done(Shares::Narrow(shares)))
        }
        _ => return Ok(None),
    }))
}

impl Open {
    /// Party 0's shares, from party 1's last message.
    ///
    /// # Errors
    /// If the message is none of this protocol.
    pub fn finish(
        self,
        transfers: &Transfers,
        op: &StepOp,
        message: &[u8],
    ) -> Result<Shares, TransferError> {
        Ok(match (self, op) {
            (Self::Square(open), StepOp::Square(square)) => {
                Shares::Narrow(open.finish(transfers, square, message)?)
            }
            (Self::Polynomial(open), StepOp::Polynomial { square, degree }) => {
                Shares::Wide(open.finish(transfers, square, *degree, message)?)
            }
            (Self::Slots(open, packing), _) => {
                Shares::Narrow(open.finish_slots(transfers, &packing, message)?)
            }
            (Self::Done(shares), _) => shares,
            (Self::Square(_) | Self::Polynomial(_), _) => return Err(TransferError::Padding),
        })
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
