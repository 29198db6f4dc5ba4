//! Refusals: every one is a line that says what to change, with an exit status, and leaves no file. The
//! lines stand in `tests/refusals/`; `UPDATE_EXPECT=1` writes them anew.

use ir::Tensor;
use ir::array_file::write_npy;
use ir::tensor::Shape;
use polyrt::handshake::{HELLO_BYTES, Hello};
use polyrt::offline::store::list;
use polyrt::offline::{Offer, Role};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use support::doors::{self, SMALL, SMALL_MODEL, seal};
use support::onnx::{Attribute, Model};
use support::{Folder, Listening, Numbers, bytes_npy, grey_png, polyc, polyrt, run, stderr};

/// A command that must be refused.
struct Case {
    /// Its name, and that of its golden file.
    name: &'static str,
    /// What differs from the folder that every case starts with.
    prepare: fn(&Path),
    /// The program and its arguments.
    command: &'static str,
    /// The exit status.
    status: i32,
    /// Lines on stderr.
    lines: usize,
}

const fn case(name: &'static str, status: i32, command: &'static str, prepare: fn(&Path)) -> Case {
    Case { name, prepare, command, status, lines: 1 }
}

fn nothing(_: &Path) {}

fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.join(name), bytes).unwrap();
}

fn change(folder: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(folder.join(name)).unwrap();
    change(&mut bytes);
    put(folder, name, bytes);
}

fn input(folder: &Path, dims: &[usize], value: f32) {
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

fn many_unsupported() -> Vec<u8> {
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
        [("kernel_shape", Attribute::Ints(&[2, 2])), ("strides", Attribute::Ints(&[2, 2]))];
    Model::new(&[1, 2, 8, 8])
        .node("MaxPool", "pool one", &["x"], &window)
        .node("Relu", "relu", &["pool one"], &[])
        .node("MaxPool", "pool two", &["relu"], &window)
        .to_bytes("pool two", &[1, 2, 2, 2])
}

fn random(count: usize) -> Vec<u8> {
    let mut numbers = Numbers(11);
    (0..count).map(|_| numbers.draw() as u8).collect()
}

/// A plan of another model, with its weights.
fn another_plan(folder: &Path, name: &str) {
    let compiled = doors::compile_bytes(
        &Model::new(&[1, 5])
            .weights("w", &[2, 5], &[0.5, 0.25, -0.5, 1.0, 0.0, -1.0, 0.3, 0.2, 0.1, 0.0])
            .node("Gemm", "only", &["x", "w"], &[("transB", Attribute::Int(1))])
            .to_bytes("only", &[1, 2]),
    );
    put(folder, &format!("{name}.bin"), compiled.plan.to_bytes().0);
    put(folder, &format!("{name}.weights"), compiled.weights.to_bytes(Some(&compiled.reference)));
}

const CASES: &[Case] = &[
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
        ..case("onnx_max_pool", 2, "polyc compile model.onnx", |f| {
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
    case("compile_auto_without_data", 2, "polyc compile model.onnx --activation auto", nothing),
    case(
        "compile_minimise_auto",
        2,
        "polyc compile model.onnx --activation auto --accuracy-loss 1 --minimise offline",
        nothing,
    ),
    Case {
        lines: 4,
        ..case("compile_minimise_what", 2, "polyc compile model.onnx --minimise offline", nothing)
    },
    case(
        "compile_harmonics_of_squares",
        2,
        "polyc compile model.onnx --activation square --harmonics 2",
        nothing,
    ),
    case(
        "compile_harmonics_of_auto",
        2,
        "polyc compile model.onnx --activation auto --harmonics 2",
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

/// A folder with a model, its plan, weights and three dealt items, and an input.
fn start() -> Folder {
    static DEALT: OnceLock<Folder> = OnceLock::new();
    let dealt = DEALT.get_or_init(|| {
        let folder = Folder::new();
        let small = &*SMALL;
        put(folder.path(), "model.onnx", &*SMALL_MODEL);
        put(folder.path(), "plan.bin", small.plan.to_bytes().0);
        put(folder.path(), "plan.weights", small.weights.to_bytes(Some(&small.reference)));
        input(folder.path(), &[1, 5], 0.5);
        let output = run(polyrt(&folder).args(["deal", "plan.bin", "--count", "3"]));
        assert!(output.status.success(), "{}", stderr(&output));
        folder
    });
    let folder = Folder::new();
    fs::create_dir(folder.file("plan.correlations")).unwrap();
    for (name, _) in dealt.listing().iter().filter(|(name, _)| dealt.file(name).is_file()) {
        fs::copy(dealt.file(name), folder.file(name)).unwrap();
    }
    folder
}

fn command(folder: &Folder, line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = match words.next() {
        Some("polyc") => polyc(folder),
        _ => polyrt(folder),
    };
    command.args(words);
    command
}

/// Digests and identities differ between machines, and timeouts are measured.
fn normalised(text: &str) -> String {
    let after = "timed out after ";
    let timeless = text.split_inclusive(after).map(|part| match part.split_once(": the peer") {
        Some((time, rest)) if time.ends_with('s') && time.len() < 12 => {
            format!("TIME: the peer{rest}")
        }
        _ => part.to_owned(),
    });
    let text = &timeless.collect::<String>();
    let is_hex = |w: &str| w.len() == 16 && w.chars().all(|c| c.is_ascii_hexdigit());
    let mut result = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        result += &if is_hex(word) { piece.replace(word, "DIGEST") } else { piece.to_owned() };
    }
    result
}

/// Compares with the golden file; returns what is wrong.
fn compare(name: &str, status: Option<i32>, text: &str) -> Option<String> {
    let path = support::workspace().join(format!("tests/refusals/{name}.txt"));
    let got = format!("exit status {}\n{}", status.unwrap_or(-1), normalised(text));
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1") {
        fs::write(path, got).unwrap();
        return None;
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    (got != want).then(|| format!("{name}: expected\n{want}got\n{got}"))
}

fn check(case: &Case) -> Option<String> {
    let folder = start();
    (case.prepare)(folder.path());
    let before = folder.listing();
    let output = run(&mut command(&folder, case.command));
    let text = stderr(&output);
    let status = output.status.code();
    let lines = text.lines().filter(|l| !l.is_empty()).count();
    let of_error = text.lines().find(|line| !line.starts_with("note: ")).unwrap_or_default();
    let prefixed = of_error.starts_with("polyc: ") || of_error.starts_with("error: ");
    if status != Some(case.status) || lines != case.lines || !prefixed {
        return Some(format!("{}: status {status:?}, {lines} lines: {text}", case.name));
    }
    if !output.stdout.is_empty() || folder.listing() != before {
        return Some(format!("{}: left {:?}", case.name, folder.listing()));
    }
    compare(case.name, status, &text)
}

fn all_right(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 takes what is printed now", wrong.join("\n"));
}

#[test]
fn commands() {
    all_right(CASES.iter().filter_map(check));
}

/// What a peer does to party 0 or party 1. As party 1 it is given a hello that fits.
type Peer = fn(&mut TcpStream, Option<Hello>);

/// Says hello as party 1, or as party 0 by copying what it hears, changed, and hears the other hello.
fn say_hello(peer: &mut TcpStream, hello: Option<Hello>, change: impl Fn(&mut [u8])) {
    let mut theirs = [0; HELLO_BYTES];
    let mut ours = hello.as_ref().map_or(theirs, Hello::to_bytes);
    if hello.is_none() {
        let _ = peer.read_exact(&mut theirs);
        (ours, ours[10]) = (theirs, 0);
    }
    change(&mut ours);
    let _ = peer.write_all(&ours);
    if hello.is_some() {
        let _ = peer.read_exact(&mut theirs);
    }
}

const PEERS: &[(&str, Peer)] = &[
    ("garbage", |peer, _| {
        let _ = peer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("closes_at_once", |peer, _| drop(peer.shutdown(Shutdown::Both))),
    ("closes_in_the_hello", |peer, _| {
        let _ = peer.write_all(b"polyrt\r\n\x01");
        let _ = peer.shutdown(Shutdown::Write);
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("is_silent", |peer, _| drop(peer.read_to_end(&mut vec![]))),
    ("echoes", |peer, hello| {
        let role = u8::from(hello.is_none());
        say_hello(peer, hello, |ours| ours[10] = role);
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("speaks_another_version", |peer, hello| {
        say_hello(peer, hello, |ours| ours[8] = 9);
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("closes_after_the_agreement", |peer, hello| {
        say_hello(peer, hello, |ours| ours[12..16].copy_from_slice(&1u32.to_le_bytes()));
        let mut confirmation = [0; 16];
        let _ = peer.read_exact(&mut confirmation);
        let _ = peer.write_all(&confirmation);
        let _ = peer.shutdown(Shutdown::Write);
        let _ = peer.read_to_end(&mut vec![]);
    }),
];

/// Party 1's hello with its correlations from the dealer.
fn dealt_hello(folder: &Folder) -> Hello {
    let listing = list(&folder.file("plan.correlations/party1.correlations")).unwrap();
    let hello = doors::own_hello(Role::Party1);
    let (weights, deal, count) = (Some(listing.weights), listing.deal, listing.items.0);
    Hello { offer: Offer { weights, deal, next: 0, count, ..hello.offer }, ..hello }
}

/// A peer's port is any.
fn without_port(text: &str) -> String {
    let (before, port) = text.split_once("turned away 127.0.0.1:").unwrap_or((text, ""));
    match port.split_once(':') {
        Some((_, rest)) => format!("{before}turned away 127.0.0.1:PORT:{rest}"),
        None => text.into(),
    }
}

/// A line on stderr of party 0 that is not one of its four when it starts.
fn after_start(text: &str) -> String {
    text.lines().skip(4).map(|line| format!("{line}\n")).collect()
}

#[test]
fn peers_of_party_0() {
    let check = |&(name, peer): &(&str, Peer)| {
        let folder = start();
        let hello = dealt_hello(&folder);
        let party0 = Listening::start(&folder, &["--timeout", "1", "--wait", "2"]);
        let mut stream = TcpStream::connect(&party0.address).unwrap();
        peer(&mut stream, Some(hello));
        let (status, out, err) = party0.finish();
        assert!(out.is_empty(), "{name}: {out}");
        let err = without_port(&after_start(&err));
        // Who does not fit is turned away, and nobody else comes.
        let lines = if name == "closes_after_the_agreement" { 1 } else { 2 };
        assert_eq!((status, err.lines().count()), (Some(1), lines), "{name}: {err}");
        compare(&format!("party0_peer_{name}"), status, &err)
    };
    all_right(PEERS.iter().filter_map(check));
}

#[test]
fn peers_of_party_1() {
    let check = |&(name, peer): &(&str, Peer)| {
        let folder = start();
        let before = folder.listing();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || peer(&mut listener.accept().unwrap().0, None));
        let line = format!(
            "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --output y.npy --timeout 1 --connect {address}"
        );
        let output = run(&mut command(&folder, &line));
        server.join().unwrap();
        let (status, err) = (output.status.code(), stderr(&output));
        assert_eq!((status, err.lines().count()), (Some(1), 1), "{name}: {err}");
        assert_eq!(folder.listing(), before, "{name}");
        compare(&format!("party1_peer_{name}"), status, &err)
    };
    all_right(PEERS.iter().filter_map(check));
}

#[test]
fn a_peer_with_another_plan() {
    let (owner, client) = (start(), start());
    another_plan(client.path(), "plan");
    let deal = "polyrt deal plan.bin --count 2 --force";
    assert!(run(&mut command(&client, deal)).status.success());
    let party0 = Listening::start(&owner, &["--wait", "2"]);
    let line = format!(
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --connect {}",
        party0.address
    );
    let party1 = run(&mut command(&client, &line));
    let (status, _, err) = party0.finish();
    let (err0, err1) = (without_port(&after_start(&err)), stderr(&party1));
    let line = err1.strip_prefix("error: ").unwrap();
    assert!(err0.starts_with(&format!("turned away 127.0.0.1:PORT: {line}")), "{err0} {err1}");
    assert_eq!((status, party1.status.code()), (Some(1), Some(1)));
    all_right(compare("peer_with_another_plan", status, &err0).into_iter());
}

#[test]
fn a_refused_model_lists_every_node_as_json() {
    let folder = start();
    put(folder.path(), "model.onnx", many_unsupported());
    let output = run(&mut command(&folder, "polyc compile model.onnx --json"));
    assert_eq!(output.status.code(), Some(2));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = json["unsupported"].as_array().unwrap();
    assert_eq!(nodes.len(), 25);
    assert_eq!(
        (&nodes[24]["name"], &nodes[24]["operator"]),
        (&"strange 24".into(), &"Frobnicate".into())
    );
}

#[test]
fn every_golden_file_has_its_case() {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return;
    }
    let mut expected: Vec<String> = CASES.iter().map(|c| c.name.to_owned()).collect();
    for party in ["party0", "party1"] {
        expected.extend(PEERS.iter().map(|(name, _)| format!("{party}_peer_{name}")));
    }
    expected.push("peer_with_another_plan".into());
    expected.sort();
    let files = fs::read_dir(support::workspace().join("tests/refusals")).unwrap();
    let mut found: Vec<String> = files
        .map(|f| f.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, expected);
}
