//! Liveness and readiness of the whole process, from what each part says of itself.

use std::sync::Arc;
use std::time::Duration;

use super::probe::BrokerStatus;
use crate::http::{HealthSource, Report};
use crate::registry::Board;
use crate::stream::Stream;
use crate::telemetry::Metrics;

/// The registry's thread is stuck when it has not turned for this long; without a broker its
/// requests take their time.
const STUCK_AFTER: Duration = Duration::from_mins(3);

/// What the health endpoints ask.
#[derive(Debug)]
pub(super) struct Health {
    board: Arc<Board>,
    broker: Arc<BrokerStatus>,
    streams: Vec<Stream>,
    metrics: Arc<Metrics>,
}

impl Health {
    pub(super) fn new(
        board: Arc<Board>,
        broker: Arc<BrokerStatus>,
        streams: Vec<Stream>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            board,
            broker,
            streams,
            metrics,
        }
    }

    pub(super) fn streams(&self) -> &[Stream] {
        &self.streams
    }
}

impl HealthSource for Health {
    fn live(&self) -> Report {
        let reports = self
            .streams
            .iter()
            .map(Stream::report)
            .filter(|report| !report.live);
        let streams =
            reports.map(|report| format!("stream {}: {}", report.name, report.problems.join("; ")));
        let silent = self.board.silent_for().filter(|time| *time >= STUCK_AFTER);
        let control = silent.map(|time| {
            format!(
                "the thread that follows the registry is stuck for {}s",
                time.as_secs()
            )
        });
        control.into_iter().chain(streams).collect()
    }

    fn ready(&self) -> Report {
        let (caught_up, unready) = self.board.look(|view| (view.caught_up, view.unready()));
        self.metrics.set_registry_caught_up(caught_up);
        let broker = self.broker.problem().map(|why| format!("no broker: {why}"));
        let streams = self
            .streams
            .iter()
            .map(Stream::report)
            .filter(|report| !report.ready);
        let streams = streams.map(|report| {
            let why = if report.problems.is_empty() {
                "its workers have not joined their group yet".to_owned()
            } else {
                report.problems.join("; ")
            };
            format!("stream {}: {why}", report.name)
        });
        broker.into_iter().chain(unready).chain(streams).collect()
    }
}
