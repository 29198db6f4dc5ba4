//! Compiling until the exact evaluator is content: every plan is measured on held-out inputs before it
//! is written, coarse rings are made finer where the integers lose what the fit had, and
//! [`Goal::Cheapest`] looks for the fewest harmonics that a given loss allows.

use crate::error::CompileError;
use crate::evaluate::{self, Evaluation};
use crate::fit::{Calibration, Family, Harmonics};
use crate::{CompileOptions, Compiled, Prepared, compile};
use ir::Tensor;

/// Inputs that no fit has seen.
#[derive(Clone, Copy)]
pub struct HeldOut<'a> {
    /// The inputs.
    pub inputs: &'a [Tensor<f32>],
    /// Their classes, where they are known.
    pub labels: Option<&'a [usize]>,
}

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The plan that the options describe.
    AsGiven,
    /// Phases with the fewest harmonics whose loss on the held-out inputs (see [`loss`]) is within
    /// `loss`, a share, and whose cost (see [`cost`]) is within `bytes`; one of both may be missing.
    Cheapest {
        /// The loss allowed.
        loss: Option<f64>,
        /// The bytes allowed.
        bytes: Option<usize>,
    },
}

/// A plan with what is known of it.
pub struct Measured {
    /// The plan.
    pub compiled: Compiled,
    /// On the held-out inputs.
    pub evaluation: Evaluation,
    /// For people: what was tried and why.
    pub notes: Vec<String>,
}

/// How far a layer's held-out fit error may be above the best, from the cheapest plan to the most
/// accurate one.
const TOLERANCES: [f64; 6] = [0.3, 0.15, 0.08, 0.05, 0.03, 0.015];
/// The integers may agree with the float network on this share of the inputs less than the fit in float
/// does (and on one and a half inputs) before rings are made finer.
const ROUNDING_LOSS: f64 = 0.015;
/// How often rings are made finer.
const REFINEMENTS: u32 = 2;
/// What agreement on fewer held-out inputs says is worth no second try.
const LEAST_HELD_OUT: usize = 20;

/// The accuracy that a plan loses against the float network on held-out inputs: of correct classes
/// where labels are known, otherwise the share of inputs whose class changed. `None` without the
/// float network.
pub fn loss(evaluation: &Evaluation) -> Option<f64> {
    match (&evaluation.accuracy, &evaluation.agreement) {
        (Some(accuracy), _) => accuracy.float.map(|float| float - accuracy.plan),
        (None, agreement) => agreement.as_ref().map(|agreement| 1.0 - agreement.plan),
    }
}

/// Bytes of one inference: online, both ways, and one party's correlations.
pub fn cost(compiled: &Compiled) -> usize {
    let plan = &compiled.plan;
    let (to0, to1, _) = plan.traffic(1);
    let correlations = (0..plan.steps.len()).filter_map(|step| plan.correlation(step));
    to0 + to1 + correlations.map(|c| c.bytes()).sum::<usize>()
}

/// Compiles and measures, as often as the goal needs. `progress` is told what is being done and which
/// share of it is.
///
/// # Errors
/// Those of [`compile`], and [`CompileError::Rejected`] if no plan reaches the goal.
pub fn search(
    name: &str,
    prepared: &Prepared,
    calibration: &Calibration,
    held_out: HeldOut<'_>,
    options: &CompileOptions,
    goal: Goal,
    progress: &(dyn Fn(&str, f64) + Sync),
) -> Result<Measured, CompileError> {
    let trial = Trial { name, prepared, calibration, held_out, progress };
    let Goal::Cheapest { loss: allowed, bytes } = goal else {
        return trial.refined(options);
    };
    let mut notes = Vec::new();
    let mut at = |index: usize| -> Result<(Measured, bool), CompileError> {
        let harmonics = Harmonics::Within { tolerance: TOLERANCES[index], most: 6 };
        let options = CompileOptions { family: Family::Phase { harmonics }, ..*options };
        let measured = trial.refined(&options)?;
        let (lost, cost) = (loss(&measured.evaluation).unwrap_or(0.0), cost(&measured.compiled));
        notes.push(format!(
            "harmonics {}: loss {:.2} points, {} bytes an inference with its correlations",
            mean_harmonics(&measured.compiled),
            100.0 * lost,
            crate::report::thousands(cost)
        ));
        // Without a loss to reach, the bytes decide alone: the most accurate plan within them.
        let is_enough = match (allowed, bytes) {
            (Some(allowed), _) => lost <= allowed,
            (None, Some(bytes)) => cost > bytes,
            (None, None) => true,
        };
        Ok((measured, is_enough))
    };
    // Bisection for the first tolerance that is enough; fits get better and dearer along the list.
    let (mut low, mut high) = (0, TOLERANCES.len());
    let mut tried: Vec<Option<Measured>> = TOLERANCES.iter().map(|_| None).collect();
    while low < high {
        let middle = (low + high) / 2;
        let (measured, is_enough) = at(middle)?;
        tried[middle] = Some(measured);
        if is_enough { high = middle } else { low = middle + 1 }
    }
    let chosen = if allowed.is_some() { Some(low) } else { low.checked_sub(1) };
    let found = chosen.and_then(|i| tried.get_mut(i)).and_then(Option::take);
    let within = |m: &Measured| bytes.is_none_or(|bytes| cost(&m.compiled) <= bytes);
    match found {
        Some(measured) if within(&measured) => {
            notes.extend(measured.notes);
            Ok(Measured { notes, ..measured })
        }
        _ => Err(CompileError::Rejected(format!(
            "no choice of harmonics reaches the goal; tried: {}",
            notes.join("; ")
        ))),
    }
}

fn mean_harmonics(compiled: &Compiled) -> String {
    let phases = compiled.plan.steps.iter().filter_map(|step| match &step.op {
        ir::plan::StepOp::Phase(phase) => Some(f64::from(phase.harmonics)),
        _ => None,
    });
    let (n, sum) = phases.fold((0, 0.0), |(n, sum), h| (n + 1, sum + h));
    if n == 0 { "none".into() } else { format!("{:.1} a layer", sum / f64::from(n)) }
}

struct Trial<'a> {
    name: &'a str,
    prepared: &'a Prepared,
    calibration: &'a Calibration,
    held_out: HeldOut<'a>,
    progress: &'a (dyn Fn(&str, f64) + Sync),
}

impl Trial<'_> {
    fn measured(&self, options: &CompileOptions) -> Result<Measured, CompileError> {
        let compiled =
            compile(self.name, self.prepared, self.calibration, options, &mut |share| {
                (self.progress)("fitting", share);
            })?;
        let evaluation = evaluate::run(
            &compiled.plan,
            &compiled.weights,
            Some(&compiled.reference),
            self.held_out.inputs,
            self.held_out.labels,
            &|share| (self.progress)("evaluating", share),
        )
        .map_err(|e| CompileError::Calibration(e.to_string()))?;
        Ok(Measured { compiled, evaluation, notes: Vec::new() })
    }

    /// Makes rings, values and phases finer where rounding loses what the fit had.
    fn refined(&self, options: &CompileOptions) -> Result<Measured, CompileError> {
        let mut best = self.measured(options)?;
        let mut finer = *options;
        let count = self.held_out.inputs.len();
        if self.calibration.is_synthetic || count < LEAST_HELD_OUT {
            return Ok(best);
        }
        let gap = |m: &Measured| m.evaluation.agreement.as_ref().map_or(0.0, |a| a.fitted - a.plan);
        let allowed = ROUNDING_LOSS + 1.5 / count as f64;
        let mut notes = Vec::new();
        for _ in 0..REFINEMENTS {
            if gap(&best) <= allowed {
                break;
            }
            finer.rings.value_bits += 1.0;
            finer.rings.rounding_bits += 1.0;
            finer.rings.phase_bits = (finer.rings.phase_bits + 1).min(12);
            finer.rings.max_phase_ring += 2;
            let next = self.measured(&finer)?;
            notes.push(format!(
                "rounding lost {:.1} points of agreement: {} phase bits and finer rings instead",
                100.0 * gap(&best),
                finer.rings.phase_bits
            ));
            if gap(&next) >= gap(&best) {
                break;
            }
            best = next;
        }
        Ok(Measured { notes, ..best })
    }
}

/// What a plan must reach on the held-out inputs before it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Share of the held-out inputs whose values may leave a fitted interval by more than its margin.
    pub max_escape: f64,
    /// [`loss`] allowed.
    pub accuracy_loss: f64,
}

/// Refuses a plan that nobody should ship.
///
/// # Errors
/// [`CompileError::Rejected`], with the layers to blame and what to do.
pub fn check(measured: &Measured, gate: Gate) -> Result<(), CompileError> {
    let evaluation = &measured.evaluation;
    if evaluation.inputs < LEAST_HELD_OUT {
        return Ok(());
    }
    let escaped = evaluation.escaped as f64 / evaluation.inputs as f64;
    if escaped > gate.max_escape {
        let layers = evaluation.layers.iter().filter(|l| l.escaped > 0).map(|l| {
            let bound = l.interval.map_or(0.0, |(low, high)| low.abs().max(high.abs()));
            format!(
                "{} ({} inputs, up to {:.1} times its interval)",
                l.name,
                l.escaped,
                l.largest / bound
            )
        });
        return Err(CompileError::Rejected(format!(
            "{} of {} held-out inputs escape from the fitted intervals, more than {}%: {}; polynomials explode \
             there: use --activation phase, which cannot, or train the network with polynomials (models/train); \
             --force writes the plan all the same",
            evaluation.escaped,
            evaluation.inputs,
            100.0 * gate.max_escape,
            first(layers)
        )));
    }
    let lost = loss(evaluation).unwrap_or(0.0);
    if lost > gate.accuracy_loss {
        let mut worst: Vec<_> =
            evaluation.layers.iter().filter_map(|l| Some((l.imitation?, l))).collect();
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        let layers = worst.iter().map(|(error, l)| {
            format!("{} ({}, imitation error {:.0}%)", l.name, l.fit, 100.0 * error)
        });
        return Err(CompileError::Rejected(format!(
            "the plan loses {:.1} points on {} held-out inputs, more than {:.1}; the layers furthest from the \
             network: {}; use --activation phase with more harmonics or phase bits, or more calibration inputs; \
             --force writes the plan all the same",
            100.0 * lost,
            evaluation.inputs,
            100.0 * gate.accuracy_loss,
            first(layers)
        )));
    }
    Ok(())
}

/// The first few of a list that may be long.
fn first(items: impl Iterator<Item = String>) -> String {
    const MOST: usize = 4;
    let mut items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(MOST);
    items.truncate(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", items.join(", "))
}
