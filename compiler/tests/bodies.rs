//! The import of models with bodies inside: functions, branches and loops that constants decide, sequences; and of
//! results that are left out, constants that are folded, and files that grow without bound.

use ir::graph::evaluate;
use ir::tensor::{Shape, Tensor};
use polyc::onnx::{ImportError, ImportOptions, import_bytes};
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim =
        |&d: &i64| Dimension { value: Some(dimension::Value::DimValue(d)), ..Dimension::default() };
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
        float_data: data.to_vec(),
        ..TensorProto::default()
    }
}

fn integers(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Int64 as i32,
        int64_data: data.to_vec(),
        ..TensorProto::default()
    }
}

fn truth(name: &str, holds: bool) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: DataType::Bool as i32,
        int32_data: vec![i32::from(holds)],
        ..TensorProto::default()
    }
}

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |n: &[&str]| n.iter().map(|s| s.to_string()).collect();
    NodeProto {
        op_type: operator.into(),
        name: format!("{}_{}", operator.to_lowercase(), outputs.join("_")),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

fn with(mut node: NodeProto, name: &str, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(AttributeProto { name: name.into(), ..attribute });
    node
}

fn graph_of(graph: GraphProto) -> AttributeProto {
    AttributeProto { r#type: AttributeType::Graph as i32, g: Some(graph), ..Default::default() }
}

fn float(f: f32) -> AttributeProto {
    AttributeProto { r#type: AttributeType::Float as i32, f, ..Default::default() }
}

fn int(i: i64) -> AttributeProto {
    AttributeProto { r#type: AttributeType::Int as i32, i, ..Default::default() }
}

fn body(
    inputs: &[&str],
    nodes: Vec<NodeProto>,
    outputs: &[&str],
    initializer: Vec<TensorProto>,
) -> GraphProto {
    let values = |names: &[&str]| names.iter().map(|n| value(n, &[])).collect();
    GraphProto {
        input: values(inputs),
        node: nodes,
        output: values(outputs),
        initializer,
        ..GraphProto::default()
    }
}

/// A model from `x`, of shape [1, 4], to `y`.
fn model(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer,
        input: vec![value("x", &[1, 4])],
        output: vec![ValueInfoProto { name: "y".into(), ..ValueInfoProto::default() }],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![opset("", 17), opset("own", 1)],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.into(), version }
}

const X: [f32; 4] = [1.0, -2.0, 3.0, 0.5];

/// The output of a model for [`X`].
fn run(model: &ModelProto) -> Result<Vec<f32>, ImportError> {
    let imported = import_bytes(&model.encode_to_vec(), &ImportOptions::default())?;
    let x = Tensor::new(Shape::new([1, 4]), X.to_vec());
    Ok(evaluate(&imported.graph, &x, |_, _| ()).data)
}

fn gives(model: &ModelProto, want: &[f32]) {
    let got = run(model).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-5, "{got:?}, expected {want:?}");
    }
}

fn refused(model: &ModelProto, part: &str) {
    let error = run(model).expect_err("it is refused").to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn a_left_out_result_is_not_a_left_out_operand() {
    let split = with(node("Split", &["x"], &["", "b"]), "axis", int(1));
    let gemm = with(node("Gemm", &["b", "w", ""], &["y"]), "transB", int(1));
    let weights = reals("w", &[2, 2], &[1.0, 2.0, 0.0, 1.0]);
    gives(&model(vec![split, gemm], vec![weights]), &[4.0, 0.5]);
    let dropout = node("Dropout", &["x"], &["d", ""]);
    let clip = node("Clip", &["d", "", "top"], &["y"]);
    gives(&model(vec![dropout, clip], vec![reals("top", &[], &[1.0])]), &[1.0, -2.0, 1.0, 0.5]);
}

#[test]
fn a_result_that_a_node_does_not_give_is_refused_once_where_it_is_read() {
    let dropout = node("Dropout", &["x"], &["d", "mask"]);
    gives(
        &model(vec![dropout.clone(), node("Neg", &["d"], &["y"])], vec![]),
        &[-1.0, 2.0, -3.0, -0.5],
    );
    let cast = with(node("Cast", &["mask"], &["m"]), "to", int(1));
    let both = vec![dropout, cast, node("Mul", &["d", "m"], &["y"])];
    let error = run(&model(both, vec![])).unwrap_err();
    let ImportError::Unsupported(nodes) = error else { panic!("{error}") };
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].name, "dropout_d_mask");
}

/// `If` whose branches add and subtract the captured `x` and a constant of the branch's own.
fn branches(condition: &str) -> NodeProto {
    let branch = |operator, c| {
        let own = reals("c", &[1], &[c]);
        graph_of(body(&[], vec![node(operator, &["x", "c"], &["r"])], &["r"], vec![own]))
    };
    let chosen = with(node("If", &[condition], &["y"]), "then_branch", branch("Add", 10.0));
    with(chosen, "else_branch", branch("Sub", 1.0))
}

#[test]
fn the_branch_of_a_constant_condition_is_taken() {
    let holds = |v| vec![truth("c", v)];
    gives(&model(vec![branches("c")], holds(true)), &[11.0, 8.0, 13.0, 10.5]);
    gives(&model(vec![branches("c")], holds(false)), &[0.0, -3.0, 2.0, -0.5]);
    // A condition that shapes decide.
    let nodes = vec![
        node("Shape", &["x"], &["s"]),
        node("Gather", &["s", "one"], &["n"]),
        node("Greater", &["n", "four"], &["c"]),
        branches("c"),
    ];
    let constants = vec![integers("one", &[], &[1]), integers("four", &[], &[4])];
    gives(&model(nodes, constants), &[0.0, -3.0, 2.0, -0.5]);
    let nodes = vec![node("ReduceMax", &["x"], &["m"]), branches("m")];
    refused(&model(nodes, vec![]), "node if_y (If): its condition is computed from the input");
}

#[test]
fn a_branch_may_give_what_it_captures_and_nest() {
    let inner = |c| {
        let then = graph_of(body(&[], vec![], &["x"], vec![]));
        let other = graph_of(body(&[], vec![node("Neg", &["x"], &["r"])], &["r"], vec![]));
        let choice = with(node("If", &[c], &["r"]), "then_branch", then);
        vec![with(choice, "else_branch", other)]
    };
    let then = graph_of(body(&[], inner("no"), &["r"], vec![]));
    let other = graph_of(body(&[], inner("yes"), &["r"], vec![]));
    for (condition, want) in [("yes", X.map(|v| -v)), ("no", X)] {
        let outer = with(node("If", &[condition], &["y"]), "then_branch", then.clone());
        let outer = with(outer, "else_branch", other.clone());
        gives(&model(vec![outer], vec![truth("yes", true), truth("no", false)]), &want);
    }
}

/// `Loop` that doubles its value and stacks what it had, while `i < last`.
fn doubling(count: &str, last: i64) -> NodeProto {
    let nodes = vec![
        node("Add", &["v", "v"], &["w"]),
        node("Less", &["i", "last"], &["go"]),
        node("Identity", &["v"], &["had"]),
    ];
    let own = vec![integers("last", &[], &[last])];
    let body = graph_of(body(&["i", "c", "v"], nodes, &["go", "w", "had"], own));
    with(node("Loop", &[count, "", "x"], &["end", "all"]), "body", body)
}

#[test]
fn loops_of_constant_length_are_unrolled() {
    let three = || vec![integers("n", &[], &[3]), integers("axes", &[1], &[0])];
    let end = node("Identity", &["end"], &["y"]);
    gives(&model(vec![doubling("n", 9), end.clone()], three()), &X.map(|v| 8.0 * v));
    // The condition ends it after the second iteration.
    gives(&model(vec![doubling("n", 1), end.clone()], three()), &X.map(|v| 4.0 * v));
    let all = node("ReduceSum", &["all", "axes"], &["y"]);
    gives(&model(vec![doubling("n", 9), all], three()), &X.map(|v| 7.0 * v));
    let counted = vec![
        with(node("Cast", &["x"], &["k"]), "to", int(7)),
        node("ReduceMax", &["k"], &["n"]),
        doubling("n", 9),
        end.clone(),
    ];
    let error = run(&model(counted, vec![])).unwrap_err().to_string();
    assert!(error.contains("loop_end_all (Loop): its number of iterations is computed"), "{error}");
    refused(&model(vec![doubling("", i64::MAX), end], vec![]), "unrolls to more than");
}

#[test]
fn scans_take_one_entry_at_a_time() {
    let nodes = vec![node("Add", &["s", "e"], &["t"]), node("Identity", &["t"], &["out"])];
    let scan = |backwards: i64| {
        let body = graph_of(body(&["s", "e"], nodes.clone(), &["t", "out"], vec![]));
        let scan = node("Scan", &["zero", "x"], &["last", "all"]);
        let scan = with(with(scan, "body", body), "num_scan_inputs", int(1));
        let ints = |ints| AttributeProto {
            r#type: AttributeType::Ints as i32,
            ints,
            ..AttributeProto::default()
        };
        let scan = with(scan, "scan_input_axes", ints(vec![1]));
        with(scan, "scan_input_directions", ints(vec![backwards]))
    };
    let flat = |name| node("Reshape", &[name, "shape"], &["y"]);
    let constants = || vec![reals("zero", &[1], &[0.0]), integers("shape", &[2], &[1, 4])];
    gives(&model(vec![scan(0), flat("all")], constants()), &[1.0, -1.0, 2.0, 2.5]);
    gives(&model(vec![scan(1), flat("all")], constants()), &[0.5, 3.5, 1.5, 2.5]);
}

/// `own.scale(a; factor = 3)` is `a·factor + a`; `own.twice` calls it twice.
fn functions() -> Vec<FunctionProto> {
    let function = |name: &str, nodes, attribute: Vec<String>| FunctionProto {
        name: Some(name.into()),
        domain: Some("own".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute,
        node: nodes,
        opset_import: vec![opset("", 17), opset("own", 1)],
        ..FunctionProto::default()
    };
    let reference = AttributeProto {
        r#type: AttributeType::Float as i32,
        ref_attr_name: "factor".into(),
        ..AttributeProto::default()
    };
    let scaled = vec![
        with(node("Constant", &[], &["f"]), "value_float", reference),
        node("Mul", &["a", "f"], &["t"]),
        node("Add", &["t", "a"], &["b"]),
    ];
    let call = |input, output, factor| {
        let call = NodeProto { domain: "own".into(), ..node("scale", &[input], &[output]) };
        with(call, "factor", float(factor))
    };
    vec![
        function("scale", scaled, vec!["factor".into()]),
        function("twice", vec![call("a", "t", 1.0), call("t", "b", 2.0)], vec![]),
    ]
}

fn call(function: &str, input: &str, output: &str) -> NodeProto {
    NodeProto { domain: "own".into(), ..node(function, &[input], &[output]) }
}

#[test]
fn functions_are_inlined() {
    let nodes = vec![call("twice", "x", "t"), call("twice", "t", "y")];
    let with_functions = ModelProto { functions: functions(), ..model(nodes, vec![]) };
    gives(&with_functions, &X.map(|v| 36.0 * v));
    // Inside a branch, where the function reads what the branch captures.
    let then = graph_of(body(&[], vec![call("twice", "x", "r")], &["r"], vec![]));
    let other = graph_of(body(&[], vec![], &["x"], vec![]));
    let choice = with(node("If", &["c"], &["y"]), "then_branch", then);
    let choice = with(choice, "else_branch", other);
    let inside =
        ModelProto { functions: functions(), ..model(vec![choice], vec![truth("c", true)]) };
    gives(&inside, &X.map(|v| 6.0 * v));
}

#[test]
fn functions_that_call_themselves_or_double_are_refused() {
    let mut own = functions();
    own[0].node = vec![call("twice", "a", "b")];
    let endless = ModelProto { functions: own, ..model(vec![call("twice", "x", "y")], vec![]) };
    refused(&endless, "call each other more than");
    // f0 calls f1 twice, f1 calls f2 twice, …
    let doubled = |i: usize| FunctionProto {
        name: Some(format!("f{i}")),
        node: vec![call(&format!("f{}", i + 1), "a", "t"), call(&format!("f{}", i + 1), "t", "b")],
        ..functions()[1].clone()
    };
    let mut many: Vec<FunctionProto> = (0..30).map(doubled).collect();
    many.push(FunctionProto { name: Some("f30".into()), ..functions()[0].clone() });
    let grown = ModelProto { functions: many, ..model(vec![call("f0", "x", "y")], vec![]) };
    refused(&grown, "make more than");
}

#[test]
fn a_function_of_another_operator_set_is_taken_only_where_it_means_the_same() {
    let mut own = functions();
    own[0].opset_import = vec![opset("", 13)];
    let nodes = vec![call("scale", "x", "y")];
    let mut scaled = ModelProto { functions: own.clone(), ..model(nodes.clone(), vec![]) };
    scaled.graph.as_mut().unwrap().node[0] = with(call("scale", "x", "y"), "factor", float(4.0));
    gives(&scaled, &X.map(|v| 5.0 * v));
    own[0].opset_import = vec![opset("", 12)];
    own[0].node = vec![node("Softmax", &["a"], &["b"])];
    refused(&ModelProto { functions: own, ..model(nodes, vec![]) }, "operator set 12");
}

#[test]
fn sequences_are_lists_of_values() {
    let nodes = vec![
        node("SequenceConstruct", &["x", "c"], &["s"]),
        node("SequenceInsert", &["s", "x", "last"], &["t"]),
        node("SequenceErase", &["t", "zero"], &["u"]),
        with(node("ConcatFromSequence", &["u"], &["y"]), "axis", int(1)),
    ];
    let constants = vec![
        reals("c", &[1, 2], &[7.0, 8.0]),
        integers("last", &[], &[-1]),
        integers("zero", &[], &[0]),
    ];
    gives(&model(nodes, constants), &[1.0, -2.0, 3.0, 0.5, 7.0, 8.0]);
    let nodes = vec![
        with(node("SplitToSequence", &["x", "lengths"], &["s"]), "axis", int(1)),
        node("SequenceAt", &["s", "zero"], &["y"]),
    ];
    let constants = || vec![integers("lengths", &[2], &[1, 3]), integers("zero", &[], &[1])];
    gives(&model(nodes.clone(), constants()), &[-2.0, 3.0, 0.5]);
    let beyond = vec![integers("lengths", &[2], &[1, 3]), integers("zero", &[], &[2])];
    refused(&model(nodes, beyond), "position 2 does not exist");
}

#[test]
fn constants_fold_by_tract_or_by_the_import() {
    let add = node("Add", &["x", "k"], &["y"]);
    let of = |n: NodeProto, constants: Vec<TensorProto>| model(vec![n, add.clone()], constants);
    let c = || reals("c", &[1, 4], &[3.0, 4.0, 0.0, 0.0]);
    let norm = node("ReduceL2", &["c"], &["k"]);
    gives(&of(norm, vec![c()]), &X.map(|v| v + 5.0));
    // tract leaves `alpha` out.
    let elu = with(node("Elu", &["c"], &["k"]), "alpha", float(2.0));
    let negative = reals("c", &[1], &[-1.0]);
    gives(&of(elu, vec![negative]), &X.map(|v| v + 2.0 * ((-1.0f32).exp() - 1.0)));
    let random = node("RandomNormalLike", &["c"], &["k"]);
    refused(&of(random, vec![c()]), "its result is random");
    let beyond = node("Gather", &["c", "i"], &["k"]);
    refused(&of(beyond, vec![c(), integers("i", &[1], &[7])]), "an index lies outside");
    let huge = node("Expand", &["c", "shape"], &["k"]);
    refused(&of(huge, vec![c(), integers("shape", &[3], &[1 << 20, 1 << 20, 4])]), "expand_k");
    let mixed = node("Where", &["t", "c", "i"], &["k"]);
    let operands = vec![truth("t", true), c(), integers("i", &[1, 4], &[1, 2, 3, 4])];
    refused(&of(mixed, operands), "different types");
}

#[test]
fn old_operator_sets_are_read_as_they_were_meant() {
    let mut add = with(node("Add", &["x", "c"], &["y"]), "broadcast", int(1));
    add = with(add, "axis", int(0));
    let mut old = model(vec![add], vec![reals("c", &[1], &[10.0])]);
    old.opset_import = vec![opset("", 6)];
    gives(&old, &X.map(|v| v + 10.0));
    let upsample = with(node("Upsample", &["x"], &["y"]), "height_scale", float(2.0));
    let mut old = model(vec![upsample], vec![]);
    old.opset_import = vec![opset("", 6)];
    refused(&old, "operator set 6 is not supported for this operator");
    old.opset_import = vec![opset("", 29)];
    refused(&old, "operator set 29 is not supported, expected 1 to 28");
}
