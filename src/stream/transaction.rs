//! The life of a worker's transaction, and the one answer to each class of error. Pure.
//!
//! ```text
//!          begin                 send offsets, commit
//!   idle ─────────▶ open ───────────────────────────────▶ idle
//!    ▲               │ abortable: abort, rewind             │
//!    └───────────────┘                                      │
//!          fatal, fenced, timed out: broken ◀───────────────┘   (clients are rebuilt)
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::kafka::ErrorKind;

/// Fencings that count together lie within this time.
const FENCINGS_WITHIN: Duration = Duration::from_mins(1);
/// One take-over may fence twice: both sides repeat themselves while the broker ends what was open.
const ONE_TAKE_OVER: Duration = Duration::from_secs(5);
/// So many of them mean another instance of the same name.
const FENCINGS: usize = 3;

/// A call of the transaction protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Init,
    Begin,
    SendOffsets,
    Commit,
    Abort,
}

impl Call {
    /// What is being done, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Init => "starting transactions",
            Self::Begin => "beginning a transaction",
            Self::SendOffsets => "sending offsets to the transaction",
            Self::Commit => "committing the transaction",
            Self::Abort => "aborting the transaction",
        }
    }
}

/// What follows a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is done.
    GoOn,
    /// The same call again.
    Again,
    /// Abort, rewind to the committed offsets, go on.
    Abort,
    /// Producer and consumer are made anew, and committed offsets read again.
    Rebuild {
        /// Another producer has taken over the transactional id, and not because this one let a
        /// transaction expire.
        fenced: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Idle,
    Open(Instant),
    /// The producer must not be used again.
    Broken,
}

/// A worker's transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    state: State,
    /// A delivery has timed out since the last commit.
    stalled: bool,
}

impl Transaction {
    /// Whether a transaction is open.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// How long the transaction has been open.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open(since) => Some(now.saturating_duration_since(since)),
            State::Idle | State::Broken => None,
        }
    }

    /// What follows `call`, which was begun `spent` ago for the first time and has ended now. A
    /// transaction may be open for `timeout`.
    pub(super) fn after(
        &mut self,
        call: Call,
        ended: Result<(), ErrorKind>,
        spent: Duration,
        timeout: Duration,
        now: Instant,
    ) -> Next {
        let error = match ended {
            Ok(()) => {
                match call {
                    Call::Begin => self.state = State::Open(now),
                    Call::Init | Call::Abort => self.state = State::Idle,
                    Call::Commit => *self = Self::default(),
                    Call::SendOffsets => {}
                }
                return Next::GoOn;
            }
            Err(error) => error,
        };
        match (call, error) {
            // It may be repeated for as long as the broker is away: nothing depends on it yet.
            (Call::Init, ErrorKind::Retriable | ErrorKind::TimedOut | ErrorKind::QueueFull) => {
                Next::Again
            }
            (_, ErrorKind::Retriable | ErrorKind::QueueFull) if spent < timeout => Next::Again,
            // Not so for a commit: librdkafka says "abortable" there also where the broker may have
            // committed. The next producer ends what is open, and the committed offsets tell.
            (Call::Begin | Call::SendOffsets, ErrorKind::Abortable) => Next::Abort,
            (_, ErrorKind::Fenced) => Next::Rebuild {
                fenced: self.broken(timeout, now),
            },
            _ => self.give_up(),
        }
    }

    /// The producer is not used again, though nobody has taken over.
    fn give_up(&mut self) -> Next {
        self.state = State::Broken;
        Next::Rebuild { fenced: false }
    }

    /// What follows a delivery that failed with `error`. One that times out again, with no commit
    /// since the last time, is no longer taken for the broker's doing: the client itself may be
    /// stuck, and a new one asks anew for coordinator, leaders and producer id.
    pub(super) fn after_delivery(
        &mut self,
        error: ErrorKind,
        timeout: Duration,
        now: Instant,
    ) -> Next {
        match error {
            ErrorKind::Fenced => Next::Rebuild {
                fenced: self.broken(timeout, now),
            },
            ErrorKind::Fatal => self.give_up(),
            ErrorKind::Retriable | ErrorKind::TimedOut if self.stalled => self.give_up(),
            ErrorKind::Retriable | ErrorKind::TimedOut => {
                self.stalled = true;
                Next::Abort
            }
            _ => Next::Abort,
        }
    }

    /// Whether the fencing is another producer's doing: a broker fences a transaction that was
    /// open for too long, too.
    fn broken(&mut self, timeout: Duration, now: Instant) -> bool {
        let expired = self.age(now).is_some_and(|age| age >= timeout);
        self.state = State::Broken;
        !expired
    }
}

/// Counts fencings.
#[derive(Debug, Default)]
pub(super) struct Fencings(VecDeque<Instant>);

impl Fencings {
    /// Notes a fencing; whether there were too many within a minute.
    pub(super) fn too_many(&mut self, now: Instant) -> bool {
        let last = self.0.back();
        if last.is_none_or(|last| now.saturating_duration_since(*last) >= ONE_TAKE_OVER) {
            self.0.push_back(now);
        }
        while let Some(first) = self.0.front() {
            if now.saturating_duration_since(*first) <= FENCINGS_WITHIN {
                break;
            }
            self.0.pop_front();
        }
        self.0.len() >= FENCINGS
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
