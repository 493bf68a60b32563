//! The documents against the code: classes of errors, links, and the commands that are shown.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test reports"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Files under `folder` whose names end in `end`.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_str().unwrap().ends_with(end) {
            found.push(path);
        }
    }
    found
}

/// Every document of the repository.
fn documents() -> Vec<PathBuf> {
    let mut all = files(&root().join("docs"), ".md");
    all.push(root().join("models/README.md"));
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ] {
        all.push(root().join(name));
    }
    all
}

/// A source without comments and without its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The string literals of `code` that are in `snake_case`.
fn names_in(code: &str) -> BTreeSet<String> {
    // Neither a quote as a character nor one inside a text begins a text.
    let code = code.replace("'\"'", "").replace("\\\"", "");
    code.split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || "_8".contains(c))
        })
        .map(str::to_owned)
        .collect()
}

/// The classes of the documents: stage to class.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut classes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let text = read("docs/dead-letters.md");
    let table = text.split("<!-- classes -->").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (stage, class) = (cells[1].trim_matches('`'), cells[2].trim_matches('`'));
        let new = classes
            .entry(stage.to_owned())
            .or_default()
            .insert(class.to_owned());
        assert!(new, "twice: {line}");
    }
    classes
}

#[test]
fn every_class_of_an_error_is_documented() {
    // Literals of the same files that are no classes.
    let others: BTreeSet<String> = ["null", "true", "false", "compiled", "outputs"]
        .map(str::to_owned)
        .into();
    let src = root().join("src");
    let mut used = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    for path in files(&src, ".rs") {
        let inside = path.strip_prefix(&src).unwrap().to_str().unwrap();
        if inside.contains("tests") {
            continue;
        }
        let code = code(&path);
        if inside.starts_with("codec/decode")
            || inside.starts_with("scorer")
            || inside == "stream/emit.rs"
        {
            used.extend(names_in(&code));
        }
        for call in code.split("RowError::new(").skip(1) {
            let mut arguments = call.splitn(3, ',').map(str::trim);
            let stage = arguments.next().unwrap().strip_prefix("Stage::");
            let class = arguments.next().and_then(|a| {
                let class = a.strip_prefix('"')?.strip_suffix('"')?;
                Some(class.to_owned())
            });
            if let (Some(stage), Some(class)) = (stage, class) {
                pairs.insert((stage.to_ascii_lowercase(), class.clone()));
                used.insert(class);
            }
        }
    }
    let used: BTreeSet<String> = used.difference(&others).cloned().collect();
    let documented = documented();
    let all: BTreeSet<String> = documented.values().flatten().cloned().collect();
    assert_eq!(used, all, "left: in the code; right: in the document");
    assert!(pairs.len() > 5, "{pairs:?}");
    for (stage, class) in pairs {
        assert!(documented[&stage].contains(&class), "{stage} {class}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| {
            let target = rest.split(')').next()?;
            (!target.contains("://")).then_some(target)
        });
        for link in links {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            let there = target.exists()
                && (anchor.is_empty() || anchors(&target).contains(&anchor.to_owned()));
            if !there {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// The anchors of a document's headings.
fn anchors(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn tests_that_are_named_exist() {
    let sources: String = files(&root().join("tests/kafka"), ".rs")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let text = read("docs/reliability.md");
    let named = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        (cells.len() == 5).then(|| cells[3].to_owned())
    });
    let named: Vec<String> = named
        .flat_map(|cell| {
            let quoted = cell.split('`').skip(1).step_by(2).map(str::to_owned);
            quoted.collect::<Vec<_>>()
        })
        .filter(|name| !name.contains('/'))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(sources.contains(&format!("\"{name}\"")), "no test {name}");
    }
}

/// The `swapstream` commands that the documents show, as words.
fn commands() -> BTreeSet<Vec<String>> {
    let mut all = BTreeSet::new();
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches("$ ");
            let line = line.replace("cargo run --release -- ", "swapstream ");
            if let Some(rest) = line.strip_prefix("swapstream ") {
                let end = rest
                    .find(['<', '>', '|', '#', '&', ';'])
                    .unwrap_or(rest.len());
                all.insert(rest[..end].split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    all
}

#[test]
fn commands_that_are_shown_exist() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for words in commands {
        let mut help = Command::new(env!("CARGO_BIN_EXE_swapstream"));
        let depth = if ["model", "config", "dlq"].contains(&words[0].as_str()) {
            2
        } else {
            1
        };
        if !words[0].starts_with('-') {
            help.args(words.iter().take(depth).filter(|w| !w.starts_with('-')));
        }
        let out = help.arg("--help").output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{words:?}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap();
            assert!(text.contains(flag), "{words:?}: no {flag}");
        }
    }
}
