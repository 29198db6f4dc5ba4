//! The table of ONNX operators: which are translated, how, and with which limits; and what to say of
//! those that are not.

use super::builder::Builder;
use super::kind;
use super::node::{self, Call, Refusal, Value, refuse};
use super::{
    activation, convolution, dynamic, elementwise, integer, linear, normalization, pooling,
    quantize, reduction, resize, selection, sequence, structure,
};
use ir::graph::NodeId;

/// A supported ONNX operator.
pub struct Operator {
    /// The operator's name in ONNX, with its domain unless that is ONNX's own.
    pub name: &'static str,
    /// The limits within which it is supported; empty where there are none.
    pub note: &'static str,
    pub(super) translation: Translation,
}

/// How a node becomes graph nodes.
#[derive(Clone, Copy)]
pub(super) enum Translation {
    /// One result, computed from the input.
    One(fn(&mut Builder, &Call) -> Result<NodeId, Refusal>),
    /// Any number of results, constants among them.
    Many(fn(&mut Builder, &Call) -> Result<Vec<Value>, Refusal>),
    /// As `Many`, with what the numbers of each result are.
    Typed(fn(&mut Builder, &Call) -> node::Typed),
}

use Translation::{Many, One, Typed};

const fn operator(name: &'static str, note: &'static str, translation: Translation) -> Operator {
    Operator { name, note, translation }
}

/// Every supported operator: ONNX's in alphabetical order, then those of other domains.
pub fn supported_operators() -> impl Iterator<Item = &'static Operator> {
    OPERATORS.iter().chain(MICROSOFT_OPERATORS)
}

static OPERATORS: &[Operator] = &[
    operator("Abs", "", One(activation::abs)),
    operator("Add", "", One(elementwise::add)),
    operator("ArgMax", "at the output; the first of equal maxima", One(normalization::arg_max)),
    operator("AveragePool", "1-D and 2-D, without dilations", One(pooling::average_pool)),
    operator("BatchNormalization", "in inference", One(normalization::batch_normalization)),
    operator(
        "Cast",
        "between integers where nothing wraps around; of floats to integers at the output",
        Typed(kind::cast),
    ),
    operator("CastLike", "as Cast", Typed(kind::cast_like)),
    operator("Celu", "", One(activation::celu)),
    operator("Clip", "", One(activation::clip)),
    operator("Concat", "", One(structure::concat)),
    operator("ConcatFromSequence", "", Typed(sequence::concat)),
    operator("Constant", "", Many(structure::constant)),
    operator("ConstantOfShape", "of constants", One(structure::constant_only)),
    operator("Conv", "1-D and 2-D, constant weights", One(convolution::conv)),
    operator("ConvInteger", "as Conv", Typed(integer::conv_integer)),
    operator("ConvTranspose", "1-D and 2-D, constant weights", One(convolution::conv_transpose)),
    operator("Cos", "", One(activation::cos)),
    operator("DepthToSpace", "", One(structure::depth_to_space)),
    operator("DequantizeLinear", "constant scales", Typed(quantize::dequantize)),
    operator(
        "Div",
        "values by values where both are functions of one value",
        One(elementwise::div),
    ),
    operator("Dropout", "in inference", One(structure::dropout)),
    operator(
        "DynamicQuantizeLinear",
        "in front of integer products that are scaled back",
        Typed(dynamic::dynamic_quantize),
    ),
    operator("Elu", "", One(activation::elu)),
    operator("Erf", "", One(activation::erf)),
    operator("Exp", "", One(activation::exp)),
    operator("Expand", "constant target shape", One(selection::expand)),
    operator("Flatten", "", One(structure::flatten)),
    operator("Gather", "constant indices", One(selection::gather)),
    operator("Gelu", "", One(activation::gelu)),
    operator("Gemm", "one constant factor", One(linear::gemm)),
    operator("GlobalAveragePool", "", One(pooling::global_average_pool)),
    operator("GlobalMaxPool", "", One(pooling::global_max_pool)),
    operator("HardSigmoid", "", One(activation::hard_sigmoid)),
    operator("HardSwish", "", One(activation::hard_swish)),
    operator("Identity", "", One(structure::identity)),
    operator("LeakyRelu", "", One(activation::leaky_relu)),
    operator("Log", "", One(activation::log)),
    operator("LogSoftmax", "at the output", One(normalization::log_softmax)),
    operator("MatMul", "one constant factor, a single matrix", One(linear::mat_mul)),
    operator("MatMulInteger", "as MatMul", Typed(integer::mat_mul_integer)),
    operator("Max", "", One(elementwise::max)),
    operator("MaxPool", "1-D and 2-D, without indices", One(pooling::max_pool)),
    operator("Mean", "", One(elementwise::mean)),
    operator("Min", "", One(elementwise::min)),
    operator("Mish", "", One(activation::mish)),
    operator(
        "Mul",
        "values by values where both are functions of one value",
        One(elementwise::mul),
    ),
    operator("Neg", "", One(activation::neg)),
    operator("Optional", "with an element", Typed(sequence::optional)),
    operator("OptionalGetElement", "", Typed(sequence::optional)),
    operator("OptionalHasElement", "", Typed(sequence::has_element)),
    operator("PRelu", "one slope, or one per channel", One(activation::prelu)),
    operator("Pad", "constant amounts", One(selection::pad)),
    operator("Pow", "one constant exponent, or one constant positive base", One(elementwise::pow)),
    operator("QLinearConv", "as Conv; saturated, not rounded", Typed(integer::qlinear_conv)),
    operator("QLinearMatMul", "as MatMul; saturated, not rounded", Typed(integer::qlinear_mat_mul)),
    operator(
        "QuantizeLinear",
        "to integers, constant scales; saturated, rounded at the output only",
        Typed(quantize::quantize),
    ),
    operator("Reciprocal", "", One(activation::reciprocal)),
    operator("ReduceL1", "constant axes", One(reduction::reduce_l1)),
    operator("ReduceL2", "constant axes", One(reduction::reduce_l2)),
    operator("ReduceMax", "constant axes", One(reduction::reduce_max)),
    operator("ReduceMean", "constant axes", One(reduction::reduce_mean)),
    operator("ReduceMin", "constant axes", One(reduction::reduce_min)),
    operator("ReduceSum", "constant axes", One(reduction::reduce_sum)),
    operator("ReduceSumSquare", "constant axes", One(reduction::reduce_sum_square)),
    operator("Relu", "", One(activation::relu)),
    operator("Reshape", "constant target shape", One(structure::reshape)),
    operator("Resize", "nearest and linear, constant sizes", One(resize::resize)),
    operator("Selu", "", One(activation::selu)),
    operator("SequenceAt", "constant position", Typed(sequence::at)),
    operator("SequenceConstruct", "", Typed(sequence::construct)),
    operator("SequenceEmpty", "", Typed(sequence::construct)),
    operator("SequenceErase", "constant position", Typed(sequence::erase)),
    operator("SequenceInsert", "constant position", Typed(sequence::insert)),
    operator("SequenceLength", "", Typed(sequence::length)),
    operator("Shape", "", Many(structure::shape_of)),
    operator("Sigmoid", "", One(activation::sigmoid)),
    operator("Sign", "", One(activation::sign)),
    operator("Sin", "", One(activation::sin)),
    operator("Size", "", Many(structure::size_of)),
    operator("Slice", "constant bounds", One(selection::slice)),
    operator("Softmax", "at the output", One(normalization::softmax)),
    operator("Softplus", "", One(activation::softplus)),
    operator("Softsign", "", One(activation::softsign)),
    operator("SpaceToDepth", "", One(structure::space_to_depth)),
    operator("Split", "", Many(selection::split)),
    operator("SplitToSequence", "constant lengths", Typed(sequence::split)),
    operator("Sqrt", "", One(activation::sqrt)),
    operator("Squeeze", "", One(structure::squeeze)),
    operator("Sub", "", One(elementwise::sub)),
    operator("Sum", "", One(elementwise::sum)),
    operator("Swish", "", One(activation::swish)),
    operator("Tanh", "", One(activation::tanh)),
    operator("Tile", "constant repeats", One(selection::tile)),
    operator("Transpose", "", One(structure::transpose)),
    operator("Trilu", "constant diagonal", One(elementwise::trilu)),
    operator("Unsqueeze", "", One(structure::unsqueeze)),
    operator("Upsample", "nearest and linear, constant scales", One(resize::upsample)),
    operator("Where", "constant condition", One(elementwise::select)),
];

/// The domain of ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// Those of ONNX Runtime's quantiser, in its domain, in alphabetical order.
static MICROSOFT_OPERATORS: &[Operator] = &[
    operator("com.microsoft.DequantizeLinear", "as ONNX's", Typed(quantize::dequantize)),
    operator(
        "com.microsoft.DynamicQuantizeMatMul",
        "as MatMul",
        Typed(integer::dynamic_quantize_mat_mul),
    ),
    operator(
        "com.microsoft.MatMulIntegerToFloat",
        "as MatMul",
        Typed(integer::mat_mul_integer_to_float),
    ),
    operator("com.microsoft.QGemm", "as Gemm", Typed(integer::qgemm)),
    operator("com.microsoft.QLinearAdd", "as Add", Typed(integer::qlinear_add)),
    operator(
        "com.microsoft.QLinearAveragePool",
        "as AveragePool",
        Typed(integer::qlinear_average_pool),
    ),
    operator("com.microsoft.QLinearConcat", "as Concat", Typed(integer::qlinear_concat)),
    operator(
        "com.microsoft.QLinearGlobalAveragePool",
        "as GlobalAveragePool",
        Typed(integer::qlinear_global_average_pool),
    ),
    operator("com.microsoft.QLinearLeakyRelu", "as LeakyRelu", Typed(integer::qlinear_leaky_relu)),
    operator("com.microsoft.QLinearMul", "as Mul", Typed(integer::qlinear_mul)),
    operator("com.microsoft.QLinearSigmoid", "as Sigmoid", Typed(integer::qlinear_sigmoid)),
    operator("com.microsoft.QLinearSoftmax", "as Softmax", Typed(integer::qlinear_softmax)),
    operator("com.microsoft.QLinearWhere", "as Where", Typed(integer::qlinear_where)),
    operator("com.microsoft.QuantizeLinear", "as ONNX's", Typed(quantize::quantize)),
];

/// What to do instead of operators that are not supported: names, reason, advice.
const REFUSED: &[(&[&str], &str, &str)] = &[
    (
        &[
            "InstanceNormalization",
            "LayerNormalization",
            "GroupNormalization",
            "RMSNormalization",
            "LpNormalization",
            "MeanVarianceNormalization",
            "LRN",
        ],
        "it normalises by statistics of the input itself",
        "train the model with BatchNormalization instead",
    ),
    (&["RNN", "LSTM", "GRU"], "recurrence is not supported", "expected a feed-forward graph"),
    (
        &["TopK", "NonMaxSuppression", "NonZero", "Unique", "ArgMin", "OneHot", "Compress"],
        "selection that depends on the input is not supported",
        "remove it and let the client select among the outputs",
    ),
    (
        &["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Xor"],
        "comparisons of values computed from the input are not supported",
        "express the choice by Relu or Clip, or remove it",
    ),
    (
        &["GatherND", "GatherElements", "ScatterND", "ScatterElements", "Scatter"],
        "indexed access to values computed from the input is not supported",
        "expected Gather or Slice with constant indices",
    ),
    (
        &["LpPool", "GlobalLpPool", "MaxUnpool", "MaxRoiPool", "RoiAlign"],
        "this pooling is not supported",
        "expected AveragePool or MaxPool",
    ),
    (
        &["Floor", "Ceil", "Round", "Mod", "BitShift", "ThresholdedRelu", "Hardmax", "Shrink"],
        "the function has jumps, which have no good approximation",
        "replace it by a continuous function",
    ),
    (
        &["Einsum", "Attention", "MultiHeadAttention"],
        "products of values computed from the input are not supported",
        "expected MatMul or Gemm with constant weights",
    ),
];

/// The operator's name with its domain, unless that is ONNX's own.
pub(super) fn qualified(domain: &str, operator: &str) -> String {
    if is_onnx(domain) { operator.to_owned() } else { format!("{domain}.{operator}") }
}

/// Whether a domain is ONNX's own.
pub(super) fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Whether a node of constants alone is evaluated at import as it stands.
pub(super) fn is_foldable(domain: &str, operator: &str) -> bool {
    let own = ["Constant", "CastLike", "DequantizeLinear", "QuantizeLinear"];
    is_onnx(domain) && !own.contains(&operator) && !sequence::OPERATORS.contains(&operator)
}

/// Whether a refused operator is known to give results of its first operand's shape.
pub(super) fn keeps_shape(name: &str) -> bool {
    name.ends_with("Normalization")
        || ["LRN", "Floor", "Ceil", "Round", "ThresholdedRelu", "Hardmax", "Shrink"].contains(&name)
}

/// How to translate an operator.
pub(super) fn find(domain: &str, name: &str) -> Result<Translation, Refusal> {
    let full = qualified(domain, name);
    if let Some(operator) = supported_operators().find(|o| o.name == full) {
        return Ok(operator.translation);
    }
    if !is_onnx(domain) {
        return Err(refuse(
            format!("operators of the domain {domain} are not supported"),
            "export the model with ONNX's own operators",
        ));
    }
    let known = REFUSED.iter().find(|(names, ..)| names.contains(&name));
    Err(known.map_or_else(
        || refuse("the operator is not supported", "replace it by supported operators"),
        |(_, reason, advice)| refuse(*reason, *advice),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_refused_operator() {
        assert!(OPERATORS.is_sorted_by_key(|o| o.name));
        assert!(MICROSOFT_OPERATORS.is_sorted_by_key(|o| o.name));
        for (names, ..) in REFUSED {
            assert!(names.iter().all(|n| OPERATORS.iter().all(|o| o.name != *n)));
        }
    }
}
