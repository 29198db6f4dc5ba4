//! The import of small models built here: attributes, external data, refusals, damaged files.

use ir::graph::evaluate_batch;
use ir::tensor::{Shape, Tensor};
use polyc::onnx::{
    Batch, BatchAxis, Declared, ImportError, ImportOptions, TractModel, import_bytes, import_file,
};
use prost::Message;
use std::path::PathBuf;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| Dimension {
        value: Some(if d > 0 {
            dimension::Value::DimValue(d)
        } else {
            dimension::Value::DimParam("N".into())
        }),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let kind =
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn reals(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

fn integers(name: &str, data: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![data.len() as i64],
        data_type: DataType::Int64 as i32,
        int64_data: data.to_vec(),
        ..TensorProto::default()
    }
}

/// Numbers between -1 and 1 that do not repeat soon.
fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: format!("{}_{output}", operator.to_lowercase()),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

trait Attributes {
    fn ints(self, name: &str, values: &[i64]) -> Self;
    fn int(self, name: &str, value: i64) -> Self;
    fn float(self, name: &str, value: f32) -> Self;
    fn text(self, name: &str, value: &str) -> Self;
}

impl Attributes for NodeProto {
    fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let r#type = AttributeType::Ints as i32;
        let ints = values.to_vec();
        self.attribute.push(AttributeProto {
            name: name.into(),
            r#type,
            ints,
            ..Default::default()
        });
        self
    }
    fn int(mut self, name: &str, i: i64) -> Self {
        let r#type = AttributeType::Int as i32;
        self.attribute.push(AttributeProto { name: name.into(), r#type, i, ..Default::default() });
        self
    }
    fn float(mut self, name: &str, f: f32) -> Self {
        let r#type = AttributeType::Float as i32;
        self.attribute.push(AttributeProto { name: name.into(), r#type, f, ..Default::default() });
        self
    }
    fn text(mut self, name: &str, value: &str) -> Self {
        let r#type = AttributeType::String as i32;
        let s = value.as_bytes().to_vec();
        self.attribute.push(AttributeProto { name: name.into(), r#type, s, ..Default::default() });
        self
    }
}

/// A model from `x` to `y`.
fn model(
    opset: i64,
    input: &[i64],
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer: initializers,
        input: vec![value("x", input)],
        output: vec![value("y", &[])],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("polyc-import-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The output for an input.
fn run(model: &ModelProto, x: &[f32]) -> Tensor<f32> {
    let bytes = model.encode_to_vec();
    let imported =
        import_bytes(&bytes, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let shape = imported.graph.node(imported.graph.input()).shape.clone();
    let x = Tensor::new(shape, x.to_vec());
    evaluate_batch(&imported.graph, &[x]).remove(0)
}

fn refusal(model: &ModelProto) -> ImportError {
    match import_bytes(&model.encode_to_vec(), &ImportOptions::default()) {
        Ok(_) => panic!("the model was imported"),
        Err(error) => error,
    }
}

/// Compares with tract on an input of noise.
fn check(name: &str, mut model: ModelProto, elements: usize) {
    // tract takes a stated output shape for the truth.
    model.graph.as_mut().unwrap().output[0].r#type = None;
    let x = noise(elements);
    let got = run(&model, &x);
    let path = folder(name).join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let oracle = TractModel::load(&path, &ImportOptions::default(), 1, None);
    let oracle = oracle.unwrap_or_else(|e| panic!("{e}"));
    let want = oracle.run(&[Tensor::new(Shape::new([elements]), x)]).unwrap().remove(0);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(got.shape, want.shape, "{name}");
    for (g, w) in got.data.iter().zip(&want.data) {
        assert!((g - w).abs() < 1e-4, "{name}: {g} instead of {w}");
    }
}

#[test]
fn convolutions_pad_like_onnx() {
    let conv = |node: NodeProto| {
        let weights = reals("w", &[4, 3, 3, 2], &noise(72));
        model(13, &[0, 3, 7, 6], vec![node], vec![weights, reals("b", &[4], &noise(4))])
    };
    let base = || node("Conv", &["x", "w", "b"], "y");
    check("asymmetric", conv(base().ints("pads", &[0, 1, 2, 0])), 126);
    check("upper", conv(base().text("auto_pad", "SAME_UPPER").ints("strides", &[2, 2])), 126);
    check("lower", conv(base().text("auto_pad", "SAME_LOWER").ints("strides", &[2, 1])), 126);
    check("valid", conv(base().text("auto_pad", "VALID").ints("dilations", &[2, 3])), 126);
}

#[test]
fn transposed_convolutions_spread_the_image() {
    let conv = |node: NodeProto, groups: i64| {
        let weights = reals("w", &[4, 2, 3, 3], &noise(72));
        let bias = reals("b", &[2 * groups], &noise(2 * groups as usize));
        model(13, &[1, 4, 3, 4], vec![node.int("group", groups)], vec![weights, bias])
    };
    let base = || node("ConvTranspose", &["x", "w", "b"], "y");
    check("plain", conv(base(), 1), 48);
    check("stride", conv(base().ints("strides", &[2, 3]).ints("pads", &[1, 0, 0, 2]), 1), 48);
    let extra = base().ints("strides", &[2, 2]).ints("output_padding", &[1, 0]);
    check("groups", conv(extra, 2), 48);
    check("cropped", conv(base().ints("pads", &[3, 0, 1, 3]), 1), 48);
}

#[test]
fn average_pooling_counts_what_onnx_counts() {
    let pool = |include: i64| {
        let node = node("AveragePool", &["x"], "y")
            .ints("kernel_shape", &[1, 3])
            .ints("strides", &[1, 2])
            .ints("pads", &[0, 1, 0, 1])
            .int("ceil_mode", 1)
            .int("count_include_pad", include);
        run(&model(19, &[1, 1, 1, 4], vec![node], vec![]), &[3.0, 6.0, 9.0, 12.0]).data
    };
    assert_eq!(pool(0), [4.5, 9.0, 12.0]);
    assert_eq!(pool(1), [3.0, 9.0, 6.0]);
}

#[test]
fn max_pooling_keeps_the_last_window_in_ceil_mode() {
    let node = node("MaxPool", &["x"], "y")
        .ints("kernel_shape", &[2])
        .ints("strides", &[2])
        .int("ceil_mode", 1);
    let y = run(&model(13, &[1, 1, 5], vec![node], vec![]), &[1.0, -2.0, 5.0, 7.0, -4.0]);
    assert_eq!((y.shape.0.as_slice(), y.data.as_slice()), (&[1, 1, 3][..], &[1.0, 7.0, -4.0][..]));
}

#[test]
fn clip_reads_attributes_or_operands() {
    let x = [-2.0, 0.1, 3.0];
    let old = node("Clip", &["x"], "y").float("min", -0.5).float("max", 1.0);
    assert_eq!(run(&model(6 + 1, &[1, 3], vec![old], vec![]), &x).data, [-0.5, 0.1, 1.0]);
    let new = node("Clip", &["x", "", "high"], "y");
    let high = reals("high", &[], &[1.0]);
    assert_eq!(run(&model(11, &[1, 3], vec![new], vec![high]), &x).data, [-2.0, 0.1, 1.0]);
}

#[test]
fn products_take_the_constant_on_either_side() {
    let weights = || reals("w", &[3, 3], &noise(9));
    let matmul = |inputs: &[&str]| {
        model(13, &[1, 2, 3, 3], vec![node("MatMul", inputs, "y")], vec![weights()])
    };
    check("right", matmul(&["x", "w"]), 18);
    check("left", matmul(&["w", "x"]), 18);
    let gemm = node("Gemm", &["w", "x", "c"], "y")
        .int("transA", 1)
        .int("transB", 1)
        .float("alpha", 0.5)
        .float("beta", 2.0);
    let addend = reals("c", &[3, 1], &noise(3));
    let x = noise(6);
    let y = run(&model(13, &[2, 3], vec![gemm], vec![weights(), addend.clone()]), &x);
    let (w, c) = (noise(9), noise(3));
    for row in 0..3 {
        for column in 0..2 {
            let dot: f32 = (0..3).map(|k| w[k * 3 + row] * x[column * 3 + k]).sum();
            assert!((y.data[row * 2 + column] - 0.5 * dot - 2.0 * c[row]).abs() < 1e-5);
        }
    }
}

#[test]
fn shapes_computed_from_the_input_are_constants() {
    let nodes = vec![
        node("Shape", &["x"], "shape"),
        node("Gather", &["shape", "zero"], "batch").int("axis", 0),
        node("Concat", &["batch", "rest"], "target").int("axis", 0),
        node("Reshape", &["x", "target"], "y"),
    ];
    let constants = vec![integers("zero", &[0]), integers("rest", &[-1])];
    assert_eq!(run(&model(13, &[0, 2, 3], nodes, constants), &noise(6)).shape.0, [1, 6]);
}

#[test]
fn a_fixed_batch_becomes_one_where_a_reshape_spells_it_out() {
    let mut model = model(
        9,
        &[10, 2, 3],
        vec![node("Reshape", &["x", "target"], "y")],
        vec![integers("target", &[10, 6])],
    );
    model.graph.as_mut().unwrap().output[0] = value("y", &[10, 6]);
    let imported = import_bytes(&model.encode_to_vec(), &ImportOptions::default()).unwrap();
    assert_eq!(imported.graph.node(imported.graph.output()).shape.0, [1, 6]);
    assert_eq!(imported.warnings, ["the batch of 10 in the file is taken as 1"]);
}

#[test]
fn dequantised_weights_are_constants() {
    let weights = TensorProto {
        name: "q".into(),
        dims: vec![2, 2],
        data_type: DataType::Int8 as i32,
        raw_data: [1i8, -2, 3, 4].iter().map(|&v| v as u8).collect(),
        ..TensorProto::default()
    };
    let nodes = vec![
        node("DequantizeLinear", &["q", "scale"], "w").int("axis", 0),
        node("Gemm", &["x", "w"], "y").int("transB", 1),
    ];
    let scale = reals("scale", &[2], &[0.5, 2.0]);
    let y = run(&model(13, &[1, 2], nodes, vec![weights, scale]), &[1.0, 10.0]);
    assert_eq!(y.data, [-9.5, 86.0]);
}

#[test]
fn every_unsupported_node_is_listed() {
    let nodes = vec![
        node("LayerNormalization", &["x", "scale"], "a"),
        node("Conv", &["a", "w"], "b").ints("kernel_shape", &[2, 2]),
        node("Relu", &["b"], "c"),
        node("Frobnicate", &["c"], "d"),
        node("Add", &["d", "c"], "e"),
        node("TopK", &["e"], "y"),
        node("LSTM", &["x"], "unused"),
    ];
    let constants = vec![reals("scale", &[4], &noise(4)), reals("w", &[2, 1, 3, 3], &noise(18))];
    let error = refusal(&model(17, &[1, 1, 4, 4], nodes, constants));
    let ImportError::Unsupported(refused) = &error else { panic!("{error}") };
    let names: Vec<&str> = refused.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["layernormalization_a", "conv_b", "frobnicate_d", "topk_y"]);
    assert_eq!(error.to_string().lines().count(), 4);
    assert!(error.to_string().starts_with(
        "node layernormalization_a (LayerNormalization): it normalises by statistics of the input \
         itself; "
    ));
}

#[test]
fn inputs_and_outputs_are_chosen_by_name() {
    let mut two =
        model(13, &[1, 3], vec![node("Relu", &["x"], "y"), node("Neg", &["x"], "z")], vec![]);
    two.graph.as_mut().unwrap().output.push(value("z", &[1, 3]));
    let bytes = two.encode_to_vec();
    let names = |of: &[Declared]| of.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
    let both = import_bytes(&bytes, &ImportOptions::default()).unwrap();
    assert_eq!(names(&both.outputs), ["y", "z"]);
    let x = Tensor::new(Shape::new([1, 3]), vec![-1.0, 0.0, 2.0]);
    let joined = evaluate_batch(&both.graph, &[x]).remove(0);
    assert_eq!(joined.data, [0.0, 0.0, 2.0, 1.0, 0.0, -2.0]);
    let choose = |name: &str| ImportOptions { outputs: vec![name.into()], ..Default::default() };
    assert_eq!(names(&import_bytes(&bytes, &choose("z")).unwrap().outputs), ["z"]);
    assert!(matches!(import_bytes(&bytes, &choose("q")), Err(ImportError::NoSuchOutput { .. })));
    let graph = two.graph.as_mut().unwrap();
    graph.input.push(value("other", &[1, 3]));
    graph.node[0] = node("Add", &["x", "other"], "y");
    let bytes = two.encode_to_vec();
    let both = import_bytes(&bytes, &ImportOptions::default()).unwrap();
    assert_eq!(names(&both.inputs), ["x", "other"]);
    let x = Tensor::new(Shape::new([1, 6]), vec![-1.0, 0.0, 2.0, 10.0, 20.0, 30.0]);
    let sums = evaluate_batch(&both.graph, &[x]).remove(0);
    assert_eq!(sums.data, [9.0, 20.0, 32.0, 1.0, 0.0, -2.0]);
    assert_eq!(names(&import_bytes(&bytes, &choose("z")).unwrap().inputs), ["x"]);
}

#[test]
fn open_sizes_beside_the_batch_are_bound_by_name() {
    let model = model(13, &[1, 0], vec![node("Relu", &["x"], "y")], vec![]);
    let message = refusal(&model).to_string();
    assert!(message.contains("N (axis 1 of input x); set each by --dim NAME=N"), "{message}");
    let set = |name: &str| {
        let dims = [(name.to_owned(), 7)].into();
        import_bytes(&model.encode_to_vec(), &ImportOptions { dims, ..Default::default() })
    };
    assert_eq!(set("N").unwrap().input_shape().0, [1, 7]);
    assert_eq!(set("x.1").unwrap().input_shape().0, [1, 7]);
    assert!(matches!(set("M"), Err(ImportError::OpenSizes(_))));
}

#[test]
fn an_open_first_axis_is_a_batch_only_where_nothing_counts_or_mixes_along_it() {
    let import = |nodes: Vec<NodeProto>, size: i64, axis: BatchAxis, dims: &[(&str, usize)]| {
        let constants = vec![integers("zero", &[0]), reals("w", &[3, 3], &noise(9))];
        let bytes = model(13, &[size, 3], nodes, constants).encode_to_vec();
        let dims = dims.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        import_bytes(&bytes, &ImportOptions { dims, batch_axis: axis, ..Default::default() })
    };
    let softmax = || vec![node("Softmax", &["x"], "y").int("axis", 0)];
    let counted = || {
        vec![
            node("Shape", &["x"], "s"),
            node("Gather", &["s", "zero"], "n"),
            node("Cast", &["n"], "f").int("to", 1),
            node("Mul", &["x", "f"], "y"),
        ]
    };
    let product = || vec![node("MatMul", &["x", "w"], "y")];
    let open = import(product(), 0, BatchAxis::Proven, &[]).unwrap();
    assert_eq!((open.batch, &open.input_shape().0[..]), (Batch::Open, &[1, 3][..]));
    let fixed = import(product(), 4, BatchAxis::Proven, &[]).unwrap();
    assert_eq!((fixed.batch, &fixed.input_shape().0[..]), (Batch::Fixed(4), &[1, 3][..]));
    for (nodes, reason) in
        [(softmax(), "softmax_y mixes"), (counted(), "mul_y depends on its length")]
    {
        let refused = import(nodes.clone(), 0, BatchAxis::Proven, &[]).err().unwrap().to_string();
        assert!(refused.contains(reason) && refused.contains("--dim N=N"), "{refused}");
        let set = import(nodes.clone(), 0, BatchAxis::Proven, &[("N", 4)]).unwrap();
        let given = import(nodes.clone(), 4, BatchAxis::None, &[]).unwrap();
        let one = import(nodes, 4, BatchAxis::First, &[]).unwrap();
        assert_eq!(given.input_shape().0, [4, 3]);
        assert_eq!(one.input_shape().0, [1, 3]);
        assert_eq!(set.outputs[0].shape, set.inputs[0].shape);
    }
    let whole = import(softmax(), 4, BatchAxis::Proven, &[]).unwrap();
    assert_eq!((whole.batch, &whole.input_shape().0[..]), (Batch::None, &[4, 3][..]));
    assert!(
        whole.warnings[0].contains("is no batch: node softmax_y mixes"),
        "{:?}",
        whole.warnings
    );
}

#[test]
fn external_data_stays_in_the_models_folder() {
    let folder = folder("external");
    let with_location = |location: &str, offset: u64| {
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        let mut weights = reals("w", &[2, 2], &[]);
        weights.data_location = Some(DataLocation::External as i32);
        weights.external_data = vec![
            entry("location", location.into()),
            entry("offset", offset.to_string()),
            entry("length", "16".into()),
        ];
        let matmul = model(13, &[1, 2], vec![node("MatMul", &["x", "w"], "y")], vec![weights]);
        let path = folder.join("model.onnx");
        std::fs::write(&path, matmul.encode_to_vec()).unwrap();
        import_file(&path, &ImportOptions::default())
    };
    let data = [9.0f32, 1.0, 2.0, 3.0, 4.0];
    let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.join("weights.bin"), bytes).unwrap();
    let imported = with_location("weights.bin", 4).unwrap();
    let x = Tensor::new(Shape::new([1, 2]), vec![1.0, 10.0]);
    assert_eq!(evaluate_batch(&imported.graph, &[x])[0].data, [31.0, 42.0]);
    for (location, offset) in [
        ("weights.bin", 5),
        ("weights.bin", u64::MAX),
        ("../weights.bin", 0),
        ("/etc/passwd", 0),
        ("missing", 0),
    ] {
        let error = with_location(location, offset).err().map(|e| e.to_string()).unwrap();
        assert!(error.starts_with("external data of tensor \"w\": "), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

fn small_network() -> Vec<u8> {
    let nodes = vec![
        node("Conv", &["x", "w"], "a").ints("pads", &[1, 1, 1, 1]).ints("strides", &[2, 2]),
        node("Relu", &["a"], "b"),
        node("MaxPool", &["b"], "c").ints("kernel_shape", &[2, 2]).int("ceil_mode", 1),
        node("Shape", &["c"], "s"),
        node("Slice", &["s", "zero", "one"], "n"),
        node("Concat", &["n", "rest"], "t").int("axis", 0),
        node("Reshape", &["c", "t"], "d"),
        node("Gemm", &["d", "v"], "y").int("transB", 1),
    ];
    let constants = vec![
        reals("w", &[2, 1, 3, 3], &noise(18)),
        integers("zero", &[0]),
        integers("one", &[1]),
        integers("rest", &[-1]),
        reals("v", &[2, 8], &noise(16)),
    ];
    model(13, &[0, 1, 5, 5], nodes, constants).encode_to_vec()
}

/// Neither a panic nor an internal error, and one line per refused node.
fn survives(bytes: &[u8]) -> bool {
    match import_bytes(bytes, &ImportOptions::default()) {
        Ok(_) => return true,
        Err(ImportError::Internal(e)) => panic!("{e}"),
        Err(ImportError::Unsupported(nodes)) => {
            assert!(nodes.iter().all(|n| n.to_string().lines().count() == 1));
        }
        Err(e) => assert_eq!(e.to_string().lines().count(), 1, "{e}"),
    }
    false
}

#[test]
fn every_prefix_of_a_model_is_refused_without_a_panic() {
    let bytes = small_network();
    assert!(survives(&bytes));
    let imported = (0..bytes.len()).filter(|&n| survives(&bytes[..n])).count();
    assert_eq!(imported, 0);
}

#[test]
fn damaged_models_do_not_panic() {
    let bytes = small_network();
    for (position, flip) in (0..bytes.len()).flat_map(|p| [1, 8, 0x80, 0xff].map(|f| (p, f))) {
        let mut damaged = bytes.clone();
        damaged[position] ^= flip;
        survives(&damaged);
    }
}
