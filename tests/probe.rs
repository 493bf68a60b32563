//! Models that are made to harm: each is refused, by the loader or by the probe, and this process
//! lives on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "test code: a panic is how a test reports"
)]

#[path = "probe/onnx.rs"]
mod onnx;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onnx::{
    graph, graph_attribute, int_attribute, int64s, model, node, simple, tensor, tensor_attribute,
};
use serde_json::json;
use swapstream::app::ChildProbe;
use swapstream::model::{Digest, Manifest};
use swapstream::registry::{
    LoadFailure, LoadState, ModelProbe, ProbeCandidate, ProbeLimits, ProbeReport,
};
use swapstream::runtime::RuntimeSettings;

const LIMITS: ProbeLimits = ProbeLimits {
    memory: 1 << 30,
    time: Duration::from_secs(10),
};

fn probe_within(
    limits: ProbeLimits,
    artifact: &[u8],
    checks: &serde_json::Value,
) -> Result<ProbeReport, LoadFailure> {
    let manifest = json!({
        "schema": "swapstream.manifest/v1", "model": "m", "version": "1",
        "artifact": {"digest": Digest::of(artifact).to_string(), "bytes": artifact.len()},
        "checks": checks,
    });
    let manifest = Manifest::from_json(manifest.to_string().as_bytes()).unwrap();
    let probe = ChildProbe::new(
        PathBuf::from(env!("CARGO_BIN_EXE_swapstream")),
        limits,
        RuntimeSettings::default(),
    );
    let candidate = ProbeCandidate {
        bytes: artifact,
        golden: &[],
        manifest: &manifest,
        max_bytes: 64 << 20,
    };
    probe.probe(candidate, &|| true)
}

fn probe(artifact: &[u8]) -> Result<ProbeReport, LoadFailure> {
    probe_within(LIMITS, artifact, &json!({}))
}

/// The stage and the reason of a refusal.
fn refused(result: Result<ProbeReport, LoadFailure>) -> (LoadState, String) {
    match result {
        Err(LoadFailure::Refused(refusal)) => (refusal.stage, refusal.reason),
        other => panic!("not refused: {other:?}"),
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read(folder.join(name)).unwrap()
}

/// A constant of zeros of this shape.
fn zeros(name: &str, shape: &[i64]) -> (Vec<u8>, Vec<u8>) {
    let shape_name = format!("{name}_shape");
    let value = tensor_attribute("value", &tensor("", 1, &[1], &[0; 4]));
    let node = node("ConstantOfShape", &[&shape_name], &[name], &[value]);
    (node, int64s(&shape_name, shape))
}

#[test]
fn a_good_model_passes_and_says_what_it_took() {
    let start = Instant::now();
    let took = probe(&fixture("mlp.onnx")).unwrap();
    eprintln!("{took:?}, {:?} with the child", start.elapsed());
    if cfg!(target_os = "linux") {
        assert!(took.peak_memory > 1 << 20);
    }
}

#[test]
fn a_refusal_keeps_its_stage_and_reason() {
    let (stage, reason) = refused(probe(&fixture("unknown_operator.onnx")));
    assert_eq!(stage, LoadState::Compiled);
    assert!(reason.contains("not supported"), "{reason}");
    let (stage, reason) = refused(probe(b"no model at all"));
    assert_eq!(
        (stage, reason.as_str()),
        (LoadState::Compiled, "not an ONNX file")
    );
    let golden = json!({"golden": [{"input": {"x": [1, 2, 3, 4]}, "outputs": {"none": 1}}]});
    let relu = simple(&[node("Relu", &["x"], &["y"], &[])], &[]);
    let (stage, reason) = refused(probe_within(LIMITS, &relu, &golden));
    assert_eq!(stage, LoadState::Checked, "{reason}");
}

#[test]
fn what_takes_endless_memory_is_refused_and_the_process_lives_on() {
    let (big, shape) = zeros("b", &[1 << 16, 1 << 16, 1, 4]);
    let total = node("ReduceMax", &["z"], &["m"], &[int_attribute("keepdims", 0)]);
    let sum = node("Add", &["x", "m"], &["y"], &[]);
    let spread = node("Add", &["x", "b"], &["z"], &[]);
    let constant = simple(&[big, spread, total.clone(), sum.clone()], &[shape]);

    let expand = node("Expand", &["x", "big"], &["z"], &[]);
    let big = int64s("big", &[1 << 16, 1 << 16, 1, 4]);
    let expanded = simple(&[expand, total.clone(), sum.clone()], &[big]);

    let mut tiles: Vec<Vec<u8>> = (0..8)
        .map(|i| {
            let (from, to) = (format!("t{i}"), format!("t{}", i + 1));
            node("Tile", &[&from, "by"], &[&to], &[])
        })
        .collect();
    tiles.insert(0, node("Identity", &["x"], &["t0"], &[]));
    tiles.push(node(
        "ReduceMax",
        &["t8"],
        &["m"],
        &[int_attribute("keepdims", 0)],
    ));
    tiles.push(sum);
    let repeated = simple(&tiles, &[int64s("by", &[64, 64])]);

    for (name, artifact) in [
        ("ConstantOfShape", constant),
        ("Expand", expanded),
        ("Tile", repeated),
    ] {
        assert!(artifact.len() < 2000);
        let (stage, reason) = refused(probe(&artifact));
        eprintln!("{name}: {stage}: {reason}");
    }
    probe(&fixture("mlp.onnx")).unwrap();
}

#[test]
fn memory_that_hangs_on_the_data_is_refused() {
    // On zeros each is harmless; an event could ask for any amount.
    let total = node("ReduceMax", &["z"], &["m"], &[int_attribute("keepdims", 0)]);
    let sum = node("Add", &["x", "m"], &["y"], &[]);
    let largest = node("ReduceMax", &["x"], &["r"], &[int_attribute("keepdims", 0)]);
    let cast = |from: &str, to: &str, data_type| {
        node("Cast", &[from], &[to], &[int_attribute("to", data_type)])
    };
    let count = node("Reshape", &["i", "one"], &["k"], &[]);
    let constants = [
        int64s("one", &[1]),
        tensor("zero", 7, &[], &[0; 8]),
        tensor("step", 7, &[], &[1, 0, 0, 0, 0, 0, 0, 0]),
        tensor("value", 1, &[1], &[0; 4]),
        tensor("values", 1, &[2], &[0; 8]),
    ];
    let makers = [
        (
            "ConstantOfShape",
            node("ConstantOfShape", &["k"], &["z"], &[]),
        ),
        ("Expand", node("Expand", &["value", "k"], &["z"], &[])),
        ("Tile", node("Tile", &["value", "k"], &["z"], &[])),
        ("OneHot", node("OneHot", &["k", "k", "values"], &["z"], &[])),
    ];
    let mut bombs: Vec<(&str, Vec<Vec<u8>>)> = makers
        .into_iter()
        .map(|(name, maker)| (name, vec![maker]))
        .collect();
    let range = node("Range", &["zero", "i", "step"], &["w"], &[]);
    bombs.push(("Range", vec![range, cast("w", "z", 1)]));
    for (name, makers) in bombs {
        let mut nodes = vec![largest.clone(), cast("r", "i", 7), count.clone()];
        nodes.extend(makers);
        nodes.extend([total.clone(), sum.clone()]);
        let result = probe(&simple(&nodes, &constants));
        eprintln!("{name}: {result:?}");
        refused(result);
    }
}

#[test]
fn what_computes_without_end_is_refused_at_the_limit() {
    let limits = ProbeLimits {
        time: Duration::from_secs(2),
        ..LIMITS
    };
    // 2 · 2048³ operations a product, and 4,000 products of constants.
    let (square, shape) = zeros("s0", &[2048, 2048]);
    let mut nodes = vec![square];
    for i in 0..4000 {
        let (from, to) = (format!("s{i}"), format!("s{}", i + 1));
        nodes.push(node("MatMul", &[&from, "s0"], &[&to], &[]));
    }
    nodes.push(node(
        "ReduceMax",
        &["s4000"],
        &["m"],
        &[int_attribute("keepdims", 0)],
    ));
    nodes.push(node("Add", &["x", "m"], &["y"], &[]));
    let start = Instant::now();
    let (stage, reason) = refused(probe_within(limits, &simple(&nodes, &[shape]), &json!({})));
    assert_eq!(stage, LoadState::Probed, "{reason}");
    assert!(reason.contains("limits.probe_"), "{reason}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn shapes_that_lie_are_refused() {
    for dims in [
        vec![1 << 40],
        vec![1 << 33, 1 << 31],
        vec![1 << 62, 4],
        vec![-1, 4],
        vec![5],
    ] {
        let weights = tensor("w", 1, &dims, &[0; 16]);
        let add = node("Add", &["x", "w"], &["y"], &[]);
        let (stage, reason) = refused(probe(&simple(&[add], &[weights])));
        assert_eq!(stage, LoadState::Compiled, "{reason}");
        assert!(reason.contains("has the shape"), "{reason}");
    }
    // An operator that gives another shape than the graph declares.
    let reshape = node("Reshape", &["x", "to"], &["y"], &[]);
    let (stage, reason) = refused(probe(&simple(&[reshape], &[int64s("to", &[-1, 8])])));
    assert_eq!(stage, LoadState::Compiled, "{reason}");
}

#[test]
fn deep_nesting_is_refused_or_runs() {
    for depth in [8, 30, 200, 2_000] {
        let mut inner = graph(
            &[node("Relu", &["x"], &["y"], &[])],
            &[],
            &[],
            &[onnx::floats("y", &[4])],
        );
        for _ in 0..depth {
            let branches = [
                graph_attribute("then_branch", &inner),
                graph_attribute(
                    "else_branch",
                    &graph(
                        &[node("Identity", &["x"], &["y"], &[])],
                        &[],
                        &[],
                        &[onnx::floats("y", &[4])],
                    ),
                ),
            ];
            inner = graph(
                &[node("If", &["c"], &["y"], &branches)],
                &[],
                &[],
                &[onnx::floats("y", &[4])],
            );
        }
        let condition = onnx::bytes(5, tensor("c", 9, &[], &[1]));
        let input = onnx::bytes(11, onnx::floats("x", &[4]));
        let artifact = model(&[inner, condition, input].concat());
        let result = probe(&artifact);
        eprintln!("{depth} levels: {result:?}");
        match result {
            Ok(_) => assert!(depth <= 30),
            Err(LoadFailure::Refused(_)) => {}
            other => panic!("{depth} levels: {other:?}"),
        }
    }
}

#[test]
fn very_many_nodes_are_refused_or_run() {
    for count in [2_000, 50_000, 150_000] {
        let nodes: Vec<_> = (0..count)
            .map(|i| {
                let (from, to) = (format!("t{i}"), format!("t{}", i + 1));
                let from = if i == 0 { "x" } else { &from };
                let to = if i == count - 1 { "y" } else { &to };
                node("Sin", &[from], &[to], &[])
            })
            .collect();
        let start = Instant::now();
        let result = probe(&simple(&nodes, &[]));
        eprintln!("{count} nodes: {result:?} in {:?}", start.elapsed());
        match result {
            Ok(_) => {}
            Err(LoadFailure::Refused(_)) => assert!(count > 2_000),
            other => panic!("{count} nodes: {other:?}"),
        }
    }
}

#[test]
fn a_model_that_gives_nan_loads_and_fails_by_the_row() {
    // What is not finite is a dead letter of its row, and no reason to refuse the model.
    probe(&fixture("nan.onnx")).unwrap();
}

#[test]
fn a_probe_that_is_no_longer_wanted_or_cannot_run_decides_nothing() {
    let artifact = fixture("mlp.onnx");
    let manifest = json!({
        "schema": "swapstream.manifest/v1", "model": "m", "version": "1",
        "artifact": {"digest": Digest::of(&artifact).to_string(), "bytes": artifact.len()},
    });
    let manifest = Manifest::from_json(manifest.to_string().as_bytes()).unwrap();
    let candidate = ProbeCandidate {
        bytes: &artifact,
        golden: &[],
        manifest: &manifest,
        max_bytes: 1 << 20,
    };
    let program =
        |path: &str| ChildProbe::new(PathBuf::from(path), LIMITS, RuntimeSettings::default());
    let good = program(env!("CARGO_BIN_EXE_swapstream"));
    assert_eq!(
        good.probe(candidate, &|| false).unwrap_err(),
        LoadFailure::Cancelled
    );
    for other in ["/nonexistent/swapstream", "/bin/false"] {
        let result = program(other).probe(candidate, &|| true);
        assert!(
            matches!(result, Err(LoadFailure::Transient(_))),
            "{result:?}"
        );
    }
}
