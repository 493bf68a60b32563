//! For how long each deployment was in force, by the log alone. Pure: time comes in as an argument.

use super::deployment_log::ModelLog;
use crate::model::Version;

/// The time in which one event decided what is to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// When it was written, milliseconds since 1970.
    pub from: i64,
    /// When the next event that counts took its place; `None`: it has not been replaced.
    pub until: Option<i64>,
}

impl Tenure {
    /// How long, in milliseconds.
    pub fn ms(&self, now: i64) -> u64 {
        let until = self.until.unwrap_or(now);
        u64::try_from(until.saturating_sub(self.from)).unwrap_or(0)
    }
}

impl ModelLog {
    /// How long the version of the event at `revision` was what is to serve; `None` where the
    /// event does not count, deploys nothing, or has no time.
    pub fn tenure(&self, revision: i64) -> Option<Tenure> {
        let entry = self.entry(revision)?;
        entry.event.as_ref()?.version.as_ref()?;
        let from = entry.timestamp.filter(|_| entry.outcome.is_effective())?;
        let next = self
            .history()
            .iter()
            .find(|e| e.revision > revision && e.outcome.is_effective());
        Some(Tenure {
            from,
            // A broker's clock may be set back.
            until: next.map(|next| next.timestamp.unwrap_or(from).max(from)),
        })
    }

    /// When `version` was last what is to serve; `None`: never. `Some(None)`: it is now.
    pub fn last_in_force(&self, version: &Version) -> Option<Option<i64>> {
        let of = |revision| self.tenure(revision).map(|tenure| tenure.until);
        self.history()
            .iter()
            .filter(|entry| entry.event.as_ref().and_then(|e| e.version.as_ref()) == Some(version))
            .filter_map(|entry| of(entry.revision))
            .max_by_key(|until| until.unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deployment_log::tests::{Step, fold, step};
    use super::*;
    use crate::model::ModelName;

    fn model() -> ModelName {
        ModelName::new("m").unwrap()
    }

    #[test]
    fn each_is_in_force_until_the_next_that_counts() {
        let steps = [
            Step::Deploy(1, None),
            Step::Deploy(2, Some(7)), // void
            Step::Deploy(2, Some(0)),
            Step::Undeploy(None),
            Step::Deploy(1, None),
        ];
        // The fold's timestamps are its offsets.
        let log = fold((0..).zip(&steps));
        let log = log.model(&model()).unwrap();
        let tenure = |revision| log.tenure(revision).map(|t| (t.from, t.until));
        assert_eq!(tenure(0), Some((0, Some(2))));
        assert_eq!(tenure(1), None);
        assert_eq!(tenure(2), Some((2, Some(3))));
        assert_eq!(tenure(3), None);
        assert_eq!(tenure(4), Some((4, None)));
        assert_eq!(log.tenure(4).unwrap().ms(10), 6);
        let last = |v: &str| log.last_in_force(&Version::new(v).unwrap());
        assert_eq!(last("1"), Some(None));
        assert_eq!(last("2"), Some(Some(3)));
        assert_eq!(last("3"), None);
    }

    proptest! {
        #[test]
        fn at_every_moment_one_version_at_most_is_in_force(steps in prop::collection::vec(step(), 0..24)) {
            let log = fold((0..).zip(&steps));
            let Some(log) = log.model(&model()) else { return Ok(()) };
            let tenures: Vec<_> = log.history().iter().filter_map(|e| log.tenure(e.revision)).collect();
            for two in tenures.windows(2) {
                prop_assert!(two[0].until.is_some_and(|until| until <= two[1].from));
            }
            let open = tenures.iter().filter(|t| t.until.is_none()).count();
            prop_assert_eq!(open, usize::from(log.desired().is_some()));
        }
    }
}
