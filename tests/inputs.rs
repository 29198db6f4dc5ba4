//! Inputs in every form that both programs read mean the same to both.

use serde_json::Value;
use std::fs;
use std::path::Path;
use support::{
    Folder, Written, array, bytes_npy, compiled, grey_png, npy, polyc, polyrt, run, shipped, stderr,
};

/// The options that make reals of the digits' bytes, which go up to 16.
const DIGITS: [&str; 3] = ["--raw", "--std", "16"];
/// Images that are taken.
const COUNT: usize = 60;

/// The bytes and classes of the first digits of `digits_train.npz`.
fn digits() -> (Vec<Vec<u8>>, Vec<usize>) {
    let train = shipped("digits_train.npz");
    let pixels = |row: &[f32]| row.iter().map(|v| (v * 16.0).round() as u8).collect();
    let images = array(&train, "x").data.chunks_exact(64).take(COUNT).map(pixels).collect();
    let labels = array(&train, "y").data.iter().take(COUNT).map(|&y| y as usize).collect();
    (images, labels)
}

fn json(command: &mut std::process::Command) -> Value {
    let output = run(command);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `polyc evaluate` says of inputs.
fn evaluate(owner: &Written, inputs: &Path, options: &[&str]) -> Value {
    let mut command = polyc(&owner.folder);
    command.args(["evaluate", "plan.bin", "--json", "--logits"]).args(options);
    json(command.arg("--inputs").arg(inputs))
}

#[test]
fn a_folder_of_images_is_a_labelled_array() {
    let owner = compiled("digits_cnn");
    let (images, labels) = digits();
    let folder = Folder::new();
    // Sorted by class, as the folder is read.
    let mut order: Vec<usize> = (0..COUNT).collect();
    order.sort_by_key(|&i| (labels[i], i));
    for &i in &order {
        let class = folder.file(&format!("digit {}/of the train set", labels[i]));
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join(format!("{i:03}.PNG")), grey_png(8, 8, &images[i])).unwrap();
    }
    let elements: Vec<u8> = order.iter().flat_map(|&i| images[i].iter().copied()).collect();
    let file = owner.folder.file("digits.npy");
    fs::write(&file, bytes_npy(&[COUNT, 8, 8], &elements)).unwrap();
    let of_folder = evaluate(&owner, folder.path(), &DIGITS);
    let of_array = evaluate(&owner, &file, &DIGITS);
    assert_eq!(of_folder["logits"], of_array["logits"]);
    assert_eq!(of_folder["logits"].as_array().unwrap().len(), COUNT);
    assert!(of_array["accuracy"].is_null());
    assert!(of_folder["accuracy"]["float"].as_f64().unwrap() > 0.95, "{}", of_folder["accuracy"]);
    assert!(of_folder["accuracy"]["plan"].as_f64().unwrap() > 0.95);
    // Ten of a folder are ten classes, and a plan can be fitted on it.
    let ten = evaluate(&owner, folder.path(), &[&DIGITS[..], &["--count", "10"]].concat());
    let float: Vec<u64> =
        ten["classes"].as_array().unwrap().iter().map(|c| c["float"].as_u64().unwrap()).collect();
    assert!((0..10).filter(|c| float.contains(c)).count() >= 8, "{float:?}");
    let mut command = polyc(&owner.folder);
    command.arg("compile").arg(shipped("digits_cnn.onnx")).args(["-o", "other.bin", "--json"]);
    let compiled = json(
        command.args(DIGITS).args(["--activation", "phase", "--calibrate"]).arg(folder.path()),
    );
    assert_eq!(compiled["evaluation"]["inputs"], COUNT / 5);
    let steps = compiled["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &compiled["round_trips"]), (owner.plan.steps.len(), &4.into()));
    assert!(steps.iter().any(|step| step["operator"] == "phase"), "{steps:?}");
    assert!(compiled["evaluation"]["accuracy"]["plan"].as_f64().unwrap() > 0.8);
}

#[test]
fn a_client_sends_what_the_evaluator_evaluates() {
    let owner = compiled("digits_cnn");
    let (images, _) = digits();
    let pixels = &images[0];
    let file = |name: &str| owner.folder.file(name);
    fs::write(file("flat.npy"), bytes_npy(&[1, 64], pixels)).unwrap();
    fs::write(file("bare.npy"), bytes_npy(&[8, 8], pixels)).unwrap();
    fs::write(file("last.npy"), bytes_npy(&[1, 8, 8, 1], pixels)).unwrap();
    fs::write(file("image.png"), grey_png(8, 8, pixels)).unwrap();
    let bright: Vec<u8> = pixels.iter().map(|p| (f32::from(*p) * 255.0 / 16.0) as u8).collect();
    fs::write(file("bright.npy"), bytes_npy(&[1, 1, 8, 8], &bright)).unwrap();
    let expected = evaluate(&owner, &file("flat.npy"), &DIGITS);
    let bound = expected["carry_bound"].as_f64().unwrap();
    let logits = |evaluation: &Value| -> Vec<f64> {
        serde_json::from_value(evaluation["logits"][0].clone()).unwrap()
    };
    for (name, options) in [
        ("flat.npy", &DIGITS[..]),
        ("bare.npy", &DIGITS[..]),
        ("last.npy", &DIGITS[..]),
        ("image.png", &DIGITS[..]),
        ("bright.npy", &[]),
    ] {
        let of_evaluator = evaluate(&owner, &file(name), options);
        if name != "bright.npy" {
            assert_eq!(of_evaluator["logits"], expected["logits"], "{name}");
        }
        let mut command = polyrt(&owner.folder);
        command.args(["local", "plan.bin", "--output", "y.npy", "--input", name]).args(options);
        let output = run(&mut command);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{name}");
        let of_client = npy(&file("y.npy"));
        for (a, b) in of_client.data.iter().zip(logits(&of_evaluator)) {
            assert!((f64::from(*a) - b).abs() <= bound, "{name}: {a} for {b} ± {bound}");
        }
    }
}

#[test]
fn images_of_another_size_are_resized_with_a_note() {
    let owner = compiled("digits_cnn");
    let (images, _) = digits();
    let wide: Vec<u8> = images[0]
        .chunks_exact(8)
        .flat_map(|row| [vec![0; 4], row.to_vec(), vec![0; 4]].concat())
        .collect();
    fs::write(owner.folder.file("wide.png"), grey_png(16, 8, &wide)).unwrap();
    fs::write(owner.folder.file("image.png"), grey_png(8, 8, &images[0])).unwrap();
    for program in ["polyc", "polyrt"] {
        let mut command = if program == "polyc" {
            let mut command = polyc(&owner.folder);
            command.args(["evaluate", "plan.bin", "--inputs", "wide.png"]);
            command
        } else {
            let mut command = polyrt(&owner.folder);
            command.args(["local", "plan.bin", "--input", "wide.png"]);
            command
        };
        let output = run(command.args(DIGITS));
        let note = "note: wide.png: images of another size than 8x8 are resized by the shorter side and cropped\n";
        assert_eq!((output.status.success(), stderr(&output).as_str()), (true, note), "{program}");
    }
    let wide = evaluate(&owner, &owner.folder.file("wide.png"), &DIGITS);
    let image = evaluate(&owner, &owner.folder.file("image.png"), &DIGITS);
    assert_eq!(wide["logits"], image["logits"], "the crop takes the margins away");
}
