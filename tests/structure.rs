//! Holds the architecture: imports run downwards, siblings never import each other, rdkafka is
//! seen in `kafka/` only and tract in `runtime/` only, unsafe code in a few files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "test code: a panic is how a test reports"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The parts from top to bottom; those of one line are siblings.
const ORDER: &[&[&str]] = &[
    &["cli"],
    &["demo"],
    &["app"],
    &["config"],
    &["stream", "registry", "http", "dlq"],
    &["serving"],
    &["scorer"],
    &["runtime"],
    &["codec"],
    &["model"],
    &["record"],
];
/// Who may use `kafka`; `config` reads its settings and their rules.
const KAFKA_USERS: &[&str] = &["app", "stream", "registry", "dlq", "demo", "cli", "config"];

fn rank(part: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.contains(&part))
}

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&root).unwrap().to_path_buf();
                let first = inside
                    .components()
                    .next()
                    .unwrap()
                    .as_os_str()
                    .to_str()
                    .unwrap();
                let part = first.trim_end_matches(".rs").to_owned();
                found.push((part, inside, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 50, "the sources were found");
    found
}

/// The lines of a source that are neither comments nor its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The parts that a source names by `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let name: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        if name.chars().next().is_some_and(char::is_lowercase) {
            parts.insert(name);
        }
    }
    parts
}

#[test]
fn imports_run_downwards() {
    let mut wrong = Vec::new();
    for (part, path, text) in sources() {
        for import in imports(&code(&text)) {
            let ok = match (part.as_str(), import.as_str()) {
                (from, to) if from == to => true,
                ("main" | "lib", _)
                | (_, "telemetry" | "failpoints" | "with_values")
                | ("kafka", "record") => true,
                (from, "kafka") => KAFKA_USERS.contains(&from),
                (from, to) => match (rank(from), rank(to)) {
                    (Some(from), Some(to)) => from < to,
                    _ => false,
                },
            };
            if !ok {
                wrong.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_foreign_world_has_one_door() {
    let doors = [
        ("rdkafka", "kafka"),
        ("tract_onnx", "runtime"),
        ("tract_", "runtime"),
        ("object_store", "registry"),
    ];
    let mut wrong = Vec::new();
    for (part, path, text) in sources() {
        let code = code(&text);
        for (name, door) in doors {
            let used = code.lines().any(|line| {
                let line = line.trim_start();
                line.starts_with(&format!("use {name}")) || line.contains(&format!("{name}::"))
            });
            if used && part != door {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
        let printing = ["println!(", "eprintln!(", "print!("]
            .iter()
            .any(|p| code.contains(p));
        if printing && !["cli", "demo"].contains(&part.as_str()) {
            wrong.push(format!("{} prints", path.display()));
        }
        let unsafe_code = code.contains("unsafe {") || code.contains("unsafe fn");
        let may = [
            "codec/decode/brief.rs",
            "codec/decode/cells.rs",
            "kafka/ffi.rs",
            "kafka/ffi/consume.rs",
            "kafka/ffi/log.rs",
            "kafka/ffi/produce.rs",
            "registry/background.rs",
            "runtime/ops/trees/gather.rs",
            "runtime/ops/trees/kernel.rs",
            "runtime/ops/wide.rs",
        ];
        if unsafe_code && !may.iter().any(|file| path == Path::new(file)) {
            wrong.push(format!("{} has unsafe code", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_its_job_first() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, _, text)| !text.starts_with("//!"))
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no first lines: {silent:?}");
}
