//! What outputs mean: both programs say the same of classes, scores, numbers and maps, and what cannot be
//! known is not said.

use ir::Tensor;
use ir::array_file::write_npy;
use ir::plan::{Plan, Task};
use ir::tensor::Shape;
use serde_json::Value;
use std::fs;
use support::onnx::{Attribute, Model};
use support::{Folder, Numbers, npy, polyc, polyrt, run, stderr, stdout};

/// How the hidden layer becomes the output.
#[derive(Clone, Copy)]
enum Head {
    Logit,
    Sigmoid,
    /// Rows of features become rows of scores.
    Sequence,
    /// Rows of features become a score each.
    Places,
    /// Images become maps of scores, with a softmax over the channels.
    Map,
}

const FEATURES: usize = 6;
const ROWS: usize = 4;

impl Head {
    fn input(self, inputs: usize) -> Vec<usize> {
        match self {
            Self::Logit | Self::Sigmoid => vec![inputs, FEATURES],
            Self::Sequence | Self::Places => vec![inputs, ROWS, FEATURES],
            Self::Map => vec![inputs, 1, 6, 6],
        }
    }

    fn model(self) -> Vec<u8> {
        let mut numbers = Numbers(5);
        let transposed = [("transB", Attribute::Int(1))];
        let padded = [("pads", Attribute::Ints(&[1, 1, 1, 1]))];
        let input: Vec<i64> = self.input(1).iter().map(|&d| d as i64).collect();
        let model = Model::new(&input);
        let mut weights = |model: Model, name: &str, dims: &[i64]| {
            let fan_in: i64 = dims[1..].iter().product();
            let count = dims.iter().product::<i64>() as usize;
            model.weights(name, dims, &numbers.reals(count, 1.7 / (fan_in as f32).sqrt()))
        };
        match self {
            Self::Logit | Self::Sigmoid => {
                let model = weights(model, "w1", &[16, FEATURES as i64]);
                let model = weights(model, "w2", &[1, 16])
                    .node("Gemm", "first", &["x", "w1"], &transposed)
                    .node("Relu", "relu", &["first"], &[])
                    .node("Gemm", "score", &["relu", "w2"], &transposed);
                match self {
                    Self::Sigmoid => model
                        .node("Sigmoid", "probability", &["score"], &[])
                        .to_bytes("probability", &[1, 1]),
                    _ => model.to_bytes("score", &[1, 1]),
                }
            }
            Self::Sequence | Self::Places => {
                let scores = if matches!(self, Self::Places) { 1 } else { 5 };
                let model = weights(model, "w1", &[FEATURES as i64, 16]);
                weights(model, "w2", &[16, scores])
                    .node("MatMul", "first", &["x", "w1"], &[])
                    .node("Relu", "relu", &["first"], &[])
                    .node("MatMul", "scores", &["relu", "w2"], &[])
                    .to_bytes("scores", &[1, ROWS as i64, scores])
            }
            Self::Map => {
                let model = weights(model, "w1", &[8, 1, 3, 3]);
                weights(model, "w2", &[3, 8, 3, 3])
                    .node("Conv", "first", &["x", "w1"], &padded)
                    .node("Relu", "relu", &["first"], &[])
                    .node("Conv", "scores", &["relu", "w2"], &padded)
                    .node("Softmax", "map", &["scores"], &[("axis", Attribute::Int(1))])
                    .to_bytes("map", &[1, 3, 6, 6])
            }
        }
    }
}

/// A folder with a model and inputs `x.npy`.
fn folder(head: Head, inputs: usize) -> Folder {
    let folder = Folder::new();
    fs::write(folder.file("model.onnx"), head.model()).unwrap();
    let shape = Shape::new(head.input(inputs));
    let data = Numbers(9).reals(shape.elements(), 1.0);
    fs::write(folder.file("x.npy"), write_npy(&Tensor::new(shape, data))).unwrap();
    folder
}

fn labels(folder: &Folder, dims: &[usize], label: impl Fn(usize) -> f32) {
    let shape = Shape::new(dims);
    let data = (0..shape.elements()).map(label).collect();
    fs::write(folder.file("y.npy"), write_npy(&Tensor::new(shape, data))).unwrap();
}

fn compile(folder: &Folder, options: &str) -> (String, String) {
    let mut command = polyc(folder);
    command.args(["compile", "model.onnx", "--force"]);
    let output = run(command.args(options.split(' ').filter(|o| !o.is_empty())));
    assert!(output.status.success(), "{}", stderr(&output));
    (stdout(&output), stderr(&output))
}

fn json(command: &mut std::process::Command) -> Value {
    let output = run(command);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn evaluate(folder: &Folder, options: &str) -> Value {
    let mut command = polyc(folder);
    command.args(["evaluate", "plan.bin", "--inputs", "x.npy", "--json"]);
    json(command.args(options.split(' ').filter(|o| !o.is_empty())))
}

/// What party 1 prints, as JSON and as text, and what it writes.
fn local(folder: &Folder) -> (Value, String, Tensor<f32>) {
    let command = || {
        let mut command = polyrt(folder);
        command.args(["local", "plan.bin", "--input", "x.npy", "--dealer", "--output", "out.npy"]);
        command
    };
    let text = stdout(&run(&mut command()));
    (json(command().arg("--json")), text, npy(&folder.file("out.npy")))
}

fn task(folder: &Folder) -> Task {
    Plan::from_bytes(&fs::read(folder.file("plan.bin")).unwrap()).unwrap().0.outputs[0].task
}

#[test]
fn a_score_is_judged_at_its_threshold() {
    for (head, is_probability) in [(Head::Sigmoid, true), (Head::Logit, false)] {
        let folder = folder(head, 60);
        labels(&folder, &[60], |i| (i % 2) as f32);
        let (text, _) = compile(&folder, "--calibrate x.npy --labels y.npy");
        assert_eq!(task(&folder), Task::Binary { is_probability });
        let at = if is_probability { "probability above 0.5" } else { "logit above 0" };
        assert!(text.contains(&format!("task: binary ({at})")), "{text}");
        let evaluation = evaluate(&folder, "");
        let (result, text, scores) = local(&folder);
        assert_eq!(
            (&evaluation["task"], &result["results"][0]["task"]),
            (&"binary".into(), &"binary".into())
        );
        let (threshold, bound) = if is_probability { (0.5, 0.02) } else { (0.0, 0.1) };
        let mut of_both_classes = [0; 2];
        for (i, &score) in scores.data.iter().enumerate() {
            let class = result["results"][i]["class"].as_u64().unwrap() as usize;
            of_both_classes[class] += 1;
            let name = if is_probability { "probability" } else { "logit" };
            assert!(result["results"][i][name].is_number(), "{result}");
            if (score - threshold).abs() > bound {
                assert_eq!(class, usize::from(score > threshold), "{i}: {score}");
                assert_eq!(evaluation["classes"][i]["plan"], class, "{i}: {score}");
                assert_eq!(evaluation["classes"][i]["float"], class, "{i}: {score}");
            }
            if i < 20 {
                let line = text.lines().find(|l| l.starts_with(&format!("input {i}: {name} ")));
                assert!(line.is_some_and(|l| l.contains("→ class ")), "{text}");
            }
        }
        assert!(of_both_classes.iter().all(|&n| n > 0), "{of_both_classes:?}");
        assert!(evaluation["agreement"]["plan"].as_f64().unwrap() > 0.9, "{evaluation}");
    }
}

#[test]
fn numbers_are_judged_by_their_error() {
    let folder = folder(Head::Logit, 100);
    let (_, notes) = compile(&folder, "--calibrate x.npy");
    assert!(notes.contains("taken for a number; --task binary"), "{notes}");
    assert_eq!(task(&folder), Task::Regress);
    let evaluation = evaluate(&folder, "");
    assert!(evaluation["agreement"].is_null() && evaluation["accuracy"].is_null());
    let relative = evaluation["relative_error"]["plan"].as_f64().unwrap();
    assert!(relative > 0.0 && relative < 0.1, "{evaluation}");
    assert_eq!(evaluation["loss"], evaluation["relative_error"]["plan"]);
    let (result, text, values) = local(&folder);
    assert!(text.contains("input 0: value ") && !text.contains("class"), "{text}");
    // Labels that are the outputs but for a tenth: the error is known.
    labels(&folder, &[100, 1], |i| values.data[i] + if i % 2 == 0 { 0.1 } else { -0.1 });
    let evaluation = evaluate(&folder, "--labels y.npy");
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() < 0.2 * expected, "{value}: {evaluation}");
    };
    near(&evaluation["error"]["rmse"]["plan"], 0.1);
    near(&evaluation["error"]["largest"]["plan"], 0.12);
    assert!(evaluation["error"]["r2"]["plan"].as_f64().unwrap() > 0.9, "{evaluation}");
    assert!(result["results"][0]["values"][0].is_number(), "{result}");
    // Classes make the same output a score.
    labels(&folder, &[100], |i| f32::from(values.data[i] > 0.0));
    let evaluation = evaluate(&folder, "--labels y.npy");
    assert_eq!(evaluation["task"], "binary");
    assert!(evaluation["accuracy"]["plan"].as_f64().unwrap() > 0.95, "{evaluation}");
}

#[test]
fn sequences_and_maps_have_a_class_per_position() {
    for (head, dims, axis) in [(Head::Sequence, vec![ROWS], 2), (Head::Map, vec![6, 6], 1)] {
        let folder = folder(head, 40);
        let dims = [vec![40], dims].concat();
        labels(&folder, &dims, |i| (i % 3) as f32);
        compile(&folder, "--calibrate x.npy --labels y.npy");
        assert_eq!(task(&folder), Task::Classify { axis });
        let evaluation = evaluate(&folder, "--labels y.npy");
        let positions: usize = dims[1..].iter().product();
        assert_eq!(
            (&evaluation["positions"], &evaluation["class_axis"]),
            (&positions.into(), &axis.into())
        );
        assert!(evaluation["agreement"]["plan"].as_f64().unwrap() > 0.85, "{evaluation}");
        let (result, text, outputs) = local(&folder);
        assert!(text.contains("input 0: classes "), "{text}");
        let classes: Vec<usize> = (0..40)
            .flat_map(|i| result["results"][i]["classes"].as_array().unwrap().clone())
            .map(|class| class.as_u64().unwrap() as usize)
            .collect();
        assert_eq!(classes, Task::Classify { axis }.classes(&outputs));
        // What was answered is right: both programs have the same classes, but for near ties.
        labels(&folder, &dims, |i| classes[i] as f32);
        let evaluation = evaluate(&folder, "--labels y.npy");
        assert!(evaluation["accuracy"]["plan"].as_f64().unwrap() > 0.97, "{evaluation}");
    }
    // Without labels a sequence may be one of numbers.
    let folder = folder(Head::Sequence, 40);
    let (text, notes) = compile(&folder, "--calibrate x.npy");
    assert!(text.contains("of its spread") && notes.contains("--task classify"), "{text}{notes}");
    assert!(local(&folder).1.contains("numbers of shape [1, 4, 5]"));
}

#[test]
fn a_score_per_place_is_no_class_of_places() {
    let folder = folder(Head::Places, 40);
    let (_, notes) = compile(&folder, "--calibrate x.npy");
    assert!(notes.contains("a score for every place of the input"), "{notes}");
    assert_eq!(task(&folder), Task::Regress);
    compile(&folder, "--calibrate x.npy --task classify");
    assert_eq!(task(&folder), Task::Classify { axis: 1 });
    labels(&folder, &[40, ROWS], |i| (i % 2) as f32);
    compile(&folder, "--calibrate x.npy --labels y.npy");
    assert_eq!(task(&folder), Task::Binary { is_probability: false });
}

#[test]
fn held_out_is_held_out_or_is_not_said_to_be() {
    for (count, out) in [(2, 0), (4, 0), (5, 1), (12, 2), (49, 9), (60, 12)] {
        let folder = folder(Head::Logit, count);
        let (text, _) = compile(&folder, "--calibrate x.npy --task binary");
        if out == 0 {
            assert!(text.contains("nothing held out: the same inputs"), "{text}");
            assert!(text.contains(&format!("{count} inputs ")), "{text}");
        } else {
            let fitted = format!("fitted on {} inputs of x.npy; held out", count - out);
            assert!(text.contains(&fitted), "{text}");
            let measured = if out == 1 { "1 input ".into() } else { format!("{out} inputs ") };
            assert!(text.lines().any(|l| l.starts_with(&measured)), "{text}");
        }
    }
}

#[test]
fn inputs_that_tell_nothing_are_warned_about_and_made_up_ones_promise_nothing() {
    let folder = folder(Head::Logit, 1);
    assert!(compile(&folder, "--calibrate x.npy").1.contains("WARNING: x.npy holds one input"));
    for (value, found) in [(0.0, "nothing but zeros"), (0.5, "the number 0.5 everywhere")] {
        let constant = Tensor::full(Shape::new([9, FEATURES]), value);
        fs::write(folder.file("x.npy"), write_npy(&constant)).unwrap();
        let (_, notes) = compile(&folder, "--calibrate x.npy");
        assert!(notes.contains(&format!("WARNING: x.npy holds {found}")), "{notes}");
    }
    let (text, _) = compile(&folder, "--calibrate synthetic");
    assert!(text.contains("tell nothing of accuracy") && !text.contains('%'), "{text}");
}

/// Twelve inputs are enough to see that one harmonic is too few for a percent, and nothing was said.
#[test]
fn plans_are_refused_on_few_inputs_too() {
    for (options, is_written) in [("--max-loss 0.1", false), ("--max-loss 100", true)] {
        let folder = folder(Head::Logit, 12);
        let mut command = polyc(&folder);
        command.args(["compile", "model.onnx", "--calibrate", "x.npy", "--harmonics", "1"]);
        let output = run(command.args(options.split(' ')));
        let why = stderr(&output);
        assert_eq!(output.status.success(), is_written, "{why}");
        assert_eq!(folder.file("plan.bin").exists(), is_written);
        assert_eq!(why.contains("of the outputs' spread"), !is_written, "{why}");
        assert_eq!(why.contains("on 2 inputs, more than 0.1"), !is_written, "{why}");
    }
}
