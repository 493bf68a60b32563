//! What to do next for one model: a pure decision over the deployment log, the catalog, what
//! serves, what was refused and what has to be tried again.
//!
//! * What is to serve is the newest candidate that passes; older ones are fallbacks, in order.
//! * Only permanent refusals fall through to an older candidate; a transient failure waits.
//! * A refused candidate never changes what serves; what was undeployed stops serving at once.
//! * What is wrong with a version's record (missing, deleted, unreadable, another digest) is
//!   judged anew each time, so it is no longer refused once the record is right.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deployment_log::{Candidate, ModelLog};
use crate::model::{Digest, Version};

/// How far a version has come on its way to serving; a refusal names the state that it did not
/// reach.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LoadState {
    /// A deployment event names it and its manifest can be read.
    Announced,
    /// Its artifact is here.
    Fetched,
    /// The artifact has the manifest's digest.
    Verified,
    /// It was loaded in a process of its own, within limits. Its name is that of the trial.
    #[serde(rename = "probe")]
    Probed,
    /// The runtime has compiled it, and it fits its manifest's contract.
    Compiled,
    /// Its golden rows come out right.
    Checked,
    /// It has run.
    WarmedUp,
    /// It serves.
    Active,
}

impl LoadState {
    /// The state's name in status, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Fetched => "fetched",
            Self::Verified => "verified",
            Self::Probed => "probe",
            Self::Compiled => "compiled",
            Self::Checked => "checked",
            Self::WarmedUp => "warmed_up",
            Self::Active => "active",
        }
    }
}

impl fmt::Display for LoadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a candidate does not serve, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The state that it did not reach.
    pub stage: LoadState,
    /// Why not.
    pub reason: String,
}

/// A failure that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Tries so far.
    pub attempts: u32,
    /// When to try again.
    pub retry_at: Instant,
    /// What went wrong last.
    pub reason: String,
}

/// How long to wait after so many failed tries: one second, doubled each time, at most a minute.
pub(super) fn backoff(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.saturating_sub(1).min(6)).min(Duration::from_mins(1))
}

/// What serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    /// Revision of the event that deployed it.
    pub revision: i64,
    /// The version.
    pub version: Version,
    /// Digest of its artifact.
    pub digest: Digest,
}

/// What the catalog says about a candidate's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// There is a manifest, with this digest.
    Manifest(Digest),
    /// There is a record, and it is no manifest; why.
    Unusable(String),
    /// There is none. `certain`: everything that was there when the event was seen has been read.
    Missing {
        /// See above.
        certain: bool,
    },
}

/// Everything the decision depends on.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    /// What the deployment log says about the model; `None`: nothing.
    pub log: Option<&'a ModelLog>,
    /// What serves.
    pub served: Option<&'a Served>,
    /// Candidates whose load was refused, by revision.
    pub refused: &'a BTreeMap<i64, Refusal>,
    /// Candidates whose load failed and may pass, by revision.
    pub failures: &'a BTreeMap<i64, Failure>,
    /// This moment.
    pub now: Instant,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: what serves is right, or nothing can be done.
    Keep,
    /// What serves was undeployed: stop it.
    Retire,
    /// What serves is deployed again by this event: serve it under the new revision.
    Retag(Candidate),
    /// Load this one.
    Load(Candidate),
    /// Nothing before this moment, then load this one.
    Wait(Candidate, Instant),
    /// Find out how far the catalog has to be read before this one's version is missing for good.
    Confirm(Candidate),
}

/// The decision for one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// What to do.
    pub step: Step,
    /// The newest refused candidate that is newer than what serves, and why.
    pub refused: Option<(Candidate, Refusal)>,
    /// The newest revision up to which what the log wants and what serves agree; a candidate
    /// that was refused counts as agreed.
    pub settled_revision: i64,
}

/// Decides what to do next. `lookup` is asked for versions that might be loaded only.
pub(super) fn decide(situation: &Situation<'_>, lookup: impl Fn(&Candidate) -> Lookup) -> Decision {
    let Some(log) = situation.log else {
        return Decision {
            step: if situation.served.is_some() {
                Step::Retire
            } else {
                Step::Keep
            },
            refused: None,
            settled_revision: -1,
        };
    };
    let served = situation
        .served
        .filter(|served| log.candidate(served.revision).is_some());
    if served.is_none() && situation.served.is_some() {
        return Decision {
            step: Step::Retire,
            refused: None,
            settled_revision: log
                .candidates()
                .last()
                .map_or(log.last_effective(), |oldest| {
                    log.effective_before(oldest.revision)
                }),
        };
    }
    let mut step = Step::Keep;
    let mut refused = None;
    let mut settled_revision = log.last_effective();
    // Newest first, down to what serves.
    for candidate in log.candidates() {
        if served.is_some_and(|served| served.revision >= candidate.revision) {
            break;
        }
        match judge(situation, served, candidate, &lookup) {
            Verdict::Refused(refusal) => {
                if refused.is_none() && step == Step::Keep {
                    refused = Some((candidate.clone(), refusal));
                }
            }
            Verdict::Pending(wanted) => {
                if step == Step::Keep {
                    step = wanted;
                }
                // Down to the oldest one that is open: what is newer is not settled either.
                settled_revision = log.effective_before(candidate.revision);
            }
        }
    }
    Decision {
        step,
        refused,
        settled_revision,
    }
}

#[derive(Debug)]
pub(super) enum Verdict {
    Refused(Refusal),
    Pending(Step),
}

pub(super) fn judge(
    situation: &Situation<'_>,
    served: Option<&Served>,
    candidate: &Candidate,
    lookup: &impl Fn(&Candidate) -> Lookup,
) -> Verdict {
    if let Some(refusal) = situation.refused.get(&candidate.revision) {
        return Verdict::Refused(refusal.clone());
    }
    let refuse = |reason: String| {
        Verdict::Refused(Refusal {
            stage: LoadState::Announced,
            reason,
        })
    };
    let version = &candidate.version;
    let digest = match lookup(candidate) {
        Lookup::Manifest(digest) => digest,
        Lookup::Unusable(why) => return refuse(format!("version {version}: {why}")),
        Lookup::Missing { certain: true } => {
            return refuse(format!(
                "there is no version {version} in the versions topic"
            ));
        }
        Lookup::Missing { certain: false } => {
            return Verdict::Pending(Step::Confirm(candidate.clone()));
        }
    };
    if let Some(wanted) = candidate.digest.filter(|wanted| *wanted != digest) {
        return refuse(format!(
            "the deployment names digest {wanted}, the manifest of version {version} {digest}"
        ));
    }
    if served.is_some_and(|served| served.version == *version && served.digest == digest) {
        return Verdict::Pending(Step::Retag(candidate.clone()));
    }
    match situation.failures.get(&candidate.revision) {
        Some(failure) if failure.retry_at > situation.now => {
            Verdict::Pending(Step::Wait(candidate.clone(), failure.retry_at))
        }
        _ => Verdict::Pending(Step::Load(candidate.clone())),
    }
}
