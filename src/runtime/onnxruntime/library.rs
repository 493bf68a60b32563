//! Finds ONNX Runtime's shared library and loads it, once for the process; why it is not there is
//! kept as well.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;

use super::super::{LoadError, one_line, panics};

/// The variable that names the library, ONNX Runtime's own convention.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Asks Python where its wheel lies, without importing it. The working directory is not searched:
/// what lies there is not installed.
const ASK_PYTHON: &str = "\
import glob, importlib.util, os, sys
sys.path = [entry for entry in sys.path if entry]
spec = importlib.util.find_spec('onnxruntime')
for folder in (spec and spec.submodule_search_locations) or []:
    for name in ('libonnxruntime.so*', 'libonnxruntime*.dylib'):
        for path in sorted(glob.glob(os.path.join(folder, 'capi', name))):
            print(path)
";

static CONFIGURED: OnceLock<PathBuf> = OnceLock::new();
/// The library that is loaded, or why none is.
static LOADED: OnceLock<Result<Environment, String>> = OnceLock::new();

/// Where the library lies by configuration. The first call counts, and only before a model has
/// asked for the library.
pub(in super::super) fn configure(path: PathBuf) {
    if CONFIGURED.set(path).is_err() {
        tracing::debug!("the path of ONNX Runtime's library was set before");
    }
}

/// The loaded library; loads it if this is the first call.
pub(super) fn environment() -> Result<&'static Environment, LoadError> {
    match LOADED.get_or_init(load) {
        Ok(environment) => Ok(environment),
        Err(why) => Err(LoadError::new(why.clone())),
    }
}

fn load() -> Result<Environment, String> {
    let path = find(std::env::var_os(VARIABLE), CONFIGURED.get(), wheel)?;
    let start = panics::catch(|| start(&path));
    let environment = start.unwrap_or_else(|panic| {
        let place = path.display();
        Err(format!("ONNX Runtime at {place} cannot be used: {panic}"))
    })?;
    tracing::info!("loaded ONNX Runtime from {}", path.display());
    Ok(environment)
}

/// Where the library lies: by the variable, else by configuration, else in Python's wheel.
fn find(
    variable: Option<OsString>,
    configured: Option<&PathBuf>,
    wheel: impl FnOnce() -> Option<PathBuf>,
) -> Result<PathBuf, String> {
    let named = variable
        .filter(|path| !path.is_empty())
        .map(|path| (VARIABLE, PathBuf::from(path)))
        .or_else(|| Some(("runtime.onnxruntime_library", configured?.clone())));
    match named {
        // A bare name is left to the system's search for libraries.
        Some((_, path)) if path.components().count() == 1 && !path.exists() => Ok(path),
        Some((name, path)) => std::path::absolute(&path)
            .ok()
            .filter(|path| path.is_file())
            .ok_or_else(|| {
                let path = path.display();
                format!("{name} names {path}, which is no file: it must be ONNX Runtime's library")
            }),
        None => wheel().ok_or_else(|| {
            format!(
                "ONNX Runtime is not installed: `pip install onnxruntime` (1.19 or newer) where \
                 `python3` finds it, or set {VARIABLE} or runtime.onnxruntime_library to its \
                 shared library (libonnxruntime.so, 1.{} or newer)",
                ort::MINOR_VERSION
            )
        }),
    }
}

/// The library inside an installed Python wheel; older ones than 1.19 have none.
fn wheel() -> Option<PathBuf> {
    let asked = Command::new("python3")
        .args(["-c", ASK_PYTHON])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let answer = String::from_utf8(asked.ok()?.stdout).ok()?;
    answer.lines().next().map(PathBuf::from)
}

fn start(path: &Path) -> Result<Environment, String> {
    let builder = ort::init_from(path).map_err(|error| match error {
        LoadDynamicError::BadVersion { version_str, path } => format!(
            "ONNX Runtime at {} is version {version_str}, 1.{} or newer is needed",
            path.display(),
            ort::MINOR_VERSION
        ),
        error => one_line(&format!("ONNX Runtime cannot be loaded: {error}")),
    })?;
    let environment = builder
        .with_name("swapstream")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| one_line(&format!("ONNX Runtime does not start: {error}")))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// Its warnings are about graphs, for those who look into one; errors come back as results, too.
fn log(level: LogLevel, _category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::warn!(place, "onnxruntime: {message}"),
        _ => tracing::debug!(place, "onnxruntime: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_configuration_and_configuration_over_the_wheel() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let (one, two, three) = (
            here.join("Cargo.toml"),
            here.join("Cargo.lock"),
            here.join("LICENSE"),
        );
        let wheel = || Some(three.clone());
        let variable = Some(one.clone().into_os_string());
        assert_eq!(find(variable.clone(), Some(&two), wheel), Ok(one));
        assert_eq!(find(None, Some(&two), wheel), Ok(two.clone()));
        assert_eq!(find(Some(OsString::new()), None, wheel), Ok(three.clone()));
        assert_eq!(
            find(None, Some(&PathBuf::from("libonnxruntime.so.1")), wheel),
            Ok(PathBuf::from("libonnxruntime.so.1"))
        );
        // What is named must be there: nothing else is taken instead.
        let missing = here.join("no/such/library.so");
        let error = find(Some(missing.into_os_string()), Some(&two), wheel).unwrap_err();
        assert!(
            error.starts_with("ORT_DYLIB_PATH names ") && error.contains("no file"),
            "{error}"
        );
        let error = find(None, Some(&here), wheel).unwrap_err();
        assert!(error.starts_with("runtime.onnxruntime_library"), "{error}");
        let error = find(None, None, || None).unwrap_err();
        assert!(error.contains("pip install onnxruntime"), "{error}");
    }
}
