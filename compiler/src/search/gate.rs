//! The checks that refuse a plan which is not accurate enough to ship.

use super::Measured;
use crate::error::CompileError;
use crate::evaluate::{Evaluation, Judged, LayerEvaluation};
use crate::fit::name_rows;
use ir::plan::Task;

/// A plan is refused if one that loses no more than is allowed would look as bad less often than this.
const DOUBT: f64 = 0.05;
/// The quantile of the normal distribution that leaves as much.
const DOUBT_QUANTILE: f64 = 1.645;

/// Answers that a plan may lose beside those that are seen.
pub(super) const UNSEEN: f64 = 0.5;

/// A binomial distribution of this variance is normal.
const NORMAL: f64 = 1e4;

/// What a plan must reach on the held-out inputs before it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Share of the held-out inputs whose values may leave a fitted interval by more than its margin.
    pub max_escape: f64,
    /// [`Judged::loss`] of an output allowed.
    pub max_loss: f64,
}

/// Refuses a plan that is not accurate enough to ship.
///
/// # Errors
/// [`CompileError::Rejected`], with the layers to blame and what to do.
pub fn check(measured: &Measured, gate: Gate) -> Result<(), CompileError> {
    let evaluation = &measured.evaluation;
    let (inputs, percent) = (evaluation.inputs as f64, 100.0 * gate.max_escape);
    let escaped = evaluation.escaped as f64;
    if escaped > inputs * gate.max_escape {
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
            "{} of {} held-out inputs escape from the fitted intervals, more than {percent}%: {}; polynomials explode \
             there: use --activation phase, which cannot, or train the network with polynomials (models/train); \
             --force writes the plan all the same",
            evaluation.escaped,
            evaluation.inputs,
            first(layers)
        )));
    }
    for output in &evaluation.outputs {
        if output.relative_error.is_some_and(|e| !e.plan_rms.is_finite()) {
            return Err(CompileError::Rejected(format!(
                "output {}: the network's own numbers are not finite on held-out inputs; --force writes the plan all \
                 the same",
                output.name
            )));
        }
        if let Some(lost) = output.loss
            && lost > gate.max_loss
            && !is_chance(output, lost, gate.max_loss)
        {
            return Err(CompileError::Rejected(refusal(measured, output, lost, gate.max_loss)));
        }
    }
    Ok(())
}

/// Whether every output surely keeps what it must: with half an answer more lost than was seen, so that few inputs
/// prove little. Answers that only became right by chance make up for none.
pub(super) fn keeps(evaluation: &Evaluation, allowed: f64) -> bool {
    evaluation.outputs.iter().all(|output| {
        let counted = output.counted;
        let lost = match (&output.accuracy, output.meaning) {
            (Some(_), _) => Some((counted.lost + UNSEEN) / counted.count.max(1.0)),
            (None, Task::Regress) => output.loss,
            (None, _) => output.loss.map(|lost| lost + UNSEEN / counted.count.max(1.0)),
        };
        lost.is_none_or(|lost| lost <= allowed)
    })
}

/// Whether a loss may be the luck of few inputs: a plan that loses what is allowed shows as much in one
/// of twenty samples of this size.
fn is_chance(output: &Judged, lost: f64, allowed: f64) -> bool {
    let counted = output.counted;
    if output.meaning == Task::Regress {
        // The mean square of `n` normal errors is chi square over `n`.
        return lost / chi_square_quantile(counted.count).sqrt() <= allowed;
    }
    // Classes won make room for as many lost; to be allowed less than nothing is to lose already.
    let (won, n) = (counted.gained, counted.count);
    let share = allowed.max(0.0) + won / n;
    is_luck(counted.lost + n * (-allowed).max(0.0), n, share)
}

/// Whether `count` of `n` or more is no rarer than [`DOUBT`] where `share` of all is expected: the tail of
/// the binomial distribution.
fn is_luck(count: f64, n: f64, share: f64) -> bool {
    let (share, count, n) = (share.clamp(0.0, 1.0), count.floor(), n.floor());
    if count <= 0.0 || share >= 1.0 {
        return true;
    }
    if share <= 0.0 {
        return false;
    }
    let variance = n * share * (1.0 - share);
    if variance > NORMAL {
        return count - 0.5 - n * share < DOUBT_QUANTILE * variance.sqrt();
    }
    // From count to n, by the quotients of neighbouring terms, in logarithms: the first may be tiny.
    let (ln_odds, mut ln_term) = ((share / (1.0 - share)).ln(), n * (1.0 - share).ln());
    let mut tail = 0.0;
    for k in 0..n as u64 {
        let k = k as f64;
        ln_term += ((n - k) / (k + 1.0)).ln() + ln_odds;
        if k + 1.0 >= count {
            tail += ln_term.exp();
            if tail >= DOUBT || (ln_term < -60.0 && k > share * n) {
                break;
            }
        }
    }
    tail >= DOUBT
}

/// What the mean of the squares of `n` standard normal numbers exceeds with the probability [`DOUBT`]
/// (Wilson and Hilferty 1931).
fn chi_square_quantile(n: f64) -> f64 {
    let variance = 2.0 / (9.0 * n.max(1.0));
    (1.0 - variance + DOUBT_QUANTILE * variance.sqrt()).powi(3)
}

fn refusal(measured: &Measured, output: &Judged, lost: f64, allowed: f64) -> String {
    let evaluation = &measured.evaluation;
    let what = match (output.meaning, &output.error, &output.accuracy) {
        (Task::Regress, Some(_), _) => "% of the labels' spread (root mean square error)",
        (Task::Regress, None, _) => "% of the outputs' spread (root mean square error)",
        (_, _, Some(_)) => " points of accuracy",
        (_, _, None) => "% of the classes (they change)",
    };
    // Which of both makes more of it: what activations were fitted with, or what runs round?
    let (fitted, plan) = match (&output.agreement, output.relative_error) {
        (Some(a), _) => (1.0 - a.fitted, 1.0 - a.plan),
        (None, Some(e)) => (e.fitted.unwrap_or(0.0).powi(2), e.plan.unwrap_or(0.0).powi(2)),
        (None, None) => (0.0, 0.0),
    };
    let is_rounding = fitted < plan / 2.0;
    let blame = |of: fn(&LayerEvaluation) -> Option<f64>, error: &str| {
        let mut worst: Vec<_> =
            evaluation.layers.iter().filter_map(|l| Some((of(l)?, l))).collect();
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        let layers = worst
            .iter()
            .map(|(share, l)| format!("{} ({}, {error} {:.0}%)", l.name, l.fit, 100.0 * share));
        first(layers)
    };
    let (blamed, help) = if is_rounding {
        ("runs round the most at", "more --phase-bits help")
    } else {
        (
            "the layers furthest from the network",
            "use --activation phase with more harmonics or phase bits, or more calibration inputs",
        )
    };
    let layers = if is_rounding {
        blame(|l| l.noise, "noise")
    } else {
        blame(|l| l.imitation, "imitation error")
    };
    let layers = if layers.is_empty() { String::new() } else { format!("; {blamed}: {layers}") };
    let of = match evaluation.outputs.len() {
        1 => String::new(),
        _ => format!("output {}: ", output.name),
    };
    format!(
        "{of}two parties lose {:.1}{what} on {} inputs, more than {:.1}{layers}; {help}{}; \
         --force writes the plan all the same",
        100.0 * lost,
        evaluation.inputs,
        100.0 * allowed,
        rare(measured)
    )
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

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
