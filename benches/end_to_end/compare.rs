//! Full speed of all processors with one workload, in turns.

use std::time::Duration;

use serde_json::json;

use crate::floor::Inference;
use crate::options::Options;
use crate::processor::{Kind, LINGER_MS, Setup};
use crate::stats::median;
use crate::workload::Workload;
use crate::{Bench, Ready, file_of, report, svg, throughput};

impl Bench<'_> {
    /// Full speed of all processors with one workload, in turns.
    pub fn compare(&self, name: &str, options: &Options) {
        let workload = Workload::new(name, self.files);
        let ready = Ready::new(self.cluster, &workload, self.files, options, true);
        let machine = &self.machine;
        println!(
            "\n{name}: {}; {} bytes an event",
            workload.about,
            workload.event_bytes()
        );
        let mut client = options.client.clone();
        if client.iter().all(|(key, _)| key != "linger.ms") {
            client.push(("linger.ms".to_owned(), LINGER_MS.to_string()));
        }
        let setup = Setup {
            exactly_once: options.exactly_once,
            client,
            ..Setup::default()
        };
        let mut runs = Vec::new();
        let mut alone = Vec::new();
        let inference = Inference::new(&workload, 256);
        for round in 0..options.rounds {
            for kind in options.kinds(name, round) {
                let (topic, seconds) = (ready.topic(), options.seconds);
                let window =
                    throughput::run(&ready.job, kind, &setup, topic, seconds, &ready.expected);
                let Some(window) = window else {
                    println!(
                        "{round} {:<14} was through before counting began",
                        kind.as_str()
                    );
                    continue;
                };
                println!(
                    "{round} {:<14} {:>9.0} events/s {:>8.3} CPU s/M {:>6.0} MiB",
                    kind.as_str(),
                    window.events_per_second,
                    window.cpu,
                    window.rss_mib
                );
                runs.push((kind, window));
            }
            let (rate, cpu) = inference.run(1, Duration::from_secs(options.seconds.min(3)));
            println!(
                "{round} {:<14} {rate:>9.0} events/s {cpu:>8.3} CPU s/M",
                "inference"
            );
            alone.push(cpu);
        }
        let of = |kind: Kind| {
            let own = runs.iter().filter(move |(k, _)| *k == kind);
            own.map(|(_, window)| window)
        };
        let cpu = |kind: Kind| median(&of(kind).map(|window| window.cpu).collect::<Vec<f64>>());
        let over = |a: Kind, b: Kind| {
            // The ratio of each round, then their median: what disturbs a round disturbs both.
            let ratios = of(a).zip(of(b)).map(|(a, b)| a.cpu / b.cpu);
            median(&ratios.collect::<Vec<f64>>())
        };
        let mut bars: Vec<(String, f64)> = options
            .kinds(name, 0)
            .into_iter()
            .map(|kind| (kind.as_str().to_owned(), cpu(kind)))
            .filter(|(_, value)| value.is_finite())
            .collect();
        bars.push(("inference alone".to_owned(), median(&alone)));
        let guarantee = if options.exactly_once {
            ", exactly once"
        } else {
            ""
        };
        let title = format!("{name}{guarantee}: processor seconds for a million events");
        let plot = format!("{}.svg", file_of(name, options.exactly_once));
        svg::bars(&report::folder().join(plot), &title, &bars);
        let mut ratios = Vec::new();
        let rss = of(Kind::Ours)
            .map(|window| window.rss_mib)
            .fold(0.0, f64::max);
        match name {
            "tabular" => {
                ratios.push((
                    "tabular_kafka_streams_over_ours",
                    over(Kind::KafkaStreams, Kind::Ours),
                ));
                ratios.push((
                    "tabular_python_over_ours",
                    over(Kind::PythonBatch, Kind::Ours),
                ));
                ratios.push((
                    "tabular_plain_python_over_ours",
                    over(Kind::PythonPlain, Kind::Ours),
                ));
                ratios.push((
                    "tabular_ours_over_passthrough",
                    over(Kind::Ours, Kind::Passthrough),
                ));
                let ours = of(Kind::Ours)
                    .zip(&alone)
                    .map(|(ours, alone)| ours.cpu - alone);
                let floor = of(Kind::Passthrough);
                let without = ours.zip(floor).map(|(ours, floor)| ours / floor.cpu);
                ratios.push((
                    "tabular_ours_without_inference_over_passthrough",
                    median(&without.collect::<Vec<f64>>()),
                ));
                ratios.push(("rss_mib", rss));
            }
            "crayfish" => ratios.push((
                "crayfish_kafka_streams_over_ours",
                over(Kind::KafkaStreams, Kind::Ours),
            )),
            "heavy" => {
                let of_each = of(Kind::Ours).zip(&alone);
                let of_each = of_each.map(|(ours, alone)| ours.cpu / alone);
                let ratio = median(&of_each.collect::<Vec<f64>>());
                ratios.push(("heavy_ours_over_inference_only", ratio));
            }
            _ => {}
        }
        let file = file_of(name, options.exactly_once);
        let figures = json!({
            "workload": name,
            "about": workload.about,
            "event_bytes": workload.event_bytes(),
            "exactly_once": options.exactly_once,
            "machine": machine,
            "runs": runs.iter().map(|(kind, window)| window.json(*kind)).collect::<Vec<_>>(),
            "inference_only_cpu_seconds_per_million": alone,
        });
        report::write(&format!("end_to_end-{file}"), &figures);
        ratios.retain(|(_, value)| value.is_finite());
        if !options.exactly_once {
            report::ratios(&ratios, machine);
        }
        self.cluster.delete(&[&ready.input]);
    }
}
