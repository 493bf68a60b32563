//! The readers of the registry's records: no crash, and what was read is written and read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swapstream::model::{Manifest, ManifestDraft, ModelName};
use swapstream::record::OwnedRecord;
use swapstream::registry::{Catalog, ChunksHeader, DeploymentEvent, DeploymentLog, Fleet};

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, value)) = bytes.split_first() else {
        return;
    };
    let model: ModelName = "m".parse().expect("a name");
    match first % 6 {
        0 => {
            if let Ok(manifest) = Manifest::from_json(value)
                && let Ok(written) = manifest.to_json()
            {
                let again = Manifest::from_json(&written).expect("what was written is read");
                assert_eq!(written, again.to_json().expect("written once"));
            }
        }
        1 => drop(ManifestDraft::from_json(value)),
        2 => {
            if let Ok(text) = std::str::from_utf8(value) {
                drop(ManifestDraft::from_toml(text));
            }
        }
        3 => {
            if let Ok(event) = DeploymentEvent::parse(&model, Some(value)) {
                let written = event.to_json().expect("written");
                let again = DeploymentEvent::parse(&model, Some(&written)).expect("read");
                assert_eq!(event, again);
            }
            let mut log = DeploymentLog::new();
            log.apply(0, Some(b"m"), Some(value), None);
            log.apply(1, Some(b"m"), Some(value), Some(0));
        }
        4 => drop(ChunksHeader::parse(Some(value))),
        _ => {
            let mut fleet = Fleet::new();
            fleet.apply(Some(b"instance/i"), Some(value), None);
            fleet.apply(Some(b"i/m"), Some(value), Some(0));
            let mut catalog = Catalog::new();
            catalog.apply(OwnedRecord {
                topic: "model-versions".to_owned(),
                partition: 0,
                offset: 0,
                timestamp: None,
                key: Some(b"m/1".to_vec()),
                value: Some(value.to_vec()),
                headers: Vec::new(),
            });
        }
    }
});
