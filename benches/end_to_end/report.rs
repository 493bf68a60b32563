//! What is written: one JSON file a run, and the ratios that are held against the targets.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// The folder of all that this benchmark writes.
pub fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a run's figures to `bench/<name>.json`.
pub fn write(name: &str, value: &Value) {
    let path = folder().join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    std::fs::write(&path, text).unwrap();
    println!("written to {}", path.display());
}

/// Whether a run's file is there.
pub fn is_there(name: &str) -> bool {
    folder().join(format!("{name}.json")).exists()
}

/// What was written to `bench/<name>.json`; null where it is not there.
pub fn read(name: &str) -> Value {
    let bytes = std::fs::read(folder().join(format!("{name}.json")));
    let parsed = bytes
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    parsed.unwrap_or_default()
}

/// Adds ratios to `bench/end_to_end.json`; those of parts that did not run stay as they were.
pub fn ratios(new: &[(&str, f64)], machine: &Value) {
    let known = read("end_to_end");
    let mut ratios: Map<String, Value> = known["ratios"].as_object().cloned().unwrap_or_default();
    for (name, value) in new {
        println!("{name} = {value:.4}");
        ratios.insert((*name).to_owned(), json!((value * 1e4).round() / 1e4));
    }
    write(
        "end_to_end",
        &json!({ "ratios": ratios, "machine": machine }),
    );
}
