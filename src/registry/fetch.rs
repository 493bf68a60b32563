//! Fetches an artifact's chunks from `model-artifacts`: from the hinted offset, and from the
//! topic's beginning where the hint is off (a copied topic has other offsets).

use std::time::{Duration, Instant};

use super::chunks::{Assembler, ChunkError, ChunksHeader};
use super::error::RegistryError;
use super::logs::{Reading, RegistryLogs, read_to_end};
use super::topics::RegistryTopic;
use crate::kafka::LogStart;
use crate::model::Digest;

/// Why an artifact is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It never will be.
    #[error("{0}")]
    Refused(String),
    /// Its bytes are not those of the manifest.
    #[error("{0}")]
    Altered(ChunkError),
    /// What lies elsewhere has other bytes than the manifest says.
    #[error("{0}")]
    Elsewhere(String),
    /// It may be later.
    #[error("{0}")]
    Transient(String),
    /// It is no longer wanted.
    #[error("no longer wanted")]
    Cancelled,
}

/// Told how many bytes are here; says whether to go on.
pub type Watch<'a> = &'a dyn Fn(u64) -> bool;

/// What limits a fetch.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// Largest artifact, in bytes.
    pub max_bytes: u64,
    /// Longest time.
    pub max_time: Duration,
}

impl From<RegistryError> for FetchError {
    fn from(error: RegistryError) -> Self {
        Self::Transient(error.to_string())
    }
}

impl From<ChunkError> for FetchError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Memory(_) => Self::Transient(error.to_string()),
            ChunkError::Digest { .. } => Self::Altered(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// The artifact of `bytes` bytes with this digest. `watch` is asked now and then.
pub fn fetch(
    logs: &dyn RegistryLogs,
    header: &ChunksHeader,
    bytes: u64,
    digest: &Digest,
    limits: FetchLimits,
    watch: Watch<'_>,
) -> Result<Vec<u8>, FetchError> {
    let deadline = Instant::now() + limits.max_time;
    let attempt = |start: LogStart, last: Option<i64>| {
        let mut assembler = Assembler::new(header, bytes, limits.max_bytes)?;
        collect(logs, &mut assembler, start, last, deadline, watch)?;
        if !watch(assembler.found()) {
            return Err(FetchError::Cancelled);
        }
        if !assembler.is_complete() && Instant::now() >= deadline {
            let seconds = limits.max_time.as_secs();
            return Err(FetchError::Transient(format!(
                "not fetched within {seconds} s"
            )));
        }
        Ok(assembler.finish(digest)?)
    };
    if let (Some(first), Some(last)) = (header.first_offset, header.last_offset)
        && first > 0
    {
        match attempt(LogStart::Offset(first), Some(last)) {
            // Whatever is wrong there may be due to the hint.
            Err(FetchError::Refused(_) | FetchError::Altered(_)) => {}
            other => return other,
        }
    }
    attempt(LogStart::Beginning, None)
}

/// Reads until all chunks are there, past `last`, or to the topic's end.
fn collect(
    logs: &dyn RegistryLogs,
    assembler: &mut Assembler,
    start: LogStart,
    last: Option<i64>,
    deadline: Instant,
    watch: Watch<'_>,
) -> Result<(), FetchError> {
    let transient = |error: RegistryError| FetchError::Transient(error.to_string());
    let mut log = logs.open(RegistryTopic::Artifacts, start)?;
    let mut error = None;
    let name = format!("topic {:?}", logs.name(RegistryTopic::Artifacts));
    read_to_end(&mut *log, &name, &mut |record| {
        let offered = assembler.offer(record.key.as_deref(), record.value.as_deref());
        match offered {
            Ok(false) if Instant::now() < deadline && watch(assembler.found()) => {
                if last.is_some_and(|last| record.offset >= last) {
                    Reading::Enough
                } else {
                    Reading::GoOn
                }
            }
            Ok(_) => Reading::Enough,
            Err(wrong) => {
                error = Some(wrong);
                Reading::Enough
            }
        }
    })
    .map_err(|error| transient(error.into()))?;
    error.map_or(Ok(()), |error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::{CHUNKS_SCHEMA, chunk_count, chunk_key};
    use super::super::logs::fake::FakeLogs;
    use super::*;

    const SIZE: u32 = 1024;

    fn limits() -> FetchLimits {
        FetchLimits {
            max_bytes: 1 << 20,
            max_time: Duration::from_secs(5),
        }
    }

    fn upload(logs: &FakeLogs, id: &str, bytes: &[u8], skip: Option<u64>) -> ChunksHeader {
        let mut offsets = Vec::new();
        for (index, chunk) in (0..).zip(bytes.chunks(SIZE as usize)) {
            if skip != Some(index) {
                let key = chunk_key(id, index);
                let value = Some(chunk.to_vec());
                offsets.push(logs.append(RegistryTopic::Artifacts, &key, value, Vec::new()));
            }
        }
        ChunksHeader {
            schema: CHUNKS_SCHEMA.to_owned(),
            upload: id.to_owned(),
            count: chunk_count(bytes.len() as u64, SIZE),
            chunk_bytes: SIZE,
            first_offset: offsets.first().copied(),
            last_offset: offsets.last().copied(),
        }
    }

    fn get(logs: &FakeLogs, header: &ChunksHeader, bytes: &[u8]) -> Result<Vec<u8>, FetchError> {
        fetch(
            logs,
            header,
            bytes.len() as u64,
            &Digest::of(bytes),
            limits(),
            &|_| true,
        )
    }

    #[test]
    fn the_hint_is_used_and_a_wrong_one_costs_a_scan() {
        let logs = FakeLogs::default();
        let (a, b) = (vec![1; 5000], vec![2; 3000]);
        upload(&logs, "a", &a, None);
        let mut header = upload(&logs, "b", &b, None);
        assert_eq!(get(&logs, &header, &b).unwrap(), b);
        assert_eq!(logs.0.lock().unwrap().opened.len(), 1);
        for (first, last) in [
            (Some(1), Some(2)),
            (Some(99), Some(101)),
            (Some(6), Some(7)),
            (None, None),
        ] {
            header.first_offset = first;
            header.last_offset = last;
            assert_eq!(get(&logs, &header, &b).unwrap(), b, "{first:?} {last:?}");
        }
    }

    #[test]
    fn what_is_missing_or_altered_is_refused_and_a_broker_is_waited_for() {
        let logs = FakeLogs::default();
        let bytes = vec![3; 5000];
        let gap = upload(&logs, "gap", &bytes, Some(2));
        let error = get(&logs, &gap, &bytes).unwrap_err();
        assert!(
            matches!(&error, FetchError::Refused(why) if why.contains("chunk 2")),
            "{error}"
        );
        let whole = upload(&logs, "u", &bytes, None);
        let error = fetch(&logs, &whole, 5000, &Digest::of(b"x"), limits(), &|_| true).unwrap_err();
        assert!(matches!(error, FetchError::Altered(_)), "{error}");
        let error = fetch(&logs, &whole, 5000, &Digest::of(&bytes), limits(), &|_| {
            false
        })
        .unwrap_err();
        assert!(matches!(error, FetchError::Cancelled), "{error}");
        logs.0.lock().unwrap().down = true;
        let error = get(&logs, &whole, &bytes).unwrap_err();
        assert!(matches!(error, FetchError::Transient(_)), "{error}");
    }
}
