//! The contract turned around: from event field to the places that it fills.

use super::Scratch;
use super::cells::Steps;
use super::paths::Paths;
use super::text::write_compact;
use crate::codec::{Columns, Values};
use crate::model::{
    Contract, ElementType, Feature, InputContract, InputSource, Missing, MissingPolicy, Separator,
};
use crate::with_values;

/// Which fields are read, and where each of them goes.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) fields: Vec<Field>,
    pub(super) paths: Paths,
    pub(super) steps: Steps,
    columns: Vec<ColumnShape>,
    include: Vec<Included>,
}

#[derive(Debug)]
struct ColumnShape {
    element: ElementType,
    row_len: usize,
}

/// One event field that is read.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) targets: Vec<Target>,
    pub(super) include: bool,
    /// Where a number goes if the field fills one cell of a float input and nothing else.
    pub(super) cell: Option<Cell>,
}

/// One value of the rows of a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) column: usize,
    pub(super) at: usize,
}

/// One place that a field fills.
#[derive(Debug)]
pub(super) struct Target {
    /// Index of the input's column.
    pub(super) column: usize,
    pub(super) element: ElementType,
    pub(super) place: Place,
    pub(super) missing: Missing,
}

/// The part of a row that a target is.
#[derive(Debug)]
pub(super) enum Place {
    /// One value of the row.
    Cell(usize),
    /// The whole row, of this shape; a scalar's is `[1]`.
    Row(Vec<usize>),
    /// The whole row, of so many values, as a string with this between them.
    Text(usize, Separator),
}

impl Target {
    /// The cell of floats that it is, if it is one.
    fn cell(&self) -> Option<Cell> {
        let at = match &self.place {
            Place::Cell(index) => *index,
            Place::Row(shape) if *shape == [1] => 0,
            _ => return None,
        };
        (self.element == ElementType::Float).then_some(Cell {
            column: self.column,
            at,
        })
    }

    /// Where the target lies in a row: its first value, and how many.
    pub(super) fn extent(&self) -> (usize, usize) {
        match &self.place {
            Place::Cell(index) => (*index, 1),
            Place::Row(shape) => (0, shape.iter().product()),
            Place::Text(len, _) => (0, *len),
        }
    }
}

#[derive(Debug)]
struct Included {
    field: usize,
    /// The field's name as JSON, with the colon.
    key: Vec<u8>,
}

impl Layout {
    pub(super) fn new(contract: &Contract, include: &[String]) -> Self {
        let mut layout = Self {
            fields: Vec::new(),
            paths: Paths::new([]),
            steps: Steps::default(),
            columns: Vec::new(),
            include: Vec::new(),
        };
        for (column, input) in contract.inputs.iter().enumerate() {
            layout.columns.push(ColumnShape {
                element: input.spec.element,
                row_len: input.spec.row_len(),
            });
            layout.add_input(column, input);
        }
        for name in include {
            let field = layout.field(name);
            if let Some(entry) = layout.fields.get_mut(field).filter(|entry| !entry.include) {
                entry.include = true;
                let mut key = serde_json::Value::from(name.as_str())
                    .to_string()
                    .into_bytes();
                key.push(b':');
                layout.include.push(Included { field, key });
            }
        }
        for field in &mut layout.fields {
            if let [target] = field.targets.as_slice() {
                field.cell = target.cell();
            }
        }
        layout.paths = Paths::new(layout.fields.iter().map(|field| field.name.as_str()));
        layout.steps = Steps::new(layout.paths.of_event(), &layout.fields);
        layout
    }

    fn add_input(&mut self, column: usize, input: &InputContract) {
        let row = || match input.spec.row_shape.as_slice() {
            [] => Place::Row(vec![1]),
            shape => Place::Row(shape.to_vec()),
        };
        let is_scalar = matches!(input.spec.row_shape.as_slice(), [] | [1]);
        match &input.source {
            InputSource::Field(feature) => self.add_target(column, input, feature, row()),
            InputSource::Separated(feature, separator) => {
                let place = Place::Text(input.spec.row_len(), *separator);
                self.add_target(column, input, feature, place);
            }
            InputSource::Features(features) => {
                for (index, feature) in features.iter().enumerate() {
                    let place = if is_scalar { row() } else { Place::Cell(index) };
                    self.add_target(column, input, feature, place);
                }
            }
        }
    }

    fn add_target(
        &mut self,
        column: usize,
        input: &InputContract,
        feature: &Feature,
        place: Place,
    ) {
        let field = self.field(&feature.name);
        if let Some(field) = self.fields.get_mut(field) {
            field.targets.push(Target {
                column,
                element: input.spec.element,
                place,
                missing: feature.missing.clone(),
            });
        }
    }

    /// Index of the field `name`, added if it is new. Linear: only while the layout is built.
    fn field(&mut self, name: &str) -> usize {
        let known = self.fields.iter().position(|field| field.name == name);
        known.unwrap_or_else(|| {
            self.fields.push(Field {
                name: name.to_owned(),
                targets: Vec::new(),
                include: false,
                cell: None,
            });
            self.fields.len() - 1
        })
    }

    /// Whether `batch` has the columns of this contract.
    pub(super) fn fits(&self, batch: &Columns) -> bool {
        batch.columns.len() == self.columns.len()
            && batch.columns.iter().zip(&self.columns).all(|(have, want)| {
                have.row_len == want.row_len
                    && have.values.element() == want.element
                    && have.values.len() == batch.rows * want.row_len
            })
    }

    /// Appends the included fields of `text` as one JSON object; nothing if none is configured.
    pub(super) fn write_included(&self, scratch: &Scratch, text: &str, out: &mut Vec<u8>) {
        if self.include.is_empty() {
            return;
        }
        let mut before = b'{';
        for included in &self.include {
            if scratch.seen.get(included.field) != Some(&scratch.stamp) {
                continue;
            }
            let span = scratch.spans.get(included.field).cloned();
            if let Some(value) = span.and_then(|span| text.get(span)) {
                out.push(before);
                out.extend_from_slice(&included.key);
                write_compact(value, out);
                before = b',';
            }
        }
        if before == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
    }
}

/// Makes room for one more row.
pub(super) fn extend(batch: &mut Columns) {
    fn grow<T: Clone + Default>(values: &mut Vec<T>, len: usize) {
        values.resize(len, T::default());
    }
    let rows = batch.rows + 1;
    for column in &mut batch.columns {
        let len = rows * column.row_len;
        with_values!(&mut column.values, v => grow(v, len));
    }
}

/// Puts `policy`'s value into `values[at..at + len]`.
///
/// Gives false where the policy is to reject.
pub(super) fn fill(values: &mut Values, at: usize, len: usize, policy: &MissingPolicy) -> bool {
    let value = match policy {
        MissingPolicy::Reject => return false,
        MissingPolicy::Nan => f64::NAN,
        MissingPolicy::Value(value) => *value,
        MissingPolicy::Text(text) => return fill_text(values, at, len, text),
    };
    macro_rules! put {
        ($v:ident, $value:expr) => {
            if let Some(slots) = $v.get_mut(at..at + len) {
                slots.fill($value);
            }
        };
    }
    // The contract has checked that the element type holds the value.
    match values {
        Values::Float(v) => put!(v, value as f32),
        Values::Double(v) => put!(v, value),
        Values::Int8(v) => put!(v, value as i8),
        Values::Int16(v) => put!(v, value as i16),
        Values::Int32(v) => put!(v, value as i32),
        Values::Int64(v) => put!(v, value as i64),
        Values::Uint8(v) => put!(v, value as u8),
        Values::Uint16(v) => put!(v, value as u16),
        Values::Uint32(v) => put!(v, value as u32),
        Values::Uint64(v) => put!(v, value as u64),
        Values::Bool(v) => put!(v, value != 0.0),
        Values::String(_) => return false,
    }
    true
}

fn fill_text(values: &mut Values, at: usize, len: usize, text: &str) -> bool {
    let Values::String(texts) = values else {
        return false;
    };
    for slot in texts.iter_mut().skip(at).take(len) {
        slot.clear();
        slot.push_str(text);
    }
    true
}
