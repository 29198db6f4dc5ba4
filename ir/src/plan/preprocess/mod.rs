//! The order of the offline phase: what the two parties exchange to preprocess correlations for some inferences
//! together, how, and how many bytes each message has.
//!
//! A correlation is preprocessed by *exchanges*: party 1 sends, party 0 answers, and for some methods party 1 sends
//! once more. An exchange needs the masks of its operands; masks that are shares of `W·r` are known when the
//! exchange of that step is finished, and all others from the start. So linear steps come first, interactive steps
//! follow two linear steps later, and as many exchanges are begun before the first is finished as [`WINDOW`]
//! bytes allow: both parties compute while bytes travel both ways. Both parties follow the same list of [`Action`]s.

mod encryption;
mod packing;
pub mod rlwe;
mod slots;
pub mod transfers;

pub(super) use packing::MAX_SETS;
pub use packing::{Packing, Planes};
pub use slots::{PhaseProducts, SlotPacking};

use super::{Linear, Plan, StepOp};
use rlwe::key_bytes;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use transfers::SETUP_BYTES;

/// The most bytes of exchanges that are begun and not finished.
pub const WINDOW: usize = 12 << 20;
/// How many more linear steps begin their exchanges before those of an interactive step begin.
const LAG: usize = 2;
/// The most elements of a Hadamard product in one exchange.
const ELEMENTS: usize = 1 << 14;
/// The most ciphertext bytes of one exchange of a linear step, unless one inference needs more.
const CIPHERTEXTS: usize = 32 << 20;
/// The most words of masks and shares of a group of inferences.
const GROUP_WORDS: usize = 1 << 25;
/// The largest group of inferences that are preprocessed together.
pub const MAX_GROUP: usize = 16;

/// How an exchange makes its correlation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `W·r` by ring-LWE encryption of the mask.
    Encryption(Box<Packing>),
    /// Products of pairs in the slots of ring-LWE ciphertexts.
    Slots(SlotPacking),
    /// Punctured GGM trees from oblivious transfers.
    Trees,
    /// Correlated oblivious transfers, chosen by bits of either party.
    Transfers,
}

/// What an exchange costs, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Correlated oblivious transfers in which party 1 chooses.
    pub transfers: usize,
    /// Those in which party 0 chooses.
    pub reverse_transfers: usize,
    /// Leaves of trees, and blocks of 128 bits of scalars that are hashed and summed at them.
    pub leaves: usize,
    /// See [`Self::leaves`].
    pub pads: usize,
    /// Blocks of 128 bits to which party 0 hashes keys of transfers for pads of tables and words; party 1 has half of
    /// the keys.
    pub key_blocks: usize,
    /// Pairs in slots of ciphertexts.
    pub slots: usize,
    /// Transforms of 4096 coefficients, or as many as take their time: of party 1, and of party 0.
    pub transforms: [usize; 2],
    /// Bytes from party 1 to party 0, back, and from party 1 to party 0 again; 0 where there is no message.
    pub bytes: [usize; 3],
}

impl Cost {
    /// Bytes of all messages.
    pub fn total_bytes(&self) -> usize {
        self.bytes.iter().sum()
    }
}

/// One correlation, or a part of it, for some inferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The step that uses it.
    pub step: usize,
    /// The operands, whose masks are party 1's input.
    pub operands: Vec<usize>,
    /// Which inferences of the group.
    pub items: Range<usize>,
    /// Which elements of the step's value, of each of these inferences; all where a step is not elementwise.
    pub elements: Range<usize>,
    /// The method.
    pub method: Method,
    /// Its cost.
    pub cost: Cost,
    /// Exchanges that must be finished before this one begins.
    needs: Vec<usize>,
}

/// Some inferences and some elements of each, with the method and the cost of their exchange.
type Part = (Range<usize>, Range<usize>, Method, Cost);

/// The next action; both parties follow the same list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Party 1 sends its first message of this exchange, and party 0 answers it.
    Begin(usize),
    /// Party 1 takes the answer, and sends its last message if the exchange has one.
    Finish(usize),
}

/// The offline phase of a group of inferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineSchedule {
    /// The exchanges, in the order in which they begin.
    pub exchanges: Vec<Exchange>,
    /// The order of both parties' actions.
    pub actions: Vec<Action>,
}

impl OfflineSchedule {
    /// Bytes to party 0, bytes to party 1, and messages.
    pub fn traffic(&self) -> (usize, usize, usize) {
        let sum = |i: usize| self.exchanges.iter().map(|e| e.cost.bytes[i]).sum::<usize>();
        let last = self.exchanges.iter().filter(|e| e.cost.bytes[2] > 0).count();
        (sum(0) + sum(2), sum(1), 2 * self.exchanges.len() + last)
    }
}

impl Plan {
    /// How many inferences are preprocessed together when `count` are wanted.
    pub fn group(&self, count: usize) -> usize {
        let words: usize = (0..self.steps.len())
            .map(|i| {
                self.steps[i].shape.elements() + self.correlation(i).map_or(0, |c| c.elements())
            })
            .sum();
        (GROUP_WORDS / words.max(1)).clamp(1, MAX_GROUP).min(count.max(1))
    }

    /// Bytes to party 0, bytes to party 1, and messages of preprocessing `count` items: the setup and all groups.
    pub fn offline_traffic(&self, count: usize) -> (usize, usize, usize) {
        let group = self.group(count);
        let full = self.offline_schedule(group).traffic();
        let rest = match count % group {
            0 => (0, 0, 0),
            rest => self.offline_schedule(rest).traffic(),
        };
        let times = count / group;
        let setup: usize = SETUP_BYTES.iter().sum();
        (
            setup + key_bytes(&self.rlwe) + times * full.0 + rest.0,
            setup + times * full.1 + rest.1,
            2 * SETUP_BYTES.len() + times * full.2 + rest.2,
        )
    }

    /// The offline phase of `items` inferences that are preprocessed together.
    ///
    /// # Panics
    /// If the plan has no encryption parameters for a linear step; a verified plan has.
    pub fn offline_schedule(&self, items: usize) -> OfflineSchedule {
        let sources = self.mask_sources();
        let mut exchanges: Vec<Exchange> = vec![];
        let mut of_step: Vec<Vec<usize>> = vec![vec![]; self.steps.len()];
        let mut waiting: VecDeque<(usize, usize)> = VecDeque::new();
        let mut linear = 0;
        let mut add = |step: usize| {
            let operands: Vec<usize> =
                self.steps[step].operands.iter().map(|o| o.index()).collect();
            let needed: BTreeSet<usize> =
                operands.iter().flat_map(|&o| sources[o].iter().copied()).collect();
            let needs: Vec<usize> =
                needed.into_iter().flat_map(|s| of_step[s].iter().copied()).collect();
            for (items, elements, method, cost) in self.parts_of(step, items) {
                of_step[step].push(exchanges.len());
                let (operands, needs) = (operands.clone(), needs.clone());
                exchanges.push(Exchange { step, operands, items, elements, method, cost, needs });
            }
        };
        for (index, step) in self.steps.iter().enumerate() {
            match &step.op {
                StepOp::Input | StepOp::Constant | StepOp::Local(_) => {}
                StepOp::Interactive(_) => waiting.push_back((index, linear)),
                StepOp::Linear(_) => {
                    add(index);
                    linear += 1;
                    while let Some(&(step, at)) = waiting.front()
                        && at + LAG <= linear
                    {
                        waiting.pop_front();
                        add(step);
                    }
                }
            }
        }
        waiting.into_iter().for_each(|(step, _)| add(step));
        let actions = actions(&exchanges);
        OfflineSchedule { exchanges, actions }
    }

    /// The exchanges of a step for `items` inferences; none if it has no correlation.
    #[allow(clippy::expect_used)] // As documented at `offline_schedule`.
    fn parts_of(&self, step: usize, items: usize) -> Vec<Part> {
        match &self.steps[step].op {
            StepOp::Input | StepOp::Constant | StepOp::Local(_) => vec![],
            StepOp::Linear(Linear::Hadamard { .. }) => {
                let ring = self.steps[step].ring;
                self.elementwise_parts(step, items, ELEMENTS, |count| {
                    vec![(Method::Transfers, transfers::hadamard(ring, count))]
                })
            }
            StepOp::Linear(Linear::Convolution { .. } | Linear::MatrixProduct { .. }) => {
                let packing = |n| self.packing(step, n).expect("parameters of a verified plan");
                let most = (CIPHERTEXTS * items / packing(items).bytes().0.max(1)).clamp(1, items);
                let elements = Planes::of(self, step).map_or(0, |p| p.result_elements());
                let part = |items: Range<usize>| {
                    let packing = packing(items.len());
                    let cost = packing.cost();
                    (items, 0..elements, Method::Encryption(Box::new(packing)), cost)
                };
                parts(items, most).map(part).collect()
            }
            StepOp::Interactive(kind) => {
                let protocol = kind.protocol();
                let most = match protocol.is_elementwise() {
                    true => protocol.elements_at_once(),
                    false => usize::MAX,
                };
                self.elementwise_parts(step, items, most, |count| {
                    protocol.exchanges(&self.steps[step], count, &self.rlwe)
                })
            }
        }
    }

    fn elementwise_parts(
        &self,
        step: usize,
        items: usize,
        most: usize,
        exchanges: impl Fn(usize) -> Vec<(Method, Cost)>,
    ) -> Vec<Part> {
        let of_range = |(items, elements): (Range<usize>, Range<usize>)| {
            let all = exchanges(items.len() * elements.len()).into_iter();
            all.map(move |(method, cost)| (items.clone(), elements.clone(), method, cost))
        };
        ranges(self.steps[step].shape.elements(), items, most)
            .into_iter()
            .flat_map(of_range)
            .collect()
    }

    /// Per value, the linear steps with secret weights that its mask follows from.
    fn mask_sources(&self) -> Vec<BTreeSet<usize>> {
        let mut sources: Vec<BTreeSet<usize>> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            sources.push(match &step.op {
                StepOp::Linear(_) => [index].into(),
                StepOp::Input | StepOp::Constant | StepOp::Interactive(_) => BTreeSet::new(),
                StepOp::Local(_) => {
                    step.operands.iter().flat_map(|o| sources[o.index()].clone()).collect()
                }
            });
        }
        sources
    }
}

/// Which items and which of `elements` of each are in one exchange of at most `most`.
fn ranges(elements: usize, items: usize, most: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let at_once = (most / elements.max(1)).max(1);
    let of_items =
        |items: Range<usize>| parts(elements, most).map(move |elements| (items.clone(), elements));
    parts(items, at_once).flat_map(of_items).collect()
}

/// `0..length` in equal parts of at most `most`.
fn parts(length: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = length.div_ceil(most.max(1)).max(1);
    let size = length.div_ceil(count);
    (0..count).map(move |i| (i * size).min(length)..((i + 1) * size).min(length))
}

fn actions(exchanges: &[Exchange]) -> Vec<Action> {
    let mut actions = Vec::with_capacity(2 * exchanges.len());
    let (mut open, mut finished): (VecDeque<usize>, _) =
        (VecDeque::new(), vec![false; exchanges.len()]);
    let mut bytes = 0usize;
    let size = |i: usize| exchanges[i].cost.total_bytes();
    for (index, exchange) in exchanges.iter().enumerate() {
        while !open.is_empty()
            && (bytes + size(index) > WINDOW || exchange.needs.iter().any(|&n| !finished[n]))
        {
            let Some(oldest) = open.pop_front() else { break };
            actions.push(Action::Finish(oldest));
            finished[oldest] = true;
            bytes -= size(oldest);
        }
        actions.push(Action::Begin(index));
        open.push_back(index);
        bytes += size(index);
    }
    actions.extend(open.into_iter().map(Action::Finish));
    actions
}
