//! How an artifact lies in `model-artifacts`: its chunks, the manifest's header that points to
//! them, and their assembly within limits. Pure.
//!
//! A chunk's key is `<upload id>/<index>`, the index in decimal from 0. The manifest's record
//! carries the header `artifact-chunks`, a JSON object:
//!
//! ```json
//! {"schema":"swapstream.artifact-chunks/v1","upload":"<uuid>","count":67,"chunk_bytes":921600,
//!  "first_offset":1204,"last_offset":1270}
//! ```
//!
//! Every chunk has `chunk_bytes` bytes, the last one the rest, so `count` follows from the size in
//! the manifest; a header that disagrees is refused before anything is allocated. The offsets are
//! a hint: compaction keeps offsets, a copied topic does not.
//!
//! A golden file lies there in the same way, as an upload of its own; the header that points to it
//! is `golden-chunks`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Digest;

/// Name of the header of a manifest's record that points to the chunks.
pub const CHUNKS_HEADER: &str = "artifact-chunks";

/// Name of the header that points to the chunks of the golden file, where the manifest names one.
pub const GOLDEN_CHUNKS_HEADER: &str = "golden-chunks";

/// Value of `schema` in these headers.
pub const CHUNKS_SCHEMA: &str = "swapstream.artifact-chunks/v1";

/// Size of a chunk as `model publish` writes it: a record of it stays below Kafka's default limit.
pub const CHUNK_BYTES: u32 = 900 * 1024;

/// The smallest chunk size that is read; it bounds the number of chunks.
pub const MIN_CHUNK_BYTES: u32 = 1024;

/// Where a version's artifact lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChunksHeader {
    /// Always `swapstream.artifact-chunks/v1`.
    pub schema: String,
    /// The upload's id; the chunks' keys start with it.
    pub upload: String,
    /// Number of chunks.
    pub count: u64,
    /// Bytes in each chunk but the last.
    pub chunk_bytes: u32,
    /// Where the first chunk was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<i64>,
    /// Where the last chunk was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_offset: Option<i64>,
}

/// Why chunks do not make an artifact. Permanent, [`ChunkError::Memory`] apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The header cannot be read.
    #[error("its header cannot be read: {0}")]
    Header(String),
    /// The artifact is empty.
    #[error("the manifest says that the artifact has no bytes")]
    Empty,
    /// The artifact is larger than this instance accepts.
    #[error("the artifact has {bytes} bytes, limits.max_artifact_bytes allows {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Header and manifest disagree.
    #[error(
        "the header counts {count} chunks, {bytes} bytes in chunks of {chunk_bytes} make {wanted}"
    )]
    Count {
        /// Chunks by the header.
        count: u64,
        /// Bytes by the manifest.
        bytes: u64,
        /// Bytes in a chunk by the header.
        chunk_bytes: u32,
        /// Chunks by the manifest.
        wanted: u64,
    },
    /// A chunk that the header does not count.
    #[error("chunk {index:?} of upload {upload} is not one of {count}")]
    Index {
        /// The upload.
        upload: String,
        /// The index in the key.
        index: String,
        /// Chunks by the header.
        count: u64,
    },
    /// A chunk of another size.
    #[error("chunk {index} has {found} bytes instead of {wanted}")]
    Size {
        /// The chunk.
        index: u64,
        /// Its size.
        found: usize,
        /// The right size.
        wanted: usize,
    },
    /// Chunks that are not there.
    #[error("{missing} of {count} chunks are missing, chunk {first} the first of them")]
    Missing {
        /// How many.
        missing: u64,
        /// Chunks by the header.
        count: u64,
        /// The first of them.
        first: u64,
    },
    /// The bytes are not those of the manifest.
    #[error("the artifact has digest {found}, the manifest says {wanted}")]
    Digest {
        /// Digest of the bytes.
        found: Digest,
        /// Digest in the manifest.
        wanted: Digest,
    },
    /// No memory for the artifact now.
    #[error("no memory for {0} bytes")]
    Memory(u64),
}

impl ChunksHeader {
    /// Reads the header's value.
    pub fn parse(value: Option<&[u8]>) -> Result<Self, ChunkError> {
        let value = value.ok_or_else(|| ChunkError::Header("it is null".to_owned()))?;
        let header: Self =
            serde_json::from_slice(value).map_err(|error| ChunkError::Header(error.to_string()))?;
        if header.schema != CHUNKS_SCHEMA {
            let text = format!(
                "schema {:?}, this build reads {CHUNKS_SCHEMA:?}",
                header.schema
            );
            return Err(ChunkError::Header(text));
        }
        if header.upload.is_empty() || header.upload.len() > 128 || header.upload.contains('/') {
            return Err(ChunkError::Header("the upload id is not one".to_owned()));
        }
        if !(MIN_CHUNK_BYTES..=CHUNK_BYTES).contains(&header.chunk_bytes) {
            return Err(ChunkError::Header(format!(
                "chunk_bytes {} is not within {MIN_CHUNK_BYTES} and {CHUNK_BYTES}",
                header.chunk_bytes
            )));
        }
        Ok(header)
    }

    /// The key of chunk `index`.
    pub fn key(&self, index: u64) -> Vec<u8> {
        chunk_key(&self.upload, index)
    }
}

/// The key of chunk `index` of `upload`.
pub fn chunk_key(upload: &str, index: u64) -> Vec<u8> {
    format!("{upload}/{index}").into_bytes()
}

/// Number of chunks that `bytes` make.
pub fn chunk_count(bytes: u64, chunk_bytes: u32) -> u64 {
    bytes.div_ceil(u64::from(chunk_bytes.max(1)))
}

/// Puts one upload's chunks together, in whatever order they come and whatever lies between them.
#[derive(Debug)]
pub struct Assembler {
    upload: String,
    chunk_bytes: usize,
    bytes: Vec<u8>,
    seen: Vec<bool>,
    missing: u64,
}

impl Assembler {
    /// For an artifact of `bytes` bytes, at most `limit`. Everything is checked before memory is
    /// taken.
    pub fn new(header: &ChunksHeader, bytes: u64, limit: u64) -> Result<Self, ChunkError> {
        if bytes == 0 {
            return Err(ChunkError::Empty);
        }
        if bytes > limit {
            return Err(ChunkError::TooLarge { bytes, limit });
        }
        let wanted = chunk_count(bytes, header.chunk_bytes);
        if header.count != wanted {
            return Err(ChunkError::Count {
                count: header.count,
                bytes,
                chunk_bytes: header.chunk_bytes,
                wanted,
            });
        }
        let memory = |_| ChunkError::Memory(bytes);
        let mut buffer = Vec::new();
        let size = usize::try_from(bytes).map_err(|_| ChunkError::Memory(bytes))?;
        buffer.try_reserve_exact(size).map_err(memory)?;
        buffer.resize(size, 0);
        Ok(Self {
            upload: header.upload.clone(),
            chunk_bytes: header.chunk_bytes as usize,
            bytes: buffer,
            seen: vec![false; wanted as usize],
            missing: wanted,
        })
    }

    /// Takes a record of the topic; one of another upload is passed over. The newest value of a
    /// key counts, a tombstone takes the chunk away: what compaction leaves gives the same. Gives
    /// whether all chunks are there.
    pub fn offer(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, ChunkError> {
        let own = key.and_then(|key| {
            let rest = key.strip_prefix(self.upload.as_bytes())?;
            rest.strip_prefix(b"/")
        });
        let Some(index) = own else {
            return Ok(self.is_complete());
        };
        let index = self.index(index)?;
        let start = index * self.chunk_bytes;
        let end = (start + self.chunk_bytes).min(self.bytes.len());
        let (Some(to), Some(seen)) = (self.bytes.get_mut(start..end), self.seen.get_mut(index))
        else {
            return Ok(self.is_complete());
        };
        if let Some(chunk) = value {
            if chunk.len() != to.len() {
                return Err(ChunkError::Size {
                    index: index as u64,
                    found: chunk.len(),
                    wanted: to.len(),
                });
            }
            to.copy_from_slice(chunk);
            self.missing -= u64::from(!*seen);
        } else {
            self.missing += u64::from(*seen);
        }
        *seen = value.is_some();
        Ok(self.is_complete())
    }

    fn index(&self, text: &[u8]) -> Result<usize, ChunkError> {
        std::str::from_utf8(text)
            .ok()
            // One way to write an index only, else two keys would be one chunk.
            .filter(|text| *text == "0" || !text.starts_with(['0', '+']))
            .and_then(|text| text.parse::<usize>().ok())
            .filter(|index| *index < self.seen.len())
            .ok_or_else(|| ChunkError::Index {
                upload: self.upload.clone(),
                index: String::from_utf8_lossy(text).chars().take(40).collect(),
                count: self.seen.len() as u64,
            })
    }

    /// Bytes that are there, a little more while the last chunk is.
    pub fn found(&self) -> u64 {
        let chunks = self.seen.len() as u64 - self.missing;
        (chunks * self.chunk_bytes as u64).min(self.bytes.len() as u64)
    }

    /// Whether all chunks are there.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The artifact, its digest verified.
    pub fn finish(self, wanted: &Digest) -> Result<Vec<u8>, ChunkError> {
        if let Some(first) = self.seen.iter().position(|seen| !seen) {
            return Err(ChunkError::Missing {
                missing: self.missing,
                count: self.seen.len() as u64,
                first: first as u64,
            });
        }
        let found = Digest::of(&self.bytes);
        if found != *wanted {
            return Err(ChunkError::Digest {
                found,
                wanted: *wanted,
            });
        }
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u32 = MIN_CHUNK_BYTES;

    fn header(upload: &str, bytes: usize) -> ChunksHeader {
        ChunksHeader {
            schema: CHUNKS_SCHEMA.to_owned(),
            upload: upload.to_owned(),
            count: chunk_count(bytes as u64, SIZE),
            chunk_bytes: SIZE,
            first_offset: None,
            last_offset: None,
        }
    }

    fn records(upload: &str, bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..)
            .zip(bytes.chunks(SIZE as usize))
            .map(|(index, chunk)| (chunk_key(upload, index), chunk.to_vec()))
            .collect()
    }

    fn assemble(
        header: &ChunksHeader,
        bytes: &[u8],
        records: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Vec<u8>, ChunkError> {
        let mut assembler = Assembler::new(header, bytes.len() as u64, 1 << 20)?;
        for (key, value) in records {
            assembler.offer(Some(key), Some(value))?;
        }
        assembler.finish(&Digest::of(bytes))
    }

    #[test]
    fn the_header_reads_back_and_bad_ones_are_refused() {
        type Spoil = fn(&mut ChunksHeader);
        let good = header("u", 5000);
        let bytes = serde_json::to_vec(&good).unwrap();
        assert_eq!(ChunksHeader::parse(Some(&bytes)).unwrap(), good);
        assert!(ChunksHeader::parse(None).is_err());
        let spoilers: [Spoil; 5] = [
            |h| h.schema = "x".into(),
            |h| h.upload = "a/b".into(),
            |h| h.upload = String::new(),
            |h| h.chunk_bytes = 1,
            |h| h.chunk_bytes = CHUNK_BYTES + 1,
        ];
        for spoil in spoilers {
            let mut bad = good.clone();
            spoil(&mut bad);
            let bytes = serde_json::to_vec(&bad).unwrap();
            assert!(ChunksHeader::parse(Some(&bytes)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_checked_before_memory_is_taken() {
        let huge = u64::MAX / 2;
        let mut head = header("u", 5000);
        assert!(matches!(
            Assembler::new(&head, huge, 1 << 20),
            Err(ChunkError::TooLarge { .. })
        ));
        assert!(matches!(
            Assembler::new(&head, 0, 1 << 20),
            Err(ChunkError::Empty)
        ));
        head.count = huge;
        assert!(matches!(
            Assembler::new(&head, 5000, 1 << 20),
            Err(ChunkError::Count { wanted: 5, .. })
        ));
        head.count = 5;
        assert!(matches!(
            Assembler::new(&head, huge, u64::MAX),
            Err(ChunkError::Count { .. })
        ));
    }

    #[test]
    fn odd_chunks_are_refused() {
        let bytes = vec![7; 3000];
        let head = header("u", bytes.len());
        let offer = |key: &[u8], value: &[u8]| {
            Assembler::new(&head, 3000, 1 << 20)
                .unwrap()
                .offer(Some(key), Some(value))
        };
        for index in ["3", "-1", "00", "01", "+1", "", "x", "99999999999999999999"] {
            let key = format!("u/{index}");
            let error = offer(key.as_bytes(), &bytes[..1024]).unwrap_err();
            assert!(
                matches!(error, ChunkError::Index { .. }),
                "{index}: {error}"
            );
        }
        assert!(matches!(
            offer(b"u/0", &bytes[..1023]),
            Err(ChunkError::Size { .. })
        ));
        assert!(matches!(
            offer(b"u/2", &bytes[..1024]),
            Err(ChunkError::Size { .. })
        ));
        assert_eq!(offer(b"uu/0", b"x"), Ok(false));
        let mut one = Assembler::new(&header("u", 10), 10, 10).unwrap();
        assert_eq!(one.offer(Some(b"u/0"), Some(&bytes[..10])), Ok(true));
        assert_eq!(one.offer(Some(b"u/0"), None), Ok(false));
        assert!(matches!(
            one.finish(&Digest::of(b"")),
            Err(ChunkError::Missing { .. })
        ));
    }

    proptest! {
        #[test]
        fn interleaved_reordered_repeated_chunks_make_the_artifact(
            a in prop::collection::vec(any::<u8>(), 1..9000),
            b in prop::collection::vec(any::<u8>(), 1..9000),
            seed in any::<u64>(),
        ) {
            let mut all = records("a", &a);
            all.extend(records("b", &b));
            all.extend(records("a", &a).into_iter().take(2));
            // A cheap deterministic shuffle.
            let len = all.len();
            for i in (1..len).rev() {
                all.swap(i, (seed.wrapping_mul(i as u64 + 7) >> 16) as usize % (i + 1));
            }
            prop_assert_eq!(assemble(&header("a", a.len()), &a, &all).unwrap(), a);
            prop_assert_eq!(assemble(&header("b", b.len()), &b, &all).unwrap(), b);
        }

        #[test]
        fn a_missing_truncated_or_altered_chunk_never_passes(
            bytes in prop::collection::vec(any::<u8>(), 2..9000),
            at in any::<prop::sample::Index>(),
            kind in 0..3_u8,
        ) {
            let head = header("u", bytes.len());
            let mut all = records("u", &bytes);
            let at = at.index(all.len());
            match kind {
                0 => { all.remove(at); }
                1 => { all[at].1.pop(); }
                _ => { all[at].1[0] ^= 1; }
            }
            let error = assemble(&head, &bytes, &all).unwrap_err();
            prop_assert!(match kind {
                0 => matches!(error, ChunkError::Missing { missing: 1, .. }),
                1 => matches!(error, ChunkError::Size { .. }),
                _ => matches!(error, ChunkError::Digest { .. }),
            }, "{}", error);
        }
    }
}
