//! What nobody needs any more: chunks that no manifest names, and the status of instances that are
//! gone. Pure: the topics' records go in, the keys to tombstone come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::catalog::{Catalog, EntryKind};
use super::fleet::Fleet;

/// The chunks of one upload that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upload {
    keys: BTreeMap<Vec<u8>, u64>,
    newest: i64,
}

impl Upload {
    /// Keys of its chunks.
    pub fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.keys.keys()
    }

    /// Bytes of its chunks.
    pub fn bytes(&self) -> u64 {
        self.keys.values().sum()
    }
}

/// The fold over `model-artifacts`, without the bytes.
#[derive(Debug, Clone, Default)]
pub struct Uploads {
    uploads: BTreeMap<String, Upload>,
}

impl Uploads {
    /// No chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record. A key that is no chunk's is left alone.
    pub fn apply(&mut self, key: Option<&[u8]>, bytes: Option<usize>, timestamp: Option<i64>) {
        let Some(key) = key else { return };
        let upload = std::str::from_utf8(key)
            .ok()
            .and_then(|text| text.split_once('/'))
            .map(|(upload, _)| upload);
        let Some(upload) = upload.filter(|upload| !upload.is_empty()) else {
            return;
        };
        let known = self.uploads.entry(upload.to_owned()).or_default();
        match bytes {
            Some(bytes) => {
                known.keys.insert(key.to_vec(), bytes as u64);
                // A record without a time is as good as new.
                known.newest = known.newest.max(timestamp.unwrap_or(i64::MAX));
            }
            None => {
                known.keys.remove(key);
            }
        }
        if known.keys.is_empty() {
            self.uploads.remove(upload);
        }
    }

    /// Uploads older than `age` at `now` that none of `needed` names.
    pub fn orphans(
        &self,
        needed: &BTreeSet<String>,
        now: i64,
        age: Duration,
    ) -> Vec<(&str, &Upload)> {
        let limit = now.saturating_sub(millis(age));
        self.uploads
            .iter()
            .filter(|(id, upload)| !needed.contains(*id) && upload.newest <= limit)
            .map(|(id, upload)| (id.as_str(), upload))
            .collect()
    }

    /// Number of uploads that are there.
    pub fn len(&self) -> usize {
        self.uploads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.uploads.is_empty()
    }
}

/// The uploads that versions need. An error names a version of which that cannot be told: a later
/// build may have written it, and its chunks must not be taken for orphans.
pub fn needed_uploads(catalog: &Catalog) -> Result<BTreeSet<String>, String> {
    let mut needed = BTreeSet::new();
    for model in catalog.models() {
        for (version, entry) in catalog.versions(model) {
            let unknown = |why: &dyn std::fmt::Display| {
                Err(format!(
                    "which chunks version {version} of {model} needs cannot be told: {why}"
                ))
            };
            match &entry.kind {
                EntryKind::Deleted(_) => continue,
                EntryKind::Unreadable(why) if entry.chunks.is_none() => return unknown(why),
                EntryKind::Unreadable(_) | EntryKind::Manifest(_) => {}
            }
            for set in entry.chunk_sets() {
                match set {
                    Ok(header) => needed.insert(header.upload.clone()),
                    Err(error) => return unknown(error),
                };
            }
        }
    }
    Ok(needed)
}

/// The fold over the keys of `model-status`.
#[derive(Debug, Clone, Default)]
pub struct Attendance {
    instances: BTreeMap<String, (BTreeSet<Vec<u8>>, i64)>,
}

impl Attendance {
    /// Nobody was seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record.
    pub fn apply(&mut self, key: Option<&[u8]>, is_tombstone: bool, timestamp: Option<i64>) {
        let Some((left, right)) = key
            .and_then(|key| std::str::from_utf8(key).ok())
            .and_then(|text| text.split_once('/'))
        else {
            return;
        };
        let instance = if left == "instance" { right } else { left };
        let (keys, seen) = self.instances.entry(instance.to_owned()).or_default();
        let key = key.unwrap_or_default();
        if is_tombstone {
            keys.remove(key);
        } else {
            keys.insert(key.to_vec());
            *seen = (*seen).max(timestamp.unwrap_or(i64::MAX));
        }
        if keys.is_empty() {
            self.instances.remove(instance);
        }
    }

    /// Instances that have written nothing for `age` and that are not live by `fleet`, and the keys of what
    /// they left. What is taken of a live one does not come back before it changes.
    pub fn gone(&self, fleet: &Fleet, now: i64, age: Duration) -> Vec<(&str, &BTreeSet<Vec<u8>>)> {
        let limit = now.saturating_sub(millis(age));
        let live = |id: &str| fleet.instance(id).is_some_and(|view| view.is_live(now));
        self.instances
            .iter()
            .filter(|(id, (_, seen))| *seen <= limit && !live(id))
            .map(|(id, (keys, _))| (id.as_str(), keys))
            .collect()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::catalog::tests::{manifest, record};
    use super::super::chunks::{
        CHUNK_BYTES, CHUNKS_HEADER, CHUNKS_SCHEMA, ChunksHeader, GOLDEN_CHUNKS_HEADER,
    };
    use super::super::status::INSTANCE_SCHEMA;
    use super::*;
    use crate::record::Header;

    const DAY: Duration = Duration::from_hours(24);

    fn catalog(uploads: &[&str]) -> Catalog {
        let mut catalog = Catalog::new();
        for (version, upload) in uploads.iter().enumerate() {
            let version = version.to_string();
            let value = manifest("m", &version, b"x").to_json().unwrap();
            let mut record = record(0, &format!("m/{version}"), Some(value));
            let header = ChunksHeader {
                schema: CHUNKS_SCHEMA.to_owned(),
                upload: (*upload).to_owned(),
                count: 1,
                chunk_bytes: CHUNK_BYTES,
                first_offset: None,
                last_offset: None,
            };
            record.headers = vec![Header::text(
                CHUNKS_HEADER,
                serde_json::to_string(&header).unwrap(),
            )];
            catalog.apply(record);
        }
        catalog
    }

    #[test]
    fn orphans_are_old_and_named_by_no_manifest() {
        let day = millis(DAY);
        let mut uploads = Uploads::new();
        for (key, at) in [("a/0", 0), ("a/1", 5), ("b/0", 0), ("c/0", 0), ("d/0", 6)] {
            uploads.apply(Some(key.as_bytes()), Some(10), Some(at));
        }
        uploads.apply(Some(b"c/0"), None, Some(9));
        uploads.apply(Some(b"foreign"), Some(1), Some(0));
        uploads.apply(Some(b"/0"), Some(1), Some(0));
        let needed = needed_uploads(&catalog(&["b"])).unwrap();
        let found = |now| -> Vec<String> {
            let orphans = uploads.orphans(&needed, now, DAY);
            orphans
                .iter()
                .map(|(id, u)| format!("{id} {} {}", u.keys().count(), u.bytes()))
                .collect()
        };
        assert!(found(day + 4).is_empty());
        assert_eq!(found(day + 5), ["a 2 20"]);
        assert_eq!(found(day + 6), ["a 2 20", "d 1 10"]);
    }

    #[test]
    fn a_golden_file_is_needed_as_well() {
        let mut catalog = Catalog::new();
        let value = manifest("m", "1", b"x").to_json().unwrap();
        let mut record = record(0, "m/1", Some(value));
        let header = |upload: &str| {
            format!(
                r#"{{"schema":"{CHUNKS_SCHEMA}","upload":"{upload}","count":1,"chunk_bytes":1024}}"#
            )
        };
        record.headers = vec![
            Header::text(CHUNKS_HEADER, header("artifact")),
            Header::text(GOLDEN_CHUNKS_HEADER, header("golden")),
        ];
        catalog.apply(record.clone());
        let needed = needed_uploads(&catalog).unwrap();
        assert_eq!(
            needed.into_iter().collect::<Vec<_>>(),
            ["artifact", "golden"]
        );
        record.headers = vec![Header::text(GOLDEN_CHUNKS_HEADER, "{}")];
        catalog.apply(record);
        assert!(needed_uploads(&catalog).is_err());
    }

    #[test]
    fn where_it_cannot_be_told_nothing_is_collected() {
        let mut catalog = catalog(&["a"]);
        let mut later = record(1, "m/9", Some(manifest("m", "9", b"x").to_json().unwrap()));
        later.headers = vec![Header::text(
            CHUNKS_HEADER,
            r#"{"schema":"swapstream.artifact-chunks/v2"}"#,
        )];
        catalog.apply(later);
        assert!(
            needed_uploads(&catalog)
                .unwrap_err()
                .contains("version 9 of m")
        );
        catalog.apply(record(2, "m/9", Some(br#"{"deleted":true}"#.to_vec())));
        assert!(needed_uploads(&catalog).is_ok());
        catalog.apply(record(3, "m/8", Some(b"{}".to_vec())));
        assert!(needed_uploads(&catalog).is_err());
    }

    #[test]
    fn instances_that_are_gone_are_forgotten() {
        let mut seen = Attendance::new();
        seen.apply(Some(b"instance/a"), false, Some(0));
        seen.apply(Some(b"a/m"), false, Some(0));
        seen.apply(Some(b"b/m"), false, Some(0));
        seen.apply(Some(b"instance/b"), false, Some(7));
        seen.apply(Some(b"c/m"), false, Some(0));
        seen.apply(Some(b"c/m"), true, Some(1));
        let gone = seen.gone(&Fleet::new(), millis(DAY), DAY);
        let gone: Vec<_> = gone.iter().map(|(id, keys)| (*id, keys.len())).collect();
        assert_eq!(gone, [("a", 2)]);
        // One that says little is live all the same.
        let mut fleet = Fleet::new();
        let heartbeat = serde_json::json!({
            "schema": INSTANCE_SCHEMA, "instance": "a", "build": "b", "streams": {}, "fingerprint": "f",
            "interval_ms": millis(DAY), "started_at": "", "at": "",
        });
        let heartbeat = heartbeat.to_string();
        fleet.apply(Some(b"instance/a"), Some(heartbeat.as_bytes()), Some(0));
        assert!(seen.gone(&fleet, millis(DAY), DAY).is_empty());
        assert_eq!(seen.gone(&fleet, millis(DAY) * 3, DAY).len(), 2);
    }

    proptest! {
        #[test]
        fn no_chunk_that_is_needed_or_young_is_collected(
            records in prop::collection::vec((0..5_u8, 0..3_u8, any::<bool>(), 0..100_i64), 0..60),
            needed in prop::collection::btree_set(0..5_u8, 0..4), now in 0..200_i64, age in 0..50_u64,
        ) {
            let mut uploads = Uploads::new();
            let mut newest: BTreeMap<Vec<u8>, Option<i64>> = BTreeMap::new();
            for (upload, index, is_there, at) in records {
                let key = format!("{upload}/{index}").into_bytes();
                uploads.apply(Some(&key), is_there.then_some(1), Some(at));
                newest.insert(key, is_there.then_some(at));
            }
            let needed: BTreeSet<String> = needed.iter().map(ToString::to_string).collect();
            for (id, upload) in uploads.orphans(&needed, now, Duration::from_millis(age)) {
                prop_assert!(!needed.contains(id));
                for key in upload.keys() {
                    let at = newest[key].unwrap();
                    prop_assert!(at <= now - age as i64);
                }
            }
        }
    }
}
