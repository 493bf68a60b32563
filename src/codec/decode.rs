//! From one event to one row: a single pass over the JSON, straight into the columns.
//!
//! What is not JSON at all is refused in stage `decode`, what does not fill the model's inputs in
//! stage `features`; where both hold, `decode` is reported. Fields that neither the contract nor
//! `include` reads are checked for their grammar only. Messages name fields and never repeat
//! values: those may be confidential.

mod brief;
mod cells;
mod layout;
mod number;
mod paths;
mod plain;
mod scalar;
mod text;
mod value;
mod walk;

#[cfg(test)]
mod tests;

use std::ops::Range;

use self::layout::Layout;
use self::walk::Walk;
use super::{Columns, RowError, Stage};
use crate::model::Contract;

/// The deepest nesting of objects and arrays that is accepted, the event itself counted.
pub const MAX_NESTING: usize = 64;

/// Turns events into rows of one contract. Each worker has its own: it keeps scratch memory.
#[derive(Debug)]
pub struct Decoder {
    layout: Layout,
    scratch: Scratch,
}

/// A field's value that was found inside an object.
#[derive(Debug)]
struct Nested {
    field: usize,
    /// How many objects it lies in; the fewest win.
    depth: usize,
    span: Range<usize>,
}

/// What is reused from event to event; one entry for each field that is read.
#[derive(Debug, Default)]
struct Scratch {
    /// Number of the event; a field was seen in this event if its `seen` holds this number.
    stamp: u64,
    seen: Vec<u64>,
    /// Where an included field's value lies in the event.
    spans: Vec<Range<usize>>,
    /// Values that were found inside objects.
    nested: Vec<Nested>,
    /// Objects that fields lie in: seen in this event, like `seen`.
    objects: Vec<u64>,
    /// What the n-th key of the last event meant.
    hints: Vec<usize>,
    /// For keys beyond [`HINTS`].
    no_hint: usize,
    /// How many events are not tried by the fast pass, and how many of them are left.
    passed_over: (u32, u32),
}

/// Where the fast pass gave up again and again, it is tried on one event of so many.
const MOST_PASSED_OVER: u32 = 255;

/// Keys of an event whose meaning is remembered.
const HINTS: usize = 1024;

impl Scratch {
    /// Where it is remembered what the event's key number `place` means.
    #[inline]
    fn hint(&mut self, place: usize) -> &mut usize {
        if place >= self.hints.len() {
            if place >= HINTS {
                return &mut self.no_hint;
            }
            self.hints.resize(place + 1, 0);
        }
        self.hints.get_mut(place).unwrap_or(&mut self.no_hint)
    }
}

impl Decoder {
    /// A decoder for `contract` that also copies the event fields `include` (a name that is
    /// listed twice is copied once).
    pub fn new(contract: &Contract, include: &[String]) -> Self {
        let layout = Layout::new(contract, include);
        let scratch = Scratch {
            stamp: 0,
            seen: vec![0; layout.fields.len()],
            spans: vec![0..0; layout.fields.len()],
            nested: Vec::new(),
            objects: vec![0; layout.paths.len()],
            hints: Vec::new(),
            no_hint: 0,
            passed_over: (0, 0),
        };
        Self { layout, scratch }
    }

    /// Appends the event `value` to `batch` as exactly one row, or leaves `batch` as it was.
    ///
    /// `batch` holds one column for each input of the contract: `Columns::new` of their specs.
    /// `include` is appended to: the included fields as one JSON object, in the configured order,
    /// absent ones left out, each value in its own text without insignificant white space.
    /// Without `include` fields, or on an error, nothing is appended; so `include[before..after]`
    /// is what [`super::PredictionEncoder::encode`] takes.
    ///
    /// A number of a float input is read as a double and then rounded to a float, as most
    /// training pipelines do.
    pub fn decode(
        &mut self,
        value: Option<&[u8]>,
        batch: &mut Columns,
        include: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        let text = text::event_text(value)?;
        if !self.layout.fits(batch) {
            return Err(RowError::new(
                Stage::Features,
                "internal",
                "the batch was made for another contract",
            ));
        }
        let rows = batch.rows;
        layout::extend(batch);
        self.scratch.stamp += 1;
        if self.read_plain(text, batch).is_some() {
            batch.rows = rows + 1;
            self.layout.write_included(&self.scratch, text, include);
            return Ok(());
        }
        self.scratch.stamp += 1;
        self.scratch.nested.clear();
        match Walk::new(&self.layout, &mut self.scratch, text, batch).run() {
            Ok(()) => {
                batch.rows = rows + 1;
                self.layout.write_included(&self.scratch, text, include);
                Ok(())
            }
            Err(error) => {
                batch.truncate(rows);
                Err(error)
            }
        }
    }

    /// The fast pass, where it is worth a try. If it gives up, the row is as it was.
    fn read_plain(&mut self, text: &str, batch: &mut Columns) -> Option<()> {
        let (passed, left) = self.scratch.passed_over;
        if let Some(left) = left.checked_sub(1) {
            self.scratch.passed_over.1 = left;
            return None;
        }
        let read = plain::read(&self.layout, &mut self.scratch, text, batch);
        let next = match read {
            Some(()) => 0,
            None => (passed * 2 + 1).min(MOST_PASSED_OVER),
        };
        self.scratch.passed_over = (next, next);
        if read.is_none() {
            batch.truncate(batch.rows);
            layout::extend(batch);
        }
        read
    }
}
