//! Versions that must not serve: each is refused with its own reason, what served before serves
//! on, and the next good deployment works.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use swapstream::record::Header;

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{PATIENCE, Tail, World, events, models, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("refused_versions_never_serve", refused_versions_never_serve),
        on_shared_broker(
            "a_first_start_falls_back_to_what_passes",
            a_first_start_falls_back,
        ),
    ]
}

/// A version that must be refused.
struct Bad {
    version: &'static str,
    /// Puts it into the registry.
    prepare: fn(&World, &str),
    /// Deploys it past the command line, which would not; gives the revision.
    deploy: Option<fn(&World, &str) -> i64>,
    stage: &'static str,
    reason: &'static str,
}

/// The file, the contract and the checks of one flights model.
fn model_file(flights: &str) -> Vec<u8> {
    std::fs::read(models().join(format!("{flights}.onnx"))).unwrap()
}

/// Publishes bytes under the manifest of a flights model, past the command's own check.
fn publish_unchecked(world: &World, version: &str, bytes: &[u8], manifest: &str, more: &[&str]) {
    let file = world.path(&format!("{version}.onnx"));
    std::fs::write(&file, bytes).unwrap();
    let manifest = models().join(format!("{manifest}.toml"));
    let mut args = vec!["--no-check", "--manifest", manifest.to_str().unwrap()];
    args.extend(more);
    world
        .publish_file(file.to_str().unwrap(), &args, "late-arrival", version)
        .ok();
}

/// Writes the manifest of version 1 as `version`, with chunks as given: what an altered or damaged
/// registry looks like.
fn forge(world: &World, version: &str, chunks: &[&[u8]], count: usize) {
    let manifest = world
        .run(&["model", "show", "late-arrival", "1", "--raw"])
        .ok()
        .stdout;
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["version"] = version.into();
    let upload = format!("forged-{version}");
    let mut offsets = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let key = format!("{upload}/{index}");
        let topic = world.registry_topic("artifacts");
        offsets.push(world.append(&topic, &key, Some(chunk.to_vec()), Vec::new()));
    }
    let header = json!({
        "schema": "swapstream.artifact-chunks/v1", "upload": upload, "count": count,
        "chunk_bytes": 921_600, "first_offset": offsets.first(), "last_offset": offsets.last(),
    });
    world.append(
        &world.registry_topic("versions"),
        &format!("late-arrival/{version}"),
        Some(manifest.to_string().into_bytes()),
        vec![Header::text("artifact-chunks", header)],
    );
}

const BAD: &[Bad] = &[
    Bad {
        version: "flipped-byte",
        prepare: |world, version| {
            let mut bytes = model_file("v1");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            forge(world, version, &[&bytes], 1);
        },
        deploy: None,
        stage: "verified",
        reason: "the artifact has digest sha256:",
    },
    Bad {
        version: "cut-chunk",
        prepare: |world, version| {
            let bytes = model_file("v1");
            forge(world, version, &[&bytes[..bytes.len() - 100]], 1);
        },
        deploy: None,
        stage: "fetched",
        reason: "chunk 0 has ",
    },
    Bad {
        version: "cut-file",
        prepare: |world, version| {
            let bytes = model_file("v1");
            publish_unchecked(world, version, &bytes[..bytes.len() / 2], "v1", &[]);
        },
        deploy: None,
        stage: "compiled",
        reason: "ONNX",
    },
    Bad {
        version: "no-onnx",
        prepare: |world, version| {
            publish_unchecked(world, version, b"PK\x03\x04 a zip, not a model", "v1", &[]);
        },
        deploy: None,
        stage: "compiled",
        reason: "ONNX",
    },
    Bad {
        version: "wrong-shape",
        // 15 features for an input of 6.
        prepare: |world, version| {
            publish_unchecked(world, version, &model_file("v1"), "v2", &[]);
        },
        deploy: None,
        stage: "compiled",
        reason: "features",
    },
    Bad {
        version: "wrong-answer",
        prepare: |world, version| {
            let row = json!({
                "input": serde_json::from_slice::<Value>(&events()[0]).unwrap(),
                "outputs": {"late_probability": 0.999},
            });
            let golden = world.path("golden.jsonl");
            std::fs::write(&golden, format!("{row}\n")).unwrap();
            let golden = golden.to_str().unwrap();
            let more = ["--golden", golden];
            publish_unchecked(world, version, &model_file("v1"), "v1", &more);
        },
        deploy: None,
        stage: "checked",
        reason: "golden row",
    },
    Bad {
        version: "missing-chunk",
        prepare: |world, version| forge(world, version, &[], 1),
        deploy: None,
        stage: "fetched",
        reason: "1 of 1 chunks are missing",
    },
    Bad {
        version: "tombstoned-chunk",
        prepare: |world, version| {
            forge(world, version, &[&[]], 1);
            let topic = world.registry_topic("artifacts");
            world.append(&topic, &format!("forged-{version}/0"), None, Vec::new());
        },
        deploy: None,
        stage: "fetched",
        reason: "chunk",
    },
    Bad {
        version: "no-header",
        prepare: |world, version| {
            let shown = world
                .run(&["model", "show", "late-arrival", "1", "--raw"])
                .ok();
            let mut manifest: Value = serde_json::from_str(&shown.stdout).unwrap();
            manifest["version"] = version.into();
            world.append(
                &world.registry_topic("versions"),
                &format!("late-arrival/{version}"),
                Some(manifest.to_string().into_bytes()),
                Vec::new(),
            );
        },
        deploy: None,
        stage: "fetched",
        reason: "artifact-chunks",
    },
    Bad {
        version: "no-manifest",
        prepare: |_, _| {},
        deploy: Some(|world, version| world.append_deploy(version, None)),
        stage: "announced",
        reason: "there is no version no-manifest",
    },
    Bad {
        version: "2",
        prepare: |_, _| {},
        deploy: Some(|world, version| {
            let digest = format!("sha256:{}", "0".repeat(64));
            world.append_deploy(version, Some(&digest))
        }),
        stage: "announced",
        reason: "the deployment names digest sha256:0000",
    },
];

/// The refusal that instance `a` reports of `version`, as `model status` tells it.
fn refusal(world: &World, version: &str, revision: i64) -> Value {
    eventually("the refusal is in the status", PATIENCE, || {
        let status = world.status();
        let report = &status["models"][0]["instances"][0];
        let refused = &report["refused"];
        if refused["version"] == version && refused["revision"] == revision {
            Ok(status["models"][0].clone())
        } else {
            Err(status.to_string())
        }
    })
}

/// Sends one event and says which version and revision answered it.
fn ask(world: &World, tail: &mut Tail) -> (String, i64) {
    let count = tail.records.len() + 1;
    world.produce([(0, None, Some(events()[0].as_slice()))]);
    tail.until(count, PATIENCE);
    let last = predictions(&tail.records[count - 1..]).remove(0);
    (last.version, last.revision)
}

fn refused_versions_never_serve(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    let mut served = ("1", world.deploy("1"));
    let instance = world.start_ready("a");
    let mut tail = world.tail(&world.output());
    for bad in BAD {
        let version = bad.version;
        (bad.prepare)(&world, version);
        let revision = if let Some(deploy) = bad.deploy {
            deploy(&world, version)
        } else {
            deploy_and_wait(&world, bad)
        };
        let model = refusal(&world, version, revision);
        let report = &model["instances"][0];
        let refused = &report["refused"];
        assert_eq!(refused["stage"], bad.stage, "{version}: {model}");
        let reason = refused["reason"].as_str().unwrap();
        assert!(reason.contains(bad.reason), "{version}: {reason}");
        assert_eq!(report["desired"]["version"], version, "{model}");
        assert_eq!(report["serving"]["version"], served.0, "{model}");
        assert_eq!(model["converged"], false, "{model}");
        let answer = ask(&world, &mut tail);
        assert_eq!(answer, (served.0.to_owned(), served.1), "after {version}");
        assert!(instance.ready().is_ok(), "what serves makes it ready");
        // The next good one works.
        let good = if served.0 == "1" { "2" } else { "1" };
        served = (good, world.append_deploy(good, None));
        instance.wait_serves(served.1);
        let answer = ask(&world, &mut tail);
        assert_eq!(answer, (served.0.to_owned(), served.1), "after {version}");
    }
    let args = [
        "model",
        "deploy",
        "late-arrival",
        "1",
        "--wait",
        "--output",
        "json",
    ];
    let done = world.run(&args).ok();
    assert_eq!(done.json()["converged"], true, "{}", done.stdout);
    assert!(world.all(&world.dead_letters()).is_empty());
    let refused =
        instance.metric(r#"swapstream_model_swaps_total{model="late-arrival",outcome="refused"}"#);
    assert_eq!(refused, BAD.len() as f64);
    instance.stop();
    Ok(())
}

/// `model deploy --wait` tells the refusal and exits 1.
fn deploy_and_wait(world: &World, bad: &Bad) -> i64 {
    let version = bad.version;
    let args = [
        "model",
        "deploy",
        "late-arrival",
        version,
        "--wait",
        "--output",
        "json",
    ];
    let done = world.run(&args);
    assert_eq!(done.code, 1, "{version}: {done:?}");
    let json = done.json();
    assert_eq!(json["effective"], true);
    assert_eq!(json["converged"], false);
    assert_eq!(json["instances"][0]["state"], "refused", "{json}");
    let reason = json["instances"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(bad.reason), "{version}: {reason}");
    let said = &done.stderr;
    assert!(said.contains("instance a: refused"), "{version}: {said}");
    json["revision"].as_i64().unwrap()
}

/// Old and new instances agree: a first start serves the newest deployment that passes.
fn a_first_start_falls_back(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let good = world.deploy("1");
    publish_unchecked(&world, "bad", b"no model", "v1", &[]);
    world.deploy("bad");
    world.append_deploy("never-published", None);
    let instance = world.start_ready("a");
    let mut tail = world.tail(&world.output());
    assert_eq!(ask(&world, &mut tail), ("1".to_owned(), good));
    instance.stop();
    Ok(())
}
