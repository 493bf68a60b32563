//! The command line in a test's world.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{World, models};
use crate::support::bin;

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "one line: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }
}

impl World {
    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        let config = self.config("cli");
        let mut command = Command::new(bin());
        command
            .arg("-c")
            .arg(config)
            .args(args)
            .stdin(Stdio::null());
        let out = command.output().unwrap();
        Done {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8(out.stdout).unwrap(),
            stderr: String::from_utf8(out.stderr).unwrap(),
        }
    }

    /// Publishes one of the flights models under `version`.
    pub fn publish(&self, flights: &str, version: &str) -> Done {
        let file = models().join(format!("{flights}.onnx"));
        let manifest = models().join(format!("{flights}.toml"));
        let (file, manifest) = (file.to_str().unwrap(), manifest.to_str().unwrap());
        self.publish_file(file, &["--manifest", manifest], "late-arrival", version)
    }

    pub fn publish_file(&self, file: &str, more: &[&str], model: &str, version: &str) -> Done {
        let mut args = vec![
            "model",
            "publish",
            file,
            "--model",
            model,
            "--version",
            version,
        ];
        args.extend(more);
        args.extend(["--output", "json"]);
        self.run(&args)
    }

    pub fn deploy(&self, version: &str) -> i64 {
        let done = self
            .run(&[
                "model",
                "deploy",
                "late-arrival",
                version,
                "--output",
                "json",
            ])
            .ok();
        done.json()["revision"]
            .as_i64()
            .unwrap_or_else(|| panic!("{done:?}"))
    }

    /// The status of the model as `model status --output json` gives it.
    pub fn status(&self) -> Value {
        self.run(&["model", "status", "late-arrival", "--output", "json"])
            .ok()
            .json()
    }
}
