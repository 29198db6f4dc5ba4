//! Models of others: each compiles, or is refused with every node that stands in the way.

use ir::Tensor;
use ir::graph::{Graph, Op, evaluate};
use ir::plan::{Evaluator, Plan, Rounding, carry_noise};
use polyc::error::CompileError;
use polyc::fit::Calibration;
use polyc::onnx::{ImportError, ImportOptions, UnsupportedNode, import_file};
use polyc::passes::{MaxPool, PassOptions};
use polyc::{CompileOptions, Prepared, compile, prepare_plain};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Models with at most this many parameters are compiled.
const COMPILED: usize = 300_000;
/// Models with at most this many multiplications are evaluated.
const EVALUATED: usize = 50_000_000;
/// Models with at most this many are run between two parties.
const RUN: usize = 2_000_000;

fn models() -> Option<Vec<PathBuf>> {
    let folder = std::env::var_os("POLYC_CORPUS")
        .map_or_else(|| support::workspace().join("../shared/corpus"), PathBuf::from);
    let mut models: Vec<PathBuf> = ["models", "ops"]
        .iter()
        .filter_map(|part| folder.join(part).read_dir().ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .collect();
    models.sort();
    if models.is_empty() {
        eprintln!(
            "SKIPPED: no models of others; set POLYC_CORPUS to a folder with models/ and ops/"
        );
        return None;
    }
    Some(models)
}

fn parameters(graph: &Graph) -> usize {
    let of = |op: &Op| match op {
        Op::Convolution { weights, bias, .. } | Op::MatrixProduct { weights, bias } => {
            weights.data.len() + bias.data.len()
        }
        _ => 0,
    };
    graph.order().iter().map(|&id| of(&graph.node(id).op)).sum()
}

/// What became of a model.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Outcome {
    Refused,
    Prepared,
    Compiled,
    Evaluated,
    Ran,
}

fn check_nodes(nodes: &[UnsupportedNode]) -> Result<Outcome, String> {
    let is_clear = |node: &UnsupportedNode| {
        let parts = [&node.name, &node.operator, &node.reason, &node.advice];
        parts.iter().all(|p| !p.is_empty()) && !node.to_string().contains(['\n', '\r'])
    };
    let mut lines: Vec<String> = nodes.iter().map(|n| n.to_string()).collect();
    lines.sort();
    lines.dedup();
    if nodes.is_empty() || !nodes.iter().all(is_clear) || lines.len() != nodes.len() {
        return Err(format!("unclear: {lines:?}"));
    }
    Ok(Outcome::Refused)
}

fn take(path: &Path, options: &PassOptions) -> Result<Outcome, String> {
    let imported = match import_file(path, &ImportOptions::default()) {
        Ok(imported) => imported,
        Err(ImportError::Unsupported(nodes)) => return check_nodes(&nodes),
        Err(
            error @ (ImportError::OperatorSet(_)
            | ImportError::OpenSizes(_)
            | ImportError::NoBatch { .. }
            | ImportError::InputShape { .. }),
        ) => {
            let line = error.to_string();
            return if line.contains('\n') { Err(line) } else { Ok(Outcome::Refused) };
        }
        Err(error) => return Err(error.to_string()),
    };
    match prepare_plain(imported, options) {
        Ok(prepared) if parameters(&prepared.graph) > COMPILED => Ok(Outcome::Prepared),
        Ok(prepared) => compile_and_run(prepared),
        Err(CompileError::Unsupported(nodes)) => check_nodes(&nodes),
        Err(error) => Err(error.to_string()),
    }
}

fn compile_and_run(prepared: Prepared) -> Result<Outcome, String> {
    let shape = prepared.graph.node(prepared.graph.input()).shape.clone();
    let mut calibration = Calibration::synthetic(&shape, (0.0, 1.0), 256);
    calibration.inputs.truncate(if shape.elements() > 4096 { 16 } else { 64 });
    let original = prepared.original.clone();
    let options = CompileOptions::default();
    let compiled = match compile("model", &prepared, &calibration, &options, &mut |_| ()) {
        Ok(compiled) => compiled,
        Err(CompileError::Range(line)) if !line.contains('\n') => return Ok(Outcome::Refused),
        Err(error) => return Err(error.to_string()),
    };
    let plan = &compiled.plan;
    let (read, digest) = Plan::from_bytes(&plan.to_bytes().0).map_err(|e| e.to_string())?;
    if read != *plan || digest != compiled.digest {
        return Err("another plan comes back".into());
    }
    let multiplications: usize = (0..plan.steps.len()).map(|i| plan.multiplications(i)).sum();
    if multiplications > EVALUATED {
        return Ok(Outcome::Compiled);
    }
    let inputs: Vec<Tensor<f32>> = calibration.inputs[..2].to_vec();
    let encode = |x| plan.encode_input(x).map_err(|e| e.to_string());
    let encoded = inputs.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    let evaluator = Evaluator::new(plan, &compiled.weights);
    let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
    let float = evaluate(&original, &inputs[0], |_, _| ());
    if float.shape != exact[0].shape {
        return Err(format!("the plan's output is {}, not {}", exact[0].shape, float.shape));
    }
    if multiplications > RUN {
        return Ok(Outcome::Evaluated);
    }
    let bound = carry_noise(&evaluator, &encoded, 50).bound;
    let run = polyrt::run_in_memory(plan, &compiled.weights, &inputs).map_err(|e| e.to_string())?;
    for (got, want) in run.logits.iter().zip(&exact) {
        for (a, b) in got.data.iter().zip(&want.data) {
            if f64::from((a - b).abs()) > bound {
                return Err(format!("two parties get {a}, the evaluator {b} ± {bound}"));
            }
        }
    }
    Ok(Outcome::Ran)
}

#[test]
fn every_model_of_others_compiles_or_is_refused_clearly() {
    let Some(models) = models() else { return };
    let options = PassOptions { max_pool: MaxPool::Average };
    let outcomes: Mutex<Vec<Option<Result<Outcome, String>>>> =
        Mutex::new(vec![None; models.len()]);
    let next = AtomicUsize::new(0);
    // Threads of their own: a party that waits for the other must not hold one of rayon's.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = models.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = catch_unwind(|| take(path, &options));
                    let outcome = outcome.unwrap_or_else(|_| Err("panics".into()));
                    let position = models.iter().position(|p| p == path).unwrap();
                    outcomes.lock().unwrap()[position] = Some(outcome);
                }
            });
        }
    });
    let outcomes: Vec<_> = outcomes.into_inner().unwrap().into_iter().flatten().collect();
    assert_eq!(outcomes.len(), models.len());
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let count = |outcome| outcomes.iter().filter(|o| o.as_ref() == Ok(&outcome)).count();
    for outcome in
        [Outcome::Refused, Outcome::Prepared, Outcome::Compiled, Outcome::Evaluated, Outcome::Ran]
    {
        eprintln!("{outcome:?}: {} of {}", count(outcome), models.len());
    }
    let wrong: Vec<String> = models
        .iter()
        .zip(&outcomes)
        .filter_map(|(path, outcome)| Some(format!("{}: {}", name(path), outcome.as_ref().err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), models.len(), wrong.join("\n"));
    assert!(count(Outcome::Ran) > 0 && count(Outcome::Refused) > 0);
}

#[test]
fn models_of_others_with_max_pools_compile_either_way() {
    for max_pool in [MaxPool::Exact, MaxPool::Fit] {
        with_max_pools(&PassOptions { max_pool });
    }
}

fn with_max_pools(options: &PassOptions) {
    let Some(models) = models() else { return };
    let is_max = |op: &Op| matches!(op, Op::MaxWindows { .. });
    let mut outcomes = Vec::new();
    for path in &models {
        let Ok(imported) = import_file(path, &ImportOptions::default()) else { continue };
        let graph = &imported.graph;
        if graph.order().iter().all(|&id| !is_max(&graph.node(id).op)) {
            continue;
        }
        match take(path, options) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    assert!(outcomes.contains(&Outcome::Ran), "{outcomes:?}");
    eprintln!("{outcomes:?}");
}
