//! Plots as SVG: bars, and lines over logarithmic axes.

use std::fmt::Write;
use std::path::Path;

use crate::report;
use crate::stats::Latencies;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const COLOURS: [&str; 6] = [
    "#1b6ca8", "#d1603d", "#5b8c5a", "#8e6c8a", "#b8862d", "#5f6b6d",
];

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n"
    )
}

/// Horizontal bars with their values.
pub fn bars(path: &Path, title: &str, bars: &[(String, f64)]) {
    let height = 50.0 + 30.0 * bars.len() as f64;
    let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut svg = open(height, title);
    for (row, (name, value)) in bars.iter().enumerate() {
        let y = 40.0 + 30.0 * row as f64;
        let width = (WIDTH - LEFT - 90.0) * value / most;
        let colour = COLOURS[usize::from(name != "swapstream")];
        writeln!(
            svg,
            "<text x=\"{x}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"20\" fill=\"{colour}\"/>\
             <text x=\"{end:.1}\" y=\"{text}\">{value:.2}</text>",
            x = LEFT - 8.0,
            text = y + 15.0,
            end = LEFT + width + 6.0,
        )
        .unwrap();
    }
    svg.push_str("</svg>\n");
    std::fs::write(path, svg).unwrap();
}

/// Writes `name`.svg: for each latency the share of events that take longer, down to one in 100,000.
pub fn latencies(name: &str, title: &str, lines: &[(&str, &Latencies)]) {
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, latencies)| ((*name).to_owned(), latencies.exceeding()))
        .collect();
    tails(
        &report::folder().join(format!("{name}.svg")),
        title,
        1e-5,
        &lines,
    );
}

/// Lines through points, the vertical axis logarithmic from `floor` to 1: shares of latencies.
fn tails(path: &Path, title: &str, floor: f64, lines: &[(String, Vec<(f64, f64)>)]) {
    const HEIGHT: f64 = 380.0;
    let (left, right, top, bottom) = (70.0, WIDTH - 20.0, 40.0, HEIGHT - 50.0);
    let shown = |points: &Vec<(f64, f64)>| {
        let last = points.iter().rfind(|(_, share)| *share >= floor);
        last.map_or(1.0, |(x, _)| x + 1.0)
    };
    let most = lines.iter().map(|(_, p)| shown(p)).fold(1.0, f64::max);
    let x = |millis: f64| left + (right - left) * (millis.max(0.5) / 0.5).ln() / (most / 0.5).ln();
    let y = |share: f64| top + (bottom - top) * share.max(floor).ln() / floor.ln();
    let mut svg = open(HEIGHT, title);
    let mut share = 1.0;
    while share >= floor * 0.99 {
        writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{label}\" y=\"{text:.1}\" text-anchor=\"end\">{share}</text>",
            at = y(share),
            text = y(share) + 4.0,
            label = left - 8.0,
        )
        .unwrap();
        share /= 10.0;
    }
    let mut millis = 1.0;
    while millis <= most {
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{millis} ms</text>",
            x(millis),
            bottom + 20.0
        )
        .unwrap();
        // 1, 2, 5, 10, …
        millis *= if millis.to_string().starts_with('2') {
            2.5
        } else {
            2.0
        };
    }
    for (number, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> = points
            .iter()
            .filter(|(_, share)| *share >= floor)
            .map(|(millis, share)| format!("{:.1},{:.1}", x(*millis), y(*share)))
            .collect();
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\" text-anchor=\"end\">{name}</text>",
            path.join(" "),
            right - 4.0,
            top + 16.0 + 18.0 * number as f64,
        )
        .unwrap();
    }
    svg.push_str("</svg>\n");
    std::fs::write(path, svg).unwrap();
}
