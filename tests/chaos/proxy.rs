//! A TCP proxy in front of the broker that knows enough of Kafka's protocol to hold back or lose
//! the response to one kind of request: the first bytes of each request say its kind and number,
//! the first bytes of each response repeat the number.

use std::collections::HashMap;
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

/// What is done to responses.
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
        let asked: Arc<Mutex<HashMap<i32, i16>>> = Arc::default();
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        let noted = Arc::clone(&asked);
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        thread::spawn(move || {
            drop(requests(&from, &to, &noted));
            over.store(true, Ordering::SeqCst);
            end(&from);
            end(&to);
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            drop(shared.responses(&server, &client, &asked, &ended));
            end(&client);
            end(&server);
        });
        Ok(())
    }

    fn responses(
        &self,
        mut server: &TcpStream,
        mut client: &TcpStream,
        asked: &Mutex<HashMap<i32, i16>>,
        ended: &AtomicBool,
    ) -> std::io::Result<()> {
        loop {
            let frame = read_frame(&mut server)?;
            let number = number_at(&frame, 4);
            let api = lock(asked).remove(&number).unwrap_or(-1);
            match self.action(api) {
                Action::Pass => {}
                Action::Delay(time) => {
                    let until = Instant::now() + time;
                    while Instant::now() < until && !ended.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                Action::Cut => return Ok(()),
                Action::Swallow => continue,
            }
            client.write_all(&frame)?;
        }
    }

    fn action(&self, api: i16) -> Action {
        let mut rule = lock(&self.rule);
        let about = rule.apis.is_empty() || rule.apis.contains(&api);
        if rule.count == 0 || !about {
            return Action::Pass;
        }
        rule.count -= 1;
        self.hits.fetch_add(1, Ordering::SeqCst);
        rule.action
    }
}

fn requests(
    mut client: &TcpStream,
    mut server: &TcpStream,
    asked: &Mutex<HashMap<i32, i16>>,
) -> std::io::Result<()> {
    loop {
        let frame = read_frame(&mut client)?;
        let api = frame
            .get(4..6)
            .map_or(-1, |b| i16::from_be_bytes([b[0], b[1]]));
        lock(asked).insert(number_at(&frame, 8), api);
        server.write_all(&frame)?;
    }
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
