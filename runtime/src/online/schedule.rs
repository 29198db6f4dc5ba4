//! What party 0 does online, in which order, and which memory its values use: computed once per plan, from public
//! data alone.
//!
//! A linear step whose value is read by one interactive step alone is not computed on its own. The linear step and the
//! elementwise steps between the two form a *fusion chain*, which is computed part by part with the opening: each part is
//! sent as soon as it is computed. Values share a buffer where they are not needed at the same time.

use super::sizes::Sizes;
use crate::layout::{axis, channels_last, dims, to_online, to_row_major};
use crate::words::Words;
use ir::plan::{Linear, Local, Plan, RoundTrip, Step, StepOp, StepWeights};
use ir::{Shape, Tensor};

/// The order of party 0's work, and the memory that it needs.
pub struct Schedule {
    /// What is done between two waits for the peer.
    pub turns: Vec<Turn>,
    /// The buffers for values: bits of a word, and elements for one inference.
    pub buffers: Vec<(u32, usize)>,
    /// The buffer of every step's value; none for linear steps, whose correlation becomes their value.
    pub buffer: Vec<Option<usize>>,
    /// How every step takes its elements from its operands.
    pub forms: Vec<Form>,
}

/// Local steps, then messages of interactive steps that share a round trip.
pub struct Turn {
    /// Local steps, each with the values that nothing reads after it.
    pub local: Vec<(usize, Vec<usize>)>,
    /// Round trips of interactive steps.
    pub interactions: Vec<Interaction>,
    /// Values that nothing reads after these.
    pub released: Vec<usize>,
}

/// One round trip of an interactive step, with the steps that are fused into it.
pub struct Interaction {
    /// Step and messages.
    pub trip: RoundTrip,
    /// The fusion chain: a linear step and elementwise steps after it, of which the last is the operand. Empty if the
    /// operand is computed before.
    pub chain: Vec<ChainStep>,
}

impl Interaction {
    /// The steps whose records it takes, in order: the linear step of the chain, then, at the first round trip, its
    /// own.
    pub fn records(&self) -> impl Iterator<Item = usize> + use<> {
        let own = (self.trip.number == 0).then_some(self.trip.step);
        self.chain.first().map(|first| first.step).into_iter().chain(own)
    }

    /// Whether its messages are sent in parts.
    pub fn is_cut(&self, plan: &Plan, batch: usize, sizes: Sizes) -> bool {
        sizes.cut(plan.steps[self.trip.step].shape.elements() * batch)
    }
}

/// A step of a fusion chain.
pub struct ChainStep {
    /// Its index.
    pub step: usize,
    /// The other operand of an addition, beside the step before.
    pub other: Option<usize>,
}

/// How a step takes its elements from its operands, in the order online.
pub enum Form {
    /// Element by element, in the same order.
    Same,
    /// Elements are only moved, run by run.
    Moved(Vec<Run>),
    /// Concatenated: in turn, so many elements of every operand.
    Joined(Vec<usize>),
    /// By the definition, in row-major order: an operand has another order online than the result.
    Rows,
    /// Sums over these axes of an operand of these dimensions, sorted.
    Sums(Vec<usize>, Vec<usize>),
}

/// Consecutive elements that are moved together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Their first index in the operand; none if they are zeros.
    pub from: Option<usize>,
    /// How many they are.
    pub count: usize,
}

impl Schedule {
    /// Schedules a plan; with fusion chains only if `fused`.
    pub fn new(plan: &Plan, fused: bool) -> Self {
        let rounds = plan.rounds();
        let mut users = vec![0; plan.steps.len()];
        plan.steps.iter().flat_map(|s| &s.operands).for_each(|o| users[o.index()] += 1);
        users[plan.output.index()] += 1;
        let mut round_of = vec![usize::MAX; plan.steps.len()];
        for (number, round) in rounds.iter().enumerate() {
            round.local.iter().for_each(|&step| round_of[step] = number);
        }
        let mut is_fused = vec![false; plan.steps.len()];
        let mut turns = Vec::with_capacity(rounds.len());
        for round in &rounds {
            let interaction = |&trip: &RoundTrip| {
                let operand = plan.steps[trip.step].operands[0].index();
                let is_alone = trip.number == 0 && trip.is_last && trip.is_elementwise;
                let most = if fused && is_alone { LONGEST } else { 0 };
                Interaction { trip, chain: chain(plan, &users, &round_of, operand, most) }
            };
            let interactions: Vec<Interaction> = round.trips.iter().map(interaction).collect();
            interactions.iter().flat_map(|a| &a.chain).for_each(|l| is_fused[l.step] = true);
            let local = round.local.iter().filter(|&&step| !is_fused[step]);
            let local = local.map(|&step| (step, vec![])).collect();
            turns.push(Turn { local, interactions, released: vec![] });
        }
        let forms = plan.steps.iter().map(|step| form(plan, step)).collect();
        let buffer = vec![None; plan.steps.len()];
        let mut schedule = Self { turns, buffers: vec![], buffer, forms };
        schedule.find_last_uses(plan);
        schedule.assign_buffers(plan);
        schedule
    }

    /// The steps that use correlations, in the order of use.
    pub fn correlations(&self, plan: &Plan) -> Vec<usize> {
        let mut order = vec![];
        for turn in &self.turns {
            let local = turn.local.iter().map(|(step, _)| *step);
            order.extend(local.filter(|&step| plan.steps[step].op.is_secret_linear()));
            for interaction in &turn.interactions {
                order.extend(interaction.records());
            }
        }
        order
    }

    /// Finds after which step or round trip every value can be released.
    fn find_last_uses(&mut self, plan: &Plan) {
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
            for interaction in turn.interactions.iter().rev() {
                let is_fused = |step: &usize| interaction.chain.iter().any(|l| l.step == *step);
                let mut released = vec![];
                for step in interaction.chain.iter().map(|l| l.step).chain([interaction.trip.step])
                {
                    first_seen(step, &mut released);
                }
                turn.released.extend(released.into_iter().filter(|step| !is_fused(step)));
            }
            for (step, released) in turn.local.iter_mut().rev() {
                first_seen(*step, released);
            }
        }
    }

    /// Assigns every value a buffer that no other value uses at the same time.
    fn assign_buffers(&mut self, plan: &Plan) {
        let mut free: Vec<usize> = vec![];
        let Self { turns, buffers, buffer, .. } = self;
        let mut take = |step: usize, free: &mut Vec<usize>, buffer: &mut Vec<Option<usize>>| {
            let Step { op, ring, shape, .. } = &plan.steps[step];
            if op.is_secret_linear() {
                return;
            }
            let (bits, elements) = (Words::bits(*ring), shape.elements());
            // The free one that must grow least.
            let cost = |&i: &usize| (elements.saturating_sub(buffers[i].1), buffers[i].1);
            let fits = (0..free.len()).filter(|&f| buffers[free[f]].0 == bits);
            let found = fits.min_by_key(|&f| cost(&free[f])).map(|f| free.swap_remove(f));
            let found = found.unwrap_or_else(|| {
                buffers.push((bits, 0));
                buffers.len() - 1
            });
            buffers[found].1 = buffers[found].1.max(elements);
            buffer[step] = Some(found);
        };
        for turn in turns {
            for (step, released) in &turn.local {
                take(*step, &mut free, buffer);
                free.extend(released.iter().filter_map(|&r| buffer[r]));
            }
            let ends = turn.interactions.iter().filter(|interaction| interaction.trip.is_last);
            ends.for_each(|interaction| take(interaction.trip.step, &mut free, buffer));
            free.extend(turn.released.iter().filter_map(|&r| buffer[r]));
        }
    }
}

/// The most steps of a fusion chain.
const LONGEST: usize = 16;

/// The fusion chain that ends in `operand`: steps of its round that can be computed part by part, at most `most`;
/// empty if there is none.
fn chain(
    plan: &Plan,
    users: &[usize],
    round_of: &[usize],
    operand: usize,
    most: usize,
) -> Vec<ChainStep> {
    let step = &plan.steps[operand];
    if most == 0 || users[operand] != 1 || round_of[operand] == usize::MAX {
        return vec![];
    }
    if step.op.is_secret_linear() {
        let link = ChainStep { step: operand, other: None };
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
        let mut links = chain(plan, users, round_of, before, most - 1);
        if !links.is_empty() {
            let other = operands.iter().enumerate().find(|&(j, _)| j != i).map(|(_, &o)| o);
            links.push(ChainStep { step: operand, other });
            return links;
        }
    }
    vec![]
}

/// Whether a step is a matrix product of values whose order online is not row-major, so that they are reordered for
/// it.
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

/// The runs of a step that only moves elements, found by applying it to the elements' indices.
fn moves(operand: &Shape, step: &Step) -> Vec<Run> {
    // From 1 on: 0 stands for elements that the step fills with zeros.
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

    /// Values in one buffer are never needed at the same time.
    #[test]
    fn no_value_is_overwritten_before_it_was_read() {
        for (plan, _) in [plans::every_kind(), plans::phases(), plans::large_phases()] {
            for fused in [false, true] {
                let schedule = Schedule::new(&plan, fused);
                let mut holds: Vec<Option<usize>> = vec![None; schedule.buffers.len()];
                let check = |step: usize, holds: &[Option<usize>]| {
                    for operand in plan.steps[step].operands.iter().map(|o| o.index()) {
                        assert!(schedule.buffer[operand].is_none_or(|s| holds[s] == Some(operand)));
                    }
                };
                let mut done = 0;
                for turn in &schedule.turns {
                    for (step, _) in &turn.local {
                        check(*step, &holds);
                        schedule.buffer[*step].inspect(|&s| holds[s] = Some(*step));
                        done += 1;
                    }
                    for interaction in &turn.interactions {
                        let others = interaction.chain.iter().filter_map(|l| l.other);
                        assert!(
                            others
                                .into_iter()
                                .all(|o| schedule.buffer[o].is_none_or(|s| holds[s] == Some(o)))
                        );
                        done += interaction.chain.len() + 1;
                    }
                    for interaction in &turn.interactions {
                        let step = interaction.trip.step;
                        schedule.buffer[step].inspect(|&s| holds[s] = Some(step));
                    }
                }
                assert_eq!(done, plan.steps.len());
                let output = plan.output.index();
                assert!(schedule.buffer[output].is_none_or(|s| holds[s] == Some(output)));
                let links =
                    schedule.turns.iter().flat_map(|t| &t.interactions).map(|a| a.chain.len());
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
