//! What is asked for: parts, presets, lengths.

use std::path::PathBuf;

use crate::processor::{self, Kind};
use crate::workload;

/// The parts besides the workloads, in the order in which they run.
pub const OTHERS: [&str; 8] = [
    "latency",
    "workers",
    "swaps",
    "loads",
    "instances",
    "models",
    "batches",
    "sizes",
];
/// What `scaling` stands for.
const SCALING: [&str; 5] = ["workers", "instances", "models", "batches", "sizes"];
/// What `--figures` stands for: each has a target.
const FIGURES: [&str; 6] = [
    "tabular", "crayfish", "heavy", "latency", "workers", "swaps",
];
/// What `--growth` stands for.
const GROWTH: [&str; 7] = [
    "crayfish_array",
    "wide",
    "loads",
    "instances",
    "models",
    "batches",
    "sizes",
];

/// What is asked for.
#[derive(Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct Options {
    pub parts: Vec<String>,
    pub only: Option<Vec<String>>,
    pub rounds: usize,
    pub seconds: u64,
    pub quick: bool,
    pub exactly_once: bool,
    /// Parts whose file is there are left out.
    pub resume: bool,
    /// Only what the targets need.
    pub figures: bool,
    pub growth: bool,
    /// Events a second for latency and swaps, instead of half of what full speed gives.
    pub rate: Option<f64>,
    /// Client properties, ours and the floor's: what a setting is worth.
    pub client: Vec<(String, String)>,
    /// Seconds of the run with swaps.
    pub swaps: Option<u64>,
    /// Events in the input topic, instead of the workload's own number.
    pub records: Option<usize>,
    /// Where the broker keeps its data, instead of in memory.
    pub data: Option<PathBuf>,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Self {
        let flag = |name: &str| arguments.iter().any(|a| a == name);
        let value = |name: &str| {
            let at = arguments.iter().position(|a| a == name)?;
            arguments.get(at + 1).cloned()
        };
        let number = |name: &str| value(name).map(|text| text.parse::<u64>().expect(name));
        let (quick, figures, growth) = (flag("--quick"), flag("--figures"), flag("--growth"));
        let values = [
            "--only",
            "--rounds",
            "--seconds",
            "--rate",
            "--swap-seconds",
            "--client",
            "--against",
            "--records",
            "--data",
        ];
        let parts = arguments.iter().enumerate().filter(|(at, argument)| {
            let of_option = *at > 0 && values.contains(&arguments[at - 1].as_str());
            !argument.starts_with('-') && !of_option
        });
        let mut parts: Vec<String> = parts.map(|(_, part)| part.clone()).collect();
        let presets = [(figures, FIGURES.as_slice()), (growth, GROWTH.as_slice())];
        for part in presets
            .iter()
            .filter(|(on, _)| *on)
            .flat_map(|(_, parts)| *parts)
        {
            parts.push((*part).to_owned());
        }
        if parts.iter().any(|part| part == "scaling") {
            parts.extend(SCALING.map(str::to_owned));
        }
        let known = |part: &String| {
            part == "scaling"
                || workload::NAMES.contains(&part.as_str())
                || OTHERS.contains(&part.as_str())
        };
        let unknown = parts.iter().find(|part| !known(part));
        assert!(unknown.is_none(), "no part {unknown:?}");
        let (rounds, seconds) = match (quick, growth) {
            (true, _) => (1, 4),
            (_, true) => (2, 6),
            _ => (5, if figures { 6 } else { 8 }),
        };
        Self {
            parts,
            only: value("--only").map(|list| list.split(',').map(str::to_owned).collect()),
            rounds: number("--rounds").map_or(rounds, |n| n as usize),
            seconds: number("--seconds").unwrap_or(seconds),
            quick,
            exactly_once: flag("--exactly-once"),
            resume: flag("--resume"),
            figures,
            growth,
            client: value("--client")
                .iter()
                .flat_map(|list| list.split(','))
                .map(|pair| {
                    let (key, value) = pair.split_once('=').expect("--client key=value,…");
                    (key.to_owned(), value.to_owned())
                })
                .collect(),
            rate: number("--rate").map(|n| n as f64),
            swaps: number("--swap-seconds"),
            records: number("--records").map(|n| n as usize),
            data: value("--data").map(PathBuf::from),
        }
    }

    pub fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|p| p == part)
    }

    /// The processors to run `workload` with in `round`.
    pub fn kinds(&self, workload: &str, round: usize) -> Vec<Kind> {
        let needed = |kind: &Kind| match (self.figures, kind) {
            (_, Kind::Against) => processor::against().is_some(),
            (false, _) | (true, Kind::Ours) => true,
            // As slow as it is, once says enough.
            (true, Kind::PythonPlain) => workload == "tabular" && round == 0,
            (true, Kind::PythonBatch) => workload == "tabular",
            (true, Kind::Passthrough | Kind::KafkaStreams) => workload != "heavy",
        };
        let wanted = |kind: &Kind| {
            let only = self.only.as_ref();
            only.is_none_or(|only| only.iter().any(|name| name == kind.as_str()))
        };
        Kind::ALL
            .into_iter()
            .filter(needed)
            .filter(wanted)
            .collect()
    }
}
