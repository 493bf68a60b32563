//! Takes the status of instances that are gone out of `model-status`, so that nobody has to: every
//! instance looks now and then, and the first of the live ones by name does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::background::{self, Standing};
use super::error::RegistryError;
use super::fleet::Fleet;
use super::garbage::Attendance;
use super::logs::RegistryLogs;
use super::read::read;
use super::reporter::StatusSink;
use super::topics::RegistryTopic;

/// How long the status of an instance outlives its last word.
const AGE: Duration = Duration::from_hours(24);

/// How often an instance looks.
const EVERY: Duration = Duration::from_hours(1);

/// When it looks first at the latest: a fleet that starts together does not read together.
const FIRST: Duration = Duration::from_mins(5);

/// What the sweeper works with.
pub struct SweeperParts {
    /// This instance.
    pub instance: String,
    /// The registry's topics.
    pub logs: Arc<dyn RegistryLogs>,
    /// Makes what writes to the status topic; it is needed seldom, and briefly.
    pub sink: Box<dyn Fn() -> Box<dyn StatusSink> + Send>,
    /// How long the status of an instance outlives its last word.
    pub age: Duration,
    /// Time between two looks.
    pub every: Duration,
    /// Time before the first one.
    pub first: Duration,
}

impl std::fmt::Debug for SweeperParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SweeperParts")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl SweeperParts {
    /// With the times of the service.
    pub fn new(
        instance: String,
        logs: Arc<dyn RegistryLogs>,
        sink: Box<dyn Fn() -> Box<dyn StatusSink> + Send>,
    ) -> Self {
        let first = first_look(&instance);
        Self {
            instance,
            logs,
            sink,
            age: AGE,
            every: EVERY,
            first,
        }
    }
}

/// When the instance looks first: somewhen within [`FIRST`], by its name.
fn first_look(instance: &str) -> Duration {
    let spread = instance.bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    Duration::from_secs(spread % FIRST.as_secs())
}

/// The running sweeper.
#[derive(Debug)]
pub struct Sweeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sweeper {
    /// Starts the thread.
    pub fn start(parts: SweeperParts) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = background::spawn("status-sweeper", Standing::Behind, move || {
            run(&parts, &told);
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it; a request that is under way is left behind.
    pub fn stop(self) {
        self.tell();
    }

    fn tell(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
    }
}

fn run(parts: &SweeperParts, stop: &AtomicBool) {
    let mut wait = parts.first;
    loop {
        let next = Instant::now() + wait;
        while Instant::now() < next {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        match sweep(parts, now) {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => tracing::info!(
                "took out the status of instances that were not heard of for {}: {}",
                humantime::format_duration(parts.age),
                gone.join(", ")
            ),
            // The next look, or another instance, will do it.
            Err(error) => tracing::debug!("the status of gone instances is left: {error}"),
        }
        wait = parts.every;
    }
}

/// One look; gives the names of those whose status was taken out.
fn sweep(parts: &SweeperParts, now: i64) -> Result<Vec<String>, RegistryError> {
    let (mut fleet, mut attendance) = (Fleet::new(), Attendance::new());
    read(&*parts.logs, RegistryTopic::Status, &mut |record| {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        fleet.apply(key, value, record.timestamp);
        attendance.apply(key, value.is_none(), record.timestamp);
    })?;
    if fleet.first_live(now) != Some(&parts.instance) {
        return Ok(Vec::new());
    }
    let gone = attendance.gone(&fleet, now, parts.age);
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let mut sink = (parts.sink)();
    let mut names = Vec::new();
    for (instance, keys) in gone {
        for key in keys.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
            sink.write(key, None)?;
        }
        names.push(instance.to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::logs::fake::FakeLogs;
    use super::super::status::{Heartbeat, INSTANCE_SCHEMA};
    use super::*;
    use crate::kafka::KafkaError;

    struct Sink(FakeLogs);

    impl StatusSink for Sink {
        fn write(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), KafkaError> {
            let key = key.as_bytes();
            self.0.append(RegistryTopic::Status, key, value, Vec::new());
            Ok(())
        }
    }

    /// `age` in milliseconds, which the fake's times count from 0, one a record.
    fn parts(instance: &str, logs: &FakeLogs, age: u64) -> SweeperParts {
        let to = logs.clone();
        SweeperParts {
            age: Duration::from_millis(age),
            every: Duration::from_millis(1),
            first: Duration::ZERO,
            ..SweeperParts::new(
                instance.to_owned(),
                Arc::new(logs.clone()),
                Box::new(move || Box::new(Sink(to.clone()))),
            )
        }
    }

    fn say(logs: &FakeLogs, key: &str, interval_ms: u64) {
        let heartbeat = Heartbeat {
            schema: INSTANCE_SCHEMA.to_owned(),
            instance: key.rsplit('/').next().unwrap().to_owned(),
            build: String::new(),
            streams: BTreeMap::new(),
            fingerprint: String::new(),
            interval_ms,
            started_at: String::new(),
            at: String::new(),
        };
        let value = serde_json::to_vec(&heartbeat).unwrap();
        logs.append(
            RegistryTopic::Status,
            key.as_bytes(),
            Some(value),
            Vec::new(),
        );
    }

    /// Keys that stand.
    fn standing(logs: &FakeLogs) -> Vec<String> {
        let mut keys = std::collections::BTreeSet::new();
        read(logs, RegistryTopic::Status, &mut |record| {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            match record.value {
                Some(_) => drop(keys.insert(key)),
                None => drop(keys.remove(&key)),
            }
        })
        .unwrap();
        keys.into_iter().collect()
    }

    #[test]
    fn the_first_of_the_live_takes_out_who_was_silent_for_long_and_nobody_else() {
        let logs = FakeLogs::default();
        say(&logs, "instance/gone", 1);
        logs.append(
            RegistryTopic::Status,
            b"gone/m",
            Some(b"{}".to_vec()),
            Vec::new(),
        );
        logs.append(
            RegistryTopic::Status,
            b"gone/m/loading",
            Some(b"{}".to_vec()),
            Vec::new(),
        );
        say(&logs, "instance/silent", 1);
        say(&logs, "instance/b", 20);
        say(&logs, "instance/a", 20);
        // At 53 the last word of `gone` (at 2) is 51 old, that of `silent` 50.
        let before = standing(&logs);
        assert!(
            sweep(&parts("b", &logs, 51), 53).unwrap().is_empty(),
            "a is the first"
        );
        assert!(
            sweep(&parts("gone", &logs, 51), 53).unwrap().is_empty(),
            "not live"
        );
        assert!(
            sweep(&parts("x", &logs, 51), 53).unwrap().is_empty(),
            "unknown"
        );
        assert!(
            sweep(&parts("a", &logs, 52), 53).unwrap().is_empty(),
            "too early"
        );
        assert_eq!(standing(&logs), before);
        assert_eq!(sweep(&parts("a", &logs, 51), 53).unwrap(), ["gone"]);
        let left = ["instance/a", "instance/b", "instance/silent"];
        assert_eq!(standing(&logs), left);
        assert!(
            sweep(&parts("a", &logs, 51), 53).unwrap().is_empty(),
            "it is done"
        );
        // Where the first has gone, too, the next one does it.
        assert_eq!(
            sweep(&parts("b", &logs, 50), 53).unwrap(),
            Vec::<String>::new()
        );
        say(&logs, "instance/b", 1000);
        assert_eq!(
            sweep(&parts("b", &logs, 50), 1000).unwrap(),
            ["a", "silent"]
        );
        assert_eq!(standing(&logs), ["instance/b"]);
    }

    #[test]
    fn it_looks_again_and_ends_when_it_is_told() {
        let logs = FakeLogs::default();
        say(&logs, "instance/gone", 1);
        say(&logs, "instance/a", i64::MAX as u64);
        logs.0.lock().unwrap().down = true;
        let sweeper = Sweeper::start(parts("a", &logs, 1)).unwrap();
        while logs.0.lock().unwrap().opened.len() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        logs.0.lock().unwrap().down = false;
        let deadline = Instant::now() + Duration::from_secs(20);
        // Everything of the fake's is long ago, and `a` lives for ever.
        while standing(&logs).iter().any(|key| key == "instance/gone") {
            assert!(Instant::now() < deadline, "{:?}", standing(&logs));
            std::thread::sleep(Duration::from_millis(1));
        }
        sweeper.tell();
        sweeper.thread.join().unwrap();
    }

    #[test]
    fn a_fleet_does_not_look_all_at_once() {
        let times: std::collections::BTreeSet<_> = (0..20)
            .map(|n| first_look(&format!("scorer-{n}")))
            .collect();
        assert!(times.len() > 10, "{times:?}");
        assert!(times.iter().all(|time| *time < FIRST));
    }
}
