//! A GET over a plain socket: enough to look at `/metrics` and the health endpoints.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The server under test answers from memory, so a longer silence is a finding.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Status and body of `GET path` from `addr` (`host:port`).
///
/// # Panics
/// When there is no well-formed answer; [`try_http_get`] is for polling a server that may not be
/// up yet.
#[track_caller]
pub fn http_get(addr: &str, path: &str) -> (u16, String) {
    match try_http_get(addr, path) {
        Ok(answer) => answer,
        Err(reason) => panic!("{reason}"),
    }
}

/// Like [`http_get`], with the failure as a value.
pub fn try_http_get(addr: &str, path: &str) -> Result<(u16, String), String> {
    exchange(addr, path)
        .map_err(|error| error.to_string())
        .and_then(|answer| parse(&answer))
        .map_err(|reason| format!("GET http://{addr}{path}: {reason}"))
}

fn exchange(addr: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Result<(u16, String), String> {
    let head_end = find(answer, b"\r\n\r\n").ok_or("the answer ends within its head")?;
    let head = String::from_utf8_lossy(&answer[..head_end]).into_owned();
    let body = &answer[head_end + 4..];
    let status_line = head.lines().next().unwrap_or_default();
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| format!("not a status line: {status_line:?}"))?;

    let body = if header(&head, "transfer-encoding").is_some_and(|value| value.contains("chunked"))
    {
        dechunk(body)?
    } else if let Some(length) = header(&head, "content-length") {
        let length: usize = length
            .parse()
            .map_err(|_| format!("content-length {length:?}"))?;
        let all = body.get(..length);
        all.ok_or_else(|| format!("{} of {length} bytes of the body", body.len()))?
            .to_vec()
    } else {
        body.to_vec()
    };
    let body = String::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
    Ok((status, body))
}

/// The value of the header `name` (lower case), in lower case.
fn header(head: &str, name: &str) -> Option<String> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim().to_ascii_lowercase() == name).then(|| value.trim().to_ascii_lowercase())
    })
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let line_end = find(rest, b"\r\n").ok_or("the body ends within a chunk size")?;
        let line = String::from_utf8_lossy(&rest[..line_end]).into_owned();
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("chunk size {line:?}"))?;
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(line_end + 2..line_end + 2 + size);
        body.extend_from_slice(chunk.ok_or("the body ends within a chunk")?);
        rest = rest
            .get(line_end + 2 + size + 2..)
            .ok_or("the body ends after a chunk")?;
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}
