//! The readers in `examples/`: other programs can follow the registry from its topics alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, Process, eventually, in_ci};
use crate::world::{PATIENCE, World};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("the_java_example_follows_the_registry", java),
        on_shared_broker("the_python_example_reads_the_registry", python),
        on_shared_broker("an_mlflow_run_becomes_a_version", mlflow_run),
    ]
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// In CI what is missing fails; elsewhere it is said.
fn not_run(why: &str) -> TestResult {
    if in_ci() {
        return Err(Failed::from(why));
    }
    eprintln!("not run: {why}");
    Ok(())
}

/// A registry with two versions, of which one was deployed by Ann; gives its digest.
fn fill(world: &World) -> String {
    let digest = world.publish("v1", "1").ok().json()["digest"].clone();
    world.publish("v2", "2").ok();
    let deploy = [
        "model",
        "deploy",
        "late-arrival",
        "1",
        "--by",
        "ann",
        "--reason",
        "first",
    ];
    world.run(&deploy).ok();
    digest.as_str().unwrap().to_owned()
}

fn java(broker: &'static Broker) -> TestResult {
    let Ok(version) = Command::new("mvn").arg("-v").output() else {
        return not_run("no Maven on the PATH");
    };
    assert!(version.status.success());
    let world = World::new(broker, 1);
    let digest = fill(&world);
    // Built in a place of its own: the sources stay as they are.
    let build = world.path("java");
    let mut copy = Command::new("cp");
    copy.arg("-r")
        .arg(examples().join("kafka-streams"))
        .arg(&build);
    assert!(copy.status()?.success());
    let classpath = build.join("classpath");
    let maven = Command::new("mvn")
        .args(["-q", "-B", "compile", "dependency:build-classpath"])
        .arg(format!("-Dmdep.outputFile={}", classpath.display()))
        .current_dir(&build)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&maven.stdout).into_owned();
    assert!(maven.status.success(), "{said}");
    let jars = std::fs::read_to_string(classpath)?;
    let program = match std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Path::new(&home).join("bin/java"),
        None => PathBuf::from("java"),
    };
    let mut command = Command::new(program);
    command
        .arg("-cp")
        .arg(format!("{}:{jars}", build.join("target/classes").display()))
        .args(["example.RegistryReader", broker.bootstrap()])
        .arg(format!("{}-", world.name));
    let reader = Process::spawn(&mut command);
    let line = |part: &str| -> Value {
        eventually("the event is printed", PATIENCE * 2, || {
            let lines = reader.stdout_lines();
            let found = lines.iter().find(|line| line.contains(part));
            let found = found.and_then(|line| serde_json::from_str(line).ok());
            found.ok_or_else(|| format!("{lines:?} {:?}", reader.stderr_lines()))
        })
    };
    let first = line(r#""by":"ann""#);
    assert_eq!(
        (&first["action"], &first["version"]),
        (&"deploy".into(), &"1".into())
    );
    assert_eq!(first["digest"], digest);
    assert!(first["metrics"]["auc"].is_f64(), "{first}");
    // And what comes while it runs.
    let rollback = ["model", "deploy", "late-arrival", "2", "--by", "bob"];
    world.run(&rollback).ok();
    assert_eq!(line(r#""by":"bob""#)["version"], "2");
    Ok(())
}

/// A run as MLflow's file store keeps it.
fn mlflow_folder(world: &World) -> PathBuf {
    let run = world.path("mlruns/1/0a1b2c");
    for (file, text) in [
        (
            "meta.yaml",
            "artifact_uri: file:///x\nrun_id: 0a1b2c\nstart_time: 1760000000000\n",
        ),
        ("params/max_depth", "6"),
        ("params/booster", "gbtree"),
        (
            "metrics/auc",
            "1760000000001 0.5 0\n1760000000002 0.875 1\n",
        ),
        ("metrics/broken", "1760000000001 nan 0\n"),
        ("tags/mlflow.user", "ann"),
        ("tags/mlflow.source.git.commit", "0f3c9a1"),
        (
            "tags/mlflow.source.git.repoURL",
            "https://example.org/flights.git",
        ),
    ] {
        let path = run.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    run
}

fn mlflow_run(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let run = mlflow_folder(&world);
    let base = world.path("base.json");
    let inputs = serde_json::json!([{"name": "features", "features": [
        "day_of_week", "sched_dep_minute", "sched_arr_minute", "distance_miles", "airline_id",
        "origin_airport_id",
    ]}]);
    let text = serde_json::json!({"inputs": inputs, "lineage": {"framework": "pytorch 2.6.0"}});
    std::fs::write(&base, text.to_string())?;
    let out = Command::new("python3")
        .arg(examples().join("python/mlflow_manifest.py"))
        .arg(&run)
        .args(["--model", "late-arrival", "--version", "7", "--base"])
        .arg(&base)
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let manifest = world.path("manifest.json");
    std::fs::write(&manifest, out.stdout)?;
    let file = crate::world::models().join("v1.onnx");
    let args = ["--manifest", manifest.to_str().unwrap()];
    world
        .publish_file(file.to_str().unwrap(), &args, "late-arrival", "7")
        .ok();
    let show = ["model", "show", "late-arrival", "7", "--output", "json"];
    let shown = world.run(&show).ok().json();
    let lineage = &shown["manifest"]["lineage"];
    for (field, value) in [
        ("run_id", serde_json::json!("0a1b2c")),
        ("author", serde_json::json!("ann")),
        ("created_at", serde_json::json!("2025-10-09T08:53:20.000Z")),
        ("framework", serde_json::json!("pytorch 2.6.0")),
        ("metrics", serde_json::json!({"auc": 0.875})),
        (
            "hyperparameters",
            serde_json::json!({"max_depth": 6, "booster": "gbtree"}),
        ),
        (
            "code",
            serde_json::json!({"repository": "https://example.org/flights.git", "commit": "0f3c9a1"}),
        ),
    ] {
        assert_eq!(lineage[field], value, "{lineage}");
    }
    // What the file itself says is filled in as for any other.
    assert!(lineage["opsets"].is_object(), "{lineage}");
    Ok(())
}

fn python(broker: &'static Broker) -> TestResult {
    let program = std::env::var("SWAPSTREAM_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_client = Command::new(&program)
        .args(["-c", "import confluent_kafka"])
        .stderr(Stdio::null())
        .status();
    if !has_client.is_ok_and(|status| status.success()) {
        return not_run("no Python with confluent-kafka; SWAPSTREAM_TEST_PYTHON may name one");
    }
    let world = World::new(broker, 1);
    let digest = fill(&world);
    // One that does not count: a rollback from what nobody has seen.
    let stale = [
        "model",
        "rollback",
        "late-arrival",
        "--to",
        "2",
        "--if-revision",
        "7",
    ];
    assert_eq!(world.run(&stale).code, 1, "never served");
    world.append_deploy("2", None);
    let out = Command::new(&program)
        .arg(examples().join("python/registry_reader.py"))
        .arg(broker.bootstrap())
        .arg(format!("{}-", world.name))
        .output()?;
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let lines: Vec<Value> = String::from_utf8(out.stdout)?
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[0]["digest"], digest);
    assert_eq!(
        (&lines[1]["version"], &lines[2]["by"]),
        (&"2".into(), &"ann".into())
    );
    assert_eq!(
        (&lines[2]["effective"], &lines[3]["version"]),
        (&true.into(), &"2".into())
    );
    Ok(())
}
