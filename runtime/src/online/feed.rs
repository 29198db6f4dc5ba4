//! Correlations in the order and the words of the online loop, and how they come to it in time.

use super::{missing, no_thread};
use crate::Error;
use crate::words::Words;
use ir::plan::{Field, Plan};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::Builder;

/// Bytes of a step's correlations for one item, about.
fn bytes(plan: &Plan, index: usize) -> usize {
    let of = |field: &Field| field.elements * Words::bits(field.bits.min(64)) as usize;
    let larger = |c: ir::plan::Correlation| {
        let bits = |part: &[Field]| part.iter().map(of).sum::<usize>();
        bits(&c.party0).max(bits(&c.party1))
    };
    let fields = plan.correlation(index).map_or(0, larger);
    let step = &plan.steps[index];
    (fields + step.shape.elements() * Words::bits(step.ring) as usize) / 8
}

/// Records of steps in the order in which they are used: as many as are worth it are made at once, the
/// rest in time.
pub struct Feed<'a, S> {
    ready: VecDeque<(usize, S)>,
    /// The others.
    later: Vec<usize>,
    /// What was used of those that were ready, to be wiped after the phase.
    spent: Vec<S>,
    make: Box<dyn FnMut(usize) -> Result<S, Error> + Send + 'a>,
}

impl<'a, S: Send> Feed<'a, S> {
    /// The records of a batch, in this order of steps: about `ahead` bytes of them now, the rest in the course
    /// of the phase, by a thread of its own, from items that may stand in a file.
    pub fn new(
        plan: &Plan,
        batch: usize,
        ahead: usize,
        order: Vec<usize>,
        mut make: impl FnMut(usize) -> Result<S, Error> + Send + 'a,
    ) -> Result<Self, Error> {
        let mut budget = ahead;
        let fits = |&&index: &&usize| {
            let rest = budget.checked_sub(bytes(plan, index) * batch);
            rest.inspect(|rest| budget = *rest).is_some()
        };
        let count = order.iter().take_while(fits).count();
        let now = order[..count].iter().map(|&index| Ok((index, make(index)?)));
        let ready = now.collect::<Result<_, Error>>()?;
        let (later, spent) = (order[count..].to_vec(), Vec::with_capacity(count));
        Ok(Self { ready, later, spent, make: Box::new(make) })
    }

    /// Calls `run` with the records, once.
    ///
    /// # Errors
    /// Those of `run`, and of making a record.
    pub fn during<T>(
        &mut self,
        run: impl FnOnce(&mut Stream<'_, S>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self { ready, later, spent, make } = self;
        if later.is_empty() {
            return run(&mut Stream { ready, spent, behind: None });
        }
        std::thread::scope(|scope| {
            let (made, coming) = sync_channel(1);
            let (back, returned) = channel();
            let supply = move || {
                for index in later.drain(..) {
                    if made.send(make(index).map(|record| (index, record))).is_err() {
                        return;
                    }
                    // Wiped here, where time is.
                    returned.try_iter().for_each(drop::<S>);
                }
                drop(made);
                returned.iter().for_each(drop);
            };
            let supplier = Builder::new().spawn_scoped(scope, supply).map_err(no_thread)?;
            let ended = run(&mut Stream { ready, spent, behind: Some((coming, back)) });
            let stopped = |_| Error::Internal("the thread that takes correlations stopped".into());
            supplier.join().map_err(stopped)?;
            ended
        })
    }
}

/// Records as they are used.
pub struct Stream<'a, S> {
    ready: &'a mut VecDeque<(usize, S)>,
    spent: &'a mut Vec<S>,
    /// Those that are made meanwhile, and where they go back to.
    behind: Option<(Receiver<Made<S>>, Sender<S>)>,
}

/// A step and its record.
type Made<S> = Result<(usize, S), Error>;

impl<S> Stream<'_, S> {
    /// The next record, which must be this step's.
    pub fn next(&mut self, index: usize) -> Result<S, Error> {
        let next = match (self.ready.pop_front(), &self.behind) {
            (Some(next), _) => Some(next),
            (None, Some((coming, _))) => coming.recv().ok().transpose()?,
            (None, None) => None,
        };
        next.filter(|(of, _)| *of == index).map(|(_, record)| record).ok_or_else(|| missing(index))
    }

    /// Takes back what was used.
    pub fn spent(&mut self, record: S) {
        match &self.behind {
            Some((_, back)) => drop(back.send(record)),
            None => self.spent.push(record),
        }
    }
}
