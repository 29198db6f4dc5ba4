//! What a party keeps of one item of correlated randomness, and how the online phase takes it apart.
//!
//! An item is a seed, from which expands what a party draws itself (party 0: `u`, `β`, `β'`; party 1: the masks of
//! its input and of interactive steps), and per step the rest, packed to the bit: the fields of
//! [`Correlation`](ir::plan::Correlation), such as shares of products, and of `W·r` party 0's `s₀` or party 1's mask
//! `W·r − s₀`. Party 1's half of a dealt item is a seed, from which its fields expand as well, and the fields of kinds
//! whose fields [do not](ir::plan::Protocol::expands). What stands
//! where in a step's part its kind knows ([`crate::steps`]).

use super::expand::{Domain, SEED_BYTES, Seed};
use super::{MaterialError, Role, masks};
use crate::layout::{fill_online, to_online};
use crate::secret::{Elements, SecretTensor, WideElements};
use crate::wire;
use crate::words::{WordsMut, each_slice};
use ir::plan::{Field, Plan, Step};
use ir::ring::{Packer, Unpacker, packed_bytes};
use ir::word::Word;
use ir::{Shape, Tensor};
use std::fmt;
use std::ops::{Deref, Range};
use zeroize::{Zeroize, Zeroizing};

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
    SEED_BYTES + explicit(plan, role, origin).1
}

/// Whether a step's fields follow from a party's seed in an item.
fn expands(plan: &Plan, (role, origin): (Role, Origin), step: usize) -> bool {
    let is_uniform = plan.steps[step].op.interactive().is_none_or(|kind| kind.protocol().expands());
    (role, origin) == (Role::Party1, Origin::Dealer) && is_uniform
}

/// A party's fields of a step's correlation; none if it has none.
pub(super) fn fields(plan: &Plan, role: Role, step: usize) -> Vec<Field> {
    plan.correlation(step).map_or(vec![], |c| match role {
        Role::Party0 => c.party0,
        Role::Party1 => c.party1,
    })
}

/// Where every step's explicit part begins, if it has one, and their length in all.
fn explicit(plan: &Plan, role: Role, origin: Origin) -> (Vec<Option<usize>>, usize) {
    let mut at = 0;
    let starts = (0..plan.steps.len()).map(|step| {
        let start = (!expands(plan, (role, origin), step)).then_some(at)?;
        at += fields(plan, role, step).iter().map(Field::bytes).sum::<usize>();
        Some(start)
    });
    (starts.collect(), at)
}

/// Packs the explicit part of an item whose fields have these elements, in order.
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

/// The elements of one field that stand in an item, and their ring width.
pub enum Explicit {
    /// Elements of at most 64 bits.
    Narrow(Elements, u32),
    /// Elements of at most 127 bits.
    Wide(WideElements, u32),
}

impl Explicit {
    /// How many elements.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(elements, _) => elements.len(),
            Self::Wide(elements, _) => elements.len(),
        }
    }
}

pub(crate) fn pack_wide(elements: &[u128], bits: u32) -> Vec<u8> {
    let mut packer = Packer::with_capacity(0);
    for &element in elements {
        packer.push(element as u64, bits.min(64));
        packer.push((element >> 64) as u64, bits.saturating_sub(64));
    }
    packer.finish()
}

/// Which correlations of an item were given out.
struct Spent(Vec<bool>);

impl Spent {
    fn new(plan: &Plan) -> Self {
        Self(vec![false; plan.steps.len()])
    }

    fn take(&mut self, step: usize, has_one: bool) -> Result<(), MaterialError> {
        let spent = self.0.get_mut(step).filter(|_| has_one).ok_or(MaterialError::Kind(step))?;
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
    /// Elsewhere, such as in a file, until they are asked for.
    Elsewhere(Box<dyn ItemBytes>),
}

/// An item whose bytes are read as they are needed.
pub trait ItemBytes: Send + Sync {
    /// The number of its bytes.
    fn length(&self) -> usize;

    /// Reads some of its bytes.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&self, range: Range<usize>) -> Result<Zeroizing<Vec<u8>>, MaterialError>;
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Memory(item) => item.len(),
            Self::Elsewhere(item) => item.length(),
        }
    }

    fn read(&self, range: Range<usize>) -> Result<Bytes<'_>, MaterialError> {
        Ok(match self {
            Self::Memory(item) => Bytes::There(&item[range]),
            Self::Elsewhere(item) => Bytes::Read(item.read(range)?),
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
struct Explicits<'a> {
    plan: &'a Plan,
    role: Role,
    body: Body,
    /// Where a step's fields begin, if they do not expand from the seed.
    starts: Vec<Option<usize>>,
}

impl Explicits<'_> {
    /// Itself, if a step's fields stand in the item.
    fn of(&self, step: usize) -> Option<&Self> {
        self.starts[step].is_some().then_some(self)
    }

    /// A field of a step: its packed elements, and what they are.
    fn field(&self, step: usize, number: usize) -> Result<(Bytes<'_>, Field), MaterialError> {
        let fields = fields(self.plan, self.role, step);
        let field = *fields.get(number).ok_or(MaterialError::Kind(step))?;
        let before: usize = fields[..number].iter().map(Field::bytes).sum();
        let start = SEED_BYTES + self.starts[step].ok_or(MaterialError::Kind(step))? + before;
        Ok((self.body.read(start..start + field.bytes())?, field))
    }
}

/// One party's part of a step's correlation: what it draws from its own seed, and the fields that stand in the
/// item.
pub struct Record<'i> {
    step: &'i Step,
    index: usize,
    seed: &'i Seed,
    /// `None` if the fields expand from the seed.
    explicit: Option<&'i Explicits<'i>>,
    fields: Vec<Field>,
}

impl Record<'_> {
    /// Writes what the party draws from its seed, `per` words of `bits` bits for every element, in the order
    /// online.
    pub fn draw<W: Word + Zeroize>(&self, domain: Domain, bits: u32, per: usize, out: &mut [W]) {
        fill_online(&self.step.shape, per, out, self.seed.stream(self.index, domain, bits));
    }

    /// As [`Self::draw`], elements of up to 127 bits.
    pub fn draw_wide(&self, domain: Domain, bits: u32, per: usize) -> WideElements {
        let count = self.step.shape.elements() * per;
        let drawn = self.seed.wide_elements(self.index, domain, count, bits);
        Zeroizing::new(to_online(&self.step.shape, per.max(1), &drawn))
    }

    /// Writes a field, `per` words for every element of `shape`, in the order online.
    ///
    /// # Errors
    /// If it cannot be read, or is malformed.
    pub fn field(
        &self,
        number: usize,
        shape: &Shape,
        per: usize,
        out: WordsMut<'_>,
    ) -> Result<(), MaterialError> {
        let Some(explicit) = self.explicit else {
            let bits = self.fields.get(number).ok_or(MaterialError::Kind(self.index))?.bits;
            let domain = Domain::of_field(number);
            each_slice!(WordsMut, out, out => {
                fill_online(shape, per, out, self.seed.stream(self.index, domain, bits));
            });
            return Ok(());
        };
        let (bytes, Field { bits, .. }) = explicit.field(self.index, number)?;
        let (mut left, mut is_sound) = (&*bytes, true);
        each_slice!(WordsMut, out, out => fill_online(shape, per, out, |next| {
            let (now, later) = left.split_at(packed_bytes(next.len(), bits));
            is_sound &= wire::unpack(now, bits, next, |_, v| v);
            left = later;
        }));
        if is_sound { Ok(()) } else { Err(MaterialError::Malformed(self.index)) }
    }

    /// A field of elements of up to 127 bits, `per` for every element, in the order online.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn wide_field(&self, number: usize, per: usize) -> Result<WideElements, MaterialError> {
        let shape = &self.step.shape;
        let Some(explicit) = self.explicit else {
            let field = self.fields.get(number).ok_or(MaterialError::Kind(self.index))?;
            let domain = Domain::of_field(number);
            let all = self.seed.wide_elements(self.index, domain, field.elements, field.bits);
            return Ok(Zeroizing::new(to_online(shape, per, &all)));
        };
        let (bytes, Field { elements, bits }) = explicit.field(self.index, number)?;
        let mut reader = Unpacker::new(&bytes);
        let mut element = || {
            let low = u128::from(reader.next(bits.min(64)));
            if bits > 64 { low | u128::from(reader.next(bits - 64)) << 64 } else { low }
        };
        let all: WideElements = Zeroizing::new((0..elements).map(|_| element()).collect());
        Ok(Zeroizing::new(to_online(shape, per, &all)))
    }
}

/// Party 0's half of an item.
pub struct Party0Item<'a> {
    plan: &'a Plan,
    seed: Seed,
    explicit: Explicits<'a>,
    spent: Spent,
}

impl<'a> Party0Item<'a> {
    /// Reads party 0's half; `None` if it has another length than [`item_bytes`].
    pub fn new(plan: &'a Plan, item: impl Into<Body>) -> Option<Self> {
        let (body, role) = (item.into(), Role::Party0);
        let (starts, length) = explicit(plan, role, Origin::Parties);
        if body.len() != SEED_BYTES + length {
            return None;
        }
        let seed = body.seed()?;
        let explicit = Explicits { plan, role, body, starts };
        Some(Self { plan, seed, explicit, spent: Spent::new(plan) })
    }

    /// Gives out the correlation of a step, once.
    ///
    /// # Errors
    /// If it was given out before, or the step has none.
    pub fn take(&mut self, step: usize) -> Result<Record<'_>, MaterialError> {
        let fields = fields(self.plan, Role::Party0, step);
        self.spent.take(step, !fields.is_empty())?;
        let Self { plan, seed, explicit, .. } = self;
        let explicit = explicit.of(step);
        Ok(Record { step: &plan.steps[step], index: step, seed, explicit, fields })
    }
}

/// Party 1's half of an item.
pub struct Party1Item<'a> {
    plan: &'a Plan,
    seed: Seed,
    explicit: Explicits<'a>,
    masks: Spent,
    spent: Spent,
}

impl<'a> Party1Item<'a> {
    /// Reads party 1's half; `None` if it has another length than [`item_bytes`].
    pub fn new(plan: &'a Plan, item: impl Into<Body>) -> Option<Self> {
        let (body, role) = (item.into(), Role::Party1);
        let seed = body.seed()?;
        let found = body.len() - SEED_BYTES;
        // Where both have the same length they are the same.
        let of = |origin| explicit(plan, role, origin);
        let (starts, _) =
            [of(Origin::Dealer), of(Origin::Parties)].into_iter().find(|of| of.1 == found)?;
        let explicit = Explicits { plan, role, body, starts };
        Some(Self { plan, seed, explicit, masks: Spent::new(plan), spent: Spent::new(plan) })
    }

    /// The mask of a value that does not follow from other masks: of the input, of a step with secret weights
    /// (party 1's share of `W·r`), or the fresh one of an interactive step. Given out once.
    ///
    /// # Errors
    /// If it was given out before, follows from others, or cannot be read.
    pub fn mask(&mut self, step: usize) -> Result<SecretTensor, MaterialError> {
        let Step { op, shape, .. } = &self.plan.steps[step];
        self.masks.take(step, masks::has_own_mask(op))?;
        match self.explicit.of(step) {
            Some(explicit) if op.is_secret_linear() => {
                let (bytes, Field { elements, bits }) = explicit.field(step, 0)?;
                let mut words = Zeroizing::new(vec![0; elements]);
                if !wire::unpack(&bytes, bits, &mut words, |_, v| v) {
                    return Err(MaterialError::Malformed(step));
                }
                Ok(SecretTensor::new(Tensor::new(shape.clone(), std::mem::take(&mut *words))))
            }
            _ => Ok(drawn_mask(self.plan, &self.seed, step)),
        }
    }

    /// Writes the fresh mask of an interactive step in the order online, in place of [`Self::mask`].
    ///
    /// # Errors
    /// If it was given out before, or the step is not interactive.
    pub fn fresh(&mut self, step: usize, mask: WordsMut<'_>) -> Result<(), MaterialError> {
        let Step { op, shape, .. } = &self.plan.steps[step];
        self.masks.take(step, op.is_interactive())?;
        let bits = self.plan.mask_bits(step);
        each_slice!(WordsMut, mask, mask => {
            fill_online(shape, 1, mask, self.seed.stream(step, Domain::Mask, bits));
            mask.iter_mut().for_each(|mask| *mask = Word::shift_left(*mask, op.guard()));
        });
        Ok(())
    }

    /// Gives out the correlation of an interactive step, once.
    ///
    /// # Errors
    /// If it was given out before, or the step has none.
    pub fn take(&mut self, step: usize) -> Result<Record<'_>, MaterialError> {
        let is_interactive = self.plan.steps[step].op.is_interactive();
        self.spent.take(step, is_interactive)?;
        let fields = fields(self.plan, Role::Party1, step);
        let Self { plan, seed, explicit, .. } = self;
        let explicit = explicit.of(step);
        Ok(Record { step: &plan.steps[step], index: step, seed, explicit, fields })
    }
}

/// The mask of a value that party 1 draws from its seed.
pub(crate) fn drawn_mask(plan: &Plan, seed: &Seed, index: usize) -> SecretTensor {
    let step = &plan.steps[index];
    let bits = plan.mask_bits(index);
    let mut data = seed.elements(index, Domain::Mask, step.shape.elements(), bits);
    data.iter_mut().for_each(|mask| *mask <<= step.op.guard());
    SecretTensor::new(Tensor::new(step.shape.clone(), std::mem::take(&mut *data)))
}
