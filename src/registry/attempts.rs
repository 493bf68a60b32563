//! The second line against a version that ends the process it is loaded in, although the probe let
//! it pass: before it loads, an instance notes that it does, and takes the note back afterwards. A
//! note that is found at a start tells of a load in which the instance died. Pure.
//!
//! * One death proves nothing: anybody may have killed the process. After the second one in a row
//!   the digest is refused for ten minutes, or until a deployment event that is newer than the one
//!   it died by.
//! * Once those are over it is tried once more; dying again refuses it again.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

/// Key of a note.
pub fn loading_key(instance: &str, model: &ModelName) -> String {
    format!("{instance}/{model}/loading")
}

/// A load in which this instance died.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Death {
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

/// The fold over the notes of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    deaths: BTreeMap<ModelName, Death>,
}

impl Attempts {
    /// No notes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record of `model-status`; those that are no notes of `instance` are passed
    /// over.
    pub fn apply(&mut self, instance: &str, key: &[u8], value: Option<&[u8]>, at: i64) {
        let model = std::str::from_utf8(key)
            .ok()
            .and_then(|key| key.strip_prefix(instance)?.strip_prefix('/'))
            .and_then(|key| key.strip_suffix("/loading"))
            .and_then(|model| ModelName::new(model).ok());
        let Some(model) = model else { return };
        let note = value.and_then(|value| serde_json::from_slice::<LoadingNote>(value).ok());
        match note.filter(|note| note.schema == LOADING_SCHEMA) {
            Some(note) => {
                let death = Death {
                    digest: note.digest,
                    revision: note.revision,
                    attempt: note.attempt,
                    at,
                };
                self.deaths.insert(model, death);
            }
            None => self.ended(&model),
        }
    }

    /// A load of `model` has ended, and this instance lives.
    pub fn ended(&mut self, model: &ModelName) {
        self.deaths.remove(model);
    }

    /// Whether `digest` may be loaded for the event at `revision`.
    pub fn permit(&self, model: &ModelName, digest: &Digest, revision: i64, now: i64) -> Permit {
        let died = self.deaths.get(model);
        // A newer event is somebody's word that it is worth another try.
        let Some(death) = died.filter(|d| d.digest == *digest && revision <= d.revision) else {
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
        let note = LoadingNote {
            schema: LOADING_SCHEMA.to_owned(),
            instance: "i".to_owned(),
            model: model(),
            version: Version::new("1").unwrap(),
            digest: Digest::of(digest),
            revision,
            attempt,
            at: String::new(),
        };
        serde_json::to_vec(&note).unwrap()
    }

    #[test]
    fn the_second_death_in_a_row_refuses_for_a_while() {
        let mut all = Attempts::new();
        let ask = |all: &Attempts, digest: &[u8], revision, now| {
            all.permit(&model(), &Digest::of(digest), revision, now)
        };
        assert_eq!(ask(&all, b"x", 5, 0), Permit::Go(1));
        all.apply("i", b"i/m/loading", Some(&note(b"x", 5, 1)), 0);
        // An outside kill: the next start tries again.
        assert_eq!(ask(&all, b"x", 5, 1), Permit::Go(2));
        all.apply("i", b"i/m/loading", Some(&note(b"x", 5, 2)), 0);
        let refused = Permit::Refuse {
            deaths: 2,
            left: Duration::from_secs(1),
        };
        assert_eq!(ask(&all, b"x", 5, TEN_MINUTES - 1000), refused);
        // As a fallback of an older event, too; not for another file, nor for a newer event.
        assert_eq!(ask(&all, b"x", 3, TEN_MINUTES - 1000), refused);
        assert_eq!(ask(&all, b"y", 5, 1), Permit::Go(1));
        assert_eq!(ask(&all, b"x", 6, 1), Permit::Go(1));
        // One more try after that.
        assert_eq!(ask(&all, b"x", 5, TEN_MINUTES), Permit::Go(3));
        all.apply("i", b"i/m/loading", None, 1);
        assert_eq!(ask(&all, b"x", 5, 1), Permit::Go(1));
    }

    #[test]
    fn notes_of_others_and_other_records_do_not_count() {
        let mut all = Attempts::new();
        for key in [
            "j/m/loading",
            "i/m",
            "instance/i",
            "i/loading",
            "i//loading",
            "ii/m/loading",
        ] {
            all.apply("i", key.as_bytes(), Some(&note(b"x", 5, 2)), 0);
        }
        all.apply("i", b"i/m/loading", Some(b"{}"), 0);
        all.apply("i", &[0xff], Some(b"{}"), 0);
        assert_eq!(all, Attempts::new());
    }

    proptest! {
        /// However an instance lives and dies, a file is refused only after two deaths in its own
        /// loads with no load that ended in between.
        #[test]
        fn nothing_is_refused_without_two_deaths_in_a_row(
            lives in prop::collection::vec((0..2_u8, 0..3_i64, any::<bool>(), 0..400_000_i64), 0..20),
        ) {
            let mut all = Attempts::new();
            let (mut now, mut in_a_row): (i64, Vec<u8>) = (0, Vec::new());
            for (file, revision, dies, later) in lives {
                now += later;
                match all.permit(&model(), &Digest::of(&[file]), revision, now) {
                    Permit::Refuse { .. } => {
                        let own = in_a_row.iter().rev().take_while(|f| **f == file).count();
                        prop_assert!(own >= 2, "{:?}", in_a_row);
                    }
                    Permit::Go(attempt) => {
                        let note = note(&[file], revision, attempt);
                        all.apply("i", b"i/m/loading", Some(&note), now);
                        if dies {
                            in_a_row.push(file);
                        } else {
                            all.apply("i", b"i/m/loading", None, now);
                            in_a_row.clear();
                        }
                    }
                }
            }
        }
    }
}
