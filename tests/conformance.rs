//! Holds the conformance table: nothing wrong, no panics, the documentation agrees with it, and,
//! where the ONNX tests are here, a sample comes out as the table says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "test code: a panic is how a test reports"
)]

#[path = "conformance/page.rs"]
mod page;
#[path = "conformance/suite.rs"]
mod suite;

use suite::Table;

/// A full run takes a minute without optimisation; every so many tests are run here.
const EVERY: usize = 7;

#[test]
fn nothing_is_wrong() {
    let table = suite::read_table();
    for (domain, verdicts) in &table {
        assert!(verdicts.wrong.is_empty(), "{domain}: {:?}", verdicts.wrong);
        assert!(verdicts.panic.is_empty(), "{domain}: {:?}", verdicts.panic);
        for list in [&verdicts.pass, &verdicts.unsupported] {
            assert!(list.is_sorted(), "{domain} is sorted");
        }
    }
    let count = |domain: &str| table[domain].len();
    assert_eq!((count("ai.onnx"), count("ai.onnx.ml")), (1274, 8));
    let pass = table["ai.onnx"].pass.len();
    assert!(pass >= 950, "{pass} tests of the standard domain pass");
}

#[test]
fn the_documentation_agrees_with_the_table() {
    let table = suite::read_table();
    let text = std::fs::read_to_string(page::path()).unwrap();
    let renew = "cargo run --release --example conformance";
    assert!(
        text == page::page(&table),
        "docs/what-runs.md is old: {renew}"
    );
    let (_, text, renewed) = page::readme(&table);
    assert!(text == renewed, "the README's tables are old: {renew}");
}

#[test]
fn a_sample_of_the_tests_comes_out_as_the_table_says() {
    let Some(folder) = suite::find(None) else {
        eprintln!("not run: {}", suite::HOW_TO_GET);
        return;
    };
    let mut found = Table::new();
    let names = suite::names(&folder);
    let sample: Vec<_> = names.iter().step_by(EVERY).collect();
    for name in &sample {
        let verdict = suite::run(&folder, name);
        let domain = suite::domain(name).to_owned();
        found.entry(domain).or_default().note(name, &verdict);
    }
    let mut expected = suite::read_table();
    for verdicts in expected.values_mut() {
        verdicts.keep(|name| sample.contains(&name));
    }
    expected.retain(|_, verdicts| verdicts.len() > 0);
    assert_eq!(found, expected);
}
