//! `swapstream model list`: the models, their versions, and what is deployed.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::table::{or_dash, table};
use super::{Context, Failure, Output, print, time};
use crate::config::size;
use crate::model::{Digest, ModelName, Version};
use crate::registry::{
    Catalog, DeploymentLog, Entry, EntryKind, ModelLog, read_catalog, read_deployments_left,
};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(rename = "model")]
    name: &'a ModelName,
    deployed: Option<Deployed<'a>>,
    versions: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Deployed<'a> {
    version: &'a Version,
    revision: i64,
    by: Option<&'a str>,
    at: Option<&'a str>,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Listed<'a> {
    version: &'a Version,
    state: &'static str,
    digest: Option<Digest>,
    bytes: Option<u64>,
    published_at: Option<String>,
    author: Option<&'a str>,
}

pub(super) fn run(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let logs = context.logs();
    let (catalog, log) = (read_catalog(&logs)?, read_deployments_left(&logs)?);
    let report = report(&catalog, &log);
    print(args.output, &report, || text(&report))
}

fn report<'a>(catalog: &'a Catalog, log: &'a DeploymentLog) -> Report<'a> {
    let names: BTreeSet<&ModelName> = catalog
        .models()
        .chain(log.models().map(|(model, _)| model))
        .collect();
    let models = names.into_iter().map(|model| Model {
        name: model,
        deployed: log.model(model).and_then(deployed),
        versions: catalog.versions(model).into_iter().map(listed).collect(),
    });
    Report {
        schema: "swapstream.model-list/v1",
        models: models.collect(),
    }
}

fn deployed(log: &ModelLog) -> Option<Deployed<'_>> {
    let candidate = log.desired()?;
    let event = log
        .entry(candidate.revision)
        .and_then(|entry| entry.event.as_ref());
    Some(Deployed {
        version: &candidate.version,
        revision: candidate.revision,
        by: event.and_then(|event| event.by.as_deref()),
        at: event.and_then(|event| event.at.as_deref()),
        reason: event.and_then(|event| event.reason.as_deref()),
    })
}

fn listed<'a>((version, entry): (&'a Version, &'a Entry)) -> Listed<'a> {
    let manifest = entry.manifest();
    let (state, digest) = match &entry.kind {
        EntryKind::Manifest(manifest) => ("published", Some(manifest.artifact.digest)),
        EntryKind::Deleted(deletion) => ("deleted", deletion.digest),
        EntryKind::Unreadable(_) => ("unreadable", None),
    };
    Listed {
        version,
        state,
        digest,
        bytes: manifest.map(|manifest| manifest.artifact.bytes),
        published_at: time(entry.timestamp),
        author: manifest.and_then(|manifest| manifest.lineage.author.as_deref()),
    }
}

fn text(report: &Report<'_>) -> String {
    if report.models.is_empty() {
        return "no models; `swapstream model publish` puts one into the registry".to_owned();
    }
    let mut rows = Vec::new();
    for model in &report.models {
        let current = model.deployed.as_ref();
        for listed in &model.versions {
            let revision = current
                .filter(|d| d.version == listed.version)
                .map(|d| format!("revision {}", d.revision));
            rows.push(vec![
                model.name.to_string(),
                listed.version.to_string(),
                listed.state.to_owned(),
                or_dash(revision),
                or_dash(listed.bytes.map(size)),
                or_dash(listed.digest.map(|digest| digest.short())),
                or_dash(listed.published_at.as_deref()),
            ]);
        }
        if let Some(current) = current.filter(|d| {
            !model
                .versions
                .iter()
                .any(|listed| listed.version == d.version)
        }) {
            rows.push(vec![
                model.name.to_string(),
                current.version.to_string(),
                "missing".to_owned(),
                format!("revision {}", current.revision),
            ]);
        }
    }
    table(
        &[
            "MODEL",
            "VERSION",
            "STATE",
            "DEPLOYED",
            "SIZE",
            "DIGEST",
            "PUBLISHED",
        ],
        &rows,
    )
}
