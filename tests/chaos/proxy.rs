//! A TCP proxy in front of the broker that knows enough of Kafka's protocol to hold back or lose
//! the response to one kind of request, or the request itself: the first bytes of each request say
//! its kind and number, the first bytes of each response repeat the number.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// API keys of requests.
pub const OFFSET_COMMIT: i16 = 8;
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
pub const END_TXN: i16 = 26;
pub const TXN_OFFSET_COMMIT: i16 = 28;
pub const PRODUCE: i16 = 0;

/// What is done to responses, or to requests.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Kinds of requests it is about; all where empty.
    pub apis: Vec<i16>,
    /// How many responses it is about.
    pub count: u64,
    pub action: Action,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Pass,
    /// Held back for so long.
    Delay(Duration),
    /// Lost, and the connection with it: the broker has done what it was asked to.
    Cut,
    /// Lost: the client waits for its time-out.
    Swallow,
    /// The request is held back until [`Proxy::deliver`], and the connection to the broker kept open
    /// for it, though the client may have left.
    Hold,
}

/// A request that is held back.
#[derive(Debug)]
struct Held {
    frame: Vec<u8>,
    server: TcpStream,
    /// The broker's answer, once it was delivered.
    answer: Option<Vec<u8>>,
}

/// The proxy; it ends with the process.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    rule: Mutex<Rule>,
    hits: AtomicU64,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
    held: Mutex<Vec<Held>>,
}

/// What both directions of a connection know.
#[derive(Debug, Default)]
struct Link {
    /// Kinds of requests by their numbers.
    asked: Mutex<HashMap<i32, i16>>,
    /// The client has left.
    ended: AtomicBool,
    /// Numbers of requests that are held back: the broker's side stays open for them.
    held: Mutex<HashSet<i32>>,
}

/// Largest frame: far above what the tests send.
const MAX_FRAME: usize = 64 << 20;

impl Proxy {
    /// Listens on `listener` and connects to `target`.
    pub fn start(listener: TcpListener, target: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            target,
            rule: Mutex::default(),
            hits: AtomicU64::new(0),
            connections: Mutex::default(),
            held: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A broker that is down: the client sees its connection close.
                if let Err(error) = accepting.connect(client) {
                    drop(error);
                }
            }
        });
        Self { shared }
    }

    /// Applies `rule` from now on; gives how often the last one was applied.
    pub fn set(&self, rule: Rule) -> u64 {
        *lock(&self.shared.rule) = rule;
        self.shared.hits.swap(0, Ordering::SeqCst)
    }

    /// How often the rule was applied.
    pub fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// Texts in the requests that are held back: among them the transactional id of an `EndTxn`.
    pub fn holds(&self, text: &str) -> bool {
        let held = lock(&self.shared.held);
        let mut all = held.iter();
        all.any(|one| {
            let mut parts = one.frame.windows(text.len());
            parts.any(|part| part == text.as_bytes())
        })
    }

    /// Delivers what is held back, each on its old connection; gives the broker's answers.
    pub fn deliver(&self, patience: Duration) -> Result<Vec<Vec<u8>>, String> {
        for one in &*lock(&self.shared.held) {
            let sent = (&one.server).write_all(&one.frame);
            sent.map_err(|error| format!("the held request is not delivered: {error}"))?;
        }
        let end = Instant::now() + patience;
        loop {
            let mut held = lock(&self.shared.held);
            if held.iter().all(|one| one.answer.is_some()) {
                return Ok(held.drain(..).filter_map(|one| one.answer).collect());
            }
            drop(held);
            if Instant::now() > end {
                return Err(format!("no answer to the held request within {patience:?}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Cuts every connection; gives how many there were.
    pub fn cut(&self) -> usize {
        let all = std::mem::take(&mut *lock(&self.shared.connections));
        let open = all.iter().filter(|(client, server)| {
            let open = client.peer_addr().is_ok();
            end(client);
            end(server);
            open
        });
        open.count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(stream: &TcpStream) {
    // It may be closed already.
    drop(stream.shutdown(Shutdown::Both));
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let server = TcpStream::connect(self.target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let pair = (client.try_clone()?, server.try_clone()?);
        {
            let mut connections = lock(&self.connections);
            connections.retain(|(client, _)| client.peer_addr().is_ok());
            connections.push(pair);
        }
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        let link: Arc<Link> = Arc::default();
        let (shared, asking) = (Arc::clone(self), Arc::clone(&link));
        thread::spawn(move || {
            drop(shared.requests(&from, &to, &asking));
            asking.ended.store(true, Ordering::SeqCst);
            end(&from);
            if lock(&asking.held).is_empty() {
                end(&to);
            }
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            drop(shared.responses(&server, &client, &link));
            end(&client);
            end(&server);
        });
        Ok(())
    }

    fn requests(
        &self,
        mut client: &TcpStream,
        mut server: &TcpStream,
        link: &Link,
    ) -> std::io::Result<()> {
        loop {
            let frame = read_frame(&mut client)?;
            let api = frame
                .get(4..6)
                .map_or(-1, |b| i16::from_be_bytes([b[0], b[1]]));
            let number = number_at(&frame, 8);
            if self.action(api, true) == Action::Hold {
                lock(&link.held).insert(number);
                let server = server.try_clone()?;
                lock(&self.held).push(Held {
                    frame,
                    server,
                    answer: None,
                });
                continue;
            }
            lock(&link.asked).insert(number, api);
            server.write_all(&frame)?;
        }
    }

    fn responses(
        &self,
        mut server: &TcpStream,
        mut client: &TcpStream,
        link: &Link,
    ) -> std::io::Result<()> {
        loop {
            let frame = read_frame(&mut server)?;
            let number = number_at(&frame, 4);
            if lock(&link.held).remove(&number) {
                self.answered(number, frame);
                if link.ended.load(Ordering::SeqCst) {
                    return Ok(());
                }
                continue;
            }
            let api = lock(&link.asked).remove(&number).unwrap_or(-1);
            match self.action(api, false) {
                Action::Pass | Action::Hold => {}
                Action::Delay(time) => {
                    let until = Instant::now() + time;
                    while Instant::now() < until && !link.ended.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                Action::Cut => return Ok(()),
                Action::Swallow => continue,
            }
            if let Err(error) = client.write_all(&frame)
                && lock(&link.held).is_empty()
            {
                return Err(error);
            }
        }
    }

    /// Notes the answer to a request that was held back.
    fn answered(&self, number: i32, answer: Vec<u8>) {
        let mut held = lock(&self.held);
        let mut waiting = { held.iter_mut() }
            .filter(|one| one.answer.is_none() && number_at(&one.frame, 8) == number);
        if let Some(one) = waiting.next() {
            one.answer = Some(answer);
        }
    }

    /// What is done to a request, or to a response, of this kind.
    fn action(&self, api: i16, request: bool) -> Action {
        let mut rule = lock(&self.rule);
        let about = rule.apis.is_empty() || rule.apis.contains(&api);
        if rule.count == 0 || !about || request != (rule.action == Action::Hold) {
            return Action::Pass;
        }
        rule.count -= 1;
        self.hits.fetch_add(1, Ordering::SeqCst);
        rule.action
    }
}

/// The error code in an answer to `EndTxn`, after its number and the time of throttling.
pub fn end_txn_error(answer: &[u8]) -> Option<i16> {
    let bytes = answer.get(12..14)?.first_chunk::<2>()?;
    Some(i16::from_be_bytes(*bytes))
}

fn number_at(frame: &[u8], at: usize) -> i32 {
    let bytes = frame.get(at..at + 4).and_then(<[u8]>::first_chunk::<4>);
    bytes.map_or(-1, |bytes| i32::from_be_bytes(*bytes))
}

/// A whole frame, its length in front.
fn read_frame(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length) as usize;
    if size > MAX_FRAME {
        return Err(std::io::Error::other("not a frame of Kafka"));
    }
    let mut frame = vec![0; 4 + size];
    frame[..4].copy_from_slice(&length);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
