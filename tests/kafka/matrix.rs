//! Every way in which a version can be bad, written past the commands as an altered or damaged
//! registry would have it: each is refused with a reason of its own, and the stream never notices.

use std::collections::BTreeMap;
use std::time::Instant;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use swapstream::model::Digest;
use swapstream::record::Header;

use crate::support::Broker;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::world::{PATIENCE, Tail, World, events, models, predictions};

pub fn trials() -> Vec<Trial> {
    vec![on_shared_broker(
        "every_kind_of_bad_version_has_its_reason",
        every_kind_has_its_reason,
    )]
}

/// A version as it lies in the registry; bad cases alter one thing.
struct Forged {
    manifest: Value,
    /// The manifest's record, where it is not `manifest`.
    raw: Option<Vec<u8>>,
    header: Value,
    /// The header, where it does not hold `header`.
    raw_header: Option<Header>,
    no_header: bool,
    /// Index and bytes, in the order in which they are written; no bytes: a tombstone.
    chunks: Vec<(String, Option<Vec<u8>>)>,
    /// The digest that the deployment names.
    names: Option<String>,
    publish: bool,
}

impl Forged {
    /// The same file and contract as version 1.
    fn good(manifest: &Value, version: &str, onnx: &[u8]) -> Self {
        let mut manifest = manifest.clone();
        manifest["version"] = version.into();
        let mut forged = Self {
            manifest,
            raw: None,
            header: Value::Null,
            raw_header: None,
            no_header: false,
            chunks: Vec::new(),
            names: None,
            publish: true,
        };
        forged.holds(onnx, version);
        forged
    }

    /// The artifact is `onnx`, whole.
    fn holds(&mut self, onnx: &[u8], version: &str) {
        const SIZE: usize = 4096;
        self.manifest["artifact"]["digest"] = Digest::of(onnx).to_string().into();
        self.manifest["artifact"]["bytes"] = onnx.len().into();
        self.header = json!({
            "schema": "swapstream.artifact-chunks/v1", "upload": format!("forged-{version}"),
            "count": onnx.len().div_ceil(SIZE), "chunk_bytes": SIZE,
        });
        let chunks = onnx.chunks(SIZE).enumerate();
        self.chunks = chunks
            .map(|(index, chunk)| (index.to_string(), Some(chunk.to_vec())))
            .collect();
    }

    fn write(&self, world: &World, version: &str) -> i64 {
        if self.publish {
            let upload = format!("forged-{version}");
            for (index, chunk) in &self.chunks {
                let topic = world.registry_topic("artifacts");
                world.append(
                    &topic,
                    &format!("{upload}/{index}"),
                    chunk.clone(),
                    Vec::new(),
                );
            }
            let header = self.raw_header.clone();
            let header =
                header.unwrap_or_else(|| raw_header(Some(self.header.to_string().as_bytes())));
            let raw = self.raw.clone();
            world.append(
                &world.registry_topic("versions"),
                &format!("late-arrival/{version}"),
                Some(raw.unwrap_or_else(|| self.manifest.to_string().into_bytes())),
                if self.no_header {
                    Vec::new()
                } else {
                    vec![header]
                },
            );
        }
        world.append_deploy(version, self.names.as_deref())
    }
}

fn raw_header(value: Option<&[u8]>) -> Header {
    Header {
        key: "artifact-chunks".to_owned(),
        value: value.map(<[u8]>::to_vec),
    }
}

type Spoil = fn(&mut Forged, &str);

fn fixture(name: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    std::fs::read(format!("{path}/{name}.onnx")).unwrap()
}

/// Name, what is wrong, the state that is not reached, a part of the reason.
const CASES: &[(&str, Spoil, &str, &str)] = &[
    // Deployment events.
    (
        "never-published",
        |f, _| f.publish = false,
        "announced",
        "there is no version never-published",
    ),
    (
        "other-digest",
        |f, _| f.names = Some(format!("sha256:{}", "0".repeat(64))),
        "announced",
        "the deployment names digest sha256:0000",
    ),
    // Manifests.
    (
        "no-json",
        |f, _| f.raw = Some(b"{".to_vec()),
        "announced",
        "not a manifest: EOF",
    ),
    (
        "empty-value",
        |f, _| f.raw = Some(Vec::new()),
        "announced",
        "EOF while parsing a value",
    ),
    (
        "other-schema",
        |f, _| f.manifest["schema"] = "swapstream.manifest/v9".into(),
        "announced",
        "manifest has schema \"swapstream.manifest/v9\"",
    ),
    (
        "other-key",
        |f, _| f.manifest["version"] = "1".into(),
        "announced",
        "its key says late-arrival other-key",
    ),
    (
        "other-model",
        |f, _| f.manifest["model"] = "fraud".into(),
        "announced",
        "manifest is of fraud",
    ),
    (
        "no-digest",
        |f, _| f.manifest["artifact"]["digest"] = "md5:00".into(),
        "announced",
        "digest",
    ),
    (
        "no-artifact",
        |f, _| drop(f.manifest.as_object_mut().unwrap().remove("artifact")),
        "announced",
        "missing field `artifact`",
    ),
    (
        "other-runtime",
        |f, _| f.manifest["runtime"] = "quantum".into(),
        "announced",
        "unknown variant `quantum`",
    ),
    (
        "oversize",
        |f, _| f.manifest["lineage"]["run_id"] = "x".repeat(600_000).into(),
        "announced",
        "at most 524288 are allowed",
    ),
    (
        "deleted",
        |f, _| f.raw = Some(br#"{"deleted":true,"by":"ann"}"#.to_vec()),
        "announced",
        "it was deleted",
    ),
    // Chunk sets.
    (
        "no-header",
        |f, _| f.no_header = true,
        "fetched",
        "has no header \"artifact-chunks\"",
    ),
    (
        "null-header",
        |f, _| f.raw_header = Some(raw_header(None)),
        "fetched",
        "it is null",
    ),
    (
        "header-no-json",
        |f, _| f.raw_header = Some(raw_header(Some(b"?"))),
        "fetched",
        "expected value",
    ),
    (
        "header-schema",
        |f, _| f.header["schema"] = "swapstream.artifact-chunks/v2".into(),
        "fetched",
        "this build reads \"swapstream.artifact-chunks/v1\"",
    ),
    (
        "header-upload",
        |f, _| f.header["upload"] = "a/b".into(),
        "fetched",
        "the upload id is not one",
    ),
    (
        "tiny-chunks",
        |f, _| f.header["chunk_bytes"] = 1.into(),
        "fetched",
        "chunk_bytes 1 is not within",
    ),
    (
        "wrong-count",
        |f, _| f.header["count"] = 77.into(),
        "fetched",
        "the header counts 77 chunks",
    ),
    (
        "huge",
        |f, _| f.manifest["artifact"]["bytes"] = (1_u64 << 60).into(),
        "fetched",
        "limits.max_artifact_bytes allows",
    ),
    (
        "no-bytes",
        |f, _| f.manifest["artifact"]["bytes"] = 0.into(),
        "fetched",
        "the artifact has no bytes",
    ),
    (
        "all-missing",
        |f, _| f.chunks.clear(),
        "fetched",
        "2 of 2 chunks are missing, chunk 0",
    ),
    (
        "last-missing",
        |f, _| drop(f.chunks.pop()),
        "fetched",
        "1 of 2 chunks are missing, chunk 1",
    ),
    (
        "tombstoned",
        |f, _| f.chunks.insert(1, ("0".to_owned(), None)),
        "fetched",
        "1 of 2 chunks are missing, chunk 0",
    ),
    (
        "one-too-many",
        |f, _| f.chunks.insert(0, ("2".to_owned(), Some(vec![0; 10]))),
        "fetched",
        "is not one of 2",
    ),
    (
        "padded-index",
        |f, _| f.chunks[0].0 = "00".to_owned(),
        "fetched",
        "chunk \"00\" of upload",
    ),
    (
        "cut-chunk",
        |f, _| f.chunks[1].1.as_mut().unwrap().truncate(100),
        "fetched",
        "chunk 1 has 100 bytes",
    ),
    (
        "reordered",
        |f, _| {
            let second = f.chunks[1].1.clone();
            f.chunks[0].1 = second;
        },
        "fetched",
        "chunk 0 has ",
    ),
    (
        "flipped-bit",
        |f, _| f.chunks[0].1.as_mut().unwrap()[2000] ^= 1,
        "verified",
        "the artifact has digest sha256:",
    ),
    (
        "elsewhere",
        |f, _| {
            f.no_header = true;
            f.manifest["artifact"]["uri"] = "ftp://models/1.onnx".into();
        },
        "fetched",
        "ftp://models/1.onnx",
    ),
    // ONNX files.
    (
        "cut-file",
        |f, v| {
            let all = std::fs::read(models().join("v1.onnx")).unwrap();
            f.holds(&all[..all.len() / 2], v);
        },
        "compiled",
        "ONNX",
    ),
    (
        "zip",
        |f, v| f.holds(b"PK\x03\x04 a zip, not a model", v),
        "compiled",
        "ONNX",
    ),
    (
        "foreign-domain",
        |f, v| f.holds(&fixture("foreign_domain"), v),
        "compiled",
        "operator com.example.Relu",
    ),
    (
        "external-weights",
        |f, v| f.holds(&fixture("external_weights"), v),
        "compiled",
        "file",
    ),
    (
        "folded-batch",
        |f, v| f.holds(&fixture("folded_batch"), v),
        "compiled",
        "axis",
    ),
    (
        "half-floats",
        |f, v| f.holds(&fixture("float16"), v),
        "compiled",
        "float16",
    ),
    (
        "wrong-shape",
        |f, v| f.holds(&std::fs::read(models().join("v2.onnx")).unwrap(), v),
        "compiled",
        "features",
    ),
    // Contracts and checks.
    (
        "no-such-input",
        |f, _| f.manifest["inputs"][0]["name"] = "x".into(),
        "compiled",
        "input",
    ),
    (
        "no-such-output",
        |f, _| f.manifest["outputs"][0]["name"] = "y".into(),
        "compiled",
        "output",
    ),
    (
        "too-slow",
        |f, _| f.manifest["checks"]["latency"] = json!({"rows": 256, "ms": 1e-6}),
        "warmed_up",
        "scoring 256 events takes",
    ),
    (
        "nothing-to-score",
        |f, _| {
            f.manifest["checks"] = json!({"tolerance": 1e-5, "latency": {"rows": 8, "ms": 5}});
        },
        "warmed_up",
        "checks.latency needs golden rows",
    ),
    (
        "wrong-answer",
        |f, _| f.manifest["checks"]["golden"][0]["outputs"]["late_probability"] = 0.999.into(),
        "checked",
        "golden row 1",
    ),
];

/// The newest report of instance `a` that has refused `revision`.
fn refusal(tail: &mut Tail, revision: i64) -> Value {
    let mut found = Value::Null;
    tail.until_that("the refusal", PATIENCE, |records| {
        let own = records
            .iter()
            .rev()
            .filter(|r| r.key.as_deref() == Some(b"a/late-arrival"));
        let reports = own.filter_map(|r| serde_json::from_slice::<Value>(r.value.as_deref()?).ok());
        let mut refused = reports.filter(|report| report["refused"]["revision"] == revision);
        found = refused.next().unwrap_or_default();
        !found.is_null()
    });
    found
}

fn every_kind_has_its_reason(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let good = world.deploy("1");
    let raw = world
        .run(&["model", "show", "late-arrival", "1", "--raw"])
        .ok();
    let manifest: Value = serde_json::from_str(&raw.stdout)?;
    let onnx = std::fs::read(models().join("v1.onnx"))?;
    let instance = world.start_ready("a");
    let mut status = world.tail_of(&world.registry_topic("status"), 1);
    let mut out = world.tail(&world.output());
    let mut reasons: BTreeMap<String, &str> = BTreeMap::new();
    let start = Instant::now();
    for (nth, (name, spoil, stage, part)) in CASES.iter().enumerate() {
        let mut forged = Forged::good(&manifest, name, &onnx);
        spoil(&mut forged, name);
        let revision = forged.write(&world, name);
        let report = refusal(&mut status, revision);
        let reason = report["refused"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(part), "{name}: {reason}");
        assert_eq!(report["refused"]["stage"], *stage, "{name}: {reason}");
        // The same words for another thing would tell nobody what to do.
        let plain = reason.replace(name, "");
        if let Some(other) = reasons.insert(plain, name) {
            // A tombstone and a chunk that never was are the same to a reader.
            assert_eq!((other, *name), ("all-missing", "tombstoned"), "{reason}");
        }
        world.produce([(0, None, Some(events()[nth % 5].as_slice()))]);
        out.until(nth + 1, PATIENCE);
        let last = predictions(&out.records[nth..]).remove(0);
        assert_eq!((&*last.version, last.revision), ("1", good), "after {name}");
    }
    // Events that nobody can follow freeze the model, each with its reason.
    let deployments = world.registry_topic("deployments");
    for (event, part) in [
        (&b"not json"[..], "unreadable deployment event: expected"),
        (b"{}", "field \"schema\" is missing"),
        (br#"{"schema":"swapstream.deployment/v1","model":"late-arrival","action":"deploy"}"#, "a deploy needs a version"),
        (br#"{"schema":"swapstream.deployment/v1","model":"fraud","action":"deploy","version":"1"}"#, "its value model fraud"),
        (br#"{"schema":"swapstream.deployment/v9","action":"deploy"}"#, "has schema \"swapstream.deployment/v9\""),
    ] {
        let revision = world.append(&deployments, "late-arrival", Some(event.to_vec()), Vec::new());
        let report = refusal(&mut status, revision);
        let reason = report["refused"]["reason"].as_str().unwrap();
        assert!(reason.contains(part), "{reason}");
        assert_eq!(report["serving"]["revision"], good, "{report}");
    }
    eprintln!(
        "{} kinds of bad versions in {:.1?}",
        CASES.len() + 5,
        start.elapsed()
    );
    assert!(CASES.len() >= 25);
    assert!(world.all(&world.dead_letters()).is_empty());
    assert!(instance.ready().is_ok(), "what serves serves on");
    instance.stop();
    Ok(())
}
