//! A sample of the backend tests through the whole chain: compiled as `polyc compile --force --activation exact` does,
//! evaluated as two parties would, and compared with what the test expects.
//!
//! A network is fitted on the test's own input and on others made around it. The error is the root mean square over
//! the spread of the outputs; where there are few inputs of few elements, it is that of a rough fit.

use super::{Variant, array, import, items};
use ir::ElementType;
use ir::graph::evaluate;
use ir::plan::{Evaluator, Rounding};
use ir::tensor::Tensor;
use polyc::evaluate::Sample;
use polyc::fit::{Calibration, Family};
use polyc::onnx::{ImportOptions, Imported};
use polyc::oracle::{Oracle, compare};
use polyc::passes::{MaxPool, PassOptions};
use polyc::search::{Goal, search};
use polyc::{CompileOptions, data, ports, prepare};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Variants of every combination of operators, at most.
const EACH: usize = 3;
/// Elements of all inputs, at most, and multiplications of a plan: the rest takes long.
const MOST_ELEMENTS: usize = 30_000;
/// Inputs that are made, held-out ones among them; more only where the test itself has more.
const INPUTS: usize = 60;
/// How far inputs are from the test's own, over its elements' deviation.
const AROUND: f64 = 0.5;
/// What the oracle of an import may take, and its inputs.
const ORACLE_MEMORY: u64 = 1 << 30;
const ORACLE_INPUTS: usize = 4;
/// Simulated runs.
const RUNS: u64 = 4;
/// What is right, and what is near.
const BOUNDS: [(f64, &str); 2] = [(0.02, "right"), (0.1, "near")];
/// An error must exceed a bound by this factor before it counts as worse than the table: other machines round
/// elsewhere.
const DOUBT: f64 = 1.25;

/// The compiler's own figures hide an error that is so many times theirs.
const HIDES: f64 = 4.0;

/// What became of a variant.
pub struct Found {
    /// Its number among all variants.
    pub variant: usize,
    /// The error, or why there is no plan.
    pub error: Result<f64, String>,
    /// The error that the compiler itself found on held-out inputs.
    pub own: Option<f64>,
}

impl Found {
    /// In the table.
    pub fn outcome(&self) -> &'static str {
        self.error.as_ref().map_or("refused", |&error| class(error))
    }

    /// For people.
    fn detail(&self) -> String {
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        match &self.error {
            Ok(error) => format!(
                "{} off, {} by the compiler's own figures",
                percent(*error),
                self.own.map_or("unknown".into(), percent)
            ),
            Err(error) => error.lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// Whether the answer is far and the compiler's own figures do not show it. They are those of other inputs.
    fn is_hidden(&self) -> bool {
        let Ok(error) = self.error else { return false };
        let is_bad = |own: f64| own.is_nan() || own > error / HIDES;
        self.outcome() == "far" && !self.own.is_some_and(is_bad)
    }

    /// Whether it is worse than an entry of the table.
    pub fn is_worse(&self, than: &str) -> bool {
        let rank =
            |outcome: &str| ["right", "near", "far", "refused"].iter().position(|&o| o == outcome);
        let outcome = self.error.as_ref().map_or("refused", |&error| class(error / DOUBT));
        rank(outcome) > rank(than)
    }
}

fn class(error: f64) -> &'static str {
    BOUNDS.iter().find(|(bound, _)| error <= *bound).map_or("far", |(_, name)| name)
}

/// A hash (FNV-1a): the sample stays the same where others join.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// The sample: per combination of operators, of those whose import is right.
pub fn sample(folder: &Path, variants: &[Variant], outcomes: &[String]) -> Vec<usize> {
    let is_of_reals = |v: &Variant| {
        let Ok(imported) = import(folder, v) else { return false };
        let is_finite = |x: &Tensor<f32>| x.data.iter().all(|v| v.is_finite());
        imported.inputs.iter().all(|i| i.element == ElementType::Real)
            && imported.input_shape().elements() <= MOST_ELEMENTS
            && items(folder, v, &imported).iter().flatten().all(is_finite)
    };
    let wanted = std::env::var("PLANS").ok();
    let each = if wanted.is_some() { usize::MAX } else { EACH };
    let mut of_operators: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
    for (number, (variant, outcome)) in variants.iter().zip(outcomes).enumerate() {
        let is_wanted = wanted
            .as_ref()
            .is_none_or(|part| format!("{}#{}", variant.test, variant.name).contains(part));
        if outcome == "right" && is_wanted && !variant.name.starts_with("folded") {
            let key = hash(&format!("{}#{}", variant.test, variant.name));
            of_operators.entry(&variant.operators).or_default().push((key, number));
        }
    }
    let mut sample = Vec::new();
    for mut candidates in of_operators.into_values() {
        candidates.sort_by_key(|&entry| Reverse(entry));
        let fits = candidates.into_iter().map(|(_, n)| n).filter(|&n| is_of_reals(&variants[n]));
        sample.extend(fits.take(each));
    }
    sample.sort();
    sample
}

/// A line per variant of the sample, with its operators (or `several`).
pub fn table(version: &str, variants: &[Variant], found: &[Found]) -> String {
    let mut text = format!("{version}\n");
    for one in found {
        let Variant { test, name, operators, .. } = &variants[one.variant];
        let operators = if operators.contains(',') { "several" } else { operators };
        writeln!(text, "{test}\t{name}\t{operators}\t{}", one.outcome()).unwrap();
    }
    text
}

/// Says what was found.
pub fn print(variants: &[Variant], found: &[Found]) {
    for one in found {
        let Variant { number, test, name, .. } = &variants[one.variant];
        println!("{test} {number}.onnx {name}: {}: {}", one.outcome(), one.detail());
    }
}

/// Fails where something is worse than in the table, or where the compiler's own figures hide what is far.
pub fn check(table: &str, variants: &[Variant], found: &[Found]) {
    let mut worse = Vec::new();
    for one in found {
        let Variant { test, name, .. } = &variants[one.variant];
        let head = format!("{test}\t{name}\t");
        let line = table.lines().find(|line| line.starts_with(&head));
        let expected = line.and_then(|line| line.rsplit('\t').next()).unwrap_or("refused");
        if one.is_worse(expected) || one.is_hidden() {
            let (outcome, detail) = (one.outcome(), one.detail());
            worse.push(format!("{test} {name}: {outcome} instead of {expected}: {detail}"));
        }
    }
    assert!(worse.is_empty(), "plans became worse:\n{}", worse.join("\n"));
}

/// Compiles and evaluates a variant.
pub fn plan(folder: &Path, variants: &[Variant], number: usize) -> Found {
    let variant = &variants[number];
    let imported = import(folder, variant).expect("its import is right");
    let parts: Vec<Vec<Tensor<f32>>> = items(folder, variant, &imported);
    let want = array(folder, variant, "y").data;
    let model = folder.join(&variant.number).with_extension("onnx");
    let run = checked(&imported, &parts, model).and_then(|()| run(imported, parts, &want));
    match run {
        Ok((error, own)) => Found { variant: number, error: Ok(error), own },
        Err(error) => Found { variant: number, error: Err(error.to_string()), own: None },
    }
}

type Failed = Box<dyn std::error::Error>;

/// What the oracle says of an import that is right: it must not disagree.
fn checked(imported: &Imported, parts: &[Vec<Tensor<f32>>], model: PathBuf) -> Result<(), Failed> {
    let options =
        ImportOptions { outputs: vec![imported.outputs[0].name.clone()], ..Default::default() };
    let program = env!("CARGO_BIN_EXE_polyc").into();
    let (memory, time) = (ORACLE_MEMORY, Duration::from_secs(10));
    let oracle = Oracle { program, model, options, memory, time };
    compare(imported, parts, &oracle, ORACLE_INPUTS)?;
    Ok(())
}

fn run(
    mut imported: Imported,
    parts: Vec<Vec<Tensor<f32>>>,
    want: &[f32],
) -> Result<(f64, Option<f64>), Failed> {
    let passes = PassOptions { max_pool: MaxPool::Exact };
    let around: Vec<Vec<Tensor<f32>>> =
        (0..).zip(&parts).map(|(seed, part)| around(part, seed)).collect();
    let plain = vec![Default::default(); imported.inputs.len()];
    let mut inputs = ports::inputs(&imported.inputs, &plain);
    ports::settle_inputs(&mut imported, &mut inputs, &around);
    let own = data::join(&inputs, &parts)?;
    let all = data::join(&inputs, &around)?;
    let (fitted, held_out) = split(&all);
    let mut prepared = prepare(imported, inputs, &all, &passes)?;
    let calibration = Calibration::new(fitted, "around the test's");
    prepared.open_clips(&calibration, &passes)?;
    let float = |x: &Tensor<f32>| {
        let (port, scores) = (&prepared.outputs[0], evaluate(&prepared.original, x, |_, _| ()));
        port.finish(&Tensor::new(port.shape.clone(), scores.data))
    };
    let of_held_out: Vec<Vec<Tensor<f32>>> = held_out.iter().map(|x| vec![float(x)]).collect();
    let sample = Sample { inputs: &held_out, truths: &[], float: Some(&of_held_out) };
    let families = Family::Select.into();
    let options = CompileOptions { families, ..CompileOptions::default() };
    let measured =
        search("y", &prepared, &calibration, sample, &options, Goal::AsGiven, &|_, _| ())?;
    let plan = &measured.compiled.plan;
    let evaluator = Evaluator::new(plan, &measured.compiled.weights);
    let outputs = all.iter().flat_map(|x| float(x).data).chain(want.iter().copied());
    let spread = deviation(&outputs.collect::<Vec<_>>());
    let mut squares = Vec::new();
    for run in 0..RUNS {
        let mut got = Vec::new();
        for (item, x) in (0..).zip(&own) {
            let x = plan.encode_input(x)?;
            let y = evaluator.run(&x, Rounding::Sampled(RUNS * item + run), |_, _| ());
            got.extend(plan.finish(&plan.decode_output(&y)).remove(0).data);
        }
        assert_eq!(got.len(), want.len());
        let finite = got.iter().zip(want).filter(|(_, w)| w.is_finite());
        squares.extend(finite.map(|(&g, &w)| f64::from(g - w).powi(2)));
    }
    let error = (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt() / spread;
    let shown = measured.evaluation.outputs[0].relative_error.and_then(|e| e.plan);
    Ok((error, shown.or(measured.evaluation.loss())))
}

/// Inputs to fit on, and every fifth to measure on.
fn split(all: &[Tensor<f32>]) -> (Vec<Tensor<f32>>, Vec<Tensor<f32>>) {
    let is_out = |i: usize| i % 5 == 4;
    let of = |wanted: bool| (0..all.len()).filter(move |&i| is_out(i) == wanted);
    (of(false).map(|i| all[i].clone()).collect(), of(true).map(|i| all[i].clone()).collect())
}

/// The deviation of the finite ones of some numbers; the size of numbers that are all the same.
fn deviation(values: &[f32]) -> f64 {
    let finite: Vec<f64> = values.iter().map(|&v| f64::from(v)).filter(|v| v.is_finite()).collect();
    let mean =
        |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / finite.len().max(1) as f64;
    let middle = mean(&mut finite.iter().copied());
    let deviation = mean(&mut finite.iter().map(|v| (v - middle).powi(2))).sqrt();
    deviation.max(1e-3 * middle.abs()).max(1e-6)
}

/// The values of one input of the model, and others around them, within their range.
fn around(own: &[Tensor<f32>], seed: u64) -> Vec<Tensor<f32>> {
    let all: Vec<f32> = own.iter().flat_map(|x| x.data.iter().copied()).collect();
    let low = all.iter().copied().fold(f32::INFINITY, f32::min);
    let high = all.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let deviation = AROUND * deviation(&all);
    let mut noise = Noise(seed);
    let mut made = |i: usize| {
        if i < own.len() {
            return own[i].clone();
        }
        let own = &own[(noise.uniform() * own.len() as f64) as usize % own.len()];
        let noisy = own.data.iter().map(|v| v + (deviation * noise.normal()) as f32);
        let reflected = noisy.map(|v| if v < low { 2.0 * low - v } else { v.min(2.0 * high - v) });
        Tensor::new(own.shape.clone(), reflected.map(|v| v.clamp(low, high)).collect())
    };
    (0..INPUTS.max(own.len())).map(&mut made).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as f64 / 2f64.powi(64)
    }

    /// About normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
