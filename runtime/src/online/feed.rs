//! Supplies the online loop with correlations, in its order and its word sizes, in time.

use super::{missing, no_thread};
use crate::Error;
use crate::words::Words;
use ir::plan::{Field, Plan};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::Builder;

/// Approximate bytes of a step's correlations for one item.
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

/// Records of steps in the order in which they are used: the first are loaded before the phase, the rest during it.
pub struct Feed<'a, S> {
    ready: VecDeque<(usize, S)>,
    /// The steps whose records are loaded during the phase.
    later: Vec<usize>,
    /// Used records of those that were ready, to be wiped after the phase.
    spent: Vec<S>,
    make: Box<dyn FnMut(usize) -> Result<S, Error> + Send + 'a>,
}

impl<'a, S: Send> Feed<'a, S> {
    /// The records of a batch, in this order of steps. About `preloaded` bytes of them are loaded now, the rest during
    /// the phase by a thread of its own, from items that may be in a file.
    pub fn new(
        plan: &Plan,
        batch: usize,
        preloaded: usize,
        order: Vec<usize>,
        mut make: impl FnMut(usize) -> Result<S, Error> + Send + 'a,
    ) -> Result<Self, Error> {
        let mut budget = preloaded;
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
    /// Those of `run`, and of loading a record.
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
                    // Wiped in this thread, off the loop's path.
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

/// The records, one after the other.
pub struct Stream<'a, S> {
    ready: &'a mut VecDeque<(usize, S)>,
    spent: &'a mut Vec<S>,
    /// Where records come from that are loaded meanwhile, and where used ones go.
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

    /// Takes back a used record.
    pub fn spent(&mut self, record: S) {
        match &self.behind {
            Some((_, back)) => drop(back.send(record)),
            None => self.spent.push(record),
        }
    }
}
