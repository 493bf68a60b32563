//! Where the broker keeps its data: in memory where there is enough of it. A disk that writes back what
//! piled up halts the broker for tens of milliseconds now and then, and a processor that shares its cores
//! with both is then slow to catch up, whichever it is.

use std::path::{Path, PathBuf};

/// Memory as a file system.
const MEMORY: &str = "/dev/shm";
/// What must be free there, and of the machine's memory: the longest part writes 8 GB.
const NEEDED_MIB: f64 = 14.0 * 1024.0;
/// Folders are named after the process that they belong to.
const PREFIX: &str = "swapstream-bench-";

/// A folder that is removed at the end.
pub struct Store {
    folder: PathBuf,
    pub in_memory: bool,
}

impl Store {
    /// In `chosen`; else in memory, or with temporary files where there is too little.
    pub fn new(chosen: Option<&Path>) -> Self {
        let memory = Path::new(MEMORY);
        remove_forgotten(memory);
        let in_memory = chosen.is_none_or(|folder| folder.starts_with(memory)) && is_roomy(memory);
        let fallback = || {
            if in_memory {
                memory.to_owned()
            } else {
                std::env::temp_dir()
            }
        };
        let parent = chosen.map_or_else(fallback, Path::to_owned);
        let folder = parent.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, in_memory }
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn is_roomy(memory: &Path) -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let available = available.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    let free = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    available.is_some_and(|kib| kib / 1024.0 >= NEEDED_MIB)
        && free as f64 / f64::from(1 << 20) >= NEEDED_MIB
}

/// Removes what processes left behind that were killed.
fn remove_forgotten(memory: &Path) {
    for entry in std::fs::read_dir(memory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}
