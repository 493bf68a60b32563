//! Which versions may be deleted: none that serves, and none that a rollback may still want. Pure.

use std::time::Duration;

use super::deployment_log::{Frozen, ModelLog};
use crate::model::Version;

/// What the decision depends on.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// What the deployment log says about the model; `None`: nothing.
    pub log: Option<&'a ModelLog>,
    /// Live instances that serve the version.
    pub serving: &'a [String],
    /// The version.
    pub version: &'a Version,
    /// How long a version is kept once it is no longer what is to serve.
    pub retention: Duration,
    /// This moment, milliseconds since 1970.
    pub now: i64,
}

impl Question<'_> {
    /// Why the version is kept; `None`: it may be deleted.
    pub(super) fn kept(&self) -> Option<String> {
        let version = self.version;
        if let Some(frozen) = self.log.and_then(ModelLog::frozen).filter(|f| f.unknown) {
            let Frozen {
                revision, reason, ..
            } = frozen;
            return Some(format!(
                "what is deployed cannot be told: revision {revision}: {reason}"
            ));
        }
        let desired = self.log.and_then(ModelLog::desired);
        if let Some(candidate) = desired.filter(|c| c.version == *version) {
            return Some(format!("it is deployed (revision {})", candidate.revision));
        }
        if !self.serving.is_empty() {
            return Some(format!("it is served by {}", self.serving.join(", ")));
        }
        let until = self.log?.last_in_force(version)??;
        let age = Duration::from_millis(u64::try_from(self.now.saturating_sub(until)).unwrap_or(0));
        (age < self.retention).then(|| {
            let left = Duration::from_secs(self.retention.saturating_sub(age).as_secs() + 1);
            format!(
                "it was deployed until {} ago, and registry.retention keeps it for {} more",
                humantime::format_duration(Duration::from_secs(age.as_secs())),
                humantime::format_duration(left),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::deployment_log::tests::{Step, fold, step};
    use super::*;
    use crate::model::ModelName;

    fn kept(
        steps: &[Step],
        serving: &[String],
        version: u8,
        retention: u64,
        now: i64,
    ) -> Option<String> {
        let log = fold((0..).zip(steps));
        Question {
            log: log.model(&ModelName::new("m").unwrap()),
            serving,
            version: &Version::new(&version.to_string()).unwrap(),
            retention: Duration::from_millis(retention),
            now,
        }
        .kept()
    }

    #[test]
    fn what_serves_or_served_lately_is_kept() {
        // The fold's timestamps are its offsets.
        let steps = [1, 2, 3].map(|v| Step::Deploy(v, None));
        let says = |version, retention, now| kept(&steps, &[], version, retention, now);
        assert!(
            says(3, 0, 1_000_000)
                .unwrap()
                .contains("deployed (revision 2)")
        );
        assert!(says(2, 10, 11).unwrap().contains("registry.retention"));
        assert_eq!(says(2, 10, 12), None);
        assert_eq!(says(1, 10, 11), None);
        assert_eq!(says(0, 10, 0), None, "never deployed");
        let on = ["a".to_owned()];
        assert!(kept(&steps, &on, 1, 0, 99).unwrap().contains("served by a"));
        let frozen = [Step::Deploy(1, None), Step::Unknown];
        assert!(
            kept(&frozen, &[], 0, 0, 99)
                .unwrap()
                .contains("cannot be told")
        );
    }

    proptest! {
        #[test]
        fn nothing_is_deleted_that_was_in_force_within_the_window(
            steps in prop::collection::vec(step(), 0..24), version in 0..4_u8,
            retention in 0..30_u64, later in 0..30_i64,
        ) {
            let now = steps.len() as i64 + later;
            if kept(&steps, &[], version, retention, now).is_some() {
                return Ok(());
            }
            // Whatever was desired after each record within the window is another version.
            for end in 1..=steps.len() {
                let log = fold((0..).zip(&steps[..end]));
                let desired = log.model(&ModelName::new("m").unwrap()).unwrap().desired().map(|c| c.version.to_string());
                // In force from offset end-1 to end; the last one until now.
                let until = if end == steps.len() { now } else { end as i64 };
                if now - until < retention as i64 || end == steps.len() {
                    prop_assert_ne!(desired, Some(version.to_string()));
                }
            }
        }
    }
}
