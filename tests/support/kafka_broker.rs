//! A real Apache Kafka broker for tests: one node in its own JVM, without containers.
//!
//! The mock cluster of librdkafka has no transactions and no compaction worth the name, so what
//! this project promises can be shown only with the real thing.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::kafka_jars::{Kit, PINNED_VERSION, Unavailable, set};
use super::kafka_node::Node;
use super::supervisor::Supervised;

/// From SIGTERM to the end; Kafka writes its indexes out meanwhile.
const TERMINATE_DEADLINE: Duration = Duration::from_mins(1);
const KILL_DEADLINE: Duration = Duration::from_secs(30);
const FOREIGN_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Another process may take a port between its choice and its use.
const START_ATTEMPTS: usize = 3;
/// How many lines of the broker's log a failure shows.
const TAIL_LINES: usize = 40;

/// How an own broker differs from the usual one.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The version of Kafka, unless the environment asks for another one.
    pub kafka: &'static str,
    /// The largest heap. The process as a whole takes more than that when it is filled.
    pub heap_mb: u32,
    /// Heap and JVM options as Kafka's own start script sets them, not those that spare the
    /// processors of tests. For benchmarks.
    pub as_shipped: bool,
    /// More lines for `server.properties`; they win over the usual ones.
    pub properties: Vec<(String, String)>,
    /// Listeners beside the usual one.
    pub listeners: Vec<Listener>,
    /// Where its data is; below its own directory unless set.
    pub data_dir: Option<PathBuf>,
    /// Records that are written while the storage is formatted, such as SCRAM users:
    /// arguments of `StorageTool format`.
    pub format_args: Vec<String>,
    /// Loggers, by the start of their names, that log more than warnings, with their level.
    pub loggers: Vec<(&'static str, &'static str)>,
}

/// One more listener of a broker.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name in `server.properties`, in capitals.
    pub name: String,
    /// `PLAINTEXT`, `SASL_SSL` …
    pub protocol: String,
    pub port: u16,
    /// The port that clients are told to connect to: another one where something is in between.
    pub advertised: u16,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        BrokerOptions {
            kafka: PINNED_VERSION,
            heap_mb: 512,
            as_shipped: false,
            properties: Vec::new(),
            listeners: Vec::new(),
            data_dir: None,
            format_args: Vec::new(),
            loggers: Vec::new(),
        }
    }
}

/// A broker to test with. Dropping it ends it and removes its data, if it is ours; so does the
/// end of the test process, however it comes.
#[derive(Debug)]
pub struct Broker {
    bootstrap: String,
    version: String,
    own: Option<Node>,
}

/// The one broker that the tests of this process share, started at the first call.
pub fn shared() -> Result<&'static Broker, Unavailable> {
    static SHARED: OnceLock<Result<Broker, Unavailable>> = OnceLock::new();
    let broker = SHARED.get_or_init(|| match foreign_address() {
        Some(address) => Broker::foreign(&address),
        None => Broker::start(&BrokerOptions::default()),
    });
    broker.as_ref().map_err(Clone::clone)
}

/// The broker that the environment asks to use instead of an own one.
pub fn foreign_address() -> Option<String> {
    set("SWAPSTREAM_TEST_KAFKA")
}

impl Broker {
    /// Starts a broker on free ports with an empty data directory, and waits until it serves.
    pub fn start(options: &BrokerOptions) -> Result<Broker, Unavailable> {
        let kit = Kit::resolve(options.kafka)?;
        let mut failure = String::new();
        for _ in 0..START_ATTEMPTS {
            let own =
                Node::create(Arc::clone(&kit), options.clone()).map_err(Unavailable::broken)?;
            match own.launch() {
                Ok(()) => {
                    let bootstrap = own.address.to_string();
                    return Ok(Broker {
                        bootstrap,
                        version: kit.version.clone(),
                        own: Some(own),
                    });
                }
                Err(reason) => failure = reason,
            }
            if !failure.contains("Address already in use") {
                break;
            }
        }
        let version = &kit.version;
        Err(Unavailable::broken(format!(
            "Apache Kafka {version} does not start: {failure}"
        )))
    }

    fn foreign(address: &str) -> Result<Broker, Unavailable> {
        let reach = |candidate: &str| -> std::io::Result<()> {
            let mut last = std::io::Error::other("the name has no address");
            for socket_address in candidate.to_socket_addrs()? {
                match TcpStream::connect_timeout(&socket_address, FOREIGN_CONNECT_TIMEOUT) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let first = address.split(',').next().unwrap_or(address);
        reach(first).map_err(|error| {
            Unavailable::broken(format!(
                "no broker at SWAPSTREAM_TEST_KAFKA={address}: {error}; unset it to start one from here"
            ))
        })?;
        Ok(Broker {
            bootstrap: address.to_owned(),
            version: "foreign".to_owned(),
            own: None,
        })
    }

    /// The value for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The version of Kafka, or `foreign`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it was started here, so that a test may stop it.
    pub fn owned(&self) -> bool {
        self.own.is_some()
    }

    /// The pid of its JVM while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.process().as_ref().map(Supervised::pid)
    }

    /// Whether its JVM runs: it may have ended by itself.
    pub fn is_running(&self) -> bool {
        let Some(own) = &self.own else { return true };
        let mut process = own.process();
        process
            .as_mut()
            .is_some_and(|process| process.exit_status().is_none())
    }

    /// The directory with its `server.properties`, `data` and `broker.log`.
    pub fn dir(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.dir.as_path())
    }

    /// The last `lines` lines of its log, of all starts together; it logs warnings and errors.
    pub fn log_tail(&self, lines: usize) -> String {
        self.own
            .as_ref()
            .map(|own| own.log_tail(lines))
            .unwrap_or_default()
    }

    /// Copies its data, configuration and log into `to`, for whoever looks for a cause later. A
    /// running broker is killed first: what it has acknowledged is in its files.
    pub fn keep(&self, to: &Path) -> Result<(), String> {
        let Some(own) = &self.own else { return Ok(()) };
        if self.is_running() {
            self.kill();
        }
        own.keep(to)
    }

    /// SIGKILL, and waits until it is gone. Nothing acknowledged is lost by that: it is in the
    /// page cache of the system.
    #[track_caller]
    pub fn kill(&self) {
        self.stop("KILL", KILL_DEADLINE);
    }

    /// SIGTERM, and waits until it has shut down in order. Not on a paused one, which would sleep
    /// through it.
    #[track_caller]
    pub fn terminate(&self) {
        self.stop("TERM", TERMINATE_DEADLINE);
    }

    /// SIGSTOP: its connections stay open, and nothing answers.
    #[track_caller]
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT: it goes on where [`pause`](Self::pause) stopped it.
    #[track_caller]
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Starts it again with the same ports and data, after a [`terminate`](Self::terminate) if it
    /// still runs, and waits until it serves.
    #[track_caller]
    pub fn restart(&self) {
        if self.is_running() {
            self.terminate();
        }
        if let Err(reason) = self.own().launch() {
            panic!("the broker does not start again: {reason}");
        }
    }

    #[track_caller]
    fn stop(&self, signal: &str, deadline: Duration) {
        self.signal(signal);
        let own = self.own();
        let mut process = own.process();
        let ended = process
            .as_mut()
            .is_none_or(|process| process.wait(deadline).is_some());
        assert!(
            ended,
            "the broker survives SIG{signal} for {deadline:?}; its log ends with:\n{}",
            own.log_tail(TAIL_LINES)
        );
        *process = None;
    }

    #[track_caller]
    fn signal(&self, name: &str) {
        let own = self.own();
        let sent = match own.process().as_mut() {
            Some(process) => process.signal(name),
            None => Err(format!("no SIG{name}: the broker is not running")),
        };
        if let Err(reason) = sent {
            panic!("{reason}; its log ends with:\n{}", own.log_tail(TAIL_LINES));
        }
    }

    #[track_caller]
    fn own(&self) -> &Node {
        match &self.own {
            Some(own) => own,
            None => panic!("the broker at {} was not started here", self.bootstrap),
        }
    }
}
