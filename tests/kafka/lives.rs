//! Instances whose name is new at every start: what their earlier lives have left, and how it goes
//! away by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use swapstream::registry::{
    KafkaLogs, KafkaStatusSink, RegistrySettings, StatusSink, Sweeper, SweeperParts,
};

use crate::loads::publish_dense;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{PATIENCE, Tail, World};

pub fn trials() -> Vec<Trial> {
    vec![on_shared_broker(
        "lives_under_other_names_are_known_and_age_out",
        lives_under_other_names,
    )]
}

/// Notes of loads that stand: the instance's name and the attempt.
fn notes(tail: &Tail) -> Vec<(String, u64)> {
    let mut standing = std::collections::BTreeMap::new();
    for record in &tail.records {
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        let Some(instance) = key.strip_suffix("/late-arrival/loading") else {
            continue;
        };
        standing.remove(instance);
        if let Some(value) = &record.value {
            let note: Value = serde_json::from_slice(value).unwrap();
            let of_it = note["version"] == "deadly";
            let attempt = note["attempt"].as_u64().filter(|_| of_it);
            standing.extend(attempt.map(|attempt| (instance.to_owned(), attempt)));
        }
    }
    standing.into_iter().collect()
}

/// Starts an instance and kills it inside of the load of `deadly`; gives the attempt.
fn die_in_load(world: &World, tail: &mut Tail) -> u64 {
    let end = Instant::now() + PATIENCE * 5;
    loop {
        tail.settle();
        let before = notes(tail);
        let mut instance = world.start("x");
        let new = |tail: &Tail| notes(tail).into_iter().find(|note| !before.contains(note));
        while new(tail).is_none() {
            assert!(Instant::now() < end, "no load was seen");
            tail.turn(Duration::from_millis(1));
        }
        instance.process.kill9();
        // Unless the load had ended just before, and its note was taken back.
        tail.settle();
        if let Some((_, attempt)) = new(tail) {
            return attempt;
        }
    }
}

/// The instances that `model status` lists, live or not.
fn listed(world: &World) -> (usize, usize) {
    let status = world.status();
    let live = status["models"][0]["instances"].as_array().unwrap().len();
    (live, status["instances"].as_array().unwrap().len())
}

fn lives_under_other_names(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.named = false;
    world.publish("v1", "1").ok();
    world.deploy("1");
    publish_dense(&world, "deadly", 8, 256);
    world.append_deploy("deadly", None);
    let mut tail = world.tail_of(&world.registry_topic("status"), 1);
    assert_eq!(die_in_load(&world, &mut tail), 1);
    // Another name, the same host: the first life counts. Its note goes once the second life's is
    // written; this kill may come between.
    assert_eq!(die_in_load(&world, &mut tail), 2);
    let instance = world.start_ready("x");
    let status = eventually("the dead are not live any more", PATIENCE, || {
        let status = world.status();
        let live = status["models"][0]["instances"].as_array().unwrap().len();
        let refused = !status["models"][0]["instances"][0]["refused"].is_null();
        let there = live == 1 && refused;
        there
            .then(|| status.clone())
            .ok_or_else(|| status.to_string())
    });
    let report = &status["models"][0]["instances"][0];
    assert_eq!(report["serving"]["version"], "1", "{status}");
    let reason = report["refused"]["reason"].as_str().unwrap();
    assert!(reason.contains("died 2 times in a row"), "{reason}");
    // Their status stands until somebody takes it out; here after a second instead of a day.
    let (live, all) = listed(&world);
    assert!(live == 1 && all > 1, "{status}");
    let name = report["instance"].as_str().unwrap().to_owned();
    let settings = RegistrySettings {
        status_topic: world.registry_topic("status"),
        ..RegistrySettings::default()
    };
    let kafka = world.kafka.clone();
    let logs = Arc::new(KafkaLogs::new(kafka.clone(), settings.clone()));
    let sink =
        move || -> Box<dyn StatusSink> { Box::new(KafkaStatusSink::new(kafka.clone(), &settings)) };
    let sweeper = Sweeper::start(SweeperParts {
        age: Duration::from_secs(5),
        every: Duration::from_millis(200),
        first: Duration::ZERO,
        ..SweeperParts::new(name, logs, Box::new(sink))
    })
    .unwrap();
    eventually("only the living are left", PATIENCE, || {
        let counts = listed(&world);
        (counts == (1, 1))
            .then_some(())
            .ok_or_else(|| format!("{counts:?}"))
    });
    sweeper.stop();
    tail.settle();
    assert!(notes(&tail).is_empty(), "{:?}", notes(&tail));
    instance.stop();
    Ok(())
}
