//! The demo on Apache Kafka: the same counts, and nothing left behind.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use swapstream::kafka::{Admin, KafkaSettings};

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, bin, eventually};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("the_demo_loses_nothing", the_demo_loses_nothing),
        on_shared_broker("the_demo_deletes_its_topics", the_demo_deletes_its_topics),
    ]
}

fn demo(broker: &Broker, args: &[&str]) -> Output {
    Command::new(bin())
        .args(["demo", "--bootstrap-servers", broker.bootstrap()])
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn the_demo_loses_nothing(broker: &'static Broker) -> TestResult {
    let done = demo(broker, &["--duration", "6s", "--output", "json"]);
    let (stdout, stderr) = (
        String::from_utf8(done.stdout).unwrap(),
        String::from_utf8(done.stderr).unwrap(),
    );
    assert!(done.status.success(), "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
    let summary: Value = serde_json::from_str(stdout.trim_end()).unwrap();
    assert_eq!(summary["broker"], broker.bootstrap());
    for counter in ["lost", "duplicated", "dead_letters"] {
        assert_eq!(summary[counter], 0, "{summary}");
    }
    assert_eq!(summary["events"], summary["predictions"]);
    assert_eq!(summary["swaps"].as_array().unwrap().len(), 1, "{summary}");
    let quality = |name: &str| summary["quality"][name].as_f64().unwrap();
    assert!(quality("after") > quality("before") + 0.1, "{summary}");
    Ok(())
}

fn the_demo_deletes_its_topics(broker: &'static Broker) -> TestResult {
    let done = demo(broker, &["--duration", "2s", "--rate", "500"]);
    let stdout = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{stdout}");
    let topic = stdout
        .split_whitespace()
        .find(|word| word.starts_with("swapstream-demo-"))
        .unwrap();
    let prefix = topic.strip_suffix("flights").unwrap();
    let kafka = KafkaSettings {
        bootstrap_servers: broker.bootstrap().to_owned(),
        client: BTreeMap::new(),
        memory: 16 << 20,
    };
    let admin = Admin::new(&kafka).unwrap();
    let names = [
        "flights",
        "flights-predictions",
        "flights-dlq",
        "model-versions",
        "model-artifacts",
        "model-deployments",
        "model-status",
    ];
    for name in names.map(|name| format!("{prefix}{name}")) {
        eventually("the topic is gone", Duration::from_secs(10), || match admin
            .partitions(&name, Duration::from_secs(5))
        {
            Ok(None) => Ok(()),
            other => Err(format!("{name}: {other:?}")),
        });
    }
    Ok(())
}
