//! What goes into a model and what comes out: names, element types and row shapes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Element type of a tensor, named as in the ONNX specification (`TensorProto.DataType`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    /// 32-bit IEEE 754.
    Float,
    /// 64-bit IEEE 754.
    Double,
    /// Signed 8 bits.
    Int8,
    /// Signed 16 bits.
    Int16,
    /// Signed 32 bits.
    Int32,
    /// Signed 64 bits.
    Int64,
    /// Unsigned 8 bits.
    Uint8,
    /// Unsigned 16 bits.
    Uint16,
    /// Unsigned 32 bits.
    Uint32,
    /// Unsigned 64 bits.
    Uint64,
    /// True or false.
    Bool,
    /// UTF-8 text.
    String,
}

impl ElementType {
    /// Whether NaN is one of its values.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float | Self::Double)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Double => "double",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Bool => "bool",
            Self::String => "string",
        })
    }
}

/// One input or output of a model. Axis 0 is always the batch and left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorSpec {
    /// The name in the ONNX graph.
    pub name: String,
    /// Type of each element.
    pub element: ElementType,
    /// Shape of one row, the batch axis dropped: `[]` is one scalar a row, `[4]` a vector of four.
    pub row_shape: Vec<usize>,
    /// Where a row is a map: the keys of its values, in their order. ONNX writes such outputs as
    /// sequences of maps (`ZipMap`), and such inputs as maps (`DictVectorizer`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
}

impl TensorSpec {
    /// Elements in one row.
    pub fn row_len(&self) -> usize {
        self.row_shape.iter().product()
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}[batch", self.name, self.element)?;
        self.row_shape.iter().try_for_each(|n| write!(f, ", {n}"))?;
        f.write_str("]")?;
        match &self.classes {
            None => Ok(()),
            Some(classes) => write!(f, " by {}", ClassList(classes)),
        }
    }
}

/// The first of the classes, and how many there are.
struct ClassList<'a>(&'a [String]);

impl fmt::Display for ClassList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let shown: Vec<&str> = self.0.iter().take(SHOWN).map(String::as_str).collect();
        write!(f, "{{{}", shown.join(", "))?;
        if self.0.len() > SHOWN {
            write!(f, ", … {} in all", self.0.len())?;
        }
        f.write_str("}")
    }
}

/// All inputs and outputs of a model, in the graph's order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Signature {
    /// What the model takes.
    pub inputs: Vec<TensorSpec>,
    /// What the model gives.
    pub outputs: Vec<TensorSpec>,
}
