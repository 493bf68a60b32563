//! The contract turned around: from event field to the places that it fills.

use super::Scratch;
use super::text::write_compact;
use crate::codec::{Columns, Values};
use crate::model::{
    Contract, ElementType, Feature, InputContract, InputSource, Missing, MissingPolicy,
};
use crate::with_values;

/// Which fields are read, and where each of them goes.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) fields: Vec<Field>,
    table: FieldTable,
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
}

impl Target {
    /// Where the target lies in a row: its first value, and how many.
    pub(super) fn extent(&self) -> (usize, usize) {
        match &self.place {
            Place::Cell(index) => (*index, 1),
            Place::Row(shape) => (0, shape.iter().product()),
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
            table: FieldTable::default(),
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
        layout.table = FieldTable::new(layout.fields.iter().map(|field| field.name.as_str()));
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
                missing: feature.missing,
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
            });
            self.fields.len() - 1
        })
    }

    /// Index of the field that is called `name`, if it is read.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.table.find(name, &self.fields)
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

/// Hash table from field name to index, made once; no allocation and no `SipHash` for each key of
/// an event. Events cannot degrade it: its entries come from the contract.
#[derive(Debug, Default)]
struct FieldTable {
    /// Index + 1 of a field, 0 where empty; the length is a power of two, at most half full.
    slots: Vec<u32>,
}

impl FieldTable {
    fn new<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let mut slots = vec![0; (names.len() * 2).next_power_of_two().max(2)];
        for (index, name) in names.enumerate() {
            let mut at = hash(name.as_bytes()) as usize & (slots.len() - 1);
            while slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & (slots.len() - 1);
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = index as u32 + 1;
            }
        }
        Self { slots }
    }

    fn find(&self, name: &str, fields: &[Field]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash(name.as_bytes()) as usize & mask;
        loop {
            let index = self.slots.get(at)?.checked_sub(1)? as usize;
            if fields.get(index)?.name == name {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }
}

/// The Fx hash with its high bits folded in, eight bytes at a time.
fn hash(bytes: &[u8]) -> u64 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(K);
    }
    hash ^ (hash >> 32)
}

/// Puts `policy`'s value into `values[at..at + len]`.
///
/// Gives false where the policy is to reject.
pub(super) fn fill(values: &mut Values, at: usize, len: usize, policy: MissingPolicy) -> bool {
    let value = match policy {
        MissingPolicy::Reject => return false,
        MissingPolicy::Nan => f64::NAN,
        MissingPolicy::Value(value) => value,
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
