//! What a load may do to the instance: end it, take its memory, take its time.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::onnx;
use crate::registry::model;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{Instance, PATIENCE, Tail, World, events, models};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("two_deaths_in_a_load_refuse_it", two_deaths_refuse),
        on_shared_broker("a_load_over_the_limit_is_refused", over_the_memory),
        on_shared_broker("memory_is_bounded_over_many_swaps", memory_is_bounded),
    ]
}

/// Publishes a dense net of so many square layers, with the contract of flights version 1 and no
/// golden rows of its.
pub fn publish_dense(world: &World, version: &str, layers: usize, width: usize) {
    let text = std::fs::read_to_string(models().join("v1.toml")).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("golden_file"));
    let manifest = world.path(&format!("{version}.toml"));
    std::fs::write(&manifest, kept.collect::<Vec<_>>().join("\n")).unwrap();
    let file = world.path(&format!("{version}.onnx"));
    std::fs::write(&file, onnx::dense(layers, width)).unwrap();
    // The instance's own load is what is to be seen.
    let more = ["--no-check", "--manifest", manifest.to_str().unwrap()];
    world
        .publish_file(file.to_str().unwrap(), &more, "late-arrival", version)
        .ok();
}

/// The newest note of a load, with its place among the records; `None` once it was taken back.
fn note(tail: &mut Tail) -> Option<(usize, Value)> {
    while tail.turn(Duration::from_millis(1)) {}
    let is_note = |key: Option<&[u8]>| key == Some(b"a/late-arrival/loading".as_slice());
    let records = &tail.records;
    let last = records.iter().rposition(|r| is_note(r.key.as_deref()))?;
    let value = records[last].value.as_deref()?;
    Some((last, serde_json::from_slice(value).unwrap()))
}

/// Starts an instance and kills it inside of the load of `version`; gives the attempt.
fn die_in_load(world: &World, tail: &mut Tail, version: &str) -> u64 {
    let end = Instant::now() + PATIENCE * 2;
    loop {
        tail.settle();
        let before = tail.records.len();
        let mut instance = world.start("a");
        let is_new = |(at, note): &(usize, Value)| *at >= before && note["version"] == version;
        while !note(tail).is_some_and(|note| is_new(&note)) {
            assert!(Instant::now() < end, "no load of {version} was seen");
        }
        instance.process.kill9();
        // Unless the load had ended just before, and its note was taken back.
        tail.settle();
        if let Some((_, note)) = note(tail) {
            return note["attempt"].as_u64().unwrap();
        }
    }
}

fn wait_ready_with(instance: &Instance, world: &World, version: &str) {
    instance.wait_ready();
    eventually("the version serves", PATIENCE, || {
        let status = world.status();
        let serving = &status["models"][0]["instances"][0]["serving"];
        if serving["version"] == version {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
}

fn two_deaths_refuse(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    publish_dense(&world, "deadly", 8, 256);
    let revision = world.append_deploy("deadly", None);
    let mut tail = world.tail_of(&world.registry_topic("status"), 1);
    // A kill from outside condemns nothing: the next start tries again, and would serve it.
    assert_eq!(die_in_load(&world, &mut tail, "deadly"), 1);
    assert_eq!(die_in_load(&world, &mut tail, "deadly"), 2);
    // Twice in a row is once too often: the fallback serves, and the status says why.
    let instance = world.start("a");
    wait_ready_with(&instance, &world, "1");
    let status = world.status();
    let refused = &status["models"][0]["instances"][0]["refused"];
    assert_eq!(refused["version"], "deadly", "{status}");
    assert_eq!(refused["revision"], revision);
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("died 2 times in a row"), "{reason}");
    let mut out = world.tail(&world.output());
    world.produce([(0, None, Some(events()[0].as_slice()))]);
    out.until(1, PATIENCE);
    // Somebody's word that it is worth another try: it loads, since nobody kills it now.
    model(&world, &["deploy", "late-arrival", "deadly", "--wait"]).ok();
    eventually("the note is taken back", PATIENCE, || {
        match note(&mut tail) {
            None => Ok(()),
            Some((_, note)) => Err(note.to_string()),
        }
    });
    instance.stop();
    Ok(())
}

fn over_the_memory(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.extra = "[limits]\nmodel_memory = \"24MiB\"".to_owned();
    world.publish("v1", "1").ok();
    let good = world.deploy("1");
    publish_dense(&world, "large", 8, 1024);
    let instance = world.start_ready("a");
    let used = instance.metric("swapstream_model_memory_bytes");
    assert!(used > 0.0 && used < 24e6, "{used}");
    assert_eq!(
        instance.metric("swapstream_model_memory_limit_bytes"),
        24.0 * 1_048_576.0
    );
    let done = model(
        &world,
        &[
            "deploy",
            "late-arrival",
            "large",
            "--wait",
            "--timeout",
            "180s",
        ],
    );
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("limits.model_memory"), "{done:?}");
    let status = world.status();
    let report = &status["models"][0]["instances"][0];
    assert_eq!(report["serving"]["revision"], good, "{status}");
    assert_eq!(instance.metric("swapstream_model_memory_bytes"), used);
    // What is undeployed gives its memory back.
    model(&world, &["undeploy", "late-arrival", "--wait"]).ok();
    eventually("the memory is given back", PATIENCE, || {
        match instance.metric("swapstream_model_memory_bytes") {
            0.0 => Ok(()),
            bytes => Err(bytes.to_string()),
        }
    });
    instance.stop();
    Ok(())
}

/// Swaps for `SWAPSTREAM_TEST_SWAPS` times (150), with events in between; memory stays where it is
/// after the first 100.
fn memory_is_bounded(broker: &'static Broker) -> TestResult {
    let swaps =
        std::env::var("SWAPSTREAM_TEST_SWAPS").map_or(Ok(150), |text| text.parse::<u32>())?;
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let resident = || instance.metric("process_resident_memory_bytes");
    let mut tail = world.tail(&world.output());
    let mut after_100 = 0.0;
    let start = Instant::now();
    for swap in 1..=swaps {
        let revision = world.append_deploy(if swap % 2 == 1 { "2" } else { "1" }, None);
        instance.wait_serves(revision);
        // Workers take the new version with their next batch.
        if swap.is_multiple_of(10) {
            world.produce([(0, None, Some(events()[0].as_slice()))]);
            tail.until(swap as usize / 10, PATIENCE);
        }
        if swap == 100 {
            after_100 = resident();
        }
    }
    let (last, took) = (resident(), start.elapsed());
    eprintln!(
        "{swaps} swaps in {took:.0?}: {:.1} MB resident after 100, {:.1} MB after all",
        after_100 / 1e6,
        last / 1e6
    );
    let allowed = (after_100 * 0.05).max(20.0 * 1_048_576.0);
    assert!(last <= after_100 + allowed, "{after_100} → {last}");
    instance.stop();
    Ok(())
}
