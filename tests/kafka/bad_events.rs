//! Events that cannot be scored: each ends as exactly one dead letter, or as the policy says, and
//! the events around it are scored.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use serde_json::Value;
use swapstream::record::{Header, OwnedRecord};

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{PATIENCE, World, events, header, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("bad_events_are_dead_letters", bad_events_are_dead_letters),
        on_shared_broker("policy_skip_counts", policy_skip_counts),
        on_shared_broker("policy_fail_leaves_the_group", policy_fail_leaves_the_group),
        on_shared_broker("non_finite_outputs", non_finite_outputs),
    ]
}

/// What the dead-letter topic takes.
const DEAD_LETTER_MAX: usize = 1_048_588;
const FIVE_MB: usize = 5_000_000;

/// A bad event: its name, its value, stage and class of its dead letter.
type Bad = (&'static str, Option<Vec<u8>>, &'static str, &'static str);

/// A good event with one field set to a text of JSON.
fn with(field: &str, value: &str) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(&events()[0]).unwrap();
    event[field] = Value::from("@");
    Some(event.to_string().replace("\"@\"", value).into_bytes())
}

fn without(field: &str) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(&events()[0]).unwrap();
    event.as_object_mut().unwrap().remove(field);
    Some(event.to_string().into_bytes())
}

fn bad_events() -> Vec<Bad> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let open = format!("{{\"a\":{}", "[".repeat(100_000));
    let huge = format!("\"{}\"", "x".repeat(FIVE_MB));
    let mut broken = with("carrier", "\"??\"").unwrap();
    let at = broken.windows(2).position(|two| two == b"??").unwrap();
    broken[at] = 0xff;
    vec![
        ("no JSON", text("hello"), "decode", "invalid_json"),
        (
            "half",
            text("{\"distance_miles\":"),
            "decode",
            "invalid_json",
        ),
        ("two", text("{}{}"), "decode", "invalid_json"),
        ("empty", text(""), "decode", "empty"),
        ("blank", text(" \n"), "decode", "empty"),
        ("tombstone", None, "decode", "tombstone"),
        ("null", text("null"), "decode", "not_an_object"),
        ("array", text("[1]"), "decode", "not_an_object"),
        (
            "missing feature",
            without("distance_miles"),
            "features",
            "missing_feature",
        ),
        (
            "null feature",
            with("distance_miles", "null"),
            "features",
            "null_feature",
        ),
        (
            "wrong type",
            with("distance_miles", "\"far\""),
            "features",
            "wrong_type",
        ),
        (
            "object",
            with("distance_miles", "{}"),
            "features",
            "wrong_type",
        ),
        (
            "wrong shape",
            with("distance_miles", "[1,2]"),
            "features",
            "wrong_shape",
        ),
        (
            "NaN",
            with("distance_miles", "NaN"),
            "decode",
            "invalid_json",
        ),
        (
            "infinite",
            with("distance_miles", "-Infinity"),
            "decode",
            "invalid_json",
        ),
        (
            "too large for f32",
            with("distance_miles", "1e39"),
            "features",
            "out_of_range",
        ),
        (
            "too large for f64",
            with("distance_miles", "1e400"),
            "decode",
            "invalid_json",
        ),
        ("deep", with("carrier", &deep), "decode", "too_deep"),
        (
            "deep and open",
            Some(open.into_bytes()),
            "decode",
            "too_deep",
        ),
        ("no UTF-8", Some(broken), "decode", "invalid_utf8"),
        (
            "twice",
            with("distance_miles", "1,\"distance_miles\":1"),
            "decode",
            "duplicate_key",
        ),
        (
            "included twice",
            with("flight_id", "\"a\",\"flight_id\":\"b\""),
            "decode",
            "duplicate_key",
        ),
        (
            "5 MB of nothing",
            Some(vec![b'x'; FIVE_MB]),
            "decode",
            "invalid_json",
        ),
        // A right event, whose prediction includes the 5 MB.
        (
            "5 MB copied",
            with("flight_id", &huge),
            "produce",
            "too_large",
        ),
    ]
}

fn error_header<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    header(record, &format!("__swapstream.errors.{name}"))
}

fn bad_events_are_dead_letters(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 2);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let good = events().remove(0);
    let bad = bad_events();
    // Good and bad ones take turns, and a bad one is the last of each partition.
    let mut sent: Vec<(i32, Option<String>, Option<Vec<u8>>)> = Vec::new();
    for (index, one) in bad.iter().enumerate() {
        let partition = (index % 2) as i32;
        sent.push((partition, None, Some(good.clone())));
        sent.push((partition, Some(one.0.to_owned()), one.1.clone()));
    }
    world.produce_with_headers(sent.iter().map(|(partition, key, value)| {
        let headers = vec![Header::text("traceparent", "00-abc")];
        let key = key.as_deref().map(str::as_bytes);
        (*partition, key, value.as_deref(), headers)
    }));
    let dead = world.read(&world.dead_letters(), bad.len());
    let out = world.read(&world.output(), bad.len());
    assert_eq!(out.len(), bad.len(), "each good event once");
    assert_eq!(dead.len(), bad.len(), "each bad event once");
    let read = predictions(&out);
    let good: Vec<_> = read.iter().map(|one| (one.partition, one.offset)).collect();
    let by_key: BTreeMap<&[u8], &OwnedRecord> = dead
        .iter()
        .map(|record| (record.key.as_deref().unwrap(), record))
        .collect();
    for (index, (name, value, stage, class)) in bad.iter().enumerate() {
        let (partition, offset) = (index % 2, index / 2 * 2 + 1);
        assert!(
            good.contains(&(partition as i32, offset as i64 - 1)),
            "before {name}"
        );
        let record = by_key.get(name.as_bytes()).unwrap();
        let message = error_header(record, "message");
        let found = (error_header(record, "stage"), error_header(record, "class"));
        assert_eq!(found, (Some(*stage), Some(*class)), "{name}: {message:?}");
        assert!(message.is_some_and(|m| !m.is_empty()), "{name}");
        assert_eq!(record.partition, partition as i32, "{name}");
        let place = (
            error_header(record, "topic").unwrap().to_owned(),
            error_header(record, "partition").unwrap().parse()?,
            error_header(record, "offset").unwrap().parse()?,
        );
        assert_eq!(place, (world.input(), partition, offset), "{name}");
        assert_eq!(
            error_header(record, "timestamp").unwrap().parse().ok(),
            record.timestamp,
            "{name}"
        );
        assert_eq!(error_header(record, "model"), Some("late-arrival"));
        assert_eq!(error_header(record, "version"), Some("1"));
        assert_eq!(error_header(record, "attempt"), Some("1"));
        assert_eq!(header(record, "traceparent"), Some("00-abc"));
        if value.as_ref().is_some_and(|value| value.len() >= FIVE_MB) {
            assert_cut(name, record, value.as_deref().unwrap());
        } else {
            assert_eq!(&record.value, value, "{name}: the bytes as they came");
            assert_eq!(error_header(record, "truncated"), None);
        }
    }
    let counted: f64 = ["decode", "features", "infer", "encode", "produce"]
        .iter()
        .map(|stage| {
            let labels = format!("{{stage=\"{stage}\",stream=\"flights\"}}");
            instance.metric(&format!("swapstream_dead_letters_total{labels}"))
        })
        .sum();
    assert_eq!(counted, bad.len() as f64);
    instance.stop();
    // The last record of each partition was a bad one: it is committed like any other.
    let offsets: Vec<_> = world
        .committed()
        .into_iter()
        .map(|(next, _)| next)
        .collect();
    assert_eq!(offsets, [Some(bad.len() as i64); 2]);
    Ok(())
}

/// A dead letter that was too large tells what the whole was.
fn assert_cut(name: &str, record: &OwnedRecord, value: &[u8]) {
    let left = record.value.as_deref().unwrap();
    assert!(value.starts_with(left), "{name}: the beginning is left");
    let len = left.len();
    assert!(
        len < DEAD_LETTER_MAX && len > DEAD_LETTER_MAX - 4096,
        "{name}: {len}"
    );
    assert_eq!(error_header(record, "truncated"), Some("true"), "{name}");
    let bytes = value.len().to_string();
    assert_eq!(error_header(record, "original_bytes"), Some(&*bytes));
    let digest = swapstream::model::Digest::of(value).to_string();
    let digest = digest.strip_prefix("sha256:");
    assert_eq!(error_header(record, "sha256"), digest, "{name}");
}

fn policy_skip_counts(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world
        .stream_extra
        .push_str("on_error = { decode = \"skip\" }");
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let good = events().remove(0);
    let missing = without("distance_miles").unwrap();
    let values: [&[u8]; 6] = [&good, b"no", &missing, b"", &good, b"null"];
    world.produce(values.map(|value| (0, None, Some(value))));
    let out = world.read(&world.output(), 2);
    assert_eq!(out.len(), 2);
    let offsets: Vec<_> = predictions(&out).iter().map(|one| one.offset).collect();
    assert_eq!(offsets, [0, 4]);
    // Another stage's policy is what it was.
    let dead = world.read(&world.dead_letters(), 1);
    assert_eq!(dead.len(), 1);
    assert_eq!(error_header(&dead[0], "class"), Some("missing_feature"));
    let skipped = r#"swapstream_skipped_records_total{stage="decode",stream="flights"}"#;
    eventually("three are counted", PATIENCE, || {
        match instance.metric(skipped) {
            3.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    instance.stop();
    assert_eq!(world.committed()[0].0, Some(6), "what is skipped is done");
    Ok(())
}

fn policy_fail_leaves_the_group(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    world
        .stream_extra
        .push_str("on_error = { decode = \"fail\" }");
    let failing = world.start_ready("a");
    let good = events().remove(0);
    let values: [&[u8]; 3] = [&good, b"no event", &good];
    world.produce(values.map(|value| (0, None, Some(value))));
    let body = eventually("liveness says so", PATIENCE, || {
        match failing.get("/livez") {
            (503, body) => Ok(body),
            (code, body) => Err(format!("{code} {body}")),
        }
    });
    for part in ["flights", "offset 1 of", "invalid_json", "on_error.decode"] {
        assert!(body.contains(part), "{part:?} in {body}");
    }
    let (code, ready) = failing.get("/readyz");
    assert!(
        code == 503 && ready.contains("offset 1 of"),
        "{code} {ready}"
    );
    assert_eq!(
        failing.metric(r#"swapstream_workers{state="failed",stream="flights"}"#),
        1.0
    );
    // It has left its group: another instance, which takes dead letters, has its partition at
    // once, and goes on where this one has stopped.
    world.stream_extra.clear();
    let helping = world.start_ready("b");
    let dead = world.read(&world.dead_letters(), 1);
    assert_eq!(dead.len(), 1, "exactly one dead letter");
    assert_eq!(dead[0].value.as_deref(), Some(&b"no event"[..]));
    let mut tail = world.tail(&world.output());
    tail.until_that("both good events", PATIENCE, |records| {
        let read = predictions(records);
        [0, 2]
            .iter()
            .all(|wanted| read.iter().any(|one| one.offset == *wanted))
    });
    // A failed stream is an orderly end all the same.
    failing.stop();
    helping.stop();
    assert_eq!(world.committed()[0].0, Some(3));
    Ok(())
}

fn non_finite_outputs(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/nan.onnx");
    world.publish_file(fixture, &[], "late-arrival", "1").ok();
    world.deploy("1");
    let event = br#"{"x":[1,2],"flight_id":"f"}"#;
    let first = world.start_ready("a");
    world.produce([(0, Some(&b"k"[..]), Some(&event[..]))]);
    let dead = world.read(&world.dead_letters(), 1);
    first.stop();
    assert_eq!(dead.len(), 1);
    let found = (
        error_header(&dead[0], "stage"),
        error_header(&dead[0], "class"),
    );
    assert_eq!(found, (Some("infer"), Some("non_finite_output")));
    assert_eq!(dead[0].value.as_deref(), Some(&event[..]));
    assert_eq!(dead[0].key.as_deref(), Some(&b"k"[..]));
    assert!(world.all(&world.output()).is_empty());
    world.stream_extra.push_str("non_finite_outputs = \"null\"");
    let second = world.start_ready("a");
    world.produce([(0, None, Some(&event[..]))]);
    let out = world.read(&world.output(), 1);
    second.stop();
    let read = predictions(&out);
    assert_eq!((read.len(), read[0].offset), (1, 1));
    assert_eq!(
        read[0].value["outputs"]["y"],
        serde_json::json!([null, null])
    );
    Ok(())
}
