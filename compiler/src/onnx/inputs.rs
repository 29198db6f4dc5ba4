//! The inputs that a file declares: element types, sizes, and sizes that it leaves open.

use super::file::FileInput;
use super::{BatchAxis, ImportError, ImportOptions, MAX_VALUE, kind};
use ir::ElementType;
use ir::tensor::Shape;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::{TypeProto, ValueInfoProto, type_proto};

/// Inputs with the sizes that the file or the options give.
///
/// # Errors
/// If an input is no tensor, if a size other than the first one is open, or if a shape is out of bounds.
pub(super) fn declared(
    inputs: &[&ValueInfoProto],
    options: &ImportOptions,
) -> Result<Vec<FileInput>, ImportError> {
    let mut open = Vec::new();
    let mut unused: Vec<&String> = options.dims.keys().collect();
    let mut found = Vec::new();
    let is_batch = options.batch_axis == BatchAxis::First;
    for input in inputs {
        let refuse = |reason: String| ImportError::InputShape { name: input.name.clone(), reason };
        let stated = tensor(input).ok_or_else(|| refuse("is no tensor".into()))?.elem_type;
        let element = kind::element_of(stated)
            .map_err(|element| ImportError::InputElement { name: input.name.clone(), element })?;
        let dims = dimensions(input).ok_or_else(|| refuse("has no shape in the file".into()))?;
        let mut declared = FileInput {
            name: input.name.clone(),
            shape: Shape(Vec::with_capacity(dims.len())),
            open: None,
            element,
        };
        for (axis, dim) in dims.into_iter().enumerate() {
            let position = format!("{}.{axis}", input.name);
            let name = match dim {
                Some(Dimension::DimValue(value)) if value > 0 && !(axis == 0 && is_batch) => {
                    declared.shape.0.push(value as usize);
                    continue;
                }
                Some(Dimension::DimParam(name)) if !name.is_empty() => name,
                _ => position.clone(),
            };
            let given = [&name, &position].into_iter().find_map(|n| options.dims.get_key_value(n));
            if let Some((key, &size)) = given {
                unused.retain(|u| *u != key);
                declared.shape.0.push(size);
                continue;
            }
            declared.shape.0.push(1);
            match axis {
                0 => declared.open = Some(name),
                _ => open.push(format!("{name} (axis {axis} of input {})", input.name)),
            }
        }
        let shape = &declared.shape;
        if !shape.is_bounded() || shape.elements() > MAX_VALUE {
            return Err(refuse(format!("has the shape {shape}, which is too large")));
        }
        found.push(declared);
    }
    if !open.is_empty() {
        return Err(ImportError::OpenSizes(open.join(", ")));
    }
    if let Some(name) = unused.first() {
        return Err(ImportError::NoSuchSize((*name).clone()));
    }
    Ok(found)
}

/// The shape that the file states for a value; `None` if it leaves a size open, other than the first.
pub(super) fn stated_shape(value: &ValueInfoProto, open: usize) -> Option<Shape> {
    let size = |(axis, dim): (usize, Option<Dimension>)| match dim {
        Some(Dimension::DimValue(value)) if value > 0 => Some(value as usize),
        _ if axis == 0 => Some(open),
        _ => None,
    };
    let shape = dimensions(value)?.into_iter().enumerate().map(size).collect::<Option<Vec<_>>>()?;
    let shape = Shape(shape);
    (shape.is_bounded() && shape.elements() <= MAX_VALUE).then_some(shape)
}

/// Whether a value is a tensor of reals.
pub(super) fn is_real(value: &ValueInfoProto) -> bool {
    element(value) == Some(ElementType::Real)
}

/// The type of a value's elements; `None` where it is no tensor of numbers.
pub(super) fn element(value: &ValueInfoProto) -> Option<ElementType> {
    kind::element_of(tensor(value)?.elem_type).ok()
}

/// ONNX's number of a value's element type.
pub(super) fn data_type(value: &ValueInfoProto) -> Option<i32> {
    Some(tensor(value)?.elem_type)
}

fn tensor(value: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match value.r#type.as_ref()? {
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. } => Some(tensor),
        _ => None,
    }
}

/// The dimensions of a value, if the file states them.
fn dimensions(value: &ValueInfoProto) -> Option<Vec<Option<Dimension>>> {
    Some(tensor(value)?.shape.as_ref()?.dim.iter().map(|d| d.value.clone()).collect())
}
