//! Compiling until a plan is accurate enough: the exact evaluator measures every plan on held-out inputs before it
//! is written, coarse rings are made finer where the integers lose what the fit had, [`Goal::Cheapest`]
//! looks for the fewest harmonics that a given loss allows, and [`Goal::Narrowest`] for the fewest
//! bits.

mod accuracy;
mod fastest;
mod flips;
mod gate;
mod narrow;
mod sensitivity;

pub use fastest::Fastest;
pub use gate::{Gate, check};
pub use narrow::Minimise;

use crate::error::CompileError;
use crate::evaluate::{self, Evaluation, Judged, Sample};
use crate::fit::{Calibration, Families, Family, Harmonics};
use crate::pipeline::{CompileOptions, Compiled, Prepared, compile};
use crate::scales::bits::Reach;
use crate::task::{Task, Truth, Truths};
use crate::text::thousands;
use accuracy::Accuracies;
use ir::Tensor;
use ir::graph::{evaluate as evaluate_graph, evaluate_batch};
use ir::plan::{Evaluator, Interactive, Plan, Rounding, Select, Table};
use narrow::Descent;
use rayon::prelude::*;
use sensitivity::sensitivities;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is searched for.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// The plan that the options describe.
    AsGiven,
    /// Every layer in the family that takes least time.
    Fastest(Fastest),
    /// Phases with the fewest harmonics whose loss on the held-out inputs (see [`Evaluation::loss`]) is within
    /// `loss`, a share, and whose cost (see [`cost`]) is within `bytes`; one of both may be missing.
    Cheapest {
        /// The loss allowed.
        loss: Option<f64>,
        /// The bytes allowed.
        bytes: Option<usize>,
    },
    /// Phases with the fewest bits: the accuracy to expect of two parties, on calibration and held-out
    /// inputs, is at most `loss`, a share, below that of the fitted network in float.
    Narrowest {
        /// The loss allowed.
        loss: f64,
        /// What bits are counted.
        minimise: Minimise,
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
/// Inputs at most whose classes a search for fewer bits looks at.
const MOST_JUDGED: usize = 1000;
/// Held-out inputs that it evaluates exactly, at least, and the multiplications it affords for that.
const LEAST_UNSEEN: usize = 32;
const UNSEEN_WORK: usize = 20_000_000_000;
/// Exact evaluations of each, with other carries: as many as are affordable, within these.
const ROUNDS: std::ops::RangeInclusive<usize> = 2..=8;
/// Where the bytes of the online phase count alone, harmonics cost nothing: better fits pay for fewer
/// bits.
const FREE_HARMONICS: Harmonics = Harmonics::Within { tolerance: 0.005, most: 8 };
/// Plans that a search for fewer bits compiles at most while it halves the descent.
const MOST_TRIALS: usize = 8;
/// Plans behind the end that it finds so, which it tries as well: the loss of a plan is not its neighbours',
/// since every one is fitted anew. They stand a fiftieth of the descent apart.
const MORE_TRIALS: usize = 4;
const MORE_APART: usize = 50;
/// What agreement on fewer held-out inputs says is worth no second try.
const LEAST_HELD_OUT: usize = 20;

/// Bytes of one inference: online, both ways, and one party's correlations.
pub fn cost(compiled: &Compiled) -> usize {
    let plan = &compiled.plan;
    let (to0, to1, _) = plan.traffic(1);
    let correlations = (0..plan.steps.len()).filter_map(|step| plan.correlation(step));
    to0 + to1 + correlations.map(|c| c.bytes()[0]).sum::<usize>()
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
    held_out: Sample<'_>,
    options: &CompileOptions,
    goal: Goal,
    progress: &(dyn Fn(&str, f64) + Sync),
) -> Result<Measured, CompileError> {
    let options = &covering(prepared, held_out.inputs, options);
    let trial = Trial { name, prepared, calibration, held_out, progress };
    let (allowed, bytes) = match goal {
        Goal::AsGiven => return Ok(trial.refined(options)?.0),
        Goal::Fastest(goal) => return trial.fastest(options, &goal),
        Goal::Narrowest { loss, minimise } => return trial.narrowest(options, loss, minimise),
        Goal::Cheapest { loss, bytes } => (loss, bytes),
    };
    let mut notes = Vec::new();
    let mut at = |index: usize| -> Result<(Measured, bool), CompileError> {
        let harmonics = Harmonics::Within { tolerance: TOLERANCES[index], most: 6 };
        let usual = Family::Phase { harmonics };
        let families = Families { usual, own: options.families.own.clone() };
        let options = CompileOptions { families, ..options.clone() };
        let (measured, _) = trial.refined(&options)?;
        let (lost, cost) = (measured.evaluation.loss().unwrap_or(0.0), cost(&measured.compiled));
        notes.push(format!(
            "harmonics {}: loss {:.2} points, {} bytes an inference with its correlations",
            mean_harmonics(&measured.compiled),
            100.0 * lost,
            thousands(cost)
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

/// The options with room for further inputs: what is given is taken, fitted on or not.
fn covering(
    prepared: &Prepared,
    inputs: &[Tensor<f32>],
    options: &CompileOptions,
) -> CompileOptions {
    let largest = |values: &Tensor<f32>| {
        values.data.iter().map(|v| f64::from(v.abs())).filter(|v| v.is_finite()).fold(0.0, f64::max)
    };
    let reach = inputs
        .par_iter()
        .map(|x| (largest(x), largest(&evaluate_graph(&prepared.original, x, |_, _| ()))))
        .reduce(|| (0.0, 0.0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let mut options = options.clone();
    options.rings.reach = Reach { input: reach.0, output: reach.1 };
    options
}

/// Whether the only output is the scores of one class.
fn is_one_class(plan: &Plan) -> bool {
    match &plan.outputs[..] {
        [only] => match only.task {
            Task::Classify { axis } => only.shape.0.get(axis) == Some(&only.shape.elements()),
            Task::Binary { .. } | Task::Regress => false,
        },
        _ => false,
    }
}

fn mean_harmonics(compiled: &Compiled) -> String {
    let phases = compiled.plan.steps.iter().filter_map(|step| match &step.op {
        ir::plan::StepOp::Interactive(Interactive::Phase(phase)) => {
            Some(f64::from(phase.harmonics))
        }
        _ => None,
    });
    let (n, sum) = phases.fold((0, 0.0), |(n, sum), h| (n + 1, sum + h));
    if n == 0 { "none".into() } else { format!("{:.1} a layer", sum / f64::from(n)) }
}

struct Trial<'a> {
    name: &'a str,
    prepared: &'a Prepared,
    calibration: &'a Calibration,
    /// Inputs that no fit has seen.
    held_out: Sample<'a>,
    progress: &'a (dyn Fn(&str, f64) + Sync),
}

impl Trial<'_> {
    fn compiled(&self, options: &CompileOptions, stage: &str) -> Result<Compiled, CompileError> {
        let progress = &mut |share| (self.progress)(stage, share);
        compile(self.name, self.prepared, self.calibration, options, progress)
    }

    fn measured(&self, compiled: Compiled) -> Result<Measured, CompileError> {
        let tasks: Vec<Task> = compiled.plan.outputs.iter().map(|o| o.task).collect();
        let evaluation = evaluate::run(
            &compiled.plan,
            &compiled.weights,
            Some(&compiled.reference),
            &tasks,
            self.held_out,
            &|share| (self.progress)("evaluating", share),
        )
        .map_err(|e| CompileError::Calibration(e.to_string()))?;
        Ok(Measured { compiled, evaluation, notes: Vec::new() })
    }

    /// Makes rings, values and phases finer where rounding loses what the fit had.
    fn refined(
        &self,
        options: &CompileOptions,
    ) -> Result<(Measured, CompileOptions), CompileError> {
        let mut best = self.measured(self.compiled(options, "fitting")?)?;
        let (mut finer, mut chosen) = (options.clone(), options.clone());
        let count = self.held_out.inputs.len();
        if self.calibration.is_synthetic || count < LEAST_HELD_OUT {
            return Ok((best, chosen));
        }
        // Of the output that lost the most: what is above the allowed, what was lost, and what of.
        let gap = |m: &Measured| {
            let of_output = |o: &Judged| match (&o.agreement, o.relative_error) {
                (Some(a), _) => {
                    let lost = a.fitted - a.plan;
                    (lost - ROUNDING_LOSS - 1.5 / count as f64, lost, " points of agreement")
                }
                (None, e) => {
                    let lost = e.and_then(|e| Some(e.plan? - e.fitted?)).unwrap_or(0.0);
                    (lost - ROUNDING_LOSS, lost, "% of the outputs' spread")
                }
            };
            let gaps = m.evaluation.outputs.iter().map(of_output);
            gaps.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((-1.0, 0.0, ""))
        };
        let mut notes = Vec::new();
        for _ in 0..REFINEMENTS {
            let (excess, lost, of) = gap(&best);
            if excess <= 0.0 {
                break;
            }
            finer.rings.value_bits += 1.0;
            finer.rings.rounding_bits += 1.0;
            finer.rings.phase_bits = (finer.rings.phase_bits + 1).min(12);
            finer.rings.bucket_bits = (finer.rings.bucket_bits + 1).min(*Select::BUCKET_BITS.end());
            finer.rings.table_bits = (finer.rings.table_bits + 1).min(*Table::OPENING_BITS.end());
            finer.rings.max_phase_ring += 2;
            let next = self.measured(self.compiled(&finer, "fitting")?)?;
            notes.push(format!(
                "rounding lost {:.1}{of}: {} phase bits, {} bucket bits, {} table bits and finer rings instead",
                100.0 * lost,
                finer.rings.phase_bits,
                finer.rings.bucket_bits,
                finer.rings.table_bits
            ));
            if gap(&next).0 >= excess {
                break;
            }
            (best, chosen) = (next, finer.clone());
        }
        Ok((Measured { notes, ..best }, chosen))
    }

    /// The state of a descent that goes furthest within `allowed`.
    fn narrowest(
        &self,
        options: &CompileOptions,
        allowed: f64,
        minimise: Minimise,
    ) -> Result<Measured, CompileError> {
        if self.held_out.inputs.len() < LEAST_HELD_OUT {
            return Err(CompileError::Calibration(format!(
                "a search by accuracy looks at held-out inputs, a fifth of those given: {} are too few, {LEAST_HELD_OUT} the least",
                self.held_out.inputs.len()
            )));
        }
        let (mut given, mut options) = self.refined(options)?;
        options.rings = minimise.options(options.rings);
        let Compiled { plan, reference, phases, .. } = &given.compiled;
        let (inputs, truths) = self.judged();
        let weights = sensitivities(&reference.fitted, phases, &inputs, is_one_class(plan));
        let states = Descent::new(plan, phases, &weights, minimise, &options.rings).states();
        let unseen = self.unseen(plan.multiplications_in_all());
        let float = |x: &[Tensor<f32>]| evaluate_batch(&reference.original, x);
        let accuracy = Accuracies::new(plan, &float(&inputs), &float(&unseen), &truths);
        let goal = accuracy.of(&evaluate_batch(&reference.fitted, &unseen));
        let loss = |compiled: &Compiled| -> Result<f64, CompileError> {
            Ok(goal - accuracy.of(&self.outputs(compiled, &unseen)?))
        };
        let before = loss(&given.compiled)?;
        if let Family::Phase { harmonics: fewest @ Harmonics::Within { .. } } =
            &mut options.families.usual
            && minimise == Minimise::Online
        {
            *fewest = FREE_HARMONICS;
        }
        let mut best: Option<(Compiled, f64)> = None;
        let mut tried = 0;
        let mut good = |state: usize| -> Result<Option<(Compiled, f64)>, CompileError> {
            tried += 1;
            let allocation = Descent::allocation(phases, &states[state], minimise);
            let options = CompileOptions { allocation, ..options.clone() };
            let found = match self.compiled(&options, &format!("fewer bits, try {tried}")) {
                Ok(compiled) => loss(&compiled).map(|lost| Some((compiled, lost)))?,
                Err(CompileError::Range(_)) => None,
                Err(why) => return Err(why),
            };
            Ok(found.filter(|(_, lost)| *lost <= allowed))
        };
        let (mut low, mut high) = (0, states.len());
        // How many of the states are good enough? Stops when a step is less than a hundredth.
        for _ in 0..MOST_TRIALS {
            if (high - low) * 100 <= states.len() {
                break;
            }
            let middle = (low + high) / 2;
            match good(middle)? {
                Some(found) => (low, best) = (middle + 1, Some(found)),
                None => high = middle,
            }
        }
        let apart = (states.len() / MORE_APART).max(1);
        for further in 1..=MORE_TRIALS {
            let state = high + further * apart;
            if low == 0 || state >= states.len() {
                break;
            }
            if let Some(found) = good(state)? {
                best = Some(found);
            }
        }
        let of = |compiled: &Compiled| Minimise::bytes(minimise, &compiled.plan);
        let Some((compiled, lost)) = best.filter(|(c, _)| of(c) < of(&given.compiled)) else {
            given.notes.push(format!(
                "no plan of fewer bits stays within {:.2} points of the fit in float; this one loses {:.2} of them on {} inputs",
                100.0 * allowed,
                100.0 * before,
                inputs.len()
            ));
            return Ok(given);
        };
        let note = format!(
            "{} bytes {}, {:.0}% fewer than with the same bits everywhere; of the fit's accuracy in float two parties lose \
             {:.2} points on {} inputs instead of {:.2}",
            thousands(of(&compiled)),
            minimise.of_what(),
            100.0 * (1.0 - of(&compiled) as f64 / of(&given.compiled) as f64),
            100.0 * lost,
            inputs.len(),
            100.0 * before,
        );
        let notes = given.notes.into_iter().chain([note]).collect();
        Ok(Measured { notes, ..self.measured(compiled)? })
    }

    /// The calibration and held-out inputs, as many as a search looks at, and what is right of them if
    /// it is known of all.
    fn judged(&self) -> (Vec<Tensor<f32>>, Truths) {
        let calibration = self.calibration;
        let all: Vec<&Tensor<f32>> =
            calibration.inputs.iter().chain(self.held_out.inputs).collect();
        let count = MOST_JUDGED.min(all.len());
        let chosen = || (0..count).map(|i| i * all.len() / count);
        let of_output = |(a, b): (&Option<Vec<Truth>>, &Option<Vec<Truth>>)| {
            let truths: Vec<&Truth> = a.as_ref()?.iter().chain(b.as_ref()?).collect();
            Some(chosen().map(|i| truths[i].clone()).collect())
        };
        let truths = calibration.truths.iter().zip(self.held_out.truths).map(of_output).collect();
        (chosen().map(|i| all[i].clone()).collect(), truths)
    }

    /// The held-out inputs, as many as a search affords to evaluate exactly.
    fn unseen(&self, multiplications: usize) -> Vec<Tensor<f32>> {
        let all = self.held_out.inputs;
        let most = (UNSEEN_WORK / multiplications.max(1)).clamp(LEAST_UNSEEN, MOST_JUDGED);
        let count = most.min(all.len());
        (0..count).map(|i| all[i * all.len() / count].clone()).collect()
    }

    /// What two parties compute, carries included, several rounds of all inputs.
    fn outputs(
        &self,
        compiled: &Compiled,
        inputs: &[Tensor<f32>],
    ) -> Result<Vec<Tensor<f32>>, CompileError> {
        let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
        let done = AtomicUsize::new(0);
        let work = compiled.plan.multiplications_in_all() * inputs.len();
        let rounds = (UNSEEN_WORK / work.max(1)).clamp(*ROUNDS.start(), *ROUNDS.end());
        let all = rounds * inputs.len();
        let output = |i: usize| {
            let x = compiled
                .plan
                .encode_input(&inputs[i % inputs.len()])
                .map_err(|e| CompileError::Calibration(e.to_string()))?;
            let y = evaluator.run(&x, Rounding::Sampled(i as u64), |_, _| ());
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)("evaluating", done as f64 / all as f64);
            Ok(compiled.plan.decode_output(&y))
        };
        (0..all).into_par_iter().map(output).collect()
    }
}
