//! Which fault comes when: drawn from a bag that holds each kind by its weight, so that every
//! kind comes before one comes again out of turn. Pure: a seed gives one schedule.

use std::time::Duration;

use super::rng::Rng;

/// What is done to the service, its broker or the wire between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL of an instance at a random moment.
    Kill,
    /// SIGKILL of an instance while a worker stands at a fail point.
    KillAtPoint,
    /// SIGTERM of an instance.
    Term,
    /// SIGSTOP of an instance beyond its session time-out.
    StopSession,
    /// SIGSTOP of an instance beyond its transaction time-out.
    StopTransaction,
    /// Instances join and leave every 2 s.
    Churn,
    /// SIGTERM of the broker, then a new start.
    BrokerTerm,
    /// SIGKILL of the broker, then a new start.
    BrokerKill,
    /// SIGSTOP of the broker for a while.
    BrokerStop,
    /// Another producer takes over a worker's transactional id.
    Hijack,
    /// The proxy holds every response back for a while.
    ProxyDelay,
    /// The proxy swallows a response to `EndTxn` (or to a commit of offsets) and cuts the connection.
    ProxyDrop,
    /// The proxy swallows responses to `EndTxn` and keeps the connection: the client waits.
    ProxySwallow,
    /// The proxy holds a request `EndTxn` back and delivers it when its producer has been replaced.
    ProxyLate,
    /// The proxy cuts all connections again and again.
    ProxyCut,
    /// Events that cannot be scored, as the last of a partition too.
    Poison,
    /// A version that must be refused is deployed.
    BadModel,
    /// The broker's disk is full.
    DiskFull,
}

use Fault::{
    BadModel, BrokerKill, BrokerStop, BrokerTerm, Churn, DiskFull, Hijack, Kill, KillAtPoint,
    Poison, ProxyCut, ProxyDelay, ProxyDrop, ProxyLate, ProxySwallow, StopSession, StopTransaction,
    Term,
};

impl Fault {
    /// Every kind, with how often it is in the bag.
    pub const BAG: [(Fault, usize); 18] = [
        (Kill, 3),
        (KillAtPoint, 5),
        (Term, 2),
        (StopSession, 1),
        (StopTransaction, 1),
        (Churn, 1),
        (BrokerTerm, 1),
        (BrokerKill, 1),
        (BrokerStop, 1),
        (Hijack, 2),
        (ProxyDelay, 1),
        (ProxyDrop, 2),
        (ProxySwallow, 1),
        (ProxyLate, 1),
        (ProxyCut, 1),
        (Poison, 2),
        (BadModel, 1),
        (DiskFull, 1),
    ];

    /// The order of a short run: what breaks promises most easily first.
    pub const SHORT: [Fault; 10] = [
        KillAtPoint,
        ProxyDrop,
        Kill,
        Hijack,
        Poison,
        BrokerKill,
        Term,
        BadModel,
        StopTransaction,
        Churn,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kill => "kill",
            KillAtPoint => "kill_at_point",
            Term => "term",
            StopSession => "stop_session",
            StopTransaction => "stop_transaction",
            Churn => "churn",
            BrokerTerm => "broker_term",
            BrokerKill => "broker_kill",
            BrokerStop => "broker_stop",
            Hijack => "hijack",
            ProxyDelay => "proxy_delay",
            ProxyDrop => "proxy_drop",
            ProxySwallow => "proxy_swallow",
            ProxyLate => "proxy_late",
            ProxyCut => "proxy_cut",
            Poison => "poison",
            BadModel => "bad_model",
            DiskFull => "disk_full",
        }
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Fault> {
        let mut all = Self::BAG.iter().map(|(fault, _)| *fault);
        all.find(|fault| fault.name() == name)
    }

    /// The broker's own time-out that the service may have to wait for after this fault: the
    /// session of a member that is gone without a word, and the transaction it left open. A lost
    /// answer to `EndTxn` is waited for as long as the transaction may last.
    pub fn broker_wait(self) -> Duration {
        match self {
            // A member gone in silence, or that could not send heartbeats; its transaction, which
            // ends by time-out where its next start does not end it.
            Kill | KillAtPoint | StopSession | StopTransaction | Churn | BrokerTerm
            | BrokerKill | BrokerStop | DiskFull | ProxyDelay | ProxyDrop | ProxySwallow
            | ProxyLate | ProxyCut | Hijack => SESSION.max(TRANSACTION),
            Term | Poison | BadModel => Duration::ZERO,
        }
    }
}

/// `session.timeout.ms` of the instances.
pub const SESSION: Duration = Duration::from_secs(6);
/// `transaction.timeout.ms` of the instances, and the broker's look for expired ones.
pub const TRANSACTION: Duration = Duration::from_secs(11);

/// The faults of `rounds` rounds. `only`, where not empty, is the bag: a kind comes as often as it
/// is named.
pub fn schedule(seed: u64, rounds: usize, only: &[Fault]) -> Vec<Fault> {
    let mut rng = Rng::branch(seed, 1);
    if only.is_empty() && rounds <= Fault::SHORT.len() {
        return Fault::SHORT[..rounds].to_vec();
    }
    let mut all = Vec::with_capacity(rounds);
    while all.len() < rounds {
        let mut bag: Vec<Fault> = if only.is_empty() {
            let weighted = Fault::BAG.iter();
            weighted
                .flat_map(|(fault, count)| std::iter::repeat_n(*fault, *count))
                .collect()
        } else {
            only.to_vec()
        };
        rng.shuffle(&mut bag);
        all.extend(bag);
    }
    all.truncate(rounds);
    all
}

/// What recovery counts: from the fault's end, or, where that took longer than it may, from the
/// broker's time-out that the service had to wait for. A stopped instance's time-outs run while
/// it is stopped; all others begin with the end of the fault, a restarted broker's included.
pub fn recovery(raw: Duration, fault_took: Duration, fault: Fault) -> Duration {
    if raw <= BOUND {
        return raw;
    }
    let ran = match fault {
        StopSession | StopTransaction => fault_took,
        _ => Duration::ZERO,
    };
    raw.saturating_sub(fault.broker_wait().saturating_sub(ran))
}

/// How soon the service must score again.
pub const BOUND: Duration = Duration::from_secs(10);
