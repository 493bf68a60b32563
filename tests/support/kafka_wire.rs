//! The few bytes of the Kafka protocol that tell a broker which serves from a port that is open,
//! and the choice of ports.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
const API_VERSIONS: i16 = 18;
const METADATA: i16 = 3;
const CREATE_ACLS: i16 = 30;
const CORRELATION_ID: i32 = 7;
/// Answers here have a few hundred bytes; anything far above is not Kafka.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Succeeds when the broker at `addr` answers requests and counts itself as a live member of its
/// cluster. The second matters: for a short while after its port is open no topic can be created.
pub fn check_serving(addr: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;

    let versions = round_trip(&mut stream, API_VERSIONS, 0, &[])?;
    let error_code = versions
        .get(..2)
        .ok_or_else(|| malformed("ApiVersions answer"))?;
    if error_code != [0, 0] {
        return Err(malformed(&format!(
            "ApiVersions answer with error code {error_code:?}"
        )));
    }

    let no_topics = 0_i32.to_be_bytes();
    let metadata = round_trip(&mut stream, METADATA, 1, &no_topics)?;
    match metadata
        .first_chunk::<4>()
        .map(|count| i32::from_be_bytes(*count))
    {
        Some(1..) => Ok(()),
        Some(_) => Err(Error::other("the broker is not registered yet")),
        None => Err(malformed("Metadata answer")),
    }
}

/// What an ACL is about.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Resource {
    Topic = 2,
    Group = 3,
    TransactionalId = 5,
}

/// What an ACL allows.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
    DescribeConfigs = 10,
}

/// Allows `user` operations on everything of a kind whose name starts with `prefix`, where the
/// listener at `addr` may do that. rdkafka has no call for it.
pub fn allow(
    addr: &str,
    user: &str,
    operations: &[Operation],
    resource: Resource,
    prefix: &str,
) -> Result<()> {
    const PREFIXED: u8 = 4;
    const ALLOW: u8 = 3;
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut body = (operations.len() as u32).to_be_bytes().to_vec();
    for operation in operations {
        body.push(resource as u8);
        push_text(&mut body, prefix);
        body.push(PREFIXED);
        push_text(&mut body, &format!("User:{user}"));
        push_text(&mut body, "*");
        body.extend([*operation as u8, ALLOW]);
    }
    let answer = round_trip(&mut stream, CREATE_ACLS, 1, &body)?;
    // A pause, a count, and for each ACL a code and a text, which is empty where it went well.
    let well = [0; 4].repeat(operations.len());
    match answer.get(8..) {
        Some(codes) if codes == well => Ok(()),
        other => Err(malformed(&format!("CreateAcls answer {other:?}"))),
    }
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text.as_bytes());
}

/// Sends one request and returns the body of its answer.
pub fn round_trip(stream: &mut TcpStream, api: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let mut request = Vec::new();
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION_ID.to_be_bytes());
    let no_client_id = -1_i16;
    request.extend(no_client_id.to_be_bytes());
    request.extend(body);
    let length = u32::try_from(request.len()).map_err(Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&request)?;

    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(Error::other)?;
    if !(4..=MAX_ANSWER_BYTES).contains(&length) {
        return Err(malformed(&format!("answer of {length} bytes")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let body = answer.split_off(4);
    if answer != CORRELATION_ID.to_be_bytes() {
        return Err(malformed("answer to another request"));
    }
    Ok(body)
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// Two free ports below the range from which systems pick the ports of outgoing connections.
///
/// Port 0 would give one inside that range. While the broker is down for a restart, another
/// connection could then take its port; even a client that keeps trying to reconnect can get it
/// as its own port and end up connected to itself.
pub fn free_ports() -> Result<(u16, u16)> {
    let first = bind_somewhere()?;
    let second = bind_somewhere()?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}

fn bind_somewhere() -> Result<TcpListener> {
    const LOWEST: u16 = 15_000;
    const COUNT: u64 = 15_000;
    const ATTEMPTS: usize = 100;
    let mut last = Error::other("no attempt");
    for _ in 0..ATTEMPTS {
        // Every RandomState has keys of its own, which makes this the random number of std.
        let random = RandomState::new().build_hasher().finish() % COUNT;
        let port = LOWEST + u16::try_from(random).map_err(Error::other)?;
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}
