//! The gates in front of plans that nobody should ship.

use super::{LEAST_HELD_OUT, Measured, loss};
use crate::error::CompileError;
use crate::fit::name_rows;

/// Simulated runs are few: so much more of them than of the held-out inputs may have another class.
const CARRY_SLACK: f64 = 0.05;

/// What a plan must reach on the held-out inputs before it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Share of the held-out inputs whose values may leave a fitted interval by more than its margin.
    pub max_escape: f64,
    /// [`loss`] allowed.
    pub max_loss: f64,
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
    let changed = 1.0 - evaluation.carry_agreement;
    if changed > gate.max_loss.max(0.0) + CARRY_SLACK {
        return Err(CompileError::Rejected(format!(
            "the roundings of a run change the class in {:.0}% of simulated runs, though the plan without them loses less: \
             more --phase-bits help{}; --force writes the plan all the same",
            100.0 * changed,
            rare(measured)
        )));
    }
    let lost = loss(evaluation).unwrap_or(0.0);
    if lost > gate.max_loss {
        let mut worst: Vec<_> =
            evaluation.layers.iter().filter_map(|l| Some((l.imitation?, l))).collect();
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        let layers = worst.iter().map(|(error, l)| {
            format!("{} ({}, imitation error {:.0}%)", l.name, l.fit, 100.0 * error)
        });
        return Err(CompileError::Rejected(format!(
            "the plan loses {:.1} points on {} held-out inputs, more than {:.1}; the layers furthest from the \
             network: {}; use --activation phase with more harmonics or phase bits, or more calibration inputs{}; \
             --force writes the plan all the same",
            100.0 * lost,
            evaluation.inputs,
            100.0 * gate.max_loss,
            first(layers),
            rare(measured)
        )));
    }
    Ok(())
}

/// Rare calibration inputs that make fits coarse for the others, for the end of a sentence.
fn rare(measured: &Measured) -> String {
    let stretched = &measured.compiled.stretched;
    let Some(widest) = stretched.iter().max_by(|a, b| a.factor.total_cmp(&b.factor)) else {
        return String::new();
    };
    format!(
        "; but mind that calibration {} reach {:.0} times as far as the others at {}: a fit that covers them is \
         coarse for the rest. If there are no such inputs, leave these out",
        name_rows(&widest.rows),
        widest.factor,
        widest.name
    )
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
