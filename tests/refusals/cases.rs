//! Commands that must be refused, and the files that they meet.

use ir::Tensor;
use ir::array_file::write_npy;
use ir::tensor::Shape;
use std::fs;
use std::path::Path;
use support::doors::{self, SMALL_MODEL, seal};
use support::onnx::{Attribute, Model};
use support::{Numbers, bytes_npy, grey_png};

/// A command that must be refused.
pub struct Case {
    /// Its name, and that of its golden file.
    pub name: &'static str,
    /// What differs from the folder that every case starts with.
    pub prepare: fn(&Path),
    /// The program and its arguments.
    pub command: &'static str,
    /// The exit status.
    pub status: i32,
    /// Lines on stderr.
    pub lines: usize,
}

const fn case(name: &'static str, status: i32, command: &'static str, prepare: fn(&Path)) -> Case {
    Case { name, prepare, command, status, lines: 1 }
}

fn nothing(_: &Path) {}

pub fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.join(name), bytes).unwrap();
}

fn change(folder: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(folder.join(name)).unwrap();
    change(&mut bytes);
    put(folder, name, bytes);
}

pub fn input(folder: &Path, dims: &[usize], value: f32) {
    let shape = Shape::new(dims);
    let mut data = vec![0.25; shape.elements()];
    data[1] = value;
    put(folder, "x.npy", write_npy(&Tensor::new(shape, data)));
}

/// Byte inputs far beyond what the plan was made for, if nobody divides them.
fn bytes_input(folder: &Path) {
    put(folder, "x.npy", bytes_npy(&[1, 5], &[0, 64, 128, 200, 255]));
}

/// A file of one label.
fn label(folder: &Path, label: f32) {
    put(folder, "y.npy", write_npy(&Tensor::new(Shape::new([1]), vec![label])));
}

/// A file of twos in a shape.
fn labels(folder: &Path, dims: &[usize]) {
    let shape = Shape::new(dims);
    let data = vec![2.0; shape.elements()];
    put(folder, "y.npy", write_npy(&Tensor::new(shape, data)));
}

/// A model with a single probability.
fn single_output(folder: &Path) {
    let model = Model::new(&[1, 5])
        .weights("w", &[1, 5], &[0.5, 0.25, -0.5, 1.0, 0.1])
        .node("Gemm", "score", &["x", "w"], &[("transB", Attribute::Int(1))])
        .node("Sigmoid", "probability", &["score"], &[]);
    put(folder, "single.onnx", model.to_bytes("probability", &[1, 1]));
}

/// A model of images, and a folder with one that cannot be read.
fn damaged_image(folder: &Path) {
    let model = Model::new(&[1, 1, 4, 4]).node("Relu", "relu", &["x"], &[]);
    put(folder, "model.onnx", model.to_bytes("relu", &[1, 1, 4, 4]));
    fs::create_dir(folder.join("images")).unwrap();
    let mut image = grey_png(4, 4, &[7; 16]);
    put(folder, "images/1.png", &image);
    image.truncate(50);
    put(folder, "images/2.png", &image);
}

fn several_unsupported() -> Vec<u8> {
    Model::new(&[1, 8])
        .node("TopK", "best", &["x", "x"], &[("axis", Attribute::Int(1))])
        .node("NonZero", "where", &["best"], &[])
        .node("Frobnicate", "strange", &["where"], &[])
        .to_bytes("strange", &[1, 8])
}

pub fn many_unsupported() -> Vec<u8> {
    let mut model = Model::new(&[1, 8]);
    let names: Vec<String> = (0..25).map(|i| format!("strange {i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let operand = if i == 0 { "x" } else { names[i - 1].as_str() };
        model = model.node("Frobnicate", name, &[operand], &[]);
    }
    model.to_bytes(&names[24], &[1, 8])
}

fn max_pools() -> Vec<u8> {
    let window =
        [("kernel_shape", Attribute::Ints(&[2, 2])), ("dilations", Attribute::Ints(&[2, 2]))];
    Model::new(&[1, 2, 8, 8])
        .node("MaxPool", "pool one", &["x"], &window)
        .node("Relu", "relu", &["pool one"], &[])
        .node("MaxPool", "pool two", &["relu"], &window)
        .to_bytes("pool two", &[1, 2, 4, 4])
}

fn random(count: usize) -> Vec<u8> {
    let mut numbers = Numbers(11);
    (0..count).map(|_| numbers.draw() as u8).collect()
}

/// A plan of another model, with its weights.
pub fn another_plan(folder: &Path, name: &str) {
    let compiled = doors::compile_bytes(
        &Model::new(&[1, 5])
            .weights("w", &[2, 5], &[0.5, 0.25, -0.5, 1.0, 0.0, -1.0, 0.3, 0.2, 0.1, 0.0])
            .node("Gemm", "only", &["x", "w"], &[("transB", Attribute::Int(1))])
            .to_bytes("only", &[1, 2]),
    );
    put(folder, &format!("{name}.bin"), compiled.plan.to_bytes().0);
    put(folder, &format!("{name}.weights"), compiled.weights.to_bytes(Some(&compiled.reference)));
}

pub const CASES: &[Case] = &[
    case("onnx_truncated", 2, "polyc compile model.onnx", |f| {
        put(f, "model.onnx", &SMALL_MODEL[..SMALL_MODEL.len() / 2]);
    }),
    case("onnx_empty", 2, "polyc compile model.onnx", |f| put(f, "model.onnx", b"")),
    case("onnx_random", 2, "polyc compile model.onnx", |f| put(f, "model.onnx", random(4000))),
    case("onnx_text", 2, "polyc compile model.onnx", |f| {
        put(f, "model.onnx", b"<html>not found</html>")
    }),
    case("onnx_missing", 2, "polyc compile absent.onnx", nothing),
    case("onnx_folder", 2, "polyc compile plan.correlations", nothing),
    Case {
        lines: 3,
        ..case("onnx_unsupported", 2, "polyc compile model.onnx", |f| {
            put(f, "model.onnx", several_unsupported());
        })
    },
    Case {
        lines: 2,
        ..case("onnx_max_pool", 2, "polyc compile model.onnx --max-pool average", |f| {
            put(f, "model.onnx", max_pools())
        })
    },
    Case {
        lines: 21,
        ..case("onnx_many_unsupported", 2, "polyc compile model.onnx", |f| {
            put(f, "model.onnx", many_unsupported());
        })
    },
    case("onnx_no_such_output", 2, "polyc compile model.onnx --output-name other", nothing),
    case(
        "compile_missing_folder",
        1,
        "polyc compile model.onnx --calibrate synthetic -o no/plan.bin",
        nothing,
    ),
    case(
        "compile_output_is_weights",
        2,
        "polyc compile model.onnx --calibrate synthetic -o new.weights",
        nothing,
    ),
    case(
        "compile_calibration_missing",
        2,
        "polyc compile model.onnx --calibrate absent.npz",
        nothing,
    ),
    case("compile_calibration_shape", 2, "polyc compile model.onnx --calibrate x.npy", |f| {
        input(f, &[3, 7], 0.0);
    }),
    case("compile_calibration_nan", 2, "polyc compile model.onnx --calibrate x.npy", |f| {
        input(f, &[3, 5], f32::NAN);
    }),
    case("compile_calibration_garbage", 2, "polyc compile model.onnx --calibrate x.npy", |f| {
        put(f, "x.npy", random(300));
    }),
    case(
        "compile_mean_count",
        2,
        "polyc compile model.onnx --calibrate synthetic --mean 0.1,0.2",
        nothing,
    ),
    Case {
        lines: 2,
        ..case("compile_count_zero", 2, "polyc compile model.onnx --count 0", nothing)
    },
    case("compile_folder_without_images", 2, "polyc compile model.onnx --calibrate images", |f| {
        fs::create_dir_all(f.join("images/some")).unwrap();
        put(f, "images/some/notes.txt", b"no image");
    }),
    case("compile_image_damaged", 2, "polyc compile model.onnx --calibrate images", damaged_image),
    case("compile_image_for_a_row", 2, "polyc compile model.onnx --calibrate x.png", |f| {
        put(f, "x.png", grey_png(2, 2, &[1, 2, 3, 4]));
    }),
    case(
        "compile_loss_of_squares",
        2,
        "polyc compile model.onnx --activation square --accuracy-loss 1",
        nothing,
    ),
    case("compile_loss_without_data", 2, "polyc compile model.onnx --accuracy-loss 1", nothing),
    case(
        "compile_network_of_phases",
        2,
        "polyc compile model.onnx --activation phase --network lan",
        nothing,
    ),
    Case {
        lines: 2,
        ..case("compile_network_unknown", 2, "polyc compile model.onnx --network moon", nothing)
    },
    case(
        "compile_minimise_auto",
        2,
        "polyc compile model.onnx --activation auto --accuracy-loss 1 --minimise offline",
        nothing,
    ),
    case("compile_minimise_what", 2, "polyc compile model.onnx --minimise offline", nothing),
    case(
        "compile_harmonics_of_squares",
        2,
        "polyc compile model.onnx --activation square --harmonics 2",
        nothing,
    ),
    case(
        "compile_harmonics_of_exact",
        2,
        "polyc compile model.onnx --activation exact --harmonics 2",
        nothing,
    ),
    case(
        "compile_phase_bits_of_quartics",
        2,
        "polyc compile model.onnx --activation quartic --phase-bits 9",
        nothing,
    ),
    case("compile_max_loss_without_data", 2, "polyc compile model.onnx --max-loss 5", nothing),
    case(
        "compile_max_loss_forced",
        2,
        "polyc compile model.onnx --calibrate x.npy --max-loss 5 --force",
        nothing,
    ),
    case(
        "compile_range_with_data",
        2,
        "polyc compile model.onnx --calibrate x.npy --input-range 0,2",
        nothing,
    ),
    case("compile_plan_as_json", 2, "polyc compile model.onnx --print-plan --json", nothing),
    case("compile_labels_without_data", 2, "polyc compile model.onnx --labels y.npy", |f| {
        label(f, 1.0)
    }),
    case(
        "compile_label_fraction",
        2,
        "polyc compile model.onnx --calibrate x.npy --labels y.npy",
        |f| label(f, 1.5),
    ),
    case(
        "compile_label_large",
        2,
        "polyc compile model.onnx --calibrate x.npy --labels y.npy",
        |f| label(f, 3.0),
    ),
    case(
        "compile_labels_few",
        2,
        "polyc compile model.onnx --calibrate x.npy --labels y.npy",
        |f| {
            input(f, &[2, 5], 0.0);
            label(f, 1.0);
        },
    ),
    case(
        "compile_labels_shape",
        2,
        "polyc compile model.onnx --calibrate x.npy --labels y.npy",
        |f| labels(f, &[1, 2, 2]),
    ),
    case(
        "compile_labels_missing",
        2,
        "polyc compile model.onnx --calibrate x.npy --labels absent.npy",
        nothing,
    ),
    case(
        "compile_regress_of_classes",
        2,
        "polyc compile model.onnx --calibrate x.npy --labels y.npy --task regress",
        |f| label(f, 1.0),
    ),
    case(
        "compile_binary_of_three",
        2,
        "polyc compile model.onnx --calibrate x.npy --labels y.npy --task binary",
        |f| labels(f, &[1, 3]),
    ),
    case(
        "compile_one_score_of_classes",
        2,
        "polyc compile single.onnx --task classify",
        single_output,
    ),
    case(
        "compile_sigmoid_of_three_classes",
        2,
        "polyc compile single.onnx --calibrate x.npy --labels y.npy",
        |f| {
            single_output(f);
            label(f, 2.0);
        },
    ),
    case(
        "evaluate_labels_shape",
        2,
        "polyc evaluate plan.bin --inputs x.npy --labels y.npy",
        |f| labels(f, &[1, 2, 2]),
    ),
    case(
        "evaluate_regress_of_classes",
        2,
        "polyc evaluate plan.bin --inputs x.npy --labels y.npy --task regress",
        |f| label(f, 1.0),
    ),
    case("compile_task_what", 2, "polyc compile model.onnx --task rank", nothing),
    case("compile_task_twice", 2, "polyc compile model.onnx --task regress --task binary", nothing),
    case("compile_std_zero", 2, "polyc compile model.onnx --calibrate x.npy --std 0", nothing),
    Case { lines: 2, ..case("report_network", 2, "polyc report plan.bin --network fast", nothing) },
    case("report_flipped_byte", 2, "polyc report plan.bin", |f| {
        change(f, "plan.bin", |b| b[90] ^= 4)
    }),
    case("report_truncated", 2, "polyc report plan.bin", |f| {
        change(f, "plan.bin", |b| b.truncate(120))
    }),
    case("report_trailing", 2, "polyc report plan.bin", |f| change(f, "plan.bin", |b| b.push(7))),
    case("report_version", 2, "polyc report plan.bin", |f| change(f, "plan.bin", |b| b[8] = 9)),
    case("report_weights", 2, "polyc report plan.weights", nothing),
    case("report_empty", 2, "polyc report plan.bin", |f| put(f, "plan.bin", b"")),
    case("report_missing", 2, "polyc report absent.bin", nothing),
    case(
        "evaluate_other_weights",
        2,
        "polyc evaluate plan.bin --inputs x.npy --weights other.weights",
        |f| {
            another_plan(f, "other");
        },
    ),
    case("evaluate_shape", 2, "polyc evaluate plan.bin --inputs x.npy", |f| input(f, &[1, 6], 0.0)),
    case(
        "evaluate_label_fraction",
        2,
        "polyc evaluate plan.bin --inputs x.npy --labels y.npy",
        |f| {
            label(f, 1.5);
        },
    ),
    case(
        "evaluate_label_negative",
        2,
        "polyc evaluate plan.bin --inputs x.npy --labels y.npy",
        |f| {
            label(f, -1.0);
        },
    ),
    case("evaluate_label_large", 2, "polyc evaluate plan.bin --inputs x.npy --labels y.npy", |f| {
        label(f, 3.0);
    }),
    case("evaluate_labels_few", 2, "polyc evaluate plan.bin --inputs x.npy --labels y.npy", |f| {
        input(f, &[2, 5], 0.0);
        label(f, 1.0);
    }),
    case("evaluate_no_inputs", 2, "polyc evaluate plan.bin --inputs x.npy", |f| {
        put(f, "x.npy", write_npy(&Tensor::new(Shape::new([0, 5]), vec![])));
    }),
    case("evaluate_out_of_range", 2, "polyc evaluate plan.bin --inputs x.npy --raw", bytes_input),
    case(
        "party1_shape",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| input(f, &[1, 6], 0.0),
    ),
    case(
        "party1_nan",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| input(f, &[1, 5], f32::NAN),
    ),
    case(
        "party1_infinite",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| {
            input(f, &[2, 5], f32::NEG_INFINITY);
        },
    ),
    case(
        "party1_bytes",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --raw",
        bytes_input,
    ),
    case(
        "party1_mean_count",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --mean 0.1,0.2",
        nothing,
    ),
    case(
        "party1_image",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.png",
        |f| {
            put(f, "x.png", grey_png(2, 2, &[1, 2, 3, 4]));
        },
    ),
    case(
        "party1_input_missing",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input absent.npy",
        nothing,
    ),
    case(
        "party1_input_garbage",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| put(f, "x.npy", random(90)),
    ),
    case("party1_plan_missing", 2, "polyrt party1 absent.bin --input x.npy", nothing),
    case(
        "party1_plan_damaged",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| {
            change(f, "plan.bin", |b| *b.last_mut().unwrap() ^= 1);
        },
    ),
    case(
        "party1_plan_version",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| change(f, "plan.bin", |b| b[9] = 1),
    ),
    case(
        "party1_no_correlations",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| {
            fs::remove_file(f.join("plan.correlations/party1.correlations")).unwrap();
        },
    ),
    case(
        "party1_others_correlations",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| {
            let half = |n| f.join(format!("plan.correlations/party{n}.correlations"));
            fs::copy(half(0), half(1)).unwrap();
        },
    ),
    case(
        "party1_correlations_of_another_plan",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| {
            another_plan(f, "plan");
        },
    ),
    case(
        "party1_correlations_truncated",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy",
        |f| {
            change(f, "plan.correlations/party1.correlations", |b| b.truncate(b.len() - 3));
        },
    ),
    case(
        "party1_closed_port",
        1,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --connect 127.0.0.1:1 --wait 0",
        nothing,
    ),
    case(
        "party1_not_loopback",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --connect 192.0.2.1:7411",
        nothing,
    ),
    case(
        "party1_no_address",
        2,
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --connect nowhere",
        nothing,
    ),
    case(
        "party0_not_loopback",
        2,
        "polyrt party0 plan.bin --dealer-correlations plan.correlations --listen 0.0.0.0:0",
        nothing,
    ),
    case(
        "party0_other_weights",
        2,
        "polyrt party0 plan.bin --dealer-correlations plan.correlations --weights other.weights",
        |f| another_plan(f, "other"),
    ),
    case(
        "party0_weights_missing",
        2,
        "polyrt party0 plan.bin --dealer-correlations plan.correlations",
        |f| fs::remove_file(f.join("plan.weights")).unwrap(),
    ),
    case(
        "party0_weights_damaged",
        2,
        "polyrt party0 plan.bin --dealer-correlations plan.correlations",
        |f| change(f, "plan.weights", |b| b[150] ^= 1),
    ),
    case(
        "party0_weights_resealed",
        2,
        "polyrt party0 plan.bin --dealer-correlations plan.correlations",
        |f| {
            change(f, "plan.weights", |b| *b = seal(b"polywght", &doors::payload(b)[..40]));
        },
    ),
    case("deal_exists", 2, "polyrt deal plan.bin --count 3", nothing),
    case("deal_none", 2, "polyrt deal plan.bin --count 0 --force", nothing),
    case("deal_into_a_file", 1, "polyrt deal plan.bin --count 1 --out x.npy", nothing),
    case(
        "local_missing_folder",
        1,
        "polyrt local plan.bin --input x.npy --output no/y.npy",
        nothing,
    ),
    case("local_shape", 2, "polyrt local plan.bin --input x.npy", |f| input(f, &[4, 4], 0.0)),
];
