//! What a party keeps of one item of correlated randomness, and how the online phase takes it apart.
//!
//! An item is a seed, from which expands what a party draws itself (party 0: `u`, `β`, `β'`; party 1: its
//! input's and its activations' masks), and per step the rest, packed to the bit
//! ([`Correlation::bytes`](ir::plan::Correlation::bytes)): shares of products, and of `W·r` party 0's
//! `s₀` or party 1's mask `W·r − s₀`. Party 1's half of a dealt item is a seed alone, from which its shares
//! expand as well.

use super::expand::{Purpose, SEED_BYTES, Seed};
use super::store::{StoreError, StoredItem};
use super::{MaterialError, Party0Material, Party1Material, Role, masks};
use crate::layout::{computed, fill_online};
use crate::protocol::polynomial::{PolynomialCorrelation, PolynomialShares};
use crate::protocol::square::{SquareCorrelation, SquareShares};
use crate::secret::{Elements, SecretTensor, WideElements};
use crate::wire;
use crate::words::{WordsMut, each_slice};
use ir::op::matrix::Word;
use ir::plan::{Phase, Plan, Step, StepOp};
use ir::ring::{Packer, Unpacker, packed_bytes};
use ir::{Shape, Tensor};
use std::fmt;
use std::ops::{Deref, Range};
use zeroize::Zeroizing;

/// The bytes of one party's half of an item, without its checksum. Wiped when dropped.
pub type Item = Zeroizing<Vec<u8>>;

/// Who made an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A trusted dealer.
    Dealer,
    /// The two parties, and nobody else.
    Parties,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dealer => "a trusted dealer",
            Self::Parties => "the two parties",
        })
    }
}

/// Bytes of one party's half of an item, without its checksum.
pub fn item_bytes(plan: &Plan, role: Role, origin: Origin) -> usize {
    match (role, origin) {
        (Role::Party1, Origin::Dealer) => SEED_BYTES,
        _ => SEED_BYTES + corrections(plan).1,
    }
}

/// Where every step's explicit part begins, and their length in all.
fn corrections(plan: &Plan) -> (Vec<usize>, usize) {
    let mut at = 0;
    let starts = (0..plan.steps.len()).map(|step| {
        let start = at;
        at += plan.correlation(step).map_or(0, |c| c.bytes());
        start
    });
    (starts.collect(), at)
}

/// Packs the explicit part of an item whose steps have these elements, in order.
pub fn pack_item(seed: &Seed, steps: impl IntoIterator<Item = Explicit>) -> Item {
    let mut item = Zeroizing::new(seed.expose().to_vec());
    for step in steps {
        let bytes = Zeroizing::new(match step {
            Explicit::Narrow(elements, bits) => ir::ring::pack(&elements, bits),
            Explicit::Wide(elements, bits) => pack_wide(&elements, bits),
        });
        item.extend_from_slice(&bytes);
    }
    item
}

/// The elements of one step that stand in an item, and their ring width.
pub enum Explicit {
    /// Elements of at most 64 bits.
    Narrow(Elements, u32),
    /// Elements of at most 127 bits.
    Wide(WideElements, u32),
}

pub(super) fn pack_wide(elements: &[u128], bits: u32) -> Vec<u8> {
    let mut packer = Packer::with_capacity(0);
    for &element in elements {
        packer.push(element as u64, bits.min(64));
        packer.push((element >> 64) as u64, bits.saturating_sub(64));
    }
    packer.finish()
}

pub(super) fn party1_mask(plan: &Plan, seed: &Seed, index: usize) -> SecretTensor {
    let step = &plan.steps[index];
    let bits = plan.answer_bits(index);
    let mut data = seed.elements(index, Purpose::Mask, step.shape.elements(), bits);
    data.iter_mut().for_each(|mask| *mask <<= step.op.guard());
    SecretTensor::new(Tensor::new(step.shape.clone(), std::mem::take(&mut *data)))
}

pub(super) fn party1_products(plan: &Plan, seed: &Seed, index: usize) -> Elements {
    let (count, bits) = plan.correlation(index).map_or((0, 1), |c| (c.elements, c.bits));
    seed.elements(index, Purpose::Products, count, bits)
}

pub(super) fn party1_wide_products(plan: &Plan, seed: &Seed, index: usize) -> WideElements {
    let (count, bits) = plan.correlation(index).map_or((0, 1), |c| (c.elements, c.bits));
    seed.wide_elements(index, Purpose::Products, count, bits)
}

pub(super) fn party0_question(plan: &Plan, seed: &Seed, index: usize) -> Elements {
    let step = &plan.steps[index];
    let p = match &step.op {
        StepOp::Phase(phase) => phase.p,
        StepOp::Square(square) => square.p,
        _ => 0,
    };
    seed.elements(index, Purpose::Question, step.shape.elements(), p)
}

pub(super) fn party0_wide_question(plan: &Plan, seed: &Seed, index: usize) -> WideElements {
    let step = &plan.steps[index];
    let (count, bits) = match &step.op {
        StepOp::Polynomial { square, degree } => {
            (step.shape.elements() * (*degree as usize - 1), square.q)
        }
        _ => (0, 1),
    };
    seed.wide_elements(index, Purpose::Question, count, bits)
}

pub(super) fn party0_bits(plan: &Plan, seed: &Seed, index: usize) -> Elements {
    let step = &plan.steps[index];
    let bits = if matches!(step.op, StepOp::Square(_)) { 2 } else { 1 };
    seed.elements(index, Purpose::Bits, step.shape.elements(), bits)
}

/// Which correlations of an item were given out.
struct Spent(Vec<bool>);

impl Spent {
    fn new(plan: &Plan) -> Self {
        Self(vec![false; plan.steps.len()])
    }

    fn take(&mut self, step: usize, is_kind: bool) -> Result<(), MaterialError> {
        let spent = self.0.get_mut(step).filter(|_| is_kind).ok_or(MaterialError::Kind(step))?;
        if std::mem::replace(spent, true) {
            return Err(MaterialError::Spent(step));
        }
        Ok(())
    }
}

/// Where an item's bytes are.
pub enum Body {
    /// In memory.
    Memory(Item),
    /// In a file, until they are asked for.
    Stored(StoredItem),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Memory(item) => item.len(),
            Self::Stored(item) => item.len(),
        }
    }

    fn read(&self, range: Range<usize>) -> Result<Bytes<'_>, StoreError> {
        Ok(match self {
            Self::Memory(item) => Bytes::There(&item[range]),
            Self::Stored(item) => Bytes::Read(item.read(range)?),
        })
    }

    fn seed(&self) -> Option<Seed> {
        let bytes = (self.len() >= SEED_BYTES).then(|| self.read(0..SEED_BYTES).ok()).flatten()?;
        Seed::from_item(&bytes)
    }
}

impl From<Item> for Body {
    fn from(item: Item) -> Self {
        Self::Memory(item)
    }
}

/// Some bytes of an item.
enum Bytes<'a> {
    There(&'a [u8]),
    Read(Zeroizing<Vec<u8>>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::There(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

/// The explicit part of an item.
struct Corrections<'a> {
    plan: &'a Plan,
    body: Body,
    starts: Vec<usize>,
}

impl<'a> Corrections<'a> {
    /// Packed elements, their number, and the bits of each.
    fn of(&self, step: usize) -> Result<(Bytes<'_>, usize, u32), MaterialError> {
        let (elements, bits, bytes) =
            self.plan.correlation(step).map_or((0, 1, 0), |c| (c.elements, c.bits, c.bytes()));
        let start = SEED_BYTES + self.starts[step];
        Ok((self.body.read(start..start + bytes)?, elements, bits))
    }

    fn narrow(&self, step: usize) -> Result<Elements, MaterialError> {
        let (bytes, elements, bits) = self.of(step)?;
        let mut words = Zeroizing::new(vec![0; elements]);
        match wire::unpack(&bytes, bits, &mut words, |_, v| v) {
            true => Ok(words),
            false => Err(MaterialError::Malformed(step)),
        }
    }

    /// Writes elements, `per` each, in the order online of a shape.
    fn write(
        &self,
        step: usize,
        shape: &Shape,
        per: usize,
        out: WordsMut<'_>,
    ) -> Result<(), MaterialError> {
        let (bytes, _, bits) = self.of(step)?;
        let (mut left, mut is_sound) = (&*bytes, true);
        each_slice!(WordsMut, out, out => fill_online(shape, per, out, |next| {
            let (now, later) = left.split_at(packed_bytes(next.len(), bits));
            is_sound &= wire::unpack(now, bits, next, |_, v| v);
            left = later;
        }));
        if is_sound { Ok(()) } else { Err(MaterialError::Malformed(step)) }
    }

    fn wide(&self, step: usize) -> Result<WideElements, MaterialError> {
        let (bytes, elements, bits) = self.of(step)?;
        let mut reader = Unpacker::new(&bytes);
        let mut element = || {
            let low = u128::from(reader.next(bits.min(64)));
            if bits > 64 { low | u128::from(reader.next(bits - 64)) << 64 } else { low }
        };
        Ok(Zeroizing::new((0..elements).map(|_| element()).collect()))
    }
}

/// Party 0's half of an item.
pub struct Party0Item<'a> {
    plan: &'a Plan,
    seed: Seed,
    corrections: Corrections<'a>,
    spent: Spent,
}

impl<'a> Party0Item<'a> {
    /// Reads party 0's half; `None` if it has another length than [`item_bytes`].
    pub fn new(plan: &'a Plan, item: impl Into<Body>) -> Option<Self> {
        let body = item.into();
        let (starts, length) = corrections(plan);
        if body.len() != SEED_BYTES + length {
            return None;
        }
        let seed = body.seed()?;
        let corrections = Corrections { plan, body, starts };
        Some(Self { plan, seed, corrections, spent: Spent::new(plan) })
    }
}

impl Party0Material for Party0Item<'_> {
    fn linear(&mut self, step: usize, share: WordsMut<'_>) -> Result<(), MaterialError> {
        self.spent.take(step, self.plan.steps[step].op.is_secret_linear())?;
        self.corrections.write(step, &computed(&self.plan.steps[step]), 1, share)
    }

    fn phase(
        &mut self,
        step: usize,
        u: &mut [u16],
        products: WordsMut<'_>,
    ) -> Result<(), MaterialError> {
        let (shape, phase) = phase_of(self.plan, step)?;
        self.spent.take(step, true)?;
        fill_online(shape, 1, u, self.seed.stream(step, Purpose::Question, phase.p));
        self.corrections.write(step, shape, 2 * phase.harmonics as usize, products)
    }

    fn square(&mut self, step: usize) -> Result<SquareCorrelation, MaterialError> {
        self.spent.take(step, matches!(self.plan.steps[step].op, StepOp::Square(_)))?;
        let u = party0_question(self.plan, &self.seed, step);
        let bits = party0_bits(self.plan, &self.seed, step);
        Ok(SquareCorrelation { u, bits, products: self.corrections.narrow(step)? })
    }

    fn polynomial(&mut self, step: usize) -> Result<PolynomialCorrelation, MaterialError> {
        self.spent.take(step, matches!(self.plan.steps[step].op, StepOp::Polynomial { .. }))?;
        let u = party0_wide_question(self.plan, &self.seed, step);
        let bits = party0_bits(self.plan, &self.seed, step);
        Ok(PolynomialCorrelation { u, bits, products: self.corrections.wide(step)? })
    }
}

/// Party 1's half of an item.
pub struct Party1Item<'a> {
    plan: &'a Plan,
    seed: Seed,
    /// `None` in a dealt item.
    corrections: Option<Corrections<'a>>,
    masks: Spent,
    products: Spent,
}

impl<'a> Party1Item<'a> {
    /// Reads party 1's half; `None` if it has another length than [`item_bytes`].
    pub fn new(plan: &'a Plan, item: impl Into<Body>) -> Option<Self> {
        let body = item.into();
        let seed = body.seed()?;
        let (starts, length) = corrections(plan);
        let corrections = match body.len() - SEED_BYTES {
            0 => None,
            found if found == length => Some(Corrections { plan, body, starts }),
            _ => return None,
        };
        Some(Self { plan, seed, corrections, masks: Spent::new(plan), products: Spent::new(plan) })
    }
}

impl Party1Material for Party1Item<'_> {
    fn mask(&mut self, step: usize) -> Result<SecretTensor, MaterialError> {
        let Step { op, shape, .. } = &self.plan.steps[step];
        self.masks.take(step, masks::has_own_mask(op))?;
        match &self.corrections {
            Some(corrections) if op.is_secret_linear() => {
                let mut data = corrections.narrow(step)?;
                Ok(SecretTensor::new(Tensor::new(shape.clone(), std::mem::take(&mut *data))))
            }
            _ => Ok(party1_mask(self.plan, &self.seed, step)),
        }
    }

    fn fresh(&mut self, step: usize, mask: WordsMut<'_>) -> Result<(), MaterialError> {
        let Step { op, shape, .. } = &self.plan.steps[step];
        self.masks.take(step, op.is_activation())?;
        let bits = self.plan.answer_bits(step);
        each_slice!(WordsMut, mask, mask => {
            fill_online(shape, 1, mask, self.seed.stream(step, Purpose::Mask, bits));
            mask.iter_mut().for_each(|mask| *mask = Word::shift_left(*mask, op.guard()));
        });
        Ok(())
    }

    fn phase(&mut self, step: usize, products: WordsMut<'_>) -> Result<(), MaterialError> {
        let (shape, phase) = phase_of(self.plan, step)?;
        self.products.take(step, true)?;
        let per = 2 * phase.harmonics as usize;
        if let Some(corrections) = &self.corrections {
            return corrections.write(step, shape, per, products);
        }
        each_slice!(WordsMut, products, products => {
            fill_online(shape, per, products, self.seed.stream(step, Purpose::Products, phase.q));
        });
        Ok(())
    }

    fn square(&mut self, step: usize) -> Result<SquareShares, MaterialError> {
        self.products.take(step, matches!(self.plan.steps[step].op, StepOp::Square(_)))?;
        Ok(SquareShares(match &self.corrections {
            Some(corrections) => corrections.narrow(step)?,
            None => party1_products(self.plan, &self.seed, step),
        }))
    }

    fn polynomial(&mut self, step: usize) -> Result<PolynomialShares, MaterialError> {
        self.products.take(step, matches!(self.plan.steps[step].op, StepOp::Polynomial { .. }))?;
        Ok(PolynomialShares(match &self.corrections {
            Some(corrections) => corrections.wide(step)?,
            None => party1_wide_products(self.plan, &self.seed, step),
        }))
    }
}

/// A phase step's shape and parameters.
fn phase_of(plan: &Plan, step: usize) -> Result<(&Shape, &Phase), MaterialError> {
    match &plan.steps[step] {
        Step { op: StepOp::Phase(phase), shape, .. } => Ok((shape, phase)),
        _ => Err(MaterialError::Kind(step)),
    }
}
