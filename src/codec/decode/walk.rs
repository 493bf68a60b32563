//! The pass over one event: finds the fields that are read and hands their values on.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::layout::{Field, Layout};
use super::paths::Entry;
use super::text::invalid_json;
use super::value::{Sink, quoted};
use super::{Nested, Scratch};
use crate::codec::{Columns, RowError, Stage};

/// One event and the row that it fills.
pub(super) struct Walk<'a> {
    layout: &'a Layout,
    scratch: &'a mut Scratch,
    text: &'a str,
    batch: &'a mut Columns,
    error: Option<RowError>,
}

impl<'a> Walk<'a> {
    /// `batch` has room for the row already.
    pub(super) fn new(
        layout: &'a Layout,
        scratch: &'a mut Scratch,
        text: &'a str,
        batch: &'a mut Columns,
    ) -> Self {
        Self {
            layout,
            scratch,
            text,
            batch,
            error: None,
        }
    }

    /// Fills the row.
    pub(super) fn run(mut self) -> Result<(), RowError> {
        let mut parser = serde_json::Deserializer::from_str(self.text);
        parser
            .deserialize_map(Event(&mut self))
            .and_then(|()| parser.end())
            .map_err(|error| invalid_json(&error))?;
        self.take_nested();
        self.fill_absent();
        self.error.map_or(Ok(()), Err)
    }

    /// Keeps the first error, and one that the event is broken over one about its features.
    fn fail(&mut self, error: RowError) {
        let replaces = match &self.error {
            None => true,
            Some(kept) => kept.stage == Stage::Features && error.stage == Stage::Decode,
        };
        if replaces {
            self.error = Some(error);
        }
    }

    /// The sink for target `index` of `field`.
    fn sink<'s>(&'s mut self, field: &'s Field, index: usize) -> Option<Sink<'s>> {
        let target = field.targets.get(index)?;
        let rows = self.batch.rows;
        let column = self.batch.columns.get_mut(target.column)?;
        let row = rows * column.row_len;
        Some(Sink::new(&field.name, target, &mut column.values, row))
    }

    fn fail_twice(&mut self, name: &str) {
        self.fail(RowError::new(
            Stage::Decode,
            "duplicate_key",
            format!("field {} is in the event twice", quoted(name)),
        ));
    }

    /// Notes the field as seen; false if it was already.
    fn see(&mut self, index: usize, field: &Field) -> bool {
        let stamp = self.scratch.stamp;
        match self.scratch.seen.get_mut(index) {
            Some(seen) if *seen == stamp => {
                self.fail_twice(&field.name);
                false
            }
            Some(seen) => {
                *seen = stamp;
                true
            }
            None => false,
        }
    }

    /// Where `raw`, a part of the event, begins.
    fn start(&self, raw: &str) -> usize {
        (raw.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }

    /// Notes where the fields lie that are inside the object `raw`; anything else than an object
    /// holds none. `depth` objects are around `raw`.
    fn note_nested(&mut self, node: usize, name: &str, raw: &str, depth: usize) {
        let stamp = self.scratch.stamp;
        match self.scratch.objects.get_mut(node) {
            Some(seen) if *seen == stamp => return self.fail_twice(name),
            Some(seen) => *seen = stamp,
            None => return,
        }
        if !raw.starts_with('{') {
            return;
        }
        let mut parser = serde_json::Deserializer::from_str(raw);
        let object = Object {
            walk: self,
            node,
            depth,
        };
        // The text was found to be JSON already, but for the escapes of keys.
        if let Err(error) = parser.deserialize_map(object) {
            let start = self.start(raw);
            self.fail(self.invalid_value(start, &error));
        }
    }

    /// Reads the values that were found inside objects, unless a longer key had the same name.
    fn take_nested(&mut self) {
        let layout = self.layout;
        let mut nested = std::mem::take(&mut self.scratch.nested);
        nested.sort_unstable_by_key(|found| (found.field, found.depth));
        for same in nested.chunk_by(|a, b| a.field == b.field) {
            let Some((first, field)) = same
                .first()
                .and_then(|first| Some((first, layout.fields.get(first.field)?)))
            else {
                continue;
            };
            if self.scratch.seen.get(first.field) == Some(&self.scratch.stamp) {
                continue;
            }
            self.see(first.field, field);
            if same.get(1).is_some_and(|next| next.depth == first.depth) {
                self.fail_twice(&field.name);
            }
            let text = self.text;
            if let Some(raw) = text.get(first.span.clone()) {
                self.raw(first.field, field, raw);
            }
        }
        self.scratch.nested = nested;
    }

    /// A field that is copied, or read into several places: `raw` is its text.
    fn raw(&mut self, index: usize, field: &Field, raw: &str) {
        let start = self.start(raw);
        if field.include {
            if let Some(span) = self.scratch.spans.get_mut(index) {
                *span = start..start + raw.len();
            }
            let mut parser = serde_json::Deserializer::from_str(raw);
            if let Err(error) = Strict.deserialize(&mut parser) {
                self.fail(self.invalid_value(start, &error));
            }
        }
        for target in 0..field.targets.len() {
            let Some(sink) = self.sink(field, target) else {
                continue;
            };
            let mut parser = serde_json::Deserializer::from_str(raw);
            match sink.read(&mut parser) {
                Ok(None) => {}
                Ok(Some(error)) => self.fail(error),
                Err(error) => self.fail(self.invalid_value(start, &error)),
            }
        }
    }

    /// The parser counted from the value's start; what people need is the place in the event.
    fn invalid_value(&self, start: usize, error: &serde_json::Error) -> RowError {
        let before = self.text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        RowError::new(
            Stage::Decode,
            "invalid_json",
            format!("{what} in the value at line {line} column {column}"),
        )
    }

    fn fill_absent(&mut self) {
        let layout = self.layout;
        for (index, field) in layout.fields.iter().enumerate() {
            if self.scratch.seen.get(index) == Some(&self.scratch.stamp) {
                continue;
            }
            for target in 0..field.targets.len() {
                let error = self.sink(field, target).and_then(Sink::absent);
                if let Some(error) = error {
                    self.fail(error);
                }
            }
        }
    }
}

/// The event itself.
struct Event<'w, 'a>(&'w mut Walk<'a>);

impl<'de> Visitor<'de> for Event<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let walk = self.0;
        let layout = walk.layout;
        for place in 0.. {
            let hint = walk.scratch.hint(place);
            let Some(found) = map.next_key_seed(EventKey(layout, hint))? else {
                break;
            };
            let index = found.and_then(|entry| entry.field);
            let field = index.and_then(|index| Some((index, layout.fields.get(index)?)));
            let field = field.filter(|(index, field)| walk.see(*index, field));
            if let Some((entry, child)) = found.and_then(|entry| Some((entry, entry.child?))) {
                let raw: &'de RawValue = map.next_value()?;
                walk.note_nested(child, entry.key(), raw.get(), 1);
                if let Some((index, field)) = field {
                    walk.raw(index, field, raw.get());
                }
                continue;
            }
            let Some((index, field)) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if field.include || field.targets.len() != 1 {
                let raw: &'de RawValue = map.next_value()?;
                walk.raw(index, field, raw.get());
            } else if let Some(sink) = walk.sink(field, 0) {
                if let Some(error) = map.next_value_seed(Value(sink))? {
                    walk.fail(error);
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// An object inside the event that fields may lie in.
struct Object<'w, 'a> {
    walk: &'w mut Walk<'a>,
    node: usize,
    /// How many objects are around a value of this one.
    depth: usize,
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { walk, node, depth } = self;
        let layout = walk.layout;
        while let Some(found) = map.next_key_seed(Key(layout, node))? {
            let Some(entry) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &'de RawValue = map.next_value()?;
            if let Some(field) = entry.field {
                let start = walk.start(raw.get());
                let span = start..start + raw.get().len();
                walk.scratch.nested.push(Nested { field, depth, span });
            }
            if let Some(child) = entry.child {
                walk.note_nested(child, entry.key(), raw.get(), depth + 1);
            }
        }
        Ok(())
    }
}

/// A key of an object: what it means, if anything. Compared where it lies; only a key with escapes
/// is copied, by the parser.
struct Key<'a>(&'a Layout, usize);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a Entry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.paths.find(self.1, name))
    }
}

/// A key of the event itself, with the hint for its place.
struct EventKey<'a, 'h>(&'a Layout, &'h mut usize);

impl<'de, 'a> DeserializeSeed<'de> for EventKey<'a, '_> {
    type Value = Option<&'a Entry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for EventKey<'a, '_> {
    type Value = Option<&'a Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.paths.find_hinted(name, self.1))
    }
}

/// The value of a field that fills one target.
struct Value<'a>(Sink<'a>);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Option<RowError>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.read(deserializer)
    }
}

/// Reads a value for nothing but errors that the grammar alone does not show (half a surrogate
/// pair, a number beyond a double): what is copied must be readable in the prediction.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Strict)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Strict)?.is_some() {
            map.next_value_seed(Strict)?;
        }
        Ok(())
    }
}
