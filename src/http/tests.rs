//! The endpoints over plain TCP, as a scraper or a slow client meets them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::server::{Limits, serve_within};
use super::*;

struct Health(Report);

impl HealthSource for Health {
    fn live(&self) -> Report {
        Report::ok()
    }
    fn ready(&self) -> Report {
        self.0.clone()
    }
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(limits: Limits, ready: Report) -> Server {
    let settings = HttpSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let listener = bind(&settings).await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoints = Endpoints {
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health(ready)),
        models: Arc::new(|| serde_json::json!([{"model": "m", "serving": null}])),
    };
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve_within(limits, listener, endpoints, async {
        drop(stopped.await);
    }));
    Server {
        address,
        stop,
        task,
    }
}

impl Server {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// Sends `request` on a connection of its own and reads to its end.
    fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good an end as any.
        drop(stream.read_to_end(&mut answer));
        String::from_utf8(answer).unwrap()
    }

    fn request(&self, method: &str, path: &str) -> (String, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = self.exchange(&request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }
}

fn not_ready() -> Report {
    ["stream flights: no model serves".to_owned()]
        .into_iter()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_answers() {
    let server = start(Limits::default(), not_ready()).await;
    let (head, body) = server.request("GET", "/metrics");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        body.contains("# TYPE swapstream_build_info gauge"),
        "{body}"
    );
    let (head, body) = server.request("GET", "/livez");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(
        body,
        "{\"schema\":\"swapstream.health/v1\",\"live\":true,\"reasons\":[]}\n"
    );
    let (head, body) = server.request("GET", "/readyz");
    assert!(head.starts_with("http/1.1 503"), "{head}");
    let expected = "{\"schema\":\"swapstream.health/v1\",\"ready\":false,\
                    \"reasons\":[\"stream flights: no model serves\"]}\n";
    assert_eq!(body, expected);
    let (head, body) = server.request("GET", "/models");
    assert!(head.contains("application/json"), "{head}");
    let expected = "{\"schema\":\"swapstream.models/v1\",\
                    \"models\":[{\"model\":\"m\",\"serving\":null}]}\n";
    assert_eq!(body, expected);
    let (head, body) = server.request("GET", "/");
    assert!(
        head.starts_with("http/1.1 200") && body.contains("/readyz"),
        "{head}{body}"
    );
    let (head, _) = server.request("GET", "/secret");
    assert!(head.starts_with("http/1.1 404"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_without_reasons_is_200() {
    let server = start(Limits::default(), Report::ok()).await;
    let (head, body) = server.request("GET", "/readyz");
    assert!(
        head.starts_with("http/1.1 200") && body.contains("\"ready\":true"),
        "{head}{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_and_head_are_answered() {
    let server = start(Limits::default(), Report::ok()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let (head, body) = server.request(method, "/metrics");
        assert!(head.starts_with("http/1.1 405"), "{method}: {head}");
        assert!(
            head.contains("allow: get,head") && body.is_empty(),
            "{method}: {head}"
        );
    }
    let (head, body) = server.request("HEAD", "/metrics");
    assert!(
        head.starts_with("http/1.1 200") && body.is_empty(),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_not_waited_for() {
    let server = start(Limits::default(), Report::ok()).await;
    let request = "GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    let answer = server.exchange(request);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_and_huge_heads_are_refused() {
    let server = start(Limits::default(), Report::ok()).await;
    let answer = server.exchange("\u{1}\u{2} nonsense\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = server.connect();
    drop(stream.write_all(huge.as_bytes()));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let (head, _) = server.request("GET", "/livez");
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_idle_connections_do_not_hold_places() {
    let limits = Limits {
        connections: 2,
        head_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = start(limits, Report::ok()).await;
    let mut slow = server.connect();
    slow.write_all(b"GET /livez HT").unwrap();
    let mut idle = server.connect();
    let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    idle.write_all(request).unwrap();
    let begin = Instant::now();
    let (head, _) = server.request("GET", "/livez");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let waited = begin.elapsed();
    assert!(
        waited > Duration::from_millis(100),
        "the limit of 2 connections did not hold"
    );
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_lifetime() {
    let limits = Limits {
        lifetime: Duration::from_millis(100),
        grace: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = start(limits, Report::ok()).await;
    let begin = Instant::now();
    let mut stream = server.connect();
    stream.write_all(b"GET /livez HT").unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_open_connections_and_frees_the_address() {
    let server = start(Limits::default(), Report::ok()).await;
    let mut open = server.connect();
    let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    open.write_all(request).unwrap();
    let mut first = [0; 15];
    open.read_exact(&mut first).unwrap();
    let address = server.address;
    server.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named_with_its_key() {
    let server = start(Limits::default(), Report::ok()).await;
    let settings = HttpSettings {
        listen: server.address,
    };
    let error = bind(&settings).await.unwrap_err().to_string();
    let expected = format!("cannot listen on {}: ", server.address);
    assert!(
        error.starts_with(&expected) && error.contains("http.listen"),
        "{error}"
    );
}

#[test]
fn a_snapshot_lists_its_models() {
    use crate::serving::{ModelState, Serving};
    let serving = Serving::new();
    let name = crate::model::ModelName::new("m").unwrap();
    let state = ModelState {
        serving: None,
        settled_revision: 3,
    };
    serving.set(&name, state);
    let expected = serde_json::json!([{"model": "m", "serving": null, "settled_revision": 3}]);
    assert_eq!(serving_models(&serving.load()), expected);
}
