//! Element types in tract's words and in ours.

use tract_onnx::prelude::DatumType;

use crate::model::ElementType;

/// The type that tract takes for `element`.
pub(super) fn datum_type(element: ElementType) -> DatumType {
    match element {
        ElementType::Float => DatumType::F32,
        ElementType::Double => DatumType::F64,
        ElementType::Int8 => DatumType::I8,
        ElementType::Int16 => DatumType::I16,
        ElementType::Int32 => DatumType::I32,
        ElementType::Int64 => DatumType::I64,
        ElementType::Uint8 => DatumType::U8,
        ElementType::Uint16 => DatumType::U16,
        ElementType::Uint32 => DatumType::U32,
        ElementType::Uint64 => DatumType::U64,
        ElementType::Bool => DatumType::Bool,
        ElementType::String => DatumType::String,
    }
}

/// Our word for what tract computes; `None` where we have none.
pub(super) fn element_type(datum_type: DatumType) -> Option<ElementType> {
    Some(match datum_type {
        DatumType::F32 => ElementType::Float,
        DatumType::F64 => ElementType::Double,
        DatumType::I8 => ElementType::Int8,
        DatumType::I16 => ElementType::Int16,
        DatumType::I32 => ElementType::Int32,
        // tract's type of lengths; ONNX has int64 there.
        DatumType::I64 | DatumType::TDim => ElementType::Int64,
        DatumType::U8 => ElementType::Uint8,
        DatumType::U16 => ElementType::Uint16,
        DatumType::U32 => ElementType::Uint32,
        DatumType::U64 => ElementType::Uint64,
        DatumType::Bool => ElementType::Bool,
        DatumType::String => ElementType::String,
        _ => return None,
    })
}
