//! The shipped models, from import to plan.

use ir::plan::Plan;
use polyc::fit::{Calibration, Family, Harmonics};
use polyc::onnx::{ImportOptions, import_file};
use polyc::passes::PassOptions;
use polyc::{adapt, complete_squares, ports, prepare_observed};
use std::fmt::Write;
use support::golden::{Sections, all_equal, compare, unused};
use support::{MODELS, array, compiled, rows, shipped};

/// Calibration inputs of the passes that look at some.
const INPUTS: usize = 300;

#[test]
fn the_shipped_models_become_these_graphs_and_plans() {
    all_equal(MODELS.map(|model| {
        let mut sections = Sections::default();
        graphs(model, &mut sections);
        sections.section("plan", &plan_text(&compiled(model).plan));
        compare(&format!("tests/golden/models/{model}.txt"), &sections.finish())
    }));
}

#[test]
fn every_file_is_of_a_shipped_model() {
    let files: Vec<String> = MODELS.iter().map(|model| format!("{model}.txt")).collect();
    assert_eq!(unused("tests/golden/models", &files), [""; 0]);
    let shipped = std::fs::read_dir(shipped("")).unwrap();
    let names = shipped.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let mut onnx: Vec<String> = names.filter(|name| name.ends_with(".onnx")).collect();
    let mut wanted: Vec<String> = MODELS.iter().map(|model| format!("{model}.onnx")).collect();
    onnx.sort();
    wanted.sort();
    assert_eq!(onnx, wanted);
}

fn graphs(model: &str, sections: &mut Sections) {
    let options = PassOptions::default();
    let file = shipped(&format!("{model}.onnx"));
    let imported = import_file(&file, &ImportOptions::default()).unwrap();
    sections.graph("import", &imported.graph);
    let shape = imported.graph.node(imported.graph.input()).shape.clone();
    let mut inputs = rows(&array(&shipped("digits_train.npz"), "x"), &shape);
    inputs.truncate(INPUTS);
    let preprocessing = vec![Default::default(); imported.inputs.len()];
    let input_ports = ports::inputs(&imported.inputs, &preprocessing);
    let mut observe = |pass: &str, graph: &ir::graph::Graph| sections.graph(pass, graph);
    let mut prepared =
        prepare_observed(imported, input_ports, &inputs, &options, &mut observe).unwrap();
    let calibration = Calibration::new(inputs, "digits");
    prepared.open_clips(&calibration, &options).unwrap();
    observe("open clips", &prepared.graph);
    let family = Family::Phase { harmonics: Harmonics::default() };
    adapt(&mut prepared.graph, &calibration, &family.into(), &mut observe);
    complete_squares(&mut prepared.graph, &calibration).unwrap();
    observe("complete squares", &prepared.graph);
}

/// The plan with its ports and what it costs.
fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    for port in &plan.inputs {
        let _ = writeln!(
            text,
            "input {} {} {}, limit {}",
            port.name, port.shape, port.element, port.limit
        );
    }
    let _ = write!(text, "{plan}");
    for port in &plan.outputs {
        let (name, shape, element) = (&port.name, &port.shape, port.element);
        let _ = writeln!(
            text,
            "output {name} {shape} {element}, {}, client {:?}",
            port.task, port.client
        );
    }
    for set in &plan.rlwe {
        let _ = writeln!(text, "encryption {set:?}");
    }
    for batch in [1, 16] {
        let (to0, to1, messages) = plan.traffic(batch);
        let _ = writeln!(
            text,
            "online, {batch}: {to0} bytes to party 0, {to1} to party 1, {messages} messages"
        );
        let (to0, to1, messages) = plan.offline_traffic(batch);
        let _ = writeln!(
            text,
            "offline, {batch}: {to0} bytes to party 0, {to1} to party 1, {messages} messages"
        );
    }
    text
}
