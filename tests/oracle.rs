//! Every import is judged by somebody else: tract, in a process of its own, or the user's outputs.

use ir::array_file::write_npy;
use ir::{Shape, Tensor};
use polyc::onnx::{ImportOptions, Imported, import_file};
use polyc::oracle::{Agreement, Oracle, compare};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::onnx::{Attribute, Model, perceptron};
use support::{Folder, Numbers, polyc, run, stderr, stdout};

const INPUTS: usize = 6;
const ROWS: usize = 40;

/// A model, its calibration inputs and its outputs for them.
fn files(folder: &Folder) -> Tensor<f32> {
    let mut numbers = Numbers(1);
    let (first, second) = (numbers.reals(5 * INPUTS, 0.5), numbers.reals(15, 0.5));
    let biases = (numbers.reals(5, 0.2), numbers.reals(3, 0.2));
    let model = perceptron([INPUTS, 5, 3], (&first, &biases.0), (&second, &biases.1));
    fs::write(folder.file("model.onnx"), model).unwrap();
    let x = Tensor::new(Shape::new([ROWS, INPUTS]), numbers.reals(ROWS * INPUTS, 1.0));
    fs::write(folder.file("x.npy"), write_npy(&x)).unwrap();
    let layer = |x: &[f32], weights: &[f32], bias: &[f32]| -> Vec<f32> {
        let rows = weights.chunks_exact(x.len()).zip(bias);
        rows.map(|(row, b)| row.iter().zip(x).map(|(w, v)| w * v).sum::<f32>() + b).collect()
    };
    let output = |x: &[f32]| {
        let hidden: Vec<f32> =
            layer(x, &first, &biases.0).into_iter().map(|v| v.max(0.0)).collect();
        layer(&hidden, &second, &biases.1)
    };
    Tensor::new(Shape::new([ROWS, 3]), x.data.chunks_exact(INPUTS).flat_map(output).collect())
}

#[test]
fn the_table_says_who_checked_the_import() {
    let folder = Folder::new();
    let mut y = files(&folder);
    let compile = |options: &[&str]| {
        let mut command = polyc(&folder);
        command.args(["compile", "model.onnx", "--calibrate", "x.npy", "--force"]);
        run(command.args(options))
    };
    let by_tract = compile(&[]);
    assert!(by_tract.status.success(), "{}", stderr(&by_tract));
    assert!(stdout(&by_tract).contains("import checked against tract on 4 inputs"));
    fs::write(folder.file("y.npy"), write_npy(&y)).unwrap();
    let by_user = compile(&["--expect", "y.npy"]);
    let line = format!("import checked against --expect on {ROWS} inputs");
    assert!(stdout(&by_user).contains(&line), "{}", stdout(&by_user));
    y.data[7] += 0.1;
    fs::write(folder.file("y.npy"), write_npy(&y)).unwrap();
    fs::remove_file(folder.file("plan.bin")).unwrap();
    let refused = compile(&["--expect", "y.npy"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("the import disagrees with the outputs of --expect"));
    assert!(!folder.file("plan.bin").exists(), "nothing is written");
    y.data.truncate(4);
    y.shape = Shape::new([4]);
    fs::write(folder.file("y.npy"), write_npy(&y)).unwrap();
    let other = compile(&["--expect", "y.npy"]);
    assert!(stderr(&other).contains("are not those of the first calibration inputs"));
}

fn program() -> PathBuf {
    polyc(&Folder::new()).get_program().into()
}

fn judged(imported: &Imported, model: &Path, memory: u64, time: Duration) -> Agreement {
    let options = ImportOptions::default();
    let oracle = Oracle { program: program(), model: model.to_owned(), options, memory, time };
    let mut numbers = Numbers(2);
    let elements = imported.input_shape().elements();
    let input = |_| Tensor::new(imported.input_shape().clone(), numbers.reals(elements, 1.0));
    let parts = vec![(0..5).map(input).collect()];
    compare(imported, &parts, &oracle, 4).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn an_oracle_that_dies_or_dawdles_is_no_oracle() {
    let folder = Folder::new();
    files(&folder);
    let model = folder.file("model.onnx");
    let imported = import_file(&model, &ImportOptions::default()).unwrap();
    let (plenty, minute) = (1 << 32, Duration::from_secs(60));
    let checked = judged(&imported, &model, plenty, minute);
    assert!(matches!(checked, Agreement::Checked { by: "tract", inputs: 4, .. }), "{checked}");
    for (memory, time) in [(1 << 20, minute), (plenty, Duration::ZERO)] {
        let unchecked = judged(&imported, &model, memory, time);
        assert!(matches!(unchecked, Agreement::Unchecked { .. }), "{unchecked}");
        assert!(unchecked.to_string().contains("NOTHING HAS CHECKED THE IMPORT"));
    }
    let gone = judged(&imported, &folder.file("gone.onnx"), plenty, minute);
    assert!(matches!(gone, Agreement::Unchecked { .. }), "{gone}");
}

#[test]
fn a_disagreement_names_the_first_node() {
    let folder = Folder::new();
    let path = folder.file("model.onnx");
    let turned = |twice: bool| {
        let model = Model::new(&[1, 4]).node("Neg", "first", &["x"], &[]);
        let model = match twice {
            true => model.node("Neg", "second", &["first"], &[]),
            false => model.node("Relu", "second", &["first"], &[]),
        };
        let axis = [("axis", Attribute::Int(1))];
        model.node("Softmax", "last", &["second"], &axis).to_bytes("last", &[1, 4])
    };
    // The file changes behind the import: what is imported is not what it says.
    fs::write(&path, turned(true)).unwrap();
    let imported = import_file(&path, &ImportOptions::default()).unwrap();
    fs::write(&path, turned(false)).unwrap();
    let options = ImportOptions::default();
    let (memory, time) = (1 << 32, Duration::from_secs(60));
    let oracle = Oracle { program: program(), model: path, options, memory, time };
    let input = Tensor::new(Shape::new([1, 4]), vec![1.0, -2.0, 0.5, 3.0]);
    let error = compare(&imported, &[vec![input]], &oracle, 4).unwrap_err().to_string();
    assert!(error.contains("the first node whose value differs is second (Neg)"), "{error}");
}
