//! Printing. A reader that goes away (`| head`) ends the program quietly, as it does for `cat`.
#![allow(clippy::print_stderr, reason = "this is where the program prints")]

use std::io::{IsTerminal, Write};

use super::Failure;

/// Prints one line to stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    written(
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n")),
    )
}

/// Turns what writing to stdout gave into what the command gives.
pub(crate) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::Silent),
        Err(error) => Err(Failure::Failed(format!("writing to stdout: {error}"))),
    }
}

/// Prints an error to stderr.
pub(crate) fn error(message: &str) {
    eprintln!("error: {message}");
}

/// Prints a note to stderr.
pub(crate) fn note(message: &str) {
    eprintln!("{message}");
}

/// Whether people watch: progress and live views are for them only.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
