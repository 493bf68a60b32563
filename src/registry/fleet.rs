//! The view of the fleet that the records of `model-status` fold to. Pure: time comes in as an
//! argument.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::status::{Desired, Heartbeat, INSTANCE_SCHEMA, ModelReport, STATUS_SCHEMA, StatusEntry};
use crate::model::ModelName;

/// An instance whose heartbeat is older than so many of its intervals is not live.
const LIVE_INTERVALS: u64 = 3;

/// An instance as the topic tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Its newest heartbeat.
    pub heartbeat: Heartbeat,
    /// When the broker took it, milliseconds since 1970.
    pub seen_at: i64,
}

impl InstanceView {
    /// Whether it was alive at `now` (milliseconds since 1970).
    pub fn is_live(&self, now: i64) -> bool {
        is_fresh(self.seen_at, self.heartbeat.interval_ms, now)
    }
}

/// Whether an instance that is heard of at every interval, last `seen_at`, may be alive at `now`.
pub(super) fn is_fresh(seen_at: i64, interval_ms: u64, now: i64) -> bool {
    let limit = interval_ms.saturating_mul(LIVE_INTERVALS);
    now.saturating_sub(seen_at) < i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The fold over `model-status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    instances: BTreeMap<String, InstanceView>,
    entries: BTreeMap<(ModelName, String), StatusEntry>,
}

#[derive(Deserialize)]
struct Head {
    schema: String,
}

impl Fleet {
    /// No instances.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record; what this build cannot read is passed over.
    pub fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: Option<i64>) {
        let Some((left, right)) = key
            .and_then(|key| std::str::from_utf8(key).ok())
            .and_then(|key| key.split_once('/'))
        else {
            return;
        };
        let Some(value) = value else {
            if left == "instance" {
                self.instances.remove(right);
            }
            if let Ok(model) = ModelName::new(right) {
                self.entries.remove(&(model, left.to_owned()));
            }
            return;
        };
        match serde_json::from_slice::<Head>(value) {
            Ok(head) if head.schema == INSTANCE_SCHEMA => {
                if let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(value) {
                    let seen_at = timestamp.unwrap_or(0);
                    let id = heartbeat.instance.clone();
                    self.instances
                        .insert(id, InstanceView { heartbeat, seen_at });
                }
            }
            Ok(head) if head.schema == STATUS_SCHEMA => {
                if let Ok(entry) = serde_json::from_slice::<StatusEntry>(value) {
                    let key = (entry.model.clone(), entry.instance.clone());
                    self.entries.insert(key, entry);
                }
            }
            _ => {}
        }
    }

    /// The instance `id`.
    pub fn instance(&self, id: &str) -> Option<&InstanceView> {
        self.instances.get(id)
    }

    /// The live instance whose id is the first.
    pub fn first_live(&self, now: i64) -> Option<&String> {
        let mut live = self.instances.iter().filter(|(_, view)| view.is_live(now));
        live.next().map(|(id, _)| id)
    }

    /// All instances, by id.
    pub fn instances(&self) -> impl Iterator<Item = (&String, &InstanceView)> {
        self.instances.iter()
    }

    /// What `instance` said last about `model`.
    pub fn entry(&self, model: &ModelName, instance: &str) -> Option<&StatusEntry> {
        self.entries.get(&(model.clone(), instance.to_owned()))
    }

    /// Every model that an instance has said something about or has a stream for.
    pub fn models(&self) -> Vec<&ModelName> {
        let streams = self
            .instances
            .values()
            .flat_map(|i| i.heartbeat.streams.values());
        let mut all: Vec<_> = self
            .entries
            .keys()
            .map(|(model, _)| model)
            .chain(streams)
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// The live instances with a stream for `model`, each with what it said last.
    pub fn live<'a>(
        &'a self,
        model: &'a ModelName,
        now: i64,
    ) -> impl Iterator<Item = (&'a str, Option<&'a StatusEntry>)> {
        self.instances
            .iter()
            .filter(move |(_, view)| {
                view.is_live(now) && view.heartbeat.streams.values().any(|m| m == model)
            })
            .map(move |(id, _)| (id.as_str(), self.entry(model, id)))
    }

    /// How far the live instances are with what the log wants: `desired` (none after an
    /// undeploy), decided by the event at `revision`.
    pub fn convergence(&self, model: &ModelName, want: Option<&Desired>, now: i64) -> Convergence {
        let mut result = Convergence::default();
        for (id, entry) in self.live(model, now) {
            let report = entry.map(|entry| &entry.report);
            let serving = report.and_then(|r| r.serving.as_ref());
            let desired = report.and_then(|r| r.desired.as_ref());
            let settled = match want {
                None => report.is_some() && desired.is_none() && serving.is_none(),
                Some(want) => serving.is_some_and(|s| s.revision == want.revision),
            };
            let refused = report.and_then(|r| r.refused.as_ref()).filter(|refused| {
                want.is_some_and(|want| {
                    desired == Some(want) && refused.version.as_ref() == Some(&want.version)
                })
            });
            if settled {
                result.done.push(id.to_owned());
            } else if let Some(refused) = refused {
                let why = format!("refused, not {}: {}", refused.stage, refused.reason);
                result.refused.push((id.to_owned(), why));
            } else {
                result.waiting.push((id.to_owned(), doing(report, want)));
            }
        }
        result
    }
}

fn doing(report: Option<&ModelReport>, want: Option<&Desired>) -> String {
    match report {
        None => "has not reported on it yet".to_owned(),
        Some(ModelReport {
            working_on: Some(work),
            ..
        }) => {
            let error = work
                .error
                .as_deref()
                .map(|e| format!(": {e}"))
                .unwrap_or_default();
            format!(
                "is working on version {} ({}){error}",
                work.version, work.state
            )
        }
        Some(ModelReport {
            refused: Some(refused),
            ..
        }) if refused.version.is_none() => refused.reason.clone(),
        Some(report) if report.desired.as_ref() != want => "has not seen the event yet".to_owned(),
        Some(_) => "has not begun yet".to_owned(),
    }
}

/// How far the live instances of a model are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Convergence {
    /// Instances that serve what is wanted.
    pub done: Vec<String>,
    /// Instances on their way, and what they do.
    pub waiting: Vec<(String, String)>,
    /// Instances that refused it, and why.
    pub refused: Vec<(String, String)>,
}

impl Convergence {
    /// Whether there is a live instance and all of them serve what is wanted.
    pub fn is_converged(&self) -> bool {
        !self.done.is_empty() && self.waiting.is_empty() && self.refused.is_empty()
    }

    /// Whether nobody is on its way any more, and somebody has refused it.
    pub fn is_stuck(&self) -> bool {
        !self.refused.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::super::status::{RefusedReport, ServingReport};
    use super::*;
    use crate::model::{Digest, Version};

    fn heartbeat(id: &str, model: &str) -> Heartbeat {
        Heartbeat {
            schema: INSTANCE_SCHEMA.to_owned(),
            instance: id.to_owned(),
            build: "0".to_owned(),
            streams: BTreeMap::from([("s".to_owned(), ModelName::new(model).unwrap())]),
            fingerprint: String::new(),
            interval_ms: 10_000,
            started_at: String::new(),
            at: String::new(),
        }
    }

    fn entry(id: &str, report: ModelReport) -> StatusEntry {
        StatusEntry {
            schema: STATUS_SCHEMA.to_owned(),
            instance: id.to_owned(),
            model: ModelName::new("m").unwrap(),
            report,
            at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    fn put(fleet: &mut Fleet, key: &str, value: Option<&impl Serialize>, at: i64) {
        let json = value.map(|v| serde_json::to_vec(v).unwrap());
        fleet.apply(Some(key.as_bytes()), json.as_deref(), Some(at));
    }

    fn serving(revision: i64, version: &str) -> ServingReport {
        ServingReport {
            version: Version::new(version).unwrap(),
            digest: Digest::of(b"x"),
            revision,
            runtime: "tract".to_owned(),
            batch_invariant: true,
        }
    }

    fn desired(revision: i64, version: &str) -> Desired {
        Desired {
            version: Version::new(version).unwrap(),
            revision,
        }
    }

    #[test]
    fn an_entry_has_the_form_of_the_design() {
        let json = serde_json::to_value(entry("i", ModelReport::default())).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "schema",
                "instance",
                "model",
                "desired",
                "serving",
                "working_on",
                "refused",
                "at"
            ]
        );
        assert!(json["desired"].is_null() && json["refused"].is_null());
        let back: StatusEntry = serde_json::from_value(json).unwrap();
        assert_eq!(back, entry("i", ModelReport::default()));
    }

    #[test]
    fn live_is_younger_than_three_intervals_and_tombstones_take_away() {
        let mut fleet = Fleet::new();
        let model = ModelName::new("m").unwrap();
        put(&mut fleet, "instance/a", Some(&heartbeat("a", "m")), 1_000);
        put(
            &mut fleet,
            "a/m",
            Some(&entry("a", ModelReport::default())),
            1_000,
        );
        put(
            &mut fleet,
            "instance/b",
            Some(&heartbeat("b", "other")),
            1_000,
        );
        fleet.apply(
            Some(b"instance/c"),
            Some(b"{\"schema\":\"later/v9\"}"),
            Some(1),
        );
        fleet.apply(Some(b"c/m"), Some(b"\xff"), Some(1));
        fleet.apply(None, None, None);
        let live = |fleet: &Fleet, now| {
            fleet
                .live(&model, now)
                .map(|(id, _)| id.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(live(&fleet, 30_999), ["a"]);
        assert!(live(&fleet, 31_000).is_empty());
        assert_eq!(fleet.models().len(), 2);
        put(&mut fleet, "instance/a", None::<&()>, 0);
        put(&mut fleet, "a/m", None::<&()>, 0);
        assert!(live(&fleet, 0).is_empty());
        assert!(fleet.entry(&model, "a").is_none());
    }

    #[test]
    fn converged_is_when_all_live_instances_serve_the_wanted_revision() {
        let model = ModelName::new("m").unwrap();
        let want = desired(5, "2");
        let mut fleet = Fleet::new();
        let see = |fleet: &Fleet, want: Option<&Desired>| fleet.convergence(&model, want, 0);
        assert!(!see(&fleet, Some(&want)).is_converged(), "nobody is there");
        let good = ModelReport {
            desired: Some(want.clone()),
            serving: Some(serving(5, "2")),
            ..ModelReport::default()
        };
        put(&mut fleet, "instance/a", Some(&heartbeat("a", "m")), 0);
        put(&mut fleet, "a/m", Some(&entry("a", good.clone())), 0);
        assert!(see(&fleet, Some(&want)).is_converged());
        assert_eq!(see(&fleet, None).waiting.len(), 1);

        put(&mut fleet, "instance/b", Some(&heartbeat("b", "m")), 0);
        assert!(
            see(&fleet, Some(&want)).waiting[0]
                .1
                .contains("not reported")
        );
        let old = ModelReport {
            desired: Some(desired(3, "2")),
            serving: Some(serving(1, "1")),
            refused: Some(RefusedReport {
                version: Some(want.version.clone()),
                revision: Some(3),
                stage: "compiled".to_owned(),
                reason: "bad".to_owned(),
            }),
            ..ModelReport::default()
        };
        put(&mut fleet, "b/m", Some(&entry("b", old.clone())), 0);
        let now = see(&fleet, Some(&want));
        assert!(now.refused.is_empty(), "that was the event before");
        assert!(now.waiting[0].1.contains("not seen"));
        let refused = ModelReport {
            desired: Some(want.clone()),
            ..old
        };
        put(&mut fleet, "b/m", Some(&entry("b", refused)), 0);
        assert!(see(&fleet, Some(&want)).refused[0].1.contains("bad"));
        put(&mut fleet, "b/m", Some(&entry("b", good)), 0);
        assert!(see(&fleet, Some(&want)).is_converged());
        put(
            &mut fleet,
            "a/m",
            Some(&entry("a", ModelReport::default())),
            0,
        );
        put(
            &mut fleet,
            "b/m",
            Some(&entry("b", ModelReport::default())),
            0,
        );
        assert!(see(&fleet, None).is_converged());
    }
}
