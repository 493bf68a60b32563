//! What the registry puts together of bytes that others wrote: bundles, chunk sets, signatures, the
//! deployment log. The first byte chooses.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use swapstream::model::{Digest, ModelName};
use swapstream::registry::{
    Assembler, Bundle, CHUNKS_SCHEMA, ChunkError, ChunksHeader, DeploymentLog, Standing, Trust,
    TrustedKey, chunk_count, chunk_key,
};

/// The largest ONNX file and chunk set.
const MAX_BYTES: u64 = 1 << 16;
const CHUNK: usize = 1024;

const MANIFEST: &[u8] = include_bytes!("../seeds/manifest.json");
const KEY: &str = include_str!("../seeds/trusted-key.txt");

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else {
        return;
    };
    match first % 4 {
        0 => bundle(rest),
        1 => chunks(rest),
        2 => signature(rest),
        _ => log(rest),
    }
});

/// What is read from an archive is written to one that reads alike.
fn bundle(bytes: &[u8]) {
    let Ok(bundle) = Bundle::read_from(bytes, MAX_BYTES) else {
        return;
    };
    let artifact = bundle.artifact().unwrap_or_default();
    assert!(artifact.len() as u64 <= MAX_BYTES);
    let mut written = Vec::new();
    bundle.write_to(&mut written).expect("written to memory");
    let again = Bundle::read_from(written.as_slice(), MAX_BYTES).expect("what was written is read");
    assert_eq!(bundle, again);
}

/// Whatever comes in whatever order: the file comes out if and only if the newest record of each
/// chunk makes it. Steps of three bytes: which chunk, what of it, how long it is.
fn chunks(bytes: &[u8]) {
    let Some((&size, steps)) = bytes.split_first() else {
        return;
    };
    let size = usize::from(size) * 37 + 1;
    let file: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
    let parts: Vec<&[u8]> = file.chunks(CHUNK).collect();
    let header = ChunksHeader {
        schema: CHUNKS_SCHEMA.to_owned(),
        upload: "u".to_owned(),
        count: chunk_count(size as u64, CHUNK as u32),
        chunk_bytes: CHUNK as u32,
        first_offset: None,
        last_offset: None,
    };
    let mut assembler = Assembler::new(&header, size as u64, MAX_BYTES).expect("a good header");
    let mut newest: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for step in steps.chunks_exact(3) {
        let index = usize::from(step[0]);
        let upload = if step[1] & 1 == 0 { "u" } else { "uu" };
        let key = chunk_key(upload, index as u64);
        let value = match step[1] % 7 {
            0 => None,
            1 | 2 => Some(vec![step[2]; usize::from(step[2]) * 5]),
            _ => parts.get(index).map(|part| part.to_vec()),
        };
        let taken = assembler.offer(Some(&key), value.as_deref());
        if upload != "u" {
            assert_eq!(taken, Ok(newest.len() == parts.len()), "of another upload");
            continue;
        }
        let fits = |value: &Vec<u8>| parts.get(index).is_some_and(|p| p.len() == value.len());
        match (index < parts.len(), &value) {
            (false, _) => return assert!(matches!(taken, Err(ChunkError::Index { .. }))),
            (true, Some(value)) if !fits(value) => {
                return assert!(matches!(taken, Err(ChunkError::Size { .. })));
            }
            (true, Some(value)) => drop(newest.insert(index, value.clone())),
            (true, None) => drop(newest.remove(&index)),
        }
        assert_eq!(taken, Ok(newest.len() == parts.len()));
    }
    let whole = newest.len() == parts.len();
    let made: Vec<u8> = newest.into_values().flatten().collect();
    match assembler.finish(&Digest::of(&file)) {
        Ok(out) => assert!(whole && made == file && out == file),
        Err(ChunkError::Missing { .. }) => assert!(!whole),
        Err(ChunkError::Digest { .. }) => assert!(whole && made != file),
        Err(other) => panic!("{other}"),
    }
}

/// Nobody can sign without the key: what passes for one manifest passes for no other.
fn signature(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = TrustedKey::parse(text)
    {
        assert_eq!(TrustedKey::parse(key.as_str()).as_ref(), Ok(&key));
    }
    let trust = Trust {
        required: true,
        keys: vec![TrustedKey::parse(KEY).expect("a key")],
    };
    if let Standing::Trusted { comment, .. } = trust.look(MANIFEST, Some(bytes)) {
        assert_eq!(comment, "seed", "the comment is covered");
    }
    let mut other = MANIFEST.to_vec();
    other.push(b'\n');
    let standing = trust.look(&other, Some(bytes));
    assert!(matches!(standing, Standing::Untrusted(_)), "{standing:?}");
}

/// Records between the bytes 0xff, each with a first byte for its key: the fold is the same in one
/// go and after a record that was read twice, and what is wanted was effective.
fn log(bytes: &[u8]) {
    let (mut log, mut again) = (DeploymentLog::new(), DeploymentLog::new());
    for (offset, record) in (0..).zip(bytes.split(|byte| *byte == 0xff)) {
        let Some((&kind, value)) = record.split_first() else {
            continue;
        };
        let key: Option<&[u8]> = match kind % 5 {
            0 => None,
            1 => Some(b"no name/"),
            2 => Some(b"n"),
            _ => Some(b"m"),
        };
        let value = (kind < 250).then_some(value);
        log.apply(offset, key, value, Some(offset));
        again.apply(offset, key, value, Some(offset));
        again.apply(offset, key, value, None);
    }
    assert_eq!(log, again);
    for name in ["m", "n"] {
        let Some(model) = log.model(&ModelName::new(name).expect("a name")) else {
            continue;
        };
        for candidate in model.candidates() {
            assert!(candidate.revision <= model.last_effective());
            let entry = model.entry(candidate.revision).expect("it is in the history");
            assert!(entry.outcome.is_effective());
        }
        assert_eq!(model.desired(), model.candidates().next());
    }
}
