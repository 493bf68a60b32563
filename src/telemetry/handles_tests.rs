//! Tests of the metrics as they are exported.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::telemetry::metrics::CATALOGUE;

/// Every series as `name{labels}` → value.
fn series(metrics: &Metrics) -> BTreeMap<String, String> {
    let text = metrics.render().unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn what_is_exported_is_the_catalogue_and_nothing_else() {
    let metrics = Metrics::new();
    let stream = metrics.stream("s");
    let _version = stream.version("m", "1");
    let _lag = stream.lag("t", 0);
    metrics.model("m").set_served(Some(Served {
        version: "1",
        digest: "sha256:00",
        revision: 4,
        runtime: "tract",
        plans: 5,
        plan_bytes: 1000,
    }));
    let exported: BTreeMap<String, (BTreeSet<String>, String)> = metrics
        .registry
        .gather()
        .iter()
        .map(|family| {
            let metric = &family.get_metric()[0];
            let labels = metric.get_label().iter();
            let labels = labels.map(|label| label.name().to_owned()).collect();
            (family.name().to_owned(), (labels, family.help().to_owned()))
        })
        .collect();
    let expected = CATALOGUE
        .iter()
        .map(|family| {
            let labels = family.labels.iter().map(ToString::to_string).collect();
            (family.name.to_owned(), (labels, family.help.to_owned()))
        })
        .collect();
    assert_eq!(exported, expected);
}

#[test]
fn names_follow_the_rules() {
    for family in CATALOGUE {
        let (name, counter) = (family.name, family.kind == metrics::Kind::Counter);
        assert_eq!(name.ends_with("_total"), counter, "{name}");
        let histogram = family.kind == metrics::Kind::Histogram;
        assert_eq!(family.buckets.is_empty(), !histogram, "{name}");
        assert!(family.buckets.is_sorted(), "{name}");
        assert!(family.help.ends_with('.'), "{name}");
    }
}

#[test]
fn a_retired_version_leaves_no_series_and_the_others_stay() {
    let metrics = Metrics::new();
    for stream in ["a", "b"] {
        for version in ["1", "2"] {
            let handles = metrics.stream(stream).version("m", version);
            handles.predictions.inc();
            handles.inference.observe(0.1);
            handles.end_to_end.observe(0.1);
        }
    }
    metrics.retire_version("m", "1");
    let all = series(&metrics);
    assert!(!all.keys().any(|name| name.contains("version=\"1\"")));
    let left = "swapstream_predictions_total{model=\"m\",stream=\"b\",version=\"2\"}";
    assert_eq!(all[left], "1");
    metrics.stream("a").version("m", "1").predictions.inc();
    let again = "swapstream_predictions_total{model=\"m\",stream=\"a\",version=\"1\"}";
    assert_eq!(series(&metrics)[again], "1");
}

#[test]
fn at_most_one_version_of_a_model_is_said_to_serve() {
    let metrics = Metrics::new();
    let model = metrics.model("m");
    let infos = || {
        let all = series(&metrics);
        let infos = all.into_keys().filter(|name| name.contains("model_info"));
        infos.collect::<Vec<_>>()
    };
    for revision in [1, 2] {
        model.set_served(Some(Served {
            version: "1",
            digest: "sha256:00",
            revision,
            runtime: "tract",
            plans: revision as usize,
            plan_bytes: 1000,
        }));
    }
    assert_eq!(infos().len(), 1);
    assert!(infos()[0].contains("revision=\"2\""));
    let plans = |of: &str| {
        let name = format!("swapstream_model_{of}{{model=\"m\",version=\"1\"}}");
        series(&metrics).remove(&name)
    };
    assert_eq!(plans("plans").as_deref(), Some("2"));
    assert_eq!(plans("plan_bytes").as_deref(), Some("1000"));
    // Handles of one model are views of the same thing.
    metrics.model("m").set_served(None);
    assert!(infos().is_empty());
    assert_eq!((plans("plans"), plans("plan_bytes")), (None, None));
}

#[test]
fn workers_are_counted_in_one_state_and_not_after_their_end() {
    let metrics = Metrics::new();
    let stream = metrics.stream("s");
    let count = |state: &str| {
        let name = format!("swapstream_workers{{state=\"{state}\",stream=\"s\"}}");
        series(&metrics)[&name].clone()
    };
    let mut one = stream.worker(WorkerState::WaitingForModel);
    let two = stream.worker(WorkerState::Running);
    one.set(WorkerState::Running);
    assert_eq!(
        (count("running"), count("waiting_for_model")),
        ("2".into(), "0".into())
    );
    drop((one, two));
    assert_eq!(count("running"), "0");
}

#[test]
fn lag_disappears_with_the_assignment() {
    let metrics = Metrics::new();
    let lag = metrics.stream("s").lag("t", 3);
    lag.set(17);
    let name = "swapstream_consumer_lag_records{partition=\"3\",stream=\"s\",topic=\"t\"}";
    assert_eq!(series(&metrics)[name], "17");
    drop(lag);
    assert!(!series(&metrics).contains_key(name));
}

#[test]
fn every_outcome_is_there_before_it_happens() {
    let metrics = Metrics::new();
    let stream = metrics.stream("s");
    stream.dead_letter("infer");
    metrics.kafka_error(KafkaClient::Admin, KafkaErrorKind::Fatal);
    let all = series(&metrics);
    assert_eq!(
        all["swapstream_dead_letters_total{stage=\"infer\",stream=\"s\"}"],
        "1"
    );
    assert_eq!(
        all["swapstream_dead_letters_total{stage=\"decode\",stream=\"s\"}"],
        "0"
    );
    assert_eq!(
        all["swapstream_kafka_errors_total{client=\"admin\",kind=\"fatal\"}"],
        "1"
    );
    assert_eq!(
        all["swapstream_kafka_errors_total{client=\"consumer\",kind=\"fatal\"}"],
        "0"
    );
    assert_eq!(
        all["swapstream_commits_total{outcome=\"failed\",stream=\"s\"}"],
        "0"
    );
}
