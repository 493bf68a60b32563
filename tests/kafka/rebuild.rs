//! A new instance has nothing but the topics: it comes to the same as those before it, also after
//! the log cleaner went over them, and a publisher that is killed leaves a whole version or none.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;
use swapstream::kafka::{Admin, Publisher};
use swapstream::model::{Artifact, Digest, Manifest, ModelName, Version};
use swapstream::record::{Header, OutRecord};
use swapstream::registry::{
    Board, CHUNK_BYTES, KafkaLogs, LoadSafety, RegistryLoader, RegistrySettings, RegistryTopic,
    Watcher, WatcherParts, read_catalog, read_deployments, take_out,
};
use swapstream::serving::Serving;

use crate::onnx;
use crate::support::trials::{TestResult, on_own_broker, on_shared_broker};
use crate::support::{Broker, BrokerOptions, bin, eventually};
use crate::world::{PATIENCE, World, models};

pub fn trials() -> Vec<Trial> {
    vec![
        on_own_broker(
            "compaction_keeps_what_must_be_kept",
            || BrokerOptions {
                properties: vec![("log.cleaner.backoff.ms".to_owned(), "50".to_owned())],
                ..BrokerOptions::default()
            },
            compaction_keeps,
        ),
        on_shared_broker("a_thousand_deployments_replay_in_a_second", replay),
        on_shared_broker("a_killed_publisher_leaves_all_or_nothing", killed_publisher),
    ]
}

const MODELS: usize = 50;
const VERSIONS: usize = 20;

fn settings(world: &World) -> RegistrySettings {
    RegistrySettings {
        versions_topic: world.registry_topic("versions"),
        artifacts_topic: world.registry_topic("artifacts"),
        deployments_topic: world.registry_topic("deployments"),
        status_topic: world.registry_topic("status"),
        ..RegistrySettings::default()
    }
}

fn name(model: usize) -> ModelName {
    ModelName::new(&format!("model-{model}")).unwrap()
}

/// What serves each model.
type State = BTreeMap<String, (String, i64, String)>;

/// What an instance with no disk and no past comes to, and how long that takes.
fn rebuild(world: &World) -> (State, Duration, Duration) {
    let settings = settings(world);
    let logs = Arc::new(KafkaLogs::new(world.kafka.clone(), settings.clone()));
    let (serving, board) = (Arc::new(Serving::new()), Arc::new(Board::new()));
    let names: BTreeSet<ModelName> = (0..MODELS).map(name).collect();
    let start = Instant::now();
    let loader = RegistryLoader::new(
        Arc::<KafkaLogs>::clone(&logs),
        &settings,
        LoadSafety::default(),
    );
    let watcher = Watcher::start(WatcherParts {
        logs,
        loader: Arc::new(loader),
        serving: Arc::clone(&serving),
        board: Arc::clone(&board),
        models: names.clone(),
        trust: settings.trust,
        observer: Arc::new(|_| {}),
    })
    .unwrap();
    let deadline = Instant::now() + PATIENCE * 3;
    let mut seen = board.generation();
    while !board.view().caught_up {
        assert!(Instant::now() < deadline, "{:?}", board.view().problem);
        seen = board.wait_for_change(seen, PATIENCE);
    }
    let read = start.elapsed();
    let state = |serving: &Serving| -> State {
        let snapshot = serving.load();
        let all = names.iter().filter_map(|n| Some((n, snapshot.serving(n)?)));
        all.map(|(n, s)| {
            let tags = (s.version.to_string(), s.revision, s.digest.to_string());
            (n.to_string(), tags)
        })
        .collect()
    };
    let settled = |serving: &Serving| {
        let snapshot = serving.load();
        names.iter().all(|n| snapshot.serving(n).is_some())
            && board.view().models.values().all(|m| m.working_on.is_none())
    };
    while !settled(&serving) {
        assert!(Instant::now() < deadline, "{:?}", board.view());
        seen = board.wait_for_change(seen, Duration::from_millis(100));
    }
    let took = start.elapsed();
    assert!(watcher.stop(PATIENCE));
    (state(&serving), read, took)
}

/// Gives the records' offsets.
fn send(world: &World, records: Vec<OutRecord>) -> Vec<i64> {
    let mut publisher = Publisher::idempotent(&world.kafka).unwrap();
    publisher
        .send_all(records.into_iter(), &mut |_| {})
        .unwrap()
}

fn record(topic: &str, key: String, value: Option<Vec<u8>>, headers: Vec<Header>) -> OutRecord {
    OutRecord {
        topic: topic.to_owned(),
        partition: Some(0),
        key: Some(key.into_bytes()),
        value,
        headers,
        timestamp: None,
    }
}

/// Versions of 50 models; every 7th is deleted again, and for each an upload was given up and
/// collected.
fn fill(world: &World) {
    let onnx = std::fs::read(models().join("v1.onnx")).unwrap();
    world.publish("v1", "1").ok();
    let shown = world
        .run(&["model", "show", "late-arrival", "1", "--raw"])
        .ok();
    let template: Manifest = serde_json::from_str(&shown.stdout).unwrap();
    let versions = world.registry_topic("versions");
    let artifacts = world.registry_topic("artifacts");
    let all = || (0..MODELS).flat_map(|model| (0..VERSIONS).map(move |version| (model, version)));
    let bytes = |model: usize, version: usize| {
        // Each its own digest: the producer's name once more, which protobuf lets stand.
        let mut bytes = onnx.clone();
        let producer = format!("{model}-{version}");
        bytes.extend([0x12, producer.len() as u8]);
        bytes.extend(producer.as_bytes());
        bytes
    };
    let chunk = |upload: String, value: Option<Vec<u8>>| {
        record(&artifacts, format!("{upload}/0"), value, Vec::new())
    };
    let upload = |model: usize, version: usize| format!("upload-{model}-{version}");
    let offsets = send(
        world,
        all()
            .map(|(m, v)| chunk(upload(m, v), Some(bytes(m, v))))
            .collect(),
    );
    let given_up = |value: Option<Vec<u8>>| {
        let uploads = all().map(|(m, v)| format!("given-up-{m}-{v}"));
        uploads.map(|upload| chunk(upload, value.clone())).collect()
    };
    send(world, given_up(Some(vec![7; 5_000])));
    send(world, given_up(None));
    let manifests = all().zip(offsets).map(|((model, version), offset)| {
        let bytes = bytes(model, version);
        let manifest = Manifest {
            model: name(model),
            version: Version::new(&version.to_string()).unwrap(),
            artifact: Artifact {
                digest: Digest::of(&bytes),
                bytes: bytes.len() as u64,
                uri: None,
            },
            ..template.clone()
        };
        let header = json!({
            "schema": "swapstream.artifact-chunks/v1", "upload": upload(model, version),
            "count": 1, "chunk_bytes": CHUNK_BYTES, "first_offset": offset, "last_offset": offset,
        });
        let headers = vec![Header::text("artifact-chunks", header)];
        let key = format!("{}/{version}", name(model));
        record(&versions, key, Some(manifest.to_json().unwrap()), headers)
    });
    send(world, manifests.collect());
    for (model, version) in all().filter(|(m, v)| (m * VERSIONS + v) % 7 == 3) {
        let gone = json!({"schema": "swapstream.deletion/v1", "deleted": true}).to_string();
        let key = format!("{}/{version}", name(model));
        world.append(&versions, &key, Some(gone.into()), Vec::new());
        let key = format!("{}/0", upload(model, version));
        world.append(&artifacts, &key, None, Vec::new());
    }
    let deployments = world.registry_topic("deployments");
    let events = (0..VERSIONS * MODELS).map(|nth| {
        let model = name(nth % MODELS);
        let event = json!({
            "schema": "swapstream.deployment/v1", "action": "deploy", "model": model,
            "version": (nth / MODELS).to_string(),
        });
        record(
            &deployments,
            model.to_string(),
            Some(event.to_string().into()),
            Vec::new(),
        )
    });
    send(world, events.collect());
}

/// Records that are still there.
fn count(world: &World, kind: &str) -> usize {
    world
        .tail_of(&world.registry_topic(kind), 1)
        .read_to_end()
        .len()
}

fn compaction_keeps(broker: &Broker) -> TestResult {
    let world = World::new(broker, 1);
    // As publish creates them, but for the sizes and times at which the cleaner comes.
    let admin = Admin::new(&world.kafka)?;
    for topic in [RegistryTopic::Versions, RegistryTopic::Artifacts] {
        let mut config: BTreeMap<&str, &str> = topic.config().iter().copied().collect();
        config.extend([
            ("segment.bytes", "1048576"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("delete.retention.ms", "0"),
        ]);
        let config: Vec<(&str, &str)> = config.into_iter().collect();
        let settings = settings(&world);
        admin.create_topic(topic.name(&settings), 1, &config, PATIENCE)?;
    }
    fill(&world);
    let (before, _, _) = rebuild(&world);
    let (versions, artifacts) = (count(&world, "versions"), count(&world, "artifacts"));
    // The cleaner leaves the segment that is written to alone: new ones make it old.
    let filler = |nth: usize| {
        let topic = world.registry_topic(if nth.is_multiple_of(2) {
            "versions"
        } else {
            "artifacts"
        });
        record(
            &topic,
            "filler".to_owned(),
            Some(vec![b'x'; 700_000]),
            Vec::new(),
        )
    };
    let written = MODELS * VERSIONS;
    let deleted = (0..written).filter(|n| n % 7 == 3).count();
    eventually("the log is compacted", PATIENCE * 3, || {
        send(&world, (0..4).map(filler).collect());
        let left = (count(&world, "versions"), count(&world, "artifacts"));
        // Deletion records stay, tombstoned chunks go.
        let most = (written + 40, written - deleted + 40);
        if left.0 <= most.0 && left.1 <= most.1 {
            Ok(())
        } else {
            Err(format!(
                "{left:?} records are left, of {versions} and {artifacts}"
            ))
        }
    });
    let left = (count(&world, "versions"), count(&world, "artifacts"));
    let (after, read, took) = rebuild(&world);
    eprintln!(
        "{MODELS} models × {VERSIONS} versions; records {versions} → {} and {artifacts} → {}; a new \
         instance read the topics in {read:.1?} and served all models after {took:.1?}",
        left.0, left.1
    );
    assert_eq!(after.len(), MODELS);
    assert_eq!(after, before);
    // What was deleted is known to be, and nothing else.
    let logs = KafkaLogs::new(world.kafka.clone(), settings(&world));
    let catalog = read_catalog(&logs)?;
    let all = (0..MODELS).filter_map(|m| catalog.versions(&name(m)).len().checked_sub(VERSIONS));
    assert!(all.eq(std::iter::repeat_n(0, MODELS)));
    Ok(())
}

fn replay(broker: &'static Broker) -> TestResult {
    const EVENTS: i64 = 1_000;
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let topic = world.registry_topic("deployments");
    let events = (0..EVENTS).map(|nth| {
        let event = json!({
            "schema": "swapstream.deployment/v1", "model": "late-arrival", "version": "1",
            "action": if nth % 3 == 2 { "rollback" } else { "deploy" }, "if_revision": nth - 1,
            "by": "ann", "reason": "one of a thousand",
        });
        record(
            &topic,
            "late-arrival".to_owned(),
            Some(event.to_string().into()),
            Vec::new(),
        )
    });
    send(&world, events.collect());
    let logs = KafkaLogs::new(world.kafka.clone(), settings(&world));
    let start = Instant::now();
    let log = read_deployments(&logs)?;
    let took = start.elapsed();
    let known = log.model(&ModelName::new("late-arrival").unwrap()).unwrap();
    assert_eq!(known.last_effective(), EVENTS - 1);
    assert_eq!(known.candidates().count() as i64, EVENTS);
    eprintln!("{EVENTS} deployment events replayed in {took:.0?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let instance = world.start_ready("a");
    instance.wait_serves(EVENTS - 1);
    let line = instance
        .process
        .wait_for_line("are read to their end", PATIENCE);
    eprintln!("{line}");
    instance.stop();
    Ok(())
}

/// Kills a publisher after ever longer times; the version is whole or not there.
fn killed_publisher(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let bytes = onnx::dense(1, 1400);
    let file = world.path("dense.onnx");
    std::fs::write(&file, &bytes)?;
    let digest = Digest::of(&bytes);
    let logs = KafkaLogs::new(world.kafka.clone(), settings(&world));
    let model = ModelName::new("late-arrival").unwrap();
    let whole = |version: &str| {
        let catalog = read_catalog(&logs).unwrap();
        let entry = catalog
            .get(&model, &Version::new(version).unwrap())
            .cloned();
        entry.map(|entry| {
            let bundle = take_out(&logs, &entry, 1 << 30, &|_| true).unwrap();
            assert_eq!(bundle.manifest().artifact.digest, digest, "{version}");
        })
    };
    let publish = |version: &str| {
        let config = world.config("cli");
        let mut command = Command::new(bin());
        command
            .arg("-c")
            .arg(config)
            .args(["model", "publish", "--no-check"]);
        command
            .args(["--model", "late-arrival", "--version", version])
            .arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let start = Instant::now();
    assert!(publish("timed").wait()?.success());
    let usual = start.elapsed();
    let (mut none, mut complete) = (0, 0);
    // 24 moments, and later ones until one was late enough: no publication takes exactly as long
    // as another.
    for step in 1..=100_u32 {
        if step > 24 && complete > 0 {
            break;
        }
        let version = format!("killed-{step}");
        let mut child = publish(&version);
        // The moment itself is what is tried: all over the time that a publication takes.
        std::thread::sleep(usual * step / 20);
        // It may have ended this very moment.
        child.kill().ok();
        child.wait()?;
        match whole(&version) {
            Some(()) => complete += 1,
            None => none += 1,
        }
        // And it can be run again, to the same end.
        if step % 8 == 0 {
            assert!(publish(&version).wait()?.success());
            assert!(whole(&version).is_some());
        }
    }
    eprintln!(
        "killed all over {usual:.0?} and later: {none} times nothing was there, {complete} times all"
    );
    assert!(none > 0 && complete > 0, "both ends were tried");
    Ok(())
}
