//! The live view: one block of lines, at most 79 columns wide. Pure: it makes text, the command
//! draws it.

use std::time::Duration;

use super::Progress;
use super::progress::VersionProgress;

const WIDTH: usize = 76;
/// Columns of the rate's history and of an AUC.
const HISTORY: usize = 28;
const AUC_WIDTH: usize = 24;

/// How text is set off; all empty where colours are unwanted.
#[derive(Debug, Clone, Copy)]
struct Style {
    bold: &'static str,
    dim: &'static str,
    good: &'static str,
    bad: &'static str,
    end: &'static str,
}

const COLOUR: Style = Style {
    bold: "\x1b[1m",
    dim: "\x1b[2m",
    good: "\x1b[32m",
    bad: "\x1b[1;31m",
    end: "\x1b[0m",
};
const PLAIN: Style = Style {
    bold: "",
    dim: "",
    good: "",
    bad: "",
    end: "",
};

/// The lines of the block; always as many.
pub fn frame(progress: &Progress, colour: bool) -> Vec<String> {
    let style = if colour { COLOUR } else { PLAIN };
    let mut lines = vec![
        title(progress, style),
        time_line(progress, style),
        String::new(),
    ];
    lines.extend(counters(progress, style));
    lines.push(String::new());
    lines.extend(versions(progress, style));
    lines.push(swap_line(progress, style));
    lines.push(String::new());
    lines.push(footer(progress, style));
    lines
}

fn title(progress: &Progress, style: Style) -> String {
    let left = format!("swapstream demo · {}", progress.model);
    let elapsed = progress.elapsed.as_secs_f64();
    let right = match progress.duration {
        Some(duration) => format!("{elapsed:.1} s of {}", seconds(duration)),
        None => format!("{elapsed:.1} s"),
    };
    let gap = WIDTH.saturating_sub(left.chars().count() + right.chars().count());
    format!("  {}{left}{}{:gap$}{right}", style.bold, style.end, "")
}

/// A duration without a needless fraction.
pub(super) fn seconds(duration: Duration) -> String {
    let rounded = Duration::from_millis(duration.as_millis() as u64);
    if rounded.subsec_millis() == 0 {
        format!("{} s", rounded.as_secs())
    } else {
        format!("{:.1} s", rounded.as_secs_f64())
    }
}

fn time_line(progress: &Progress, style: Style) -> String {
    let share = match progress.duration {
        Some(duration) => progress.elapsed.as_secs_f64() / duration.as_secs_f64().max(0.001),
        None => 1.0,
    };
    let done = ((share * WIDTH as f64) as usize).min(WIDTH);
    let (good, dim, end) = (style.good, style.dim, style.end);
    format!(
        "  {good}{}{end}{dim}{}{end}",
        "━".repeat(done),
        "─".repeat(WIDTH - done)
    )
}

fn counters(progress: &Progress, style: Style) -> [String; 4] {
    let row = |name: &str, value: &str, note: &str| format!("  {name:<13} {value:>11}   {note}");
    let ms = |value: Option<f64>| value.map_or("–".to_owned(), |ms| format!("{ms:.1} ms"));
    let through = match progress.broker.as_str() {
        "embedded" => "real ones, through the embedded broker".to_owned(),
        address => format!("real ones, through {}", cut(address, 28)),
    };
    let rate = format!("{} a second", thousands(progress.rate().round() as u64));
    let history = history(&progress.bars);
    let mark = |count: u64| {
        if count > 0 {
            (style.bad, style.end)
        } else {
            ("", "")
        }
    };
    let (bad_dead, end_dead) = mark(progress.dead_letters);
    let (bad, end) = mark(progress.duplicated);
    let dead_letters = row(
        "dead letters",
        &thousands(progress.dead_letters),
        &format!(
            "{} to be answered, {bad}{} answered twice{end}",
            thousands(progress.lag),
            thousands(progress.duplicated)
        ),
    );
    [
        row("flights", &thousands(progress.events), &through),
        row(
            "predictions",
            &thousands(progress.predictions),
            &format!("{rate:<16} {}{history}{}", style.good, style.end),
        ),
        format!("{bad_dead}{dead_letters}{end_dead}"),
        row(
            "latency",
            &ms(progress.p50_ms),
            &format!("median; p99 {}", ms(progress.p99_ms)),
        ),
    ]
}

/// The answers of each half second as bars; the last one, which is not over, is left out.
fn history(bars: &[u64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let complete = bars.split_last().map_or(bars, |(_, complete)| complete);
    let shown = complete.iter().skip(complete.len().saturating_sub(HISTORY));
    let most = complete.iter().max().copied().unwrap_or(0).max(1);
    let block = |bar: &u64| {
        BLOCKS
            .get((bar * 7 / most) as usize)
            .copied()
            .unwrap_or('█')
    };
    shown.map(block).collect()
}

/// Two lines: the versions that answer, or that nothing has been answered yet.
fn versions(progress: &Progress, style: Style) -> [String; 2] {
    let line = |version: Option<&VersionProgress>, otherwise: &str| match version {
        Some(version) => version_line(version, progress.serving.as_deref(), style),
        None => format!("  {}{otherwise}{}", style.dim, style.end),
    };
    let first = progress.versions.first();
    let second = progress.versions.get(1..).and_then(<[_]>::last);
    let next = match (second, progress.duration) {
        (None, Some(duration)) => format!("a better version comes at {}", seconds(duration / 2)),
        _ => "a better version comes soon".to_owned(),
    };
    [
        line(first, "no version has answered yet"),
        line(second, &next),
    ]
}

fn version_line(version: &VersionProgress, serving: Option<&str>, style: Style) -> String {
    let serves = serving == Some(&version.version);
    let (on, end) = if serves {
        (style.good, style.end)
    } else {
        ("", "")
    };
    let auc = version
        .auc
        .map_or("  –  ".to_owned(), |auc| format!("{auc:.3}"));
    // From a coin's 0.5 to a perfect 1.0.
    let share = version
        .auc
        .map_or(0.0, |auc| (auc * 2.0 - 1.0).clamp(0.0, 1.0));
    let filled = (share * AUC_WIDTH as f64).round() as usize;
    let bar = format!("{}{}", "█".repeat(filled), "·".repeat(AUC_WIDTH - filled));
    let name = format!("version {}", cut(&version.version, 6));
    let events = thousands(version.events);
    let mark = if serves { "  ◀ serves" } else { "" };
    format!("  {on}{name:<13}   AUC {auc}   {bar} {events:>10}{mark}{end}")
}

fn swap_line(progress: &Progress, style: Style) -> String {
    let Some((swap, at)) = &progress.swap else {
        return String::new();
    };
    format!(
        "  {}deployed at {:.1} s; its first prediction came {:.0} ms later{}",
        style.dim,
        at.as_secs_f64(),
        swap.activated_after_ms,
        style.end
    )
}

fn footer(progress: &Progress, style: Style) -> String {
    let left = format!("http://{}/metrics  /models  /readyz", progress.http);
    let right = "Ctrl-C ends it";
    let gap = WIDTH.saturating_sub(left.chars().count() + right.chars().count());
    format!("  {}{left}{:gap$}{right}{}", style.dim, "", style.end)
}

/// At most `width` characters of `text`.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let short: String = text.chars().take(width.saturating_sub(1)).collect();
    short + "…"
}

/// A number with a comma between thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Swap;

    fn progress(versions: usize) -> Progress {
        let version = |n: usize| VersionProgress {
            version: n.to_string(),
            revision: n as i64,
            events: 12_345_678,
            auc: (n < 3).then_some(0.4 + 0.3 * n as f64),
        };
        let swap = Swap {
            from: "1".into(),
            to: "2".into(),
            revision: 1,
            activated_after_ms: 30_000.0,
        };
        Progress {
            elapsed: Duration::from_millis(12_345_600),
            duration: Some(Duration::from_millis(20_500)),
            broker: "a-broker-with-a-long-name.example.com:9092".into(),
            http: "127.0.0.1:65535".parse().unwrap(),
            model: "late-arrival".into(),
            events: 123_456_789,
            predictions: 123_456_789,
            dead_letters: 123_456_789,
            lag: 1_234_567,
            duplicated: 123_456,
            bars: (0..40).map(|n| n * 2_000).collect(),
            p50_ms: Some(12_345.6),
            p99_ms: Some(23_456.7),
            serving: Some("2".into()),
            versions: (1..=versions).map(version).collect(),
            swap: (versions > 1).then_some((swap, Duration::from_secs(10))),
        }
    }

    #[test]
    fn every_frame_has_the_same_height_and_fits() {
        let mut early = progress(0);
        early.bars.clear();
        early.p50_ms = None;
        early.serving = None;
        for progress in [early, progress(1), progress(2), progress(3)] {
            let lines = frame(&progress, false);
            assert_eq!(lines.len(), 13);
            for line in lines {
                assert!(line.chars().count() <= 79, "{line}");
            }
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let progress = progress(2);
        let mut coloured = frame(&progress, true).join("\n");
        for code in ["\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[1;31m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, frame(&progress, false).join("\n"));
    }

    #[test]
    fn numbers_are_readable() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(seconds(Duration::from_secs(20)), "20 s");
        assert_eq!(seconds(Duration::from_millis(2_500)), "2.5 s");
        assert_eq!(history(&[0, 50, 100, 3]), "▁▄█");
    }
}
