//! The second line against a version that ends the process it is loaded in, although the probe let
//! it pass: before it loads, an instance notes that it does, and takes the note back afterwards. A
//! note that is found at a start tells of a load in which the instance died. Pure.
//!
//! * One death proves nothing: anybody may have killed the process. After the second one in a row
//!   the digest is refused for ten minutes, or until a deployment event that is newer than the one
//!   it died by.
//! * Once those are over it is tried once more; dying again refuses it again.
//! * An instance knows its earlier lives by its name. One whose name is new at every start knows
//!   them by where it runs, and counts only those that have ended: a neighbour on the same host may
//!   be loading the same.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::model::{Digest, ModelName, Version};

/// Value of `schema` in a note.
pub const LOADING_SCHEMA: &str = "swapstream.loading/v1";

/// How long a version is refused after the instance has died in its load.
const REFUSED_FOR: Duration = Duration::from_mins(10);

/// Deaths in a row that are one too many.
const TOO_MANY: u32 = 2;

/// Value of `<instance>/<model>/loading` in `model-status`: a load that the probe let pass is under
/// way; a tombstone once it has ended, however it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadingNote {
    /// Always `swapstream.loading/v1`.
    pub schema: String,
    /// The instance.
    pub instance: String,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Digest of its artifact.
    pub digest: Digest,
    /// Offset of the event that deploys it.
    pub revision: i64,
    /// Which try this is; the ones before have ended the process.
    pub attempt: u32,
    /// When it began, RFC 3339.
    pub at: String,
    /// Where the instance runs; not on systems that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Key of a note.
pub fn loading_key(instance: &str, model: &ModelName) -> String {
    format!("{instance}/{model}/loading")
}

/// The fold over the notes of all instances: those that stand, by instance and model, with when
/// the broker took them, milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadingNotes {
    standing: BTreeMap<(String, ModelName), (LoadingNote, i64)>,
}

impl LoadingNotes {
    /// No notes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record of `model-status`; those that are no notes are passed over.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>, at: i64) {
        let of = std::str::from_utf8(key)
            .ok()
            .and_then(|key| key.strip_suffix("/loading")?.split_once('/'))
            .and_then(|(instance, model)| Some((instance.to_owned(), ModelName::new(model).ok()?)));
        let Some(of) = of else { return };
        let note = value.and_then(|value| serde_json::from_slice::<LoadingNote>(value).ok());
        match note.filter(|note| note.schema == LOADING_SCHEMA) {
            Some(note) => {
                self.standing.insert(of, (note, at));
            }
            None => {
                self.standing.remove(&of);
            }
        }
    }

    /// The deaths that the notes of `instance` tell of, and those of what ran at its `origin` before
    /// it under other names and `has_ended`, which is asked with the note and its time.
    pub fn deaths(
        &self,
        instance: &str,
        origin: Option<&Origin>,
        has_ended: impl Fn(&LoadingNote, i64) -> bool,
    ) -> Attempts {
        let mut attempts = Attempts::new();
        for ((of, model), (note, at)) in &self.standing {
            let beside = origin.zip(note.origin.as_ref());
            let beside = beside.is_some_and(|(own, other)| own.is_beside(other));
            if of != instance && !(beside && has_ended(note, *at)) {
                continue;
            }
            let death = Death {
                instance: of.clone(),
                digest: note.digest,
                revision: note.revision,
                attempt: note.attempt,
                at: *at,
            };
            attempts
                .deaths
                .entry(model.clone())
                .or_default()
                .push(death);
        }
        attempts
    }
}

/// A load in which this instance died.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Death {
    /// The name it had.
    instance: String,
    digest: Digest,
    revision: i64,
    attempt: u32,
    /// Milliseconds since 1970.
    at: i64,
}

/// What may be done about a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Load, as this attempt.
    Go(u32),
    /// Refuse it for so long.
    Refuse {
        /// Deaths in a row.
        deaths: u32,
        /// How much longer.
        left: Duration,
    },
}

/// The loads in which one instance has died and that no other load has followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    deaths: BTreeMap<ModelName, Vec<Death>>,
}

impl Attempts {
    /// No deaths.
    pub fn new() -> Self {
        Self::default()
    }

    /// A load of `model` has ended, and this instance lives.
    pub fn ended(&mut self, model: &ModelName) {
        self.deaths.remove(model);
    }

    /// Names under which notes about `model` stand, besides `instance`: what they tell is in the
    /// next note of this instance.
    pub fn other_names(&self, model: &ModelName, instance: &str) -> Vec<String> {
        let deaths = self.deaths.get(model).into_iter().flatten();
        let others = deaths.filter(|death| death.instance != instance);
        others.map(|death| death.instance.clone()).collect()
    }

    /// Whether `digest` may be loaded for the event at `revision`.
    pub fn permit(&self, model: &ModelName, digest: &Digest, revision: i64, now: i64) -> Permit {
        // A newer event is somebody's word that it is worth another try. Of lives that ended side
        // by side the longest row counts, not their number: one outside event may end them all.
        let died = self.deaths.get(model).into_iter().flatten();
        let died = died.filter(|d| d.digest == *digest && revision <= d.revision);
        let Some(death) = died.max_by_key(|death| (death.attempt, death.at)) else {
            return Permit::Go(1);
        };
        let since = u64::try_from(now.saturating_sub(death.at)).unwrap_or(0);
        let left = REFUSED_FOR.saturating_sub(Duration::from_millis(since));
        if death.attempt >= TOO_MANY && !left.is_zero() {
            return Permit::Refuse {
                deaths: death.attempt,
                left,
            };
        }
        Permit::Go(death.attempt.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN_MINUTES: i64 = 600_000;

    fn model() -> ModelName {
        ModelName::new("m").unwrap()
    }

    fn note(digest: &[u8], revision: i64, attempt: u32) -> Vec<u8> {
        note_at(digest, revision, attempt, None)
    }

    fn note_at(digest: &[u8], revision: i64, attempt: u32, origin: Option<Origin>) -> Vec<u8> {
        let note = LoadingNote {
            schema: LOADING_SCHEMA.to_owned(),
            instance: "i".to_owned(),
            model: model(),
            version: Version::new("1").unwrap(),
            digest: Digest::of(digest),
            revision,
            attempt,
            at: String::new(),
            origin,
        };
        serde_json::to_vec(&note).unwrap()
    }

    /// What `i` makes of its own notes.
    fn own(notes: &LoadingNotes) -> Attempts {
        notes.deaths("i", None, |_, _| true)
    }

    #[test]
    fn the_second_death_in_a_row_refuses_for_a_while() {
        let mut notes = LoadingNotes::new();
        let ask = |notes: &LoadingNotes, digest: &[u8], revision, now| {
            own(notes).permit(&model(), &Digest::of(digest), revision, now)
        };
        assert_eq!(ask(&notes, b"x", 5, 0), Permit::Go(1));
        notes.apply(b"i/m/loading", Some(&note(b"x", 5, 1)), 0);
        // An outside kill: the next start tries again.
        assert_eq!(ask(&notes, b"x", 5, 1), Permit::Go(2));
        notes.apply(b"i/m/loading", Some(&note(b"x", 5, 2)), 0);
        let refused = Permit::Refuse {
            deaths: 2,
            left: Duration::from_secs(1),
        };
        assert_eq!(ask(&notes, b"x", 5, TEN_MINUTES - 1000), refused);
        // As a fallback of an older event, too; not for another file, nor for a newer event.
        assert_eq!(ask(&notes, b"x", 3, TEN_MINUTES - 1000), refused);
        assert_eq!(ask(&notes, b"y", 5, 1), Permit::Go(1));
        assert_eq!(ask(&notes, b"x", 6, 1), Permit::Go(1));
        // One more try after that.
        assert_eq!(ask(&notes, b"x", 5, TEN_MINUTES), Permit::Go(3));
        let mut attempts = own(&notes);
        attempts.ended(&model());
        let digest = Digest::of(b"x");
        assert_eq!(attempts.permit(&model(), &digest, 5, 1), Permit::Go(1));
        notes.apply(b"i/m/loading", None, 1);
        assert_eq!(ask(&notes, b"x", 5, 1), Permit::Go(1));
    }

    #[test]
    fn notes_of_others_and_other_records_do_not_count() {
        let mut notes = LoadingNotes::new();
        for key in [
            "j/m/loading",
            "i/m",
            "instance/i",
            "i/loading",
            "i//loading",
            "ii/m/loading",
            "i/m/n/loading",
        ] {
            notes.apply(key.as_bytes(), Some(&note(b"x", 5, 2)), 0);
        }
        notes.apply(b"i/m/loading", Some(b"{}"), 0);
        notes.apply(&[0xff], Some(b"{}"), 0);
        assert_eq!(own(&notes), Attempts::new());
    }

    fn origin(host: &str, pid: u32) -> Origin {
        Origin {
            host: host.to_owned(),
            boot: "b".to_owned(),
            processes: "p".to_owned(),
            pid,
            began: 1,
        }
    }

    #[test]
    fn an_instance_without_a_name_of_its_own_knows_its_earlier_lives_by_its_host() {
        let mut notes = LoadingNotes::new();
        let mut put = |name: &str, attempt, host: &str, pid| {
            let value = note_at(b"x", 5, attempt, Some(origin(host, pid)));
            notes.apply(format!("{name}/m/loading").as_bytes(), Some(&value), 0);
        };
        put("first", 1, "here", 1);
        put("neighbour", 2, "here", 2);
        put("elsewhere", 2, "there", 1);
        let me = origin("here", 3);
        let runs = |note: &LoadingNote, _| note.origin.as_ref().unwrap().pid != 2;
        let digest = Digest::of(b"x");
        let ask = |notes: &LoadingNotes, me: Option<&Origin>, has_ended: bool| {
            let attempts = notes.deaths("third", me, |note, at| has_ended && runs(note, at));
            let permit = attempts.permit(&model(), &digest, 5, 1);
            (permit, attempts.other_names(&model(), "third").join(","))
        };
        // A neighbour that is loading it is no death of ours.
        let one = (Permit::Go(2), "first".to_owned());
        assert_eq!(ask(&notes, Some(&me), true), one);
        // Nor is anything without a word on who has ended, or on where this is.
        let none = (Permit::Go(1), String::new());
        assert_eq!(ask(&notes, Some(&me), false), none);
        assert_eq!(ask(&notes, None, true), none);
        // The second life died as well: its note tells of both.
        let value = note_at(b"x", 5, 2, Some(origin("here", 9)));
        notes.apply(b"second/m/loading", Some(&value), 0);
        let (permit, names) = ask(&notes, Some(&me), true);
        assert!(
            matches!(permit, Permit::Refuse { deaths: 2, .. }),
            "{permit:?}"
        );
        assert_eq!(names, "first,second");
    }

    #[test]
    fn lives_that_one_event_has_ended_are_no_row() {
        let mut notes = LoadingNotes::new();
        for pid in 1..=5 {
            let value = note_at(b"x", 5, 1, Some(origin("here", pid)));
            notes.apply(format!("{pid}/m/loading").as_bytes(), Some(&value), 0);
        }
        let me = origin("here", 9);
        let attempts = notes.deaths("next", Some(&me), |_, _| true);
        let permit = attempts.permit(&model(), &Digest::of(b"x"), 5, 1);
        assert_eq!(permit, Permit::Go(2));
    }

    proptest! {
        /// However an instance lives and dies, under one name or ever new ones, a file is refused
        /// only after two deaths in its own loads with no load that ended in between.
        #[test]
        fn nothing_is_refused_without_two_deaths_in_a_row(
            lives in prop::collection::vec((0..2_u8, 0..3_i64, any::<bool>(), 0..400_000_i64), 0..20),
            named in any::<bool>(),
        ) {
            let mut notes = LoadingNotes::new();
            let (mut now, mut in_a_row): (i64, Vec<u8>) = (0, Vec::new());
            for (pid, (file, revision, dies, later)) in (0..).zip(lives) {
                now += later;
                let name = if named { "i".to_owned() } else { format!("i{pid}") };
                let me = origin("here", pid);
                let attempts = notes.deaths(&name, Some(&me), |_, _| true);
                match attempts.permit(&model(), &Digest::of(&[file]), revision, now) {
                    Permit::Refuse { .. } => {
                        let own = in_a_row.iter().rev().take_while(|f| **f == file).count();
                        prop_assert!(own >= 2, "{:?}", in_a_row);
                    }
                    Permit::Go(attempt) => {
                        let note = note_at(&[file], revision, attempt, Some(me));
                        let key = format!("{name}/m/loading");
                        notes.apply(key.as_bytes(), Some(&note), now);
                        for other in attempts.other_names(&model(), &name) {
                            notes.apply(format!("{other}/m/loading").as_bytes(), None, now);
                        }
                        if dies {
                            in_a_row.push(file);
                        } else {
                            notes.apply(key.as_bytes(), None, now);
                            in_a_row.clear();
                        }
                    }
                }
            }
        }
    }
}
