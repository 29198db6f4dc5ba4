//! The import against ONNX Runtime's recorded outputs and against tract.

use ir::array_file::read_npz;
use ir::graph::evaluate_batch;
use ir::tensor::{Shape, Tensor};
use polyc::onnx::{ImportError, ImportOptions, Imported, TractModel, import_file};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Relative to the largest entry of the expected output.
const TOLERANCE: f32 = 1e-3;

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("POLYC_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no corpus of third-party models; set POLYC_CORPUS to its folder");
    None
}

fn array(path: &Path, name: &str) -> Tensor<f32> {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    read_npz(file, Some(name)).unwrap_or_else(|e| panic!("{}: {e}", path.display())).tensor
}

/// With the first output alone.
fn first_output(path: &Path) -> Result<ImportOptions, ImportError> {
    let imported = import_file(path, &ImportOptions::default())?;
    Ok(ImportOptions { outputs: vec![imported.outputs[0].name.clone()], ..Default::default() })
}

fn import(path: &Path) -> Result<Imported, ImportError> {
    import_file(path, &first_output(path)?)
}

/// The error relative to the largest expected entry.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "numbers of outputs");
    let scale = want.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    got.iter().zip(want).fold(0.0, |m: f32, (g, w)| {
        let d = (g - w).abs() / scale;
        if d.is_nan() && !(g.is_nan() && w.is_nan()) { f32::INFINITY } else { m.max(d) }
    })
}

fn rows(tensor: &Tensor<f32>, shape: &Shape) -> Vec<Tensor<f32>> {
    let rows = tensor.data.chunks_exact(shape.elements());
    rows.map(|row| Tensor::new(shape.clone(), row.to_vec())).collect()
}

fn input_shape(imported: &Imported) -> Shape {
    imported.graph.node(imported.graph.input()).shape.clone()
}

fn models_of(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn operator_models_equal_the_recorded_outputs() {
    let Some(corpus) = corpus() else { return };
    let (mut checked, mut agreed) = (0, 0);
    let mut wrong = Vec::new();
    for path in models_of(&corpus.join("ops")) {
        let imported = match import(&path) {
            Ok(imported) => imported,
            Err(ImportError::Unsupported(_) | ImportError::OpenSizes(_)) => continue,
            Err(e @ ImportError::NoBatch { .. }) => {
                eprintln!("{}: {e}", path.display());
                continue;
            }
            Err(e) => panic!("{}: {e}", path.display()),
        };
        let record = path.with_extension("io.npz");
        if !record.exists() {
            continue;
        }
        let Some((input, output)) = recorded(&record, &imported.inputs[0].name) else { continue };
        let inputs = rows(&input, &input_shape(&imported));
        let outputs = evaluate_batch(&imported.graph, &inputs);
        let got: Vec<f32> = outputs.iter().flat_map(|o| o.data.clone()).collect();
        let error = distance(&got, &output.data);
        if error > TOLERANCE {
            wrong.push(format!("{}: {error}", path.display()));
        }
        checked += 1;
        let Ok(oracle) = TractModel::load(&path, &first_output(&path).unwrap(), 1, None) else {
            continue;
        };
        let Ok(answer) = oracle.run(&inputs[..1]) else { continue };
        let error = distance(&answer[0].data, &outputs[0].data);
        if error > TOLERANCE {
            wrong.push(format!("{} against tract: {error}", path.display()));
        }
        agreed += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 55 && agreed > 40, "{checked} models checked, {agreed} with tract");
}

/// The recorded pair; `None` where the file has element types that are not numbers.
fn recorded(path: &Path, input: &str) -> Option<(Tensor<f32>, Tensor<f32>)> {
    let wanted: String =
        input.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let read = |name: &str| read_npz(File::open(path).ok()?, Some(name)).ok().map(|a| a.tensor);
    let input = read(&format!("in_{wanted}"));
    let output = read("out_0");
    if input.is_none() || output.is_none() {
        eprintln!("SKIPPED: {} has no numeric record of {input:?}", path.display(), input = wanted);
    }
    Some((input?, output?))
}

/// What a data set's bytes become before a model sees them.
#[derive(Clone, Copy)]
enum Preprocessing {
    Raw,
    Scaled,
    TransposedScaled,
    /// Mean and standard deviation of x/255 per channel.
    Normalised([f32; 3], [f32; 3]),
}

use Preprocessing::{Normalised, Raw, Scaled, TransposedScaled};

const MNIST_NORMALISED: Preprocessing = Normalised([0.1307; 3], [0.3081; 3]);
const HALF: Preprocessing = Normalised([0.5; 3], [0.5; 3]);
const OVAL: Preprocessing = Normalised([0.485, 0.456, 0.406], [0.225; 3]);
const IMAGENET: Preprocessing = Normalised([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const CIFAR: Preprocessing = Normalised([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]);
const CIFAR_OLD: Preprocessing = Normalised([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);

/// Every importable classifier of the corpus: data set, preprocessing, model.
const CLASSIFIERS: &[(&str, Preprocessing, &[&str])] = &[
    (
        "mnist_test_a",
        Scaled,
        &[
            "wuhan_mnist-sm",
            "ort_mnist8",
            "marabou_mnist2x10",
            "verivital_Convnet_avgpool",
            "marabou_cnn_max_mninst2",
            "marabou_mnist5x20_leaky_relu",
            "onjackay_mnist",
            "kanav_lenet",
            "eran_mnist_relu_3_50",
            "marabou_robust_model_sigmoid_linear",
            "germanov_mnist",
            "eran_mnist_convSmallRELU__PGDK",
            "eran_mnist_relu_6_100",
            "mushfiq_mnist_mlp",
            "mushfiq_mnist_mlp_w8a8",
            "mnist-net_256x2",
            "eran_ffnnSIGMOID_6x200",
            "mnist-net_256x4",
            "biigsaam_mnist_cnn",
            "eran_mnist_relu_9_200",
            "yliess_mnist",
        ],
    ),
    (
        "mnist_test_a",
        MNIST_NORMALISED,
        &[
            "southw_mnist",
            "ccoltong_custom",
            "eran_mnist_convSmallRELU__Point",
            "pcelis_mnist_cnn",
            "hwang_mnist_cnn",
        ],
    ),
    (
        "mnist_test_a",
        Raw,
        &["eran_mnist_relu_3_100", "verinet_logsig_200_50", "verinet_tansig_256_50"],
    ),
    ("mnist_test_a", HALF, &["marabou_yizhak_net"]),
    ("mnist_test_a", TransposedScaled, &["cora_mnist-point"]),
    ("fashion_test_a", HALF, &["shahjahan_fashion"]),
    (
        "cifar10_jpeg_test_a",
        Scaled,
        &[
            "marabou_cifar10_small",
            "marabou_cifar10_large",
            "yashraj_cifar",
            "delphi_minionn_relu",
            "delphi_minionn_3_approx",
            "delphi_minionn_7_approx",
        ],
    ),
    ("cifar10_jpeg_test_a", OVAL, &["oval21_cifar_base_kw", "oval21_cifar_wide_kw"]),
    ("cifar10_jpeg_test_a", IMAGENET, &["akamaster_resnet20", "akamaster_resnet56"]),
    ("cifar10_jpeg_test_a", CIFAR, &["resnet_2b"]),
    ("cifar10_jpeg_test_a", CIFAR_OLD, &["sri_resnet_a"]),
];

/// The first images of a data set as a model wants them.
fn images(data: &Tensor<f32>, count: usize, how: Preprocessing, shape: &Shape) -> Vec<Tensor<f32>> {
    let dims = &data.shape.0;
    let (h, w, c) = (dims[1], dims[2], dims.get(3).copied().unwrap_or(1));
    let image = |pixels: &[f32]| {
        let mut x = Tensor::new(Shape::new([h, w, c]), pixels.to_vec());
        for (i, v) in x.data.iter_mut().enumerate() {
            *v = match how {
                Raw => *v,
                Scaled | TransposedScaled => *v / 255.0,
                Normalised(mean, deviation) => (*v / 255.0 - mean[i % c]) / deviation[i % c],
            };
        }
        if shape.0.get(1) == Some(&c) {
            x = x.transpose(&[2, 0, 1]);
        } else if matches!(how, TransposedScaled) {
            x = x.transpose(&[1, 0, 2]);
        }
        x.reshape(shape.clone())
    };
    data.data.chunks_exact(h * w * c).take(count).map(image).collect()
}

#[test]
fn classifiers_equal_the_recorded_outputs() {
    const IMAGES: usize = 3;
    let Some(corpus) = corpus() else { return };
    let mut wrong = Vec::new();
    for &(data, how, models) in CLASSIFIERS {
        let data = array(&corpus.join(format!("data/{data}.npz")), "x");
        for model in models {
            let path = corpus.join(format!("models/{model}.onnx"));
            let imported = import(&path).unwrap_or_else(|e| panic!("{model}: {e}"));
            let inputs = images(&data, IMAGES, how, &input_shape(&imported));
            let outputs = evaluate_batch(&imported.graph, &inputs);
            let expected = array(&path.with_extension("expected.npz"), "logits_first100");
            let classes = expected.shape.0[1];
            let got: Vec<f32> = outputs.iter().flat_map(|o| o.data.clone()).collect();
            let error = distance(&got, &expected.data[..IMAGES * classes]);
            if error > TOLERANCE {
                wrong.push(format!("{model}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_classifier_of_the_corpus_is_imported_or_refused_with_its_nodes() {
    let Some(corpus) = corpus() else { return };
    for path in models_of(&corpus.join("models")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match import(&path) {
            Ok(_) => {
                assert!(CLASSIFIERS.iter().any(|(.., m)| m.contains(&name.as_str())), "{name}");
            }
            Err(ImportError::Unsupported(nodes)) => assert!(!nodes.is_empty(), "{name}"),
            Err(e) => panic!("{name}: {e}"),
        }
    }
}

#[test]
fn shipped_models_equal_the_recorded_outputs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let data = array(&folder.join("digits_test.npz"), "x");
    for path in models_of(&folder) {
        let imported = import(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let inputs = rows(&data, &input_shape(&imported));
        let outputs = evaluate_batch(&imported.graph, &inputs);
        let got: Vec<f32> = outputs.iter().flat_map(|o| o.data.clone()).collect();
        let expected = array(&path.with_extension("expected.npz"), "logits");
        let error = distance(&got, &expected.data);
        assert!(error < TOLERANCE, "{}: {error}", path.display());
        let oracle = TractModel::load(&path, &first_output(&path).unwrap(), 1, None).unwrap();
        let error = distance(&oracle.run(&inputs[..1]).unwrap()[0].data, &outputs[0].data);
        assert!(error < TOLERANCE, "{} against tract: {error}", path.display());
    }
}
