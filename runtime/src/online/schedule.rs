//! What party 0 does online, in which order, and where its values lie in memory: made once per plan, of
//! public things alone.
//!
//! A linear step whose value one activation alone asks for is not computed for itself: the activation
//! makes it part by part, with the additions between them (its *tail*), and asks for a part as soon as it
//! is made. Values that stand in memory share it where their times do not overlap.

use super::host::Sizes;
use crate::layout::{axis, channels_last, dims, to_online, to_row_major};
use crate::words::Words;
use ir::plan::{Linear, Local, Plan, RoundTrip, Step, StepOp, StepWeights};
use ir::{Shape, Tensor};

/// The order of party 0's work, and the memory that it takes.
pub struct Schedule {
    /// What is done between two waits.
    pub turns: Vec<Turn>,
    /// Memory of values: bits of the words, and elements for one inference.
    pub slots: Vec<(u32, usize)>,
    /// The slot of every step's value; none for linear steps, whose correlation becomes their value.
    pub slot: Vec<Option<usize>>,
    /// Where the elements of structural steps go.
    pub forms: Vec<Form>,
}

/// Local steps, then messages of interactive steps that share a round trip.
pub struct Turn {
    /// Steps with the values that are not read after them.
    pub local: Vec<(usize, Vec<usize>)>,
    /// The interactive steps.
    pub asks: Vec<Ask>,
    /// Values that are not read after them.
    pub released: Vec<usize>,
}

/// One round trip of an interactive step.
pub struct Ask {
    /// Step and messages.
    pub trip: RoundTrip,
    /// The steps that are computed part by part: a linear one and elementwise ones behind it, of which
    /// the last is the operand. Empty when the operand is there.
    pub tail: Vec<Link>,
}

impl Ask {
    /// The steps whose records it takes, in order: the linear step of the tail, and at its first round trip its own.
    pub fn records(&self) -> impl Iterator<Item = usize> + use<> {
        let own = (self.trip.number == 0).then_some(self.trip.step);
        self.tail.first().map(|first| first.step).into_iter().chain(own)
    }

    /// Whether its messages leave in parts.
    pub fn is_cut(&self, plan: &Plan, batch: usize, sizes: Sizes) -> bool {
        sizes.cut(plan.steps[self.trip.step].shape.elements() * batch)
    }
}

/// A step of a tail.
pub struct Link {
    /// Its index.
    pub step: usize,
    /// The operand that is not the step before, of an addition.
    pub other: Option<usize>,
}

/// Where a step's elements come from, in the order online.
pub enum Form {
    /// From where they stand: elementwise.
    Same,
    /// A step that only moves elements.
    Moved(Vec<Run>),
    /// Joined of runs of so many elements of every operand in turn.
    Joined(Vec<usize>),
    /// By the definition: the order online of an operand is another than the result's.
    Rows,
    /// Sums over these axes of an operand of these dimensions, sorted.
    Sums(Vec<usize>, Vec<usize>),
}

/// Consecutive elements that are moved together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where they come from; nowhere if they are zeros.
    pub from: Option<usize>,
    /// How many they are.
    pub count: usize,
}

impl Schedule {
    /// Schedules a plan; tails only if `fused`.
    pub fn new(plan: &Plan, fused: bool) -> Self {
        let rounds = plan.rounds();
        let mut users = vec![0; plan.steps.len()];
        plan.steps.iter().flat_map(|s| &s.operands).for_each(|o| users[o.index()] += 1);
        users[plan.output.index()] += 1;
        let mut round_of = vec![usize::MAX; plan.steps.len()];
        for (number, round) in rounds.iter().enumerate() {
            round.local.iter().for_each(|&step| round_of[step] = number);
        }
        let mut is_made = vec![false; plan.steps.len()];
        let mut turns = Vec::with_capacity(rounds.len());
        for round in &rounds {
            let ask = |&trip: &RoundTrip| {
                let operand = plan.steps[trip.step].operands[0].index();
                let is_alone = trip.number == 0 && trip.is_last && trip.is_elementwise;
                let most = if fused && is_alone { LONGEST } else { 0 };
                Ask { trip, tail: tail(plan, &users, &round_of, operand, most) }
            };
            let asks: Vec<Ask> = round.trips.iter().map(ask).collect();
            asks.iter().flat_map(|a| &a.tail).for_each(|l| is_made[l.step] = true);
            let local = round.local.iter().filter(|&&step| !is_made[step]);
            let local = local.map(|&step| (step, vec![])).collect();
            turns.push(Turn { local, asks, released: vec![] });
        }
        let forms = plan.steps.iter().map(|step| form(plan, step)).collect();
        let slot = vec![None; plan.steps.len()];
        let mut schedule = Self { turns, slots: vec![], slot, forms };
        schedule.release(plan);
        schedule.place(plan);
        schedule
    }

    /// The steps whose correlations are used, in the order in which they are.
    pub fn correlations(&self, plan: &Plan) -> Vec<usize> {
        let mut order = vec![];
        for turn in &self.turns {
            let local = turn.local.iter().map(|(step, _)| *step);
            order.extend(local.filter(|&step| plan.steps[step].op.is_secret_linear()));
            for ask in &turn.asks {
                order.extend(ask.records());
            }
        }
        order
    }

    /// Finds the last moment at which every value is read.
    fn release(&mut self, plan: &Plan) {
        let mut is_read_later = vec![false; plan.steps.len()];
        is_read_later[plan.output.index()] = true;
        let mut first_seen = |step: usize, released: &mut Vec<usize>| {
            for operand in &plan.steps[step].operands {
                if !std::mem::replace(&mut is_read_later[operand.index()], true) {
                    released.push(operand.index());
                }
            }
        };
        for turn in self.turns.iter_mut().rev() {
            for ask in turn.asks.iter().rev() {
                let made = |step: &usize| ask.tail.iter().any(|l| l.step == *step);
                let mut released = vec![];
                for step in ask.tail.iter().map(|l| l.step).chain([ask.trip.step]) {
                    first_seen(step, &mut released);
                }
                turn.released.extend(released.into_iter().filter(|step| !made(step)));
            }
            for (step, released) in turn.local.iter_mut().rev() {
                first_seen(*step, released);
            }
        }
    }

    /// Gives every value a slot that nothing else uses while it is needed.
    fn place(&mut self, plan: &Plan) {
        let mut free: Vec<usize> = vec![];
        let Self { turns, slots, slot, .. } = self;
        let mut take = |step: usize, free: &mut Vec<usize>, slot: &mut Vec<Option<usize>>| {
            let Step { op, ring, shape, .. } = &plan.steps[step];
            if op.is_secret_linear() {
                return;
            }
            let (bits, elements) = (Words::bits(*ring), shape.elements());
            // The one that must grow least.
            let cost = |&i: &usize| (elements.saturating_sub(slots[i].1), slots[i].1);
            let fits = (0..free.len()).filter(|&f| slots[free[f]].0 == bits);
            let found = fits.min_by_key(|&f| cost(&free[f])).map(|f| free.swap_remove(f));
            let found = found.unwrap_or_else(|| {
                slots.push((bits, 0));
                slots.len() - 1
            });
            slots[found].1 = slots[found].1.max(elements);
            slot[step] = Some(found);
        };
        for turn in turns {
            for (step, released) in &turn.local {
                take(*step, &mut free, slot);
                free.extend(released.iter().filter_map(|&r| slot[r]));
            }
            let ends = turn.asks.iter().filter(|ask| ask.trip.is_last);
            ends.for_each(|ask| take(ask.trip.step, &mut free, slot));
            free.extend(turn.released.iter().filter_map(|&r| slot[r]));
        }
    }
}

/// Steps of a tail at most.
const LONGEST: usize = 16;

/// The steps that end in `operand` and can be made part by part, of those that are local to its round; at
/// most `most` of them.
fn tail(
    plan: &Plan,
    users: &[usize],
    round_of: &[usize],
    operand: usize,
    most: usize,
) -> Vec<Link> {
    let step = &plan.steps[operand];
    if most == 0 || users[operand] != 1 || round_of[operand] == usize::MAX {
        return vec![];
    }
    if step.op.is_secret_linear() {
        let link = Link { step: operand, other: None };
        return if is_in_rows(step) { vec![] } else { vec![link] };
    }
    if !matches!(step.op, StepOp::Local(Local::Add | Local::Scale { .. } | Local::Truncate { .. }))
    {
        return vec![];
    }
    let operands: Vec<usize> = step.operands.iter().map(|o| o.index()).collect();
    for (i, &before) in operands.iter().enumerate().rev() {
        let is_alike = Words::bits(plan.steps[before].ring) == Words::bits(step.ring)
            && plan.steps[before].shape == step.shape
            && round_of[before] == round_of[operand];
        if !is_alike {
            continue;
        }
        let mut links = tail(plan, users, round_of, before, most - 1);
        if !links.is_empty() {
            let other = operands.iter().enumerate().find(|&(j, _)| j != i).map(|(_, &o)| o);
            links.push(Link { step: operand, other });
            return links;
        }
    }
    vec![]
}

/// Whether a step is a matrix product of values whose order online is another than row-major, on which it
/// is computed.
pub fn is_in_rows(step: &Step) -> bool {
    matches!(step.op, StepOp::Linear(Linear::MatrixProduct { .. })) && step.shape.rank() == 4
}

fn form(plan: &Plan, step: &Step) -> Form {
    let operand = |i: usize| &plan.step(step.operands[i]).shape;
    let orders = (0..step.operands.len()).map(|i| channels_last(operand(i)));
    let is_mixed = orders.into_iter().any(|order| order != channels_last(&step.shape));
    let StepOp::Local(kind) = &step.op else { return Form::Same };
    match kind {
        Local::Concat { .. } | Local::ReduceSum { .. } if is_mixed => Form::Rows,
        Local::Reshape | Local::Transpose { .. } | Local::Gather { .. } => {
            Form::Moved(moves(operand(0), step))
        }
        Local::Concat { axis: along } => {
            let run = |i| dims(operand(i))[axis(operand(i), *along)..].iter().product();
            Form::Joined((0..step.operands.len()).map(run).collect())
        }
        Local::ReduceSum { axes } => {
            let mut axes: Vec<usize> = axes.iter().map(|&a| axis(operand(0), a)).collect();
            axes.sort_unstable();
            axes.dedup();
            Form::Sums(axes, dims(operand(0)))
        }
        Local::Add | Local::Scale { .. } | Local::SumPool { .. } | Local::Truncate { .. } => {
            Form::Same
        }
    }
}

/// What a step that only moves elements moves, found by moving their numbers.
fn moves(operand: &Shape, step: &Step) -> Vec<Run> {
    // From 1 on: taking nothing gives zeros.
    let online: Vec<u64> = (1..=operand.elements() as u64).collect();
    let numbers = Tensor::new(operand.clone(), to_row_major(operand, &online));
    let unbounded = Step { ring: 64, ..step.clone() };
    let moved = unbounded.apply(&StepWeights::None, &[&numbers]);
    let mut runs: Vec<Run> = vec![];
    for number in to_online(&step.shape, 1, &moved.data) {
        let from = (number as usize).checked_sub(1);
        match runs.last_mut() {
            Some(run) if run.from.map(|f| f + run.count) == from => run.count += 1,
            _ => runs.push(Run { from, count: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plans;

    /// Values in one slot are never needed at the same time.
    #[test]
    fn no_value_is_overwritten_before_it_was_read() {
        for (plan, _) in [plans::every_kind(), plans::phases(), plans::large_phases()] {
            for fused in [false, true] {
                let schedule = Schedule::new(&plan, fused);
                let mut holds: Vec<Option<usize>> = vec![None; schedule.slots.len()];
                let check = |step: usize, holds: &[Option<usize>]| {
                    for operand in plan.steps[step].operands.iter().map(|o| o.index()) {
                        assert!(schedule.slot[operand].is_none_or(|s| holds[s] == Some(operand)));
                    }
                };
                let mut done = 0;
                for turn in &schedule.turns {
                    for (step, _) in &turn.local {
                        check(*step, &holds);
                        schedule.slot[*step].inspect(|&s| holds[s] = Some(*step));
                        done += 1;
                    }
                    for ask in &turn.asks {
                        let made = ask.tail.iter().filter_map(|l| l.other);
                        assert!(
                            made.into_iter()
                                .all(|o| schedule.slot[o].is_none_or(|s| holds[s] == Some(o)))
                        );
                        done += ask.tail.len() + 1;
                    }
                    for ask in &turn.asks {
                        let step = ask.trip.step;
                        schedule.slot[step].inspect(|&s| holds[s] = Some(step));
                    }
                }
                assert_eq!(done, plan.steps.len());
                let output = plan.output.index();
                assert!(schedule.slot[output].is_none_or(|s| holds[s] == Some(output)));
                let links = schedule.turns.iter().flat_map(|t| &t.asks).map(|a| a.tail.len());
                assert_eq!(links.sum::<usize>() > 0, fused);
            }
        }
    }

    #[test]
    fn zeros_and_neighbours_are_moved_together() {
        let (plan, _) = plans::every_kind();
        let take = plan
            .steps
            .iter()
            .find(|s| matches!(s.op, StepOp::Local(Local::Gather { .. })))
            .unwrap();
        let runs = moves(&plan.step(take.operands[0]).shape, take);
        // Row 3 of 4×4 positions with two channels, then nothing.
        assert_eq!(runs, [Run { from: Some(24), count: 8 }, Run { from: None, count: 8 }]);
    }
}
