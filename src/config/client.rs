//! Reads `[kafka.client]`: librdkafka's properties, passed on unchanged; secrets may come from
//! files.

use std::collections::{BTreeMap, BTreeSet};

use super::section::Section;
use super::tree::{Node, Table, Value};
use crate::kafka::{RESERVED_PROPERTIES, SECRET_PROPERTIES, property_name};

/// Whether the value of `property` is a secret.
pub(super) fn is_secret(property: &str) -> bool {
    // More than the list: plugins and later versions of librdkafka bring their own.
    let tells = |word: &str| property.contains(word);
    SECRET_PROPERTIES.contains(&property) || tells("password") || tells("secret")
}

/// The properties, and the names of those whose value came from a file.
pub(super) fn read(kafka: &Section<'_>) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let section = kafka.open("client");
    let mut nodes = Vec::new();
    for (name, node) in section.entries() {
        flatten(name.clone(), node, &mut nodes);
    }
    let mut client = BTreeMap::new();
    let mut from_files = BTreeSet::new();
    for (name, node) in nodes {
        let reserved = RESERVED_PROPERTIES
            .iter()
            .find(|(known, _)| *known == property_name(&name));
        if let Some((_, reason)) = reserved {
            let message = format!("may not be set: {reason}");
            section.error_at(&node.key_place, &name, message);
            continue;
        }
        let twin = client
            .keys()
            .find(|known: &&String| property_name(known) == property_name(&name));
        if let Some(twin) = twin {
            let message =
                format!("is another name of {twin:?}, which is set as well: leave one of them");
            section.error_at(&node.key_place, &name, message);
            continue;
        }
        let value = match &node.value {
            Value::Table(table) => {
                from_files.insert(name.clone());
                from_file(table)
            }
            other => scalar(other),
        };
        match value {
            Ok(value) => {
                client.insert(name, value);
            }
            Err(message) => section.error_at(&node.place, &name, message),
        }
    }
    (client, from_files)
}

/// Names with dots that are not quoted are tables inside tables: puts them together again.
fn flatten<'t>(name: String, node: &'t Node, nodes: &mut Vec<(String, &'t Node)>) {
    match &node.value {
        Value::Table(Table(inner)) if !inner.is_empty() && !inner.contains_key("file") => {
            for (key, node) in inner {
                flatten(format!("{name}.{key}"), node, nodes);
            }
        }
        _ => nodes.push((name, node)),
    }
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) | Value::Variable(text) => Ok(text.clone()),
        Value::Integer(value) => Ok(value.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        // The value may be a secret: it is not repeated.
        _ => Err("expected a string, an integer, true or false".to_owned()),
    }
}

fn from_file(Table(keys): &Table) -> Result<String, String> {
    let path = match keys.get("file").map(|node| &node.value) {
        Some(Value::Text(path) | Value::Variable(path)) if keys.len() == 1 => path,
        _ => return Err("expected a value or { file = \"/path/of/a/secret\" }".to_owned()),
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the file {path:?}: {error}"))?;
    // One line end at most: it is the editor's, the rest is the secret's.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("the file {path:?} is empty"));
    }
    Ok(text.to_owned())
}
