//! Which encryption parameters a plan has: those of the fewest bytes for one inference, keys included.

use super::packing::MAX_SETS;
use super::rlwe::RingLwe;
use super::{Packing, Phase, PhaseProducts, Plan, Planes, SlotPacking, StepOp};

/// The products of phases of one inference: parameters, elements of an exchange, number of exchanges.
type Phases = Vec<(Phase, usize, usize)>;

impl Plan {
    /// Chooses the parameters behind the linear correlations and the products of phases. `false` if a
    /// step's weights are too wide for any.
    pub fn choose_encryption(&mut self) -> bool {
        let planes: Vec<Planes> =
            (0..self.steps.len()).filter_map(|i| Planes::of(self, i)).collect();
        let phases = self.exchanged_phases();
        let Some(mut sets) = planes.iter().map(Planes::cheapest).collect::<Option<Vec<_>>>() else {
            return false;
        };
        sets.extend(phases.iter().filter_map(|(phase, count, _)| best_set(phase, *count)));
        sets.sort_unstable();
        sets.dedup();
        // The widest set first: it can stand in for others. A set goes where it does not earn its key.
        let mut least = bytes(&planes, &phases, &sets);
        let mut at = 0;
        while at < sets.len() {
            let mut fewer = sets.clone();
            fewer.remove(at);
            let found = bytes(&planes, &phases, &fewer);
            if found.is_some() && (found <= least || sets.len() > MAX_SETS) {
                (sets, least) = (fewer, found);
            } else {
                at += 1;
            }
        }
        self.rlwe = sets;
        self.rlwe.len() <= MAX_SETS
    }

    /// The first linear step for which there are no parameters: its kernel reaches further than the widest
    /// polynomials, or its weights are too wide.
    pub fn beyond_encryption(&self) -> Option<usize> {
        let is_beyond =
            |i: &usize| Planes::of(self, *i).is_some_and(|planes| planes.cheapest().is_none());
        (0..self.steps.len()).find(is_beyond)
    }

    fn exchanged_phases(&self) -> Phases {
        let mut phases: Phases = vec![];
        for (index, step) in self.steps.iter().enumerate() {
            let StepOp::Phase(phase) = &step.op else { continue };
            for (_, elements) in self.product_ranges(index, 1) {
                let known = phases.iter_mut().find(|p| (p.0, p.1) == (*phase, elements.len()));
                match known {
                    Some(known) => known.2 += 1,
                    None => phases.push((*phase, elements.len(), 1)),
                }
            }
        }
        phases
    }
}

/// The parameters of the fewest bytes for `count` elements of a phase step, keys not included; `None` if
/// trees take fewer.
fn best_set(phase: &Phase, count: usize) -> Option<RingLwe> {
    let sets = SlotPacking::candidates(phase);
    match PhaseProducts::cheapest(phase, count, &sets) {
        PhaseProducts::Slots(packing) => Some(packing.lwe),
        PhaseProducts::Trees => None,
    }
}

fn bytes(planes: &[Planes], phases: &Phases, sets: &[RingLwe]) -> Option<usize> {
    let keys: usize = sets.iter().map(RingLwe::ciphertext_bytes).sum();
    let products: usize = phases
        .iter()
        .map(|(phase, count, times)| {
            let cost = PhaseProducts::cheapest(phase, *count, sets).cost(phase, *count);
            times * cost.messages.iter().sum::<usize>()
        })
        .sum();
    planes.iter().try_fold(keys + products, |sum, &planes| {
        let bytes = Packing::new(planes, 1, sets)?.bytes();
        Some(sum + bytes.0 + bytes.1)
    })
}
