//! `swapstream model inspect`: what an ONNX file holds, whether this build runs it, and how fast.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;

use super::{Failure, Output, terminal};
use crate::config::about;
use crate::model::{Digest, METADATA_KEY};
use crate::runtime::{self, Inspection, Runs};

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The ONNX file.
    file: PathBuf,
    /// `json` prints one line, one object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &InspectArgs, config: Option<&Path>) -> Result<(), Failure> {
    super::prepare_offline(config)?;
    let file = args.file.display();
    let bytes =
        std::fs::read(&args.file).map_err(|error| Failure::Failed(format!("{file}: {error}")))?;
    let inspection =
        runtime::inspect(&bytes).map_err(|error| Failure::Failed(format!("{file}: {error}")))?;
    match args.output {
        Output::Json => {
            terminal::line(&serde_json::to_string(&inspection).map_err(Failure::failed)?)?;
        }
        Output::Text => terminal::line(text(&bytes, &inspection).trim_end())?,
    }
    match inspection.refused {
        Some(_) => Err(Failure::Silent),
        None => Ok(()),
    }
}

fn text(bytes: &[u8], inspection: &Inspection) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        _ = writeln!(out, "{name:<12} {value}");
    };
    let summary = &inspection.summary;
    line(
        "file",
        format!("{} ({})", about(bytes.len() as u64), Digest::of(bytes)),
    );
    line("producer", summary.producer.clone());
    let opsets = summary
        .opsets
        .iter()
        .map(|(domain, version)| format!("{domain} {version}"));
    line("opsets", opsets.collect::<Vec<_>>().join(", "));
    let operators = summary.operators.iter().map(|operator| {
        let count = operator.count;
        format!("{operator} ×{count}")
    });
    line("operators", operators.collect::<Vec<_>>().join(", "));
    let manifest = summary.metadata_props.contains_key(METADATA_KEY);
    line(
        "manifest",
        if manifest {
            "inside the file"
        } else {
            "none inside the file"
        }
        .to_owned(),
    );
    if let Some(reason) = &inspection.refused {
        line("runs", format!("no: {reason}"));
    }
    if let Some(runs) = &inspection.runs {
        tell_runs(runs, &mut line);
    }
    for other in &inspection.others {
        match (&other.runs, &other.refused) {
            (Some(runs), _) => {
                line("runs as well", format!("with {}", runs.runtime));
                tell_speed(runs, &mut line);
            }
            (None, Some(why)) => line(&other.runtime, format!("does not run it: {why}")),
            (None, None) => {}
        }
    }
    out
}

fn tell_runs(runs: &Runs, line: &mut impl FnMut(&str, String)) {
    line("runs", format!("yes, with {}", runs.runtime));
    for input in &runs.signature.inputs {
        line("input", input.to_string());
    }
    for output in &runs.signature.outputs {
        line("output", output.to_string());
    }
    tell_speed(runs, line);
}

fn plans(runs: &Runs) -> String {
    let rows = format!("up to {} rows", runs.plan_rows);
    match runs.plans {
        0 => rows,
        1 => format!("1, {rows}, {}", ByteSize(runs.plan_bytes as u64)),
        plans => format!(
            "{plans}, {rows}, {} together",
            ByteSize(runs.plan_bytes as u64)
        ),
    }
}

fn tell_speed(runs: &Runs, line: &mut impl FnMut(&str, String)) {
    line(
        "invariant",
        format!(
            "{} (a row's bits do not depend on its batch)",
            runs.batch_invariant
        ),
    );
    line("plans", plans(runs));
    line("load", format!("{:.1} ms", runs.compile_ms));
    for time in &runs.timings {
        let per_row = time.median_us / time.rows as f64;
        let (rows, batch) = (time.rows, time.median_us);
        line(
            "time",
            format!("{rows:>4} rows: {batch:.1} µs a batch, {per_row:.2} µs a row"),
        );
    }
}
