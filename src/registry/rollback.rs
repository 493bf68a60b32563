//! Where a rollback goes. Deployments are a stack: a deploy puts its version on top, a rollback
//! takes off what lies above the version it returns to, an undeploy takes off all. Pure.

use super::catalog::Catalog;
use super::deployment::{Action, DeploymentEvent};
use super::deployment_log::{DeploymentLog, ModelLog};
use super::error::RegistryError;
use super::operate::{Attribution, deployable, event};
use crate::model::{ModelName, Version};

impl ModelLog {
    /// The versions that a rollback walks back through, what is to serve last. The same version
    /// deployed twice in a row lies there once.
    pub fn rollback_stack(&self) -> Vec<&Version> {
        let mut stack: Vec<&Version> = Vec::new();
        for entry in self.history().iter().filter(|e| e.outcome.is_effective()) {
            let Some(event) = &entry.event else { continue };
            match (event.action, &event.version) {
                (Action::Deploy, Some(version)) => {
                    if stack.last() != Some(&version) {
                        stack.push(version);
                    }
                }
                (Action::Rollback, Some(version)) => {
                    match stack.iter().rposition(|below| *below == version) {
                        Some(at) => stack.truncate(at + 1),
                        None => stack.push(version),
                    }
                }
                _ => stack.clear(),
            }
        }
        stack
    }

    /// Whether an event that counts has ever deployed `version`.
    pub fn was_deployed(&self, version: &Version) -> bool {
        self.history().iter().any(|entry| {
            let event = entry.event.as_ref();
            entry.outcome.is_effective()
                && event.is_some_and(|e| e.version.as_ref() == Some(version))
        })
    }
}

/// The event that lets the version before serve again, or `to`. It counts only while nothing has
/// changed since `log` was read, or since `if_revision`.
pub fn rollback_event(
    log: &DeploymentLog,
    catalog: &Catalog,
    model: &ModelName,
    to: Option<&Version>,
    if_revision: Option<i64>,
    who: Attribution,
) -> Result<DeploymentEvent, RegistryError> {
    let refuse = |why: String| Err(RegistryError::NotThere(why));
    let Some(known) = log.model(model) else {
        return refuse(format!("model {model} was never deployed"));
    };
    let stack = known.rollback_stack();
    let target = match to {
        Some(to) if stack.last() == Some(&to) => {
            return refuse(format!("version {to} of {model} is what is deployed"));
        }
        Some(to) if !known.was_deployed(to) => {
            return refuse(format!(
                "version {to} of {model} never served; `swapstream model deploy {model} {to}` deploys it"
            ));
        }
        Some(to) => to,
        None => match stack.as_slice() {
            [.., before, _] => *before,
            [only] => {
                return refuse(format!(
                    "before version {only} of {model} nothing was deployed; name another with --to"
                ));
            }
            [] => {
                return refuse(format!(
                    "nothing of model {model} is deployed; name a version with --to"
                ));
            }
        },
    };
    let digest = deployable(catalog, model, target)?;
    Ok(event(
        Action::Rollback,
        model,
        Some((target.clone(), digest)),
        Some(if_revision.unwrap_or(known.last_effective())),
        who,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::catalog::tests::{manifest, record};
    use super::super::deployment_log::tests::{Step, fold, step, value};
    use super::*;

    fn model() -> ModelName {
        ModelName::new("m").unwrap()
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::new();
        for version in 0..4_u8 {
            let version = version.to_string();
            let value = manifest("m", &version, b"x").to_json().unwrap();
            catalog.apply(record(0, &format!("m/{version}"), Some(value)));
        }
        catalog
    }

    fn back(log: &DeploymentLog, to: Option<&str>) -> Result<String, String> {
        let to = to.map(|to| Version::new(to).unwrap());
        let who = Attribution::default();
        rollback_event(log, &catalog(), &model(), to.as_ref(), None, who)
            .map(|event| event.version.unwrap().to_string())
            .map_err(|error| error.to_string())
    }

    /// Appends what `rollback` without `--to` writes, for as long as it writes something.
    fn walk(log: &mut DeploymentLog, mut next: i64) -> Vec<String> {
        let mut seen = Vec::new();
        while let Ok(event) = rollback_event(
            log,
            &catalog(),
            &model(),
            None,
            None,
            Attribution::default(),
        ) {
            log.apply(next, Some(b"m"), Some(&event.to_json().unwrap()), None);
            next += 1;
            let desired = log.model(&model()).unwrap().desired().unwrap();
            seen.push(desired.version.to_string());
        }
        seen
    }

    #[test]
    fn back_like_a_stack() {
        let deploys = [1, 2, 3].map(|v| Step::Deploy(v, None));
        let mut log = fold((0..).zip(&deploys));
        assert_eq!(walk(&mut log, 3), ["2", "1"]);
        assert!(back(&log, None).unwrap_err().contains("before version 1"));
        // What was taken off may be named, and then lies on top.
        assert_eq!(back(&log, Some("3")).unwrap(), "3");
        log.apply(
            5,
            Some(b"m"),
            Some(&value("m", &Step::Rollback(3, Some(4)))),
            None,
        );
        assert_eq!(back(&log, None).unwrap(), "1");
    }

    #[test]
    fn what_cannot_be_returned_to_is_said() {
        let log = DeploymentLog::new();
        assert!(back(&log, None).unwrap_err().contains("never deployed"));
        let steps = [Step::Deploy(1, None), Step::Deploy(1, None)];
        let log = fold((0..).zip(&steps));
        assert!(back(&log, None).unwrap_err().contains("before version 1"));
        assert!(back(&log, Some("1")).unwrap_err().contains("is what is"));
        assert!(back(&log, Some("2")).unwrap_err().contains("never served"));
        let steps = [Step::Deploy(1, None), Step::Undeploy(None)];
        let log = fold((0..).zip(&steps));
        assert!(back(&log, None).unwrap_err().contains("nothing of model m"));
        assert_eq!(back(&log, Some("1")).unwrap(), "1");
        let log = fold((0..).zip(&[Step::Deploy(9, None), Step::Deploy(1, None)]));
        assert!(back(&log, None).unwrap_err().contains("no version 9"));
    }

    proptest! {
        #[test]
        fn the_top_of_the_stack_is_what_is_desired(steps in prop::collection::vec(step(), 0..24)) {
            let log = fold((0..).zip(&steps));
            if let Some(log) = log.model(&model()) {
                let stack = log.rollback_stack();
                prop_assert_eq!(stack.last().copied(), log.desired().map(|c| &c.version));
                prop_assert!(stack.windows(2).all(|two| two[0] != two[1]) || stack.len() < 2);
            }
        }

        #[test]
        fn each_rollback_counts_and_takes_one_off(steps in prop::collection::vec(step(), 0..24)) {
            let mut log = fold((0..).zip(&steps));
            let stack = |log: &DeploymentLog| -> Vec<String> {
                let known = log.model(&model());
                known.map(|l| l.rollback_stack().iter().map(ToString::to_string).collect()).unwrap_or_default()
            };
            let before = stack(&log);
            let frozen = log.model(&model()).and_then(ModelLog::frozen).is_some_and(|f| f.unknown);
            if frozen {
                return Ok(());
            }
            let walked = walk(&mut log, steps.len() as i64);
            let mut wanted: Vec<_> = before.iter().rev().skip(1).cloned().collect();
            // A rollback that is truncated to an earlier place leaves no two equal neighbours.
            wanted.dedup();
            prop_assert_eq!(walked, wanted);
        }
    }
}
