//! The demo as users start it: the built program on its embedded broker. Apache Kafka has its own
//! variant among the Kafka tests.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swapstream"))
        .arg("demo")
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn nothing_is_lost_and_the_better_version_takes_over() {
    let done = demo(&["--duration", "6s", "--rate", "2000", "--output", "json"]);
    let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{stdout}\n{stderr}");
    assert_eq!(stderr, "", "quiet where nobody looks");
    assert_eq!(
        stdout.lines().count(),
        1,
        "one object and nothing else: {stdout}"
    );
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    let number = |pointer: &str| {
        summary
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| std::panic::panic_any(format!("no number at {pointer}: {summary}")))
    };
    assert_eq!(summary["schema"], "swapstream.demo/v1");
    assert_eq!(summary["broker"], "embedded");
    assert!(number("/events") > 5_000.0, "{summary}");
    assert_eq!(number("/events"), number("/predictions"));
    for counter in ["/lost", "/duplicated", "/dead_letters"] {
        assert_eq!(number(counter), 0.0, "{counter}");
    }
    assert_eq!(summary["swaps"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&summary["swaps"][0]["from"], &summary["swaps"][0]["to"]),
        (&"1".into(), &"2".into())
    );
    assert!(number("/swaps/0/activated_after_ms") < 10_000.0);
    assert!(number("/latency_ms/p50") <= number("/latency_ms/p99"));
    assert!(number("/latency_ms/p99") <= number("/latency_ms/p999"));
    assert!(number("/throughput_per_s") > 0.0);
    assert_eq!(summary["quality"]["metric"], "auc");
    assert!(
        number("/quality/after") > number("/quality/before") + 0.1,
        "{summary}"
    );
}

#[test]
fn wrong_usage_is_said_at_once() {
    let done = demo(&["--duration", "1s"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(
        text(&done.stderr).contains("2s to 24h"),
        "{}",
        text(&done.stderr)
    );
}
