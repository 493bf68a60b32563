//! `docs/what-runs.md`, and the table in the README, from the conformance table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use swapstream::runtime::graph::runs_operator;

use crate::suite::{PACKAGE, Table};

/// The generated part of the README stands between these.
const BEGIN: &str = "<!-- what runs: generated -->";
const END: &str = "<!-- what runs: end -->";

/// All operators there are, from `operators.json`.
#[derive(serde::Deserialize)]
struct Specification {
    onnx: String,
    domains: BTreeMap<String, Domain>,
}

#[derive(serde::Deserialize)]
struct Domain {
    opset: u64,
    operators: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn specification() -> Specification {
    let path = root().join("tests/conformance/operators.json");
    let text = std::fs::read_to_string(path).expect("the list of operators is committed");
    serde_json::from_str(&text).expect("the list of operators can be read")
}

/// Where the page lies.
pub fn path() -> PathBuf {
    root().join("docs/what-runs.md")
}

/// One line a domain: what the README shows.
pub fn summary(table: &Table) -> String {
    let mut text = String::from(
        "| domain | operators that run | official tests that pass | refused | wrong |\n\
         |---|---|---|---|---|\n",
    );
    for (domain, operators) in specification().domains {
        let all = operators.operators.len();
        let run = operators.operators.iter();
        let run = run.filter(|name| runs_operator(&domain, name)).count();
        let Some(verdicts) = table.get(&domain) else {
            continue;
        };
        let (pass, tests) = (verdicts.pass.len(), verdicts.len());
        let (refused, wrong) = (
            verdicts.unsupported.len(),
            verdicts.wrong.len() + verdicts.panic.len(),
        );
        _ = writeln!(
            text,
            "| `{domain}` | {run} of {all} | {pass} of {tests} | {refused} | {wrong} |"
        );
    }
    text
}

/// The whole page.
pub fn page(table: &Table) -> String {
    let specification = specification();
    let mut text = format!(
        "# What runs\n\n\
         Written by `cargo run --release --example conformance`; do not edit. The tests are the \
         node tests of the package `{PACKAGE}`, run through the same parser, operators and plans \
         as a model that serves. A test passes when it is right as shipped, or right with the \
         inputs after the first (of at most 1,024 elements) as initialisers, and wrong in \
         neither, at the suite's own tolerance. Where onnx {} corrected what a test expects, its \
         version holds: those are in `tests/conformance/corrected`. That release has the same \
         tests of `ai.onnx.ml`. Operators are those of the same release (opsets {}), deprecated \
         ones included.\n\n\
         What is refused is refused when the model is loaded, naming the operator, and can be run \
         with ONNX Runtime (`runtime = \"onnxruntime\"` in the manifest).\n\n{}",
        specification.onnx,
        opsets(&specification),
        summary(table),
    );
    for (domain, operators) in &specification.domains {
        let (run, refused): (Vec<_>, Vec<_>) = operators
            .operators
            .iter()
            .partition(|name| runs_operator(domain, name));
        _ = write!(text, "\n## `{domain}`\n");
        paragraph(&mut text, "Operators that run", &run);
        paragraph(&mut text, "Operators that are refused", &refused);
        let Some(verdicts) = table.get(domain) else {
            continue;
        };
        let failing: Vec<_> = verdicts.unsupported.iter().collect();
        paragraph(&mut text, "Tests that are refused", &failing);
        paragraph(
            &mut text,
            "Wrong",
            &verdicts.wrong.iter().collect::<Vec<_>>(),
        );
        paragraph(
            &mut text,
            "Panics",
            &verdicts.panic.iter().collect::<Vec<_>>(),
        );
    }
    text
}

fn opsets(specification: &Specification) -> String {
    let opset = |(domain, found): (&String, &Domain)| format!("{domain} {}", found.opset);
    let opsets: Vec<_> = specification.domains.iter().map(opset).collect();
    opsets.join(", ")
}

fn paragraph(text: &mut String, title: &str, names: &[&String]) {
    if names.is_empty() {
        return;
    }
    let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    _ = write!(
        text,
        "\n**{title}** ({}): {}\n",
        names.len(),
        list.join(", ")
    );
}

/// The README with its table renewed; `None` where there is no README or no place for it.
pub fn readme(table: &Table) -> Option<(PathBuf, String, String)> {
    let path = root().join("README.md");
    let text = std::fs::read_to_string(&path).ok()?;
    let begin = text.find(BEGIN)? + BEGIN.len();
    let end = text.find(END)?;
    let renewed = format!("{}\n{}{}", &text[..begin], summary(table), &text[end..]);
    Some((path, text, renewed))
}
