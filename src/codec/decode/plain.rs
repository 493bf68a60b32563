//! The fast pass over one event, for what most events are: an object of plain scalars, arrays of
//! numbers and strings of numbers.
//!
//! It gives up at the first byte that is anything else, and at whatever is wrong. [`super::walk`] then
//! reads the event from its start, and it alone says what is wrong. What this pass accepts it reads
//! as that one does, bit for bit; a property test holds the two together.

use super::Scratch;
use super::layout::{Cell, Field, Layout, Place, Target, fill};
use super::number::{decimal, floats};
use super::paths::Entry;
use super::scalar::{Scalar, write};
use super::value::Sink;
use crate::codec::{Columns, Values};

/// Reads `text` into the row that `batch` has room for. `None` where it gave up: the row and what
/// `scratch` knows of the event are then of no use.
pub(super) fn read(
    layout: &Layout,
    scratch: &mut Scratch,
    text: &str,
    batch: &mut Columns,
) -> Option<()> {
    let mut pass = Pass {
        layout,
        scratch,
        text,
        bytes: text.as_bytes(),
        at: 0,
        batch,
    };
    pass.event()
}

/// What a key of the event means.
enum Key<'a> {
    Read(&'a Entry),
    /// Nobody reads its value.
    Unread,
}

struct Pass<'a> {
    layout: &'a Layout,
    scratch: &'a mut Scratch,
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    batch: &'a mut Columns,
}

impl<'a> Pass<'a> {
    fn event(&mut self) -> Option<()> {
        self.space();
        self.take(b'{')?;
        self.space();
        let mut found = 0;
        if self.byte()? != b'}' {
            let mut place = 0;
            loop {
                match self.key(place)? {
                    Key::Read(entry) if entry.child.is_some() => return None,
                    Key::Read(entry) => {
                        self.field(entry.field?)?;
                        found += 1;
                    }
                    Key::Unread => self.skip()?,
                }
                place += 1;
                self.space();
                let cells = self.cells(place);
                (place, found) = (place + cells, found + cells);
                if self.byte()? != b',' {
                    break;
                }
                self.at += 1;
                self.space();
            }
        }
        self.take(b'}')?;
        self.space();
        if self.at != self.bytes.len() {
            return None;
        }
        if found == self.layout.fields.len() {
            return Some(());
        }
        self.fill_absent()
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.byte()? == byte).then(|| self.at += 1)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.rest()
            .starts_with(literal)
            .then(|| self.at += literal.len())
    }

    /// The fields from this place on that each fill a cell, as far as they stand as in the last event.
    #[inline]
    fn cells(&mut self, place: usize) -> usize {
        let (steps, bytes) = (&self.layout.steps, self.bytes);
        steps.read(self.scratch, bytes, &mut self.at, place, self.batch)
    }

    /// The key in this place and its colon: what it means.
    #[inline]
    fn key(&mut self, place: usize) -> Option<Key<'a>> {
        self.take(b'"')?;
        let layout = self.layout;
        let hint = self.scratch.hint(place);
        let rest = self.bytes.get(self.at..)?;
        if let Some((entry, length)) = layout.paths.guessed(rest, *hint) {
            self.at += length;
            self.space();
            return Some(Key::Read(entry));
        }
        let key = self.text.get(self.at..self.at + plain_len(rest)?)?;
        self.at += key.len() + 1;
        let entry = layout.paths.find_hinted(key, hint);
        let found = entry.map_or(Key::Unread, Key::Read);
        self.space();
        self.take(b':')?;
        self.space();
        Some(found)
    }

    /// The value of a field that is read.
    #[inline]
    fn field(&mut self, index: usize) -> Option<()> {
        let seen = self.scratch.seen.get_mut(index)?;
        if std::mem::replace(seen, self.scratch.stamp) == self.scratch.stamp {
            return None;
        }
        let layout = self.layout;
        let field = layout.fields.get(index)?;
        let start = self.at;
        let in_cell = field.cell.as_ref().and_then(|cell| self.cell(cell));
        if in_cell.is_none() {
            self.targets(field)?;
        }
        if field.include {
            *self.scratch.spans.get_mut(index)? = start..self.at;
        }
        Some(())
    }

    /// The value, into everything that the field fills.
    #[inline]
    fn targets(&mut self, field: &'a Field) -> Option<()> {
        let start = self.at;
        if field.targets.is_empty() {
            match self.byte()? {
                b'n' => self.literal(b"null")?,
                _ => drop(self.scalar()?),
            }
        }
        for target in &field.targets {
            self.at = start;
            self.target(field, target)?;
        }
        Some(())
    }

    /// A number without an exponent into a cell of floats. `None`, and nothing done, for all else.
    #[inline]
    fn cell(&mut self, cell: &Cell) -> Option<()> {
        let (decimal, length) = decimal(self.rest())?;
        cell.put(decimal.single()?, self.batch)?;
        self.at += length;
        Some(())
    }

    #[inline]
    fn target(&mut self, field: &'a Field, target: &'a Target) -> Option<()> {
        let row = self.batch.rows * self.batch.columns.get(target.column)?.row_len;
        let (first, len) = target.extent();
        let at = row + first;
        match (&target.place, self.byte()?) {
            (_, b'n') => {
                self.literal(b"null")?;
                let values = &mut self.batch.columns.get_mut(target.column)?.values;
                fill(values, at, len, &target.missing.null).then_some(())
            }
            (Place::Text(_, separator), b'"') => {
                let text = self.string()?;
                let values = &mut self.batch.columns.get_mut(target.column)?.values;
                Sink::new(&field.name, target, values, row).text(text, *separator)
            }
            (Place::Text(..), _) => None,
            (Place::Row(_), b'[') => self.array(target.column, at, len),
            (Place::Row(shape), _) if !matches!(shape.as_slice(), [] | [1]) => None,
            _ => {
                let scalar = self.scalar()?;
                let values = &mut self.batch.columns.get_mut(target.column)?.values;
                write(values, at, scalar).ok()
            }
        }
    }

    /// An array of exactly `len` numbers.
    fn array(&mut self, column: usize, at: usize, len: usize) -> Option<()> {
        self.take(b'[')?;
        // The last one has no comma behind it.
        let most = (at + len).checked_sub(1)?;
        let mut index = 0;
        while index < len {
            if index > 0 {
                self.take(b',')?;
            }
            let rest = self.rest();
            if let Values::Float(values) = &mut self.batch.columns.get_mut(column)?.values
                && let Some(slots) = values.get_mut(at + index..most)
            {
                let (read, length) = floats(rest, b',', slots);
                index += read;
                self.at += length;
            }
            self.space();
            let number = self.number()?;
            let values = &mut self.batch.columns.get_mut(column)?.values;
            match (values, number) {
                // The most frequent kind without the detour over all types.
                (Values::Float(values), Scalar::Float(value)) => {
                    let value = value as f32;
                    *values.get_mut(at + index)? = value.is_finite().then_some(value)?;
                }
                (values, number) => write(values, at + index, number).ok()?,
            }
            index += 1;
            self.space();
        }
        // An empty array ends here as well.
        self.space();
        self.take(b']')
    }

    fn scalar(&mut self) -> Option<Scalar<'a>> {
        match self.byte()? {
            b'"' => self.string().map(Scalar::Text),
            b't' => self.literal(b"true").map(|()| Scalar::Bool(true)),
            b'f' => self.literal(b"false").map(|()| Scalar::Bool(false)),
            _ => self.number(),
        }
    }

    /// A string without escapes.
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let text = self.text.get(self.at..self.at + plain_len(self.rest())?)?;
        self.at += text.len() + 1;
        Some(text)
    }

    #[inline]
    fn number(&mut self) -> Option<Scalar<'static>> {
        let rest = self.rest();
        if let Some((decimal, length)) = decimal(rest) {
            let scalar = match decimal.fraction {
                // As the parser has it: -0 is no integer.
                None if !decimal.negative => Scalar::Uint(decimal.digits),
                None if decimal.digits > 0 => Scalar::Int(-(decimal.digits as i64)),
                _ => match decimal.double() {
                    Some(double) => Scalar::Float(double),
                    None => return self.long_number(),
                },
            };
            self.at += length;
            return Some(scalar);
        }
        self.long_number()
    }

    /// A number with a fraction or an exponent that takes more work; no long integers.
    #[inline(never)]
    fn long_number(&mut self) -> Option<Scalar<'static>> {
        let start = self.at;
        let is_integer = self.skip_number()?;
        let value: f64 = self.text.get(start..self.at)?.parse().ok()?;
        (!is_integer && value.is_finite()).then_some(Scalar::Float(value))
    }

    /// Passes over a number in JSON's grammar; gives whether it is an integer.
    fn skip_number(&mut self) -> Option<bool> {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        let first = self.byte()?;
        let whole = self.skip_digits()?;
        if whole > 1 && first == b'0' {
            return None;
        }
        let mut is_integer = true;
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
            is_integer = false;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.skip_digits()?;
            is_integer = false;
        }
        Some(is_integer)
    }

    /// Passes over at least one digit; gives how many there are.
    fn skip_digits(&mut self) -> Option<usize> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit());
        let count = digits.count();
        self.at += count;
        (count > 0).then_some(count)
    }

    /// Passes over a value that nobody reads. Recursion is bounded: the depth of the event was
    /// checked.
    fn skip(&mut self) -> Option<()> {
        match self.byte()? {
            b'"' => self.string().map(drop),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'[' => self.skip_inside(b']', Self::skip),
            b'{' => self.skip_inside(b'}', |pass| {
                pass.string()?;
                pass.space();
                pass.take(b':')?;
                pass.space();
                pass.skip()
            }),
            _ => self.skip_number().map(drop),
        }
    }

    fn skip_inside(&mut self, end: u8, part: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.space();
        if self.byte()? != end {
            loop {
                part(self)?;
                self.space();
                if self.byte()? != b',' {
                    break;
                }
                self.at += 1;
                self.space();
            }
        }
        self.take(end)
    }

    fn fill_absent(&mut self) -> Option<()> {
        for (field, seen) in self.layout.fields.iter().zip(&self.scratch.seen) {
            if *seen == self.scratch.stamp {
                continue;
            }
            for target in &field.targets {
                let column = self.batch.columns.get_mut(target.column)?;
                let (first, len) = target.extent();
                let at = self.batch.rows * column.row_len + first;
                fill(&mut column.values, at, len, &target.missing.absent).then_some(())?;
            }
        }
        Some(())
    }
}

/// Length of the string's text that `bytes` begin with, up to its quote; `None` where it has escapes or
/// what a string may not hold.
#[inline]
fn plain_len(bytes: &[u8]) -> Option<usize> {
    const PART: usize = 64;
    let special =
        |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < b' ');
    let mut at = 0;
    // Long strings many bytes at a time.
    for part in bytes.chunks_exact(PART) {
        if part.iter().fold(0, |any, byte| any | special(*byte)) != 0 {
            break;
        }
        at += PART;
    }
    // The rest of it eight.
    for part in bytes.get(at..)?.as_chunks().0 {
        let found = specials(u64::from_le_bytes(*part));
        if found != 0 {
            at += (found.trailing_zeros() / 8) as usize;
            return (*bytes.get(at)? == b'"').then_some(at);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| special(*byte) != 0)?;
    (*rest.get(end)? == b'"').then_some(at + end)
}

/// The highest bit of the first byte that is a quote, a backslash or below a space, and of some above
/// it; 0 where there is none.
#[inline]
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let equal = |byte: u8| zero(word ^ (ONES * u64::from(byte)));
    let control = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
    (equal(b'"') | equal(b'\\') | control) & HIGH
}
