//! One look of the control state at one model: decides, does what can be done at once, and says
//! what is left to do and to show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::catalog::{Catalog, EntryKind};
use super::control::{ControlEvent, Effect, Loading, Progress};
use super::deployment_log::{Candidate, ModelLog};
use super::lifecycle::{Decision, LoadState, Lookup, Served, Situation, Step, decide};
use super::loader::{LoadJob, Loaded};
use super::status::{Desired, ModelReport, RefusedReport, ServingReport, WorkingOn};
use crate::model::{Digest, ModelName};
use crate::serving::{ModelState, ServingModel};

/// One look at one model.
pub(super) struct Turn<'a> {
    pub(super) model: &'a ModelName,
    pub(super) log: Option<&'a ModelLog>,
    pub(super) catalog: &'a Catalog,
    pub(super) versions_next: i64,
    pub(super) now: Instant,
    pub(super) may_load: bool,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    pub(super) fn take(&mut self, progress: &mut Progress) -> Option<Instant> {
        self.forget(progress);
        let decision = loop {
            let decision = self.decide(progress);
            if !self.act(progress, &decision.step) {
                break decision;
            }
        };
        self.tell_judgement(progress, &decision);
        self.tell_state(progress, &decision);
        let report = self.report(progress, &decision);
        if progress.report.as_ref() != Some(&report) {
            progress.report = Some(report.clone());
            self.effects
                .push(Effect::Report(self.model.clone(), report));
        }
        let retry = match decision.step {
            Step::Wait(_, until) => Some(until),
            _ => None,
        };
        let over = progress.banned.values().min().copied();
        [retry, over].into_iter().flatten().min()
    }

    /// What concerns no candidate any more.
    fn forget(&self, progress: &mut Progress) {
        let stands = |revision: &i64| {
            self.log
                .is_some_and(|log| log.candidate(*revision).is_some())
        };
        progress.banned.retain(|revision, until| {
            if *until <= self.now {
                progress.refused.remove(revision);
            }
            *until > self.now && stands(revision)
        });
        progress.refused.retain(|revision, _| stands(revision));
        progress.failures.retain(|revision, _| stands(revision));
    }

    fn decide(&self, progress: &Progress) -> Decision {
        let served = progress.serving.as_ref().map(|serving| Served {
            revision: serving.revision,
            version: serving.version.clone(),
            digest: serving.digest,
        });
        let situation = Situation {
            log: self.log,
            served: served.as_ref(),
            refused: &progress.refused,
            failures: &progress.failures,
            now: self.now,
        };
        decide(&situation, |candidate| self.look_up(progress, candidate))
    }

    fn look_up(&self, progress: &Progress, candidate: &Candidate) -> Lookup {
        let entry = self.catalog.get(self.model, &candidate.version);
        match entry.map(|entry| (&entry.kind, &entry.untrusted)) {
            Some((EntryKind::Manifest(manifest), None)) => {
                Lookup::Manifest(manifest.artifact.digest)
            }
            Some((EntryKind::Deleted(_), _)) => Lookup::Unusable("it was deleted".to_owned()),
            Some((EntryKind::Unreadable(why), _) | (EntryKind::Manifest(_), Some(why))) => {
                Lookup::Unusable(why.clone())
            }
            None => Lookup::Missing {
                // What was certain for a newer event is so for an older one.
                certain: progress.confirm.is_some_and(|(revision, end)| {
                    revision >= candidate.revision && self.versions_next >= end
                }),
            },
        }
    }

    /// Takes a step; gives whether to decide anew.
    fn act(&mut self, progress: &mut Progress, step: &Step) -> bool {
        let wanted = match step {
            Step::Load(candidate) => Some(candidate.revision),
            _ => None,
        };
        if let Some(loading) = progress
            .loading
            .as_ref()
            .filter(|l| Some(l.revision) != wanted)
        {
            loading.cancelled.store(true, Ordering::Relaxed);
        }
        progress.ready.take_if(|ready| Some(ready.0) != wanted);
        match step {
            Step::Keep | Step::Wait(..) => false,
            Step::Retire => {
                if let Some(old) = progress.serving.take() {
                    let (model, version) = (self.model.clone(), old.version.clone());
                    self.effects
                        .push(Effect::Event(ControlEvent::Retired { model, version }));
                }
                true
            }
            Step::Retag(candidate) => {
                let Some(old) = progress.serving.clone() else {
                    return false;
                };
                let loaded = Loaded {
                    contract: old.contract.clone(),
                    compiled: Arc::clone(&old.compiled),
                };
                self.activate(progress, candidate, old.digest, loaded, None);
                true
            }
            Step::Load(candidate) => {
                if let Some((_, loaded, manifest, took)) = progress.ready.take() {
                    let digest = manifest.artifact.digest;
                    self.activate(progress, candidate, digest, loaded, Some(took));
                    return true;
                }
                self.start(progress, candidate);
                false
            }
            Step::Confirm(candidate) => {
                let revision = candidate.revision;
                if progress.confirm.is_none_or(|(asked, _)| asked < revision) {
                    self.effects
                        .push(Effect::AskVersionsEnd(self.model.clone(), revision));
                }
                false
            }
        }
    }

    fn activate(
        &mut self,
        progress: &mut Progress,
        candidate: &Candidate,
        digest: Digest,
        loaded: Loaded,
        took: Option<Duration>,
    ) {
        let info = loaded.compiled.info().clone();
        let serving = Arc::new(ServingModel {
            model: self.model.clone(),
            version: candidate.version.clone(),
            digest,
            revision: candidate.revision,
            contract: loaded.contract,
            compiled: loaded.compiled,
        });
        let previous = progress
            .serving
            .replace(serving)
            .map(|old| old.version.clone());
        progress.failures.remove(&candidate.revision);
        self.effects.push(Effect::Event(ControlEvent::Activated {
            model: self.model.clone(),
            version: candidate.version.clone(),
            digest,
            revision: candidate.revision,
            previous,
            info,
            took,
        }));
    }

    fn start(&mut self, progress: &mut Progress, candidate: &Candidate) {
        if progress.loading.is_some() || !self.may_load {
            return;
        }
        let entry = self.catalog.get(self.model, &candidate.version);
        let Some((entry, manifest)) = entry.and_then(|e| e.manifest().map(|m| (e, m))) else {
            return;
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        progress.loading = Some(Loading {
            revision: candidate.revision,
            version: candidate.version.clone(),
            state: LoadState::Announced,
            since: self.now,
            reached_at: self.now,
            cancelled: Arc::clone(&cancelled),
        });
        self.effects.push(Effect::Load(LoadJob {
            revision: candidate.revision,
            manifest: Arc::clone(manifest),
            chunks: entry.chunks.clone(),
            golden_chunks: entry.golden_chunks.clone(),
            cancelled,
        }));
    }

    /// Refusals of the catalog's; those of loads are told when the load ends.
    fn tell_judgement(&mut self, progress: &mut Progress, decision: &Decision) {
        let judged = decision
            .refused
            .as_ref()
            .map(|(c, refusal)| (c.revision, refusal.clone()));
        if judged == progress.judged {
            return;
        }
        progress.judged = judged;
        if let Some((candidate, refusal)) = &decision.refused
            && refusal.stage == LoadState::Announced
        {
            self.effects.push(Effect::Event(ControlEvent::Refused {
                model: self.model.clone(),
                version: candidate.version.clone(),
                revision: candidate.revision,
                refusal: refusal.clone(),
            }));
        }
    }

    fn tell_state(&mut self, progress: &mut Progress, decision: &Decision) {
        // A refusal that is lifted again does not take back that it was judged.
        let settled = progress
            .settled
            .map_or(decision.settled_revision, |settled| {
                settled.max(decision.settled_revision)
            });
        progress.settled = Some(settled);
        let state = (progress.serving.as_ref().map(|s| s.revision), settled);
        if progress.told != Some(state) {
            progress.told = Some(state);
            let state = ModelState {
                serving: progress.serving.clone(),
                settled_revision: settled,
            };
            self.effects.push(Effect::Serve(self.model.clone(), state));
        }
    }

    fn report(&self, progress: &Progress, decision: &Decision) -> ModelReport {
        let working_on = match &decision.step {
            Step::Load(candidate) | Step::Confirm(candidate) => {
                let loading = progress.loading.as_ref();
                let own = loading.filter(|l| l.revision == candidate.revision);
                debug_assert!(own.is_none_or(|l| l.version == candidate.version));
                Some(WorkingOn {
                    version: candidate.version.clone(),
                    state: own.map_or(LoadState::Announced, |l| l.state).to_string(),
                    error: None,
                })
            }
            Step::Wait(candidate, _) => Some(WorkingOn {
                version: candidate.version.clone(),
                state: "waiting".to_owned(),
                error: progress
                    .failures
                    .get(&candidate.revision)
                    .map(|f| f.reason.clone()),
            }),
            _ => None,
        };
        let refused = decision
            .refused
            .as_ref()
            .map(|(candidate, refusal)| RefusedReport {
                version: Some(candidate.version.clone()),
                revision: Some(candidate.revision),
                stage: refusal.stage.to_string(),
                reason: refusal.reason.clone(),
            });
        let frozen = self
            .log
            .and_then(ModelLog::frozen)
            .map(|frozen| RefusedReport {
                version: None,
                revision: Some(frozen.revision),
                stage: LoadState::Announced.to_string(),
                reason: format!(
                    "deployments are frozen by revision {}: {}",
                    frozen.revision, frozen.reason
                ),
            });
        ModelReport {
            desired: self.log.and_then(ModelLog::desired).map(Desired::from),
            serving: progress.serving.as_deref().map(|serving| ServingReport {
                version: serving.version.clone(),
                digest: serving.digest,
                revision: serving.revision,
                runtime: serving.compiled.info().runtime.to_owned(),
                batch_invariant: serving.compiled.info().batch_invariant,
            }),
            working_on,
            refused: frozen.or(refused),
        }
    }
}
