//! Reads artifacts from other machines, by `object_store`, which only this file speaks to. Credentials
//! and endpoints come from the environment (`AWS_…`); no message repeats what a server says, since
//! that may repeat them.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use hmac::{Hmac, Mac as _};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, HttpClient, HttpConnector,
    HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector, Signer, SigningAlgorithm,
};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig,
};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use super::address::Remote;
use super::fetch::{FetchError, FetchLimits, Watch};

/// How often it is asked whether to go on.
const TURN: Duration = Duration::from_millis(50);

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a connection may take.
const CONNECT: &str = "10s";

/// Tries of one request, broken bodies included, which go on where they broke where the server can
/// tell that the object is still the same. The registry itself tries again later.
const TRIES: usize = 3;

/// Reads the object at `remote`, of `wanted` bytes where that is known, piece by piece.
pub(super) fn download(
    remote: &Remote,
    wanted: Option<u64>,
    limits: FetchLimits,
    watch: Watch<'_>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| FetchError::Transient(format!("no runtime to fetch it: {error}")))?;
    let reading = Reading {
        runtime: &runtime,
        deadline: Instant::now() + limits.max_time,
        limits,
        watch,
        answered: Answered::default(),
    };
    let read = reading.read(remote, wanted, take);
    // A name that is still being looked up must not be waited for.
    runtime.shutdown_background();
    read
}

struct Reading<'a> {
    runtime: &'a Runtime,
    deadline: Instant,
    limits: FetchLimits,
    watch: Watch<'a>,
    answered: Answered,
}

impl Reading<'_> {
    fn read(
        &self,
        remote: &Remote,
        wanted: Option<u64>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FetchError> {
        let (store, path) = open(remote, self.limits.max_time, &self.answered)
            .map_err(|error| self.failed(remote, &error))?;
        let got = self.wait(0, store.get(&path))?;
        let got = got.map_err(|error| self.failed(remote, &error))?;
        // Known before a byte is read, unless the server does not say it.
        if got.meta.size != UNSAID {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != got.meta.size) {
                return Err(another_size(&got.meta.size.to_string(), wanted));
            }
            self.bound(got.meta.size, wanted)?;
        }
        let mut found = 0;
        let mut stream = got.into_stream();
        while let Some(piece) = self.wait(found, stream.next())? {
            let piece = piece.map_err(|error| self.failed(remote, &error))?;
            found += piece.len() as u64;
            self.bound(found, wanted)?;
            take(&piece);
        }
        match wanted {
            Some(wanted) if found != wanted => Err(another_size(&found.to_string(), wanted)),
            _ => Ok(()),
        }
    }

    /// Holds what comes against what may come.
    fn bound(&self, bytes: u64, wanted: Option<u64>) -> Result<(), FetchError> {
        match wanted {
            Some(wanted) if bytes > wanted => Err(another_size("more", wanted)),
            None if bytes > self.limits.max_bytes => {
                let limit = self.limits.max_bytes;
                Err(FetchError::Refused(format!(
                    "it has more bytes than the {limit} of limits.max_artifact_bytes"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Waits for what a server does, unless it is no longer wanted or takes too long.
    fn wait<T>(&self, bytes: u64, future: impl Future<Output = T>) -> Result<T, FetchError> {
        let since = Instant::now();
        self.runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                if !(self.watch)(bytes) {
                    return Err(FetchError::Cancelled);
                }
                let now = Instant::now();
                if now >= self.deadline {
                    let seconds = self.limits.max_time.as_secs();
                    let why = format!("not fetched within {seconds} s (limits.fetch_time)");
                    return Err(FetchError::Transient(why));
                }
                if now >= since + SILENCE {
                    let seconds = SILENCE.as_secs();
                    let why = format!("the server has said nothing for {seconds} s");
                    return Err(FetchError::Transient(why));
                }
                let turn = TURN.min(self.deadline - now);
                if let Ok(done) = tokio::time::timeout(turn, &mut future).await {
                    return Ok(done);
                }
            }
        })
    }

    /// What a server did wrong, in our own words.
    fn failed(&self, remote: &Remote, error: &object_store::Error) -> FetchError {
        let s3 = matches!(remote, Remote::S3 { .. });
        let why = match self.answered.0.load(Ordering::Relaxed) {
            404 => "there is nothing there (404)".to_owned(),
            status @ (401 | 403) if s3 => format!(
                "the server gives it only to others ({status}): credentials and endpoint come from \
                 the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, …)"
            ),
            status @ (401 | 403) => format!("the server gives it only to others ({status})"),
            status @ 300..=399 => format!("the server redirects to nowhere ({status})"),
            0 | 200..=299 => cause(error),
            status => format!("the server answers {status}"),
        };
        FetchError::Transient(why)
    }
}

/// The size that a server does not say.
const UNSAID: u64 = u64::MAX;

fn another_size(found: &str, wanted: u64) -> FetchError {
    FetchError::Elsewhere(format!(
        "what lies there has {found} bytes, the manifest says {wanted}"
    ))
}

/// The innermost cause: it names no address.
fn cause(error: &object_store::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    if text.is_empty() || text.contains("://") {
        return "the request failed".to_owned();
    }
    text.chars().take(200).collect()
}

fn open(
    remote: &Remote,
    time: Duration,
    answered: &Answered,
) -> object_store::Result<(Arc<dyn ObjectStore>, Path)> {
    let retry = RetryConfig {
        backoff: BackoffConfig {
            max_backoff: Duration::from_secs(1),
            ..BackoffConfig::default()
        },
        max_retries: TRIES - 1,
        retry_timeout: time,
    };
    let timeout = format!("{} s", time.as_secs().max(1));
    let connector = Listening {
        inner: ReqwestConnector::default(),
        answered: answered.clone(),
    };
    match remote {
        Remote::Http(uri) => {
            // A redirect must not lead from https to http.
            let plain = uri
                .get(..5)
                .is_some_and(|s| s.eq_ignore_ascii_case("http:"));
            let options = ClientOptions::new()
                .with_allow_http(plain)
                .with_config(ClientConfigKey::Timeout, timeout)
                .with_config(ClientConfigKey::ConnectTimeout, CONNECT);
            let store = HttpBuilder::new()
                .with_url(uri)
                .with_client_options(options)
                .with_retry(retry)
                .with_http_connector(connector)
                .build()?;
            // The whole address is the store's: nothing is to be added to it.
            Ok((Arc::new(store), Path::default()))
        }
        Remote::S3 { bucket, key } => {
            let store = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout)
                .with_config(
                    AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout),
                    CONNECT,
                )
                .with_retry(retry)
                .with_crypto_provider(Arc::clone(&HASHES))
                .with_http_connector(connector)
                .build()?;
            Ok((Arc::new(store), Path::parse(key)?))
        }
    }
}

/// The status of the newest answer; 0: there was none.
#[derive(Debug, Clone, Default)]
struct Answered(Arc<AtomicU16>);

/// Notes what servers answer, which errors tell with what the servers say.
#[derive(Debug)]
struct Listening<T> {
    inner: T,
    answered: Answered,
}

impl HttpConnector for Listening<ReqwestConnector> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Listening {
            inner: self.inner.connect(options)?,
            answered: self.answered.clone(),
        }))
    }
}

#[async_trait]
impl HttpService for Listening<HttpClient> {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.answered.0.store(0, Ordering::Relaxed);
        let mut response = self.inner.execute(request).await?;
        let status = response.status();
        self.answered.0.store(status.as_u16(), Ordering::Relaxed);
        // Some servers do not say how long it is; what comes is counted anyway.
        if status.is_success() && !response.headers().contains_key("content-length") {
            let headers = response.headers_mut();
            headers.insert("content-length", UNSAID.into());
        }
        Ok(response)
    }
}

/// The hashes of request signatures.
static HASHES: LazyLock<Arc<dyn CryptoProvider>> = LazyLock::new(|| Arc::new(Hashes));

#[derive(Debug)]
struct Hashes;

/// A hash or a keyed hash on its way.
struct Hashing<T> {
    running: T,
    done: Vec<u8>,
}

impl CryptoProvider for Hashes {
    fn digest(&self, algorithm: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Hashing {
                running: Sha256::new(),
                done: Vec::new(),
            })),
            other => Err(unknown(&other)),
        }
    }

    fn hmac(
        &self,
        algorithm: DigestAlgorithm,
        secret: &[u8],
    ) -> object_store::Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Hashing {
                running: Hmac::<Sha256>::new_from_slice(secret).map_err(|e| unknown(&e))?,
                done: Vec::new(),
            })),
            other => Err(unknown(&other)),
        }
    }

    fn sign(&self, algorithm: SigningAlgorithm, _: &[u8]) -> object_store::Result<Box<dyn Signer>> {
        Err(unknown(&algorithm))
    }
}

fn unknown(what: &dyn std::fmt::Debug) -> object_store::Error {
    object_store::Error::NotSupported {
        source: format!("{what:?}").into(),
    }
}

impl DigestContext for Hashing<Sha256> {
    fn update(&mut self, data: &[u8]) {
        self.running.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.done = self.running.finalize_reset().to_vec();
        Ok(&self.done)
    }
}

impl HmacContext for Hashing<Hmac<Sha256>> {
    fn update(&mut self, data: &[u8]) {
        self.running.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.done = self.running.clone().finalize().into_bytes().to_vec();
        Ok(&self.done)
    }
}

#[cfg(test)]
mod tests {
    use ct_codecs::Encoder as _;

    use super::*;

    #[test]
    fn requests_are_signed_by_the_hashes_of_the_standards() {
        let hex = |bytes: &[u8]| ct_codecs::Hex::encode_to_string(bytes).unwrap();
        // FIPS 180-2, and case 2 of RFC 4231.
        let mut digest = Hashes.digest(DigestAlgorithm::Sha256).unwrap();
        digest.update(b"a");
        digest.update(b"bc");
        assert_eq!(
            hex(digest.finish().unwrap()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut keyed = Hashes.hmac(DigestAlgorithm::Sha256, b"Jefe").unwrap();
        keyed.update(b"what do ya want ");
        keyed.update(b"for nothing?");
        assert_eq!(
            hex(keyed.finish().unwrap()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
