//! The JSON Schemas in `docs/schemas/` against the types they come from, and what the program and
//! the documents show against the types and the schemas.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test reports"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use swapstream::codec::{self, ErrorLine, Prediction};
use swapstream::demo::{DEMO_SCHEMA, Summary};
use swapstream::dlq;
use swapstream::model::{Manifest, ManifestDraft};
use swapstream::registry::{
    self, ChunksHeader, Deletion, DeploymentEvent, Heartbeat, LoadingNote, StatusEntry,
};
use swapstream::runtime::{INSPECTION_SCHEMA, Inspection};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All schemas by the name of their file.
fn schemas() -> BTreeMap<String, Value> {
    let named = codec::schemas()
        .into_iter()
        .chain(registry::schemas())
        .chain(dlq::schemas());
    let mut all: BTreeMap<String, Value> = named
        .map(|(schema, text)| (file_name(schema), serde_json::to_value(text).unwrap()))
        .collect();
    let inspection = schemars::schema_for!(Inspection);
    all.insert(
        file_name(INSPECTION_SCHEMA),
        serde_json::to_value(inspection).unwrap(),
    );
    let summary = schemars::schema_for!(Summary);
    all.insert(
        file_name(DEMO_SCHEMA),
        serde_json::to_value(summary).unwrap(),
    );
    let draft = schemars::schema_for!(ManifestDraft);
    all.insert(
        "manifest-draft.v1.json".to_owned(),
        serde_json::to_value(draft).unwrap(),
    );
    all
}

/// `swapstream.prediction/v1` lies in `prediction.v1.json`.
fn file_name(schema: &str) -> String {
    let name = schema.strip_prefix("swapstream.").unwrap();
    format!("{}.json", name.replace('/', "."))
}

#[test]
fn the_files_are_those_of_the_types() {
    let folder = root().join("docs/schemas");
    let bless = std::env::var_os("SWAPSTREAM_BLESS").is_some();
    let wanted = schemas();
    for (name, schema) in &wanted {
        let text = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
        let path = folder.join(name);
        if bless {
            std::fs::write(&path, text).unwrap();
        } else {
            assert_eq!(
                std::fs::read_to_string(&path).unwrap_or_default(),
                text,
                "{name}: SWAPSTREAM_BLESS=1 cargo test --test schemas rewrites it"
            );
        }
    }
    let there: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, wanted.into_keys().collect(), "files without a type");
}

/// Checks `text` against the type `T`: it reads, and writes back with nothing added or lost.
fn reads_as<T: DeserializeOwned + Serialize>(text: &str) {
    let value: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let back = serde_json::to_value(value).unwrap();
    let given: Value = serde_json::from_str(text).unwrap();
    assert_eq!(back, given, "{text}");
}

/// Checks what a schema says on the highest level: the fields that must be there, and that there
/// are no others.
fn fits(schemas: &BTreeMap<String, Value>, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    let schema = &schemas[&file_name(value["schema"].as_str().unwrap())];
    for required in schema["required"].as_array().unwrap() {
        assert!(
            value.get(required.as_str().unwrap()).is_some(),
            "{required}: {text}"
        );
    }
    for name in value.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "{name}: {text}");
    }
}

/// The JSON blocks of a document, each of which is one object.
fn examples(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_examples_of_the_documents_are_what_the_types_say() {
    let schemas = schemas();
    let mut seen = BTreeSet::new();
    for example in examples(&root().join("docs/formats.md")) {
        let value: Value =
            serde_json::from_str(&example).unwrap_or_else(|e| panic!("{e}: {example}"));
        let Some(schema) = value["schema"].as_str() else {
            continue;
        };
        match schema {
            "swapstream.prediction/v1" => reads_as::<Prediction>(&example),
            "swapstream.error/v1" => reads_as::<ErrorLine>(&example),
            "swapstream.manifest/v1" => reads_as::<Manifest>(&example),
            "swapstream.deployment/v1" => reads_as::<DeploymentEvent>(&example),
            "swapstream.loading/v1" => reads_as::<LoadingNote>(&example),
            "swapstream.deletion/v1" => reads_as::<Deletion>(&example),
            "swapstream.artifact-chunks/v1" => reads_as::<ChunksHeader>(&example),
            "swapstream.instance/v1" => reads_as::<Heartbeat>(&example),
            "swapstream.status/v1" => reads_as::<StatusEntry>(&example),
            other => panic!("no type for {other}"),
        }
        fits(&schemas, &example);
        seen.insert(schema.to_owned());
    }
    assert_eq!(seen.len(), 9, "every format has an example: {seen:?}");
}

#[test]
fn manifests_of_the_repository_fit() {
    for version in ["v1", "v2"] {
        let path = root().join(format!("models/flights/{version}.toml"));
        let draft = ManifestDraft::from_toml(&std::fs::read_to_string(path).unwrap()).unwrap();
        let json = serde_json::to_value(&draft).unwrap();
        let schema = &schemas()["manifest-draft.v1.json"];
        for name in json.as_object().unwrap().keys() {
            assert!(schema["properties"].get(name).is_some(), "{name}");
        }
    }
}
