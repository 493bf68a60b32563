//! Artifacts that were fetched from other machines, kept on this one by their digest, so that a
//! restart does not fetch them again. Several processes may share a directory.
//!
//! | | |
//! |---|---|
//! | `sha256/<hex>` | an artifact, whole: it came here by a rename |
//! | `parts/<hex>.<id>` | one that is being written, or was when its process died |
//!
//! Nothing here is trusted: what is read is held against its digest each time, and what does not
//! have it is removed. The cache is a help and no need: where it cannot be written, loads go on.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::model::Digest;

/// What is written grows; a part that has not for so long was left behind.
const LEFT_BEHIND: Duration = Duration::from_mins(10);

/// Where fetched artifacts are kept, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// The directory; it is made when it is needed. Default: `swapstream/artifacts` in the user's
    /// directory for caches, or in that for temporary files.
    pub directory: PathBuf,
    /// What all artifacts in it may take, in bytes.
    pub max_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let own = path("XDG_CACHE_HOME")
            .or_else(|| path("HOME").map(|home| home.join(".cache")))
            .filter(|path| path.is_absolute());
        Self {
            directory: own
                .unwrap_or_else(std::env::temp_dir)
                .join("swapstream/artifacts"),
            max_bytes: 4 << 30,
        }
    }
}

/// The artifacts that are kept.
#[derive(Debug, Clone)]
pub struct ArtifactCache {
    settings: CacheSettings,
}

/// An artifact on its way into the cache. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub struct Incoming<'a> {
    cache: &'a ArtifactCache,
    file: Option<File>,
    part: PathBuf,
    whole: PathBuf,
}

impl ArtifactCache {
    /// Of this directory.
    pub fn new(settings: CacheSettings) -> Self {
        Self { settings }
    }

    /// The artifact, if it is here with the right bytes.
    pub fn get(&self, digest: &Digest, bytes: u64) -> Option<Vec<u8>> {
        let path = self.path(digest);
        match read(&path, bytes) {
            Ok(found) if Digest::of(&found) == *digest => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => {
                let why = found.map_or_else(|error| error.to_string(), |_| "other bytes".into());
                tracing::warn!(path = %path.display(), "dropped from the cache of artifacts: {why}");
                fs::remove_file(&path).ok();
                None
            }
        }
    }

    /// Begins to keep an artifact; `None`: this one is not kept.
    pub fn begin(&self, digest: &Digest, bytes: u64) -> Option<Incoming<'_>> {
        if bytes > self.settings.max_bytes {
            return None;
        }
        let name = format!("{}.{}", hex(digest), uuid::Uuid::new_v4());
        let part = self.settings.directory.join("parts").join(name);
        let whole = self.path(digest);
        let made = [&part, &whole].iter().try_for_each(|path| {
            let mut builder = DirBuilder::new();
            let folder = path.parent().unwrap_or(Path::new("."));
            builder.recursive(true).mode(0o700).create(folder)
        });
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600);
        match made.and_then(|()| opened.open(&part)) {
            Ok(file) => Some(Incoming {
                cache: self,
                file: Some(file),
                part,
                whole,
            }),
            Err(error) => {
                self.cannot(&error);
                None
            }
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.settings.directory.join("sha256").join(hex(digest))
    }

    fn cannot(&self, error: &io::Error) {
        let directory = self.settings.directory.display();
        tracing::warn!(
            "the artifact is not kept in registry.cache_directory {directory}, and fetched again \
             next time: {error}"
        );
    }

    /// Removes what was used least recently, until the rest fits; `newest` stays. What other
    /// processes remove meanwhile is gone all the same.
    fn evict(&self, newest: &Path, now: SystemTime) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(self.settings.directory.join("sha256"))? {
            let entry = entry?;
            let Ok(about) = entry.metadata() else {
                continue;
            };
            kept.push((about.modified().unwrap_or(now), about.len(), entry.path()));
        }
        kept.sort();
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in kept.iter().filter(|(_, _, path)| path != newest) {
            if total <= self.settings.max_bytes {
                break;
            }
            fs::remove_file(path).ok();
            total = total.saturating_sub(*bytes);
        }
        for entry in fs::read_dir(self.settings.directory.join("parts"))? {
            let entry = entry?;
            let written = entry.metadata().and_then(|about| about.modified());
            let age = written.map(|at| now.duration_since(at).unwrap_or_default());
            if age.is_ok_and(|age| age >= LEFT_BEHIND) {
                fs::remove_file(entry.path()).ok();
            }
        }
        Ok(())
    }
}

impl Incoming<'_> {
    /// Takes the next bytes. After an error nothing is kept.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(Err(error)) = self.file.as_mut().map(|file| file.write_all(bytes)) {
            self.file = None;
            self.cache.cannot(&error);
        }
    }

    /// Keeps what was written, whose digest the caller has verified.
    pub fn keep(mut self) {
        let Some(file) = self.file.take() else {
            return;
        };
        let kept = file
            .sync_data()
            .and_then(|()| fs::rename(&self.part, &self.whole))
            .and_then(|()| self.cache.evict(&self.whole, SystemTime::now()));
        if let Err(error) = kept {
            self.cache.cannot(&error);
        }
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        // Gone already where it was kept.
        fs::remove_file(&self.part).ok();
    }
}

/// Reads a file of the right size, and notes that it was used.
fn read(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != bytes {
        return Err(io::Error::other("another size"));
    }
    // Without it, it may be evicted too early.
    file.set_modified(SystemTime::now()).ok();
    let mut found = Vec::new();
    let size = usize::try_from(bytes).map_err(io::Error::other)?;
    found.try_reserve_exact(size).map_err(io::Error::other)?;
    (&mut file).take(bytes).read_to_end(&mut found)?;
    Ok(found)
}

fn hex(digest: &Digest) -> String {
    let text = digest.to_string();
    text.strip_prefix("sha256:").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(directory: &Path, max_bytes: u64) -> ArtifactCache {
        ArtifactCache::new(CacheSettings {
            directory: directory.join("cache"),
            max_bytes,
        })
    }

    fn put(cache: &ArtifactCache, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut incoming = cache.begin(&digest, bytes.len() as u64).unwrap();
        for piece in bytes.chunks(3) {
            incoming.write(piece);
        }
        incoming.keep();
        digest
    }

    fn names(cache: &ArtifactCache, folder: &str) -> usize {
        fs::read_dir(cache.settings.directory.join(folder))
            .unwrap()
            .count()
    }

    fn age(cache: &ArtifactCache, digest: &Digest, seconds: u64) {
        let file = File::options().write(true).open(cache.path(digest));
        let at = SystemTime::now() - Duration::from_secs(seconds);
        file.unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn only_whole_and_right_artifacts_come_out() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path(), 100);
        assert_eq!(cache.get(&Digest::of(b"x"), 1), None);
        let digest = put(&cache, b"artifact");
        assert_eq!(cache.get(&digest, 8).as_deref(), Some(&b"artifact"[..]));
        // Half of one: its process died, or it was given up.
        let other = Digest::of(b"other");
        let mut half = cache.begin(&other, 5).unwrap();
        half.write(b"ot");
        assert_eq!((cache.get(&other, 5), names(&cache, "parts")), (None, 1));
        drop(half);
        assert_eq!(names(&cache, "parts"), 0);
        // Altered, and cut, on the disk.
        for bytes in [&b"artifacT"[..], b"art"] {
            put(&cache, b"artifact");
            fs::write(cache.path(&digest), bytes).unwrap();
            assert_eq!(cache.get(&digest, 8), None);
            assert!(!cache.path(&digest).exists());
        }
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path(), 10);
        let [a, b] = [b"aaaa", b"bbbb"].map(|bytes| put(&cache, bytes));
        age(&cache, &a, 20);
        age(&cache, &b, 10);
        // Used again, it is the newest.
        assert!(cache.get(&a, 4).is_some());
        let c = put(&cache, b"cccc");
        let here = |digest: &Digest| cache.path(digest).exists();
        assert_eq!((here(&a), here(&b), here(&c)), (true, false, true));
        // One that fits alone takes the place of all; one that never fits is not kept.
        let d = put(&cache, b"dddddddddd");
        assert_eq!((here(&a), here(&c), here(&d)), (false, false, true));
        assert!(cache.begin(&Digest::of(b"e"), 11).is_none());
    }

    #[test]
    fn what_a_dead_process_left_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path(), 100);
        put(&cache, b"a");
        let parts = cache.settings.directory.join("parts");
        let [old, young] = ["old", "young"].map(|name| parts.join(name));
        for path in [&old, &young] {
            fs::write(path, b"half").unwrap();
        }
        let at = SystemTime::now() - LEFT_BEHIND;
        let file = File::options().write(true).open(&old).unwrap();
        file.set_modified(at).unwrap();
        put(&cache, b"b");
        assert_eq!((old.exists(), young.exists()), (false, true));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cache"), b"a file").unwrap();
        let cache = cache(directory.path(), 100);
        assert!(cache.begin(&Digest::of(b"a"), 1).is_none());
        assert_eq!(cache.get(&Digest::of(b"a"), 1), None);
    }

    #[test]
    fn many_write_and_read_at_once() {
        let directory = tempfile::tempdir().unwrap();
        // Two fit: everybody evicts what the others keep.
        let cache = cache(directory.path(), 2000);
        let artifacts: Vec<Vec<u8>> = (0..4_u8).map(|byte| vec![byte; 900]).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, artifacts) = (&cache, &artifacts);
                scope.spawn(move || {
                    for round in 0..50 {
                        let bytes = &artifacts[(thread + round) % artifacts.len()];
                        let digest = Digest::of(bytes);
                        match cache.get(&digest, 900) {
                            Some(found) => assert_eq!(found, *bytes),
                            None => drop(put(cache, bytes)),
                        }
                    }
                });
            }
        });
        assert_eq!(names(&cache, "parts"), 0);
        assert!(names(&cache, "sha256") <= 3, "{}", names(&cache, "sha256"));
    }
}
