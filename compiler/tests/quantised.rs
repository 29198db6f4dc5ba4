//! Quantised models: scale, zero point and saturation are those of the file, rounding is left out.

mod build;

use build::{
    import, int8, int32, microsoft, model, node, raw, reals, refusal, run, uint8, with_int,
    with_ints,
};
use ir::array_file::read_npz;
use ir::graph::{Op, evaluate_batch};
use ir::plan::{Evaluator, Rounding};
use ir::tensor::{Shape, Tensor};
use polyc::fit::Calibration;
use polyc::onnx::{ImportOptions, Imported, import_bytes};
use polyc::passes::{PassOptions, split_client};
use polyc::{CompileOptions, compile, prepare_plain};
use std::io::Cursor;
use tract_onnx::pb::tensor_proto::DataType;

const FLOAT: DataType = DataType::Float;

fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-4 * (1.0 + w.abs()), "{got:?} instead of {want:?}");
    }
}

fn activations(graph: &ir::graph::Graph) -> usize {
    graph.order().iter().filter(|&&id| matches!(graph.node(id).op, Op::Activation(_))).count()
}

macro_rules! network {
    ($name:literal) => {
        ($name, include_bytes!(concat!("quantised/", $name, ".onnx")).as_slice())
    };
}

const NETWORKS: [(&str, &[u8]); 5] = [
    network!("int8"),
    network!("uint8"),
    network!("per_channel"),
    network!("qlinear"),
    network!("dynamic"),
];

/// An array of the answers of `quantised/make.py`.
fn array(name: &str) -> Tensor<f32> {
    let answers = include_bytes!("quantised/answers.npz");
    read_npz(Cursor::new(answers), Some(name)).unwrap().tensor
}

fn images(values: &[f32]) -> Vec<Tensor<f32>> {
    let image = |x: &[f32]| Tensor::new(Shape::new([1, 1, 6, 6]), x.to_vec());
    values.chunks_exact(36).map(image).collect()
}

/// What is left out is the rounding of six values on the way, so answers differ by some steps of the output, of
/// about 0.05; with the rounding they are ONNX Runtime's.
#[test]
fn networks_of_onnx_runtimes_quantiser_answer_as_it_does() {
    let x = images(&array("x").data);
    for (name, bytes) in NETWORKS {
        let imported =
            import_bytes(bytes, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let notes = imported.warnings.join("\n");
        assert!(notes.contains("the rounding of") && notes.contains("is left out"), "{notes}");
        let want = array(name).data;
        let worst = |imported: &Imported| {
            let got = evaluate_batch(&imported.graph, &x).into_iter().flat_map(|y| y.data);
            got.zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max)
        };
        let off = worst(&imported);
        assert!(off < 0.15, "{name}: off by {off}");
        if name == "dynamic" {
            continue;
        }
        let options = ImportOptions { keeps_rounding: true, ..ImportOptions::default() };
        let off = worst(&import_bytes(bytes, &options).unwrap());
        assert!(off < 1e-4, "{name}: with its rounding off by {off}");
    }
}

/// No clip is left but the ReLUs of the network before it was quantised, and two parties answer as ONNX Runtime.
#[test]
fn plans_of_quantised_networks_answer_as_onnx_runtime_does() {
    let x = images(&array("x").data[..15 * 36]);
    for (name, bytes) in NETWORKS {
        let imported = import_bytes(bytes, &ImportOptions::default()).unwrap();
        let passes = PassOptions::default();
        let mut prepared = prepare_plain(imported, &passes).unwrap();
        let calibration = Calibration::new(images(&array("calibration").data), "drawn");
        prepared.open_clips(&calibration, &passes).unwrap();
        assert_eq!(activations(&prepared.graph), 2, "{name}");
        let options = CompileOptions::default();
        let compiled = compile(name, &prepared, &calibration, &options, &mut |_| ()).unwrap();
        let encoded: Vec<_> = x.iter().map(|x| compiled.plan.encode_input(x).unwrap()).collect();
        let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
        let got = evaluator.run_batch(&encoded, Rounding::Nearest);
        let got = got.iter().flat_map(|y| compiled.plan.finish(y).into_iter().flat_map(|y| y.data));
        let want = &array(name).data[..15 * 5];
        let squares: f32 = got.zip(want).map(|(g, w)| (g - w) * (g - w)).sum();
        let error = (squares / want.len() as f32).sqrt();
        assert!(error < 0.25, "{name}: error {error} of outputs that deviate by 2.4");
    }
}

#[test]
fn saturation_is_kept_and_rounding_is_not() {
    let constants = || vec![reals("s", &[], &[0.01]), uint8("z", &[], &[0])];
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], &["q"]),
        node("DequantizeLinear", &["q", "s", "z"], &["y"]),
    ];
    let y = run(&model((FLOAT, &[1, 4]), nodes, constants()), &[-1.0, 0.123, 2.0, 8.0]);
    close(&y, &[0.0, 0.123, 2.0, 2.55]);
}

#[test]
fn scales_that_differ_keep_their_factor() {
    let constants = vec![
        reals("s", &[], &[0.02]),
        reals("t", &[], &[0.04]),
        int8("z", &[], &[3]),
        int8("w", &[], &[-5]),
    ];
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], &["q"]),
        node("DequantizeLinear", &["q", "t", "w"], &["y"]),
    ];
    let y = run(&model((FLOAT, &[1, 3]), nodes, constants), &[-0.5, 1.0, 9.0]);
    close(&y, &[(-25.0 + 8.0) * 0.04, (50.0 + 8.0) * 0.04, (127.0 + 5.0) * 0.04]);
}

#[test]
fn per_axis_and_blocked_parameters_are_spread() {
    let nodes = vec![
        with_int(node("QuantizeLinear", &["x", "s", "z"], &["q"]), "axis", 1),
        with_int(node("DequantizeLinear", &["q", "s", "z"], &["y"]), "axis", 1),
    ];
    let constants = vec![reals("s", &[2], &[0.1, 1.0]), uint8("z", &[2], &[0, 128])];
    let y = run(&model((FLOAT, &[1, 2, 2]), nodes, constants), &[-1.0, 30.0, -200.0, 30.0]);
    close(&y, &[0.0, 25.5, -128.0, 30.0]);
    let blocked = |n| with_int(with_int(n, "axis", 1), "block_size", 2);
    let nodes = vec![
        blocked(node("DequantizeLinear", &["w", "s", "z"], &["f"])),
        node("Add", &["x", "f"], &["y"]),
    ];
    let constants = vec![
        int8("w", &[1, 3], &[10, 20, 30]),
        reals("s", &[1, 2], &[0.5, 2.0]),
        int8("z", &[1, 2], &[0, 10]),
    ];
    let y = run(&model((FLOAT, &[1, 3]), nodes, constants), &[0.0, 0.0, 1.0]);
    close(&y, &[5.0, 10.0, 41.0]);
}

#[test]
fn constants_are_quantised_exactly_also_to_four_bits() {
    let nodes = vec![
        node("QuantizeLinear", &["w", "s", "z"], &["q"]),
        node("DequantizeLinear", &["q", "s", "z"], &["f"]),
        node("Add", &["x", "f"], &["y"]),
    ];
    let zero = raw("z", DataType::Int4, &[], vec![1]);
    let constants =
        vec![reals("w", &[1, 4], &[0.25, 0.75, -9.0, 9.0]), reals("s", &[], &[0.5]), zero];
    let y = run(&model((FLOAT, &[1, 4]), nodes, constants), &[0.0; 4]);
    // Halves go to even, −18 + 1 saturates at −8, 18 + 1 at 7.
    close(&y, &[0.0, 1.0, -4.5, 3.0]);
}

#[test]
fn a_clip_stands_only_where_the_range_can_be_left() {
    let quantise = |x: &str, q: &str| node("QuantizeLinear", &[x, "s", "z"], &[q]);
    let constants = || vec![reals("s", &[], &[0.02]), int8("z", &[], &[-128])];
    // One clip stands for the ReLU and the saturation; behind it nothing can saturate.
    let nodes = vec![
        node("Relu", &["x"], &["r"]),
        quantise("r", "q"),
        node("DequantizeLinear", &["q", "s", "z"], &["f"]),
        quantise("f", "q2"),
        node("DequantizeLinear", &["q2", "s", "z"], &["y"]),
    ];
    let imported = import(&model((FLOAT, &[1, 2]), nodes, constants())).unwrap();
    assert_eq!(activations(&imported.graph), 1);
    assert_eq!(imported.graph.order().len(), 2);
    // Bytes have a range that the quantisation covers.
    let nodes = vec![
        node("Cast", &["x"], &["f"]),
        quantise("f", "q"),
        node("DequantizeLinear", &["q", "s", "z"], &["y"]),
    ];
    let nodes =
        nodes.into_iter().map(|n| if n.op_type == "Cast" { with_int(n, "to", 1) } else { n });
    let constants = vec![reals("s", &[], &[1.0]), int8("z", &[], &[-128])];
    let model = model((DataType::Uint8, &[1, 2]), nodes.collect(), constants);
    assert_eq!(activations(&import(&model).unwrap().graph), 0);
}

#[test]
fn a_quantised_output_is_clipped_and_rounded_by_the_client() {
    let constants = vec![
        reals("w", &[2, 2], &[1.0, 0.0, 0.0, 2.0]),
        reals("s", &[], &[0.5]),
        uint8("z", &[], &[100]),
    ];
    let nodes =
        vec![node("MatMul", &["x", "w"], &["m"]), node("QuantizeLinear", &["m", "s", "z"], &["y"])];
    let model = model((FLOAT, &[1, 2]), nodes, constants);
    assert_eq!(run(&model, &[0.75, 1.1]), [102.0, 104.0]);
    assert_eq!(run(&model, &[-90.0, 90.0]), [0.0, 255.0]);
    let mut graph = import(&model).unwrap().graph;
    assert_eq!(split_client(&mut graph, &[Shape::new([1, 2])])[0].client.len(), 3);
    assert_eq!(graph.order().len(), 2, "the product is left");
}

#[test]
fn a_quantised_input_takes_its_integers() {
    let constants = vec![reals("s", &[], &[0.02]), uint8("z", &[], &[128])];
    let nodes = vec![node("DequantizeLinear", &["x", "s", "z"], &["y"])];
    let model = model((DataType::Uint8, &[1, 3]), nodes, constants);
    close(&run(&model, &[0.0, 128.0, 255.0]), &[-2.56, 0.0, 2.54]);
    assert_eq!(import(&model).unwrap().inputs[0].element.to_string(), "uint8");
}

#[test]
fn integer_products_subtract_their_zero_points() {
    let weights = || int8("w", &[2, 2], &[1, 2, 3, 4]);
    let nodes = vec![node("MatMulInteger", &["x", "w", "a", "b"], &["y"])];
    let constants = vec![weights(), uint8("a", &[], &[10]), int8("b", &[2], &[1, -1])];
    let y = run(&model((DataType::Uint8, &[1, 2]), nodes, constants), &[12.0, 7.0]);
    // (2, −3)·((0, 3), (2, 5))
    assert_eq!(y, [-6.0, -9.0]);
    // A border of zero points.
    let nodes = vec![with_ints(node("ConvInteger", &["x", "k", "a"], &["y"]), "pads", &[1, 0])];
    let constants = vec![int8("k", &[1, 1, 2], &[1, -2]), uint8("a", &[], &[10])];
    let y = run(&model((DataType::Uint8, &[1, 1, 3]), nodes, constants), &[11.0, 10.0, 15.0]);
    assert_eq!(y, [-2.0, 1.0, -10.0]);
}

#[test]
fn fused_operators_are_their_parts() {
    let bytes = DataType::Uint8;
    let parameters = || {
        vec![
            reals("s", &[], &[0.5]),
            uint8("z", &[], &[10]),
            reals("t", &[], &[0.25]),
            uint8("u", &[], &[4]),
        ]
    };
    let with = |more: Vec<_>| parameters().into_iter().chain(more).collect::<Vec<_>>();
    // 0.5·(x − 10) = (1, −2), times ((1, 0), (0, 2)) = (1, −4), over 0.25 plus 4 = (8, −12 → 0).
    let weights = int8("w", &[2, 2], &[2, 0, 0, 4]);
    let operands = ["x", "s", "z", "w", "s", "zw", "t", "u"];
    let nodes = vec![node("QLinearMatMul", &operands, &["y"])];
    let constants = with(vec![weights.clone(), int8("zw", &[], &[0])]);
    assert_eq!(run(&model((bytes, &[1, 2]), nodes, constants), &[12.0, 6.0]), [8.0, 0.0]);
    // The same with a bias of 2 in units of 0.25: (1.5, −3.5).
    let nodes = vec![microsoft("QGemm", &["x", "s", "z", "w", "s", "zw", "c", "t", "u"], "y")];
    let constants = with(vec![weights, int8("zw", &[], &[0]), int32("c", &[2], &[2, 2])]);
    assert_eq!(run(&model((bytes, &[1, 2]), nodes, constants), &[12.0, 6.0]), [10.0, 0.0]);
    // (1, −2) + 0.25·(8 − 4) = (2, −1) = (12, 0) in units of 0.25 behind 4.
    let nodes = vec![microsoft("QLinearAdd", &["x", "s", "z", "c", "t", "u", "t", "u"], "y")];
    let constants = with(vec![uint8("c", &[1, 2], &[8, 8])]);
    assert_eq!(run(&model((bytes, &[1, 2]), nodes, constants), &[12.0, 6.0]), [12.0, 0.0]);
    // Two parts of one value: (1, −2, 1, −2) in two units.
    let operands = ["t", "u", "x", "s", "z", "x", "t", "z"];
    let nodes = vec![with_int(microsoft("QLinearConcat", &operands, "y"), "axis", 1)];
    let y = run(&model((bytes, &[1, 2]), nodes, parameters()), &[12.0, 8.0]);
    assert_eq!(y, [8.0, 0.0, 6.0, 2.0]);
    // Older versions take all axes from the first on as one.
    let nodes = vec![with_int(
        with_int(microsoft("QLinearSoftmax", &["x", "s", "z", "p", "q"], "y"), "axis", 1),
        "opset",
        11,
    )];
    let constants = with(vec![reals("p", &[], &[1.0 / 256.0]), uint8("q", &[], &[0])]);
    let y = run(&model((bytes, &[1, 2, 2]), nodes, constants), &[10.0, 10.0, 10.0, 0.0]);
    assert_eq!(y, [85.0, 85.0, 85.0, 1.0]);
    let nodes = vec![microsoft("QLinearGlobalAveragePool", &["x", "s", "z", "t", "u"], "y")];
    let y = run(&model((bytes, &[1, 1, 2, 2]), nodes, parameters()), &[12.0, 8.0, 16.0, 12.0]);
    assert_eq!(y, [8.0]);
}

#[test]
fn dynamic_quantisation_is_the_product_itself() {
    let nodes = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]),
        node("MatMulInteger", &["q", "w", "z", "zw"], &["i"]),
        with_int(node("Cast", &["i"], &["f"]), "to", 1),
        node("Mul", &["s", "sw"], &["scale"]),
        node("Mul", &["f", "scale"], &["y"]),
    ];
    let constants = vec![
        uint8("w", &[2, 2], &[130, 128, 126, 132]),
        uint8("zw", &[], &[128]),
        reals("sw", &[], &[0.5]),
    ];
    let whole = model((FLOAT, &[1, 2]), nodes.clone(), constants.clone());
    close(&run(&whole, &[0.3, -0.7]), &[1.0 * 0.3 + 0.7, -2.0 * 0.7]);
    // No part of it is known alone.
    for (last, inputs) in
        [("Identity", vec!["s"]), ("Add", vec!["f", "sw"]), ("Mul", vec!["f", "sw"])]
    {
        let mut nodes = nodes[..3].to_vec();
        nodes.push(node(last, &inputs, &["y"]));
        let text = refusal(&model((FLOAT, &[1, 2]), nodes, constants.clone()));
        assert!(text.contains("DynamicQuantizeLinear"), "{text}");
    }
    let fused = vec![microsoft("DynamicQuantizeMatMul", &["x", "w", "sw", "zw"], "y")];
    close(&run(&model((FLOAT, &[1, 2]), fused, constants), &[0.3, -0.7]), &[1.0, -1.4]);
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    let quantise = |zero| {
        let nodes = vec![
            node("QuantizeLinear", &["x", "s", "z"], &["q"]),
            node("DequantizeLinear", &["q", "s", "z"], &["y"]),
        ];
        model((FLOAT, &[1, 2]), nodes, vec![reals("s", &[], &[0.5]), zero])
    };
    assert!(refusal(&quantise(reals("z", &[], &[0.0]))).contains("quantises to float"));
    assert!(refusal(&quantise(int8("z", &[2], &[0, 0]))).contains("not of one shape"));
    let nodes = vec![microsoft("QAttention", &["x"], "y")];
    let text = refusal(&model((FLOAT, &[1, 2]), nodes, vec![]));
    assert!(text.contains("com.microsoft.QAttention"), "{text}");
}
