//! Values between our columns and ONNX Runtime's tensors, by element type.

use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, Shape, Tensor, TensorRef};

/// A type that tensors are made of.
pub(super) trait Element: Sized + Clone {
    /// A tensor of `values`, which it borrows where it can.
    fn tensor(shape: Shape, values: &[Self]) -> ort::Result<SessionInputValue<'_>>;

    /// The values of `tensor`, handed to `take` with its shape.
    fn read<T>(tensor: &DynValue, take: impl FnOnce(&[i64], &[Self]) -> T) -> ort::Result<T>;
}

fn borrowed<T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
    shape: Shape,
    values: &[T],
) -> ort::Result<SessionInputValue<'_>> {
    Ok(TensorRef::from_array_view((shape, values))?.into())
}

macro_rules! primitive {
    ($($type:ty),*) => {$(
        impl Element for $type {
            fn tensor(shape: Shape, values: &[Self]) -> ort::Result<SessionInputValue<'_>> {
                borrowed(shape, values)
            }

            fn read<T>(tensor: &DynValue, take: impl FnOnce(&[i64], &[Self]) -> T) -> ort::Result<T> {
                let (shape, values) = tensor.try_extract_tensor::<Self>()?;
                Ok(take(shape, values))
            }
        }
    )*};
}

primitive!(f32, f64, i8, i16, i32, i64, u8, u16, u32, u64, bool);

impl Element for String {
    fn tensor(shape: Shape, values: &[Self]) -> ort::Result<SessionInputValue<'_>> {
        Ok(Tensor::from_string_array((shape, values))?.into())
    }

    fn read<T>(tensor: &DynValue, take: impl FnOnce(&[i64], &[Self]) -> T) -> ort::Result<T> {
        let (shape, values) = tensor.try_extract_strings()?;
        Ok(take(shape, &values))
    }
}
