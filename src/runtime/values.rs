//! Holds that a tensor in the file has as many values as its shape says. tract multiplies the axes
//! without a check: a product that wraps around would be read beyond its end.

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::LoadError;

/// The bytes that the values of `tensor` take in the file.
pub(super) fn check(tensor: &TensorProto, name: &str) -> Result<usize, LoadError> {
    let typed = tensor.float_data.len()
        + tensor.int32_data.len()
        + tensor.int64_data.len()
        + tensor.double_data.len()
        + tensor.uint64_data.len()
        + tensor.string_data.len();
    let bytes = tensor.raw_data.len()
        + 4 * (tensor.float_data.len() + tensor.int32_data.len())
        + 8 * (tensor.int64_data.len() + tensor.double_data.len() + tensor.uint64_data.len())
        + tensor.string_data.iter().map(Vec::len).sum::<usize>();
    let shape = &tensor.dims;
    let values = shape.iter().try_fold(1usize, |values, axis| {
        values.checked_mul(usize::try_from(*axis).ok()?)
    });
    let fits = values.is_some_and(|values| match bits(tensor.data_type) {
        // Types that nothing here reads are refused elsewhere, by their name.
        None => true,
        Some(bits) if !tensor.raw_data.is_empty() => values
            .checked_mul(bits)
            .is_some_and(|bits| bits.div_ceil(8) == tensor.raw_data.len()),
        Some(_) => values == typed,
    });
    if fits {
        return Ok(bytes);
    }
    Err(LoadError::new(format!(
        "tensor {name:?} has the shape {shape:?}, but {bytes} bytes of values"
    )))
}

/// Bits of one value in `raw_data`.
fn bits(data_type: i32) -> Option<usize> {
    Some(match DataType::try_from(data_type).ok()? {
        DataType::Bool | DataType::Int8 | DataType::Uint8 => 8,
        DataType::Int16 | DataType::Uint16 | DataType::Float16 | DataType::Bfloat16 => 16,
        DataType::Int32 | DataType::Uint32 | DataType::Float => 32,
        DataType::Int64 | DataType::Uint64 | DataType::Double => 64,
        // Strings have no raw form.
        DataType::String => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[i64], raw: usize, floats: usize) -> TensorProto {
        TensorProto {
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            raw_data: vec![0; raw],
            float_data: vec![0.0; floats],
            ..TensorProto::default()
        }
    }

    #[test]
    fn shape_and_values_must_agree() {
        let taken = |dims: &[i64], raw, floats| check(&tensor(dims, raw, floats), "w").ok();
        assert_eq!(taken(&[2, 3], 24, 0), Some(24));
        assert_eq!(taken(&[2, 3], 0, 6), Some(24));
        assert_eq!(taken(&[], 4, 0), Some(4));
        assert_eq!(taken(&[0, 1 << 40], 0, 0), Some(0));
        assert_eq!(taken(&[2, 3], 20, 0), None);
        assert_eq!(taken(&[1 << 40], 4, 0), None);
        assert_eq!(taken(&[-1], 4, 0), None);
        // 2^64 values of 4 bytes, and 2^62 of them, are 0 bytes to who does not look.
        assert_eq!(taken(&[1 << 32, 1 << 32], 0, 0), None);
        assert_eq!(taken(&[1 << 31, 1 << 31], 0, 0), None);
        let error = check(&tensor(&[5], 4, 0), "w").unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor \"w\" has the shape [5], but 4 bytes of values"
        );
    }
}
