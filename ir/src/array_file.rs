//! NumPy's `.npy` and `.npz` bytes as tensors, and back.

use crate::tensor::{Shape, Tensor};
use npyz::{DType, NpyFile, Order, WriterBuilder};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};

/// Deflate makes at most this many bytes of one.
const DEFLATE_RATIO: u64 = 1032;

/// Why an array file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// Not an array file, or a damaged one.
    #[error("not a readable NumPy array: {0}")]
    Malformed(String),
    /// An element type that has no numeric meaning here.
    #[error("elements of type {0} are not supported, expected integers or floats")]
    Type(String),
    /// An array that is not in the archive.
    #[error("no array named {wanted:?}; the file has {found}")]
    Missing {
        /// The name asked for.
        wanted: String,
        /// The names that are there.
        found: String,
    },
}

/// An array as it stands in the file: its elements as `f32` and whether they were bytes (images that
/// nobody has scaled yet).
pub struct Array {
    /// The elements.
    pub tensor: Tensor<f32>,
    /// Whether the element type was `u8`.
    pub is_bytes: bool,
}

/// Reads an `.npy` array, or array `name` of an `.npz` archive, whichever the bytes are.
pub fn read(bytes: &[u8], name: Option<&str>) -> Result<Array, ArrayError> {
    if bytes.starts_with(b"PK") { read_npz(Cursor::new(bytes), name) } else { read_npy(bytes) }
}

/// Reads one `.npy` array of booleans, integers or floats of any width.
pub fn read_npy(bytes: &[u8]) -> Result<Array, ArrayError> {
    decode(Cursor::new(bytes), bytes.len())
}

/// Reads array `name` of an `.npz` archive; without a name the first of `x`, `inputs`, `images`,
/// `data`, or the only array there is.
pub fn read_npz(mut reader: impl Read + Seek, name: Option<&str>) -> Result<Array, ArrayError> {
    let length = reader.seek(SeekFrom::End(0)).map_err(|e| ArrayError::Malformed(e.to_string()))?;
    let malformed = |e: zip::result::ZipError| ArrayError::Malformed(e.to_string());
    let mut archive = zip::ZipArchive::new(reader).map_err(malformed)?;
    let array_name = |file: &str| file.strip_suffix(".npy").map(str::to_owned);
    let names: Vec<String> =
        archive.file_names().filter_map(|file| array_name(&file.ok()?)).collect();
    let candidates: Vec<&str> = match name {
        Some(name) => vec![name],
        None if names.len() == 1 => vec![&names[0]],
        None => vec!["x", "inputs", "images", "data"],
    };
    let chosen = candidates.iter().find(|c| names.iter().any(|n| n == *c)).ok_or_else(|| {
        ArrayError::Missing { wanted: candidates.join(" or "), found: names.join(", ") }
    })?;
    let member = archive.by_name(&format!("{chosen}.npy")).map_err(malformed)?;
    // Whatever the archive says, its bytes cannot hold more.
    let most = member.compressed_size().min(length).saturating_mul(DEFLATE_RATIO);
    let size = usize::try_from(member.size().min(most)).unwrap_or(usize::MAX);
    decode(member, size)
}

/// The bytes of an `.npy` file of float32.
pub fn write_npy(tensor: &Tensor<f32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let shape: Vec<u64> = tensor.shape.0.iter().map(|&d| d as u64).collect();
    let options = npyz::WriteOptions::new().default_dtype().shape(&shape);
    let written = options.writer(&mut bytes).begin_nd().and_then(|mut writer| {
        writer.extend(tensor.data.iter().copied())?;
        writer.finish()
    });
    assert!(written.is_ok(), "writing to memory does not fail");
    bytes
}

/// The bytes of an `.npz` archive of float32 arrays.
pub fn write_npz(arrays: &[(&str, Tensor<f32>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .large_file(true);
    let written = arrays.iter().try_for_each(|(name, tensor)| {
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&write_npy(tensor))?;
        zip::result::ZipResult::Ok(())
    });
    let bytes = written.and_then(|()| archive.finish());
    bytes.expect("writing to memory does not fail").into_inner()
}

fn decode(reader: impl Read, available: usize) -> Result<Array, ArrayError> {
    let malformed = |e: std::io::Error| ArrayError::Malformed(e.to_string());
    let file = NpyFile::new(reader).map_err(malformed)?;
    let shape = Shape(file.shape().iter().map(|&d| d as usize).collect());
    let DType::Plain(kind) = file.dtype() else {
        return Err(ArrayError::Type("structured".into()));
    };
    let elements = shape.0.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if elements
        .and_then(|n| n.checked_mul(kind.num_bytes().unwrap_or(1).max(1)))
        .is_none_or(|n| n > available)
    {
        return Err(ArrayError::Malformed("shorter than its header says".into()));
    }
    if file.order() != Order::C && shape.rank() > 1 {
        return Err(ArrayError::Malformed(
            "Fortran order; save it with numpy.ascontiguousarray".into(),
        ));
    }
    let name = kind.to_string();
    let text =
        name.trim_start_matches(['<', '>', '|', '=', '\'']).trim_end_matches('\'').to_owned();
    macro_rules! read {
        ($t:ty) => {
            file.into_vec::<$t>()
                .map_err(malformed)?
                .into_iter()
                .map(|v| v as f32)
                .collect::<Vec<f32>>()
        };
    }
    let data = match text.as_str() {
        "f4" => file.into_vec::<f32>().map_err(malformed)?,
        "f8" => read!(f64),
        "b1" => {
            let bits = file.into_vec::<bool>().map_err(malformed)?;
            bits.into_iter().map(|b| f32::from(u8::from(b))).collect()
        }
        "u1" => read!(u8),
        "i1" => read!(i8),
        "u2" => read!(u16),
        "i2" => read!(i16),
        "u4" => read!(u32),
        "i4" => read!(i32),
        "u8" => read!(u64),
        "i8" => read!(i64),
        _ => return Err(ArrayError::Type(name)),
    };
    if data.len() != shape.elements() {
        return Err(ArrayError::Malformed("other number of elements than its header says".into()));
    }
    Ok(Array { tensor: Tensor { shape, data }, is_bytes: text == "u1" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::CompressionMethod::{Deflated, Stored};
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn archive(members: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in members {
            let options = SimpleFileOptions::default().compression_method(method);
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn iota(count: usize) -> Vec<u8> {
        let data = (0..count).map(|i| i as f32).collect();
        write_npy(&Tensor::new(Shape::new([count]), data))
    }

    #[test]
    fn archives_are_read_stored_and_deflated() {
        for method in [Stored, Deflated] {
            let bytes = archive(&[("y.npy", &iota(3)), ("x.npy", &iota(500))], method);
            let length = |name| read(&bytes, name).map(|a| a.tensor.data.len());
            assert_eq!((length(None).unwrap(), length(Some("y")).unwrap()), (500, 3));
            let missing = length(Some("z")).unwrap_err().to_string();
            assert!(missing.contains("no array named \"z\""), "{missing}");
            for cut in 0..bytes.len() {
                assert!(read(&bytes[..cut], None).is_err());
            }
        }
    }

    #[test]
    fn a_length_that_the_bytes_cannot_hold_is_refused() {
        let mut huge = iota(1000);
        let at = huge.windows(4).position(|w| w == b"1000").unwrap();
        huge.splice(at..at + 4, *b"9999999999999999");
        for bytes in [huge.clone(), archive(&[("x.npy", &huge)], Deflated)] {
            let error = read(&bytes, None).err().unwrap().to_string();
            assert!(error.starts_with("not a readable NumPy array"), "{error}");
        }
        // So is one that the archive vouches for.
        let bytes = archive(&[("x.npy", &iota(1000))], Deflated);
        let length = iota(1000).len() as u32;
        let mut forged = bytes.clone();
        for at in 0..bytes.len() - 4 {
            if bytes[at..at + 4] == length.to_le_bytes() {
                forged[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            }
        }
        assert_ne!(forged, bytes);
        let _ = read(&forged, None);
    }
}
