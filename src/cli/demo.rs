//! `swapstream demo`: everything in one process, with a swap mid-stream.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use super::{Failure, Output, terminal};
use crate::demo::{
    self, DEFAULT_RATE, DemoError, DemoOptions, Outcome, Report, Started, Swap, frame, thousands,
};
use crate::telemetry::LogSettings;

/// The swap comes at half time, and takes a moment to show.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_hours(24);

#[derive(Debug, Args)]
#[command(after_help = "\
Real flights (the sample begins anew after 53,991) go through the whole service: a broker, a \
model in its registry, workers, HTTP endpoints. At half time a better version is deployed. What \
is lost or answered twice is counted from the output topics, event by event.\n\n\
The embedded broker is a stand-in that keeps nothing. With --bootstrap-servers the same runs on \
your own Kafka, in topics of its own that are deleted at the end. Client properties come from the \
environment: SWAPSTREAM__KAFKA__CLIENT__SECURITY_PROTOCOL=SASL_SSL and so on.\n\n\
Exit code 1 if anything was lost or answered twice, or if no swap was seen.")]
pub(super) struct DemoArgs {
    /// How long events are fed, at least 2s; the swap comes at half time.
    #[arg(long, value_name = "D", default_value = "20s", value_parser = duration)]
    duration: Duration,
    /// Events a second. The feed waits while 2 MiB of a partition's events are unanswered.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RATE,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// A real broker instead of the embedded one.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_servers: Option<String>,
    /// Go on until Ctrl-C, for a look at the HTTP endpoints; topics on a real broker stay.
    #[arg(long)]
    keep_running: bool,
    /// Where HTTP listens; default: 127.0.0.1:9464, or a free port where that is taken.
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// `json` prints one line, one object, at the end.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (SHORTEST..=LONGEST).contains(&duration) {
        Ok(duration)
    } else {
        Err("expected 2s to 24h".to_owned())
    }
}

pub(super) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let settings = LogSettings {
        level: "error".to_owned(),
        ..LogSettings::default()
    };
    super::start_logs(&settings)?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop)).map_err(Failure::failed)?;
    let client = crate::config::environment()
        .filter(|(name, _)| name.starts_with("SWAPSTREAM__KAFKA__CLIENT"))
        .collect();
    let mut screen = Screen::new(args.output);
    let options = DemoOptions {
        duration: args.duration,
        rate: args.rate,
        bootstrap_servers: args.bootstrap_servers.clone(),
        keep_running: args.keep_running,
        http: args.http,
        client_environment: client,
        watched: screen.live,
    };
    let done = demo::run(&options, &stop, &mut |report| {
        screen.show(&report, &options);
    });
    screen.clear();
    screen.printed?;
    let outcome = done.map_err(|error| match error {
        DemoError::Configuration(_) => Failure::Usage(error.to_string()),
        error => Failure::failed(error),
    })?;
    finish(&outcome, args.output)
}

fn finish(outcome: &Outcome, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => {
            terminal::line(&serde_json::to_string(&outcome.summary).map_err(Failure::failed)?)?;
        }
        Output::Text => terminal::line(&format!("\n{}", outcome.text().trim_end()))?,
    }
    if outcome.problems.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(outcome.problems.join("\nerror: ")))
}

/// The first signal asks the demo to end, a second one ends the process.
fn stop_on_signal(stop: Arc<AtomicBool>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let served: std::io::Result<()> = runtime.block_on(async {
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                loop {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    if stop.swap(true, Ordering::Relaxed) {
                        #[expect(clippy::exit, reason = "asked for twice; the demo keeps nothing")]
                        std::process::exit(130);
                    }
                }
            });
            if let Err(error) = served {
                tracing::error!("signals are not served: {error}");
            }
        })?;
    Ok(())
}

/// What is seen while the demo runs: a live block on a terminal, else a few lines.
struct Screen {
    output: Output,
    live: bool,
    colour: bool,
    /// The block that stands on the terminal.
    drawn: Vec<String>,
    /// How printing to stdout went.
    printed: Result<(), Failure>,
}

impl Screen {
    fn new(output: Output) -> Self {
        let term = std::env::var("TERM").unwrap_or_default();
        let live = std::io::stderr().is_terminal() && !matches!(term.as_str(), "" | "dumb");
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            output,
            live,
            colour,
            drawn: Vec::new(),
            printed: Ok(()),
        }
    }

    fn show(&mut self, report: &Report<'_>, options: &DemoOptions) {
        match report {
            Report::Step(step) if self.live => self.draw_step(step),
            Report::Progress(progress) if self.live => self.draw(frame(progress, self.colour)),
            Report::Started(started) if !self.live => self.print(&start_line(started, options)),
            Report::Swapped(swap) if !self.live => self.print(&swap_line(swap)),
            Report::Note(note) => {
                self.clear();
                terminal::note(note);
            }
            Report::Step(_) | Report::Progress(_) | Report::Started(_) | Report::Swapped(_) => {}
        }
    }

    /// Prints to stdout what is for people only.
    fn print(&mut self, line: &str) {
        if self.output == Output::Text && self.printed.is_ok() {
            self.printed = terminal::line(line);
        }
    }

    /// Shows what is being done: alone, or under the last numbers while the demo ends.
    fn draw_step(&mut self, step: &str) {
        let mut lines = self.drawn.clone();
        lines.pop();
        lines.push(format!("  {step} …"));
        self.draw(lines);
    }

    /// Draws the block over the one before. Lines are not wrapped, so that a narrow terminal cuts
    /// them and the height stays.
    fn draw(&mut self, lines: Vec<String>) {
        let mut text = self.up();
        text.push_str("\x1b[?7l");
        for line in &lines {
            text.push_str("\x1b[2K");
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\x1b[J\x1b[?7h");
        self.drawn = lines;
        write_terminal(&text);
    }

    fn clear(&mut self) {
        if !self.drawn.is_empty() {
            write_terminal(&(self.up() + "\x1b[J"));
            self.drawn.clear();
        }
    }

    fn up(&self) -> String {
        match self.drawn.len() {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r"),
        }
    }
}

/// A terminal that is gone takes nothing away from the demo.
fn write_terminal(text: &str) {
    let mut terminal = std::io::stderr().lock();
    drop(
        terminal
            .write_all(text.as_bytes())
            .and_then(|()| terminal.flush()),
    );
}

fn start_line(started: &Started, options: &DemoOptions) -> String {
    let through = match started.broker.as_str() {
        "embedded" => "the embedded broker".to_owned(),
        address => format!("{address}, topic {}", started.input_topic),
    };
    let time = if options.keep_running {
        "until Ctrl-C".to_owned()
    } else {
        format!("for {}", humantime::format_duration(options.duration))
    };
    let (rate, http) = (thousands(u64::from(options.rate)), started.http);
    format!(
        "{rate} real flights a second {time} through {through}\n\
         http://{http}/metrics  http://{http}/models  http://{http}/readyz"
    )
}

fn swap_line(swap: &Swap) -> String {
    format!(
        "version {} answers, {:.0} ms after it was deployed (revision {})",
        swap.to, swap.activated_after_ms, swap.revision
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_limits() {
        assert_eq!(duration("6s"), Ok(Duration::from_secs(6)));
        for bad in ["", "1s", "25h", "20"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
