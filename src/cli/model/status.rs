//! `swapstream model status`: which version each live instance serves, and what it is doing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::table::{or_dash, table};
use super::{Context, Failure, Output, now_ms, print, time};
use crate::model::ModelName;
use crate::registry::{
    DeploymentLog, Desired, Fleet, Heartbeat, ModelLog, ModelReport, read_deployments_left,
    read_fleet,
};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only this model.
    model: Option<ModelName>,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    models: Vec<Model<'a>>,
    instances: Vec<Instance<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(rename = "model")]
    name: &'a ModelName,
    /// What the deployment log wants.
    desired: Option<Desired>,
    /// Whether there is a live instance and all of them serve that.
    converged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen: Option<&'a str>,
    instances: Vec<OnInstance<'a>>,
}

#[derive(Serialize)]
struct OnInstance<'a> {
    instance: &'a str,
    #[serde(flatten)]
    report: Option<&'a ModelReport>,
    at: Option<&'a str>,
}

#[derive(Serialize)]
struct Instance<'a> {
    live: bool,
    last_seen: Option<String>,
    #[serde(flatten)]
    heartbeat: &'a Heartbeat,
}

pub(super) fn run(args: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let logs = context.logs();
    let (fleet, log) = (read_fleet(&logs)?, read_deployments_left(&logs)?);
    let report = report(&fleet, &log, args.model.as_ref(), now_ms());
    if let Some(model) = args.model.as_ref().filter(|_| report.models.is_empty()) {
        return Err(Failure::Failed(format!("model {model} was never deployed")));
    }
    print(args.output, &report, || text(&report))
}

fn report<'a>(
    fleet: &'a Fleet,
    log: &'a DeploymentLog,
    only: Option<&'a ModelName>,
    now: i64,
) -> Report<'a> {
    let known = log.models().map(|(model, _)| model).chain(fleet.models());
    let names: BTreeSet<&ModelName> = known
        .filter(|model| only.is_none_or(|only| only == *model))
        .collect();
    let models = names.into_iter().map(|model| {
        let log = log.model(model);
        let desired = log.and_then(ModelLog::desired).map(Desired::from);
        Model {
            name: model,
            converged: fleet
                .convergence(model, desired.as_ref(), now)
                .is_converged(),
            desired,
            frozen: log
                .and_then(ModelLog::frozen)
                .map(|frozen| frozen.reason.as_str()),
            instances: fleet
                .live(model, now)
                .map(|(instance, entry)| OnInstance {
                    instance,
                    report: entry.map(|entry| &entry.report),
                    at: entry.map(|entry| entry.at.as_str()),
                })
                .collect(),
        }
    });
    let instances = fleet.instances().map(|(_, view)| Instance {
        live: view.is_live(now),
        last_seen: time(Some(view.seen_at)),
        heartbeat: &view.heartbeat,
    });
    Report {
        schema: "swapstream.model-status/v1",
        models: models.collect(),
        instances: instances.collect(),
    }
}

fn text(report: &Report<'_>) -> String {
    if report.models.is_empty() {
        return "nothing was deployed yet".to_owned();
    }
    let mut text = String::new();
    for model in &report.models {
        let desired = model.desired.as_ref().map_or_else(
            || "nothing deployed".to_owned(),
            |d| format!("version {} deployed (revision {})", d.version, d.revision),
        );
        let live = model.instances.len();
        let state = if model.converged {
            "converged"
        } else {
            "not converged"
        };
        let name = model.name;
        // Writing to a string does not fail.
        _ = if live == 0 {
            writeln!(
                text,
                "{name}: {desired}; no live instance has a stream for it"
            )
        } else {
            writeln!(text, "{name}: {desired}; {live} live, {state}")
        };
        if let Some(frozen) = model.frozen {
            _ = writeln!(text, "frozen: {frozen}");
        }
        if live > 0 {
            let rows: Vec<Vec<String>> = model.instances.iter().map(row).collect();
            text.push_str(&table(
                &["INSTANCE", "SERVES", "WORKS ON", "REFUSED"],
                &rows,
            ));
        }
        text.push('\n');
    }
    text
}

fn row(on: &OnInstance<'_>) -> Vec<String> {
    let serving = on.report.and_then(|report| report.serving.as_ref());
    let work = on.report.and_then(|report| report.working_on.as_ref());
    let refused = on.report.and_then(|report| report.refused.as_ref());
    vec![
        on.instance.to_owned(),
        or_dash(serving.map(|s| format!("{} (revision {})", s.version, s.revision))),
        or_dash(work.map(|work| {
            let error = work
                .error
                .as_deref()
                .map(|e| format!(": {e}"))
                .unwrap_or_default();
            format!("{} ({}{error})", work.version, work.state)
        })),
        or_dash(refused.map(|refused| {
            let version = refused
                .version
                .as_ref()
                .map(|v| format!("{v}, "))
                .unwrap_or_default();
            format!("{version}not {}: {}", refused.stage, refused.reason)
        })),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::{INSTANCE_SCHEMA, STATUS_SCHEMA, StatusEntry};

    #[test]
    fn both_forms_tell_who_serves_what() {
        let model = ModelName::new("m").unwrap();
        let mut log = DeploymentLog::new();
        let event =
            br#"{"schema":"swapstream.deployment/v1","action":"deploy","model":"m","version":"1"}"#;
        log.apply(0, Some(b"m"), Some(event), None);
        let heartbeat = Heartbeat {
            schema: INSTANCE_SCHEMA.to_owned(),
            instance: "a".to_owned(),
            build: String::new(),
            streams: BTreeMap::from([("s".to_owned(), model.clone())]),
            fingerprint: String::new(),
            interval_ms: 10,
            started_at: String::new(),
            at: String::new(),
        };
        let entry = StatusEntry {
            schema: STATUS_SCHEMA.to_owned(),
            instance: "a".to_owned(),
            model: model.clone(),
            report: ModelReport::default(),
            at: "2026".to_owned(),
        };
        let mut fleet = Fleet::new();
        let json = |value: &dyn erased::Json| value.json();
        fleet.apply(Some(b"instance/a"), Some(&json(&heartbeat)), Some(0));
        fleet.apply(Some(b"a/m"), Some(&json(&entry)), Some(0));
        let report = report(&fleet, &log, None, 1);
        let text = text(&report);
        assert!(
            text.contains("m: version 1 deployed (revision 0); 1 live, not converged"),
            "{text}"
        );
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["models"][0]["instances"][0]["instance"], "a");
        assert!(value["models"][0]["instances"][0]["serving"].is_null());
        assert_eq!(value["instances"][0]["live"], true);
    }

    mod erased {
        pub(super) trait Json {
            fn json(&self) -> Vec<u8>;
        }
        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> Vec<u8> {
                serde_json::to_vec(self).unwrap()
            }
        }
    }
}
