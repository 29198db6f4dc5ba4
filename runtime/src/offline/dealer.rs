//! The ideal functionality: a third party makes both halves of an item from fresh randomness.
//!
//! It knows the weights and every mask, and sees no input. Whoever runs it must be trusted by party 0
//! with the model and by party 1 not to show party 0 the masks. Party 1's half is a seed from which its
//! masks and shares expand; party 0's half is a seed for what it draws itself (`u`, `β`, `β'`) and, per
//! step, the difference between what is shared and party 1's share, packed to the bit.

use super::expand::{Purpose, SEED_BYTES, Seed};
use super::{MaterialError, Party0Material, Party1Material, masks};
use crate::protocol::linear::{self, LinearShare};
use crate::protocol::phase::{self, PhaseCorrelation, PhaseShares};
use crate::protocol::polynomial::{self, PolynomialCorrelation, PolynomialShares};
use crate::protocol::square::{self, SquareCorrelation, SquareShares};
use crate::protocol::truncate::wide_mask;
use crate::secret::{Elements, SecretTensor, WideElements};
use ir::Tensor;
use ir::plan::{Plan, StepOp, StepWeights, Weights};
use ir::ring::{Packer, Unpacker, low_mask, pack};
use zeroize::Zeroizing;

/// The bytes of one party's half of an item, without its checksum. Wiped when dropped.
pub type Item = Zeroizing<Vec<u8>>;

/// Bytes of one item, party 0's half and party 1's, without checksums: a seed each, and for party 0
/// [`Correlation::bytes`](ir::plan::Correlation::bytes) of every step.
pub fn item_bytes(plan: &Plan) -> (usize, usize) {
    (SEED_BYTES + corrections(plan).1, SEED_BYTES)
}

/// Where every step's corrections begin, and their length in all.
fn corrections(plan: &Plan) -> (Vec<usize>, usize) {
    let mut at = 0;
    let starts = (0..plan.steps.len()).map(|step| {
        let start = at;
        at += plan.correlation(step).map_or(0, |c| c.bytes());
        start
    });
    (starts.collect(), at)
}

/// Makes both halves of one item from two fresh, independent seeds.
///
/// # Panics
/// If `weights` are not those of `plan`; [`Weights::from_bytes`] refuses such.
pub fn deal(plan: &Plan, weights: &Weights, party0: Seed, party1: Seed) -> (Item, Item) {
    let mut item0 = Zeroizing::new(Vec::with_capacity(item_bytes(plan).0));
    item0.extend_from_slice(party0.expose());
    let mask = |step| Ok::<_, std::convert::Infallible>(party1_mask(plan, &party1, step));
    let Ok(()) = masks::walk(plan, mask, |index, operands, value| {
        let correction =
            Zeroizing::new(correction(plan, weights, index, operands, value, &party0, &party1));
        item0.extend_from_slice(&correction);
        Ok(())
    });
    (item0, Zeroizing::new(party1.expose().to_vec()))
}

fn correction(
    plan: &Plan,
    weights: &Weights,
    index: usize,
    operands: &[&Tensor<u64>],
    mask: &Tensor<u64>,
    party0: &Seed,
    party1: &Seed,
) -> Vec<u8> {
    let (step, secrets) = (&plan.steps[index], &weights.steps[index]);
    match (&step.op, secrets) {
        (op, StepWeights::Linear { .. }) if op.is_secret_linear() => {
            pack(&linear::share(step, secrets, operands, mask).0, step.ring)
        }
        (StepOp::Phase(phase), StepWeights::Phase { harmonics, .. }) => {
            let u = party0_question(plan, party0, index);
            let ring = plan.step(step.operands[0]).ring;
            let products = phase::products(phase, step, harmonics, ring, &operands[0].data, &u);
            pack_difference(products, &party1_products(plan, party1, index), phase.q)
        }
        (StepOp::Square(square), _) => {
            let u = party0_question(plan, party0, index);
            let bits = party0_bits(plan, party0, index);
            let products = square::products(square, &operands[0].data, &u, &bits);
            pack_difference(products, &party1_products(plan, party1, index), square.q)
        }
        (StepOp::Polynomial { square, .. }, StepWeights::Polynomial { coefficients }) => {
            let u = party0_wide_question(plan, party0, index);
            let bits = party0_bits(plan, party0, index);
            let products =
                polynomial::products(square, step, coefficients, &operands[0].data, &u, &bits);
            let shares = party1_wide_products(plan, party1, index);
            let mut packer = Packer::with_capacity(0);
            for (product, share) in products.iter().zip(shares.iter()) {
                let difference = product.wrapping_sub(*share) & wide_mask(square.q);
                packer.push(difference as u64, square.q.min(64));
                packer.push((difference >> 64) as u64, square.q.saturating_sub(64));
            }
            packer.finish()
        }
        _ => vec![],
    }
}

fn pack_difference(mut products: Elements, shares: &[u64], q: u32) -> Vec<u8> {
    products.iter_mut().zip(shares).for_each(|(p, s)| *p = p.wrapping_sub(*s) & low_mask(q));
    pack(&products, q)
}

fn party1_mask(plan: &Plan, seed: &Seed, index: usize) -> SecretTensor {
    let step = &plan.steps[index];
    let mut data = seed.elements(index, Purpose::Mask, step.shape.elements(), step.ring);
    SecretTensor::new(Tensor::new(step.shape.clone(), std::mem::take(&mut *data)))
}

fn party1_products(plan: &Plan, seed: &Seed, index: usize) -> Elements {
    let (count, bits) = plan.correlation(index).map_or((0, 1), |c| (c.elements, c.bits));
    seed.elements(index, Purpose::Products, count, bits)
}

fn party1_wide_products(plan: &Plan, seed: &Seed, index: usize) -> WideElements {
    let (count, bits) = plan.correlation(index).map_or((0, 1), |c| (c.elements, c.bits));
    seed.wide_elements(index, Purpose::Products, count, bits)
}

fn party0_question(plan: &Plan, seed: &Seed, index: usize) -> Elements {
    let step = &plan.steps[index];
    let p = match &step.op {
        StepOp::Phase(phase) => phase.p,
        StepOp::Square(square) => square.p,
        _ => 0,
    };
    seed.elements(index, Purpose::Question, step.shape.elements(), p)
}

fn party0_wide_question(plan: &Plan, seed: &Seed, index: usize) -> WideElements {
    let step = &plan.steps[index];
    let (count, bits) = match &step.op {
        StepOp::Polynomial { square, degree } => {
            (step.shape.elements() * (*degree as usize - 1), square.q)
        }
        _ => (0, 1),
    };
    seed.wide_elements(index, Purpose::Question, count, bits)
}

fn party0_bits(plan: &Plan, seed: &Seed, index: usize) -> Elements {
    let step = &plan.steps[index];
    let bits = if matches!(step.op, StepOp::Square(_)) { 2 } else { 1 };
    seed.elements(index, Purpose::Bits, step.shape.elements(), bits)
}

/// Which correlations of an item were given out.
struct Spent(Vec<bool>);

impl Spent {
    fn take(&mut self, step: usize, is_kind: bool) -> Result<(), MaterialError> {
        let spent = self.0.get_mut(step).filter(|_| is_kind).ok_or(MaterialError::Kind(step))?;
        if std::mem::replace(spent, true) {
            return Err(MaterialError::Spent(step));
        }
        Ok(())
    }
}

/// Party 0's half of a dealt item.
pub struct DealtParty0<'a> {
    plan: &'a Plan,
    seed: Seed,
    item: Item,
    starts: Vec<usize>,
    spent: Spent,
}

impl<'a> DealtParty0<'a> {
    /// Reads party 0's half; `None` if it has another length than [`item_bytes`].
    pub fn new(plan: &'a Plan, item: Item) -> Option<Self> {
        if item.len() != item_bytes(plan).0 {
            return None;
        }
        let seed = Seed::from_item(&item[..SEED_BYTES])?;
        let starts = corrections(plan).0;
        Some(Self { plan, seed, item, starts, spent: Spent(vec![false; plan.steps.len()]) })
    }

    fn corrections(&self, step: usize) -> (&[u8], usize, u32) {
        let (elements, bits, bytes) =
            self.plan.correlation(step).map_or((0, 1, 0), |c| (c.elements, c.bits, c.bytes()));
        let start = SEED_BYTES + self.starts[step];
        (&self.item[start..start + bytes], elements, bits)
    }

    fn narrow(&self, step: usize) -> Elements {
        let (bytes, elements, bits) = self.corrections(step);
        let mut reader = Unpacker::new(bytes);
        Zeroizing::new((0..elements).map(|_| reader.next(bits)).collect())
    }
}

impl Party0Material for DealtParty0<'_> {
    fn linear(&mut self, step: usize) -> Result<LinearShare, MaterialError> {
        self.spent.take(step, self.plan.steps[step].op.is_secret_linear())?;
        Ok(LinearShare(self.narrow(step)))
    }

    fn phase(&mut self, step: usize) -> Result<PhaseCorrelation, MaterialError> {
        self.spent.take(step, matches!(self.plan.steps[step].op, StepOp::Phase(_)))?;
        let u = party0_question(self.plan, &self.seed, step);
        Ok(PhaseCorrelation { u, products: self.narrow(step) })
    }

    fn square(&mut self, step: usize) -> Result<SquareCorrelation, MaterialError> {
        self.spent.take(step, matches!(self.plan.steps[step].op, StepOp::Square(_)))?;
        let u = party0_question(self.plan, &self.seed, step);
        let bits = party0_bits(self.plan, &self.seed, step);
        Ok(SquareCorrelation { u, bits, products: self.narrow(step) })
    }

    fn polynomial(&mut self, step: usize) -> Result<PolynomialCorrelation, MaterialError> {
        self.spent.take(step, matches!(self.plan.steps[step].op, StepOp::Polynomial { .. }))?;
        let u = party0_wide_question(self.plan, &self.seed, step);
        let bits = party0_bits(self.plan, &self.seed, step);
        let (bytes, elements, width) = self.corrections(step);
        let mut reader = Unpacker::new(bytes);
        let mut element = || {
            let low = u128::from(reader.next(width.min(64)));
            if width > 64 { low | u128::from(reader.next(width - 64)) << 64 } else { low }
        };
        let products = Zeroizing::new((0..elements).map(|_| element()).collect::<Vec<_>>());
        Ok(PolynomialCorrelation { u, bits, products })
    }
}

/// Party 1's half of a dealt item.
pub struct DealtParty1<'a> {
    plan: &'a Plan,
    seed: Seed,
    masks: Spent,
    products: Spent,
}

impl<'a> DealtParty1<'a> {
    /// Reads party 1's half; `None` if it has another length than [`item_bytes`].
    pub fn new(plan: &'a Plan, item: &[u8]) -> Option<Self> {
        let unspent = || Spent(vec![false; plan.steps.len()]);
        let seed = Seed::from_item(item)?;
        Some(Self { plan, seed, masks: unspent(), products: unspent() })
    }
}

impl Party1Material for DealtParty1<'_> {
    fn mask(&mut self, step: usize) -> Result<SecretTensor, MaterialError> {
        self.masks.take(step, masks::has_own_mask(&self.plan.steps[step].op))?;
        Ok(party1_mask(self.plan, &self.seed, step))
    }

    fn phase(&mut self, step: usize) -> Result<PhaseShares, MaterialError> {
        self.products.take(step, matches!(self.plan.steps[step].op, StepOp::Phase(_)))?;
        Ok(PhaseShares(party1_products(self.plan, &self.seed, step)))
    }

    fn square(&mut self, step: usize) -> Result<SquareShares, MaterialError> {
        self.products.take(step, matches!(self.plan.steps[step].op, StepOp::Square(_)))?;
        Ok(SquareShares(party1_products(self.plan, &self.seed, step)))
    }

    fn polynomial(&mut self, step: usize) -> Result<PolynomialShares, MaterialError> {
        self.products.take(step, matches!(self.plan.steps[step].op, StepOp::Polynomial { .. }))?;
        Ok(PolynomialShares(party1_wide_products(self.plan, &self.seed, step)))
    }
}
