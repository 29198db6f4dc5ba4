//! The public cosine tables of a plan's phase steps, and the form in which they are looked up.

use crate::words::Words;
use ir::plan::{Interactive, PhaseTables, Plan, StepOp};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What both parties must have computed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDigest(pub [u8; 16]);

impl fmt::Display for TableDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// One table per phase step; steps with the same parameters share theirs.
pub struct Tables(Vec<Option<Arc<Table>>>);

/// One table in both forms.
struct Table {
    public: Arc<PhaseTables>,
    rows: Words,
}

impl Tables {
    /// Computes the tables at scale `2^h`.
    pub fn new(plan: &Plan) -> Self {
        let mut made: HashMap<(u32, u32, u32), Arc<PhaseTables>> = HashMap::new();
        let mut laid: HashMap<(u32, u32, u32, u32), Arc<Table>> = HashMap::new();
        let tables = plan.steps.iter().map(|step| {
            let StepOp::Interactive(Interactive::Phase(phase)) = &step.op else { return None };
            let key = (phase.p, phase.harmonics, phase.h);
            let make = || Arc::new(PhaseTables::new(phase.p, phase.harmonics, phase.h));
            let public = made.entry(key).or_insert_with(make).clone();
            let width = Words::bits(phase.q);
            let lay = || Arc::new(Table { rows: interleaved(&public, width), public });
            Some(laid.entry((key.0, key.1, key.2, width)).or_insert_with(lay).clone())
        });
        Self(tables.collect())
    }

    /// The table of a phase step in words of its `Q`: for every phase `e` a row of `cos e, sin e,
    /// cos 2e, …`. `None` for other steps.
    pub fn rows(&self, step: usize) -> Option<&Words> {
        self.0[step].as_deref().map(|table| &table.rows)
    }

    /// A digest over all tables, which must be the same at both parties.
    pub fn digest(&self) -> TableDigest {
        let mut hash = Sha256::new();
        let mut seen: Vec<*const PhaseTables> = vec![];
        for table in self.0.iter().flatten().map(|table| &table.public) {
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
        TableDigest(short)
    }
}

fn interleaved(tables: &PhaseTables, width: u32) -> Words {
    let harmonics = || tables.cos.iter().zip(&tables.sin);
    let phases = tables.cos.first().map_or(0, Vec::len);
    let row = |e: usize| harmonics().flat_map(move |(cos, sin)| [cos[e] as u64, sin[e] as u64]);
    Words::new(width, (0..phases).flat_map(row))
}
