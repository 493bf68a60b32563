//! Listens and answers, within limits: connections, time for a request's head, size of a head,
//! life of a connection.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Endpoints, HttpSettings, routes};

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time; the next ones wait in the kernel's queue.
    pub(super) connections: usize,
    /// Time for the head of a request, the idle time before it included.
    pub(super) head_timeout: Duration,
    /// Largest head of a request.
    pub(super) head_bytes: usize,
    /// Life of a connection: one that never ends its request or reads its answer goes as well.
    pub(super) lifetime: Duration,
    /// Time for the request in hand, once a connection is to end.
    pub(super) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            // Longer than most scrape intervals, so that scrapers keep their connection.
            head_timeout: Duration::from_secs(30),
            head_bytes: 16 << 10,
            lifetime: Duration::from_mins(10),
            grace: Duration::from_secs(2),
        }
    }
}

/// Why the endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; choose another address with http.listen, port 0 takes a \
             free one"
    )]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Takes the address, before anything else starts. Port 0 takes a free one.
pub async fn bind(settings: &HttpSettings) -> Result<TcpListener, HttpError> {
    let address = settings.listen;
    TcpListener::bind(address)
        .await
        .map_err(|source| HttpError::Bind { address, source })
}

/// Answers until `shutdown`, then lets requests in hand finish for a moment.
pub async fn serve(
    listener: TcpListener,
    endpoints: Endpoints,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_within(Limits::default(), listener, endpoints, shutdown).await;
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    endpoints: Endpoints,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = routes::router(endpoints);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // The permit comes before the connection: who is not served yet costs us nothing.
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        while connections.try_join_next().is_some() {}
        match (permit, accepted) {
            (Ok(permit), Ok((stream, _))) => {
                let connection = connection(limits, stream, router.clone(), stopped.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                // Out of descriptors, or the client has gone: neither ends the service.
                tracing::warn!(%error, "cannot accept an http connection");
                sleep(Duration::from_millis(100)).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    // Dropping the set ends what is left.
    drop(timeout(limits.grace, all).await);
}

async fn connection(
    limits: Limits,
    stream: TcpStream,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    let end = async {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = sleep(limits.lifetime) => {}
        }
    };
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = end => {
            served.as_mut().graceful_shutdown();
            match timeout(limits.grace, served).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an http connection ended early");
    }
}
