//! The public cosine tables of a plan's phase steps.

use crate::offline::DealId;
use ir::plan::{PhaseTables, Plan, StepOp};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// One table per phase step; steps with the same parameters share theirs.
pub struct Tables(Vec<Option<Arc<PhaseTables>>>);

impl Tables {
    /// Computes the tables at scale `2^h`.
    pub fn new(plan: &Plan) -> Self {
        let mut made: HashMap<(u32, u32, u32), Arc<PhaseTables>> = HashMap::new();
        let tables = plan.steps.iter().map(|step| {
            let StepOp::Phase(phase) = &step.op else { return None };
            let key = (phase.p, phase.harmonics, phase.h);
            let make = || Arc::new(PhaseTables::new(phase.p, phase.harmonics, phase.h));
            Some(made.entry(key).or_insert_with(make).clone())
        });
        Self(tables.collect())
    }

    /// The table of a phase step; `None` for other steps.
    pub fn of(&self, step: usize) -> Option<&PhaseTables> {
        self.0[step].as_deref()
    }

    /// A digest over all tables, which must be the same at both parties.
    pub fn digest(&self) -> DealId {
        let mut hash = Sha256::new();
        let mut seen: Vec<*const PhaseTables> = vec![];
        for table in self.0.iter().flatten() {
            if seen.contains(&Arc::as_ptr(table)) {
                continue;
            }
            seen.push(Arc::as_ptr(table));
            for value in table.cos.iter().chain(&table.sin).flatten() {
                hash.update(value.to_le_bytes());
            }
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        DealId(short)
    }
}
