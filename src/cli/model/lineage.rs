//! What `model publish` can know about a version by itself: the commit of the code around it, the
//! user, the time, and what the ONNX file says. Only what the draft leaves out is filled in.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::Value;

use crate::model::{Code, Lineage};
use crate::registry::rfc3339;
use crate::runtime::{OnnxDim, OnnxSummary, OnnxValue};

/// Fills in what `lineage` leaves out; `directory` is where the code is looked for.
pub(super) fn fill(lineage: &mut Lineage, summary: &OnnxSummary, directory: &Path) {
    if lineage.code.is_none() {
        lineage.code = code(directory);
    }
    if lineage.author.is_none() {
        lineage.author = user();
    }
    if lineage.created_at.is_none() {
        lineage.created_at = Some(rfc3339(SystemTime::now()));
    }
    if lineage.onnx_producer.is_none() && !summary.producer.is_empty() {
        lineage.onnx_producer = Some(summary.producer.clone());
    }
    if lineage.opsets.is_empty() {
        let opsets = summary.opsets.iter();
        lineage.opsets = opsets.map(|(k, v)| (k.clone(), Value::from(*v))).collect();
    }
    for (known, tensors) in [
        (&mut lineage.onnx_inputs, &summary.inputs),
        (&mut lineage.onnx_outputs, &summary.outputs),
    ] {
        if known.is_empty() {
            *known = tensors.iter().map(declared).collect();
        }
    }
}

/// A tensor as the file declares it: `float[N,3]`.
fn declared(tensor: &OnnxValue) -> (String, Value) {
    let element = tensor.element.as_deref().unwrap_or("no tensor");
    let axes = tensor.shape.as_ref().map(|axes| {
        let one = |dim: &OnnxDim| match dim {
            OnnxDim::Fixed(length) => length.to_string(),
            OnnxDim::Symbol(name) => name.clone(),
            OnnxDim::Unknown => "?".to_owned(),
        };
        let axes: Vec<String> = axes.iter().map(one).collect();
        format!("[{}]", axes.join(","))
    });
    let text = format!("{element}{}", axes.unwrap_or_default());
    (tensor.name.clone(), Value::from(text))
}

/// The user of this process.
pub(in crate::cli) fn user() -> Option<String> {
    ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
}

/// The commit that is checked out in `directory`, if that is in a git work tree and git is there.
fn code(directory: &Path) -> Option<Code> {
    let commit = git(directory, &["rev-parse", "HEAD"])?;
    let repository = git(directory, &["config", "--get", "remote.origin.url"])
        .map(without_credentials)
        .or_else(|| git(directory, &["rev-parse", "--show-toplevel"]))?;
    // What git does not track is no change to the commit.
    let changes = git(
        directory,
        &["status", "--porcelain", "--untracked-files=no"],
    );
    Some(Code {
        repository,
        commit: Some(commit),
        dirty: changes.map(|changes| !changes.is_empty()),
    })
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        // Reading must not take locks that the user's own git would trip over.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// `https://user:secret@host/…` without what lies before the host.
fn without_credentials(url: String) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split('/').next().unwrap_or_default();
            match authority.rsplit_once('@') {
                Some((secret, _)) => {
                    let rest = rest.get(secret.len() + 1..).unwrap_or_default();
                    format!("{scheme}://{rest}")
                }
                None => url,
            }
        }
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_remote_stays_out_of_the_manifest() {
        for (url, safe) in [
            ("https://u:p@host/a@b", "https://host/a@b"),
            ("https://host/a@b", "https://host/a@b"),
            ("git@host:a/b.git", "git@host:a/b.git"),
            ("/srv/git/a", "/srv/git/a"),
        ] {
            assert_eq!(without_credentials(url.to_owned()), safe);
        }
    }

    #[test]
    fn what_the_draft_says_stays() {
        let summary = OnnxSummary {
            ir_version: 8,
            producer: "torch 2".to_owned(),
            opsets: [("ai.onnx".to_owned(), 17)].into(),
            inputs: vec![OnnxValue {
                name: "x".to_owned(),
                element: Some("float".to_owned()),
                shape: Some(vec![
                    OnnxDim::Symbol("N".to_owned()),
                    OnnxDim::Fixed(3),
                    OnnxDim::Unknown,
                ]),
            }],
            outputs: Vec::new(),
            operators: Vec::new(),
            initialiser_bytes: 0,
            metadata_props: [].into(),
        };
        let mut lineage = Lineage {
            author: Some("ann".to_owned()),
            ..Lineage::default()
        };
        let directory = tempfile::tempdir().unwrap();
        fill(&mut lineage, &summary, directory.path());
        assert_eq!(lineage.author.as_deref(), Some("ann"));
        assert_eq!(lineage.onnx_producer.as_deref(), Some("torch 2"));
        assert_eq!(lineage.opsets["ai.onnx"], 17);
        assert_eq!(lineage.onnx_inputs["x"], "float[N,3,?]");
        assert!(lineage.created_at.is_some());
    }
}
