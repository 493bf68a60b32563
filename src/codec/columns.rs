//! A batch as the runtime takes and gives it: one typed column for each tensor.

use crate::model::{ElementType, TensorSpec};

/// The values of one tensor, row after row. Row `i` lies at `i * row_len .. (i + 1) * row_len`.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "the variants are the element types, see `ElementType`"
)]
pub enum Values {
    Float(Vec<f32>),
    Double(Vec<f64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Bool(Vec<bool>),
    String(Vec<String>),
}

/// Runs `$body` with `$v` bound to the typed vector inside a [`Values`].
#[macro_export]
macro_rules! with_values {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            $crate::codec::Values::Float($v) => $body,
            $crate::codec::Values::Double($v) => $body,
            $crate::codec::Values::Int8($v) => $body,
            $crate::codec::Values::Int16($v) => $body,
            $crate::codec::Values::Int32($v) => $body,
            $crate::codec::Values::Int64($v) => $body,
            $crate::codec::Values::Uint8($v) => $body,
            $crate::codec::Values::Uint16($v) => $body,
            $crate::codec::Values::Uint32($v) => $body,
            $crate::codec::Values::Uint64($v) => $body,
            $crate::codec::Values::Bool($v) => $body,
            $crate::codec::Values::String($v) => $body,
        }
    };
}

impl Values {
    /// No values of `element`.
    pub fn new(element: ElementType) -> Self {
        match element {
            ElementType::Float => Self::Float(Vec::new()),
            ElementType::Double => Self::Double(Vec::new()),
            ElementType::Int8 => Self::Int8(Vec::new()),
            ElementType::Int16 => Self::Int16(Vec::new()),
            ElementType::Int32 => Self::Int32(Vec::new()),
            ElementType::Int64 => Self::Int64(Vec::new()),
            ElementType::Uint8 => Self::Uint8(Vec::new()),
            ElementType::Uint16 => Self::Uint16(Vec::new()),
            ElementType::Uint32 => Self::Uint32(Vec::new()),
            ElementType::Uint64 => Self::Uint64(Vec::new()),
            ElementType::Bool => Self::Bool(Vec::new()),
            ElementType::String => Self::String(Vec::new()),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        with_values!(self, v => v.len())
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` values.
    pub fn truncate(&mut self, len: usize) {
        with_values!(self, v => v.truncate(len));
    }

    /// Type of each value.
    pub fn element(&self) -> ElementType {
        match self {
            Self::Float(_) => ElementType::Float,
            Self::Double(_) => ElementType::Double,
            Self::Int8(_) => ElementType::Int8,
            Self::Int16(_) => ElementType::Int16,
            Self::Int32(_) => ElementType::Int32,
            Self::Int64(_) => ElementType::Int64,
            Self::Uint8(_) => ElementType::Uint8,
            Self::Uint16(_) => ElementType::Uint16,
            Self::Uint32(_) => ElementType::Uint32,
            Self::Uint64(_) => ElementType::Uint64,
            Self::Bool(_) => ElementType::Bool,
            Self::String(_) => ElementType::String,
        }
    }
}

/// One tensor of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Values in one row.
    pub row_len: usize,
    /// `rows * row_len` values.
    pub values: Values,
}

/// A batch: `rows` rows of each column, the columns in the order of the model's inputs (or
/// outputs).
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Number of rows.
    pub rows: usize,
    /// The tensors.
    pub columns: Vec<Column>,
}

impl Columns {
    /// An empty batch with one column for each of `specs`.
    pub fn new<'a>(specs: impl IntoIterator<Item = &'a TensorSpec>) -> Self {
        let columns = specs
            .into_iter()
            .map(|spec| Column {
                row_len: spec.row_len(),
                values: Values::new(spec.element),
            })
            .collect();
        Self { rows: 0, columns }
    }

    /// Keeps the first `rows` rows; takes back a row that was only partly appended as well.
    pub fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.values.truncate(rows * column.row_len);
        }
        self.rows = self.rows.min(rows);
    }

    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Appends the rows of `other`, which has the same columns.
    pub fn append(&mut self, other: &Self) {
        for (to, from) in self.columns.iter_mut().zip(&other.columns) {
            to.values.extend_from(&from.values, 0..from.values.len());
        }
        self.rows += other.rows;
    }

    /// A batch of the one row `row`.
    pub fn row(&self, row: usize) -> Self {
        let columns = self
            .columns
            .iter()
            .map(|column| {
                let range = row * column.row_len..(row + 1) * column.row_len;
                let mut values = Values::new(column.values.element());
                values.extend_from(&column.values, range);
                Column {
                    row_len: column.row_len,
                    values,
                }
            })
            .collect();
        Self { rows: 1, columns }
    }
}

impl Values {
    /// Appends `other[range]`; both hold the same element type.
    ///
    /// Values of another type are a mistake of the caller's and leave `self` as it is.
    pub fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>) {
        macro_rules! extend {
            ($($variant:ident),*) => {
                match (self, other) {
                    $((Self::$variant(to), Self::$variant(from)) => {
                        to.extend_from_slice(from.get(range).unwrap_or_default());
                    })*
                    _ => debug_assert!(false, "columns of different element types"),
                }
            };
        }
        extend!(
            Float, Double, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64, Bool, String
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_taken_out() {
        let spec = |name: &str, element, row_shape: &[usize]| TensorSpec {
            name: name.to_owned(),
            element,
            row_shape: row_shape.to_vec(),
            classes: None,
        };
        let specs = [
            spec("a", ElementType::Float, &[2]),
            spec("b", ElementType::Int64, &[]),
        ];
        let mut batch = Columns::new(&specs);
        batch.columns[0].values = Values::Float(vec![1.0, 2.0, 3.0, 4.0, 5.0]);
        batch.columns[1].values = Values::Int64(vec![7, 8]);
        batch.rows = 2;
        let row = batch.row(1);
        assert_eq!(row.columns[0].values, Values::Float(vec![3.0, 4.0]));
        assert_eq!(row.columns[1].values, Values::Int64(vec![8]));
        batch.truncate(1);
        assert_eq!(batch.columns[0].values.len(), 2);
        assert_eq!((batch.rows, batch.columns[1].values.len()), (1, 1));
    }
}
