//! Element types of constants: which one a constant has, conversions between them, and the types that tract
//! does not load: 4-bit integers, which become bytes, and bfloat16.

use super::constant::Constant;
use super::quiet::quietly;
use ir::ElementType;
use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::prelude::{DatumType, Tensor as Dense};

fn datum(element: ElementType) -> DatumType {
    match element {
        ElementType::Real => DatumType::F32,
        ElementType::Bool => DatumType::Bool,
        ElementType::Integer { bits: ..=8, signed: true } => DatumType::I8,
        ElementType::Integer { bits: ..=8, signed: false } => DatumType::U8,
        ElementType::Integer { bits: ..=16, signed: true } => DatumType::I16,
        ElementType::Integer { bits: ..=16, signed: false } => DatumType::U16,
        ElementType::Integer { bits: ..=32, signed: true } => DatumType::I32,
        ElementType::Integer { bits: ..=32, signed: false } => DatumType::U32,
        ElementType::Integer { signed: true, .. } => DatumType::I64,
        ElementType::Integer { signed: false, .. } => DatumType::U64,
    }
}

impl Constant {
    /// The type of its elements.
    pub(super) fn element(&self) -> ElementType {
        let integer = |bits, signed| ElementType::Integer { bits, signed };
        match self.0.datum_type() {
            DatumType::Bool => ElementType::Bool,
            DatumType::U8 => integer(8, false),
            DatumType::U16 => integer(16, false),
            DatumType::U32 => integer(32, false),
            DatumType::U64 => integer(64, false),
            DatumType::I8 => integer(8, true),
            DatumType::I16 => integer(16, true),
            DatumType::I32 => integer(32, true),
            // Shapes are tract's `TDim`.
            DatumType::I64 | DatumType::TDim => integer(64, true),
            _ => ElementType::Real,
        }
    }

    /// The constant in another type: fractions are cut off, integers wrap around.
    pub(super) fn cast(&self, element: ElementType) -> Option<Self> {
        let cast = quietly(|| self.0.cast_to_dt(datum(element)).map(|t| t.into_owned()));
        Some(Self(std::sync::Arc::new(cast.ok()?.ok()?)))
    }

    /// Whole numbers that `f32` holds, as a constant of a type.
    pub(super) fn whole(values: &ir::Tensor<f32>, element: ElementType) -> Result<Self, String> {
        Self::reals(values)?.cast(element).ok_or_else(|| format!("no constant of type {element}"))
    }
}

/// Loads a tensor of a type that tract does not know; `None` for all others.
pub(super) fn load(proto: &TensorProto, elements: usize) -> Option<Result<Dense, String>> {
    let shape: Vec<usize> = proto.dims.iter().map(|&d| d as usize).collect();
    let kind = DataType::try_from(proto.data_type).ok()?;
    let dense = match kind {
        DataType::Uint4 | DataType::Int4 => nibbles(proto, elements).map(|nibbles| {
            if kind == DataType::Uint4 {
                return Dense::from_shape(&shape, &nibbles);
            }
            let signed: Vec<i8> = nibbles.iter().map(|&n| (n << 4) as i8 >> 4).collect();
            Dense::from_shape(&shape, &signed)
        }),
        DataType::Bfloat16 => halves(proto, elements).map(|halves| {
            let reals: Vec<f32> =
                halves.iter().map(|&h| f32::from_bits(u32::from(h) << 16)).collect();
            Dense::from_shape(&shape, &reals)
        }),
        _ => return None,
    };
    let dense = dense.ok_or("it has fewer elements than its dimensions say".to_owned());
    Some(dense.and_then(|d| d.map_err(|e| super::quiet::one_line(&e.to_string()))))
}

/// 4-bit elements, two in a byte, the low half first.
fn nibbles(proto: &TensorProto, elements: usize) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = if proto.raw_data.is_empty() {
        proto.int32_data.iter().map(|&v| v as u8).collect()
    } else {
        proto.raw_data.clone()
    };
    let nibbles: Vec<u8> = bytes.iter().flat_map(|b| [b & 15, b >> 4]).take(elements).collect();
    (nibbles.len() == elements).then_some(nibbles)
}

/// 16-bit elements.
fn halves(proto: &TensorProto, elements: usize) -> Option<Vec<u16>> {
    let halves: Vec<u16> = if proto.raw_data.is_empty() {
        proto.int32_data.iter().map(|&v| v as u16).collect()
    } else {
        proto.raw_data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
    };
    (halves.len() == elements).then_some(halves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(kind: DataType, dims: &[i64], raw: &[u8]) -> TensorProto {
        TensorProto {
            data_type: kind as i32,
            dims: dims.to_vec(),
            raw_data: raw.to_vec(),
            ..TensorProto::default()
        }
    }

    #[test]
    fn loads_four_bit_integers_and_bfloat16() {
        let reals = |proto: &TensorProto| Constant::load(proto).unwrap().to_reals().unwrap().data;
        assert_eq!(reals(&tensor(DataType::Uint4, &[3], &[0xf1, 0x08])), [1.0, 15.0, 8.0]);
        assert_eq!(reals(&tensor(DataType::Int4, &[3], &[0xf1, 0x08])), [1.0, -1.0, -8.0]);
        assert_eq!(
            reals(&tensor(DataType::Bfloat16, &[2], &[0x80, 0x3f, 0x20, 0xc0])),
            [1.0, -2.5]
        );
        assert!(Constant::load(&tensor(DataType::Int4, &[4], &[0xf1])).is_err());
        let packed =
            TensorProto { int32_data: vec![0x21, 0x3], ..tensor(DataType::Uint4, &[3], &[]) };
        assert_eq!(reals(&packed), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn constants_know_and_change_their_type() {
        let bytes = Constant::load(&tensor(DataType::Int8, &[2], &[0xff, 2])).unwrap();
        assert_eq!(bytes.element(), ElementType::Integer { bits: 8, signed: true });
        let byte = ElementType::Integer { bits: 8, signed: false };
        let wrapped = bytes.cast(byte).unwrap();
        assert_eq!((wrapped.element(), wrapped.to_integers()), (byte, Some(vec![255, 2])));
        let reals = Constant::reals(&ir::Tensor::scalar(-2.7)).unwrap();
        let long = ElementType::Integer { bits: 64, signed: true };
        assert_eq!(reals.cast(long).unwrap().to_integers(), Some(vec![-2]));
    }
}
