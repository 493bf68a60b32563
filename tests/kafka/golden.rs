//! Golden rows in a file beside the artifact: named by digest, fetched, verified and checked at each
//! load, and moved and deleted with their version.

use std::io::Write as _;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use swapstream::model::Digest;
use swapstream::record::Header;

use crate::registry::{live_keys, model, refusal};
use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, bin};
use crate::world::{Done, World, events, models};

pub fn trials() -> Vec<Trial> {
    vec![on_shared_broker(
        "a_large_golden_file_is_kept_beside_the_artifact",
        a_large_golden_file,
    )]
}

const ROWS: usize = 600;

/// What version 1 of the flights model answers, as golden rows.
fn golden_rows() -> Vec<Value> {
    let events: Vec<Value> = events()[..ROWS]
        .iter()
        .map(|event| serde_json::from_slice(event).unwrap())
        .collect();
    let mut child = Command::new(bin())
        .args(["score", "--model"])
        .arg(models().join("v1.onnx"))
        .arg("--manifest")
        .arg(models().join("v1.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = lines(&events);
    let feed = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let out = child.wait_with_output().unwrap();
    feed.join().unwrap();
    let predictions = String::from_utf8(out.stdout).unwrap();
    let outputs = predictions.lines().map(|line| {
        let prediction: Value = serde_json::from_str(line).unwrap();
        prediction["outputs"].clone()
    });
    let rows: Vec<Value> = events
        .into_iter()
        .zip(outputs)
        .map(|(input, outputs)| json!({"input": input, "outputs": outputs}))
        .collect();
    assert_eq!(rows.len(), ROWS);
    rows
}

fn lines(rows: &[Value]) -> String {
    rows.iter()
        .fold(String::new(), |text, row| text + &row.to_string() + "\n")
}

fn publish(world: &World, version: &str, golden: &str, more: &[&str]) -> Done {
    let manifest = std::fs::read_to_string(models().join("v1.toml")).unwrap();
    let manifest = manifest.replace("golden_file = \"golden-v1.jsonl\"", "");
    let [toml, rows] = ["toml", "jsonl"].map(|kind| world.path(&format!("{version}.{kind}")));
    std::fs::write(&toml, manifest).unwrap();
    std::fs::write(&rows, golden).unwrap();
    let mut args = vec!["--manifest", toml.to_str().unwrap()];
    args.extend(["--golden", rows.to_str().unwrap()]);
    args.extend(more);
    let file = models().join("v1.onnx");
    world.publish_file(file.to_str().unwrap(), &args, "late-arrival", version)
}

/// Writes the record of version 1 under another number, with this header for its golden file.
fn forge(world: &World, version: &str, golden: Option<Value>) -> i64 {
    let topic = world.registry_topic("versions");
    let all = world.tail_of(&topic, 1).read_to_end();
    let record = { all.into_iter() }.find(|r| r.key.as_deref() == Some(b"late-arrival/1"));
    let record = record.unwrap();
    let value = String::from_utf8(record.value.unwrap()).unwrap();
    let value = value.replace(r#""version":"1""#, &format!(r#""version":"{version}""#));
    let mut headers = record.headers;
    headers.retain(|header| header.key != "golden-chunks");
    headers.extend(golden.map(|header| Header::text("golden-chunks", header)));
    let key = format!("late-arrival/{version}");
    world.append(&topic, &key, Some(value.into()), headers);
    world.append_deploy(version, None)
}

fn a_large_golden_file(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let mut rows = golden_rows();
    let file = lines(&rows);
    assert!(file.len() > 64 * 1024, "{}", file.len());
    let published = publish(&world, "1", &file, &[]).ok().json();
    assert_eq!(
        published["chunks"], 2,
        "one of the artifact, one of the rows"
    );
    let shown = model(&world, &["show", "late-arrival", "1"]).ok().json();
    let checks = &shown["manifest"]["checks"];
    let named = &checks["golden_file"];
    assert_eq!(named["digest"], Digest::of(file.as_bytes()).to_string());
    assert_eq!(named["rows"], ROWS);
    assert!(checks["golden"].is_null(), "{checks}");
    world.publish("v2", "2").ok();
    let first = world.deploy("1");
    let instance = world.start_ready("a");
    instance.wait_serves(first);
    let second = world.deploy("2");
    instance.wait_serves(second);

    // One row in the middle that the model does not answer so.
    rows[ROWS / 2]["outputs"]["late_probability"] = 0.999.into();
    let wrong = lines(&rows);
    let refused = publish(&world, "wrong", &wrong, &[]);
    let row = format!("golden row {}", ROWS / 2 + 1);
    assert!(refused.stderr.contains(&row), "{refused:?}");
    publish(&world, "wrong", &wrong, &["--no-check"]).ok();
    let revision = world.append_deploy("wrong", None);
    let report = refusal(&world, "wrong", revision);
    assert_eq!(report["stage"], "checked", "{report}");
    assert!(
        report["reason"].as_str().unwrap().contains(&row),
        "{report}"
    );
    let bad_line = publish(&world, "x", &format!("{file}{{\n"), &[]);
    let place = format!("x.jsonl: line {}", ROWS + 1);
    assert!(bad_line.stderr.contains(&place), "{bad_line:?}");

    // Another file than the manifest's, and none.
    let artifacts = world.registry_topic("artifacts");
    let altered = file.replacen("0.", "1.", 1);
    let chunk = Some(altered.clone().into_bytes());
    world.append(&artifacts, "altered/0", chunk, Vec::new());
    let header = json!({
        "schema": "swapstream.artifact-chunks/v1", "upload": "altered", "count": 1,
        "chunk_bytes": 921_600,
    });
    for (version, header, stage, part) in [
        (
            "altered",
            Some(header),
            "verified",
            "the golden file: it has digest",
        ),
        ("missing", None, "fetched", "no header \"golden-chunks\""),
    ] {
        let revision = forge(&world, version, header);
        let report = refusal(&world, version, revision);
        assert_eq!(report["stage"], stage, "{report}");
        assert!(
            report["reason"].as_str().unwrap().contains(part),
            "{report}"
        );
    }
    assert!(instance.ready().is_ok());
    instance.stop();
    moves_and_goes(broker, &world);
    Ok(())
}

/// The file goes with its version: into a bundle, into another registry, and away.
fn moves_and_goes(broker: &Broker, world: &World) {
    let tar = world.path("1.tar");
    let tar = tar.to_str().unwrap();
    model(world, &["export", "late-arrival", "1", "-o", tar]).ok();
    let other = World::new(broker, 1);
    model(&other, &["import", tar]).ok();
    let raw = |world: &World| {
        let shown = world.run(&["model", "show", "late-arrival", "1", "--raw"]);
        shown.ok().stdout
    };
    assert_eq!(raw(&other), raw(world));
    // Nothing of it is an orphan.
    let kept = model(&other, &["gc", "--older-than", "0s"]).ok().json();
    assert_eq!(live_keys(&other, "artifacts").len(), 2, "{kept}");
    let revision = other.deploy("1");
    let instance = other.start_ready("a");
    instance.wait_serves(revision);
    model(&other, &["undeploy", "late-arrival"]).ok();
    instance.stop();
    let mut extra = World::new(broker, 1);
    extra.registry_extra = "retention = \"0s\"".to_owned();
    model(&extra, &["import", tar]).ok();
    let deleted = model(&extra, &["delete", "late-arrival", "1"]).ok().json();
    assert_eq!(deleted["chunks"], 2, "{deleted}");
    assert!(live_keys(&extra, "artifacts").is_empty());
}
