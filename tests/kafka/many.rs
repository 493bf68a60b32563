//! Many models in one process, each with a stream of its own: how long they take to serve, and that
//! what happens to one costs the others nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

use libtest_mimic::Trial;
use serde_json::json;
use swapstream::kafka::Publisher;
use swapstream::model::{Manifest, ModelName};
use swapstream::record::{Header, OutRecord};
use swapstream::registry::CHUNK_BYTES;

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{Instance, PATIENCE, World, events, models, predictions};

pub fn trials() -> Vec<Trial> {
    vec![on_shared_broker("many_models_in_one_process", many_models)]
}

/// Series of `/metrics` that a stream and its model may have at most.
const SERIES: usize = 220;

fn record(topic: &str, key: String, value: Vec<u8>, headers: Vec<Header>) -> OutRecord {
    OutRecord {
        topic: topic.to_owned(),
        partition: Some(0),
        key: Some(key.into_bytes()),
        value: Some(value),
        headers,
        timestamp: None,
    }
}

fn deployment(world: &World, model: &str) -> OutRecord {
    let event = json!({
        "schema": "swapstream.deployment/v1", "action": "deploy", "model": model, "version": "1",
    });
    let topic = world.registry_topic("deployments");
    record(
        &topic,
        model.to_owned(),
        event.to_string().into(),
        Vec::new(),
    )
}

/// Publishes and deploys version 1 of all `names`, as the commands would, at once.
fn fill(world: &World, names: &[String]) {
    let onnx = std::fs::read(models().join("v1.onnx")).unwrap();
    world.publish("v1", "1").ok();
    let shown = world
        .run(&["model", "show", "late-arrival", "1", "--raw"])
        .ok();
    let template: Manifest = serde_json::from_str(&shown.stdout).unwrap();
    let (versions, artifacts) = (
        world.registry_topic("versions"),
        world.registry_topic("artifacts"),
    );
    let mut publisher = Publisher::idempotent(&world.kafka).unwrap();
    let mut send = |records: Vec<OutRecord>| {
        publisher
            .send_all(records.into_iter(), &mut |_| {})
            .unwrap()
    };
    let chunk = |name: &String| record(&artifacts, format!("{name}/0"), onnx.clone(), Vec::new());
    let offsets = send(names.iter().map(chunk).collect());
    let manifest = |(name, offset): (&String, i64)| {
        let manifest = Manifest {
            model: ModelName::new(name).unwrap(),
            ..template.clone()
        };
        let header = json!({
            "schema": "swapstream.artifact-chunks/v1", "upload": name, "count": 1,
            "chunk_bytes": CHUNK_BYTES, "first_offset": offset, "last_offset": offset,
        });
        let headers = vec![Header::text("artifact-chunks", header)];
        record(
            &versions,
            format!("{name}/1"),
            manifest.to_json().unwrap(),
            headers,
        )
    };
    send(names.iter().zip(offsets).map(manifest).collect());
    send(names.iter().map(|name| deployment(world, name)).collect());
}

fn threads(instance: &Instance) -> (usize, usize) {
    let count = |what: &str| {
        let path = format!("/proc/{}/{what}", instance.process.pid());
        std::fs::read_dir(path).unwrap().count()
    };
    (count("task"), count("fd"))
}

/// `SWAPSTREAM_TEST_MODELS` models (40) besides the world's own.
fn many_models(broker: &'static Broker) -> TestResult {
    let count =
        std::env::var("SWAPSTREAM_TEST_MODELS").map_or(Ok(40), |text| text.parse::<usize>())?;
    let mut world = World::new(broker, 1);
    let names: Vec<String> = (0..count).map(|n: usize| format!("model-{n}")).collect();
    fill(&world, &names);
    let (group, input, output, dlq) = (
        world.name.clone(),
        world.input(),
        world.output(),
        world.dead_letters(),
    );
    for name in &names {
        write!(
            world.extra,
            "[streams.{name}]\ngroup_id = \"{group}-{name}\"\ninput_topics = [\"{input}\"]\n\
             output_topic = \"{output}\"\ndead_letter_topic = \"{dlq}\"\nmodel = \"{name}\"\n\
             workers = 1\n"
        )?;
    }
    world.deploy("1");
    let start = Instant::now();
    let instance = world.start("a");
    eventually("all models serve", PATIENCE * 10, || instance.ready());
    let ready = start.elapsed();
    let (threads, files) = threads(&instance);
    let series = |metrics: &str| {
        metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    let metrics = instance.metrics();
    eprintln!(
        "{count} models ready after {ready:.1?}: {:.0} MB resident, {threads} threads, {files} \
         files, {} series, models hold {:.1} MB",
        instance.metric("process_resident_memory_bytes") / 1e6,
        series(&metrics),
        instance.metric("swapstream_model_memory_bytes") / 1e6,
    );
    assert!(
        series(&metrics) <= SERIES * (count + 2),
        "{} series",
        series(&metrics)
    );
    // One event, read by every group, scored by every model.
    world.produce([(0, None, Some(events()[0].as_slice()))]);
    let answers = predictions(&world.read(&world.output(), count + 1));
    let by: BTreeSet<_> = answers
        .iter()
        .map(|a| a.value["model"].to_string())
        .collect();
    assert_eq!((answers.len(), by.len()), (count + 1, count + 1));
    // What is deployed of one model is told of that one only.
    let status = world.registry_topic("status");
    let before = world.tail_of(&status, 1).read_to_end().len();
    let event = deployment(&world, &names[0]);
    let key = String::from_utf8(event.key.unwrap()).unwrap();
    let revision = world.append(&event.topic, &key, event.value, Vec::new());
    instance.wait_serves(revision);
    let told: BTreeSet<_> = world.tail_of(&status, 1).read_to_end()[before..]
        .iter()
        .map(|record| String::from_utf8(record.key.clone().unwrap()).unwrap())
        .filter(|key| !key.starts_with("instance/"))
        .collect();
    let wanted = format!("a/{}", names[0]);
    assert!(told.iter().all(|key| *key == wanted), "{told:?}");
    drop(instance);
    Ok(())
}
