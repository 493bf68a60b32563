//! What a live view shows: a copy of the tally at one moment. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use super::Swap;
use super::tally::{BAR, BARS, Tally};

/// How the demo stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// How long events have been fed.
    pub elapsed: Duration,
    /// How long they will be; `None`: until it is stopped.
    pub duration: Option<Duration>,
    /// `embedded`, or the address of the broker.
    pub broker: String,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// The model's name.
    pub model: String,
    /// Events sent.
    pub events: u64,
    /// Predictions seen.
    pub predictions: u64,
    /// Dead letters seen.
    pub dead_letters: u64,
    /// Events without an answer yet.
    pub lag: u64,
    /// Answers beyond the first to the same event.
    pub duplicated: u64,
    /// Answers each half second, oldest first; the last one is not over.
    pub bars: Vec<u64>,
    /// Median time from sending an event to seeing its answer, milliseconds.
    pub p50_ms: Option<f64>,
    /// What 99 of 100 answers do not exceed.
    pub p99_ms: Option<f64>,
    /// The version of the newest revision seen.
    pub serving: Option<String>,
    /// By revision.
    pub versions: Vec<VersionProgress>,
    /// The last swap, once the new version has answered, and when it was asked for.
    pub swap: Option<(Swap, Duration)>,
}

/// How one version stands.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionProgress {
    /// The version.
    pub version: String,
    /// Its revision.
    pub revision: i64,
    /// Events it has answered.
    pub events: u64,
    /// The AUC over these.
    pub auc: Option<f64>,
}

impl Progress {
    /// Answers a second, over the last two seconds.
    pub fn rate(&self) -> f64 {
        const WINDOW: usize = 4;
        let complete = self
            .bars
            .split_last()
            .map_or(&[][..], |(_, complete)| complete);
        let window = complete.len().min(WINDOW);
        let sum: u64 = complete.iter().rev().take(window).sum();
        sum as f64 / (BAR.as_secs_f64() * window.max(1) as f64)
    }
}

/// The bars from the first to that of `now`, those without an answer included.
pub(super) fn bars(tally: &Tally, now: Duration) -> Vec<u64> {
    let last = (now.as_millis() / BAR.as_millis()) as u64;
    let Some(first) = tally.bars.first_key_value().map(|(bar, _)| *bar) else {
        return Vec::new();
    };
    let first = first.max((last + 1).saturating_sub(BARS as u64));
    (first..=last)
        .map(|bar| tally.bars.get(&bar).copied().unwrap_or_default())
        .collect()
}

/// The versions by revision. Their AUC is asked of `auc`, since it takes a while.
pub(super) fn versions(tally: &Tally) -> Vec<VersionProgress> {
    let mut versions: Vec<VersionProgress> = tally
        .versions
        .iter()
        .map(|(version, seen)| VersionProgress {
            version: version.clone(),
            revision: seen.revision,
            events: seen.quality.events(),
            auc: seen.quality.auc(),
        })
        .collect();
    versions.sort_by_key(|version| version.revision);
    versions
}
