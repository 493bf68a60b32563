//! A small disk for the broker, so that it can be full: a tmpfs, where this machine lets us mount.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::unique;

/// Its size in normal times. Only what is written takes memory.
const SIZE: &str = "4g";

/// A mounted disk; dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts it, or says why that is not possible.
    pub fn mount() -> Result<Self, String> {
        let path = std::env::temp_dir().join(unique("swapstream-disk"));
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        let disk = Self { path };
        let at = disk.path.clone();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "tmpfs"])
            .arg(at))?;
        Ok(disk)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no more than a few pages free.
    pub fn fill(&self) -> Result<(), String> {
        let done = Command::new("df")
            .args(["--block-size=1K", "--output=used"])
            .arg(&self.path)
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let used: u64 = { text.lines().nth(1) }
            .and_then(|line| line.trim().parse().ok())
            .ok_or_else(|| format!("df says {text:?}"))?;
        self.resize(&format!("{}k", used + 64))
    }

    /// Makes room again.
    pub fn free(&self) -> Result<(), String> {
        self.resize(SIZE)
    }

    fn resize(&self, size: &str) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The broker has ended before; where it was never mounted only the directory goes.
        drop(run(Command::new("umount").arg(&self.path)));
        drop(std::fs::remove_dir_all(&self.path));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(format!("{command:?}: {said}"))
}
