//! Records that cannot be written as they are: policies by stage; topics that are gone or refused.

use std::collections::BTreeSet;
use std::net::TcpStream;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use swapstream::kafka::Admin;

use crate::dlq::{self, ERRORS};
use crate::support::trials::{TestResult, on_own_broker, on_shared_broker};
use crate::support::{Broker, BrokerOptions, eventually, round_trip};
use crate::world::{Instance, PATIENCE, World, events, header, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_own_broker(
            "a_refused_output_topic_is_waited_for",
            with_authorizer,
            a_refused_output_topic_is_waited_for,
        ),
        on_own_broker(
            "a_refused_dead_letter_topic_is_waited_for",
            with_authorizer,
            a_refused_dead_letter_topic_is_waited_for,
        ),
        on_own_broker(
            "reading_that_is_refused_for_a_while_skips_nothing",
            with_authorizer,
            reading_that_is_refused_for_a_while_skips_nothing,
        ),
        on_shared_broker(
            "a_deleted_dead_letter_topic_is_waited_for",
            a_deleted_dead_letter_topic_is_waited_for,
        ),
        on_shared_broker("policies_of_infer", policies_of_infer),
        on_shared_broker("policies_of_produce", policies_of_produce),
    ]
}

fn skipped(instance: &Instance, stage: &str) -> f64 {
    instance.metric(&format!(
        "swapstream_skipped_records_total{{stage=\"{stage}\",stream=\"flights\"}}"
    ))
}

/// Waits until the stream has stopped on its record at `offset`, by its policy for `stage`.
fn wait_failed(instance: &Instance, offset: i64, stage: &str) {
    eventually("the stream stops", PATIENCE, || {
        let place = format!("offset {offset} of");
        let policy = format!("on_error.{stage}");
        match instance.get("/livez") {
            (503, body) if body.contains(&place) && body.contains(&policy) => Ok(()),
            (code, body) => Err(format!("{code} {body}")),
        }
    });
}

fn policies_of_infer(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/nan.onnx");
    world.publish_file(fixture, &[], "late-arrival", "1").ok();
    world.deploy("1");
    let event = br#"{"x":[1,2],"flight_id":"f"}"#;
    world.stream_extra = "on_error = { infer = \"skip\" }".to_owned();
    let skips = world.start_ready("a");
    world.produce([(0, None, Some(&event[..]))]);
    eventually("it is counted", PATIENCE, || {
        match skipped(&skips, "infer") {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    skips.stop();
    assert_eq!(world.committed()[0].0, Some(1));
    world.stream_extra = "on_error = { infer = \"fail\" }".to_owned();
    let fails = world.start_ready("a");
    world.produce([(0, None, Some(&event[..]))]);
    wait_failed(&fails, 1, "infer");
    fails.stop();
    assert_eq!(world.committed()[0].0, Some(1), "the record is left");
    assert!(world.all(&world.dead_letters()).is_empty());
    Ok(())
}

fn policies_of_produce(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let good = events().remove(0);
    let mut large: Value = serde_json::from_slice(&good)?;
    large["flight_id"] = Value::from("x".repeat(2_000_000));
    let large = large.to_string().into_bytes();
    world.stream_extra = "on_error = { produce = \"skip\" }".to_owned();
    let skips = world.start_ready("a");
    world.produce([(0, None, Some(&large[..])), (0, None, Some(&good[..]))]);
    let out = world.read(&world.output(), 1);
    assert_eq!(predictions(&out)[0].offset, 1);
    eventually("it is counted", PATIENCE, || {
        match skipped(&skips, "produce") {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    skips.stop();
    assert_eq!(world.committed()[0].0, Some(2));
    world.stream_extra = "on_error = { produce = \"fail\" }".to_owned();
    let fails = world.start_ready("a");
    world.produce([(0, None, Some(&large[..]))]);
    wait_failed(&fails, 2, "produce");
    fails.stop();
    assert!(world.all(&world.dead_letters()).is_empty());
    // By default it is a dead letter, cut to what its topic takes, and cut ones stay.
    world.stream_extra.clear();
    let default = world.start_ready("a");
    let dead = world.read(&world.dead_letters(), 1);
    default.stop();
    assert_eq!(
        header(&dead[0], &format!("{ERRORS}class")),
        Some("too_large")
    );
    let report = dlq::json(&world, &["redrive"]);
    assert_eq!(
        (&report["truncated"], &report["redriven"]),
        (&json!(1), &json!(0))
    );
    Ok(())
}

/// Waits until the instance is unready for a reason that names all of `parts`, and alive.
fn wait_unready(instance: &Instance, parts: &[&str]) {
    eventually("unready, and why", PATIENCE, || {
        match instance.get("/readyz") {
            (503, body) if parts.iter().all(|part| body.contains(part)) => Ok(()),
            (code, body) => Err(format!("{code} {body}, not {parts:?}")),
        }
    });
    assert_eq!(instance.get("/livez").0, 200, "no reason to restart");
}

fn a_deleted_dead_letter_topic_is_waited_for(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let good = events().remove(0);
    world.produce([(0, None, Some(&good[..])), (0, None, Some(&b"bad"[..]))]);
    assert_eq!(world.read(&world.dead_letters(), 1).len(), 1);
    let dead_letters = world.dead_letters();
    Admin::new(&world.kafka)?.delete_topics(&[&dead_letters], PATIENCE)?;
    world.produce([(0, None, Some(&b"bad too"[..])), (0, None, Some(&good[..]))]);
    wait_unready(&instance, &["stream flights", &dead_letters]);
    world.create_topic(&dead_letters, 1, &[]);
    let dead = world.read(&dead_letters, 1);
    assert_eq!(dead[0].value.as_deref(), Some(&b"bad too"[..]));
    let mut tail = world.tail(&world.output());
    tail.until_that("the event after it", PATIENCE, |records| {
        predictions(records).iter().any(|one| one.offset == 3)
    });
    instance.wait_ready();
    instance.stop();
    assert_eq!(world.committed()[0].0, Some(4));
    Ok(())
}

fn with_authorizer() -> BrokerOptions {
    let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BrokerOptions {
        properties: vec![
            property(
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            ),
            property("allow.everyone.if.no.acl.found", "true"),
        ],
        ..BrokerOptions::default()
    }
}

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ALL: u8 = 2;
const READ: u8 = 3;
const WRITE: u8 = 4;
const DENY: u8 = 2;
const ALLOW: u8 = 3;

/// Creates or deletes the rule about `topic` for everybody.
fn acl(broker: &Broker, api: i16, topic: &str, operation: u8, permission: u8) {
    const TOPIC: u8 = 2;
    const LITERAL: u8 = 3;
    let mut body = 1_i32.to_be_bytes().to_vec();
    let string = |text: &str| {
        let mut bytes = (text.len() as i16).to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    body.push(TOPIC);
    body.extend(string(topic));
    body.push(LITERAL);
    body.extend(string("User:*"));
    body.extend(string("*"));
    body.extend([operation, permission]);
    let mut stream = TcpStream::connect(broker.bootstrap()).unwrap();
    let answer = round_trip(&mut stream, api, 1, &body).unwrap();
    // The throttle time, the number of results, the first one's error.
    assert_eq!(answer[4..10], [0, 0, 0, 1, 0, 0], "{answer:?}");
}

fn a_refused_output_topic_is_waited_for(broker: &Broker) -> TestResult {
    refused_and_allowed_again(broker, World::output)
}

fn a_refused_dead_letter_topic_is_waited_for(broker: &Broker) -> TestResult {
    refused_and_allowed_again(broker, World::dead_letters)
}

/// Writing to a topic is refused while the stream runs, and allowed again.
fn refused_and_allowed_again(broker: &Broker, topic: fn(&World) -> String) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let good = events().remove(0);
    world.produce([(0, None, Some(&good[..]))]);
    world.read(&world.output(), 1);
    let topic = topic(&world);
    acl(broker, CREATE_ACLS, &topic, ALL, ALLOW);
    acl(broker, CREATE_ACLS, &topic, WRITE, DENY);
    world.produce([(0, None, Some(&good[..])), (0, None, Some(&b"bad"[..]))]);
    wait_unready(
        &instance,
        &["stream flights", &topic, "authorization failed"],
    );
    let committed = world.committed()[0].0;
    assert!(
        committed < Some(3),
        "nothing refused is committed: {committed:?}"
    );
    acl(broker, DELETE_ACLS, &topic, WRITE, DENY);
    let mut tail = world.tail(&world.output());
    tail.until_that("the prediction", PATIENCE, |records| {
        predictions(records).iter().any(|one| one.offset == 1)
    });
    let dead = world.read(&world.dead_letters(), 1);
    assert_eq!(dead[0].value.as_deref(), Some(&b"bad"[..]));
    instance.wait_ready();
    instance.stop();
    assert_eq!(world.committed()[0].0, Some(3));
    Ok(())
}

/// Reading a topic is refused while the stream runs; before it is allowed again another member comes,
/// for which librdkafka stops fetching and goes on from where it thinks that reading had got to.
fn reading_that_is_refused_for_a_while_skips_nothing(broker: &Broker) -> TestResult {
    const EACH: i64 = 40;
    const PARTITIONS: i32 = 4;
    let world = World::new(broker, PARTITIONS);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let event = events().remove(0);
    let produce = || {
        let each = (0..EACH).flat_map(|_| 0..PARTITIONS);
        world.produce(each.map(|partition| (partition, None, Some(&event[..]))));
    };
    let first = world.start_ready("a");
    produce();
    world.read(&world.output(), PARTITIONS as usize * EACH as usize);
    acl(broker, CREATE_ACLS, &world.input(), ALL, ALLOW);
    acl(broker, CREATE_ACLS, &world.input(), READ, DENY);
    produce();
    let errors = "swapstream_kafka_errors_total{client=\"consumer\",kind=\"retriable\"}";
    eventually("reading is refused", PATIENCE, || {
        let count = first.metric(errors);
        (count > 0.0).then_some(()).ok_or(format!("{count} errors"))
    });
    let second = world.start("b");
    eventually("it takes over a partition", PATIENCE, || {
        let counts = [(&first, "revoked"), (&second, "assigned")].map(|(instance, kind)| {
            let labels = format!("kind=\"{kind}\",stream=\"flights\"");
            instance.metric(&format!("swapstream_rebalances_total{{{labels}}}"))
        });
        let done = counts.iter().all(|count| *count > 0.0);
        done.then_some(()).ok_or(format!("{counts:?} rebalances"))
    });
    acl(broker, DELETE_ACLS, &world.input(), READ, DENY);
    produce();
    let mut tail = world.tail(&world.output());
    tail.until_that("every prediction", PATIENCE, |records| {
        let found = predictions(records);
        let found: BTreeSet<_> = found
            .iter()
            .map(|one| (one.partition, one.offset))
            .collect();
        found.len() == PARTITIONS as usize * 3 * EACH as usize
    });
    second.stop();
    let log = first.stop();
    let says = format!("reading {}", world.input());
    let named = |line: &String| line.contains(&says) && line.contains("uthorization failed");
    assert!(log.iter().any(named), "{log:?}");
    Ok(())
}
