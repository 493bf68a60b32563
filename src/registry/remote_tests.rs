//! A server that misbehaves: each way of it has its own reason, and none of them ends in bytes that
//! are not the manifest's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "test code: a table of cases reads best in one piece"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::cache::{ArtifactCache, CacheSettings};
use super::fetch::{FetchError, FetchLimits};
use super::store::{fetch_uri, read_uri};
use crate::model::{Artifact, Digest};

const LIMITS: FetchLimits = FetchLimits {
    max_bytes: 1 << 20,
    max_time: Duration::from_mins(1),
};

/// What the server does with one connection after it has read the request.
type Answer = fn(&mut TcpStream, request: &str);

/// A server on this machine that answers each connection so; gives its address and the number of
/// connections so far.
fn server(answer: Answer) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    request.extend(byte);
                }
                answer(&mut stream, &String::from_utf8_lossy(&request));
            });
        }
    });
    (address, count)
}

/// Says that the connection ends with this answer, as it does: a client that sent its next request
/// on it would be cut off.
fn say(stream: &mut TcpStream, text: &str) {
    let text = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    stream.write_all(text.as_bytes()).ok();
}

fn cache(directory: &tempfile::TempDir) -> ArtifactCache {
    ArtifactCache::new(CacheSettings {
        directory: directory.path().to_owned(),
        max_bytes: 1 << 20,
    })
}

fn artifact(uri: &str, bytes: &[u8]) -> Artifact {
    Artifact {
        digest: Digest::of(bytes),
        bytes: bytes.len() as u64,
        uri: Some(uri.to_owned()),
    }
}

fn get(uri: &str, wanted: &[u8], limits: FetchLimits) -> Result<Vec<u8>, FetchError> {
    let directory = tempfile::tempdir().unwrap();
    let got = fetch_uri(
        uri,
        &artifact(uri, wanted),
        Some(&cache(&directory)),
        limits,
        &|_| true,
    );
    // Whatever happens, nothing but what was verified stays.
    let whole = directory.path().join("sha256");
    let kept = std::fs::read_dir(whole).map_or(0, Iterator::count);
    assert_eq!(kept, usize::from(got.is_ok()));
    let parts = std::fs::read_dir(directory.path().join("parts"));
    assert_eq!(parts.map_or(0, Iterator::count), 0);
    got
}

#[test]
fn what_is_right_is_read_once_and_kept() {
    let (address, count) = server(|stream, request| match request.split(' ').nth(1) {
        Some("/models/a%20b.onnx?v=1") => {
            say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright");
        }
        Some("/unsaid") => {
            let chunks = "3\r\nrig\r\n2\r\nht\r\n0\r\n\r\n";
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            say(stream, &format!("{head}{chunks}"));
        }
        Some("/moved") => say(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: /unsaid\r\nContent-Length: 0\r\n\r\n",
        ),
        other => panic!("{other:?}"),
    });
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(&directory);
    let uri = format!("{address}/models/a%20b.onnx?v=1");
    let wanted = artifact(&uri, b"right");
    for _ in 0..2 {
        let got = fetch_uri(&uri, &wanted, Some(&cache), LIMITS, &|_| true);
        assert_eq!(got.unwrap(), b"right");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "the second time from here");
    for path in ["unsaid", "moved"] {
        let uri = format!("{address}/{path}");
        assert_eq!(get(&uri, b"right", LIMITS).unwrap(), b"right", "{path}");
        assert_eq!(read_uri(&uri, LIMITS, &|_| true).unwrap(), b"right");
    }
}

#[test]
fn each_misbehaviour_has_its_reason() {
    let cases: &[(&str, Answer, bool, &str)] = &[
        (
            "another file",
            |s, _| say(s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"),
            false,
            "the manifest says sha256:",
        ),
        (
            "a longer file",
            |s, _| say(s, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nlonger"),
            false,
            "has 6 bytes, the manifest says 5",
        ),
        (
            "a shorter file",
            |s, _| say(s, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nrig"),
            false,
            "has 3 bytes, the manifest says 5",
        ),
        (
            "more than it says, without a length",
            |s, _| {
                say(s, "HTTP/1.1 200 OK\r\n\r\nright and more");
            },
            false,
            "has more bytes, the manifest says 5",
        ),
        (
            "less, without a length",
            |s, _| say(s, "HTTP/1.1 200 OK\r\n\r\nrig"),
            false,
            "has 3 bytes, the manifest says 5",
        ),
        (
            "a body that breaks off",
            |s, _| say(s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nrig"),
            true,
            "",
        ),
        (
            "nothing there",
            |s, _| say(s, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            true,
            "nothing there (404)",
        ),
        (
            "not for us",
            |s, _| {
                say(
                    s,
                    "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nx1y2z3",
                );
            },
            true,
            "only to others (403)",
        ),
        (
            "out of order",
            |s, _| say(s, "HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\nx1y2z3"),
            true,
            "the server answers 500",
        ),
        ("no http", |s, _| say(s, "SSH-2.0-x1y2z3\r\n"), true, ""),
        ("hangs up", |_, _| {}, true, ""),
        (
            "a ring of redirects",
            |s, _| {
                say(
                    s,
                    "HTTP/1.1 302 Found\r\nLocation: /again?x1y2z3\r\nContent-Length: 0\r\n\r\n",
                );
            },
            true,
            "redirect",
        ),
        (
            "a redirect to nowhere",
            |s, _| say(s, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
            true,
            "redirects to nowhere (302)",
        ),
    ];
    for (name, answer, transient, part) in cases {
        let (address, _) = server(*answer);
        let error = get(&format!("{address}/m.onnx?x1y2z3"), b"right", LIMITS).unwrap_err();
        let is_transient = matches!(error, FetchError::Transient(_));
        let why = error.to_string();
        assert_eq!(is_transient, *transient, "{name}: {why}");
        assert!(why.contains(part), "{name}: {why}");
        assert!(why.contains("/m.onnx?***"), "{name}: {why}");
        assert!(!why.contains("x1y2z3"), "{name}: {why}");
    }
}

#[test]
fn nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/m.onnx", listener.local_addr().unwrap());
    drop(listener);
    let error = get(&uri, b"right", LIMITS).unwrap_err();
    assert!(
        matches!(&error, FetchError::Transient(why) if why.contains("refused")),
        "{error}"
    );
}

#[test]
fn a_file_over_the_limit_is_not_read_to_its_end() {
    let (address, _) = server(|stream, _| {
        say(stream, "HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[7; 1 << 13]).is_ok() {}
    });
    let limits = FetchLimits {
        max_bytes: 1 << 17,
        ..LIMITS
    };
    let uri = format!("{address}/endless");
    let error = read_uri(&uri, limits, &|_| true).unwrap_err();
    assert!(
        matches!(&error, FetchError::Refused(why) if why.contains("limits.max_artifact_bytes")),
        "{error}"
    );
    let error = get(&uri, b"right", limits).unwrap_err();
    assert!(matches!(error, FetchError::Elsewhere(_)), "{error}");
}

/// Says the beginning and then nothing, until the other side goes away.
fn slow(stream: &mut TcpStream, _: &str) {
    say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nrig");
    stream.read_exact(&mut [0]).ok();
}

#[test]
fn a_slow_server_is_left_when_the_time_is_up_or_the_version_is_no_longer_wanted() {
    let (address, _) = server(slow);
    let uri = format!("{address}/m.onnx");
    let limits = FetchLimits {
        max_time: Duration::from_millis(300),
        ..LIMITS
    };
    let error = get(&uri, b"right", limits).unwrap_err();
    assert!(
        matches!(&error, FetchError::Transient(why) if why.contains("limits.fetch_time")),
        "{error}"
    );
    let directory = tempfile::tempdir().unwrap();
    let started = Instant::now();
    // Three bytes are here, then something newer is deployed.
    let error = fetch_uri(
        &uri,
        &artifact(&uri, b"right"),
        Some(&cache(&directory)),
        LIMITS,
        &|bytes| bytes < 3,
    );
    assert!(matches!(error, Err(FetchError::Cancelled)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn two_processes_may_fetch_the_same_at_once() {
    let (address, _) = server(|stream, _| {
        say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright");
    });
    let directory = tempfile::tempdir().unwrap();
    let uri = format!("{address}/m.onnx");
    let wanted = artifact(&uri, b"right");
    let both = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Each with a cache of its own on the same directory.
                let cache = cache(&directory);
                both.wait();
                let got = fetch_uri(&uri, &wanted, Some(&cache), LIMITS, &|_| true);
                assert_eq!(got.unwrap(), b"right");
            });
        }
    });
    assert_eq!(cache(&directory).get(&wanted.digest, 5).unwrap(), b"right");
}
