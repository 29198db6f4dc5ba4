//! The order of the offline phase: what the two parties exchange to preprocess correlations for some inferences
//! together, how, and how many bytes each message has.
//!
//! A correlation is preprocessed by *exchanges*: the parties send in turn, party 1 first, as often as the method has
//! it. An exchange needs the masks of its operands; masks that are shares of `W·r` are known when the
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

/// The most bytes of exchanges that are begun and not finished, of each those of three messages in a row.
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
    /// GGM trees that the parties share, level by level.
    SharedTrees,
}

impl Method {
    /// Whether party 0's messages do not wait for party 1's with the same number: both are under way at once.
    pub fn is_mutual(&self) -> bool {
        match self {
            Self::Encryption(_) | Self::Slots(_) | Self::Trees | Self::Transfers => false,
            Self::SharedTrees => true,
        }
    }
}

/// What an exchange costs, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Bytes of the messages, of party 1 and party 0 in turn.
    pub bytes: Vec<usize>,
}

impl Cost {
    /// Bytes of all messages.
    pub fn total_bytes(&self) -> usize {
        self.bytes.iter().sum()
    }

    /// Bytes to party 0 and to party 1.
    pub fn directions(&self) -> (usize, usize) {
        let of = |first: usize| self.bytes.iter().skip(first).step_by(2).sum();
        (of(0), of(1))
    }

    /// Bytes that may be under way at once: of three messages in a row.
    fn under_way(&self) -> usize {
        let sums = (0..self.bytes.len()).map(|i| self.bytes[i..].iter().take(3).sum());
        sums.max().unwrap_or(0)
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

impl Exchange {
    /// Its turns: those in which party 1 has something to send or to take.
    pub fn turns(&self) -> usize {
        self.cost.bytes.len() / 2 + 1
    }
}

/// Some inferences and some elements of each, with the method and the cost of their exchange.
type Part = (Range<usize>, Range<usize>, Method, Cost);

/// The next action; both parties follow the same list. In an exchange's turn `t` party 1 takes party 0's message `t − 1`
/// and sends its own with number `t`, as far as there are such; party 0 takes that one and sends its own message `t`,
/// which it sends first if the method [has it so](Method::is_mutual).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Which exchange.
    pub exchange: usize,
    /// Which of its turns, from 0 on.
    pub turn: usize,
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
        self.exchanges.iter().fold((0, 0, 0), |(to0, to1, messages), exchange| {
            let of = exchange.cost.directions();
            (to0 + of.0, to1 + of.1, messages + exchange.cost.bytes.len())
        })
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
    let mut open = Open { exchanges, queue: VecDeque::new(), actions: vec![], bytes: 0 };
    for (index, exchange) in exchanges.iter().enumerate() {
        let size = exchange.cost.under_way();
        while !open.queue.is_empty()
            && (open.bytes + size > WINDOW || exchange.needs.iter().any(|n| open.has(*n)))
        {
            open.go_on();
        }
        open.actions.push(Action { exchange: index, turn: 0 });
        open.queue.push_back((index, 1));
        open.bytes += size;
    }
    while !open.queue.is_empty() {
        open.go_on();
    }
    open.actions
}

/// Exchanges that are begun and not finished, in the order in which they began, with the next turn of each.
struct Open<'a> {
    exchanges: &'a [Exchange],
    queue: VecDeque<(usize, usize)>,
    actions: Vec<Action>,
    /// Of the messages that may be under way.
    bytes: usize,
}

impl Open<'_> {
    fn has(&self, exchange: usize) -> bool {
        self.queue.iter().any(|open| open.0 == exchange)
    }

    /// Takes the last turn of the oldest exchange; if it has more, one turn of every exchange, so that the messages of
    /// all of them are under way together. Second turns keep the order of first ones.
    fn go_on(&mut self) {
        let is_last = |&(index, turn): &(usize, usize)| turn + 1 == self.exchanges[index].turns();
        let count = if self.queue.front().is_some_and(is_last) { 1 } else { self.queue.len() };
        let rest = self.queue.split_off(count);
        for (exchange, turn) in std::mem::replace(&mut self.queue, rest) {
            self.actions.push(Action { exchange, turn });
            if turn + 1 < self.exchanges[exchange].turns() {
                self.queue.push_back((exchange, turn + 1));
            } else {
                self.bytes -= self.exchanges[exchange].cost.under_way();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(bytes: Vec<usize>, needs: Vec<usize>) -> Exchange {
        let is_mutual = bytes.len() > 3;
        Exchange {
            step: 0,
            operands: vec![],
            items: 0..1,
            elements: 0..1,
            method: if is_mutual { Method::SharedTrees } else { Method::Transfers },
            cost: Cost { bytes, ..Cost::default() },
            needs,
        }
    }

    /// Every exchange takes its turns in order; first and second turns have one order, as transfers are used up in
    /// it; what an exchange needs is finished before it begins; and no more is under way than the window.
    #[test]
    fn turns_are_taken_in_order_within_the_window() {
        let lengths = [2, 16, 3, 2, 20, 16, 2, 3, 16, 18, 2, 16, 16, 3];
        let exchanges: Vec<Exchange> = (0..140)
            .map(|i| {
                let size = if i % 35 == 34 { WINDOW } else { WINDOW / [60, 30, 3000][i % 3] };
                let needs = if i % 15 == 14 { vec![i - 4, i - 1] } else { vec![] };
                exchange(vec![size; lengths[i % lengths.len()]], needs)
            })
            .collect();
        let actions = actions(&exchanges);
        assert_eq!(actions.len(), exchanges.iter().map(Exchange::turns).sum::<usize>());
        let mut turns = vec![0; exchanges.len()];
        let mut together = 0;
        for (at, action) in actions.iter().enumerate() {
            let Action { exchange, turn } = *action;
            assert_eq!(turns[exchange], turn, "action {at}");
            turns[exchange] += 1;
            let is_done = |i: usize, turns: &[usize]| turns[i] == exchanges[i].turns();
            if turn == 0 {
                assert!(exchanges[exchange].needs.iter().all(|&n| is_done(n, &turns)));
            }
            for count in [1, 2] {
                let first = turns.iter().take_while(|&&turns| turns >= count).count();
                assert!(turns[first..].iter().all(|&turns| turns < count), "action {at}");
            }
            let open = |i: &usize| turns[*i] > 0 && !is_done(*i, &turns);
            let open: Vec<usize> = (0..exchanges.len()).filter(open).collect();
            let bytes: usize = open.iter().map(|&i| exchanges[i].cost.under_way()).sum();
            assert!(bytes <= WINDOW || open.len() == 1, "action {at}");
            let is_tree = |i: &&usize| exchanges[**i].method.is_mutual();
            together = together.max(open.iter().filter(is_tree).count());
        }
        assert!(together > 5, "{together} trees at once");
        // Without trees, an exchange is finished only to make room for the next.
        let plain: Vec<Exchange> = (0..9).map(|_| exchange(vec![WINDOW / 8; 2], vec![])).collect();
        let order: Vec<(usize, usize)> =
            super::actions(&plain).iter().map(|a| (a.exchange, a.turn)).collect();
        let first = [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (4, 0), (1, 1), (5, 0)];
        assert_eq!(order[..8], first);
    }
}
