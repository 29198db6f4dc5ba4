//! The table of ONNX operators: which are translated, how, and with which limits; and what to say of
//! those that are not.

use super::builder::Builder;
use super::kind;
use super::node::{self, Call, Refusal, Value, refuse};
use super::{
    activation, convolution, dynamic, einsum, elementwise, embedding, indexing, integer, linear,
    loss, normalization, pooling, quantize, reduction, resize, sampling, selection, sequence,
    spectral, structure,
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
    operator("Acos", "values within -1 to 1", One(activation::acos)),
    operator("Acosh", "values from 1 on", One(activation::acosh)),
    operator("Add", "", One(elementwise::add)),
    operator("AffineGrid", "constant size", One(sampling::affine_grid)),
    operator("ArgMax", "at the output", One(normalization::arg_max)),
    operator("ArgMin", "at the output", One(normalization::arg_min)),
    operator("Asin", "values within -1 to 1", One(activation::asin)),
    operator("Asinh", "", One(activation::asinh)),
    operator("Atan", "", One(activation::atan)),
    operator("Atanh", "values between -1 and 1", One(activation::atanh)),
    operator("AveragePool", "up to 4 spatial axes", One(pooling::average_pool)),
    operator("BatchNormalization", "in inference", One(normalization::batch_normalization)),
    operator(
        "Cast",
        "between integers where nothing wraps around; of floats to integers at the output",
        Typed(kind::cast),
    ),
    operator("CastLike", "as Cast", Typed(kind::cast_like)),
    operator("Celu", "", One(activation::celu)),
    operator("CenterCropPad", "constant shape", One(selection::center_crop_pad)),
    operator("Clip", "", One(activation::clip)),
    operator("Col2Im", "constant shapes", One(sampling::col2im)),
    operator("Compress", "constant condition", One(indexing::compress)),
    operator("Concat", "", One(structure::concat)),
    operator("ConcatFromSequence", "", Typed(sequence::concat)),
    operator("Constant", "", Many(structure::constant)),
    operator("ConstantOfShape", "of constants", One(structure::constant_only)),
    operator("Conv", "up to 4 spatial axes, constant weights", One(convolution::conv)),
    operator("ConvInteger", "as Conv", Typed(integer::conv_integer)),
    operator(
        "ConvTranspose",
        "up to 4 spatial axes, constant weights",
        One(convolution::conv_transpose),
    ),
    operator("Cos", "", One(activation::cos)),
    operator("Cosh", "", One(activation::cosh)),
    operator("CumSum", "constant axis", One(reduction::cum_sum)),
    operator("DFT", "constant length; one-sided of reals, forwards", One(spectral::dft)),
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
    operator("Einsum", "one value and at most one constant", One(einsum::einsum)),
    operator("Elu", "", One(activation::elu)),
    operator("Erf", "", One(activation::erf)),
    operator("Exp", "", One(activation::exp)),
    operator("Expand", "constant target shape", One(selection::expand)),
    operator("EyeLike", "", Many(structure::eye_like)),
    operator("Flatten", "", One(structure::flatten)),
    operator("Gather", "constant indices", One(selection::gather)),
    operator("GatherElements", "constant indices", One(indexing::gather_elements)),
    operator("GatherND", "constant indices", One(indexing::gather_nd)),
    operator("Gelu", "", One(activation::gelu)),
    operator("Gemm", "one constant factor", One(linear::gemm)),
    operator("GlobalAveragePool", "", One(pooling::global_average_pool)),
    operator("GlobalLpPool", "", One(pooling::global_lp_pool)),
    operator("GlobalMaxPool", "", One(pooling::global_max_pool)),
    operator("GridSample", "constant grid", One(sampling::grid_sample)),
    operator("HardSigmoid", "", One(activation::hard_sigmoid)),
    operator("HardSwish", "", One(activation::hard_swish)),
    operator("Identity", "", One(structure::identity)),
    operator("LeakyRelu", "", One(activation::leaky_relu)),
    operator("Log", "", One(activation::log)),
    operator("LogSoftmax", "at the output", One(normalization::log_softmax)),
    operator("LpPool", "up to 4 spatial axes", One(pooling::lp_pool)),
    operator("MatMul", "one constant factor", One(linear::mat_mul)),
    operator("MatMulInteger", "as MatMul", Typed(integer::mat_mul_integer)),
    operator("Max", "", One(elementwise::max)),
    operator("MaxPool", "up to 4 spatial axes, without indices", One(pooling::max_pool)),
    operator("MaxUnpool", "constant indices", One(indexing::max_unpool)),
    operator("Mean", "", One(elementwise::mean)),
    operator("Min", "", One(elementwise::min)),
    operator("Mish", "", One(activation::mish)),
    operator(
        "Mul",
        "values by values where both are functions of one value",
        One(elementwise::mul),
    ),
    operator("Neg", "", One(activation::neg)),
    operator(
        "NegativeLogLikelihoodLoss",
        "constant targets and weights",
        One(loss::negative_log_likelihood),
    ),
    operator("Optional", "with an element", Typed(sequence::optional)),
    operator("OptionalGetElement", "", Typed(sequence::optional)),
    operator("OptionalHasElement", "", Typed(sequence::has_element)),
    operator("PRelu", "constant slopes", One(activation::prelu)),
    operator("Pad", "constant amounts", One(selection::pad)),
    operator("Pow", "constant exponents, or constant positive bases", One(elementwise::pow)),
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
    operator("ReduceLogSum", "constant axes", One(reduction::reduce_log_sum)),
    operator("ReduceLogSumExp", "constant axes", One(reduction::reduce_log_sum_exp)),
    operator("ReduceMax", "constant axes", One(reduction::reduce_max)),
    operator("ReduceMean", "constant axes", One(reduction::reduce_mean)),
    operator("ReduceMin", "constant axes", One(reduction::reduce_min)),
    operator("ReduceProd", "of one factor each", One(reduction::reduce_prod)),
    operator("ReduceSum", "constant axes", One(reduction::reduce_sum)),
    operator("ReduceSumSquare", "constant axes", One(reduction::reduce_sum_square)),
    operator("Relu", "", One(activation::relu)),
    operator("Reshape", "constant target shape", One(structure::reshape)),
    operator("Resize", "constant scales or sizes", One(resize::resize)),
    operator("ReverseSequence", "constant lengths", One(indexing::reverse_sequence)),
    operator("RotaryEmbedding", "constant angles", One(embedding::rotary_embedding)),
    operator("STFT", "constant step, window and length", One(spectral::stft)),
    operator("Scatter", "constant indices", One(indexing::scatter_elements)),
    operator("ScatterElements", "constant indices", One(indexing::scatter_elements)),
    operator("ScatterND", "constant indices", One(indexing::scatter_nd)),
    operator("Selu", "", One(activation::selu)),
    operator("SequenceAt", "constant position", Typed(sequence::at)),
    operator("SequenceConstruct", "", Typed(sequence::construct)),
    operator("SequenceEmpty", "", Typed(sequence::construct)),
    operator("SequenceErase", "constant position", Typed(sequence::erase)),
    operator("SequenceInsert", "constant position", Typed(sequence::insert)),
    operator("SequenceLength", "", Typed(sequence::length)),
    operator("Shape", "", Many(structure::shape_of)),
    operator("Shrink", "bias equal to lambd", One(activation::shrink)),
    operator("Sigmoid", "", One(activation::sigmoid)),
    operator("Sign", "", One(activation::sign)),
    operator("Sin", "", One(activation::sin)),
    operator("Sinh", "", One(activation::sinh)),
    operator("Size", "", Many(structure::size_of)),
    operator("Slice", "constant bounds", One(selection::slice)),
    operator("Softmax", "at the output", One(normalization::softmax)),
    operator(
        "SoftmaxCrossEntropyLoss",
        "constant targets and weights",
        Many(loss::softmax_cross_entropy),
    ),
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
    operator("Tan", "", One(activation::tan)),
    operator("Tanh", "", One(activation::tanh)),
    operator("ThresholdedRelu", "alpha 0", One(activation::thresholded_relu)),
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
        &["TopK", "NonMaxSuppression", "NonZero", "Unique", "OneHot"],
        "selection that depends on the input is not supported",
        "remove it and let the client select among the outputs",
    ),
    (
        &["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Xor"],
        "comparisons of values computed from the input are not supported",
        "express the choice by Relu or Clip, or remove it",
    ),
    (
        &["MaxRoiPool", "RoiAlign"],
        "this pooling is not supported",
        "expected AveragePool or MaxPool",
    ),
    (
        &["Floor", "Ceil", "Round", "Mod", "BitShift", "Hardmax"],
        "the function has jumps, which have no good approximation",
        "replace it by a continuous function",
    ),
    (
        &["Attention", "MultiHeadAttention", "Det", "CumProd"],
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
