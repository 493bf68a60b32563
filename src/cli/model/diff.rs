//! `swapstream model diff`: what two versions differ in: metrics, lineage, signature, contract, size.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::table::table;
use super::{Context, Failure, Output, manifest_of, print};
use crate::config::size;
use crate::model::{Manifest, ModelName, Version};
use crate::registry::read_catalog;

/// What a cell of the table shows at most.
const MOST_TEXT: usize = 60;

#[derive(Debug, Args)]
#[command(after_help = "Example: swapstream model diff late-arrival 1 2")]
pub(super) struct DiffArgs {
    /// The model.
    model: ModelName,
    /// A version.
    a: Version,
    /// Another one.
    b: Version,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    model: &'a ModelName,
    a: &'a Version,
    b: &'a Version,
    /// Whether both are the same ONNX file.
    same_artifact: bool,
    changes: Vec<Change>,
}

/// One value that differs; null where it is not there.
#[derive(Debug, PartialEq, Serialize)]
struct Change {
    what: String,
    a: Value,
    b: Value,
    /// b − a, of numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<f64>,
}

pub(super) fn run(args: &DiffArgs, context: &Context) -> Result<(), Failure> {
    let catalog = read_catalog(&context.logs())?;
    let a = manifest_of(&catalog, &args.model, &args.a)?;
    let b = manifest_of(&catalog, &args.model, &args.b)?;
    let report = Report {
        schema: "swapstream.model-diff/v1",
        model: &args.model,
        a: &args.a,
        b: &args.b,
        same_artifact: a.artifact.digest == b.artifact.digest,
        changes: changes(a, b)?,
    };
    print(args.output, &report, || text(&report))
}

/// What differs, the order of the manifest's fields kept; name, version and schema apart.
fn changes(a: &Manifest, b: &Manifest) -> Result<Vec<Change>, Failure> {
    let mut order = Vec::new();
    let mut sides = Vec::new();
    for manifest in [a, b] {
        let mut value = serde_json::to_value(manifest).map_err(Failure::failed)?;
        if let Value::Object(fields) = &mut value {
            for apart in ["schema", "model", "version"] {
                fields.remove(apart);
            }
        }
        let mut found = BTreeMap::new();
        flatten(String::new(), value, &mut |path, value| {
            if !order.contains(&path) {
                order.push(path.clone());
            }
            found.insert(path, value);
        });
        sides.push(found);
    }
    let take = |side: usize, path: &str| {
        let value = sides.get(side).and_then(|values| values.get(path));
        value.cloned().unwrap_or_default()
    };
    Ok(order
        .into_iter()
        .map(|path| {
            let (a, b) = (take(0, &path), take(1, &path));
            let delta = a.as_f64().zip(b.as_f64()).map(|(a, b)| b - a);
            Change {
                what: path,
                a,
                b,
                delta,
            }
        })
        .filter(|change| change.a != change.b)
        .collect())
}

/// Every value by its path. Elements of a list go by their name where they have one, so that one
/// feature more is one change.
fn flatten(path: String, value: Value, put: &mut impl FnMut(String, Value)) {
    let below = |name: &str| match path.as_str() {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                flatten(below(&name), value, put);
            }
        }
        Value::Array(items) if !items.is_empty() && items.iter().all(|i| name(i).is_some()) => {
            for (index, item) in items.into_iter().enumerate() {
                let name = name(&item).unwrap_or_default().to_owned();
                // Its place counts: features fill columns in order.
                put(format!("{}.place", below(&name)), Value::from(index));
                if let Value::Object(_) = &item {
                    flatten(below(&name), item, put);
                }
            }
        }
        Value::Array(items) if items.len() > 1 => {
            for (index, item) in items.into_iter().enumerate() {
                flatten(below(&(index + 1).to_string()), item, put);
            }
        }
        value => put(path, value),
    }
}

fn name(item: &Value) -> Option<&str> {
    match item {
        Value::String(name) => Some(name),
        Value::Object(fields) => fields.get("name").and_then(Value::as_str),
        _ => None,
    }
}

fn text(report: &Report<'_>) -> String {
    if report.changes.is_empty() {
        return "no difference but the version".to_owned();
    }
    let rows: Vec<Vec<String>> = report
        .changes
        .iter()
        .map(|change| {
            let delta = change.delta.map(|delta| format!("{delta:+}"));
            let show = |value: &Value| match (change.what.as_str(), value.as_u64()) {
                ("artifact.bytes", Some(bytes)) => size(bytes),
                ("artifact.uri", None) => shown(&value.as_str().map_or(Value::Null, masked)),
                _ => shown(value),
            };
            vec![
                change.what.clone(),
                show(&change.a),
                show(&change.b),
                delta.unwrap_or_default(),
            ]
        })
        .collect();
    let (a, b) = (report.a.to_string(), report.b.to_string());
    table(&["WHAT", &a, &b, "CHANGE"], &rows)
}

fn masked(uri: &str) -> Value {
    crate::registry::shown(uri).into()
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= MOST_TEXT {
        return text;
    }
    let start: String = text.chars().take(MOST_TEXT - 1).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Artifact, Digest, ManifestDraft};

    fn manifest(version: &str, draft: &str, bytes: u64) -> Manifest {
        let artifact = Artifact {
            digest: Digest::of(version.as_bytes()),
            bytes,
            uri: None,
        };
        ManifestDraft::from_toml(draft).unwrap().finish(
            ModelName::new("m").unwrap(),
            Version::new(version).unwrap(),
            artifact,
            Vec::new(),
        )
    }

    #[test]
    fn metrics_features_and_size_are_compared() {
        let a = manifest(
            "1",
            "inputs = [{ name = \"x\", features = [\"p\", \"q\"] }]\nlineage.metrics = { auc = 0.5, loss = 1 }",
            100,
        );
        let b = manifest(
            "2",
            "inputs = [{ name = \"x\", features = [\"p\", \"r\", \"q\"] }]\nlineage.metrics = { auc = 0.75 }",
            150,
        );
        let changes = changes(&a, &b).unwrap();
        let of = |what: &str| {
            let change = changes.iter().find(|change| change.what == what);
            change.map(|c| (c.a.clone(), c.b.clone(), c.delta))
        };
        assert_eq!(
            of("lineage.metrics.auc"),
            Some((json!(0.5), json!(0.75), Some(0.25)))
        );
        assert_eq!(
            of("lineage.metrics.loss"),
            Some((json!(1), Value::Null, None))
        );
        assert_eq!(of("artifact.bytes").unwrap().2, Some(50.0));
        assert!(of("artifact.digest").is_some());
        assert_eq!(
            of("inputs.x.features.r.place"),
            Some((Value::Null, json!(1), None))
        );
        assert_eq!(of("inputs.x.features.q.place").unwrap().2, Some(1.0));
        assert_eq!(of("inputs.x.features.p.place"), None);
        assert_eq!(of("version"), None);
        assert!(super::changes(&a, &a).unwrap().is_empty());
    }
}
