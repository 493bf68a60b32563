//! What has passed the probe since the process began: the same bytes need not pass it again, so that
//! going back to a version takes half of the time. Pure.

use std::collections::VecDeque;

use super::probe::ProbeReport;
use crate::model::Digest;

/// Versions that are remembered.
const KEPT: usize = 256;

/// Passed versions, the oldest first, each by the digest of its manifest, which has those of its files.
#[derive(Debug, Default)]
pub(super) struct Passed {
    reports: VecDeque<(Digest, ProbeReport)>,
}

impl Passed {
    /// What the probe measured of a version.
    pub(super) fn get(&self, manifest: &Digest) -> Option<ProbeReport> {
        let mut all = self.reports.iter();
        all.find(|(passed, _)| passed == manifest)
            .map(|(_, report)| *report)
    }

    /// Remembers a version.
    pub(super) fn add(&mut self, manifest: Digest, report: ProbeReport) {
        self.reports.retain(|(passed, _)| *passed != manifest);
        self.reports.push_back((manifest, report));
        while self.reports.len() > KEPT {
            self.reports.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_each_once() {
        let mut passed = Passed::default();
        let digest = |n: usize| Digest::of(&n.to_be_bytes());
        let report = |n: usize| ProbeReport {
            load_ms: n as u64,
            ..ProbeReport::default()
        };
        for n in 0..KEPT + 3 {
            passed.add(digest(n), report(n));
            // The second one stays by being used.
            passed.add(digest(1), report(n));
        }
        assert_eq!(passed.reports.len(), KEPT);
        let known: Vec<_> = (0..5).map(|n| passed.get(&digest(n)).is_some()).collect();
        assert_eq!(known, [false, true, false, false, true]);
        assert_eq!(passed.get(&digest(1)), Some(report(KEPT + 2)));
    }
}
