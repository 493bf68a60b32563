//! Values in and out of tract's tensors, and what the operators of `ai.onnx.ml` mean by rows and
//! columns.

use std::borrow::Cow;

use tract_onnx::prelude::tract_ndarray::{ArrayD, IxDyn};
use tract_onnx::prelude::{Datum, DatumType, TDim, TValue, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{DimLike, anyhow, bail};

/// Runs `$body` with `$T` standing for the number type of `$element`.
macro_rules! with_number_type {
    ($element:expr, $T:ident => $body:expr) => {
        match $element {
            DatumType::F32 => {
                type $T = f32;
                $body
            }
            DatumType::F64 => {
                type $T = f64;
                $body
            }
            DatumType::I64 => {
                type $T = i64;
                $body
            }
            DatumType::I32 => {
                type $T = i32;
                $body
            }
            DatumType::I16 => {
                type $T = i16;
                $body
            }
            DatumType::I8 => {
                type $T = i8;
                $body
            }
            DatumType::U64 => {
                type $T = u64;
                $body
            }
            DatumType::U32 => {
                type $T = u32;
                $body
            }
            DatumType::U16 => {
                type $T = u16;
                $body
            }
            DatumType::U8 => {
                type $T = u8;
                $body
            }
            other => ::tract_onnx::tract_hir::internal::bail!("takes numbers, not {other:?}"),
        }
    };
}
pub(super) use with_number_type;

/// Whether [`with_number_type`] knows `element`.
pub(super) fn is_number(element: DatumType) -> bool {
    element.is_float() && element != DatumType::F16 || element.is_integer()
}

/// Refuses an input that holds no numbers.
pub(super) fn check_number(element: DatumType) -> TractResult<()> {
    if is_number(element) {
        return Ok(());
    }
    bail!("takes numbers, not {element:?}")
}

/// Input `index` of a node.
pub(super) fn input(inputs: &[TValue], index: usize) -> TractResult<&Tensor> {
    let value = inputs.get(index);
    value
        .map(|value| &**value)
        .ok_or_else(|| anyhow!("input {index} is missing"))
}

/// The values of a tensor of exactly this type.
pub(super) fn values<T: Datum>(tensor: &Tensor) -> TractResult<&[T]> {
    tensor.try_as_plain_ram()?.as_slice::<T>()
}

/// The values of a tensor of any number type as floats, as C++ converts them.
pub(super) fn floats(tensor: &Tensor) -> TractResult<Cow<'_, [f32]>> {
    #[expect(
        clippy::unnecessary_cast,
        reason = "one of the types of the macro is f32"
    )]
    fn cast(tensor: &Tensor) -> TractResult<Vec<f32>> {
        with_number_type!(tensor.datum_type(), T => {
            Ok(values::<T>(tensor)?.iter().map(|value| *value as f32).collect())
        })
    }
    match tensor.datum_type() {
        DatumType::F32 => Ok(Cow::Borrowed(values(tensor)?)),
        _ => cast(tensor).map(Cow::Owned),
    }
}

/// A new tensor of numbers, filled in place.
pub(super) fn filled<T: Datum>(
    shape: &[usize],
    fill: impl FnOnce(&mut [T]) -> TractResult<()>,
) -> TractResult<TValue> {
    let mut tensor = Tensor::zero_dt(T::datum_type(), shape)?;
    fill(tensor.try_as_plain_ram_mut()?.as_slice_mut::<T>()?)?;
    Ok(tensor.into())
}

/// A new tensor of `values`, strings among others.
pub(super) fn tensor_of<T: Datum>(shape: &[usize], values: Vec<T>) -> TractResult<TValue> {
    let tensor: Tensor = ArrayD::from_shape_vec(IxDyn(shape), values)?.into();
    Ok(tensor.into())
}

/// Rows and columns of an input: a single axis is one row.
pub(super) fn matrix<D: Clone + From<usize>>(shape: &[D]) -> TractResult<[D; 2]> {
    match shape {
        [columns] => Ok([D::from(1), columns.clone()]),
        [rows, columns] => Ok([rows.clone(), columns.clone()]),
        _ => bail!("takes one or two axes, not {}", shape.len()),
    }
}

/// Axis 1 of an input, or its only one: the features that attributes are listed for.
pub(super) fn features<D: Clone>(shape: &[D]) -> TractResult<D> {
    match shape {
        [features] | [_, features, ..] => Ok(features.clone()),
        [] => bail!("takes no single value; it needs an axis"),
    }
}

/// The length of an axis, which must be known.
pub(super) fn known(dim: &TDim) -> TractResult<usize> {
    dim.to_usize()
        .map_err(|_| anyhow!("an axis has no fixed length: {dim}"))
}
