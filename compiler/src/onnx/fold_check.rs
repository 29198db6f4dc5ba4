//! What must hold before tract evaluates a node of constants: results of bounded size, indices that exist, and operands
//! of the types that it takes for granted.

use super::MAX_VALUE;
use super::constant::Constant;
use super::node::{Refusal, invalid, refuse};
use tract_onnx::pb::NodeProto;

/// Operators that tract evaluates without all of their attributes, or wrongly in half precision: the import does it.
pub(super) const NOT_BY_TRACT: &[&str] = &[
    "BatchNormalization",
    "Celu",
    "DepthToSpace",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Selu",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Swish",
];

struct Operands<'a> {
    node: &'a NodeProto,
    constants: &'a [Option<Constant>],
}

impl<'a> Operands<'a> {
    fn get(&self, i: usize) -> Option<&'a Constant> {
        self.constants.get(i).and_then(Option::as_ref)
    }

    fn need(&self, i: usize) -> Result<&'a Constant, Refusal> {
        self.get(i).ok_or_else(|| invalid(format!("operand {i} is missing")))
    }

    fn integers(&self, i: usize) -> Result<Vec<i64>, Refusal> {
        let constant = self.need(i)?;
        if !constant.kind().is_integer() {
            return Err(invalid(format!("operand {i} is not of whole numbers")));
        }
        constant.to_integers().ok_or_else(|| invalid(format!("operand {i} is not numeric")))
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.node.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.i)
    }

    fn axis(&self, default: i64, rank: usize) -> Result<usize, Refusal> {
        super::node::axis_of(self.int("axis", default), rank)
    }

    fn all(&self) -> impl Iterator<Item = &'a Constant> {
        self.constants.iter().flatten()
    }

    /// Operands from a position on are of one type.
    fn of_one_type(&self, from: usize) -> Result<(), Refusal> {
        let kinds: Vec<_> =
            self.constants.iter().skip(from).flatten().map(Constant::kind).collect();
        if kinds.windows(2).all(|w| w[0] == w[1]) {
            Ok(())
        } else {
            Err(invalid("its operands are of different types"))
        }
    }
}

/// Whether a number is an index of an axis, counted from either end.
fn exists(index: i64, length: usize) -> bool {
    let length = length as i64;
    (-length..length).contains(&index)
}

/// Refuses operands that contradict the operator.
pub(super) fn check(
    node: &NodeProto,
    opset: i64,
    operands: &[Option<Constant>],
) -> Result<(), Refusal> {
    let at = Operands { node, constants: operands };
    let bad_index = || invalid("an index lies outside of its operand");
    let bad_shape = || invalid("the shapes of its operands do not fit together");
    match node.op_type.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Max" | "Min" | "Sum" | "Mean" | "Equal"
        | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor"
        | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "MatMul" | "Gemm" | "Concat" | "Range"
        | "Einsum" => {
            at.of_one_type(0)?;
        }
        "Where" => at.of_one_type(1)?,
        _ => {}
    }
    match node.op_type.as_str() {
        "Div" | "Mod" => {
            let divisor = at.need(1)?;
            if !divisor.kind().is_float() && divisor.to_integers().is_none_or(|d| d.contains(&0)) {
                return Err(invalid("it divides whole numbers by zero"));
            }
        }
        "Gather" => {
            let dims = at.need(0)?.dims();
            let length = dims[at.axis(0, dims.len())?];
            if !at.integers(1)?.into_iter().all(|i| exists(i, length)) {
                return Err(bad_index());
            }
        }
        "GatherElements" | "ScatterElements" | "Scatter" => {
            let (data, indices) = (at.need(0)?.dims(), at.need(1)?.dims());
            let axis = at.axis(0, data.len())?;
            let fits = data.len() == indices.len()
                && (0..data.len()).all(|i| i == axis || indices[i] <= data[i]);
            if !fits {
                return Err(bad_shape());
            }
            if !at.integers(1)?.into_iter().all(|i| exists(i, data[axis])) {
                return Err(bad_index());
            }
            if node.op_type != "GatherElements"
                && (at.need(2)?.dims() != indices || at.need(2)?.kind() != at.need(0)?.kind())
            {
                return Err(bad_shape());
            }
        }
        "GatherND" | "ScatterND" => {
            let (data, indices) = (at.need(0)?.dims(), at.need(1)?.dims());
            let batch = usize::try_from(at.int("batch_dims", 0)).map_err(|_| bad_shape())?;
            let batch = if node.op_type == "GatherND" { batch } else { 0 };
            let depth = *indices.last().ok_or_else(bad_shape)?;
            let tail = batch + depth;
            let fits = batch < indices.len()
                && tail <= data.len()
                && depth > 0
                && data[..batch] == indices[..batch];
            if !fits {
                return Err(bad_shape());
            }
            for tuple in at.integers(1)?.chunks_exact(depth) {
                if !tuple.iter().zip(&data[batch..]).all(|(&i, &length)| exists(i, length)) {
                    return Err(bad_index());
                }
            }
            if node.op_type == "ScatterND" {
                let updates = at.need(2)?;
                let mut wanted = indices[..indices.len() - 1].to_vec();
                wanted.extend(&data[depth..]);
                if updates.dims() != wanted || updates.kind() != at.need(0)?.kind() {
                    return Err(bad_shape());
                }
            }
        }
        "OneHot" => {
            let depth = at.need(1)?.to_integers().ok_or_else(bad_shape)?;
            if depth.len() != 1
                || !(1..=MAX_VALUE as i64).contains(&depth[0])
                || at.need(2)?.elements() != 2
            {
                return Err(bad_shape());
            }
        }
        "TopK" => {
            let dims = at.need(0)?.dims();
            let length = dims[at.axis(-1, dims.len())?] as i64;
            let k = if opset < 10 { vec![at.int("k", -1)] } else { at.integers(1)? };
            if k.len() != 1 || !(0..=length).contains(&k[0]) {
                return Err(invalid(format!("it takes {k:?} of {length} entries")));
            }
        }
        "Compress" => {
            let dims = at.need(0)?.dims();
            let has_axis = node.attribute.iter().any(|a| a.name == "axis");
            let length =
                if has_axis { dims[at.axis(0, dims.len())?] } else { at.need(0)?.elements() };
            let kept = at.need(1)?;
            if kept.dims().len() != 1 || kept.elements() > length {
                return Err(bad_shape());
            }
        }
        "Slice" if opset >= 10 => {
            let rank = at.need(0)?.dims().len();
            let (starts, ends) = (at.integers(1)?, at.integers(2)?);
            let axes = match at.get(3) {
                Some(_) => at.integers(3)?,
                None => (0..starts.len() as i64).collect(),
            };
            let steps = match at.get(4) {
                Some(_) => at.integers(4)?,
                None => vec![1; starts.len()],
            };
            super::node::axes_of(&axes, rank)?;
            let lengths = [ends.len(), axes.len(), steps.len()];
            if lengths.iter().any(|&l| l != starts.len()) || steps.contains(&0) {
                return Err(bad_shape());
            }
        }
        "GRU" | "LSTM" | "RNN" => {
            let direction = node.attribute.iter().find(|a| a.name == "direction");
            if direction.is_some_and(|d| d.s != b"forward") {
                return Err(refuse("it runs backwards over constants", "compute it before export"));
            }
        }
        "CumSum" => {
            let axis = at.integers(1)?;
            let [axis] = axis[..] else { return Err(bad_shape()) };
            super::node::axis_of(axis, at.need(0)?.dims().len())?;
        }
        "ReverseSequence" => {
            let dims = at.need(0)?.dims();
            let lengths = at.integers(1)?;
            let (time, batch) = (at.int("time_axis", 0), at.int("batch_axis", 1));
            let time = super::node::axis_of(time, dims.len())?;
            let batch = super::node::axis_of(batch, dims.len())?;
            let fits = lengths.len() == dims[batch]
                && lengths.iter().all(|&l| (0..=dims[time] as i64).contains(&l));
            if !fits {
                return Err(bad_shape());
            }
        }
        _ => {}
    }
    Ok(())
}

/// At least the number of elements of the results, for operators where tract's inference does not say it, or where
/// it can be said at once.
pub(super) fn result_bound(node: &NodeProto, operands: &[Option<Constant>]) -> Option<usize> {
    let at = Operands { node, constants: operands };
    let total = at.all().map(Constant::elements).fold(0usize, usize::saturating_add);
    let product = |dims: Vec<i64>| {
        dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
    };
    let target = |i: usize| product(at.get(i)?.to_integers()?);
    let bound = match node.op_type.as_str() {
        "Shape" | "Size" => 16,
        "Cast" | "CastLike" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose"
        | "Concat" | "Slice" | "Split" | "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Erf"
        | "Reciprocal" | "Floor" | "Ceil" | "Round" | "Sign" | "Not" | "Relu" | "Sigmoid"
        | "Tanh" | "Sin" | "Cos" | "Clip" | "ReduceSum" | "ReduceMean" | "ReduceMax"
        | "ReduceMin" | "ReduceProd" | "Softmax" | "Compress" | "Trilu" => total,
        "TopK" => total.saturating_mul(2),
        "NonZero" => total.saturating_mul(at.get(0)?.dims().len().max(1)),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Sum" | "Mean" | "Max" | "Min"
        | "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or"
        | "Xor" | "Where" => {
            let rank = at.all().map(|c| c.dims().len()).max()?;
            (0..rank).try_fold(1usize, |n, back| {
                let longest = at.all().filter_map(|c| c.dims().iter().rev().nth(back)).max();
                n.checked_mul(longest.copied().unwrap_or(1))
            })?
        }
        "Gather" => at.get(0)?.elements().checked_mul(at.get(1)?.elements())?,
        "ConstantOfShape" => target(0)?,
        "Expand" => target(1)?.checked_mul(at.get(0)?.elements().max(1))?,
        "Tile" => target(1)?.checked_mul(at.get(0)?.elements())?,
        "OneHot" => target(1)?.checked_mul(at.get(0)?.elements())?,
        "Range" => {
            let number = |i: usize| at.get(i)?.to_reals()?.data.first().map(|&v| f64::from(v));
            let steps = (number(1)? - number(0)?) / number(2)?;
            // Not a number: more than any bound.
            if steps.is_finite() { steps.clamp(0.0, 1e18) as usize + 1 } else { usize::MAX }
        }
        "Pad" => {
            let rank = at.get(0)?.dims().len();
            let pads = match at.get(1) {
                Some(pads) => pads.to_integers()?,
                None => node.attribute.iter().find(|a| a.name == "pads")?.ints.clone(),
            };
            let axes = match at.get(3) {
                Some(axes) => super::node::axes_of(&axes.to_integers()?, rank).ok()?,
                None => (0..rank).collect(),
            };
            let mut dims = at.get(0)?.dims().to_vec();
            for (i, axis) in axes.iter().enumerate() {
                for amount in [pads.get(i)?, pads.get(i + axes.len())?] {
                    dims[*axis] =
                        dims[*axis].checked_add(usize::try_from((*amount).max(0)).ok()?)?;
                }
            }
            dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?
        }
        _ => return None,
    };
    Some(bound)
}

/// The multiplications of a node, at most, given the size of its result.
pub(super) fn work(node: &NodeProto, operands: &[Option<Constant>], result: usize) -> u64 {
    let at = Operands { node, constants: operands };
    let dims = |i: usize| at.get(i).map_or(&[][..], Constant::dims);
    let of_each_result = match node.op_type.as_str() {
        "MatMul" | "MatMulInteger" => dims(0).last().copied().unwrap_or(1),
        "Gemm" => dims(0).get(usize::from(at.int("transA", 0) == 0)).copied().unwrap_or(1),
        "Conv" | "ConvInteger" => dims(1).iter().skip(1).product(),
        "ConvTranspose" => dims(1).iter().product(),
        "AveragePool" | "MaxPool" => {
            let kernel = node.attribute.iter().find(|a| a.name == "kernel_shape");
            let taps = kernel.into_iter().flat_map(|k| &k.ints);
            taps.fold(1usize, |n, &d| n.saturating_mul(usize::try_from(d).unwrap_or(1)))
        }
        // Every index meets every other.
        "Einsum" => at.all().map(Constant::elements).max().unwrap_or(1),
        "DFT" | "STFT" | "GRU" | "LSTM" | "RNN" => {
            at.all().flat_map(Constant::dims).copied().max().unwrap_or(1).saturating_mul(8)
        }
        _ => 1,
    };
    let read = at.all().map(|c| c.elements() as u64).fold(0, u64::saturating_add);
    (result as u64).saturating_mul(of_each_result as u64).saturating_add(read)
}
