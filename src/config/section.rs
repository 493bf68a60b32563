//! Typed reading of one section. A value that is wrong is noted and reads as absent, so that one
//! pass finds every mistake.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{ConfigError, Place};
use super::keys::{self, KEYS};
use super::render::{duration, size};
use super::tree::{Node, Table, Value};

/// The mistakes found so far, shared by all sections.
pub(super) type Errors = RefCell<Vec<ConfigError>>;

/// A section of the configuration.
pub(super) struct Section<'t> {
    /// Its path; empty for the top.
    path: String,
    /// Where its head is, for what it lacks.
    place: &'t Place,
    table: Option<&'t Table>,
    errors: &'t Errors,
}

impl<'t> Section<'t> {
    /// The top of the tree; reports keys that it does not have.
    pub(super) fn top(table: &'t Table, place: &'t Place, errors: &'t Errors) -> Self {
        let section = Self {
            path: String::new(),
            place,
            table: Some(table),
            errors,
        };
        section.report_unknown(&keys::known(""));
        section
    }

    /// The section `key` of this one, empty if it is not there; reports keys other than `known`.
    pub(super) fn sub(&self, key: &str, known: &[&str]) -> Self {
        let section = self.open(key);
        section.report_unknown(known);
        section
    }

    /// Like [`Self::sub`], for a section whose keys are names that users choose.
    pub(super) fn open(&self, key: &str) -> Self {
        let mut place = self.place;
        let mut table = None;
        if let Some(node) = self.get(key) {
            place = &node.key_place;
            match &node.value {
                Value::Table(inner) => table = Some(inner),
                other => self.wrong_type(node, key, "a section of keys", other),
            }
        }
        Self {
            path: self.path_of(key),
            place,
            table,
            errors: self.errors,
        }
    }

    /// The keys that are there, with their values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t String, &'t Node)> + use<'t> {
        self.table.into_iter().flat_map(|table| table.0.iter())
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Node> {
        self.table.and_then(|table| table.0.get(key))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Notes a mistake about the value of `key`, or about the section when it has no such key.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) {
        let place = self.get(key).map_or(self.place, |node| &node.place);
        self.error_at(place, key, message);
    }

    pub(super) fn error_at(&self, place: &Place, key: &str, message: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError {
            place: place.clone(),
            key: self.path_of(key),
            message: message.into(),
        });
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    fn report_unknown(&self, known: &[&str]) {
        for (key, node) in self.entries() {
            if !known.contains(&key.as_str()) {
                let message = unknown_key(key, known);
                self.error_at(&node.key_place, key, message);
            }
        }
    }

    fn wrong_type(&self, node: &Node, key: &str, expected: &str, found: &Value) {
        let message = format!("expected {expected}, found {}", describe(found));
        self.error_at(&node.place, key, message);
    }

    /// Notes that `key` is missing, unless it is there.
    pub(super) fn require(&self, key: &str, what: &str) {
        if !self.has(key) {
            self.error(key, format!("is missing: {what}"));
        }
    }

    /// A text that `parse` accepts; what it says about another is reported.
    pub(super) fn parsed<T, E: Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let node = self.get(key)?;
        let (Value::Text(text) | Value::Variable(text) | Value::Time(text)) = &node.value else {
            self.wrong_type(node, key, "a string", &node.value);
            return None;
        };
        parse(text)
            .map_err(|error| self.error_at(&node.place, key, error.to_string()))
            .ok()
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.parsed(key, not_empty)
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            let found = choices.iter().find(|(name, _)| *name == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let allowed: Vec<String> = choices.iter().map(|(n, _)| format!("{n:?}")).collect();
                format!("{text:?} is not allowed: expected {}", allowed.join(" or "))
            })
        })
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        let value = match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Variable(text) => text.trim().parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type(node, key, "true or false", &node.value);
        }
        value
    }

    /// An integer within `range`.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.get(key)?;
        let value = match &node.value {
            Value::Integer(value) => Some(*value),
            Value::Variable(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(value) = value else {
            self.wrong_type(node, key, "an integer", &node.value);
            return None;
        };
        let fits = u64::try_from(value).ok().filter(|v| range.contains(v));
        if fits.is_none() {
            let (least, most) = range.into_inner();
            self.error(key, format!("must be {least} to {most}, found {value}"));
        }
        fits
    }

    /// A duration within `range`.
    pub(super) fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let hint = "a duration with a unit, such as \"100ms\" or \"30s\"";
        self.quantity(key, hint, range, duration, |text| {
            humantime::parse_duration(text).ok()
        })
    }

    /// A number of bytes within `range`.
    pub(super) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let hint = "a size with a unit, such as \"512KiB\" or \"2GiB\"";
        self.quantity(key, hint, range, size, |text| {
            // A bare number is refused, as for durations: a unit says what is meant.
            let with_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
            let parsed = text.parse::<bytesize::ByteSize>().ok();
            parsed.filter(|_| with_unit).map(|size| size.as_u64())
        })
    }

    fn quantity<T: PartialOrd + Copy>(
        &self,
        key: &str,
        hint: &str,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> String,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(key)?;
        let (Value::Text(text) | Value::Variable(text)) = &node.value else {
            self.wrong_type(node, key, hint, &node.value);
            return None;
        };
        let Some(value) = parse(text.trim()) else {
            self.error(key, format!("expected {hint}, found {text:?}"));
            return None;
        };
        if range.contains(&value) {
            return Some(value);
        }
        let (least, most) = range.into_inner();
        let (least, most) = (show(least), show(most));
        self.error(key, format!("must be {least} to {most}, found {text:?}"));
        None
    }

    /// A list of texts, none empty, none twice. A variable gives it comma-separated.
    pub(super) fn list(&self, key: &str) -> Option<Vec<String>> {
        let node = self.get(key)?;
        let mut list: Vec<String> = Vec::new();
        let add = |text: &str, place: &Place, list: &mut Vec<String>| {
            if let Err(message) = not_empty(text) {
                self.error_at(place, key, message);
            } else if list.iter().any(|other| other == text) {
                self.error_at(place, key, format!("{text:?} is listed twice"));
            } else {
                list.push(text.to_owned());
            }
        };
        match &node.value {
            Value::Array(items) => {
                for item in items {
                    match &item.value {
                        Value::Text(text) => add(text, &item.place, &mut list),
                        other => self.wrong_type(item, key, "a string", other),
                    }
                }
            }
            Value::Variable(text) => {
                for part in text.split(',').map(str::trim) {
                    add(part, &node.place, &mut list);
                }
            }
            other => {
                self.wrong_type(node, key, "a list of strings, such as [\"a\"]", other);
                return None;
            }
        }
        Some(list)
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("the string {:?}", cut(text)),
        Value::Variable(text) => format!("{:?}", cut(text)),
        Value::Integer(value) => format!("the integer {value}"),
        Value::Float => "a number with a fraction".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Time(_) => "a date or time".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a section of keys".to_owned(),
    }
}

/// The start of a text: enough to recognise it in a message.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

/// What to say about a key that is not known here.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> String {
    let near = |candidate: &&&str| {
        let distance = strsim::damerau_levenshtein(&key.to_lowercase(), candidate);
        distance <= (candidate.len() / 3).max(1)
    };
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(key, candidate);
    if let Some(best) = known.iter().filter(near).min_by_key(distance) {
        return format!("unknown key; did you mean {best:?}?");
    }
    if let Some(elsewhere) = KEYS.iter().find(|doc| doc.key == key) {
        let section = match elsewhere.section {
            "" => "the top of the file".to_owned(),
            section => format!("[{section}]"),
        };
        return format!("unknown key here; {key} belongs to {section}");
    }
    format!("unknown key; allowed here are {}", known.join(", "))
}
