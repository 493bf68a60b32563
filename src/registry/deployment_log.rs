//! The fold over `model-deployments`: it alone decides what is to serve, and every reader folds
//! alike. Pure, and its rules never change: old logs must read the same for ever.
//!
//! 1. An event with `if_revision` is *void* unless that is the revision of the model's last
//!    effective event (−1: none). A rollback without `if_revision` is void.
//! 2. An effective deploy or rollback adds a *candidate*; an effective undeploy removes them all.
//! 3. An event that this build cannot follow *freezes* its model: the candidates stay as they
//!    were. After an unknown action or schema, whether later events are effective cannot be told,
//!    until an undeploy without `if_revision`, which ends whatever there was. An unreadable event
//!    is unreadable to every build, so the next effective event ends that freeze.
//! 4. A record whose key is no model's name belongs to no model and is ignored.

use std::collections::BTreeMap;

use super::deployment::{Action, DeploymentEvent, EventError};
use crate::model::{Digest, ModelName, Version};

/// A version that the log wants to serve, or wanted and falls back on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Offset of the event.
    pub revision: i64,
    /// The version.
    pub version: Version,
    /// The digest that the event names.
    pub digest: Option<Digest>,
}

/// What an event came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Effective,
    /// It does not count, for this reason.
    Void(String),
    /// This build cannot follow it.
    NotFollowed(String),
}

impl Outcome {
    /// Whether the event counts.
    pub fn is_effective(&self) -> bool {
        matches!(self, Self::Effective)
    }
}

/// One event with what it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Offset of the event.
    pub revision: i64,
    /// The record's timestamp, milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The event; `None` where it cannot be read.
    pub event: Option<DeploymentEvent>,
    /// What it came to.
    pub outcome: Outcome,
}

/// Why a model's candidates stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Offset of the event that cannot be followed.
    pub revision: i64,
    /// Why not.
    pub reason: String,
    /// Whether a later build may be able to follow it.
    pub unknown: bool,
}

/// What the log says about one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLog {
    candidates: Vec<Candidate>,
    last_effective: i64,
    floor: i64,
    frozen: Option<Frozen>,
    history: Vec<HistoryEntry>,
}

impl Default for ModelLog {
    fn default() -> Self {
        Self {
            candidates: Vec::new(),
            last_effective: -1,
            floor: -1,
            frozen: None,
            history: Vec::new(),
        }
    }
}

impl ModelLog {
    /// Effective deploys and rollbacks since the last undeploy, newest first.
    pub fn candidates(&self) -> impl DoubleEndedIterator<Item = &Candidate> {
        self.candidates.iter().rev()
    }

    /// The newest candidate: what is to serve.
    pub fn desired(&self) -> Option<&Candidate> {
        self.candidates.last()
    }

    /// The candidate of `revision`.
    pub fn candidate(&self, revision: i64) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.revision == revision)
    }

    /// Revision of the last effective event; −1: none.
    pub fn last_effective(&self) -> i64 {
        self.last_effective
    }

    /// The effective revision just before the candidate of `revision`.
    pub fn effective_before(&self, revision: i64) -> i64 {
        self.candidates
            .iter()
            .rev()
            .map(|c| c.revision)
            .find(|r| *r < revision)
            .unwrap_or(self.floor)
    }

    /// Why the model's candidates stay as they are, if they do.
    pub fn frozen(&self) -> Option<&Frozen> {
        self.frozen.as_ref()
    }

    /// Every event, oldest first.
    pub fn history(&self) -> &[HistoryEntry] {
        &self.history
    }

    /// The event at `revision`.
    pub fn entry(&self, revision: i64) -> Option<&HistoryEntry> {
        self.history.iter().find(|e| e.revision == revision)
    }

    fn apply(&mut self, revision: i64, event: &DeploymentEvent) -> Outcome {
        let ends_all = event.action == Action::Undeploy && event.if_revision.is_none();
        if let Some(frozen) = self.frozen.as_ref().filter(|f| f.unknown && !ends_all) {
            let at = frozen.revision;
            return Outcome::NotFollowed(format!("the model is frozen by the event at {at}"));
        }
        let last = self.last_effective;
        match event.if_revision {
            Some(expected) if expected != last => {
                return Outcome::Void(format!(
                    "it expects revision {expected}, the last effective one was {last}"
                ));
            }
            None if event.action == Action::Rollback => {
                return Outcome::Void("a rollback without if_revision".to_owned());
            }
            _ => {}
        }
        if let (Action::Deploy | Action::Rollback, Some(version)) = (event.action, &event.version) {
            self.candidates.push(Candidate {
                revision,
                version: version.clone(),
                digest: event.digest,
            });
        } else {
            self.candidates.clear();
            self.floor = revision;
        }
        self.frozen = None;
        self.last_effective = revision;
        Outcome::Effective
    }

    fn freeze(&mut self, revision: i64, error: &EventError) -> Outcome {
        let unknown = !matches!(error, EventError::Unreadable(_));
        let reason = error.to_string();
        // What cannot be told because of the first unknown event stays so.
        if !self.frozen.as_ref().is_some_and(|f| f.unknown) {
            self.frozen = Some(Frozen {
                revision,
                reason: reason.clone(),
                unknown,
            });
        }
        Outcome::NotFollowed(reason)
    }
}

/// What a record did to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It belongs to this model.
    Model(ModelName),
    /// It belongs to no model, for this reason.
    Ignored(String),
}

/// The fold over the deployment log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeploymentLog {
    models: BTreeMap<ModelName, ModelLog>,
    next: i64,
}

impl DeploymentLog {
    /// The log of no records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record. A record that was already taken is ignored.
    pub fn apply(
        &mut self,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Option<i64>,
    ) -> Applied {
        if offset < self.next {
            return Applied::Ignored(format!("offset {offset} was read before"));
        }
        self.next = offset + 1;
        let name = key
            .and_then(|key| std::str::from_utf8(key).ok())
            .and_then(|key| ModelName::new(key).ok());
        let Some(model) = name else {
            return Applied::Ignored(format!("the key at offset {offset} is no model's name"));
        };
        let log = self.models.entry(model.clone()).or_default();
        let (event, outcome) = match DeploymentEvent::parse(&model, value) {
            Ok(event) => {
                let outcome = log.apply(offset, &event);
                (Some(event), outcome)
            }
            Err(error) => (None, log.freeze(offset, &error)),
        };
        log.history.push(HistoryEntry {
            revision: offset,
            timestamp,
            event,
            outcome,
        });
        Applied::Model(model)
    }

    /// What the log says about `model`; `None`: nothing.
    pub fn model(&self, model: &ModelName) -> Option<&ModelLog> {
        self.models.get(model)
    }

    /// All models that the log names.
    pub fn models(&self) -> impl Iterator<Item = (&ModelName, &ModelLog)> {
        self.models.iter()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// One record of a random log.
    #[derive(Debug, Clone)]
    pub(crate) enum Step {
        Deploy(u8, Option<i64>),
        Rollback(u8, Option<i64>),
        Undeploy(Option<i64>),
        Unknown,
        Broken,
    }

    pub(crate) fn value(model: &str, step: &Step) -> Vec<u8> {
        let event = |action: &str, version: Option<u8>, expected: Option<i64>| {
            let mut event =
                json!({"schema": "swapstream.deployment/v1", "action": action, "model": model});
            if let Some(version) = version {
                event["version"] = json!(version.to_string());
            }
            if let Some(expected) = expected {
                event["if_revision"] = json!(expected);
            }
            event.to_string().into_bytes()
        };
        match step {
            Step::Deploy(version, expected) => event("deploy", Some(*version), *expected),
            Step::Rollback(version, expected) => event("rollback", Some(*version), *expected),
            Step::Undeploy(expected) => event("undeploy", None, *expected),
            Step::Unknown => event("canary", Some(1), None),
            Step::Broken => b"{".to_vec(),
        }
    }

    pub(crate) fn step() -> impl Strategy<Value = Step> {
        let expected = || prop_oneof![2 => Just(None), 1 => (-1..12_i64).prop_map(Some)];
        prop_oneof![
            6 => (0..4_u8, expected()).prop_map(|(v, e)| Step::Deploy(v, e)),
            2 => (0..4_u8, expected()).prop_map(|(v, e)| Step::Rollback(v, e)),
            2 => expected().prop_map(Step::Undeploy),
            1 => Just(Step::Unknown),
            1 => Just(Step::Broken),
        ]
    }

    pub(crate) fn fold<'a>(steps: impl IntoIterator<Item = (i64, &'a Step)>) -> DeploymentLog {
        let mut log = DeploymentLog::new();
        for (offset, step) in steps {
            log.apply(offset, Some(b"m"), Some(&value("m", step)), Some(offset));
        }
        log
    }

    fn at(log: &DeploymentLog) -> ModelLog {
        let model = ModelName::new("m").unwrap();
        log.model(&model).cloned().unwrap_or_default()
    }

    fn revisions(log: &ModelLog) -> Vec<i64> {
        log.candidates().map(|c| c.revision).collect()
    }

    #[test]
    fn candidates_are_the_effective_deploys_since_the_last_undeploy() {
        let steps = [
            Step::Deploy(1, None),
            Step::Undeploy(Some(0)),
            Step::Deploy(2, Some(-1)),
            Step::Deploy(2, Some(1)),
            Step::Deploy(3, Some(3)),
            Step::Rollback(2, None),
            Step::Rollback(2, Some(4)),
        ];
        let log = at(&fold((0..).zip(&steps)));
        assert_eq!(revisions(&log), [6, 4, 3]);
        assert_eq!(log.last_effective(), 6);
        assert_eq!(log.desired().unwrap().version.as_str(), "2");
        let void: Vec<i64> = log
            .history()
            .iter()
            .filter(|e| matches!(e.outcome, Outcome::Void(_)))
            .map(|e| e.revision)
            .collect();
        assert_eq!(void, [2, 5]);
        assert_eq!(log.effective_before(4), 3);
        assert_eq!(log.effective_before(3), 1);
    }

    #[test]
    fn an_unknown_event_freezes_until_all_is_undeployed() {
        let mut steps = vec![Step::Deploy(1, None), Step::Unknown, Step::Deploy(2, None)];
        let log = at(&fold((0..).zip(&steps)));
        assert_eq!(revisions(&log), [0]);
        assert_eq!(log.frozen().unwrap().revision, 1);
        steps.extend([
            Step::Undeploy(Some(0)),
            Step::Undeploy(None),
            Step::Deploy(3, Some(4)),
        ]);
        let log = at(&fold((0..).zip(&steps)));
        assert_eq!(revisions(&log), [5]);
        assert_eq!(log.frozen(), None);
    }

    #[test]
    fn an_unreadable_event_freezes_until_the_next_effective_one() {
        let mut steps = vec![
            Step::Deploy(1, None),
            Step::Broken,
            Step::Deploy(2, Some(7)),
        ];
        assert!(at(&fold((0..).zip(&steps))).frozen().is_some());
        steps.push(Step::Deploy(2, Some(0)));
        let log = at(&fold((0..).zip(&steps)));
        assert_eq!(revisions(&log), [3, 0]);
        assert_eq!(log.frozen(), None);
    }

    #[test]
    fn a_record_without_a_models_name_is_ignored() {
        let mut log = DeploymentLog::new();
        for key in [None, Some(&b"a/b"[..]), Some(&b"\xff"[..])] {
            assert!(matches!(log.apply(0, key, None, None), Applied::Ignored(_)));
        }
        assert_eq!(log.models().count(), 0);
    }

    proptest! {
        #[test]
        fn the_fold_is_deterministic_and_a_prefix_replayed_goes_on_alike(
            steps in prop::collection::vec((1..3_i64, step()), 0..24),
            cut in 0..24_usize,
        ) {
            // Offsets with gaps: transaction markers.
            let mut offset = -1;
            let records: Vec<(i64, Step)> = steps
                .into_iter()
                .map(|(gap, step)| { offset += gap; (offset, step) })
                .collect();
            let whole = fold(records.iter().map(|(o, s)| (*o, s)));
            prop_assert_eq!(&whole, &fold(records.iter().map(|(o, s)| (*o, s))));
            // A reader that resumes a little too early sees the same.
            let cut = cut.min(records.len());
            let mut resumed = fold(records[..cut].iter().map(|(o, s)| (*o, s)));
            for (offset, step) in &records[cut.saturating_sub(3)..] {
                resumed.apply(*offset, Some(b"m"), Some(&value("m", step)), Some(*offset));
            }
            prop_assert_eq!(whole, resumed);
        }

        #[test]
        fn a_wrong_if_revision_changes_nothing_and_a_right_one_counts(
            steps in prop::collection::vec(step(), 0..16),
            expected in -1..20_i64,
        ) {
            let before = at(&fold((0..).zip(&steps)));
            let revision = steps.len() as i64;
            let mut all = steps.clone();
            all.push(Step::Deploy(9, Some(expected)));
            let after = at(&fold((0..).zip(&all)));
            let unknown = before.frozen().is_some_and(|f| f.unknown);
            let outcome = &after.entry(revision).unwrap().outcome;
            prop_assert_eq!(
                outcome.is_effective(),
                expected == before.last_effective() && !unknown
            );
            if outcome.is_effective() {
                prop_assert_eq!(after.desired().unwrap().revision, revision);
            } else {
                prop_assert_eq!(revisions(&after), revisions(&before));
                prop_assert_eq!(after.last_effective(), before.last_effective());
            }
        }

        #[test]
        fn candidates_are_effective_in_order_and_after_the_floor(
            steps in prop::collection::vec(step(), 0..24),
        ) {
            let log = at(&fold((0..).zip(&steps)));
            let mut newer = i64::MAX;
            for candidate in log.candidates() {
                prop_assert!(candidate.revision < newer && candidate.revision > log.floor);
                newer = candidate.revision;
                prop_assert!(log.entry(candidate.revision).unwrap().outcome.is_effective());
            }
            let last = log.history().iter().rfind(|e| e.outcome.is_effective());
            prop_assert_eq!(log.last_effective(), last.map_or(-1, |e| e.revision));
        }
    }
}
