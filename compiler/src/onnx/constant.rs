//! Constants of a model, with the element types that they have in the file.

use super::MAX_VALUE;
use super::element;
use super::quiet::{one_line, quietly};
use ir::tensor::{Shape, Tensor};
use std::sync::Arc;
use tract_onnx::pb::TensorProto;
use tract_onnx::prelude::{
    DatumType, IntoArcTensor, IntoTValue, TValue, Tensor as Dense, TractResult,
};

/// A constant with the element type that it has in the file.
#[derive(Clone)]
pub(super) struct Constant(pub(super) Arc<Dense>);

impl Constant {
    /// A constant of the file. External data must have been read in before.
    pub(super) fn load(proto: &TensorProto) -> Result<Self, String> {
        let most = MAX_VALUE.max(stored_elements(proto));
        let elements = proto.dims.iter().try_fold(1usize, |n, &d| {
            n.checked_mul(usize::try_from(d).ok()?).filter(|&n| n <= most)
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

    /// One truth value.
    pub(super) fn truth(value: bool) -> Result<Self, String> {
        Self::of(Dense::from_shape(&[], &[value]))
    }

    /// A result of tract's, whose shapes are of a type of its own.
    pub(super) fn evaluated(value: TValue) -> Result<Self, String> {
        let tensor = value.into_arc_tensor();
        match tensor.datum_type() {
            DatumType::TDim => Self::of(tensor.cast_to::<i64>().map(|t| t.into_owned())),
            _ => Ok(Self(tensor)),
        }
    }

    /// As an operand of tract's.
    pub(super) fn operand(&self) -> TValue {
        self.0.clone().into_tvalue()
    }

    /// The element type.
    pub(super) fn kind(&self) -> DatumType {
        self.0.datum_type()
    }

    /// Reals in another element type.
    pub(super) fn of_kind(tensor: &Tensor<f32>, kind: DatumType) -> Result<Self, String> {
        let reals = Self::reals(tensor)?;
        Self::of(reals.0.cast_to_dt(kind).map(|t| t.into_owned()))
    }

    /// The same elements under other dimensions.
    pub(super) fn reshaped(&self, dims: &[usize]) -> Result<Self, String> {
        Self::of((*self.0).clone().into_shape(dims))
    }

    /// One entry along an axis, which goes.
    pub(super) fn entry(&self, axis: usize, index: usize) -> Result<Self, String> {
        let entry = self.0.slice(axis, index, index + 1);
        Self::of(entry.and_then(|mut t| t.remove_axis(axis).map(|()| t)))
    }

    /// Constants of one shape and type joined along a new axis.
    pub(super) fn stack(axis: usize, parts: &[&Self]) -> Result<Self, String> {
        let first = parts.first().ok_or("nothing to join")?;
        if parts.iter().any(|p| p.dims() != first.dims() || p.kind() != first.kind()) {
            return Err("what is joined differs in shape or type".into());
        }
        let widened = parts.iter().map(|part| {
            let mut tensor = (*part.0).clone();
            tensor.insert_axis(axis).map(|()| tensor)
        });
        let widened = widened.collect::<TractResult<Vec<Dense>>>();
        Self::of(widened.and_then(|parts| Dense::stack_tensors(axis, &parts)))
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

/// As many elements as the tensor's own bytes can hold, of the smallest type, two to a byte.
fn stored_elements(proto: &TensorProto) -> usize {
    let bytes = 2 * proto.raw_data.len();
    let typed = [
        proto.float_data.len(),
        proto.double_data.len(),
        proto.int64_data.len(),
        proto.uint64_data.len(),
        2 * proto.int32_data.len(),
        proto.string_data.len(),
    ];
    typed.into_iter().fold(bytes, usize::max)
}
