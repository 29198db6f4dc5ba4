//! Operator sets: what a version of ONNX's operators means in another, and nodes of sets before 7 as those of set 7.

use super::node::{Refusal, refuse};
use tract_onnx::pb::NodeProto;

/// The newest operator set that the import was held against.
pub(super) const NEWEST: i64 = 28;
/// The set that the translations of old nodes are written for.
const SEVEN: i64 = 7;

/// Whether an operator of ONNX's own domain means the same in two operator sets.
pub(super) fn means_the_same(operator: &str, a: i64, b: i64) -> bool {
    let (low, high) = (a.min(b), a.max(b));
    let at = CHANGES.binary_search_by_key(&operator, |(name, _)| name);
    at.map_or(true, |i| CHANGES[i].1.iter().all(|&version| version <= low || version > high))
}

/// Where the second operand of an old node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alignment {
    /// As today: its last axis is the last axis of the first operand.
    Last,
    /// Its first axis is this axis of the first operand.
    At(i64),
}

/// How to read a node of an old operator set as one of set 7.
///
/// # Errors
/// If the operator means something else there that is not understood.
pub(super) fn alignment(node: &NodeProto, opset: i64) -> Result<Alignment, Refusal> {
    if opset >= SEVEN || means_the_same(&node.op_type, opset, SEVEN) {
        return Ok(Alignment::Last);
    }
    let int = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| a.i);
    match node.op_type.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Xor" | "Equal" | "Greater"
        | "Less" => Ok(int("axis")
            .filter(|_| int("broadcast") == Some(1))
            .map_or(Alignment::Last, Alignment::At)),
        // A slope per channel.
        "PRelu" => Ok(Alignment::At(1)),
        "BatchNormalization" | "Dropout" if int("is_test").is_some_and(|v| v != 0) => {
            Ok(Alignment::Last)
        }
        "BatchNormalization" | "Dropout" => Err(refuse(
            "it is in training mode (is_test is not set)",
            "export the model in inference mode",
        )),
        // These lost `consumed_inputs`, got defaults for attributes, or let an operand broadcast.
        "Abs"
        | "AveragePool"
        | "Ceil"
        | "Clip"
        | "Concat"
        | "Elu"
        | "Exp"
        | "Floor"
        | "Gemm"
        | "HardSigmoid"
        | "InstanceNormalization"
        | "LeakyRelu"
        | "Log"
        | "LpPool"
        | "Max"
        | "Mean"
        | "Min"
        | "Neg"
        | "Reciprocal"
        | "Relu"
        | "Reshape"
        | "Selu"
        | "Sigmoid"
        | "Sqrt"
        | "Sum"
        | "Tanh" => Ok(Alignment::Last),
        _ => Err(refuse(
            format!("operator set {opset} is not supported for this operator"),
            "export the model again, with operator set 7 or newer",
        )),
    }
}

/// The versions in which an operator changed its attributes, their defaults, its operands or results, up to
/// [`NEWEST`], by the operators' schemas in the `onnx` package; element types apart.
const CHANGES: &[(&str, &[i64])] = &[
    ("Abs", &[6]),
    ("Add", &[6, 7]),
    ("And", &[7]),
    ("ArgMax", &[12]),
    ("ArgMin", &[12]),
    ("Attention", &[24, 25]),
    ("AveragePool", &[7, 10, 19]),
    ("BatchNormalization", &[6, 7, 9, 14]),
    ("Cast", &[19, 24]),
    ("CastLike", &[19, 24]),
    ("Ceil", &[6]),
    ("Clip", &[6, 11]),
    ("Concat", &[4]),
    ("Constant", &[11, 12]),
    ("DFT", &[20]),
    ("DepthToSpace", &[11]),
    ("DequantizeLinear", &[13, 21, 23]),
    ("Div", &[6, 7]),
    ("Dropout", &[6, 7, 12]),
    ("Elu", &[6]),
    ("Equal", &[7]),
    ("Exp", &[6]),
    ("Floor", &[6]),
    ("GRU", &[3, 7, 14]),
    ("GatherND", &[12]),
    ("Gemm", &[7, 11]),
    ("GlobalLpPool", &[2]),
    ("Greater", &[7]),
    ("GridSample", &[20]),
    ("GroupNormalization", &[21]),
    ("HardSigmoid", &[6]),
    ("Hardmax", &[13]),
    ("InstanceNormalization", &[6]),
    ("LSTM", &[7, 14]),
    ("LeakyRelu", &[6]),
    ("Less", &[7]),
    ("Log", &[6]),
    ("LogSoftmax", &[13]),
    ("LpPool", &[2, 18]),
    ("Max", &[6]),
    ("MaxPool", &[8, 10]),
    ("Mean", &[6]),
    ("Min", &[6]),
    ("Mul", &[6, 7]),
    ("Neg", &[6]),
    ("OptionalHasElement", &[18]),
    ("Or", &[7]),
    ("PRelu", &[6, 7]),
    ("Pad", &[2, 11, 18]),
    ("Pow", &[7]),
    ("QuantizeLinear", &[13, 19, 21, 23]),
    ("RNN", &[7, 14]),
    ("Range", &[27]),
    ("Reciprocal", &[6]),
    ("ReduceL1", &[18]),
    ("ReduceL2", &[18]),
    ("ReduceLogSum", &[18]),
    ("ReduceLogSumExp", &[18]),
    ("ReduceMax", &[18]),
    ("ReduceMean", &[18]),
    ("ReduceMin", &[18]),
    ("ReduceProd", &[18]),
    ("ReduceSum", &[13]),
    ("ReduceSumSquare", &[18]),
    ("Relu", &[6]),
    ("Reshape", &[5, 14]),
    ("Resize", &[11, 13, 18]),
    ("RoiAlign", &[16]),
    ("Scan", &[9]),
    ("Scatter", &[11]),
    ("ScatterElements", &[16]),
    ("ScatterND", &[16]),
    ("Selu", &[6]),
    ("Shape", &[15]),
    ("Sigmoid", &[6]),
    ("Slice", &[10]),
    ("Softmax", &[13]),
    ("SpaceToDepth", &[28]),
    ("Split", &[2, 13, 18]),
    ("Sqrt", &[6]),
    ("Squeeze", &[13]),
    ("Sub", &[6, 7]),
    ("Sum", &[6]),
    ("Tanh", &[6]),
    ("Tile", &[6]),
    ("TopK", &[10, 11]),
    ("Unsqueeze", &[13]),
    ("Upsample", &[7, 9, 10]),
    ("Xor", &[7]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::AttributeProto;

    #[test]
    fn operators_change_where_their_schema_does() {
        assert!(CHANGES.is_sorted_by_key(|(name, _)| name));
        assert!(means_the_same("Relu", 6, 28) && means_the_same("Conv", 1, 28));
        assert!(!means_the_same("Softmax", 12, 13) && !means_the_same("Softmax", 13, 12));
        assert!(means_the_same("Softmax", 13, 28) && means_the_same("Softmax", 1, 12));
    }

    #[test]
    fn old_nodes_are_read_as_they_were_meant() {
        let node = |name: &str, attributes: &[(&str, i64)]| NodeProto {
            op_type: name.into(),
            attribute: attributes
                .iter()
                .map(|&(name, i)| AttributeProto {
                    name: name.into(),
                    i,
                    ..AttributeProto::default()
                })
                .collect(),
            ..NodeProto::default()
        };
        let of = |node: &NodeProto| alignment(node, 6).map_err(|r| r.reason);
        assert_eq!(of(&node("Add", &[("broadcast", 1), ("axis", 1)])), Ok(Alignment::At(1)));
        assert_eq!(of(&node("Add", &[("broadcast", 1)])), Ok(Alignment::Last));
        assert_eq!(of(&node("BatchNormalization", &[("is_test", 1)])), Ok(Alignment::Last));
        assert!(of(&node("BatchNormalization", &[])).unwrap_err().contains("training"));
        assert_eq!(of(&node("Conv", &[])), Ok(Alignment::Last));
        assert!(of(&node("Upsample", &[])).is_err());
    }
}
