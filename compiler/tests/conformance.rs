//! The import against the ONNX backend tests: the outcome of every test of the `onnx` package stands in
//! `conformance/outcomes.tsv`, and none is wrong.
//!
//! `conformance/export.py` writes the tests as models. A model is imported, its graph is evaluated in floating point
//! and compared with what the test expects. Skipped loudly without Python or `onnx`. The table of operators in
//! docs/operators.md follows from the outcomes.
//!
//! A sample goes through the whole chain ([`plans`]): its outcomes stand in `conformance/plans.tsv`, and none may
//! become worse.
//!
//! `UPDATE_EXPECT=1` rewrites the tables; `CONFORMANCE=PART` runs what has this in its name, and prints why;
//! `PLANS=PART` compiles what has this in its name.

#[path = "conformance/plans.rs"]
mod plans;

use ir::array_file::read_npz;
use ir::graph::evaluate;
use ir::tensor::Tensor;
use polyc::onnx::{
    Declared, ImportError, ImportOptions, Imported, import_bytes, supported_operators,
};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, File};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One variant of a test: a model and what it gives for one value of each of its inputs.
struct Variant {
    number: String,
    test: String,
    name: String,
    inputs: Vec<String>,
    output: String,
    tolerance: f32,
    operators: String,
}

/// The version of `onnx` and its tests, exported to `folder`; `None` without Python or `onnx`.
fn export(folder: &Path) -> Option<(String, Vec<Variant>)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/export.py");
    let has_onnx = Command::new("python3").args(["-c", "import onnx"]).output();
    if !has_onnx.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: the ONNX backend tests need Python's onnx: pip install onnx");
        return None;
    }
    let status = Command::new("python3").arg(script).arg(folder).status().unwrap();
    assert!(status.success(), "the export of the backend tests failed");
    let manifest = fs::read_to_string(folder.join("manifest.tsv")).unwrap();
    let mut lines = manifest.lines();
    let version = lines.next().unwrap().to_owned();
    let variant = |line: &str| {
        let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let [number, test, name, inputs, output, tolerance, operators] = fields.try_into().unwrap();
        let inputs = inputs.split(' ').map(str::to_owned).collect();
        let tolerance = tolerance.parse().unwrap();
        Variant { number, test, name, inputs, output, tolerance, operators }
    };
    Some((version, lines.map(variant).collect()))
}

/// The outputs of a graph for the values of all inputs of the file: one item of the graph, or several.
fn outputs(imported: &Imported, xs: &[Tensor<f32>]) -> Vec<f32> {
    let graph = &imported.graph;
    let shape = imported.input_shape();
    let sizes: Vec<usize> = imported.inputs.iter().map(|i| i.shape.elements()).collect();
    let items = xs.iter().map(|x| x.data.len()).sum::<usize>() / shape.elements();
    let of_item = |item: usize| {
        let parts = xs.iter().zip(&sizes).map(|(x, &n)| &x.data[item * n..(item + 1) * n]);
        let x = Tensor::new(shape.clone(), parts.flatten().copied().collect());
        evaluate(graph, &x, |_, _| ()).data
    };
    (0..items).flat_map(of_item).collect()
}

/// The model of a variant.
fn import(folder: &Path, variant: &Variant) -> Result<Imported, ImportError> {
    let path = folder.join(&variant.number);
    let bytes = fs::read(path.with_extension("onnx")).unwrap();
    let options = ImportOptions { outputs: vec![variant.output.clone()], ..Default::default() };
    import_bytes(&bytes, &options)
}

/// An array of a variant.
fn array(folder: &Path, variant: &Variant, name: &str) -> Tensor<f32> {
    let file = File::open(folder.join(&variant.number).with_extension("npz")).unwrap();
    read_npz(file, Some(name)).unwrap().tensor
}

/// The values of the graph's inputs. An input that nothing reads is none of them.
fn values(folder: &Path, variant: &Variant, imported: &Imported) -> Vec<Tensor<f32>> {
    let at = |name: &String| variant.inputs.iter().position(|n| n == name).unwrap();
    let value = |i: &Declared| array(folder, variant, &format!("x{}", at(&i.name)));
    imported.inputs.iter().map(value).collect()
}

/// The values of every input, item by item.
fn items(folder: &Path, variant: &Variant, imported: &Imported) -> Vec<Vec<Tensor<f32>>> {
    let of_input = |(x, declared): (Tensor<f32>, &Declared)| {
        let item = |data: &[f32]| Tensor::new(declared.shape.clone(), data.to_vec());
        x.data.chunks_exact(declared.shape.elements()).map(item).collect()
    };
    values(folder, variant, imported).into_iter().zip(&imported.inputs).map(of_input).collect()
}

/// What became of a variant, and more for people.
fn outcome(folder: &Path, variant: &Variant) -> (String, String) {
    let imported = match import(folder, variant) {
        Ok(imported) => imported,
        Err(error) => return (format!("refused ({})", class(&error)), error.to_string()),
    };
    let xs = values(folder, variant, &imported);
    let want = array(folder, variant, "y");
    let run = || outputs(&imported, &xs);
    let Ok(got) = catch_unwind(run) else { return ("broken".into(), "it panicked".into()) };
    if let Some(difference) = difference(&got, &want.data, variant.tolerance) {
        let detail = format!("{difference}; {}", imported.warnings.join("; "));
        return ("wrong".into(), detail);
    }
    ("right".into(), String::new())
}

/// What is refused, in words that stay when a message is improved.
fn class(error: &ImportError) -> String {
    match error {
        ImportError::Unsupported(nodes) => {
            let names: BTreeSet<&str> = nodes.iter().map(|n| n.operator.as_str()).collect();
            names.into_iter().collect::<Vec<_>>().join(" ")
        }
        ImportError::OperatorSet(_) => "operator set".into(),
        ImportError::OpenSizes(_) => "open sizes".into(),
        ImportError::NoBatch { .. } => "no batch".into(),
        ImportError::InputShape { .. } => "input shape".into(),
        ImportError::Malformed(_) => "model".into(),
        ImportError::Internal(_) => "internal".into(),
        _ => "other".into(),
    }
}

/// Where two outputs differ by more than `tolerance` of the largest finite entry.
fn difference(got: &[f32], want: &[f32], tolerance: f32) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} entries, expected {}", got.len(), want.len()));
    }
    let finite = want.iter().filter(|v| v.is_finite());
    let scale = finite.fold(1e-3f32, |m, v| m.max(v.abs()));
    let same =
        |g: f32, w: f32| g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance * scale;
    let at = got.iter().zip(want).position(|(&g, &w)| !same(g, w))?;
    Some(format!("entry {at} is {}, expected {}", got[at], want[at]))
}

/// A line per test: its operator (or `several`), and its variants by outcome.
fn table(version: &str, variants: &[Variant], outcomes: &[String]) -> String {
    let mut tests: BTreeMap<(&str, &str), BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for (variant, outcome) in variants.iter().zip(outcomes) {
        let operator =
            if variant.operators.contains(',') { "several" } else { variant.operators.as_str() };
        let of_test = tests.entry((&variant.test, operator)).or_default();
        of_test.entry(outcome).or_default().push(&variant.name);
    }
    let mut text = format!("{version}\n");
    for ((test, operator), outcomes) in tests {
        let parts: Vec<String> = outcomes
            .iter()
            .map(|(outcome, names)| format!("{outcome}: {}", names.join(" ")))
            .collect();
        writeln!(text, "{test}\t{operator}\t{}", parts.join("; ")).unwrap();
    }
    text
}

/// The operators with what compiles of them, and how many variants of the tests of each alone are right.
fn operators(variants: &[Variant], outcomes: &[String]) -> String {
    let count = |operator: &str, is: &dyn Fn(&str) -> bool| {
        let of_operator = variants.iter().zip(outcomes);
        of_operator.filter(|(v, o)| v.operators == operator && is(o)).count()
    };
    let is_right = |o: &str| o == "right";
    let tests: BTreeSet<&str> = variants.iter().map(|v| v.test.as_str()).collect();
    let supported: Vec<_> = supported_operators().collect();
    let mut text = format!(
        "{} operators. The {} tests have {} variants: one of the inputs is the client's, or all of them are, or all are \
         constants.\n{} variants are right, the others are refused. The last column counts those of the operator \
         alone.\n\n| operator | what compiles | right |\n| --- | --- | --- |\n",
        supported.len(),
        tests.len(),
        outcomes.len(),
        outcomes.iter().filter(|o| is_right(o)).count()
    );
    for operator in &supported {
        let all = count(operator.name, &|_| true);
        let right = count(operator.name, &is_right);
        let counted = if all == 0 { String::new() } else { format!("{right} of {all}") };
        writeln!(text, "| `{}` | {} | {counted} |", operator.name, operator.note).unwrap();
    }
    let others: BTreeSet<&str> = variants
        .iter()
        .zip(outcomes)
        .filter(|(v, o)| is_right(o) && v.name.starts_with("folded"))
        .map(|(v, _)| v.operators.as_str())
        .filter(|name| !name.contains(',') && supported.iter().all(|o| o.name != *name))
        .collect();
    let listed: Vec<String> = others.iter().map(|name| format!("`{name}`")).collect();
    writeln!(text, "\nOf constants alone: {}.", listed.join(", ")).unwrap();
    text
}

const BEGIN: &str = "<!-- operators: written by compiler/tests/conformance.rs -->\n";
const END: &str = "<!-- end of operators -->\n";

/// A page with another table of operators.
fn with_operators(page: &str, table: &str) -> String {
    let (before, rest) = page.split_once(BEGIN).expect("the page has the table's begin");
    let (_, after) = rest.split_once(END).expect("the page has the table's end");
    format!("{before}{BEGIN}{table}{END}{after}")
}

#[test]
fn every_backend_test_has_the_outcome_in_the_table() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let _ = fs::remove_dir_all(&folder);
    let Some((version, mut variants)) = export(&folder) else { return };
    let wanted = std::env::var("CONFORMANCE").ok();
    if let Some(part) = &wanted {
        variants.retain(|v| format!("{}#{}", v.test, v.name).contains(part));
    }
    let results: Vec<(String, String)> =
        variants.par_iter().map(|variant| outcome(&folder, variant)).collect();
    if wanted.is_some() {
        for (v, (outcome, detail)) in variants.iter().zip(&results) {
            println!("{} {}.onnx {}: {outcome}: {detail}", v.test, v.number, v.name);
        }
        return;
    }
    let outcomes: Vec<String> = results.into_iter().map(|(outcome, _)| outcome).collect();
    let found = table(&version, &variants, &outcomes);
    let is_part = std::env::var_os("PLANS").is_some();
    let sample = plans::sample(&folder, &variants, &outcomes);
    let planned: Vec<plans::Found> =
        sample.par_iter().map(|&number| plans::plan(&folder, &variants, number)).collect();
    plans::print(&variants, &planned);
    if is_part {
        return;
    }
    fs::remove_dir_all(&folder).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = root.join("tests/conformance/outcomes.tsv");
    let golden_plans = root.join("tests/conformance/plans.tsv");
    let page = root.join("../docs/operators.md");
    let text = fs::read_to_string(&page).unwrap();
    let documented = with_operators(&text, &operators(&variants, &outcomes));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(golden, found).unwrap();
        fs::write(golden_plans, plans::table(&version, &variants, &planned)).unwrap();
        fs::write(page, documented).unwrap();
        return;
    }
    let expected = fs::read_to_string(golden).unwrap();
    if found.lines().next() != expected.lines().next() {
        eprintln!(
            "SKIPPED: the table is of {}, this is {version}",
            expected.lines().next().unwrap()
        );
        return;
    }
    let [before, now]: [BTreeSet<&str>; 2] = [&expected, &found].map(|t| t.lines().collect());
    let changed: Vec<String> = before
        .difference(&now)
        .map(|line| format!("- {line}"))
        .chain(now.difference(&before).map(|line| format!("+ {line}")))
        .collect();
    assert!(
        changed.is_empty(),
        "outcomes changed; if for the better, run this with UPDATE_EXPECT=1:\n{}",
        changed.join("\n")
    );
    assert!(!found.contains("wrong:"), "no outcome is wrong, whatever the table says");
    assert_eq!(text, documented, "docs/operators.md; run this with UPDATE_EXPECT=1");
    plans::check(&fs::read_to_string(golden_plans).unwrap(), &variants, &planned);
}
