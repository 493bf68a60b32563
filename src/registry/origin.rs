//! Where a process runs: by that an instance without a name of its own knows the notes that an
//! earlier life of it has left, and tells them from those of a neighbour.

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process among those of all hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// The host's name; a container's or a pod's own, where it has one.
    pub host: String,
    /// Since when the host runs: an id that every start of a kernel makes anew. What ended by the
    /// end of the host proves nothing.
    pub boot: String,
    /// The namespace that the process id belongs to.
    pub processes: String,
    /// The process id.
    pub pid: u32,
    /// When the process began, in the kernel's ticks: ids come back.
    pub began: u64,
}

impl Origin {
    /// Of this process; `None` where the system does not tell.
    pub fn of_this_process() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let text = |path: &str| {
            let text = read(path)?.trim().to_owned();
            Some(text).filter(|text| !text.is_empty())
        };
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        Some(Self {
            host: text("/proc/sys/kernel/hostname")?,
            boot: text("/proc/sys/kernel/random/boot_id")?,
            processes: namespace.to_str()?.to_owned(),
            pid: std::process::id(),
            began: began(&read("/proc/self/stat")?)?,
        })
    }

    /// Whether `other` may be an earlier life of this one: on the same host since the same start
    /// of it.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.host == other.host && self.boot == other.boot
    }

    /// Whether `other` runs still; `None`: it cannot be seen from here, as a container before this
    /// one cannot.
    pub fn sees_running(&self, other: &Self) -> Option<bool> {
        if !self.is_beside(other) || self.processes != other.processes {
            return None;
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", other.pid)).ok();
        Some(stat.and_then(|stat| began(&stat)) == Some(other.began))
    }
}

/// The 22nd field of `/proc/<pid>/stat`; the second one, a name, may hold anything.
fn began(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(19)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_while_it_runs_and_not_taken_for_the_next_of_its_id() {
        let me = Origin::of_this_process().unwrap();
        assert_eq!(me.sees_running(&me), Some(true));
        let later = Origin {
            began: me.began + 1,
            ..me.clone()
        };
        assert_eq!(me.sees_running(&later), Some(false));
        let gone = Origin {
            pid: u32::MAX,
            ..me.clone()
        };
        assert_eq!(me.sees_running(&gone), Some(false));
    }

    #[test]
    fn other_containers_hosts_and_boots_are_not_judged() {
        let me = Origin::of_this_process().unwrap();
        let change = |change: fn(&mut Origin)| {
            let mut other = me.clone();
            change(&mut other);
            (me.is_beside(&other), me.sees_running(&other))
        };
        assert_eq!(change(|o| o.processes = "pid:[1]".to_owned()), (true, None));
        assert_eq!(change(|o| o.host.push('x')), (false, None));
        assert_eq!(change(|o| o.boot.push('x')), (false, None));
    }

    #[test]
    fn a_name_may_hold_anything() {
        let fields = (3..=52).map(|n| n.to_string()).collect::<Vec<_>>();
        let stat = format!("7 (a) b (c) {}\n", fields.join(" "));
        assert_eq!(began(&stat), Some(22));
        assert_eq!(began("7 (a) S 1"), None);
        assert_eq!(began(""), None);
    }
}
