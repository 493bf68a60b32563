//! Runs the official ONNX node tests and writes `tests/conformance/results.json`,
//! `docs/what-runs.md` and the tables of the README:
//!
//! ```text
//! pip install --no-deps --target target/onnx onnx==1.16.2
//! cargo run --release --example conformance [FOLDER]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "a tool of the project's own"
)]

#[path = "../tests/conformance/page.rs"]
mod page;
#[path = "../tests/conformance/suite.rs"]
mod suite;

use std::process::ExitCode;

use suite::{Table, Verdict};

fn main() -> ExitCode {
    let Some(folder) = suite::find(std::env::args_os().nth(1).map(Into::into)) else {
        eprintln!("{}", suite::HOW_TO_GET);
        return ExitCode::from(2);
    };
    let mut table = Table::new();
    for name in suite::names(&folder) {
        let verdict = suite::run(&folder, &name);
        match &verdict {
            Verdict::Pass => {}
            Verdict::Unsupported(why) => println!("unsupported {name}: {why}"),
            Verdict::Wrong(why) => println!("WRONG {name}: {why}"),
            Verdict::Panic(why) => println!("PANIC {name}: {why}"),
        }
        let domain = suite::domain(&name).to_owned();
        table.entry(domain).or_default().note(&name, &verdict);
    }
    let mut text = serde_json::to_string_pretty(&table).unwrap();
    text.push('\n');
    std::fs::write(suite::table_path(), text).unwrap();
    std::fs::write(page::path(), page::page(&table)).unwrap();
    let (path, _, renewed) = page::readme(&table);
    std::fs::write(path, renewed).unwrap();
    for (domain, verdicts) in &table {
        println!(
            "{domain}: {} tests, {} pass, {} unsupported, {} wrong, {} panic",
            verdicts.len(),
            verdicts.pass.len(),
            verdicts.unsupported.len(),
            verdicts.wrong.len(),
            verdicts.panic.len()
        );
    }
    let clean = table
        .values()
        .all(|v| v.wrong.is_empty() && v.panic.is_empty());
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
