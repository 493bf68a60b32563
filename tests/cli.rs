//! The program as people and scripts meet it, without Kafka: help, exit codes, mistakes in
//! configuration, `score`, `model inspect`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test reports"
)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use swapstream::codec::{ErrorLine, Prediction};
use swapstream::model::GoldenRow;
use swapstream::runtime::Inspection;

/// What a run came to.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The program in an empty directory and without variables that it would read.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swapstream"));
    command.args(arguments).current_dir(std::env::temp_dir());
    for (name, _) in std::env::vars() {
        if name.starts_with("SWAPSTREAM") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

fn run_with(mut command: Command, stdin: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = stdin.to_vec();
    // A program that ends early closes its end.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        code: out.status.code(),
        stdout: String::from_utf8(out.stdout).unwrap(),
        stderr: String::from_utf8(out.stderr).unwrap(),
    }
}

fn run(arguments: &[&str]) -> Ran {
    run_with(program(arguments), b"")
}

/// `swapstream score` with the model and the manifest of `flights`.
fn score(flights: &str, more: &[&str], stdin: &[u8]) -> Ran {
    let model = repository(&format!("models/flights/{flights}.onnx"));
    let manifest = repository(&format!("models/flights/{flights}.toml"));
    let mut command = program(&["score", "--model"]);
    command
        .arg(model)
        .arg("--manifest")
        .arg(manifest)
        .args(more);
    run_with(command, stdin)
}

fn sample() -> Vec<u8> {
    std::fs::read(repository("models/flights/events-sample.jsonl")).unwrap()
}

/// A configuration file in a directory of its own.
fn configured(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("swapstream.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn help_tells_what_there_is() {
    for (arguments, parts) in [
        (
            &["--help"][..],
            &[
                "Scores Kafka streams with ONNX models",
                "run",
                "demo",
                "model",
                "score",
                "config",
                "Exit codes: 0 done, 1 failed or refused, 2 wrong usage or configuration",
                "./swapstream.toml",
            ][..],
        ),
        (
            &["model", "--help"],
            &[
                "publish", "deploy", "undeploy", "list", "show", "status", "inspect",
            ],
        ),
        (
            &["model", "publish", "--help"],
            &[
                "Example: swapstream model publish",
                "--manifest",
                "--golden",
            ],
        ),
        (
            &["model", "deploy", "--help"],
            &[
                "Example: swapstream model deploy",
                "--if-revision",
                "--wait",
            ],
        ),
        (
            &["score", "--help"],
            &["Example: swapstream score", "--strict", "--include"],
        ),
        (&["dlq", "--help"], &["list", "show", "redrive"]),
        (
            &["dlq", "list", "--help"],
            &["--pending", "--since", "--stage"],
        ),
        (
            &["dlq", "redrive", "--help"],
            &["--dry-run", "--max-attempts", "each once", "--record"],
        ),
        (&["config", "--help"], &["check", "example"]),
        (&["demo", "--help"], &["--duration", "--bootstrap-servers"]),
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}");
        for part in parts {
            assert!(ran.stdout.contains(part), "{arguments:?}: no {part:?}");
        }
    }
    let ran = run(&["--version"]);
    let version = concat!("swapstream ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), version));
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_wrong() {
    for (arguments, part) in [
        (&["scor"][..], "scor"),
        (&[], "Usage:"),
        (&["model", "publsh"], "publsh"),
        (&["score"], "--model"),
        (&["score", "--model", "a.onnx", "--sloppy"], "--sloppy"),
        (&["model", "deploy", "a"], "<VERSION>"),
        (&["model", "deploy", "a/b", "1"], "a/b"),
        (&["run", "--config"], "--config"),
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

#[test]
fn the_example_configuration_is_valid() {
    let example = run(&["config", "example"]);
    assert_eq!(example.code, Some(0));
    let (_directory, path) = configured(&example.stdout);
    let ran = run(&["config", "check", "-c", &path]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("is valid"), "{}", ran.stderr);
    // What is printed is a configuration again, with the same meaning.
    let (_directory, path) = configured(&ran.stdout);
    let again = run(&["config", "check", "-c", &path]);
    assert_eq!(again.stdout, ran.stdout, "{}", again.stderr);
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once_with_their_place() {
    let (_directory, path) = configured(
        r#"[kafka]
bootstrap_server = "localhost:9092"
[streams.flights]
input_topics = ["flights"]
output_topic = "flights"
dead_letter_topic = "flights-dlq"
model = "late arrival"
workers = 0
commit_interval = "soon"
"#,
    );
    for command in [&["config", "check"][..], &["run"]] {
        let ran = run(&[command, &["-c", &path]].concat());
        assert_eq!(ran.code, Some(2), "{command:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
        for part in [
            "swapstream.toml:2:",
            "bootstrap_server",
            "swapstream.toml:7:",
            "swapstream.toml:8:",
            "workers",
            "swapstream.toml:9:",
            "commit_interval",
        ] {
            assert!(ran.stderr.contains(part), "no {part:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn without_a_configuration_the_missing_keys_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["run"][..], "kafka.bootstrap_servers"),
        (&["model", "list"], "kafka.bootstrap_servers"),
        (
            &["config", "check", "-c", "not-there.toml"],
            "not-there.toml",
        ),
    ] {
        let mut command = program(arguments);
        command.current_dir(directory.path());
        let ran = run_with(command, b"");
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn no_secret_is_printed() {
    let (directory, path) = configured(
        r#"[kafka]
bootstrap_servers = "localhost:9092"
[kafka.client]
"security.protocol" = "SASL_SSL"
"sasl.username" = "ann"
"sasl.password" = "hunter2"
"ssl.key.password" = { file = "key-password" }
[streams.flights]
input_topics = ["flights"]
output_topic = "predictions"
dead_letter_topic = "dlq"
model = "late-arrival"
"#,
    );
    std::fs::write(directory.path().join("key-password"), "hunter3\n").unwrap();
    let check = |environment: &[(&str, &str)]| {
        let mut command = program(&["config", "check", "-c", &path]);
        command.current_dir(directory.path());
        command.envs(environment.iter().copied());
        run_with(command, b"")
    };
    let good = check(&[(
        "SWAPSTREAM__KAFKA__CLIENT__SSL_KEYSTORE_PASSWORD",
        "hunter4",
    )]);
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    assert!(good.stdout.contains("***"), "{}", good.stdout);
    // A mistake beside the secrets does not bring them out.
    let bad = check(&[("SWAPSTREAM__STREAMS__FLIGHTS__WORKERS", "none")]);
    assert_eq!(bad.code, Some(2), "{}", bad.stderr);
    assert!(bad.stderr.contains("SWAPSTREAM__STREAMS__FLIGHTS__WORKERS"));
    for ran in [good, bad] {
        assert!(!ran.stdout.contains("hunter"), "{}", ran.stdout);
        assert!(!ran.stderr.contains("hunter"), "{}", ran.stderr);
    }
}

#[test]
fn score_gives_the_golden_outputs_in_order() {
    for version in ["v1", "v2"] {
        let golden = repository(&format!("models/flights/golden-{version}.jsonl"));
        let golden: Vec<GoldenRow> = std::fs::read_to_string(golden)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut input = Vec::new();
        for row in &golden {
            serde_json::to_writer(&mut input, &row.input).unwrap();
            input.push(b'\n');
        }
        let ran = score(version, &["--strict", "--include", "flight_id"], &input);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), golden.len());
        for (index, (line, row)) in lines.iter().zip(&golden).enumerate() {
            let prediction: Prediction = serde_json::from_str(line).unwrap();
            // The line is the type's own form, nothing added.
            assert_eq!(&serde_json::to_string(&prediction).unwrap(), line);
            assert_eq!(prediction.model.unwrap().as_str(), "late-arrival");
            assert!(prediction.version.is_none() && prediction.revision.is_none());
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["input"]["line"], index + 1);
            assert_eq!(value["include"]["flight_id"], row.input["flight_id"]);
            for (name, wanted) in &row.outputs {
                let wanted = wanted.as_f64().unwrap();
                let found = prediction.outputs[name].as_f64().unwrap();
                let off = (found - wanted).abs() / wanted.abs().max(1.0);
                assert!(off <= 1e-5, "{name}: {found}, {wanted}");
            }
        }
    }
}

/// Of a configuration, commands without Kafka read `[runtime]` and nothing else.
#[test]
fn score_and_inspect_take_the_runtime_section() {
    let (directory, path) = configured(
        "[runtime]\nonnxruntime_library = \"/nowhere/lib.so\"\n[streams.a]\nwrong = 1\n",
    );
    let model = repository("tests/fixtures/mlp.onnx");
    let model = model.to_str().unwrap();
    let manifest = directory.path().join("m.toml");
    std::fs::write(&manifest, "runtime = \"onnxruntime\"\n").unwrap();
    let score = [
        "score",
        "--model",
        model,
        "--manifest",
        manifest.to_str().unwrap(),
    ];
    let inspect = ["model", "inspect", model];
    for (arguments, code) in [(&score[..], Some(1)), (&inspect, Some(0))] {
        let run_it = |more: &[&str], folder: &Path| {
            let mut command = program(arguments);
            command.args(more).current_dir(folder);
            // It would win.
            command.env_remove("ORT_DYLIB_PATH");
            run_with(command, b"")
        };
        let named = run_it(&["-c", &path], &std::env::temp_dir());
        let found = run_it(&[], directory.path());
        for ran in [named, found] {
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.code, code, "{said}");
            assert!(
                said.contains("names /nowhere/lib.so, which is no file"),
                "{said}"
            );
        }
        let (_directory, wrong) = configured("[runtime]\nlibrary = \"x\"\n");
        let ran = run_it(&["-c", &wrong], &std::env::temp_dir());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("runtime.library"), "{}", ran.stderr);
        let ran = run_it(&["-c", "/nowhere.toml"], &std::env::temp_dir());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    }
}

#[test]
fn what_cannot_be_scored_is_an_error_line_in_its_place() {
    let sample = sample();
    let first = sample.split(|b| *b == b'\n').next().unwrap();
    let with = |old: &str, new: &str| {
        let text = std::str::from_utf8(first).unwrap();
        assert!(text.contains(old));
        text.replace(old, new).into_bytes()
    };
    let cases: [(Vec<u8>, &str, &str); 10] = [
        (b"".to_vec(), "decode", "empty"),
        (b"not json".to_vec(), "decode", "invalid_json"),
        (b"{\"a\":\xff}".to_vec(), "decode", "invalid_utf8"),
        (b"null".to_vec(), "decode", "not_an_object"),
        (b"[1]".to_vec(), "decode", "not_an_object"),
        (
            with("{\"flight_id\"", "{\"day_of_week\":1,\"flight_id\""),
            "decode",
            "duplicate_key",
        ),
        (
            [
                b"{\"a\":".to_vec(),
                b"[".repeat(70),
                b"]".repeat(70),
                b"}".to_vec(),
            ]
            .concat(),
            "decode",
            "too_deep",
        ),
        (b"{}".to_vec(), "features", "missing_feature"),
        (
            with("\"day_of_week\":5", "\"day_of_week\":\"Friday\""),
            "features",
            "wrong_type",
        ),
        (
            with("\"day_of_week\":5", "\"day_of_week\":null"),
            "features",
            "null_feature",
        ),
    ];
    let mut input = Vec::new();
    for (event, _, _) in &cases {
        input.extend_from_slice(event);
        input.push(b'\n');
        input.extend_from_slice(first);
        input.push(b'\n');
    }
    let ran = score("v1", &[], &input);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), cases.len() * 2);
    for (index, (_, stage, class)) in cases.iter().enumerate() {
        let error: ErrorLine = serde_json::from_str(lines[index * 2]).unwrap();
        let found = (error.stage.as_str(), error.class.as_str());
        assert_eq!(found, (*stage, *class), "{}", error.message);
        assert_eq!(error.input.line, index as u64 * 2 + 1);
        let prediction: Prediction = serde_json::from_str(lines[index * 2 + 1]).unwrap();
        assert!(prediction.outputs.contains_key("late_probability"));
    }
    let strict = score("v1", &["--strict"], &input);
    assert_eq!(strict.code, Some(1));
    assert_eq!(strict.stdout, ran.stdout, "the lines are the same");
    assert!(
        strict.stderr.contains("10 lines failed"),
        "{}",
        strict.stderr
    );
}

#[test]
fn line_ends_do_not_matter() {
    let unix = sample();
    let windows = String::from_utf8(unix.clone())
        .unwrap()
        .replace('\n', "\r\n");
    let unended = unix.strip_suffix(b"\n").unwrap();
    let wanted = score("v1", &[], &unix).stdout;
    assert_eq!(wanted.lines().count(), 20);
    assert_eq!(score("v1", &[], windows.as_bytes()).stdout, wanted);
    assert_eq!(score("v1", &[], unended).stdout, wanted);
}

#[test]
fn no_input_is_no_output() {
    let ran = score("v1", &["--strict"], b"");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mut command = program(&["score", "--model"]);
    command.arg(repository("models/flights/v1.onnx"));
    command.arg("--manifest");
    command.arg(repository("models/flights/v1.toml"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sample = sample();
    let writer = std::thread::spawn(move || {
        // Far more than the pipes hold; it fails once nobody reads.
        while stdin.write_all(&sample).is_ok() {}
    });
    let mut stdout = child.stdout.take().unwrap();
    let mut some = [0; 100];
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "");
    assert!(out.status.code().is_some(), "not by a signal");
}

#[test]
fn score_names_the_file_that_is_wrong() {
    let onnx = repository("models/flights/v1.onnx");
    let onnx = onnx.to_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("wrong.toml");
    let manifest = manifest.to_str().unwrap();
    std::fs::write(manifest, "modl = \"late-arrival\"\n").unwrap();
    let readme = repository("Cargo.toml");
    let readme = readme.to_str().unwrap();
    for (arguments, parts) in [
        (&["--model", "not-there.onnx"][..], &["not-there.onnx"][..]),
        (&["--model", readme], &["Cargo.toml"]),
        (
            &["--model", onnx, "--manifest", "not-there.toml"],
            &["not-there.toml"],
        ),
        (
            &["--model", onnx, "--manifest", manifest],
            &["wrong.toml", "modl"],
        ),
    ] {
        let ran = run(&[&["score"], arguments].concat());
        assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
        for part in parts {
            assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn inspect_tells_what_a_file_holds_and_why_it_does_not_run() {
    let good = repository("models/flights/v2.onnx");
    let good = good.to_str().unwrap();
    let text = run(&["model", "inspect", good]);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    for part in [
        "sha256:",
        "pytorch",
        "ai.onnx.Gemm ×3",
        "yes, with tract",
        "features: float[batch, 15]",
        "late_probability: float[batch, 1]",
        "µs a row",
    ] {
        assert!(text.stdout.contains(part), "no {part:?}: {}", text.stdout);
    }
    let json = run(&["model", "inspect", good, "--output", "json"]);
    assert_eq!(json.stdout.lines().count(), 1);
    let inspection: Inspection = serde_json::from_str(&json.stdout).unwrap();
    assert!(inspection.refused.is_none());
    assert_eq!(
        inspection.runs.unwrap().signature.inputs[0].name,
        "features"
    );

    let refused = repository("tests/fixtures/unknown_operator.onnx");
    let refused = run(&["model", "inspect", refused.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("no: operator ai.onnx.Unique"));
}
