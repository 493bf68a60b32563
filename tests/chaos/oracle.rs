//! What each answer must be, byte by byte: each version's outputs come from `swapstream score`
//! on the same events, long before anything is broken.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::value::RawValue;
use swapstream::record::OwnedRecord;

use super::event::{HEADER, Kind, Mark};
use super::verifier::{Answer, Outlet};
use crate::support::bin;

/// The model of the run.
pub const MODEL: &str = "late-arrival";

/// A version: its digest, and its outputs for each sample event as JSON text.
#[derive(Debug, Clone)]
struct Known {
    digest: String,
    outputs: Vec<String>,
    flight_ids: Vec<String>,
}

/// Knows every version's answer to every event.
#[derive(Debug, Clone)]
pub struct Oracle {
    pub samples: Vec<String>,
    /// Which version each revision deployed; not compared while it is empty.
    pub log: BTreeMap<i64, String>,
    versions: HashMap<String, Known>,
    input_topic: String,
}

#[derive(Deserialize)]
struct Scored<'a> {
    digest: &'a str,
    #[serde(borrow)]
    outputs: &'a RawValue,
    include: Include<'a>,
}

#[derive(Deserialize)]
struct Include<'a> {
    #[serde(borrow)]
    flight_id: &'a RawValue,
}

#[derive(Deserialize)]
struct Prediction<'a> {
    version: &'a str,
    revision: i64,
    input: From,
}

#[derive(Deserialize)]
struct From {
    partition: usize,
    offset: i64,
}

impl Oracle {
    /// Asks each of `versions` (name, model file, manifest) for its answers.
    pub fn new(samples: Vec<String>, versions: &[(&str, &Path, &Path)], input_topic: &str) -> Self {
        let known = versions.iter().map(|(name, model, manifest)| {
            let known = score(&samples, model, manifest);
            ((*name).to_owned(), known)
        });
        Self {
            versions: known.collect(),
            samples,
            log: BTreeMap::new(),
            input_topic: input_topic.to_owned(),
        }
    }

    /// Reads an answer and says what is wrong with it.
    pub fn judge(&self, outlet: Outlet, record: &OwnedRecord) -> Result<Answer, String> {
        let place = || {
            format!(
                "{}-{} offset {}",
                record.topic, record.partition, record.offset
            )
        };
        let mark = mark_of(record).ok_or_else(|| format!("{}: no mark of its input", place()))?;
        let read = match outlet {
            Outlet::Predictions => self.prediction(record, mark),
            Outlet::DeadLetters => self.dead_letter(record, mark),
        };
        let (of, revision, wrong) = read.map_err(|what| format!("{}: {what}", place()))?;
        Ok(Answer {
            outlet,
            partition: record.partition as usize,
            offset: record.offset,
            of,
            key: mark.key,
            seq: mark.seq,
            revision,
            wrong,
            fingerprint: fingerprint(record),
        })
    }

    fn prediction(&self, record: &OwnedRecord, mark: Mark) -> Result<Read, String> {
        let value = record.value.as_deref().ok_or("a tombstone")?;
        let said: Prediction<'_> =
            serde_json::from_slice(value).map_err(|error| format!("no prediction: {error}"))?;
        let of = (said.input.partition, said.input.offset);
        let wrong = match self.versions.get(said.version) {
            None => Some(format!("version {} should never serve", said.version)),
            Some(_) if !self.deployed(&said) => {
                let Prediction {
                    revision, version, ..
                } = said;
                Some(format!(
                    "revision {revision} did not deploy version {version}"
                ))
            }
            Some(_) if mark.kind != Kind::Good => Some(format!("{mark:?} was scored")),
            Some(known) => {
                let wanted = self.expected(known, &said, mark, record.timestamp);
                (wanted.as_bytes() != value).then(|| {
                    let found = String::from_utf8_lossy(value);
                    format!("version {} gives {wanted} and not {found}", said.version)
                })
            }
        };
        let wrong = wrong.or_else(|| wrong_key(record, mark));
        Ok((of, Some(said.revision), wrong))
    }

    fn deployed(&self, said: &Prediction<'_>) -> bool {
        let version = self.log.get(&said.revision);
        self.log.is_empty() || version.is_some_and(|version| version == said.version)
    }

    fn expected(
        &self,
        known: &Known,
        said: &Prediction<'_>,
        mark: Mark,
        timestamp: Option<i64>,
    ) -> String {
        let sample = mark.sample(self.samples.len());
        format!(
            "{{\"schema\":\"swapstream.prediction/v1\",\"model\":\"{MODEL}\",\"version\":\"{}\",\
             \"digest\":\"{}\",\"revision\":{},\"outputs\":{},\"input\":{{\"topic\":\"{}\",\
             \"partition\":{},\"offset\":{},\"timestamp\":{}}},\"include\":{{\"k\":{},\"seq\":{},\
             \"flight_id\":{}}}}}",
            said.version,
            known.digest,
            said.revision,
            known.outputs[sample],
            self.input_topic,
            said.input.partition,
            said.input.offset,
            timestamp.unwrap_or(-1),
            mark.key,
            mark.seq,
            known.flight_ids[sample],
        )
    }

    fn dead_letter(&self, record: &OwnedRecord, mark: Mark) -> Result<Read, String> {
        let text = |name: &str| header(record, &format!("__swapstream.errors.{name}"));
        let number = |name: &str| -> Result<i64, String> {
            let value = text(name).ok_or_else(|| format!("no header {name}"))?;
            value.parse().map_err(|_| format!("{name} is {value}"))
        };
        let of = (number("partition")? as usize, number("offset")?);
        let wanted = mark.kind.refusal();
        let found = text("stage").zip(text("class"));
        let wrong = if found != wanted {
            Some(format!(
                "{mark:?} is refused as {found:?} and not {wanted:?}"
            ))
        } else if record.value != mark.value(&self.samples) {
            Some(format!("the bytes of {mark:?} have changed"))
        } else {
            wrong_key(record, mark)
        };
        Ok((of, None, wrong))
    }
}

/// The input's place, the revision, and what is wrong.
type Read = ((usize, i64), Option<i64>, Option<String>);

fn wrong_key(record: &OwnedRecord, mark: Mark) -> Option<String> {
    let wanted = mark.record_key();
    (record.key.as_deref() != Some(wanted.as_bytes()))
        .then(|| format!("key {:?} and not {wanted}", record.key))
}

/// The mark of an input or of an answer.
pub fn mark_of(record: &OwnedRecord) -> Option<Mark> {
    Mark::parse(header(record, HEADER)?)
}

fn header<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    let found = record.headers.iter().find(|header| header.key == name)?;
    str::from_utf8(found.value.as_deref()?).ok()
}

/// FNV-1a over key, value and headers.
fn fingerprint(record: &OwnedRecord) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: Option<&[u8]>| {
        for byte in bytes.unwrap_or(b"\0null").iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    add(record.key.as_deref());
    add(record.value.as_deref());
    for header in &record.headers {
        add(Some(header.key.as_bytes()));
        add(header.value.as_deref());
    }
    hash
}

fn score(samples: &[String], model: &Path, manifest: &Path) -> Known {
    let mut child = Command::new(bin())
        .args(["score", "--include", "flight_id", "--model"])
        .arg(model)
        .arg("--manifest")
        .arg(manifest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("swapstream starts");
    let events = samples.join("\n") + "\n";
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer =
        std::thread::spawn(move || std::io::Write::write_all(&mut stdin, events.as_bytes()));
    let done = child.wait_with_output().expect("swapstream ends");
    writer
        .join()
        .expect("no panic")
        .expect("the events are taken");
    assert!(done.status.success(), "score: {}", done.status);
    let text = String::from_utf8(done.stdout).expect("JSON is UTF-8");
    let lines: Vec<Scored<'_>> = { text.lines() }
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert_eq!(lines.len(), samples.len(), "one answer for each event");
    Known {
        digest: lines[0].digest.to_owned(),
        outputs: lines
            .iter()
            .map(|line| line.outputs.get().to_owned())
            .collect(),
        flight_ids: { lines.iter() }
            .map(|line| line.include.flight_id.get().to_owned())
            .collect(),
    }
}
