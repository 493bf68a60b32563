//! The running service under a real Prometheus.

use libtest_mimic::{Completion, Failed, Trial};

use crate::prometheus::{find, unmatched_selectors};
use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, Skip, eventually, in_ci, require_kafka};
use crate::world::{PATIENCE, World, events};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::ignorable_test("prometheus_finds_every_selector", || {
            let Some(program) = find("prometheus") else {
                let why = "prometheus is not installed (Debian: apt install prometheus)";
                return if in_ci() {
                    Err(Failed::from(why))
                } else {
                    Ok(Completion::ignored_with(why))
                };
            };
            let broker = match require_kafka() {
                Ok(broker) => broker,
                Err(Skip::Ignore(reason)) => return Ok(Completion::ignored_with(reason)),
                Err(Skip::Fail(reason)) => return Err(Failed::from(reason)),
            };
            every_selector_is_found(broker, &program).map(|()| Completion::Completed)
        }),
        on_shared_broker("metrics_tell_what_serves", metrics_tell_what_serves),
    ]
}

fn every_selector_is_found(broker: &Broker, program: &std::path::Path) -> TestResult {
    let world = World::new(broker, 2);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let sample = events();
    let bad = b"bad".to_vec();
    let values = sample.iter().take(100).chain([&bad]);
    world.produce(values.map(|value| (0, None, Some(value.as_slice()))));
    assert_eq!(world.read(&world.output(), 100).len(), 100);
    let target = instance.http.parse()?;
    let unmatched = unmatched_selectors(program, target)?;
    assert!(unmatched.is_empty(), "{unmatched:#?}");
    instance.stop();
    Ok(())
}

fn metrics_tell_what_serves(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 2);
    let published = world.publish("v1", "1").ok().json();
    let revision = world.deploy("1");
    let instance = world.start_ready("a");
    let sample = events();
    world.produce((0..100).map(|i| ((i % 2) as i32, None, Some(sample[i].as_slice()))));
    assert_eq!(world.read(&world.output(), 100).len(), 100);
    let metrics = instance.metrics();
    let line = |family: &str| {
        let mut lines = metrics.lines().filter(|line| line.starts_with(family));
        lines
            .next()
            .unwrap_or_else(|| panic!("no {family}"))
            .to_owned()
    };
    let build = line("swapstream_build_info{");
    assert!(
        build.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")),
        "{build}"
    );
    let info = line("swapstream_model_info{");
    for part in [
        "model=\"late-arrival\"".to_owned(),
        "version=\"1\"".to_owned(),
        format!("digest={}", published["digest"]),
        format!("revision=\"{revision}\""),
    ] {
        assert!(info.contains(&part), "{part} in {info}");
    }
    let labels = r#"{model="late-arrival",stream="flights",version="1"}"#;
    eventually("all are counted", PATIENCE, || {
        let counted = [
            instance.metric(&format!("swapstream_predictions_total{labels}")),
            instance.metric(&format!(
                "swapstream_end_to_end_latency_seconds_count{labels}"
            )),
            instance.metric(r#"swapstream_records_in_total{stream="flights"}"#),
        ];
        if counted == [100.0; 3] {
            Ok(())
        } else {
            Err(format!("{counted:?}"))
        }
    });
    eventually("the lag is told", PATIENCE, || {
        let lag = |partition: usize| {
            let topic = world.input();
            let labels =
                format!("{{partition=\"{partition}\",stream=\"flights\",topic=\"{topic}\"}}");
            instance
                .metrics()
                .contains(&format!("swapstream_consumer_lag_records{labels} 0\n"))
        };
        if lag(0) && lag(1) {
            Ok(())
        } else {
            Err(instance.metrics())
        }
    });
    assert_eq!(instance.metric("swapstream_registry_caught_up"), 1.0);
    instance.stop();
    Ok(())
}
