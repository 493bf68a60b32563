//! The configuration before it means anything: a tree of values, each with its place, from a TOML
//! file and from variables of the environment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Place};

/// Variables with this prefix override keys.
pub(super) const PREFIX: &str = "SWAPSTREAM__";

/// Properties of librdkafka with an underscore in their name; in all others it stands for a dot.
const UNDERSCORED: &[&str] = &["log_level"];

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float,
    Bool(bool),
    /// A date or time, as it is written.
    Time(String),
    Array(Vec<Node>),
    Table(Table),
    /// The value of a variable: whatever its reader takes it for.
    Variable(String),
}

/// A value and where it is given.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
    /// Where its key is given, which is what a mistake about the key points at.
    pub(super) key_place: Place,
}

/// Values by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, Node>);

/// Turns byte offsets into lines and columns.
struct Lines<'t> {
    file: Arc<str>,
    text: &'t str,
}

impl Lines<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Line {
            file: Arc::clone(&self.file),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
        }
    }
}

/// Parses a file; gives its tree and its place as a whole, or every mistake in its syntax.
pub(super) fn from_toml(path: &Path, text: &str) -> Result<(Table, Place), ConfigErrors> {
    let file: Arc<str> = path.display().to_string().into();
    let whole = Place::File(Arc::clone(&file));
    let lines = Lines { file, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok((convert_table(table.get_ref(), &lines), whole));
    }
    let error = |error: &toml::de::Error| ConfigError {
        place: error
            .span()
            .map_or_else(|| whole.clone(), |span| lines.place(span.start)),
        key: String::new(),
        message: format!("this is no TOML: {}", error.message()),
    };
    Err(ConfigErrors::new(errors.iter().map(error).collect()))
}

fn convert_table(table: &DeTable<'_>, lines: &Lines<'_>) -> Table {
    let node = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key_place = lines.place(key.span().start);
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.to_string(), convert(value, key_place, lines))
    };
    Table(table.iter().map(node).collect())
}

fn convert(value: &Spanned<DeValue<'_>>, key_place: Place, lines: &Lines<'_>) -> Node {
    let place = lines.place(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let parsed = i128::from_str_radix(integer.as_str(), integer.radix());
            // What does not even fit 128 bits is out of every range.
            Value::Integer(parsed.unwrap_or(i128::MAX))
        }
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::Time(time.to_string()),
        DeValue::Array(array) => {
            let item = |value| convert(value, place.clone(), lines);
            Value::Array(array.iter().map(item).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(table, lines)),
    };
    Node {
        value,
        place,
        key_place,
    }
}

/// Puts every variable with our prefix into the tree, over what the file says.
pub(super) fn apply_environment(
    root: &mut Table,
    env: impl IntoIterator<Item = (String, String)>,
    errors: &mut Vec<ConfigError>,
) {
    let ours = |(name, value): (String, String)| name.starts_with(PREFIX).then_some((name, value));
    // In order, so that what is reported does not depend on the order of the environment.
    let variables: BTreeMap<String, String> = env.into_iter().filter_map(ours).collect();
    for (name, value) in variables {
        let segments: Vec<&str> = name
            .strip_prefix(PREFIX)
            .unwrap_or_default()
            .split("__")
            .collect();
        let place = Place::Variable(name.clone());
        let result = if segments.iter().any(|segment| segment.is_empty()) {
            Err("expected a name such as SWAPSTREAM__SECTION__KEY".to_owned())
        } else {
            let path = key_path(root, &segments);
            let node = Node {
                value: Value::Variable(value),
                place: place.clone(),
                key_place: place.clone(),
            };
            insert(root, &path, node)
        };
        if let Err(message) = result {
            errors.push(ConfigError {
                place,
                key: segments.join(".").to_lowercase(),
                message,
            });
        }
    }
}

/// The path of keys that the parts of a variable's name stand for.
fn key_path(root: &Table, segments: &[&str]) -> Vec<String> {
    let mut path: Vec<String> = segments.iter().map(|part| part.to_lowercase()).collect();
    match path.as_mut_slice() {
        [section, client, property, ..]
            if section == "kafka"
                && client == "client"
                && !UNDERSCORED.contains(&property.as_str()) =>
        {
            *property = property.replace('_', ".");
        }
        [section, stream, ..] if section == "streams" => {
            let plain = |name: &str| name.to_lowercase().replace(['-', '.'], "_");
            if let Some(Value::Table(streams)) = root.0.get("streams").map(|node| &node.value)
                && let Some(name) = streams.0.keys().find(|name| plain(name) == *stream)
            {
                stream.clone_from(name);
            }
        }
        _ => {}
    }
    path
}

fn insert(table: &mut Table, path: &[String], node: Node) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        table.0.insert(key.clone(), node);
        return Ok(());
    }
    let section = || Node {
        value: Value::Table(Table::default()),
        place: node.place.clone(),
        key_place: node.key_place.clone(),
    };
    let inner = table.0.entry(key.clone()).or_insert_with(section);
    // A secret in the file gives way to the name of a file with the secret.
    let from_file = !matches!(inner.place, Place::Variable(_));
    if from_file && rest == ["file"] && !matches!(inner.value, Value::Table(_)) {
        *inner = section();
    }
    match &mut inner.value {
        Value::Table(inner) => insert(inner, rest, node),
        _ => Err(format!("{key} is set by {} and has no keys", inner.place)),
    }
}
