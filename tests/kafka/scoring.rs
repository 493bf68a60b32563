//! Scoring a stream: every input once, in order, with the bits that `score` gives, through swaps
//! and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use swapstream::record::Header;

use crate::support::Broker;
use crate::support::bin;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::world::{PATIENCE, Read, World, events, header, models, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker(
            "scores_through_swaps_bit_for_bit",
            scores_through_swaps_bit_for_bit,
        ),
        on_shared_broker("a_restart_loses_nothing", a_restart_loses_nothing),
        on_shared_broker("two_instances_share_the_partitions", two_instances_share),
        on_shared_broker(
            "a_stop_commits_what_each_worker_has_scored",
            a_stop_commits_what_each_worker_has_scored,
        ),
        on_shared_broker(
            "keys_headers_and_timestamps_travel",
            keys_headers_and_timestamps_travel,
        ),
        on_shared_broker(
            "headers_stay_with_their_records",
            headers_stay_with_their_records,
        ),
        on_shared_broker("no_model_no_consumption", no_model_no_consumption),
        on_shared_broker(
            "the_first_event_after_a_pause_has_the_newest_version",
            the_first_event_after_a_pause_has_the_newest_version,
        ),
    ]
}

/// Outputs of `swapstream score` for `events`, as text.
fn offline(flights: &str, events: &[Vec<u8>]) -> Vec<Value> {
    let mut child = Command::new(bin())
        .args(["score", "--strict", "--include", "flight_id", "--model"])
        .arg(models().join(format!("{flights}.onnx")))
        .arg("--manifest")
        .arg(models().join(format!("{flights}.toml")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = events.join(&b'\n');
    let writer = std::thread::spawn(move || stdin.write_all(&text));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    let outputs: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(outputs.len(), events.len());
    outputs
}

/// Checks that predictions come in input order in each partition, each input at least once.
fn assert_complete(read: &[Read], produced: &BTreeMap<i32, i64>) {
    let mut seen: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for one in read {
        seen.entry(one.partition).or_default().insert(one.offset);
    }
    for (partition, count) in produced {
        let offsets = seen.get(partition).cloned().unwrap_or_default();
        let missing: Vec<i64> = (0..*count)
            .filter(|o| !offsets.contains(o))
            .take(5)
            .collect();
        assert!(
            missing.is_empty(),
            "partition {partition}: no prediction for {missing:?}"
        );
        assert_eq!(offsets.len() as i64, *count, "partition {partition}");
    }
}

fn assert_in_order(read: &[Read]) {
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    for one in read {
        let before = last.insert(one.partition, one.offset).unwrap_or(-1);
        assert_eq!(before + 1, one.offset, "partition {}: order", one.partition);
    }
}

fn scores_through_swaps_bit_for_bit(broker: &'static Broker) -> TestResult {
    const EVENTS: usize = 200_000;
    const SLICE: usize = 100;
    let mut world = World::new(broker, 4);
    world.stream_extra.push_str("workers = 2");
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    world.deploy("1");
    let sample = events();
    let instance = world.start_ready("a");
    let send = |from: usize, to: usize| {
        world.produce((from..to).map(|i| {
            let event = sample[i % sample.len()].as_slice();
            ((i % 4) as i32, None, Some(event))
        }));
    };
    let mut tail = world.tail(&world.output());
    let mut count = EVENTS / 3;
    send(0, count);
    tail.until_that("version 1 serves", PATIENCE, |r| r.len() > 1000);
    // However long loading takes here, events come in until the new version answers.
    let mut keep_sending_until = |revision: i64| {
        while tail
            .records
            .last()
            .is_none_or(|last| predictions(std::slice::from_ref(last))[0].revision != revision)
        {
            assert!(count < EVENTS, "revision {revision} never answered");
            send(count, EVENTS.min(count + SLICE));
            tail.until(count, PATIENCE);
            count = EVENTS.min(count + SLICE);
        }
    };
    let second = world.deploy("2");
    keep_sending_until(second);
    let third = world.deploy("1");
    keep_sending_until(third);
    send(count, EVENTS);
    tail.until(EVENTS, PATIENCE);
    tail.settle();
    instance.stop();
    assert_eq!(tail.records.len(), EVENTS, "each input exactly once");
    let read = predictions(&tail.records);
    let produced = (0..4).map(|p| (p, EVENTS as i64 / 4)).collect();
    assert_complete(&read, &produced);
    assert_in_order(&read);
    // Each output is what the tagged version gives offline, bit for bit: the texts are equal.
    let (v1, v2) = (offline("v1", &sample), offline("v2", &sample));
    let mut revisions: BTreeMap<i32, i64> = BTreeMap::new();
    let mut scored: BTreeMap<i64, usize> = BTreeMap::new();
    for one in &read {
        let event = (one.offset as usize * 4 + one.partition as usize) % sample.len();
        let expected = if one.version == "1" {
            &v1[event]
        } else {
            &v2[event]
        };
        assert_eq!(one.value["outputs"], expected["outputs"], "{}", one.value);
        assert_eq!(one.value["include"], expected["include"]);
        let before = revisions.insert(one.partition, one.revision).unwrap_or(-1);
        assert!(before <= one.revision, "revisions go forward");
        *scored.entry(one.revision).or_default() += 1;
    }
    assert_eq!(scored.len(), 3, "each deployment has scored: {scored:?}");
    assert!(
        scored.contains_key(&second) && scored.contains_key(&third),
        "{scored:?}"
    );
    Ok(())
}

/// A worker waits long where nothing comes; what comes then is scored by what serves then.
fn the_first_event_after_a_pause_has_the_newest_version(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    let mut revision = world.deploy("1");
    let instance = world.start_ready("a");
    let event = events().swap_remove(0);
    let mut tail = world.tail(&world.output());
    for version in ["2", "1", "2", "1", "2"] {
        world.append(&world.input(), "key", Some(event.clone()), Vec::new());
        tail.until(tail.records.len() + 1, PATIENCE);
        let last = &predictions(&tail.records)[tail.records.len() - 1];
        assert_eq!(last.revision, revision, "scored by {}", last.version);
        revision = world.append_deploy(version, None);
        instance.wait_serves(revision);
    }
    instance.stop();
    Ok(())
}

fn a_restart_loses_nothing(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 2);
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    world.deploy("1");
    world.deploy("2");
    let sample = events();
    let mut sent = 0;
    let mut more = |count: usize| {
        world.produce((sent..sent + count).map(|i| {
            (
                (i % 2) as i32,
                None,
                Some(sample[i % sample.len()].as_slice()),
            )
        }));
        sent += count;
        sent
    };
    let mut tail = world.tail(&world.output());
    // SIGTERM in the middle of a backlog.
    let first = world.start_ready("a");
    more(30_000);
    tail.until(5_000, PATIENCE);
    first.stop();
    // kill -9 in the middle of a backlog.
    let mut second = world.start_ready("a");
    let before = tail.records.len();
    more(30_000);
    tail.until(before + 5_000, PATIENCE);
    second.process.kill9();
    let third = world.start_ready("a");
    let all = more(100);
    let produced: BTreeMap<i32, i64> = (0..2).map(|p| (p, all as i64 / 2)).collect();
    // Counted as they come: a duplicate must not stand in for a loss.
    let mut seen: BTreeSet<(i32, i64)> = BTreeSet::new();
    let mut counted = 0;
    tail.until_that("all inputs have predictions", PATIENCE, |records| {
        let new = predictions(&records[counted..]);
        counted = records.len();
        seen.extend(new.iter().map(|one| (one.partition, one.offset)));
        seen.len() == all
    });
    third.stop();
    tail.settle();
    let read = predictions(&tail.records);
    assert_complete(&read, &produced);
    assert!(
        read.iter().all(|one| one.version == "2"),
        "a restart serves what was deployed"
    );
    Ok(())
}

fn two_instances_share(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 4);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let sample = events();
    let first = world.start_ready("a");
    let second = world.start_ready("b");
    let partitions = |instance: &crate::world::Instance| {
        let metrics = instance.metrics();
        metrics
            .lines()
            .filter(|l| l.starts_with("swapstream_consumer_lag_records{"))
            .count()
    };
    crate::support::eventually("both instances have partitions", PATIENCE, || {
        match (partitions(&first), partitions(&second)) {
            (2, 2) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let send = |from: usize, to: usize| {
        world.produce((from..to).map(|i| {
            (
                (i % 4) as i32,
                None,
                Some(sample[i % sample.len()].as_slice()),
            )
        }));
    };
    let mut tail = world.tail(&world.output());
    send(0, 20_000);
    tail.until(20_000, PATIENCE);
    second.stop();
    send(20_000, 24_000);
    tail.until(24_000, Duration::from_secs(30));
    tail.settle();
    assert_eq!(
        tail.records.len(),
        24_000,
        "an orderly hand-over repeats nothing"
    );
    assert_eq!(partitions(&first), 4);
    let read = predictions(&tail.records);
    assert_in_order(&read);
    first.stop();
    Ok(())
}

/// Workers leave their group in the midst of their work, each at its own time, and each begins a
/// rebalance for the others.
fn a_stop_commits_what_each_worker_has_scored(broker: &'static Broker) -> TestResult {
    const WORKERS: i32 = 8;
    let mut world = World::new(broker, WORKERS);
    world.stream_extra = format!("workers = {WORKERS}\ncommit_interval = \"60s\"");
    world.publish("v1", "1").ok();
    world.deploy("1");
    let event = events().remove(0);
    let mut tail = world.tail(&world.output());
    for _ in 0..4 {
        let instance = world.start_ready("a");
        let each = (0..3_000).flat_map(|_| 0..WORKERS);
        world.produce(each.map(|partition| (partition, None, Some(&event[..]))));
        let before = tail.records.len();
        tail.until(before + 1_000, PATIENCE);
        instance.stop();
        tail.settle();
        let committed = world.committed().into_iter().map(|(offset, _)| offset);
        let committed: i64 = committed.map(Option::unwrap_or_default).sum();
        assert_eq!(committed, tail.records.len() as i64);
    }
    Ok(())
}

fn keys_headers_and_timestamps_travel(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 3);
    world.publish("v2", "2").ok();
    let revision = world.deploy("2");
    let instance = world.start_ready("a");
    let sample = events();
    let headers = vec![
        Header::text("traceparent", "00-abc-def-01"),
        Header {
            key: "empty".into(),
            value: None,
        },
        Header::text("traceparent", "twice"),
    ];
    world.produce_with_headers([(2, Some(&b"UA1"[..]), Some(sample[0].as_slice()), headers)]);
    let out = world.read(&world.output(), 1);
    instance.stop();
    let record = &out[0];
    assert_eq!(
        (record.partition, record.key.as_deref()),
        (2, Some(&b"UA1"[..]))
    );
    assert_eq!(header(record, "model-name"), Some("late-arrival"));
    assert_eq!(header(record, "model-version"), Some("2"));
    assert!(
        header(record, "model-digest")
            .unwrap()
            .starts_with("sha256:")
    );
    let traces: Vec<_> = record
        .headers
        .iter()
        .filter(|h| h.key == "traceparent")
        .collect();
    assert_eq!(traces.len(), 2);
    assert!(
        record
            .headers
            .iter()
            .any(|h| h.key == "empty" && h.value.is_none())
    );
    let value: Value = serde_json::from_slice(record.value.as_ref().unwrap())?;
    assert_eq!(value["revision"], revision);
    assert_eq!(value["input"]["timestamp"].as_i64(), record.timestamp);
    assert_eq!(value["schema"], "swapstream.prediction/v1");
    let digest = value["digest"].as_str();
    assert_eq!(digest, header(record, "model-digest"));
    Ok(())
}

/// Headers of acknowledged records are used again: those of one record must not get to another one,
/// nor those of one version to the predictions of the next, which is swapped in while records are on
/// their way.
fn headers_stay_with_their_records(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 2);
    for version in ["1", "2"] {
        world.publish(&format!("v{version}"), version).ok();
    }
    world.deploy("1");
    let instance = world.start_ready("a");
    let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut tail = world.tail(&world.output());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                sent.store(
                    send_traced(&world, sent.load(Ordering::Relaxed)),
                    Ordering::Relaxed,
                );
            }
        });
        for version in ["2", "1", "2", "1"] {
            let before = tail.records.len();
            tail.until(before + 1000, PATIENCE);
            instance.wait_serves(world.deploy(version));
        }
        over.store(true, Ordering::Relaxed);
    });
    let good = (0..sent.into_inner()).filter(|number| !number.is_multiple_of(7));
    tail.until(good.count(), PATIENCE);
    instance.stop();
    let mut versions = BTreeSet::new();
    for record in &tail.records {
        let value: Value = serde_json::from_slice(record.value.as_ref().unwrap())?;
        let version = value["version"].as_str().unwrap();
        let mut expected = vec![
            Header::text("model-name", "late-arrival"),
            Header::text("model-version", version),
            Header::text("model-digest", value["digest"].as_str().unwrap()),
        ];
        let key = std::str::from_utf8(record.key.as_ref().unwrap())?;
        if key.parse::<usize>()?.is_multiple_of(3) {
            expected.push(Header::text("trace", key));
        }
        assert_eq!(record.headers, expected);
        versions.insert(version.to_owned());
    }
    assert_eq!(versions.len(), 2, "{versions:?}");
    Ok(())
}

/// Sends 300 events from `number` on: every third with a header of its own, every seventh no JSON,
/// which becomes a dead letter. Gives the number of the next one.
fn send_traced(world: &World, number: usize) -> usize {
    let sample = events();
    let next = number + 300;
    let records = (number..next).map(|number| {
        let key = number.to_string();
        let traced = number.is_multiple_of(3);
        let headers = traced.then(|| Header::text("trace", &key));
        let event = if number.is_multiple_of(7) {
            b"no json".as_slice()
        } else {
            sample[number % sample.len()].as_slice()
        };
        (key, event, headers.into_iter().collect::<Vec<_>>())
    });
    let records: Vec<_> = records.collect();
    world.produce_with_headers(
        records
            .iter()
            .map(|(key, event, headers)| (0, Some(key.as_bytes()), Some(*event), headers.clone())),
    );
    next
}

fn no_model_no_consumption(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let sample = events();
    let send = |count: usize| {
        world.produce(
            sample
                .iter()
                .take(count)
                .map(|e| (0, None, Some(e.as_slice()))),
        );
    };
    send(10);
    let instance = world.start("a");
    // Registry topics are there, nothing is deployed: not ready, and why.
    let reason =
        crate::support::eventually("the reason is told", PATIENCE, || match instance.ready() {
            Err(body) if body.contains("nothing is deployed") => Ok(body),
            other => Err(format!("{other:?}")),
        });
    assert!(reason.contains("late-arrival"), "{reason}");
    world.deploy("1");
    instance.wait_ready();
    let mut tail = world.tail(&world.output());
    tail.until(10, PATIENCE);
    let done = world
        .run(&["model", "undeploy", "late-arrival", "--output", "json"])
        .ok();
    assert_eq!(
        done.json()["event"]["model"],
        "late-arrival",
        "{}",
        done.stdout
    );
    crate::support::eventually("the workers have left", PATIENCE, || {
        let metrics = instance.metrics();
        let wanted = r#"swapstream_workers{state="waiting_for_model",stream="flights"} 1"#;
        if metrics.contains(wanted) {
            Ok(())
        } else {
            Err(metrics)
        }
    });
    assert!(instance.ready().is_err());
    send(10);
    tail.settle();
    assert_eq!(tail.records.len(), 10, "input waits while nothing serves");
    world.deploy("1");
    tail.until(20, PATIENCE);
    tail.settle();
    assert_eq!(tail.records.len(), 20);
    assert!(world.all(&world.dead_letters()).is_empty());
    instance.stop();
    Ok(())
}
