//! Integers and booleans: computed as ONNX means them, or refused.

mod build;

use build::{import, int32, model, node, raw, reals, refusal, run, uint8, with_int, with_ints};
use tract_onnx::pb::tensor_proto::DataType;

const INT32: DataType = DataType::Int32;
const UINT8: DataType = DataType::Uint8;

fn cast(x: &str, y: &str, to: DataType) -> tract_onnx::pb::NodeProto {
    with_int(node("Cast", &[x], &[y]), "to", to as i64)
}

#[test]
fn bytes_that_the_model_scales_itself_stay_bytes() {
    let nodes = vec![cast("x", "f", DataType::Float), node("Mul", &["f", "s"], &["y"])];
    let model = model((UINT8, &[1, 2]), nodes, vec![reals("s", &[], &[0.5])]);
    assert_eq!(run(&model, &[255.0, 3.0]), [127.5, 1.5]);
}

#[test]
fn integer_arithmetic_is_exact_where_nothing_wraps_around() {
    let nodes = vec![
        cast("x", "i", INT32),
        node("Mul", &["i", "three"], &["m"]),
        node("Sub", &["m", "big"], &["y"]),
    ];
    let constants = vec![int32("three", &[], &[-3]), int32("big", &[], &[1000])];
    let exact = model((UINT8, &[1, 2]), nodes, constants);
    assert_eq!(run(&exact, &[255.0, 1.0]), [-1765.0, -1003.0]);
    // In bytes 255 + 1 is 0.
    let nodes = vec![node("Add", &["x", "one"], &["y"])];
    let text = refusal(&model((UINT8, &[1, 2]), nodes, vec![uint8("one", &[], &[1])]));
    assert!(
        text.contains("node y (Add)") && text.contains("uint8") && text.contains("wraps"),
        "{text}"
    );
    let nodes = vec![node("Sub", &["most", "x"], &["y"])];
    let fits = model((UINT8, &[1, 2]), nodes, vec![uint8("most", &[], &[255])]);
    assert_eq!(run(&fits, &[255.0, 1.0]), [0.0, 254.0]);
}

#[test]
fn divisions_of_integers_are_refused() {
    let divisor = || vec![int32("two", &[], &[2])];
    let nodes = vec![node("Div", &["x", "two"], &["y"])];
    let text = refusal(&model((INT32, &[1, 2]), nodes, divisor()));
    assert!(text.contains("node y (Div)") && text.contains("cuts fractions off"), "{text}");
    let nodes = vec![with_ints(node("ReduceMean", &["x"], &["y"]), "axes", &[1])];
    let text = refusal(&model((INT32, &[1, 2]), nodes, vec![]));
    assert!(text.contains("ReduceMean") && text.contains("cuts fractions off"), "{text}");
    let nodes = vec![cast("x", "f", DataType::Float), node("Div", &["f", "half"], &["y"])];
    let real = model((INT32, &[1, 2]), nodes, vec![reals("half", &[], &[2.0])]);
    assert_eq!(run(&real, &[3.0, -1.0]), [1.5, -0.5]);
}

#[test]
fn casts_of_floats_truncate_at_the_output_and_nowhere_else() {
    let float = (DataType::Float, &[1i64, 3][..]);
    let y = run(&model(float, vec![cast("x", "y", DataType::Int64)], vec![]), &[2.9, -2.9, 0.4]);
    assert_eq!(y, [2.0, -2.0, 0.0]);
    let like = vec![node("CastLike", &["x", "l"], &["i"]), cast("i", "y", DataType::Float)];
    let long = raw("l", DataType::Int64, &[1], vec![0; 8]);
    assert_eq!(run(&model(float, like, vec![long]), &[2.9, -2.9, 0.4]), [2.0, -2.0, 0.0]);
    let inside = vec![
        cast("x", "i", DataType::Int64),
        cast("i", "f", DataType::Float),
        node("Relu", &["f"], &["y"]),
    ];
    let imported = import(&model(float, inside, vec![])).unwrap();
    let options = polyc::passes::PassOptions::default();
    let error = polyc::prepare_plain(imported, &options).err().unwrap().to_string();
    assert!(error.contains("node i (Cast)"), "{error}");
    let text = refusal(&model(float, vec![cast("x", "y", DataType::Bool)], vec![]));
    assert!(text.contains("compares with zero"), "{text}");
}

#[test]
fn constants_are_cast_like_values() {
    let nodes = vec![node("CastLike", &["c", "x"], &["d"]), node("Add", &["x", "d"], &["y"])];
    let two = raw("c", DataType::Int64, &[], 2i64.to_le_bytes().to_vec());
    let y = run(&model((DataType::Float, &[1, 2]), nodes, vec![two]), &[0.5, -1.0]);
    assert_eq!(y, [2.5, 1.0]);
}

#[test]
fn integers_narrow_only_where_their_range_allows() {
    let clipped = |x: &str, y: &str| node("Clip", &[x, "low", "high"], &[y]);
    let constants = || vec![int32("low", &[], &[0]), int32("high", &[], &[200])];
    let nodes = vec![clipped("x", "c"), cast("c", "y", UINT8)];
    assert_eq!(run(&model((INT32, &[1, 2]), nodes, constants()), &[-5.0, 300.0]), [0.0, 200.0]);
    let text = refusal(&model((INT32, &[1, 2]), vec![cast("x", "y", UINT8)], vec![]));
    assert!(text.contains("node y (Cast)") && text.contains("wraps"), "{text}");
}

#[test]
fn operators_of_floats_refuse_integers_and_mixtures_are_invalid() {
    let text = refusal(&model((INT32, &[1, 2]), vec![node("Sigmoid", &["x"], &["y"])], vec![]));
    assert!(text.contains("of numbers of type int32"), "{text}");
    let nodes = vec![node("Add", &["x", "c"], &["y"])];
    let text = refusal(&model((INT32, &[1, 2]), nodes, vec![reals("c", &[], &[1.0])]));
    assert!(text.contains("types int32 and float"), "{text}");
}

#[test]
fn inputs_without_numbers_are_refused() {
    for (kind, name) in [(DataType::String, "string"), (DataType::Complex64, "complex64")] {
        let text = refusal(&model((kind, &[1, 2]), vec![node("Identity", &["x"], &["y"])], vec![]));
        assert!(text.contains("input x") && text.contains(name), "{text}");
    }
}
