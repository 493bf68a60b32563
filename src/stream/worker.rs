//! A worker: waits until its model serves, joins the group, runs a session, and starts anew after
//! what can be mended.

use std::collections::VecDeque;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StreamSettings;
use super::complaints::Complaints;
use super::health::WorkerHealth;
use super::pace::Pace;
use super::partitions::Partitions;
use super::parts::Parts;
use super::room::Room;
use super::session::{Active, Exit, Rebalance, Session, Step};
use super::stall::Stall;
use super::topics::Topics;
use super::transaction::{Call, Fencings, Next, Transaction};
use crate::kafka::{Membership, Producer, Source};
use crate::serving::{Serving, ServingModel};
use crate::telemetry::{StreamMetrics, WorkerState};

/// How long a waiting worker sleeps at most; also how soon it notices a shutdown.
const WAIT: Duration = Duration::from_millis(100);
/// First and longest pause before a session is started anew.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A session that ran this long starts the pauses anew.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);
/// How long closing a consumer may hold the worker up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt to start transactions; also how soon a stop is noticed meanwhile.
const INIT_STEP: Duration = Duration::from_secs(1);
/// Pause before the next one.
const AGAIN: Duration = Duration::from_millis(100);

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) settings: Arc<StreamSettings>,
    pub(super) topics: Arc<Topics>,
    pub(super) serving: Arc<Serving>,
    pub(super) metrics: Arc<StreamMetrics>,
    pub(super) parts: Arc<Parts>,
    pub(super) health: Arc<WorkerHealth>,
    /// Number of the worker among those of its stream.
    pub(super) number: usize,
}

impl Worker {
    /// Runs until the process stops, or until only an operator can help: then gives the reason.
    pub(super) fn run(&self) -> Result<(), String> {
        let mut backoff = BACKOFF.0;
        let mut fencings = Fencings::default();
        loop {
            let Some(model) = self.wait_for_model() else {
                return Ok(());
            };
            let start = Instant::now();
            match self.join(model) {
                Exit::Shutdown => return Ok(()),
                Exit::ModelGone => {}
                Exit::Failed(reason) => return Err(reason),
                Exit::Rebuild(reason) | Exit::Fenced(reason) | Exit::Abort(reason)
                    if self.parts.stopping() =>
                {
                    tracing::warn!(stream = self.settings.name, "while stopping: {reason}");
                    return Ok(());
                }
                Exit::Fenced(reason) if fencings.too_many(Instant::now()) => {
                    let reason = self.duplicate(&reason);
                    self.parts.give_up(reason.clone());
                    return Err(reason);
                }
                Exit::Rebuild(reason) | Exit::Fenced(reason) | Exit::Abort(reason) => {
                    if start.elapsed() >= HEALTHY_AFTER {
                        backoff = BACKOFF.0;
                    }
                    tracing::warn!(
                        stream = self.settings.name,
                        "{reason}; rebuilding clients and joining again in {backoff:?}"
                    );
                    self.health.set(WorkerState::Recovering, Some(reason));
                    self.pause(backoff);
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    fn duplicate(&self, reason: &str) -> String {
        let id = &self.parts.instance_id;
        format!(
            "{reason}; it has happened three times within a minute: probably a second instance \
             runs with instance_id {id:?}; give each instance a name of its own"
        )
    }

    /// No model, no consumption: waits outside the group. `None` when the process stops.
    fn wait_for_model(&self) -> Option<Arc<ServingModel>> {
        let mut told = false;
        let mut wait = Duration::ZERO;
        loop {
            if self.parts.stopping() {
                return None;
            }
            if let Some(model) = self.serving.wait_for(&self.settings.model, wait) {
                return Some(model);
            }
            if !told {
                let reason = format!("no version of model {} serves", self.settings.model);
                self.health.set(WorkerState::WaitingForModel, Some(reason));
                told = true;
            }
            self.health.beat();
            wait = WAIT;
        }
    }

    fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.parts.stopping() && Instant::now() < end {
            self.health.beat();
            std::thread::park_timeout(WAIT.min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// One session, from joining the group to leaving it.
    fn join(&self, model: Arc<ServingModel>) -> Exit {
        let active = match Active::new(model, &self.settings, &self.metrics, 1) {
            Ok(active) => active,
            Err(reason) => return Exit::Rebuild(reason),
        };
        let parts = &self.parts;
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(exit) => return exit,
        };
        let group = &self.settings.group_id;
        let inputs = &self.settings.input_topics;
        let membership = self.membership();
        let source = match Source::join(&parts.kafka, group, inputs, &membership, parts.share) {
            Ok(source) => source,
            Err(error) => return Exit::Rebuild(error.to_string()),
        };
        self.health.set(WorkerState::Running, None);
        let exit = self.session(&source, producer, active);
        self.health.set_partitions(0);
        self.health.set_member(false);
        let _watch = self.health.watch("closing the clients", CLOSE_TIMEOUT);
        source.close(self.parts.close_timeout(CLOSE_TIMEOUT));
        exit
    }

    /// The name of this worker among all instances.
    fn id(&self) -> String {
        format!("{}-{}", self.parts.instance_id, self.number)
    }

    fn membership(&self) -> Membership {
        Membership {
            static_id: self.settings.static_membership.then(|| self.id()),
            protocol: self.settings.group_protocol,
        }
    }

    /// The worker's producer. A transactional one has fenced its predecessor and ended its open
    /// transaction before the group is joined: nothing holds the committed offsets back then.
    fn producer(&self) -> Step<Producer> {
        let parts = &self.parts;
        let limits = self.topics.limits();
        if !self.settings.exactly_once() {
            return Ok(Producer::new(&parts.kafka, parts.share, limits)?);
        }
        let id = format!("{}-{}", self.settings.group_id, self.id());
        let producer = Producer::transactional(&parts.kafka, parts.share, limits, &id)?;
        let mut transaction = Transaction::default();
        let start = Instant::now();
        loop {
            if parts.stopping() {
                return Err(Exit::Shutdown);
            }
            let ended = {
                let _watch = self.health.watch(Call::Init.name(), INIT_STEP);
                producer.init(INIT_STEP).map_err(|mut error| {
                    error.context = format!("starting transactions as {id:?}");
                    error
                })
            };
            let kind = ended.as_ref().map_err(|error| error.kind).copied();
            let (now, limit) = (Instant::now(), producer.transaction_timeout());
            let next = transaction.after(Call::Init, kind, now - start, limit, now);
            match (next, ended) {
                (_, Ok(())) | (Next::GoOn, _) => return Ok(producer),
                (Next::Again, Err(error)) => {
                    let why = Some(error.to_string());
                    self.health.set(WorkerState::Recovering, why);
                    self.pause(AGAIN);
                }
                (Next::Rebuild { fenced: true }, Err(error)) => {
                    return Err(Exit::Fenced(error.to_string()));
                }
                (_, Err(error)) => return Err(Exit::Rebuild(error.to_string())),
            }
        }
    }

    fn session(&self, source: &Source, producer: Producer, active: Active) -> Exit {
        active.set_headers(&producer);
        let now = Instant::now();
        let mut session = Session {
            settings: &self.settings,
            topics: &self.topics,
            serving: &self.serving,
            metrics: &self.metrics,
            parts: &self.parts,
            health: &self.health,
            source,
            producer,
            partitions: Partitions::default(),
            active,
            versions: VecDeque::new(),
            batch: Vec::new(),
            rebalances: VecDeque::new(),
            transaction: Transaction::default(),
            look_up_since: None,
            held_back: false,
            rewind_due: false,
            troubles: Complaints::default(),
            failed_commits: Complaints::default(),
            commit_error: None,
            pace: Pace::default(),
            room: Room::default(),
            stall: Stall::default(),
            cycle_start: now,
            cycle_records: 0,
            lag: Vec::new(),
            lag_at: now,
            member: false,
            member_id: String::new(),
            in_flight_shown: 0,
            tokens: Vec::new(),
            failed: Vec::new(),
            text: Vec::new(),
            now_ms: 0,
        };
        let exit = session.run();
        session.abort_at_exit();
        session.metrics.in_flight.sub(session.in_flight_shown);
        session
            .metrics
            .held_partitions
            .sub(session.partitions.held() as i64);
        for rebalance in session.rebalances.drain(..) {
            match rebalance {
                Rebalance::Assigned(partitions) => source.abandon(partitions, &[]),
                Rebalance::Revoked(partitions) => source.abandon(Vec::new(), &partitions),
            }
        }
        exit
    }
}
