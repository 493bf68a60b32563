//! `swapstream run`: the service.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Failure;
use crate::app::{App, AppOptions};
use crate::config::{Config, environment};

pub(super) fn run(path: Option<&Path>) -> Result<(), Failure> {
    let (config, source) =
        Config::load(path, environment()).map_err(|errors| Failure::Usage(errors.to_string()))?;
    super::start_logs(&config.log)?;
    open_as_many_files_as_allowed();
    let streams: Vec<&str> = config
        .streams
        .iter()
        .map(|stream| stream.name.as_str())
        .collect();
    tracing::info!(
        "swapstream {} starts: configuration from {source}, streams {}",
        env!("CARGO_PKG_VERSION"),
        streams.join(", ")
    );
    let options = AppOptions {
        probe_models: true,
        ..AppOptions::default()
    };
    let app = App::start(&config, options).map_err(Failure::failed)?;
    tracing::info!(
        "instance {} listens on http://{}",
        app.instance_id(),
        app.http_address()
    );
    let signal = app.wait_for_signal().map_err(Failure::failed)?;
    tracing::info!("{signal}: draining");
    app.stop();
    Ok(())
}

/// Every worker's clients hold sockets and pipes: with a stream for each of a hundred models, the
/// limit that most systems begin with is over. A program may raise it, as far as the system allows.
fn open_as_many_files_as_allowed() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(
            "the limit of open files stays at {:?}: {error}",
            limit.current
        );
    }
}
