//! Gives each part its cue: publish, deploy, start the service, feed, deploy the better version
//! at half time, let everything be answered, stop in order, sum up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::feed::Feed;
use super::flights::Flights;
use super::progress::{self, Progress, VersionProgress};
use super::stage::{PARTITIONS, Stage};
use super::summary::{self, Outcome, Run, Swap};
use super::tally::SharedTally;
use super::verifier::Verifier;
use super::{DemoError, DemoOptions, Report, Started};
use crate::app::{App, AppError, AppOptions};

/// How long the service may take to become ready, and again until its first answers.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the feed goes on beyond its time for a swap that has not shown yet.
const SWAP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last events may take to be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(50);
/// Time between two looks of the live view, and between two computations of the AUC.
const VIEW_INTERVAL: Duration = Duration::from_millis(200);
const AUC_INTERVAL: Duration = Duration::from_secs(1);

/// The demo while it runs.
pub(super) struct Director<'a> {
    options: &'a DemoOptions,
    stage: &'a Stage,
    flights: &'a Flights,
    /// Asks for an early end.
    stop: &'a AtomicBool,
    tally: SharedTally,
    clock: Instant,
    stop_feed: AtomicBool,
    finish: AtomicBool,
}

impl<'a> Director<'a> {
    pub(super) fn new(
        options: &'a DemoOptions,
        stage: &'a Stage,
        flights: &'a Flights,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            options,
            stage,
            flights,
            stop,
            tally: SharedTally::new(PARTITIONS),
            clock: Instant::now(),
            stop_feed: AtomicBool::new(false),
            finish: AtomicBool::new(false),
        }
    }

    /// From the first publication to the summary.
    pub(super) fn run(&self, report: &mut dyn FnMut(Report<'_>)) -> Result<Outcome, DemoError> {
        report(Report::Step("publishing two versions of the model"));
        self.stage.publish()?;
        report(Report::Step("deploying version 1"));
        self.stage.deploy(&self.stage.first, "the demo begins")?;
        report(Report::Step("starting the service"));
        let app = self.start_app()?;
        if let Err(error) = self.wait_until_ready(&app) {
            app.stop();
            return Err(error);
        }
        let started = Started {
            broker: self.stage.broker.clone(),
            input_topic: self.stage.topics.input.clone(),
            http: app.http_address(),
        };
        report(Report::Started(&started));
        let swap = self.perform(app, &started, report)?;
        let run = Run {
            broker: self.stage.broker.clone(),
            model: self.stage.first.model.to_string(),
            before: self.stage.first.version.to_string(),
            after: self.stage.second.version.to_string(),
            swap,
            stopped: self.stopped(),
        };
        Ok(summary::sum_up(&self.tally.lock(), run))
    }

    /// Starts the service; on a free port where the usual one is taken and none was asked for.
    fn start_app(&self) -> Result<App, AppError> {
        let options = AppOptions {
            describe_topics: !self.stage.is_embedded(),
            // The demo is one process, and the models are its own.
            probe_models: false,
        };
        match App::start(&self.stage.config, options) {
            Err(AppError::Http(_)) if self.options.http.is_none() => {
                let mut config = self.stage.config.clone();
                config.http.listen.set_port(0);
                App::start(&config, options)
            }
            started => started,
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn wait_until_ready(&self, app: &App) -> Result<(), DemoError> {
        let begin = Instant::now();
        loop {
            let reasons = app.ready();
            if reasons.is_empty() {
                return Ok(());
            }
            if self.stopped() {
                return Err(DemoError::Stopped);
            }
            if begin.elapsed() >= READY_TIMEOUT {
                return Err(DemoError::NotReady {
                    after: READY_TIMEOUT,
                    reasons,
                });
            }
            std::thread::sleep(TICK);
        }
    }

    /// Feed, swap, drain, verify; everything is stopped when it returns.
    fn perform(
        &self,
        app: App,
        started: &Started,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<Option<Swap>, DemoError> {
        let Self {
            stage,
            flights,
            tally,
            clock,
            ..
        } = self;
        let feed = Feed {
            stage,
            flights,
            tally,
            clock: *clock,
            rate: self.options.rate,
            stop: &self.stop_feed,
        };
        let verifier = Verifier {
            stage,
            flights,
            tally,
            clock: *clock,
            finish: &self.finish,
        };
        std::thread::scope(|scope| {
            let verifier = scope.spawn(|| verifier.run());
            let feed = scope.spawn(|| feed.run());
            let failed = || verifier.is_finished() || feed.is_finished();
            let swapped = self.direct(scope, &failed, &app, started, report);
            self.stop_feed.store(true, Ordering::Relaxed);
            let feed_end = join(feed, "feed");
            if swapped.is_ok() && feed_end.is_ok() {
                report(Report::Step("waiting for the last answers"));
                self.wait_for_answers(&|| verifier.is_finished());
            }
            report(Report::Step("stopping the service"));
            app.stop();
            report(Report::Step("reading the output topics to their ends"));
            self.finish.store(true, Ordering::Release);
            let verifier_end = join(verifier, "verifier");
            feed_end?;
            // Ordered by what explains the others.
            let swap = swapped?;
            verifier_end?;
            Ok(swap)
        })
    }

    fn wait_for_answers(&self, failed: &dyn Fn() -> bool) {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while self.tally.lock().ledger.unanswered() > 0 && !failed() {
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(TICK);
        }
    }

    /// The time in which events are fed. Gives the swap, if it was seen.
    fn direct<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        failed: &dyn Fn() -> bool,
        app: &App,
        started: &Started,
        report: &mut dyn FnMut(Report<'_>),
    ) -> Result<Option<Swap>, DemoError> {
        let begin = self.clock.elapsed();
        let mut deployment: Option<ScopedJoinHandle<'scope, Result<i64, DemoError>>> = None;
        let mut deployed = None;
        let mut swap: Option<(Swap, Duration)> = None;
        let mut view = View::default();
        while !self.stopped() && !failed() {
            let now = self.clock.elapsed();
            let fed_since = self.tally.lock().started;
            let fed = fed_since.map(|since| now.saturating_sub(since));
            match fed {
                None if now.saturating_sub(begin) >= READY_TIMEOUT => {
                    let mut reasons = app.ready();
                    reasons.push("the first events were not answered".to_owned());
                    return Err(DemoError::NotReady {
                        after: READY_TIMEOUT,
                        reasons,
                    });
                }
                Some(fed) if fed >= self.options.duration / 2 && deployed.is_none() => {
                    deployment = deployment.or_else(|| Some(scope.spawn(|| self.deploy())));
                }
                Some(fed) if self.is_over(fed, swap.is_some()) => break,
                _ => {}
            }
            if let Some(ended) = deployment.take_if(|deployment| deployment.is_finished()) {
                deployed = Some(join(ended, "deployment")?);
            }
            if let (None, Some(revision)) = (&swap, deployed) {
                swap = self.swap(revision);
                if let Some((swap, _)) = &swap {
                    report(Report::Swapped(swap));
                }
            }
            if self.options.watched && view.is_due(now) {
                let progress = self.progress(now, started, swap.clone(), &mut view);
                report(Report::Progress(&progress));
            }
            std::thread::sleep(TICK);
        }
        if let Some(deployment) = deployment {
            deployed = Some(join(deployment, "deployment")?);
        }
        let found = match (swap, deployed) {
            (None, Some(revision)) => self.swap(revision),
            (found, _) => found,
        };
        Ok(found.map(|(swap, _)| swap))
    }

    /// Whether the feed has had its time, and the swap, too, where it comes at all.
    fn is_over(&self, fed: Duration, swapped: bool) -> bool {
        let time = self.options.duration;
        !self.options.keep_running && fed >= time && (swapped || fed >= time + SWAP_TIMEOUT)
    }

    fn deploy(&self) -> Result<i64, DemoError> {
        self.stage.deploy(
            &self.stage.second,
            "better: it knows the delay at departure",
        )
    }

    /// The swap to `revision` and when it was deployed, once a prediction has carried it.
    fn swap(&self, revision: i64) -> Option<(Swap, Duration)> {
        let tally = self.tally.lock();
        let seen = tally.first_seen.get(&revision).copied()?;
        // Another partition of the reader's may be ahead of the log by a moment.
        let deployed = tally
            .deployed
            .get(&revision)
            .copied()
            .unwrap_or(seen)
            .min(seen);
        let swap = Swap {
            from: self.stage.first.version.to_string(),
            to: self.stage.second.version.to_string(),
            revision,
            activated_after_ms: summary::round(
                seen.saturating_sub(deployed).as_secs_f64() * 1000.0,
                1,
            ),
        };
        let start = tally.started.unwrap_or_default();
        Some((swap, deployed.saturating_sub(start)))
    }

    fn progress(
        &self,
        now: Duration,
        started: &Started,
        swap: Option<(Swap, Duration)>,
        view: &mut View,
    ) -> Progress {
        let tally = self.tally.lock();
        // It takes milliseconds, in which the verifier waits.
        if view
            .computed
            .is_none_or(|at| now.saturating_sub(at) >= AUC_INTERVAL)
        {
            view.computed = Some(now);
            view.versions = progress::versions(&tally);
        }
        Progress {
            elapsed: tally
                .started
                .map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            duration: (!self.options.keep_running).then_some(self.options.duration),
            broker: started.broker.clone(),
            http: started.http,
            model: self.stage.first.model.to_string(),
            events: tally.ledger.sent(),
            predictions: tally.predictions,
            dead_letters: tally.dead_letters,
            lag: tally.ledger.unanswered(),
            duplicated: tally.ledger.duplicated(),
            bars: progress::bars(&tally, now),
            p50_ms: tally.latencies.quantile_ms(0.5),
            p99_ms: tally.latencies.quantile_ms(0.99),
            serving: tally.serving.clone(),
            versions: view.versions.clone(),
            swap,
        }
    }
}

/// What the live view remembers between two looks.
#[derive(Default)]
struct View {
    shown: Option<Duration>,
    computed: Option<Duration>,
    versions: Vec<VersionProgress>,
}

impl View {
    fn is_due(&mut self, now: Duration) -> bool {
        let due = self
            .shown
            .is_none_or(|at| now.saturating_sub(at) >= VIEW_INTERVAL);
        if due {
            self.shown = Some(now);
        }
        due
    }
}

fn join<T>(
    thread: ScopedJoinHandle<'_, Result<T, DemoError>>,
    name: &'static str,
) -> Result<T, DemoError> {
    thread.join().unwrap_or(Err(DemoError::Defect(name)))
}
