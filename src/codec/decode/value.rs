//! One field's value on its way into one target: types, shapes and nulls.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::layout::{Place, Target, fill};
use super::number::{decimal, floats};
use super::scalar::{Refusal, Scalar, write};
use crate::codec::{RowError, Stage, Values};
use crate::model::Separator;

/// How the array that is being read is laid out; known from its first element on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Unknown,
    Flat,
    Nested,
}

/// Takes one field's value into one target. Errors other than syntax are kept, not returned:
/// the rest of the event must still be found to be JSON.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    name: &'a str,
    target: &'a Target,
    values: &'a mut Values,
    /// The next place to fill, and the end of the target.
    next: usize,
    end: usize,
    mode: Mode,
    error: Option<RowError>,
}

impl<'a> Sink<'a> {
    /// A sink for `target`, whose column is `values` and whose row begins at `row`.
    pub(super) fn new(
        name: &'a str,
        target: &'a Target,
        values: &'a mut Values,
        row: usize,
    ) -> Self {
        let (first, len) = target.extent();
        Self {
            name,
            target,
            values,
            next: row + first,
            end: row + first + len,
            mode: Mode::Unknown,
            error: None,
        }
    }

    /// Reads one value; gives what is wrong with it, or the parser's error.
    pub(super) fn read<'de, D: Deserializer<'de>>(
        mut self,
        deserializer: D,
    ) -> Result<Option<RowError>, D::Error> {
        let sink = &mut self;
        Element { sink, level: 0 }.deserialize(deserializer)?;
        Ok(self.error)
    }

    /// Fills the target where the event does not have the field.
    pub(super) fn absent(self) -> Option<RowError> {
        let len = self.end - self.next;
        let filled = fill(self.values, self.next, len, &self.target.missing.absent);
        (!filled).then(|| feature_error(self.name, "missing_feature", "is not in the event"))
    }

    fn fail(&mut self, class: &'static str, what: impl fmt::Display) {
        if self.error.is_none() {
            self.error = Some(feature_error(self.name, class, what));
        }
    }

    fn shape(&self) -> &'a [usize] {
        match &self.target.place {
            Place::Cell(_) => &[],
            Place::Row(shape) => shape,
            Place::Text(len, _) => std::slice::from_ref(len),
        }
    }

    /// Reads the numbers of a string; `None` where anything is wrong with them.
    pub(super) fn text(mut self, text: &str, separator: Separator) -> Option<()> {
        self.numbers(text, separator);
        self.error.is_none().then_some(())
    }

    /// Reads the numbers of a string. What a number may look like is what JSON has, and what other
    /// languages print besides: `1.`, `.5`, `+1`; not `NaN` or `inf`.
    fn numbers(&mut self, text: &str, separator: Separator) {
        let separator = separator.byte();
        let bytes = text.as_bytes();
        let bytes = bytes.strip_suffix(&[separator]).unwrap_or(bytes);
        let (first, wanted) = (self.next, self.end - self.next);
        let element = self.target.element;
        let (mut count, mut at) = (0, 0);
        loop {
            let mut rest = bytes.get(at..).unwrap_or_default();
            if let Values::Float(values) = &mut *self.values
                && let Some(slots) = values.get_mut(first + count..self.end)
            {
                let (read, length) = floats(rest, separator, slots);
                count += read;
                at += length;
                rest = rest.get(length..).unwrap_or_default();
            }
            let Some((number, length)) = number_before(rest, separator) else {
                let found = format_args!("takes {element}, found text that is no number");
                return self.fail("wrong_type", found);
            };
            let place = first + count;
            let fits = number.is_finite()
                && (count >= wanted || write(self.values, place, Scalar::Float(number)).is_ok());
            if !fits {
                return self.fail("out_of_range", format_args!("does not fit into {element}"));
            }
            count += 1;
            at += length + 1;
            if at > bytes.len() {
                break;
            }
        }
        if count != wanted {
            self.fail(
                "wrong_shape",
                format_args!("takes {wanted} numbers in a string, found {count}"),
            );
        }
    }

    /// The place for a scalar that stands inside `level` arrays.
    fn slot(&mut self, level: usize) -> Option<usize> {
        if matches!(self.target.place, Place::Text(..)) {
            self.fail(
                "wrong_type",
                "takes a string of numbers, found another value",
            );
            return None;
        }
        let shape = self.shape();
        if level == 1 && self.mode == Mode::Unknown {
            self.mode = Mode::Flat;
        }
        let fits = match level {
            0 => matches!(shape, [] | [1]),
            1 => self.mode == Mode::Flat,
            _ => level == shape.len(),
        };
        if !fits {
            let takes = ShapeText(shape);
            self.fail(
                "wrong_shape",
                format_args!("takes {takes}, found too few levels"),
            );
            return None;
        }
        let at = self.next;
        self.next += 1;
        (at < self.end).then_some(at)
    }

    fn scalar(&mut self, level: usize, scalar: Scalar<'_>) {
        let Some(at) = self.slot(level) else {
            return;
        };
        let element = self.target.element;
        match write(self.values, at, scalar) {
            Ok(()) => {}
            Err(Refusal::Type(found)) => {
                self.fail("wrong_type", format_args!("takes {element}, found {found}"));
            }
            Err(Refusal::Range) => {
                self.fail("out_of_range", format_args!("does not fit into {element}"));
            }
        }
    }

    fn null(&mut self, level: usize) {
        let whole = level == 0;
        let (at, len) = if whole {
            (self.next, self.end - self.next)
        } else {
            match self.slot(level) {
                Some(at) => (at, 1),
                None => return,
            }
        };
        if !fill(self.values, at, len, &self.target.missing.null) {
            let what = if whole { "is null" } else { "holds a null" };
            self.fail("null_feature", what);
        }
    }

    /// Whether an array may stand inside `level` arrays.
    fn open(&mut self, level: usize) -> bool {
        if matches!(self.target.place, Place::Text(..)) {
            self.fail("wrong_type", "takes a string of numbers, found an array");
            return false;
        }
        let shape = self.shape();
        if level == 1 && self.mode == Mode::Unknown {
            self.mode = Mode::Nested;
        }
        let fits = level < shape.len() && (level == 0 || self.mode == Mode::Nested);
        if !fits {
            let takes = ShapeText(shape);
            self.fail(
                "wrong_shape",
                format_args!("takes {takes}, found too many levels"),
            );
        }
        fits
    }

    /// How many elements an array inside `level` arrays must have.
    fn wanted(&self, level: usize) -> usize {
        match self.mode {
            Mode::Nested => self.shape().get(level).copied().unwrap_or_default(),
            Mode::Flat | Mode::Unknown => self.shape().iter().product(),
        }
    }
}

/// The number before the first separator in `text`, or in all of it, and the length of its text.
#[inline]
fn number_before(text: &[u8], separator: u8) -> Option<(f64, usize)> {
    if let Some((decimal, length)) = decimal(text)
        && text.get(length).is_none_or(|byte| *byte == separator)
        && let Some(number) = decimal.double()
    {
        return Some((number, length));
    }
    let length = text.iter().position(|byte| *byte == separator);
    let part = text.get(..length.unwrap_or(text.len()))?;
    let trimmed = part.trim_ascii();
    let of_number = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    let number = trimmed.iter().all(of_number).then_some(trimmed)?;
    let number = str::from_utf8(number).ok()?.parse().ok()?;
    Some((number, part.len()))
}

/// An error about the feature `name`.
pub(super) fn feature_error(name: &str, class: &'static str, what: impl fmt::Display) -> RowError {
    let message = format!("feature {} {what}", quoted(name));
    RowError::new(Stage::Features, class, message)
}

/// A field's name as messages carry it: quoted, and cut where it is very long.
pub(super) fn quoted(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    format!("{short:?}")
}

struct ShapeText<'a>(&'a [usize]);

impl fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] | [1] => f.write_str("one value"),
            shape => write!(f, "an array of shape {shape:?}"),
        }
    }
}

/// A value that stands inside `level` arrays. Recursion is bounded: the depth of the event was
/// checked.
struct Element<'s, 'a> {
    sink: &'s mut Sink<'a>,
    level: usize,
}

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.sink.scalar(self.level, Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.sink.scalar(self.level, Scalar::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.sink.scalar(self.level, Scalar::Uint(value));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.sink.scalar(self.level, Scalar::Float(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        if let (Place::Text(_, separator), 0) = (&self.sink.target.place, self.level) {
            self.sink.numbers(value, *separator);
            return Ok(());
        }
        self.sink.scalar(self.level, Scalar::Text(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.sink.null(self.level);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { sink, level } = self;
        if !sink.open(level) {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let mut count = 0;
        loop {
            let surplus = count > 0 && count >= sink.wanted(level);
            let more = if surplus || sink.error.is_some() {
                seq.next_element::<IgnoredAny>()?.is_some()
            } else {
                let element = Element {
                    sink: &mut *sink,
                    level: level + 1,
                };
                seq.next_element_seed(element)?.is_some()
            };
            if !more {
                break;
            }
            count += 1;
        }
        if count != sink.wanted(level) {
            let (wanted, takes) = (sink.wanted(level), ShapeText(sink.shape()));
            sink.fail(
                "wrong_shape",
                format_args!("takes {takes}, found {count} elements instead of {wanted}"),
            );
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let element = self.sink.target.element;
        self.sink.fail(
            "wrong_type",
            format_args!("takes {element}, found an object"),
        );
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
