//! Publishing and deploying through the command line: what is immutable stays so, whoever comes
//! at the same time, and what is printed can be read by programs.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use swapstream::kafka::Admin;
use swapstream::model::{Digest, Manifest};
use swapstream::registry::{DeploymentEvent, Heartbeat, LoadingNote, RegistryTopic, StatusEntry};

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, Process, bin, eventually};
use crate::world::{Done, PATIENCE, World, models};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("a_60_mb_artifact_round_trips", a_60_mb_artifact_round_trips),
        on_shared_broker("versions_are_immutable", versions_are_immutable),
        on_shared_broker("of_two_publishers_one_wins", of_two_publishers_one_wins),
        on_shared_broker(
            "what_an_open_transaction_hides_is_not_written_over",
            what_an_open_transaction_hides,
        ),
        on_shared_broker("registry_topics_are_exact", registry_topics_are_exact),
        on_shared_broker("deployments_are_checked", deployments_are_checked),
        on_shared_broker("outputs_can_be_read_by_programs", outputs_can_be_read),
    ]
}

const SIXTY_MB: usize = 60_000_000;

/// Bytes that nothing compresses (xorshift).
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

fn a_60_mb_artifact_round_trips(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let good = world.deploy("1");
    let instance = world.start_ready("a");
    let bytes = random_bytes(SIXTY_MB);
    let file = world.path("big.onnx");
    std::fs::write(&file, &bytes)?;
    let start = Instant::now();
    let done = world
        .publish_file(
            file.to_str().unwrap(),
            &["--no-check"],
            "late-arrival",
            "big",
        )
        .ok();
    eprintln!("publishing 60 MB took {:.1?}", start.elapsed());
    let digest = Digest::of(&bytes).to_string();
    let json = done.json();
    assert_eq!(json["digest"], digest);
    assert_eq!(json["bytes"], SIXTY_MB);
    assert_eq!(json["outcome"], "published");
    let chunks = SIXTY_MB.div_ceil(900 * 1024);
    assert_eq!(json["chunks"], chunks);
    // It comes back whole: its digest is verified, and only then is it found to be no model.
    let start = Instant::now();
    let revision = world.deploy("big");
    let refused = eventually("the refusal", PATIENCE, || {
        let status = world.status();
        let report = &status["models"][0]["instances"][0];
        match report["refused"]["revision"].as_i64() {
            Some(found) if found == revision => Ok(report.clone()),
            _ => Err(status.to_string()),
        }
    });
    eprintln!("deploying and refusing it took {:.1?}", start.elapsed());
    assert_eq!(refused["refused"]["stage"], "compiled", "{refused}");
    assert_eq!(refused["serving"]["revision"], good);
    instance.stop();
    Ok(())
}

fn versions_are_immutable(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let first = world.publish("v1", "1").ok().json();
    assert_eq!(first["outcome"], "published");
    let again = world.publish("v1", "1").ok().json();
    assert_eq!(again["outcome"], "unchanged");
    assert_eq!(
        (&again["digest"], &again["offset"]),
        (&first["digest"], &first["offset"])
    );
    let other = world.publish("v2", "1");
    assert_eq!((other.code, &*other.stdout), (1, ""));
    let digest = first["digest"].as_str().unwrap();
    for part in ["exists with digest", digest, "immutable"] {
        assert!(other.stderr.contains(part), "{}", other.stderr);
    }
    // Nothing was written by either.
    let versions = world
        .tail_of(&world.registry_topic("versions"), 1)
        .read_to_end();
    assert_eq!(versions.len(), 1);
    Ok(())
}

fn publish_command(world: &World, flights: &str, version: &str) -> Command {
    let config = world.config("cli");
    let file = |kind: &str| models().join(format!("{flights}.{kind}"));
    let mut command = Command::new(bin());
    command
        .arg("-c")
        .arg(config)
        .args([
            "model",
            "publish",
            "--output",
            "json",
            "--model",
            "late-arrival",
        ])
        .args(["--version", version, "--manifest"])
        .args([file("toml"), file("onnx")]);
    command
}

fn spawn_publish(world: &World, flights: &str, version: &str) -> Child {
    publish_command(world, flights, version)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) -> Done {
    let out = child.wait_with_output().unwrap();
    Done {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8(out.stdout).unwrap(),
        stderr: String::from_utf8(out.stderr).unwrap(),
    }
}

fn of_two_publishers_one_wins(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "first").ok();
    for round in 0..4 {
        let version = format!("race-{round}");
        let rivals = [
            spawn_publish(&world, "v1", &version),
            spawn_publish(&world, "v2", &version),
        ];
        let (won, lost): (Vec<Done>, Vec<Done>) = rivals
            .into_iter()
            .map(finish)
            .partition(|done| done.code == 0);
        assert_eq!((won.len(), lost.len()), (1, 1), "{won:?} {lost:?}");
        let winner = won[0].json();
        assert_eq!(winner["outcome"], "published");
        let digest = winner["digest"].as_str().unwrap();
        let said = &lost[0].stderr;
        assert!(
            said.contains("exists with digest") && said.contains(digest),
            "{said}"
        );
        assert_eq!(lost[0].code, 1);
        let shown = world.run(&[
            "model",
            "show",
            "late-arrival",
            &version,
            "--output",
            "json",
        ]);
        assert_eq!(shown.ok().json()["manifest"]["artifact"]["digest"], digest);
    }
    // Rivals with the same bytes are no rivals.
    let both = [
        spawn_publish(&world, "v1", "same"),
        spawn_publish(&world, "v1", "same"),
    ];
    for done in both.map(finish) {
        let outcome = done.ok().json()["outcome"].clone();
        assert!(
            outcome == "published" || outcome == "unchanged",
            "{outcome}"
        );
    }
    Ok(())
}

/// A publisher that is killed between its record and the commit leaves a transaction open: nobody
/// sees what is committed after it, so that who looks for a version finds none.
fn what_an_open_transaction_hides(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let killed = world.open_transaction(&world.registry_topic("versions"));
    let waits = "an open transaction of another producer holds readers";
    let wait = |command: &mut Command| {
        let process = Process::spawn(command);
        process.wait_for_line(waits, PATIENCE);
        process
    };
    let mut collect = Command::new(bin());
    collect.arg("-c").arg(world.config("cli"));
    let mut waiting = [
        wait(collect.args(["model", "gc", "--older-than", "0s", "--dry-run"])),
        wait(&mut publish_command(&world, "v1", "2")),
        wait(&mut publish_command(&world, "v2", "2")),
    ];
    assert!(waiting.iter_mut().all(Process::is_running));
    killed.abort()?;
    let codes = waiting
        .each_mut()
        .map(|process| process.wait_exit(PATIENCE).code());
    assert_eq!(codes[0], Some(0), "{:?}", waiting[0].stderr_lines());
    let won = codes[1..].iter().filter(|code| **code == Some(0)).count();
    assert_eq!(won, 1, "{codes:?} {waiting:?}");
    // Who won is seen at once.
    let shown = world.run(&["model", "show", "late-arrival", "2", "--output", "json"]);
    let digest = shown.ok().json()["manifest"]["artifact"]["digest"].clone();
    let winner = codes.iter().skip(1).position(|code| *code == Some(0));
    let file = models().join(["v1.onnx", "v2.onnx"][winner.unwrap()]);
    assert_eq!(digest, Digest::of(&std::fs::read(file)?).to_string());
    Ok(())
}

fn registry_topics_are_exact(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let published = world.publish("v1", "1").ok();
    let admin = Admin::new(&world.kafka)?;
    for (topic, kind) in
        RegistryTopic::ALL
            .into_iter()
            .zip(["versions", "artifacts", "deployments", "status"])
    {
        let name = world.registry_topic(kind);
        assert!(published.stderr.contains(&name), "{}", published.stderr);
        let info = admin.topic(&name, PATIENCE)?.unwrap();
        assert_eq!(info.partitions, 1, "{name}");
        for (setting, value) in topic.config() {
            let found = info.config.get(*setting).map(String::as_str);
            assert_eq!(found, Some(*value), "{name} {setting}");
        }
        assert_eq!(topic.check(&name, &info), []);
    }
    let again = world.publish("v2", "2").ok();
    assert!(!again.stderr.contains("created topics"), "{}", again.stderr);
    Ok(())
}

fn deployments_are_checked(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    let deploy = |more: &[&str]| {
        let mut args = vec!["model", "deploy", "late-arrival"];
        args.extend(more);
        args.extend(["--output", "json"]);
        world.run(&args)
    };
    let unknown = deploy(&["7"]);
    assert_eq!((unknown.code, &*unknown.stdout), (1, ""));
    for part in ["version 7", "late-arrival", "it has 1, 2"] {
        assert!(unknown.stderr.contains(part), "{}", unknown.stderr);
    }
    let log = world.registry_topic("deployments");
    assert!(
        world.tail_of(&log, 1).read_to_end().is_empty(),
        "nothing was appended"
    );
    let first = deploy(&[
        "1",
        "--if-revision",
        "-1",
        "--by",
        "ann",
        "--reason",
        "first",
    ])
    .ok();
    let first = first.json()["revision"].as_i64().unwrap();
    let base = first.to_string();
    let second = deploy(&["2", "--if-revision", &base, "--by", "bob"]).ok();
    assert_eq!(second.json()["effective"], true);
    let second = second.json()["revision"].as_i64().unwrap();
    // Carl decided by what was there before Bob.
    let stale = deploy(&["1", "--if-revision", &base, "--by", "carl"]);
    assert_eq!(stale.code, 1, "{stale:?}");
    let json = stale.json();
    assert_eq!(json["effective"], false);
    assert_eq!(json["winner"]["revision"], second);
    assert_eq!(json["winner"]["event"]["by"], "bob");
    let text = world.run(&[
        "model",
        "deploy",
        "late-arrival",
        "1",
        "--if-revision",
        &base,
        "--by",
        "carl",
    ]);
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("version 2 by bob"), "{text:?}");
    let listed = world
        .run(&["model", "list", "--output", "json"])
        .ok()
        .json();
    assert_eq!(listed["models"][0]["deployed"]["revision"], second);
    // Nobody has a stream for it: waiting ends with that reason.
    let alone = deploy(&["1", "--wait", "--timeout", "1s"]);
    assert_eq!(alone.code, 1);
    assert!(
        alone.stderr.contains("no live instance"),
        "{}",
        alone.stderr
    );
    let usage = world.run(&["model", "deploy", "late-arrival"]);
    assert_eq!(usage.code, 2);
    Ok(())
}

fn outputs_can_be_read(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let published = world.publish("v1", "1").ok().json();
    assert_eq!(published["schema"], "swapstream.model-published/v1");
    let args = ["model", "deploy", "late-arrival", "1", "--output", "json"];
    let deployed = world.run(&args).ok().json();
    assert_eq!(deployed["schema"], "swapstream.model-deployment/v1");
    let instance = world.start_ready("a");
    let json = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        world.run(&all).ok().json()
    };
    let listed = json(&["model", "list"]);
    assert_eq!(listed["schema"], "swapstream.model-list/v1");
    assert_eq!(
        listed["models"][0]["versions"][0]["digest"],
        published["digest"]
    );
    let shown = json(&["model", "show", "late-arrival", "1"]);
    assert_eq!(shown["schema"], "swapstream.model-version/v1");
    assert_eq!(shown["deployed"], deployed["revision"]);
    let status = eventually("the status converges", PATIENCE, || {
        let status = json(&["model", "status"]);
        (status["models"][0]["converged"] == true)
            .then(|| status.clone())
            .ok_or(status.to_string())
    });
    assert_eq!(status["schema"], "swapstream.model-status/v1");
    assert_eq!(status["instances"][0]["live"], true);
    // The exact bytes, and what they say.
    let records = |kind: &str| world.tail_of(&world.registry_topic(kind), 1).read_to_end();
    let raw = world
        .run(&["model", "show", "late-arrival", "1", "--raw"])
        .ok();
    let stored = records("versions").remove(0).value.unwrap();
    assert_eq!(raw.stdout.as_bytes(), stored);
    let manifest: Manifest = serde_json::from_slice(&stored)?;
    assert_eq!(
        manifest.artifact.digest.to_string(),
        published["digest"].as_str().unwrap()
    );
    let event = records("deployments").remove(0);
    assert_eq!(event.key.as_deref(), Some(&b"late-arrival"[..]));
    let event: DeploymentEvent = serde_json::from_slice(&event.value.unwrap())?;
    assert_eq!(
        serde_json::to_value(&event)?["schema"],
        "swapstream.deployment/v1"
    );
    for record in records("status") {
        // The note of a load is taken back by a tombstone.
        let Some(value) = record.value else {
            assert_eq!(record.key.as_deref(), Some(&b"a/late-arrival/loading"[..]));
            continue;
        };
        let json: Value = serde_json::from_slice(&value)?;
        match record.key.as_deref() {
            Some(b"instance/a") => {
                serde_json::from_slice::<Heartbeat>(&value)?;
                assert_eq!(json["schema"], "swapstream.instance/v1");
            }
            Some(b"a/late-arrival") => {
                serde_json::from_slice::<StatusEntry>(&value)?;
                assert_eq!(json["schema"], "swapstream.status/v1");
            }
            Some(b"a/late-arrival/loading") => {
                serde_json::from_slice::<LoadingNote>(&value)?;
                assert_eq!(json["schema"], "swapstream.loading/v1");
            }
            other => panic!("{other:?}"),
        }
    }
    instance.stop();
    // A clean stop leaves nothing behind.
    let last = records("status");
    for key in ["instance/a", "a/late-arrival"] {
        let newest = last
            .iter()
            .rfind(|r| r.key.as_deref() == Some(key.as_bytes()));
        assert!(
            newest.is_some_and(|r| r.value.is_none()),
            "{key} has its tombstone"
        );
    }
    let wait = Duration::from_secs(30);
    let gone = eventually("nobody is live", wait, || {
        let status = json(&["model", "status", "late-arrival"]);
        match status["models"][0]["instances"].as_array() {
            Some(all) if all.is_empty() => Ok(status["models"][0]["converged"].clone()),
            _ => Err(status.to_string()),
        }
    });
    assert_eq!(gone, false);
    Ok(())
}
