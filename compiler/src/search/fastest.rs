//! Every layer in the family that takes least time on a network.
//!
//! Fitted phases take one round trip and the correlations of their harmonics; rectifiers two round trips and a third
//! of the bytes. What a layer takes is estimated before anything is fitted, from its size alone; the plan is then
//! measured as any other. Where it loses too much, harmonics are added, which makes phases dearer, and in the end
//! everything is exact that can be.

use super::gate::{UNSEEN, keeps};
use super::{Measured, Trial};
use crate::choice::is_maximum;
use crate::error::CompileError;
use crate::fit::{Families, Family, Harmonics};
use crate::passes::rectifiers;
use crate::pipeline::CompileOptions;
use crate::report::{LayerTime, Network};
use crate::scales::bits::{RingOptions, WORD, buckets};
use ir::Shape;
use ir::graph::{Graph, NodeId, Op};
use ir::op::Activation;
use ir::plan::{Interactive, Phase, Select, Step, StepOp, Task, ValueId};
use std::collections::HashMap;

/// Where and when a plan is to be fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Fastest {
    /// The network between the parties.
    pub network: Network,
    /// Whether correlations are made before anyone waits.
    pub is_prepared: bool,
    /// The loss allowed, a share.
    pub loss: f64,
}

/// Harmonics that are tried, fewest first: within which tolerance of the best, and how many at most.
const HARMONICS: [(f64, usize); 3] = [(0.1, 2), (0.03, 3), (0.02, 6)];
/// What a rectifier drops, as a rule.
const DROPPED: u32 = 7;

/// An activation with what either family takes.
#[derive(Clone, Debug)]
struct Candidate {
    /// The activation.
    node: NodeId,
    /// As a phase.
    phase: LayerTime,
    /// As rectifiers.
    select: LayerTime,
}

/// The activations for which there is a choice, if phases have so many harmonics.
fn candidates(
    graph: &Graph,
    rings: &RingOptions,
    harmonics: usize,
    network: &Network,
) -> Vec<Candidate> {
    let candidate = |node: NodeId| {
        let count = rectifiers(graph, node)?;
        let shape = &graph.node(node).shape;
        let p = buckets(rings.bucket_bits, rings.same_buckets, shape.elements());
        let select = Select { k: WORD, p, t: DROPPED };
        let select = vec![step(Interactive::Select(select), shape); count.max(1)];
        let phase = Phase {
            p: rings.phase_bits,
            mask_bits: rings.phase_bits + rings.spare_bits(),
            q: 2 * WORD,
            shift: WORD,
            g2: 7,
            h: 7,
            guard: 0,
            harmonics: harmonics as u32,
            amplitude: 8,
        };
        let phase = [step(Interactive::Phase(phase), shape)];
        Some(Candidate {
            node,
            phase: LayerTime::of(&phase, &[], network),
            select: LayerTime::of(&select, &[], network),
        })
    };
    choosable(graph).filter_map(candidate).collect()
}

fn step(kind: Interactive, shape: &Shape) -> Step {
    Step {
        name: String::new(),
        op: StepOp::Interactive(kind),
        operands: vec![ValueId(0)],
        shape: shape.clone(),
        ring: WORD,
        fraction_bits: 0,
    }
}

impl Trial<'_> {
    /// The fastest plan that loses no more than is allowed, or the one that loses least.
    pub(super) fn fastest(
        &self,
        options: &CompileOptions,
        goal: &Fastest,
    ) -> Result<Measured, CompileError> {
        let graph = &self.prepared.graph;
        let given = &options.families;
        let mut notes = Vec::new();
        let mut best: Option<Measured> = None;
        let mut before: Option<HashMap<NodeId, Family>> = None;
        let levels = HARMONICS.iter().copied().map(Some).chain([None]);
        // Whether the held-out inputs can show that a fit is good enough: made-up ones never do.
        let count = self.held_out.inputs.len();
        let has_classes = self.prepared.outputs.iter().any(|o| o.task != Task::Regress);
        let is_few = has_classes && UNSEEN > goal.loss * count as f64;
        if is_few && !self.calibration.is_synthetic {
            notes.push(format!(
                "{count} held-out inputs cannot show a loss of {:.2} points: what is fitted might lose more, so \
                 activations are computed as they are",
                100.0 * goal.loss
            ));
        }
        let is_unsure = is_few || self.calibration.is_synthetic;
        for level in levels {
            if level.is_some() && is_unsure {
                continue;
            }
            let families = match level {
                Some((tolerance, most)) => {
                    let usual = Family::Phase { harmonics: Harmonics::Within { tolerance, most } };
                    let mut own = given.own.clone();
                    let all = candidates(graph, &options.rings, most, &goal.network);
                    for c in all.into_iter().filter(|c| !given.own.contains_key(&c.node)) {
                        let [select, phase] =
                            [c.select, c.phase].map(|time| time.total_ms(goal.is_prepared));
                        own.insert(c.node, if select < phase { Family::Select } else { usual });
                    }
                    Families { usual, own }
                }
                None => Families { usual: Family::Select, own: given.own.clone() },
            };
            let chosen: HashMap<NodeId, Family> =
                choosable(graph).map(|id| (id, families.of(id))).collect();
            if before.as_ref() == Some(&chosen) {
                continue;
            }
            let options = CompileOptions { families, ..options.clone() };
            let (measured, _) = self.refined(&options)?;
            let is_enough = is_unsure || keeps(&measured.evaluation, goal.loss);
            if is_enough {
                notes.extend(measured.notes.iter().cloned());
                return Ok(Measured { notes, ..measured });
            }
            let lost = |m: &Measured| m.evaluation.loss().unwrap_or(0.0);
            let of = match level {
                Some((_, most)) => format!("with at most {most} harmonics a layer"),
                None => "with activations as they are".into(),
            };
            let percent = 100.0 * lost(&measured);
            notes.push(format!(
                "{of} two parties lose {percent:.2} points on {count} held-out inputs: not surely within {:.2}",
                100.0 * goal.loss
            ));
            if best.as_ref().is_none_or(|best| lost(&measured) <= lost(best)) {
                best = Some(measured);
            }
            before = Some(chosen);
        }
        let best = best.ok_or_else(|| CompileError::Internal {
            stage: "search",
            reason: "no family was tried".into(),
        })?;
        Ok(Measured { notes, ..best })
    }
}

/// The activations that a family is chosen for: maxima are exact in any case.
fn choosable(graph: &Graph) -> impl Iterator<Item = NodeId> {
    let is_choosable = |id: &NodeId| {
        matches!(&graph.node(*id).op, Op::Activation(Activation::Exact(_)))
            && !is_maximum(graph, *id)
    };
    graph.order().into_iter().filter(is_choosable)
}

#[cfg(test)]
#[path = "fastest_tests.rs"]
mod tests;
