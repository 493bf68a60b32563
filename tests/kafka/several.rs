//! Several streams and models in one process, and topics whose partition counts differ.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{PATIENCE, World, events, header, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("two_streams_with_two_models", two_streams_with_two_models),
        on_shared_broker("other_counts_go_by_key", other_counts_go_by_key),
    ]
}

fn two_streams_with_two_models(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    let topic = |kind: &str| format!("{}-second-{kind}", world.name);
    let (input, output, dead) = (topic("in"), topic("out"), topic("dlq"));
    for topic in [&input, &output, &dead] {
        world.create_topic(topic, 1, &[]);
    }
    world.extra = format!(
        "[streams.second]\ngroup_id = \"{}-second\"\ninput_topics = [\"{input}\"]\n\
         output_topic = \"{output}\"\ndead_letter_topic = \"{dead}\"\nmodel = \"sums\"\n",
        world.name
    );
    world.publish("v1", "1").ok();
    world.deploy("1");
    let event = br#"{"x":[1,2,3,4]}"#;
    world.produce_to(&input, [(0, None, Some(&event[..]), Vec::new())]);
    let instance = world.start("a");
    // The model of one is missing: the other one scores all the same.
    world.produce([(0, None, Some(events()[0].as_slice()))]);
    let first = world.read(&world.output(), 1);
    assert_eq!(header(&first[0], "model-name"), Some("late-arrival"));
    let (code, body) = instance.get("/readyz");
    assert_eq!(code, 503, "{body}");
    assert!(
        body.contains("stream second") && body.contains("sums"),
        "{body}"
    );
    assert!(!body.contains("stream flights"), "{body}");
    assert!(world.tail_of(&output, 1).read_to_end().is_empty());
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/matmul.onnx");
    world.publish_file(fixture, &[], "sums", "A").ok();
    let deploy = ["model", "deploy", "sums", "A", "--wait", "--output", "json"];
    let deployed = world.run(&deploy).ok().json();
    let mut tail = world.tail_of(&output, 1);
    tail.until(1, PATIENCE);
    let value: Value = serde_json::from_slice(tail.records[0].value.as_deref().unwrap())?;
    assert_eq!(value["model"], "sums");
    assert_eq!(value["version"], "A");
    assert_eq!(value["revision"], deployed["revision"]);
    assert_eq!(value["outputs"]["y"].as_array().unwrap().len(), 3);
    instance.wait_ready();
    // One undeployed: the other serves on, and only the one is missed.
    world.run(&["model", "undeploy", "late-arrival"]).ok();
    eventually("only one is missed", PATIENCE, || {
        match instance.get("/readyz") {
            (503, body) if body.contains("late-arrival") && !body.contains("sums") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    world.produce_to(&input, [(0, None, Some(&event[..]), Vec::new())]);
    tail.until(2, PATIENCE);
    let models = instance.get("/models").1;
    let models: Value = serde_json::from_str(&models)?;
    let serving: BTreeMap<&str, bool> = models["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["model"].as_str().unwrap(), !one["serving"].is_null()))
        .collect();
    assert_eq!(
        serving,
        BTreeMap::from([("late-arrival", false), ("sums", true)])
    );
    instance.stop();
    Ok(())
}

/// The hash of Java's default partitioner.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ (word >> 24)).wrapping_mul(M)
    };
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let words = data.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let word = mix(u32::from_le_bytes(word.try_into().unwrap()));
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn java_partition(key: &[u8], count: i32) -> i32 {
    ((murmur2(key) & 0x7fff_ffff) % count as u32) as i32
}

fn other_counts_go_by_key(broker: &'static Broker) -> TestResult {
    const KEYS: usize = 23;
    const EVENTS: usize = 2_000;
    // From Kafka's own tests of its hash.
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
    }
    let mut world = World::with_counts(broker, 3, 5);
    world.stream_extra.push_str("workers = 2");
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let sample = events();
    // Every tenth event is bad: dead letters go by the same rule. Every seventh has no key.
    let sent: Vec<(i32, Option<String>, Vec<u8>)> = (0..EVENTS)
        .map(|index| {
            let key = (index % 7 != 0).then(|| format!("flight-{}", index % KEYS));
            let partition = key
                .as_ref()
                .map_or((index % 3) as i32, |key| java_partition(key.as_bytes(), 3));
            let bad = index % 10 == 0;
            let event = if bad {
                b"bad".to_vec()
            } else {
                sample[index % sample.len()].clone()
            };
            (partition, key, event)
        })
        .collect();
    world.produce(sent.iter().map(|(partition, key, event)| {
        (
            *partition,
            key.as_deref().map(str::as_bytes),
            Some(event.as_slice()),
        )
    }));
    let bad = EVENTS / 10;
    let out = world.read(&world.output(), EVENTS - bad);
    let dead = world.read(&world.dead_letters(), bad);
    instance.stop();
    assert_eq!((out.len(), dead.len()), (EVENTS - bad, bad));
    let mut last: BTreeMap<(Vec<u8>, i32), i64> = BTreeMap::new();
    for (record, one) in out.iter().zip(predictions(&out)) {
        match &record.key {
            Some(key) => {
                assert_eq!(record.partition, java_partition(key, 5), "{key:?}");
                let before = last.insert((key.clone(), one.partition), one.offset);
                assert!(before < Some(one.offset), "order of {key:?}");
            }
            None => assert_eq!(record.partition, one.partition % 5),
        }
    }
    for record in &dead {
        let from: i32 = header(record, "__swapstream.errors.partition")
            .unwrap()
            .parse()?;
        let wanted = record
            .key
            .as_deref()
            .map_or(from % 5, |key| java_partition(key, 5));
        assert_eq!(record.partition, wanted);
    }
    Ok(())
}
