//! Both parties' side of one round trip, whatever the kind of the step.
//!
//! Party 0 keeps something of an element between its opening and its share, party 1 between reading the opening and
//! its response: words of a width that the kind chooses. Ranges are of a batch's elements, in the order online;
//! all but the last end at a multiple of eight, so that their bits are whole bytes.

use super::{phase, polynomial, select, square, table};
use crate::Error;
use crate::kernel::Prefetch;
use crate::preprocess::item::{Party0Item, Party1Item};
use crate::secret::Elements;
use crate::words::{Words, WordsMut, WordsRef};
use ir::plan::{Interactive, Plan, Step, StepOp, StepWeights};
use std::ops::Range;
use zeroize::Zeroizing;

/// Party 0's side.
pub trait Opening: Sync {
    /// What it keeps.
    type Kept: KeptWord;

    /// Words that it keeps of an element.
    fn kept(&self) -> usize;

    /// The correlations of a range, to be prefetched.
    fn prefetch(&self, _range: Range<usize>) -> Prefetch {
        Prefetch::default()
    }

    /// Writes the opening of a range, of whose operands these are party 0's sides.
    fn open(
        &self,
        range: Range<usize>,
        operands: &[WordsRef<'_>],
        kept: &mut [Self::Kept],
        bytes: &mut [u8],
    );

    /// Writes party 0's share of a range.
    fn share(&self, range: Range<usize>, kept: &[Self::Kept], out: WordsMut<'_>);
}

/// Party 1's side.
pub trait Responding: Sync {
    /// What it keeps.
    type Kept: KeptWord;

    /// Words that it keeps of an element.
    fn kept(&self) -> usize;

    /// Reads an opening; `false` if padding is set.
    fn read(&self, bytes: &[u8], kept: &mut [Self::Kept]) -> bool;

    /// Adds party 1's share of a range to `out`, which holds its fresh masks: the response.
    fn respond(&self, range: Range<usize>, kept: &[Self::Kept], out: WordsMut<'_>);
}

/// A word that is kept between two messages.
pub trait KeptWord: Copy + Default + Send + Sync {
    /// Where words of this width are.
    fn of(memory: &mut Kept) -> &mut Vec<Self>;
}

impl KeptWord for u16 {
    fn of(memory: &mut Kept) -> &mut Vec<Self> {
        &mut memory.narrow
    }
}

impl KeptWord for u64 {
    fn of(memory: &mut Kept) -> &mut Vec<Self> {
        &mut memory.wide
    }
}

/// Memory for what is kept. Wiped when dropped: some of it is secret.
#[derive(Default)]
pub struct Kept {
    narrow: Zeroizing<Vec<u16>>,
    wide: Zeroizing<Vec<u64>>,
}

impl Kept {
    /// Room for party 1's side of so many elements of a step whose value has `ring` bits.
    pub fn reserve(&mut self, kind: &Interactive, ring: u32, elements: usize) {
        match kind {
            Interactive::Phase(_) | Interactive::Table(_) => _ = kept::<u16>(self, elements),
            Interactive::Square(_) => _ = kept::<u64>(self, elements),
            Interactive::Polynomial(kind) => {
                _ = kept::<u64>(self, elements * polynomial::words(kind));
            }
            Interactive::Select(kind) => {
                let most = [false, true].map(|second| select::words_kept(kind, ring, second));
                _ = kept::<u64>(self, elements * most[0].max(most[1]));
            }
        }
    }
}

/// The first `count` words.
pub fn kept<W: KeptWord>(memory: &mut Kept, count: usize) -> &mut [W] {
    let words = W::of(memory);
    if words.len() < count {
        words.resize(count, W::default());
    }
    &mut words[..count]
}

/// Party 0's correlations of one step for a batch.
pub enum Record0 {
    /// Of a step with secret weights: bias less share, to which the products are added.
    Linear(Zeroizing<Words>),
    /// Of a phase step.
    Phase(phase::Record0),
    /// Of a square step.
    Square(square::Record0),
    /// Of a polynomial step.
    Polynomial(polynomial::Record0),
    /// Of a select step.
    Select(select::Record0),
    /// Of a table step.
    Table(table::Record0),
}

/// Party 1's correlations of one interactive step for a batch.
pub enum Record1 {
    /// Of a phase step.
    Phase(phase::Record1),
    /// Of a square step.
    Square(square::Record1),
    /// Of a polynomial step.
    Polynomial(polynomial::Record1),
    /// Of a select step.
    Select(select::Record1),
    /// Of a table step.
    Table(table::Record1),
}

/// Takes party 0's correlations of a step from every item.
///
/// # Errors
/// If they were taken before, cannot be read, or there are none.
pub fn record0(
    step: &Step,
    secrets: &StepWeights,
    index: usize,
    items: &mut [Party0Item<'_>],
) -> Result<Record0, Error> {
    Ok(match &step.op {
        StepOp::Linear(_) => Record0::Linear(super::linear::record0(step, secrets, index, items)?),
        StepOp::Interactive(Interactive::Phase(kind)) => {
            Record0::Phase(phase::Record0::take(kind, step, index, items)?)
        }
        StepOp::Interactive(Interactive::Square(kind)) => {
            Record0::Square(square::Record0::take(kind, step, index, items)?)
        }
        StepOp::Interactive(Interactive::Polynomial(kind)) => {
            Record0::Polynomial(polynomial::Record0::take(kind, step, index, items)?)
        }
        StepOp::Interactive(Interactive::Select(kind)) => {
            Record0::Select(select::Record0::take(kind, step, index, items)?)
        }
        StepOp::Interactive(Interactive::Table(kind)) => {
            Record0::Table(table::Record0::take(kind, step, index, items)?)
        }
        StepOp::Input | StepOp::Constant | StepOp::Local(_) => return Err(other(index)),
    })
}

/// Takes party 1's correlations of an interactive step from every item.
///
/// # Errors
/// As [`record0`].
pub fn record1(
    kind: &Interactive,
    step: &Step,
    index: usize,
    items: &mut [Party1Item<'_>],
) -> Result<Record1, Error> {
    Ok(match kind {
        Interactive::Phase(kind) => Record1::Phase(phase::Record1::take(kind, step, index, items)?),
        Interactive::Square(_) => Record1::Square(square::Record1::take(step, index, items)?),
        Interactive::Polynomial(kind) => {
            Record1::Polynomial(polynomial::Record1::take(kind, step, index, items)?)
        }
        Interactive::Select(kind) => {
            Record1::Select(select::Record1::take(kind, step, index, items)?)
        }
        Interactive::Table(kind) => Record1::Table(table::Record1::take(kind, step, index, items)?),
    })
}

/// Whether party 1 needs the masks of the operands online, beside its correlations.
pub fn needs_masks(kind: &Interactive) -> bool {
    match kind {
        Interactive::Phase(_) | Interactive::Table(_) => false,
        Interactive::Square(_) | Interactive::Polynomial(_) | Interactive::Select(_) => true,
    }
}

/// What party 0 brings of its weights into a form for the online phase, once for all sessions.
pub enum Prepared {
    /// Nothing.
    Nothing,
    /// `c₀` of a phase step at the scale before the truncation, per element of a period of channels.
    Phase(Zeroizing<Words>),
}

impl Prepared {
    /// For an interactive step.
    pub fn new(kind: &Interactive, step: &Step, secrets: &StepWeights) -> Self {
        match (kind, secrets) {
            (Interactive::Phase(kind), StepWeights::Phase { constant, .. }) => {
                let constants = Zeroizing::new(phase::constants(kind, constant));
                let period = Zeroizing::new(crate::layout::pattern(&step.shape, &constants));
                let words = Words::new(kind.q, period.iter().copied());
                Self::Phase(Zeroizing::new(words))
            }
            (
                Interactive::Phase(_)
                | Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
                _,
            ) => Self::Nothing,
        }
    }
}

/// Party 0's side of a step's round trip, by kind.
pub enum Opener<'a> {
    /// Of a phase step.
    Phase(phase::Opening<'a>),
    /// Of a square step.
    Square(square::Opening<'a>),
    /// Of a polynomial step.
    Polynomial(polynomial::Opening<'a>),
    /// Of a select step.
    Select(select::Opening<'a>),
    /// Of a table step.
    Table(table::Opening<'a>),
}

/// Party 1's side of a step's round trip, by kind.
pub enum Responder<'a> {
    /// Of a phase step.
    Phase(phase::Responding<'a>),
    /// Of a square step.
    Square(square::Responding<'a>),
    /// Of a polynomial step.
    Polynomial(polynomial::Responding<'a>),
    /// Of a select step.
    Select(select::Responding<'a>),
    /// Of a table step.
    Table(table::Responding<'a>),
}

/// Evaluates an expression for the side of one kind; the only matches of the online loops over kinds.
macro_rules! each_kind {
    ($sides:ident, $side:expr, $s:ident => $body:expr) => {
        match $side {
            $crate::steps::$sides::Phase($s) => $body,
            $crate::steps::$sides::Square($s) => $body,
            $crate::steps::$sides::Polynomial($s) => $body,
            $crate::steps::$sides::Select($s) => $body,
            $crate::steps::$sides::Table($s) => $body,
        }
    };
}
pub(crate) use each_kind;

/// What party 0 has of a step online.
pub struct Parts0<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Which step.
    pub index: usize,
    /// Which of its round trips.
    pub trip: usize,
    /// Its weights.
    pub secrets: &'a StepWeights,
    /// What was prepared of them.
    pub prepared: &'a Prepared,
    /// The public tables.
    pub tables: &'a phase::Tables,
    /// Its correlations.
    pub record: &'a Record0,
    /// Of every round trip before: party 0's share with party 1's response added.
    pub opened: &'a [Zeroizing<Words>],
}

impl<'a> Opener<'a> {
    /// Takes up a step's round trip.
    ///
    /// # Errors
    /// If the parts are another kind's: a defect.
    pub fn new(parts: &Parts0<'a>) -> Result<Self, Error> {
        let Parts0 { plan, index, trip, secrets, prepared, tables, record, opened } = *parts;
        let step = &plan.steps[index];
        let kind = step.op.interactive().ok_or_else(|| other(index))?;
        let ring = plan.step(step.operands[0]).ring;
        Ok(match (kind, record, secrets, prepared) {
            (
                Interactive::Phase(phase),
                Record0::Phase(record),
                StepWeights::Phase { .. },
                Prepared::Phase(constants),
            ) => {
                let rows = tables.rows(index).ok_or_else(|| other(index))?;
                Self::Phase(phase::Opening { phase, ring, record, rows, constants })
            }
            (
                Interactive::Square(square),
                Record0::Square(record),
                StepWeights::Square { constant },
                _,
            ) => Self::Square(square::Opening { square, step, record, constant }),
            (
                Interactive::Polynomial(kind),
                Record0::Polynomial(record),
                StepWeights::Polynomial { coefficients },
                _,
            ) => Self::Polynomial(polynomial::Opening { kind, step, record, coefficients }),
            (Interactive::Select(select), Record0::Select(record), ..) => {
                let (ring, turns) = (step.ring, before(trip, opened).ok_or_else(|| other(index))?);
                Self::Select(select::Opening { select, ring, record, turns })
            }
            (Interactive::Table(table), Record0::Table(record), ..) => {
                Self::Table(table::Opening { table, record })
            }
            (
                Interactive::Phase(_)
                | Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
                ..,
            ) => return Err(other(index)),
        })
    }
}

/// What party 1 has of a step online.
pub struct Parts1<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Which step.
    pub index: usize,
    /// Which of its round trips.
    pub trip: usize,
    /// The public tables.
    pub tables: &'a phase::Tables,
    /// Its correlations.
    pub record: &'a Record1,
    /// Its masks of the operands, where the kind [needs them](needs_masks).
    pub masks: &'a [Elements],
    /// Its responses of the round trips before.
    pub sent: &'a [Zeroizing<Words>],
}

impl<'a> Responder<'a> {
    /// Takes up a step's round trip.
    ///
    /// # Errors
    /// If the parts are another kind's: a defect.
    pub fn new(parts: &Parts1<'a>) -> Result<Self, Error> {
        let Parts1 { plan, index, trip, tables, record, masks, sent } = *parts;
        let step = &plan.steps[index];
        let kind = step.op.interactive().ok_or_else(|| other(index))?;
        let mask = || masks.first().map(|m| m.as_slice()).ok_or_else(|| other(index));
        let ring = step.ring;
        Ok(match (kind, record) {
            (Interactive::Phase(phase), Record1::Phase(record)) => {
                let rows = tables.rows(index).ok_or_else(|| other(index))?;
                Self::Phase(phase::Responding { phase, record, rows })
            }
            (Interactive::Square(square), Record1::Square(record)) => {
                Self::Square(square::Responding { square, record, masks: mask()?, ring })
            }
            (Interactive::Polynomial(kind), Record1::Polynomial(record)) => {
                Self::Polynomial(polynomial::Responding { kind, record, masks: mask()?, ring })
            }
            (Interactive::Select(select), Record1::Select(record)) => {
                let turns = before(trip, sent).ok_or_else(|| other(index))?;
                Self::Select(select::Responding { select, ring, record, masks: mask()?, turns })
            }
            (Interactive::Table(table), Record1::Table(record)) => {
                Self::Table(table::Responding { table, record })
            }
            (
                Interactive::Phase(_)
                | Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
                _,
            ) => return Err(other(index)),
        })
    }
}

/// What came of the round trip before; `None` inside if this is the first, and if it is not there.
fn before(trip: usize, came: &[Zeroizing<Words>]) -> Option<Option<&Words>> {
    match trip.checked_sub(1) {
        None => Some(None),
        Some(before) => came.get(before).map(|words| Some(&**words)),
    }
}

fn other(step: usize) -> Error {
    Error::Internal(format!("step v{step} has parts of another kind"))
}
