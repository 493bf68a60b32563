//! The fastest part of the fast pass: fields that each fill one cell of floats, where they stand as
//! they stood in the last event.
//!
//! Comma, key and colon are compared in one piece with what stood in this place, and a short number
//! is read without asking first where it ends. Whatever is anything else is left to [`super::plain`],
//! with nothing done.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "a loop that is compiled for instructions that not every processor has"
    )
)]
#![expect(
    clippy::inline_always,
    reason = "the loop has to be compiled for each way to read numbers"
)]

use super::Scratch;
use super::brief::{BRIEF, Brief, Words};
#[cfg(target_arch = "x86_64")]
use super::brief::{Vectors, has_vectors};
use super::layout::{Cell, Field};
use super::paths::Entry;
use crate::codec::{Columns, Values};
use crate::model::MissingPolicy;

/// What is compared in front of a value, in words of eight bytes.
const WORDS: usize = 4;
/// What has to be there of an event for a field to be read here.
const WINDOW: usize = 8 * WORDS + BRIEF;

/// How each of the event's own keys is read, by the number of its entry: for events without white
/// space, and for those that have one space behind each comma and colon, as Python writes them.
#[derive(Debug, Default)]
pub(super) struct Steps {
    level: Level,
    dense: Vec<Step>,
    spaced: Vec<Step>,
}

/// One key and the cell that its value fills.
#[derive(Debug)]
struct Step {
    /// Comma, key and colon, with zeros behind them.
    front: [u64; WORDS],
    /// The bits of them. None where the key is not read here: then nothing is equal.
    mask: [u64; WORDS],
    /// Bytes of them.
    len: usize,
    field: usize,
    cell: Cell,
    /// What the cell holds for null, where that is no error.
    null: Option<f32>,
}

impl Steps {
    /// The steps of `entries`, which lead to `fields`.
    pub(super) fn new(entries: &[Entry], fields: &[Field]) -> Self {
        let steps = |space: &str| {
            let step = |entry| Step::new(entry, fields, space).unwrap_or_else(Step::never);
            entries.iter().map(step).collect()
        };
        Self {
            level: level(),
            dense: steps(""),
            spaced: steps(" "),
        }
    }

    /// Reads the fields from the comma at `at` on into the row that `batch` has room for, and moves `at`
    /// to what stands behind them: a comma or the end. `place` is the number of the first one; gives
    /// how many there were.
    pub(super) fn read(
        &self,
        scratch: &mut Scratch,
        bytes: &[u8],
        at: &mut usize,
        place: usize,
        batch: &mut Columns,
    ) -> usize {
        let steps = match bytes.get(*at + 1) {
            Some(b' ') => &self.spaced,
            _ => &self.dense,
        };
        let hints = scratch.hints.get(place..).unwrap_or_default();
        // Not begun in vain for each field of what has other cells.
        let next = hints.first().and_then(|hint| steps.get(*hint));
        if next.is_none_or(|step| step.len == 0) {
            return 0;
        }
        let run = Run {
            steps,
            hints,
            stamp: scratch.stamp,
            seen: &mut scratch.seen,
            bytes,
            batch,
        };
        let (count, end) = match self.level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` found that the processor has what the function is compiled with.
            Level::Vectors => unsafe { run.by_vectors(*at) },
            Level::Words => run.by_words(*at),
        };
        *at = end;
        count
    }
}

/// How numbers are read.
#[derive(Debug, Default, Clone, Copy)]
enum Level {
    #[default]
    Words,
    #[cfg(target_arch = "x86_64")]
    Vectors,
}

fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    if has_vectors() {
        return Level::Vectors;
    }
    Level::Words
}

/// Some fields of an event, one behind the other.
struct Run<'a> {
    steps: &'a [Step],
    /// What the keys meant in the last event.
    hints: &'a [usize],
    stamp: u64,
    seen: &'a mut [u64],
    bytes: &'a [u8],
    batch: &'a mut Columns,
}

impl Run<'_> {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn by_vectors(self, at: usize) -> (usize, usize) {
        self.fields::<Vectors>(at)
    }

    #[inline(never)]
    fn by_words(self, at: usize) -> (usize, usize) {
        self.fields::<Words>(at)
    }

    /// Reads fields from `at` on: how many there were, and where the last one ends.
    #[inline(always)]
    fn fields<B: Brief>(self, mut at: usize) -> (usize, usize) {
        let mut count = 0;
        let (mut column, mut row) = (usize::MAX, Default::default());
        for hint in self.hints {
            let Some(window) = self.bytes.get(at..).and_then(<[u8]>::first_chunk) else {
                break;
            };
            let Some(step) = self.steps.get(*hint).filter(|step| step.begins(window)) else {
                break;
            };
            let Some((value, length)) = step.value::<B>(window) else {
                break;
            };
            // Twice in one event is an error, and not for here.
            let seen = self.seen.get_mut(step.field);
            let Some(seen) = seen.filter(|seen| **seen != self.stamp) else {
                break;
            };
            if column != step.cell.column {
                column = step.cell.column;
                row = floats(self.batch, column).unwrap_or_default();
            }
            let Some(slot) = row.get_mut(step.cell.at) else {
                break;
            };
            *slot = value;
            *seen = self.stamp;
            at += step.len + length;
            count += 1;
        }
        (count, at)
    }
}

impl Step {
    fn new(entry: &Entry, fields: &[Field], space: &str) -> Option<Self> {
        let number = entry.field.filter(|_| entry.child.is_none())?;
        let field = fields.get(number).filter(|field| !field.include)?;
        let text = format!(",{space}\"{}\":{space}", entry.as_written()?);
        let (mut front, mut mask) = ([0; 8 * WORDS], [0; 8 * WORDS]);
        front
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        mask.get_mut(..text.len())?.fill(u8::MAX);
        let null = match &field.targets.first()?.missing.null {
            MissingPolicy::Nan => Some(f32::NAN),
            MissingPolicy::Value(value) => Some(*value as f32),
            MissingPolicy::Reject | MissingPolicy::Text(_) => None,
        };
        Some(Self {
            front: words(&front),
            mask: words(&mask),
            len: text.len(),
            field: number,
            cell: field.cell?,
            null,
        })
    }

    fn never() -> Self {
        Self {
            front: [1; WORDS],
            mask: [0; WORDS],
            len: 0,
            field: 0,
            cell: Cell { column: 0, at: 0 },
            null: None,
        }
    }

    #[inline(always)]
    fn begins(&self, window: &[u8; WINDOW]) -> bool {
        let parts = window.as_chunks().0.iter().zip(&self.front).zip(&self.mask);
        let differ = parts.fold(0, |differ, ((part, front), mask)| {
            differ | (u64::from_le_bytes(*part) & mask ^ front)
        });
        differ == 0
    }

    /// The value behind the key, and its length.
    #[inline(always)]
    fn value<B: Brief>(&self, window: &[u8; WINDOW]) -> Option<(f32, usize)> {
        let rest = window.get(self.len..)?.first_chunk()?;
        match B::read(rest) {
            Some(found) => Some(found),
            None if matches!(rest, [b'n', b'u', b'l', b'l', b',' | b'}', ..]) => {
                Some((self.null?, 4))
            }
            None => None,
        }
    }
}

impl Cell {
    /// Puts `value` into the row that `batch` has room for.
    #[inline]
    pub(super) fn put(&self, value: f32, batch: &mut Columns) -> Option<()> {
        *floats(batch, self.column)?.get_mut(self.at)? = value;
        Some(())
    }
}

/// The row that `batch` has room for, in a column of floats.
#[inline]
fn floats(batch: &mut Columns, column: usize) -> Option<&mut [f32]> {
    let column = batch.columns.get_mut(column)?;
    match &mut column.values {
        Values::Float(values) => values.get_mut(batch.rows * column.row_len..),
        _ => None,
    }
}

fn words(bytes: &[u8; 8 * WORDS]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::tests::{contract, features};
    use super::super::{Decoder, layout};
    use super::*;
    use crate::model::{ElementType, Missing};

    #[test]
    fn fields_that_stand_as_in_the_last_event_are_read_here() {
        let missing = Missing {
            absent: MissingPolicy::Reject,
            null: MissingPolicy::Nan,
        };
        let names = ["a", "b", "c", "d", "e"];
        let contract = contract(vec![features(&names, ElementType::Float, missing)]);
        let mut decoder = Decoder::new(&contract, &[]);
        let mut batch = Columns::new(contract.inputs.iter().map(|input| &input.spec));
        let tail = r#","z":"which makes the event longer than what is looked at for one cell"}"#;
        for event in [
            format!(r#"{{"a":1,"b":2,"c":-3.5,"d":null,"e":5{tail}"#),
            format!(r#"{{"a": 1, "b": 2, "c": -3.5, "d": null, "e": 5{tail}"#),
        ] {
            decoder
                .decode(Some(event.as_bytes()), &mut batch, &mut Vec::new())
                .unwrap();
            for level in [Level::Words, level()] {
                decoder.layout.steps.level = level;
                decoder.scratch.stamp += 1;
                batch.clear();
                layout::extend(&mut batch);
                let mut at = event.find(',').unwrap();
                let count = decoder.layout.steps.read(
                    &mut decoder.scratch,
                    event.as_bytes(),
                    &mut at,
                    1,
                    &mut batch,
                );
                assert_eq!(
                    (count, at),
                    (4, event.find(tail).unwrap()),
                    "{level:?} {event}"
                );
                let values = format!("{:?}", batch.columns[0].values);
                assert_eq!(values, "Float([0.0, 2.0, -3.5, NaN, 5.0])");
            }
            batch.clear();
        }
    }
}
