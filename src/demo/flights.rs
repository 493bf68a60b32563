//! The sample that ships inside the program: real flights in time order, and two versions of a
//! model that predicts late arrivals.

use std::io::Read;
use std::ops::Range;

use serde::Deserialize;

use super::DemoError;
use crate::model::{GoldenRow, Manifest, ManifestDraft, ModelName, Version};
use crate::registry::finish_manifest;

const EVENTS: &[u8] = include_bytes!("../../models/flights/events.jsonl.gz");

/// The files of one version.
#[derive(Debug)]
pub(super) struct ModelFiles {
    /// The ONNX file.
    pub(super) onnx: &'static [u8],
    manifest: &'static str,
    golden: &'static str,
}

/// From the schedule alone.
pub(super) const FIRST: ModelFiles = ModelFiles {
    onnx: include_bytes!("../../models/flights/v1.onnx"),
    manifest: include_str!("../../models/flights/v1.toml"),
    golden: include_str!("../../models/flights/golden-v1.jsonl"),
};

/// With the weather and the delay at departure.
pub(super) const SECOND: ModelFiles = ModelFiles {
    onnx: include_bytes!("../../models/flights/v2.onnx"),
    manifest: include_str!("../../models/flights/v2.toml"),
    golden: include_str!("../../models/flights/golden-v2.jsonl"),
};

/// The output of both versions that is the prediction.
pub(super) const OUTPUT: &str = "late_probability";

impl ModelFiles {
    /// The manifest as `model publish` would write it.
    pub(super) fn manifest(&self) -> Result<Manifest, DemoError> {
        let bad = |error: &dyn std::fmt::Display| DemoError::Sample(format!("a model: {error}"));
        let mut draft = ManifestDraft::from_toml(self.manifest).map_err(|e| bad(&e))?;
        draft.checks.golden_file = None;
        let rows: Result<Vec<GoldenRow>, _> =
            self.golden.lines().map(serde_json::from_str).collect();
        let model: Option<ModelName> = draft.model.clone();
        let version: Option<Version> = draft.version.clone();
        let (Some(model), Some(version)) = (model, version) else {
            return Err(bad(&"its manifest names no model and version"));
        };
        Ok(finish_manifest(
            draft,
            model,
            version,
            self.onnx,
            rows.map_err(|e| bad(&e))?,
        ))
    }
}

/// The events, decompressed.
#[derive(Debug)]
pub(super) struct Flights {
    text: Vec<u8>,
    events: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    value: Range<usize>,
    key: String,
    late: bool,
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight<'a> {
    /// Its key, the flight's id.
    pub(super) key: &'a [u8],
    /// The event, JSON.
    pub(super) value: &'a [u8],
    /// Its label: whether the flight arrived late.
    pub(super) late: bool,
}

#[derive(Deserialize)]
struct Fields {
    flight_id: String,
    arrived_late: bool,
}

impl Flights {
    /// Reads the sample.
    pub(super) fn load() -> Result<Self, DemoError> {
        let bad = |error: &dyn std::fmt::Display| DemoError::Sample(format!("the events: {error}"));
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(EVENTS)
            .read_to_end(&mut text)
            .map_err(|e| bad(&e))?;
        let mut events = Vec::new();
        let mut start = 0;
        for line in text.split(|byte| *byte == b'\n') {
            let value = start..start + line.len();
            start = value.end + 1;
            if !line.is_empty() {
                let fields: Fields = serde_json::from_slice(line).map_err(|e| bad(&e))?;
                events.push(Line {
                    value,
                    key: fields.flight_id,
                    late: fields.arrived_late,
                });
            }
        }
        if events.is_empty() {
            return Err(bad(&"there are none"));
        }
        Ok(Self { text, events })
    }

    /// The event with index `number`, where the sample begins anew at its end.
    pub(super) fn index(&self, number: u64) -> usize {
        (number % self.events.len().max(1) as u64) as usize
    }

    /// The event with this index.
    pub(super) fn get(&self, index: usize) -> Option<Flight<'_>> {
        let line = self.events.get(index)?;
        let value = self.text.get(line.value.clone())?;
        Some(Flight {
            key: line.key.as_bytes(),
            value,
            late: line.late,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_whole() {
        let flights = Flights::load().unwrap();
        assert_eq!(flights.events.len(), 53_991);
        assert_eq!(flights.index(53_992), 1);
        let first = flights.get(0).unwrap();
        assert_eq!(first.key, b"US1895-2013-11-01-EWR");
        assert!(first.value.starts_with(b"{") && first.value.ends_with(b"}"));
        let late = (0..53_991)
            .filter(|i| flights.get(*i).unwrap().late)
            .count();
        assert!((5_000..20_000).contains(&late), "{late}");
        assert!(flights.get(53_991).is_none());
    }

    #[test]
    fn both_versions_are_of_one_model_and_have_golden_rows() {
        let (first, second) = (FIRST.manifest().unwrap(), SECOND.manifest().unwrap());
        assert_eq!(first.model, second.model);
        assert_ne!(first.version, second.version);
        for manifest in [first, second] {
            assert!(!manifest.checks.golden.is_empty());
            assert!(
                manifest
                    .outputs
                    .iter()
                    .any(|output| { output.rename.as_deref().unwrap_or(&output.name) == OUTPUT })
            );
        }
    }
}
