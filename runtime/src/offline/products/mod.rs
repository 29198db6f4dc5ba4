//! The products of activations, made by the two parties alone from [`Transfers`](super::transfer): one
//! file per kind of step. Each is an exchange about a chunk of a step's elements: party 1 sends, party 0
//! answers and has its shares, party 1 finishes (and where party 0 chose in transfers of its own, sends
//! once more). Shares and their order are those of [`crate::protocol`], whose `products` are the ideal
//! functionality; lengths are those of [`ir::plan::offline`].

pub mod phase;

use super::expand::Seed;
use super::item::party0_question;
use super::transfer::{TransferError, Transfers};
use crate::secret::{Elements, WideElements};
use ir::plan::{Exchange, Plan, StepOp, StepWeights, Weights};
use zeroize::Zeroizing;

/// One party's shares of an exchange's products, element by element.
pub enum Shares {
    /// In rings of at most 64 bits.
    Narrow(Elements),
    /// In rings of at most 127 bits.
    Wide(WideElements),
}

/// Party 1 after its first message.
pub enum Begun {
    /// Of a phase step.
    Phase(phase::Asked),
}

/// Party 0 after its answer.
pub enum Answered {
    /// Nothing is missing.
    Done(Shares),
}

/// Party 1's first message for the operand's masks, element by element.
pub fn begin(
    transfers: &mut Transfers,
    plan: &Plan,
    step: usize,
    masks: Elements,
) -> (Begun, Vec<u8>) {
    let ring = plan.step(plan.steps[step].operands[0]).ring;
    match &plan.steps[step].op {
        StepOp::Phase(phase) => {
            let (asked, message) = phase::ask(transfers, phase, ring, &masks);
            (Begun::Phase(asked), message)
        }
        _ => unreachable!(),
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
        answer: &[u8],
    ) -> Result<(Shares, Option<Vec<u8>>), TransferError> {
        match self {
            Self::Phase(asked) => Ok((Shares::Narrow(asked.finish(transfers, answer)?), None)),
        }
    }
}

/// Party 0's answer. `seeds` are those of the exchange's items, from which `u` and `β` expand.
///
/// # Errors
/// If party 1's message is none of this protocol.
pub fn answer(
    transfers: &mut Transfers,
    plan: &Plan,
    weights: &Weights,
    exchange: &Exchange,
    seeds: &[Seed],
    message: &[u8],
) -> Result<(Vec<u8>, Answered), TransferError> {
    let index = exchange.step;
    let step = &plan.steps[index];
    let of_elements = |draw: &dyn Fn(&Seed) -> Elements| -> Elements {
        let parts = seeds.iter().map(draw);
        Zeroizing::new(parts.flat_map(|d| d[exchange.elements.clone()].to_vec()).collect())
    };
    // Several items come with all of their elements.
    let start = exchange.elements.start;
    let elements = start..start + seeds.len() * exchange.elements.len();
    match (&step.op, &weights.steps[index]) {
        (StepOp::Phase(phase), StepWeights::Phase { harmonics, .. }) => {
            let u = of_elements(&|seed| party0_question(plan, seed, index));
            let (answer, shares) =
                phase::answer(transfers, phase, step, harmonics, elements, &u, message)?;
            Ok((answer, Answered::Done(Shares::Narrow(shares))))
        }
        _ => unreachable!(),
    }
}

impl Answered {
    /// Party 0's shares, from party 1's last message.
    ///
    /// # Errors
    /// If the message is none of this protocol.
    pub fn finish(
        self,
        transfers: &mut Transfers,
        message: &[u8],
    ) -> Result<Shares, TransferError> {
        let _ = (transfers, message);
        match self {
            Self::Done(shares) => Ok(shares),
        }
    }
}
