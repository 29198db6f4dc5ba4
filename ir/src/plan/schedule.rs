//! The order of the offline phase: what the two parties exchange to make correlations for some inferences
//! together, and how many bytes each message has.
//!
//! Making a correlation is one *exchange*: party 1 sends, party 0 answers, and for some kinds party 1 sends
//! once more. A linear step's exchange needs its operand's mask, an activation's the phases of its
//! operand's mask; masks that are shares of `W·r` are known when the exchange of that step is finished, and
//! all others from the start. So the linear steps run ahead, activations follow [`LAG`] linear steps later,
//! and as many exchanges are begun before the first is finished as [`WINDOW`] bytes allow: both parties
//! compute while bytes travel both ways. Both parties follow the same list of [`Action`]s.

use super::offline::SETUP_BYTES;
use super::packing::Planes;
use super::rlwe::key_bytes;
use super::{Plan, StepOp};
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of exchanges that are begun and not finished.
pub const WINDOW: usize = 12 << 20;
/// Linear steps that run ahead of the activations behind them.
const LAG: usize = 2;
/// Elements of a square, polynomial or diagonal step in one exchange.
const ELEMENTS: usize = 1 << 14;
/// Elements of a phase step in one exchange: with one harmonic they fill the slots of a ciphertext.
const PHASES: usize = 1 << 15;
/// Ciphertext bytes of one exchange of a linear step, unless one inference needs more.
const CIPHERTEXTS: usize = 32 << 20;
/// Words of masks that a group of inferences may have.
const GROUP_WORDS: usize = 1 << 25;
/// The largest group of inferences that are made together.
pub const MAX_GROUP: usize = 16;

/// One correlation, or a part of it, for some inferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The step that uses it.
    pub step: usize,
    /// Which inferences of the group.
    pub items: Range<usize>,
    /// Which elements of the step's value, of each of these inferences; all in a linear step's.
    pub elements: Range<usize>,
    /// Bytes from party 1, of party 0's answer, and from party 1 again; the last may be 0, and then there
    /// is no such message.
    pub bytes: [usize; 3],
    /// Exchanges that must be finished before this one begins.
    needs: Vec<usize>,
}

/// What a party does next: both walk the same list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Party 1 sends its first message of this exchange, and party 0 answers it.
    Begin(usize),
    /// Party 1 takes the answer, and sends its last message if the exchange has one.
    Finish(usize),
}

/// The offline phase of a group of inferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The exchanges, in the order in which they begin.
    pub exchanges: Vec<Exchange>,
    /// Who does what when.
    pub actions: Vec<Action>,
}

impl Schedule {
    /// Bytes to party 0, bytes to party 1, and messages.
    pub fn traffic(&self) -> (usize, usize, usize) {
        let sum = |i: usize| self.exchanges.iter().map(|e| e.bytes[i]).sum::<usize>();
        let last = self.exchanges.iter().filter(|e| e.bytes[2] > 0).count();
        (sum(0) + sum(2), sum(1), 2 * self.exchanges.len() + last)
    }
}

impl Plan {
    /// How many inferences are made together when `count` are wanted.
    pub fn group(&self, count: usize) -> usize {
        let words: usize = (0..self.steps.len())
            .map(|i| self.steps[i].shape.elements() + self.correlation(i).map_or(0, |c| c.elements))
            .sum();
        (GROUP_WORDS / words.max(1)).clamp(1, MAX_GROUP).min(count.max(1))
    }

    /// Bytes to party 0, bytes to party 1, and messages of making `count` items: the setup and all groups.
    pub fn offline_traffic(&self, count: usize) -> (usize, usize, usize) {
        let group = self.group(count);
        let full = self.schedule(group).traffic();
        let rest = match count % group {
            0 => (0, 0, 0),
            rest => self.schedule(rest).traffic(),
        };
        let times = count / group;
        let setup: usize = SETUP_BYTES.iter().sum();
        (
            setup + key_bytes(&self.rlwe) + times * full.0 + rest.0,
            setup + times * full.1 + rest.1,
            2 * SETUP_BYTES.len() + times * full.2 + rest.2,
        )
    }

    /// Bytes of the three messages about the products of `count` elements of a step.
    pub fn product_bytes(&self, step: usize, count: usize) -> [usize; 3] {
        self.product_cost(step, count).map_or([0; 3], |cost| cost.messages)
    }

    /// The offline phase of `items` inferences that are made together.
    ///
    /// # Panics
    /// If the plan has no encryption parameters for a linear step; a verified plan has.
    pub fn schedule(&self, items: usize) -> Schedule {
        let sources = self.mask_sources();
        let mut exchanges: Vec<Exchange> = vec![];
        let mut of_step: Vec<Vec<usize>> = vec![vec![]; self.steps.len()];
        let mut waiting: VecDeque<(usize, usize)> = VecDeque::new();
        let mut linear = 0;
        let mut add = |step: usize, parts: Vec<(Range<usize>, Range<usize>, [usize; 3])>| {
            let operand = self.steps[step].operands[0].index();
            let needs: Vec<usize> =
                sources[operand].iter().flat_map(|&s| of_step[s].iter().copied()).collect();
            for (items, elements, bytes) in parts {
                of_step[step].push(exchanges.len());
                exchanges.push(Exchange { step, items, elements, bytes, needs: needs.clone() });
            }
        };
        for (index, step) in self.steps.iter().enumerate() {
            if step.op.is_activation() {
                waiting.push_back((index, linear));
            } else if step.op.is_secret_linear() {
                let parts = if matches!(step.op, StepOp::Diagonal { .. }) {
                    self.product_parts(index, items)
                } else {
                    self.linear_parts(index, items)
                };
                add(index, parts);
                linear += 1;
                while waiting.front().is_some_and(|(_, at)| at + LAG <= linear) {
                    waiting.pop_front().into_iter().for_each(|(activation, _)| {
                        add(activation, self.product_parts(activation, items));
                    });
                }
            }
        }
        waiting.into_iter().for_each(|(index, _)| add(index, self.product_parts(index, items)));
        let actions = actions(&exchanges);
        Schedule { exchanges, actions }
    }

    #[allow(clippy::expect_used)] // As documented at `schedule`.
    fn linear_parts(
        &self,
        step: usize,
        items: usize,
    ) -> Vec<(Range<usize>, Range<usize>, [usize; 3])> {
        let packing = |n| self.packing(step, n).expect("parameters of a verified plan");
        let most = (CIPHERTEXTS * items / packing(items).bytes().0.max(1)).clamp(1, items);
        let elements = Planes::of(self, step).map_or(0, |p| p.result_elements());
        parts(items, most)
            .map(|items| {
                let (to0, to1) = packing(items.len()).bytes();
                (items, 0..elements, [to0, to1, 0])
            })
            .collect()
    }

    fn product_parts(
        &self,
        step: usize,
        items: usize,
    ) -> Vec<(Range<usize>, Range<usize>, [usize; 3])> {
        let with_bytes = |(items, elements): (Range<usize>, Range<usize>)| {
            let bytes = self.product_bytes(step, items.len() * elements.len());
            (items, elements, bytes)
        };
        self.product_ranges(step, items).into_iter().map(with_bytes).collect()
    }

    /// Which items and elements of a step's products are made in one exchange.
    pub(super) fn product_ranges(
        &self,
        step: usize,
        items: usize,
    ) -> Vec<(Range<usize>, Range<usize>)> {
        let most = match self.steps[step].op {
            StepOp::Phase(_) => PHASES,
            _ => ELEMENTS,
        };
        let elements = self.steps[step].shape.elements();
        let at_once = (most / elements.max(1)).max(1);
        let of_items = |items: Range<usize>| {
            parts(elements, most).map(move |elements| (items.clone(), elements))
        };
        parts(items, at_once).flat_map(of_items).collect()
    }

    /// Per value, the linear steps with secret weights that its mask follows from.
    fn mask_sources(&self) -> Vec<BTreeSet<usize>> {
        let mut sources: Vec<BTreeSet<usize>> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            sources.push(match &step.op {
                op if op.is_secret_linear() => [index].into(),
                op if op.is_activation() => BTreeSet::new(),
                _ => step.operands.iter().flat_map(|o| sources[o.index()].clone()).collect(),
            });
        }
        sources
    }
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
    let size = |i: usize| exchanges[i].bytes.iter().sum::<usize>();
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
