//! Dashboards and alerts against the metrics that there are: by name from the catalogue, and by a
//! real Prometheus that scrapes the endpoints.

#[path = "support/prometheus.rs"]
mod prometheus;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use swapstream::codec::Stage;
use swapstream::http::{self, Endpoints, HealthSource, HttpSettings, Report};
use swapstream::telemetry::metrics::{self, CATALOGUE, Family, Kind, LoadStage, SwapOutcome};
use swapstream::telemetry::metrics::{Label as _, WorkerState};
use swapstream::telemetry::{Metrics, Served};

/// Labels that Prometheus itself adds.
const SCRAPE_LABELS: [&str; 2] = ["job", "instance"];

/// The family of a metric in an expression: a histogram has three.
fn family_of(metric: &str) -> Option<&'static Family> {
    CATALOGUE.iter().find(|family| match family.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| metric.strip_suffix(suffix) == Some(family.name)),
        _ => family.name == metric,
    })
}

#[test]
fn every_selector_names_a_metric_and_labels_that_exist() {
    let expressions = prometheus::expressions();
    let mut wrong = Vec::new();
    for expression in &expressions {
        let mut labels: BTreeSet<&str> = SCRAPE_LABELS.into();
        for selector in expression.selectors.iter().filter(|s| s.metric != "up") {
            let Some(family) = family_of(&selector.metric) else {
                wrong.push(format!(
                    "no metric {}: {}",
                    selector.metric, expression.text
                ));
                continue;
            };
            labels.extend(family.labels);
            if selector.metric.ends_with("_bucket") {
                labels.insert("le");
            }
            for (label, operator, value) in &selector.matchers {
                let known = family.labels.contains(&label.as_str());
                if !known && !SCRAPE_LABELS.contains(&label.as_str()) {
                    wrong.push(format!("{} has no label {label}", family.name));
                }
                let values = metrics::label_values(family.name, label);
                let possible = values.is_none_or(|values| values.contains(&value.as_str()));
                if operator == "=" && !possible {
                    wrong.push(format!("{label} of {} is never {value}", family.name));
                }
            }
        }
        for label in &expression.grouping {
            if !labels.contains(label.as_str()) {
                wrong.push(format!("{label} is no label here: {}", expression.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let selectors: usize = expressions.iter().map(|e| e.selectors.len()).sum();
    assert!(selectors > 40, "only {selectors} selectors were found");
}

#[test]
fn every_metric_is_shown_or_watched() {
    let shown: BTreeSet<&str> = prometheus::expressions()
        .iter()
        .flat_map(|expression| &expression.selectors)
        .filter_map(|selector| family_of(&selector.metric))
        .map(|family| family.name)
        .collect();
    // For people who look something up, not for a graph.
    let aside = ["swapstream_build_info", "process_start_time_seconds"];
    for family in CATALOGUE.iter().filter(|f| !aside.contains(&f.name)) {
        assert!(shown.contains(family.name), "{} is nowhere", family.name);
    }
}

#[test]
fn the_stages_in_labels_are_those_of_the_codec() {
    assert_eq!(metrics::STAGES, Stage::ALL.map(Stage::as_str));
}

#[test]
fn selectors_are_read_from_expressions() {
    let found = prometheus::selectors(
        "sum by (le) (rate(swapstream_x_bucket{stream=~\"$stream\", a!=\"swapstream_no\"}[5m])) / up",
    );
    let texts: Vec<String> = found.iter().map(prometheus::Selector::text).collect();
    assert_eq!(
        texts,
        [
            "swapstream_x_bucket{stream=~\".*\",a!=\"swapstream_no\"}",
            "up{}"
        ]
    );
    let rules = "- alert: A\n  expr: a > 0\n- alert: B\n  expr: >-\n    b\n    > 1\n  for: 1m\n";
    assert_eq!(prometheus::alert_expressions(rules), ["a > 0", "b > 1"]);
}

#[test]
fn every_alert_is_documented_and_tested() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let (rules, tests) = (
        read("deploy/prometheus/alerts.yml"),
        read("deploy/prometheus/alerts_test.yml"),
    );
    let documentation = read("docs/operations.md");
    for line in rules.lines() {
        let Some(alert) = line.trim().strip_prefix("- alert: ") else {
            continue;
        };
        assert!(
            documentation.contains(&format!("| `{alert}` |")),
            "{alert} is not documented"
        );
        // Once where it stays silent, once where it fires.
        assert!(
            tests.matches(alert).count() >= 2,
            "{alert} is not tested both ways"
        );
    }
}

#[test]
fn promtool_accepts_configuration_and_alert_tests() {
    let Some(promtool) = prometheus::find("promtool") else {
        return;
    };
    for arguments in [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["check", "rules", "deploy/prometheus/alerts.yml"],
        ["test", "rules", "deploy/prometheus/alerts_test.yml"],
    ] {
        let output = Command::new(&promtool).args(arguments).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    }
}

struct Well;

impl HealthSource for Well {
    fn live(&self) -> Report {
        Report::ok()
    }
    fn ready(&self) -> Report {
        Report::ok()
    }
}

/// Endpoints with one stream and one model that have done a little of everything.
#[tokio::test(flavor = "multi_thread")]
async fn every_selector_matches_what_prometheus_scrapes() {
    let Some(program) = prometheus::find("prometheus") else {
        return;
    };
    let metrics = Arc::new(Metrics::new());
    let stream = metrics.stream("flights");
    let version = stream.version("late-arrival", "1");
    version.predictions.inc();
    version.inference.observe(0.001);
    version.end_to_end.observe(0.02);
    let _worker = stream.worker(WorkerState::Running);
    let lag = stream.lag("flights", 0);
    lag.set(3);
    let model = metrics.model("late-arrival");
    model.swaps.inc(SwapOutcome::Activated);
    for stage in LoadStage::ALL {
        model.loaded(*stage, 0.1);
    }
    model.set_served(Some(Served {
        version: "1",
        digest: "sha256:00",
        revision: 0,
        runtime: "tract",
        plans: 5,
        plan_bytes: 4096,
    }));
    let settings = HttpSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let listener = http::bind(&settings).await.unwrap();
    let target = listener.local_addr().unwrap();
    let endpoints = Endpoints {
        metrics,
        health: Arc::new(Well),
        models: Arc::new(|| serde_json::json!([])),
    };
    let server = tokio::spawn(http::serve(listener, endpoints, std::future::pending()));
    let check = move || prometheus::unmatched_selectors(&program, target);
    let unmatched = tokio::task::spawn_blocking(check).await.unwrap().unwrap();
    assert!(unmatched.is_empty(), "{unmatched:#?}");
    server.abort();
}

/// Compares the generated part of a document; `SWAPSTREAM_BLESS=1` rewrites it.
#[test]
fn the_documentation_lists_the_metrics_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- metrics: generated -->\n", "<!-- metrics: end -->");
    let (head, rest) = text.split_once(begin).unwrap();
    let (listed, tail) = rest.split_once(end).unwrap();
    let generated = format!("\n{}\n", metrics::markdown());
    if std::env::var_os("SWAPSTREAM_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{begin}{generated}{end}{tail}")).unwrap();
    } else {
        assert_eq!(
            listed, generated,
            "SWAPSTREAM_BLESS=1 cargo test --test observability"
        );
    }
}
