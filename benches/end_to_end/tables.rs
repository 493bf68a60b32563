//! The tables of docs/performance.md out of the files of all parts, written to `bench/end_to_end.md`.

use std::fmt::Write;

use serde_json::Value;

use crate::report::{folder, read};
use crate::stats::median;
use crate::workload;

/// The ratios that have a target: name, what it is, whether it is to be at least or at most so much.
const TARGETS: [(&str, &str, char, f64); 11] = [
    (
        "tabular_kafka_streams_over_ours",
        "`tabular`: Kafka Streams ÷ ours",
        '≥',
        5.0,
    ),
    (
        "tabular_python_over_ours",
        "`tabular`: Python in batches ÷ ours",
        '≥',
        5.0,
    ),
    (
        "crayfish_kafka_streams_over_ours",
        "`crayfish`: Kafka Streams ÷ ours",
        '≥',
        5.0,
    ),
    (
        "tabular_ours_over_passthrough",
        "`tabular`: ours ÷ passthrough",
        '≤',
        2.2,
    ),
    (
        "heavy_ours_over_inference_only",
        "`heavy`: ours ÷ inference alone",
        '≤',
        1.1,
    ),
    (
        "half_load_p99_ours_over_passthrough",
        "p99 at half load: ours ÷ passthrough",
        '≤',
        1.5,
    ),
    (
        "swap_p999_inside_over_outside",
        "p99.9 in swap windows ÷ outside",
        '≤',
        1.25,
    ),
    ("swap_lost", "lost in swaps", '≤', 0.0),
    ("swap_duplicated", "repeated in swaps", '≤', 0.0),
    ("rss_mib", "MiB at full load, `tabular`", '≤', 200.0),
    (
        "two_workers_over_one",
        "2 workers ÷ 1, against threads of inference alone",
        '≥',
        0.92,
    ),
];

/// Processors in the order of the columns.
const COLUMNS: [(&str, &str); 5] = [
    ("swapstream", "swapstream"),
    ("passthrough", "passthrough"),
    ("kafka_streams", "Kafka Streams"),
    ("python_batch", "Python, batches"),
    ("python_plain", "Python, one by one"),
];

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The median over those of `rows` that `processor` made.
fn of(rows: &[Value], processor: &str, figure: &str) -> Option<f64> {
    let own = rows.iter().filter(|row| row["processor"] == processor);
    let own: Vec<f64> = own.filter_map(|row| row[figure].as_f64()).collect();
    (!own.is_empty()).then(|| median(&own))
}

fn shown(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// Writes the tables, and prints them.
pub fn write() {
    let mut text = String::new();
    ratios(&mut text);
    for (figure, title) in [
        ("cpu_seconds_per_million", "CPU seconds per million events"),
        ("events_per_second", "events a second"),
        ("peak_rss_mib", "peak memory, MiB"),
    ] {
        throughput(&mut text, figure, title);
    }
    latencies(&mut text);
    swaps(&mut text);
    growth(&mut text);
    let path = folder().join("end_to_end.md");
    std::fs::write(&path, &text).unwrap();
    println!("\n{text}\nwritten to {}", path.display());
}

fn ratios(text: &mut String) {
    let all = read("end_to_end");
    writeln!(text, "{}\n", all["machine"]).unwrap();
    text.push_str("| ratio | target | measured |\n|---|---|---|\n");
    for (name, about, bound, target) in TARGETS {
        let value = all["ratios"][name].as_f64();
        let met = value.is_none_or(|value| match bound {
            '≥' => value >= target,
            _ => value <= target,
        });
        let mark = if met { "" } else { "**" };
        let value = shown(value);
        writeln!(text, "| {about} | {bound} {target} | {mark}{value}{mark} |").unwrap();
    }
    for (name, about) in [
        ("tabular_plain_python_over_ours", "Python one by one ÷ ours"),
        (
            "tabular_ours_without_inference_over_passthrough",
            "ours without inference ÷ passthrough",
        ),
        (
            "swap_p999_control_low",
            "p99.9 by chance, without swaps: from",
        ),
        ("swap_p999_control_high", "to"),
    ] {
        let value = shown(all["ratios"][name].as_f64());
        writeln!(text, "| {about} | | {value} |").unwrap();
    }
}

fn throughput(text: &mut String, figure: &str, title: &str) {
    write!(text, "\n{title}:\n\n| workload |").unwrap();
    for (_, heading) in COLUMNS {
        write!(text, " {heading} |").unwrap();
    }
    text.push_str(" inference alone |\n|---|---|---|---|---|---|---|\n");
    for name in workload::NAMES {
        for (suffix, guarantee) in [("", ""), ("-eos", ", exactly once")] {
            let file = read(&format!("end_to_end-{name}{suffix}"));
            let runs = list(&file["runs"]);
            if runs.is_empty() {
                continue;
            }
            write!(text, "| `{name}`{guarantee} |").unwrap();
            for (processor, _) in COLUMNS {
                write!(text, " {} |", shown(of(runs, processor, figure))).unwrap();
            }
            let alone = list(&file["inference_only_cpu_seconds_per_million"]);
            let alone: Vec<f64> = alone.iter().filter_map(Value::as_f64).collect();
            let alone =
                (figure == "cpu_seconds_per_million" && !alone.is_empty()).then(|| median(&alone));
            writeln!(text, " {} |", shown(alone)).unwrap();
        }
    }
}

fn latencies(text: &mut String) {
    let file = read("end_to_end-latency");
    let runs = list(&file["runs"]);
    if runs.is_empty() {
        return;
    }
    writeln!(
        text,
        "\nlatency at {} events/s, medians of {} pairs, ms:\n\n| | p50 | p99 | p99.9 |\n|---|---|---|---|",
        file["rate"],
        runs.len() / 2
    )
    .unwrap();
    for processor in ["swapstream", "passthrough"] {
        let [p50, p99, p999] =
            ["p50_ms", "p99_ms", "p999_ms"].map(|figure| shown(of(runs, processor, figure)));
        writeln!(text, "| {processor} | {p50} | {p99} | {p999} |").unwrap();
    }
}

fn swaps(text: &mut String) {
    let file = read("end_to_end-swaps");
    let figures = &file["figures"];
    if figures.is_null() {
        return;
    }
    writeln!(
        text,
        "\n{} deployments in {} s at {} events/s, {} served, event to first prediction {} ms (median); \
         lost {}, repeated {}:\n\n| | events | p50 | p99 | p99.9 |\n|---|---|---|---|---|",
        figures["deployments"],
        figures["seconds"],
        figures["rate"],
        figures["deployments_that_served"],
        figures["event_to_first_prediction_ms"]["median"],
        figures["lost"],
        figures["duplicated"],
    )
    .unwrap();
    for row in ["inside", "outside", "control_inside", "control_outside"] {
        let of = &figures[row];
        let [p50, p99, p999] =
            ["p50_ms", "p99_ms", "p999_ms"].map(|figure| shown(of[figure].as_f64()));
        writeln!(
            text,
            "| {row} | {} | {p50} | {p99} | {p999} |",
            of["events"]
        )
        .unwrap();
    }
    let rss: Vec<f64> = list(&figures["rss_mib"])
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    let tenth = rss.len() / 10;
    if tenth > 0 {
        let (first, last) = (median(&rss[..tenth * 2]), median(&rss[rss.len() - tenth..]));
        writeln!(
            text,
            "\nmemory in the first fifth {first:.0} MiB, in the last tenth {last:.0} MiB"
        )
        .unwrap();
    }
}

/// The rows of the scaling parts as they are: one table for each.
fn growth(text: &mut String) {
    for part in [
        "workers",
        "loads",
        "instances",
        "models",
        "batches",
        "sizes",
    ] {
        let file = read(&format!("end_to_end-{part}"));
        let rows = list(&file["rows"]);
        let Some(first) = rows.first().and_then(Value::as_object) else {
            continue;
        };
        let names: Vec<&String> = first.keys().collect();
        let heading: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        writeln!(text, "\n{part}:\n\n| {} |", heading.join(" | ")).unwrap();
        writeln!(text, "|{}", "---|".repeat(names.len())).unwrap();
        for row in rows {
            let cells: Vec<String> = names
                .iter()
                .map(|name| {
                    row[name.as_str()].as_f64().map_or_else(
                        || row[name.as_str()].to_string(),
                        |number| shown(Some(number)),
                    )
                })
                .collect();
            writeln!(text, "| {} |", cells.join(" | ")).unwrap();
        }
    }
}
