//! Which encryption parameters a plan has: those of the fewest bytes for one inference, keys included.

use super::packing::MAX_SETS;
use super::rlwe::RingLwe;
use super::{Packing, Planes, ranges};
use crate::plan::{Interactive, Plan, Step};

/// The interactive steps of one inference: a step of the kind, elements of an exchange, number of such exchanges.
type Kinds<'a> = Vec<(&'a Step, &'a Interactive, usize, usize)>;

impl Plan {
    /// Chooses the parameters behind the correlations. `false` if a
    /// step's weights are too wide for any.
    pub fn choose_encryption(&mut self) -> bool {
        let planes: Vec<Planes> =
            (0..self.steps.len()).filter_map(|i| Planes::of(self, i)).collect();
        let kinds = self.exchanged_kinds();
        let Some(mut sets) = planes.iter().map(Planes::cheapest).collect::<Option<Vec<_>>>() else {
            return false;
        };
        sets.extend(
            kinds.iter().flat_map(|(_, kind, count, _)| kind.protocol().encryption(*count)),
        );
        sets.sort_unstable();
        sets.dedup();
        // The widest set first: it can replace others. A set is dropped if it saves fewer bytes than its key has.
        let mut least = bytes(&planes, &kinds, &sets);
        let mut at = 0;
        while at < sets.len() {
            let mut fewer = sets.clone();
            fewer.remove(at);
            let found = bytes(&planes, &kinds, &fewer);
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

    fn exchanged_kinds(&self) -> Kinds<'_> {
        let mut kinds: Kinds<'_> = vec![];
        for step in &self.steps {
            let Some(kind) = step.op.interactive() else { continue };
            let most = kind.protocol().elements_at_once();
            for (_, elements) in ranges(step.shape.elements(), 1, most) {
                let count = elements.len();
                match kinds.iter_mut().find(|k| (k.1, k.2) == (kind, count)) {
                    Some(known) => known.3 += 1,
                    None => kinds.push((step, kind, count, 1)),
                }
            }
        }
        kinds
    }
}

fn bytes(planes: &[Planes], kinds: &Kinds<'_>, sets: &[RingLwe]) -> Option<usize> {
    let keys: usize = sets.iter().map(RingLwe::ciphertext_bytes).sum();
    let of_kind = |(step, kind, count, times): &(&Step, &Interactive, usize, usize)| {
        let exchanges = kind.protocol().exchanges(step, *count, sets);
        times * exchanges.iter().map(|(_, cost)| cost.total_bytes()).sum::<usize>()
    };
    let products: usize = kinds.iter().map(of_kind).sum();
    planes.iter().try_fold(keys + products, |sum, &planes| {
        let bytes = Packing::new(planes, 1, sets)?.bytes();
        Some(sum + bytes.0 + bytes.1)
    })
}
