//! Several inputs and outputs, open sizes, and preprocessing that travels: from the file to the answer.

use ir::array_file::{read_npz, write_npz};
use ir::{Shape, Tensor};
use std::fs;
use std::fs::File;
use std::path::Path;
use support::onnx::Model;
use support::{Folder, Numbers, polyc, polyrt, run, stderr, stdout};

const ROWS: usize = 120;

fn archive(path: &Path, arrays: &[(&str, &Tensor<f32>)]) {
    let arrays: Vec<(&str, Tensor<f32>)> = arrays.iter().map(|&(n, t)| (n, t.clone())).collect();
    fs::write(path, write_npz(&arrays)).unwrap();
}

#[test]
fn two_inputs_of_other_sizes_and_several_outputs_by_name() {
    let folder = Folder::new();
    let mut numbers = Numbers(3);
    let w = numbers.reals(12, 0.5);
    let bytes = Model::new(&[])
        .weights("w", &[4, 3], &w)
        .weights("c", &[], &[0.01])
        .node("MatMul", "raw", &["a", "w"], &[])
        .node("Mul", "small", &["b", "c"], &[])
        .node("Add", "both", &["raw", "small"], &[])
        .node("Relu", "sum", &["both"], &[])
        .to_bytes_of(
            &[("a", &[0, 4]), ("b", &[0, 3])],
            &[("sum", &[0, 3]), ("raw", &[0, 3]), ("small", &[0, 3])],
        );
    fs::write(folder.file("model.onnx"), bytes).unwrap();
    let a = Tensor::new(Shape::new([ROWS, 4]), numbers.reals(ROWS * 4, 1.0));
    let b = Tensor::new(Shape::new([ROWS, 3]), numbers.reals(ROWS * 3, 100.0));
    archive(&folder.file("both.npz"), &[("a", &a), ("b", &b)]);
    let compiled = run(polyc(&folder).args(["compile", "model.onnx", "--calibrate", "both.npz"]));
    assert!(compiled.status.success(), "{}", stderr(&compiled));
    let part = |t: &Tensor<f32>, width: usize| {
        Tensor::new(Shape::new([2, width]), t.data[..2 * width].to_vec())
    };
    let (a, b) = (part(&a, 4), part(&b, 3));
    archive(&folder.file("a.npz"), &[("a", &a)]);
    archive(&folder.file("b.npz"), &[("b", &b)]);
    let mut command = polyrt(&folder);
    command.args(["local", "plan.bin", "--input", "a=a.npz", "--input", "b=b.npz"]);
    let ran = run(command.args(["--output", "y.npz"]));
    assert!(ran.status.success(), "{}", stderr(&ran));
    let printed = stdout(&ran);
    assert!(["sum", "raw", "small"].iter().all(|name| printed.contains(name)), "{printed}");
    let output = |name: &str| {
        read_npz(File::open(folder.file("y.npz")).unwrap(), Some(name)).unwrap().tensor
    };
    let raw: Vec<f32> = a
        .data
        .chunks_exact(4)
        .flat_map(|row| {
            let w = &w;
            (0..3).map(move |o| (0..4).map(|i| row[i] * w[i * 3 + o]).sum::<f32>())
        })
        .collect();
    let small: Vec<f32> = b.data.iter().map(|v| v * 0.01).collect();
    let sum: Vec<f32> = raw.iter().zip(&small).map(|(a, b)| (a + b).max(0.0)).collect();
    for (name, want) in [("sum", sum), ("raw", raw), ("small", small)] {
        let got = output(name);
        assert_eq!(got.shape, Shape::new([2, 3]), "{name}");
        for (g, w) in got.data.iter().zip(&want) {
            assert!((g - w).abs() < 0.1, "{name}: {g} instead of {w}");
        }
    }
    let mut command = polyrt(&folder);
    let refused = run(command.args(["local", "plan.bin", "--input", "a=a.npz"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("input b has no file"), "{}", stderr(&refused));
    let mut command = polyrt(&folder);
    command.args(["local", "plan.bin", "--input", "both.npz", "--output", "y.npy"]);
    assert!(stderr(&run(&mut command)).contains("give a name that ends in .npz"));
}

#[test]
fn an_open_size_is_set_by_name() {
    let folder = Folder::new();
    let model = Model::new(&[]).node("Relu", "y", &["x"], &[]);
    let bytes = model.to_bytes_of(&[("x", &[1, 0])], &[("y", &[1, 0])]);
    fs::write(folder.file("model.onnx"), bytes).unwrap();
    let refused = run(polyc(&folder).args(["compile", "model.onnx"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("size (axis 1 of input x); set each by --dim NAME=N"));
    let compiled = run(polyc(&folder).args(["compile", "model.onnx", "--dim", "size=5"]));
    assert!(compiled.status.success(), "{}", stderr(&compiled));
}

#[test]
fn class_names_travel_and_the_files_name_does_not() {
    let folder = Folder::new();
    let weights = Numbers(4).reals(12, 0.5);
    let bytes = Model::new(&[1, 4])
        .weights("w", &[4, 3], &weights)
        .node("MatMul", "y", &["x", "w"], &[])
        .to_bytes("y", &[1, 3]);
    fs::write(folder.file("model.onnx"), &bytes).unwrap();
    fs::write(folder.file("other.onnx"), &bytes).unwrap();
    fs::write(folder.file("names.txt"), "cat\ndog\nfish\n").unwrap();
    let x = Tensor::new(Shape::new([ROWS, 4]), Numbers(5).reals(ROWS * 4, 1.0));
    archive(&folder.file("x.npz"), &[("x", &x)]);
    let compile = |model: &str, names: &str| {
        let mut command = polyc(&folder);
        command.args(["compile", model, "--calibrate", "x.npz", "--task", "classify"]);
        run(command.args(["--labels-file", names]))
    };
    let mut plans = Vec::new();
    for model in ["model.onnx", "other.onnx"] {
        let compiled = compile(model, "names.txt");
        assert!(compiled.status.success(), "{}", stderr(&compiled));
        plans.push(fs::read(folder.file("plan.bin")).unwrap());
    }
    assert_eq!(plans[0], plans[1], "the name of the file is no part of the plan");
    let ran = run(polyrt(&folder).args(["local", "plan.bin", "--input", "x.npz"]));
    let is_named = |line: &str| ["cat", "dog", "fish"].iter().any(|name| line.contains(name));
    assert!(stdout(&ran).lines().next().is_some_and(is_named), "{}", stdout(&ran));
    fs::write(folder.file("two.txt"), "cat\ndog\n").unwrap();
    let refused = compile("model.onnx", "two.txt");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("two.txt: 2 names, output y has 3 classes"));
}

#[test]
fn preprocessing_travels_in_the_plan() {
    let folder = Folder::new();
    let weights = Numbers(4).reals(12, 0.5);
    let bytes = Model::new(&[1, 4])
        .weights("w", &[4, 3], &weights)
        .node("MatMul", "y", &["x", "w"], &[])
        .to_bytes("y", &[1, 3]);
    fs::write(folder.file("model.onnx"), bytes).unwrap();
    let x = Tensor::new(Shape::new([ROWS, 4]), Numbers(5).reals(ROWS * 4, 1.0));
    archive(&folder.file("x.npz"), &[("x", &x)]);
    let mut command = polyc(&folder);
    command.args([
        "compile",
        "model.onnx",
        "--calibrate",
        "x.npz",
        "--mean",
        "0.25",
        "--std",
        "0.5",
    ]);
    let compiled = run(&mut command);
    assert!(compiled.status.success(), "{}", stderr(&compiled));
    let local = |options: &[&str]| {
        let mut command = polyrt(&folder);
        run(command.args(["local", "plan.bin", "--input", "x.npz", "--json"]).args(options))
    };
    let planned = local(&[]);
    let note = "preprocessed as the plan says: mean 0.25, std 0.5";
    assert!(stderr(&planned).contains(note), "{}", stderr(&planned));
    let given = local(&["--mean", "0.25", "--std", "0.5"]);
    assert!(!stderr(&given).contains("not as the plan does"), "{}", stderr(&given));
    let other = local(&["--mean", "0.5"]);
    assert!(stderr(&other).contains("not as the plan does (mean 0.25, std 0.5)"));
    let layout = local(&["--layout", "auto"]);
    let note = stderr(&layout);
    assert!(
        !note.contains("not as the plan does"),
        "what options leave open is the plan's: {note}"
    );
}
