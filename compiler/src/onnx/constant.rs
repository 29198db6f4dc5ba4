//! Constants of a model and their evaluation at import: what depends on weights and shapes alone is
//! computed by tract, one ONNX node at a time.

use super::MAX_VALUE;
use super::element;
use super::quiet::{one_line, quietly};
use ir::tensor::{Shape, Tensor};
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use tract_onnx::prelude::{IntoArcTensor, IntoTValue, Tensor as Dense, TractResult};

/// A constant with the element type that it has in the file.
#[derive(Clone)]
pub(super) struct Constant(pub(super) Arc<Dense>);

impl Constant {
    /// A constant of the file. External data must have been read in before.
    pub(super) fn load(proto: &TensorProto) -> Result<Self, String> {
        let elements = proto.dims.iter().try_fold(1usize, |n, &d| {
            n.checked_mul(usize::try_from(d).ok()?).filter(|&n| n <= MAX_VALUE)
        });
        let Some(elements) = elements else {
            return Err(format!("tensor {:?} has impossible dimensions", proto.name));
        };
        if let Some(loaded) = element::load(proto, elements) {
            let tensor = loaded.map_err(|e| format!("tensor {:?}: {e}", proto.name))?;
            return Ok(Self(Arc::new(tensor)));
        }
        let onnx = tract_onnx::onnx();
        let loaded = quietly(|| tract_onnx::tensor::load_tensor(&*onnx.provider, proto, None))
            .and_then(|r| r.map_err(|e| one_line(&e.to_string())));
        let tensor = loaded.map_err(|e| format!("tensor {:?}: {e}", proto.name))?;
        Ok(Self(Arc::new(tensor)))
    }

    /// Whole numbers, such as a shape.
    pub(super) fn integers(shape: &[usize], values: &[i64]) -> Result<Self, String> {
        Self::of(Dense::from_shape(shape, values))
    }

    /// Reals.
    pub(super) fn reals(tensor: &Tensor<f32>) -> Result<Self, String> {
        Self::of(Dense::from_shape(&tensor.shape.0, &tensor.data))
    }

    fn of(tensor: TractResult<Dense>) -> Result<Self, String> {
        tensor.map(|t| Self(Arc::new(t))).map_err(|e| one_line(&e.to_string()))
    }

    /// Dimensions; may be empty along some axis.
    pub(super) fn dims(&self) -> &[usize] {
        self.0.shape()
    }

    /// The number of elements.
    pub(super) fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The elements as whole numbers; reals are truncated.
    pub(super) fn to_integers(&self) -> Option<Vec<i64>> {
        quietly(|| {
            let cast = self.0.cast_to::<i64>().ok()?;
            Some(cast.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?.to_vec())
        })
        .ok()
        .flatten()
    }

    /// The elements as reals.
    pub(super) fn to_reals(&self) -> Option<Tensor<f32>> {
        let data = quietly(|| {
            let cast = self.0.cast_to::<f32>().ok()?;
            Some(cast.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.to_vec())
        })
        .ok()
        .flatten()?;
        Some(Tensor { shape: Shape::new(self.dims()), data })
    }
}

/// The outputs of a node whose operands are all constant.
pub(super) fn evaluate(
    node: &NodeProto,
    opset: i64,
    operands: &[Option<Constant>],
) -> Result<Vec<Constant>, String> {
    let bound = result_bound(node, operands)
        .ok_or("its operands are constants of a kind that is not evaluated at import")?;
    if bound > MAX_VALUE {
        return Err("its result has too many elements".into());
    }
    let graph = GraphProto {
        node: vec![node.clone()],
        output: node.output.iter().filter(|n| !n.is_empty()).map(|n| named(n)).collect(),
        ..GraphProto::default()
    };
    let model = ModelProto {
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let inputs = operands.iter().flatten().map(|c| c.0.clone().into_tvalue()).collect();
    let outputs = quietly(|| -> TractResult<_> {
        let parsed = tract_onnx::onnx().parse(&model, None)?;
        parsed.model.node(0).op.eval_out_of_plan(inputs)
    })
    .and_then(|r| r.map_err(|e| one_line(&format!("{e:#}"))))
    .map_err(|e| format!("its operands are constants, but it cannot be evaluated: {e}"))?
    .ok_or("its operands are constants, but it has no value at import")?;
    Ok(outputs.into_iter().map(|t| Constant(t.into_arc_tensor())).collect())
}

fn named(name: &str) -> tract_onnx::pb::ValueInfoProto {
    tract_onnx::pb::ValueInfoProto { name: name.to_owned(), ..Default::default() }
}

/// At least the number of elements of the result, known before anything is allocated; `None` for
/// operators that are not evaluated.
fn result_bound(node: &NodeProto, operands: &[Option<Constant>]) -> Option<usize> {
    let operand = |i: usize| operands.get(i).and_then(Option::as_ref);
    let total = operands.iter().flatten().map(Constant::elements).sum::<usize>();
    let target = |i: usize| -> Option<usize> {
        let dims = operand(i)?.to_integers()?;
        dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
    };
    let bound = match node.op_type.as_str() {
        "Shape" | "Size" => 16,
        "Cast" | "CastLike" | "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze"
        | "Transpose" | "Concat" | "Slice" | "Split" | "Neg" | "Abs" | "Sqrt" | "Exp" | "Log"
        | "Erf" | "Reciprocal" | "Floor" | "Ceil" | "Round" | "Sign" | "Not" | "Relu"
        | "Sigmoid" | "Tanh" | "Sin" | "Cos" | "Clip" | "ReduceSum" | "ReduceMean"
        | "ReduceMax" | "ReduceMin" | "ReduceProd" => total,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Sum" | "Mean" | "Max" | "Min" | "Equal"
        | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" | "Xor"
        | "Where" => {
            let rank = operands.iter().flatten().map(|c| c.dims().len()).max()?;
            (0..rank).try_fold(1usize, |n, back| {
                let dims = operands.iter().flatten().map(Constant::dims);
                let longest = dims.filter_map(|d| d.iter().rev().nth(back)).max();
                n.checked_mul(longest.copied().unwrap_or(1))
            })?
        }
        "MatMul" | "Gemm" => operand(0)?.elements().checked_mul(operand(1)?.elements())?,
        "Gather" => operand(0)?.elements().checked_mul(operand(1)?.elements())?,
        "ConstantOfShape" => target(0)?,
        "Expand" => target(1)?.checked_mul(operand(0)?.elements().max(1))?,
        "Tile" => target(1)?.checked_mul(operand(0)?.elements())?,
        "Range" => {
            let at = |i: usize| operand(i)?.to_reals()?.data.first().map(|&v| f64::from(v));
            let steps = (at(1)? - at(0)?) / at(2)?;
            if !(steps.is_finite() && steps <= MAX_VALUE as f64) {
                return None;
            }
            steps.max(0.0) as usize + 1
        }
        "Pad" => {
            let rank = operand(0)?.dims().len();
            let pads = operand(1)?.to_integers()?;
            let bound = |axis: usize| -> Option<usize> {
                let before = usize::try_from((*pads.get(axis)?).max(0)).ok()?;
                let after = usize::try_from((*pads.get(axis + rank)?).max(0)).ok()?;
                operand(0)?.dims()[axis].checked_add(before)?.checked_add(after)
            };
            (0..rank).try_fold(1usize, |n, axis| n.checked_mul(bound(axis)?))?
        }
        _ => return None,
    };
    Some(bound)
}
