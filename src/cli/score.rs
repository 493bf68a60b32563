//! `swapstream score`: events from stdin, predictions to stdout, one a line, in order. The same
//! decoding, inference and encoding as the service's.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Failure, draft, terminal};
use crate::codec::{InputRef, NonFiniteOutputs, encode_error};
use crate::model::{Contract, Digest};
use crate::runtime::{self, LoadLimits};
use crate::scorer::{Scorer, Tag};

/// Lines that are scored together.
const BATCH: usize = 256;

#[derive(Debug, Args)]
#[command(
    after_help = "Example: swapstream score --model models/flights/v2.onnx \\\n           \
    --manifest models/flights/v2.toml < models/flights/events-sample.jsonl"
)]
pub(super) struct ScoreArgs {
    /// The ONNX file.
    #[arg(long, value_name = "FILE.onnx")]
    model: PathBuf,
    /// Its manifest, TOML or JSON; default: the one inside the ONNX file, else each event gives
    /// each input by its name.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Event fields to copy into each prediction, comma-separated.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    include: Vec<String>,
    /// Print null for an output that is NaN or infinite, instead of an error line.
    #[arg(long)]
    non_finite_null: bool,
    /// Exit with 1 if any line failed.
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &ScoreArgs, config: Option<&Path>) -> Result<(), Failure> {
    super::prepare_offline(config)?;
    let file = args.model.display();
    let bytes =
        std::fs::read(&args.model).map_err(|error| Failure::Failed(format!("{file}: {error}")))?;
    let fail = |error: &dyn std::fmt::Display| Failure::Failed(format!("{file}: {error}"));
    let summary = runtime::metadata(&bytes).map_err(|e| fail(&e))?;
    let draft = draft::load(args.manifest.as_deref(), &summary)?;
    let kind = draft.runtime.unwrap_or_default();
    let compiled = runtime::load(&bytes, kind, LoadLimits::default()).map_err(|e| fail(&e))?;
    let contract = Contract::resolve(&draft.inputs, &draft.outputs, compiled.signature())
        .map_err(|e| fail(&e))?;
    let digest = Digest::of(&bytes);
    let tag = Tag {
        model: draft.model.as_ref(),
        version: None,
        digest: &digest,
        revision: None,
    };
    let non_finite = if args.non_finite_null {
        NonFiniteOutputs::Null
    } else {
        NonFiniteOutputs::Reject
    };
    let mut scorer = Scorer::new(
        Arc::clone(&compiled),
        &contract,
        tag,
        &args.include,
        non_finite,
    )
    .map_err(|e| fail(&e))?;
    let failed = score_all(&mut scorer)?;
    if failed > 0 && args.strict {
        return Err(Failure::Failed(format!("{failed} lines failed")));
    }
    Ok(())
}

/// Scores stdin; gives the number of lines that failed.
fn score_all(scorer: &mut Scorer) -> Result<u64, Failure> {
    let mut input = BufReader::with_capacity(1 << 16, std::io::stdin().lock());
    let mut output = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut lines = Lines {
        line: Vec::new(),
        number: 0,
    };
    let mut failed = 0;
    let mut text = Vec::new();
    loop {
        scorer.clear();
        let first = lines.number + 1;
        let mut more = true;
        while scorer.len() < BATCH && more {
            more = lines.read(&mut input)?;
            if more {
                scorer.push(Some(&lines.line));
            }
            // What is there is answered before more is waited for, so that it works as a filter.
            if input.buffer().is_empty() && !scorer.is_empty() {
                break;
            }
        }
        scorer.run();
        for index in 0..scorer.len() {
            let line = first + index as u64;
            text.clear();
            if let Err(error) = scorer.encode(index, InputRef::Line(line), &mut text) {
                failed += 1;
                text.extend_from_slice(encode_error(line, &error).as_bytes());
            }
            text.push(b'\n');
            terminal::written(output.write_all(&text))?;
        }
        terminal::written(output.flush())?;
        if !more {
            return Ok(failed);
        }
    }
}

struct Lines {
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Reads the next line, its end stripped; false at the end of the input.
    fn read(&mut self, input: &mut impl BufRead) -> Result<bool, Failure> {
        self.line.clear();
        let read = input.read_until(b'\n', &mut self.line);
        if read.map_err(|error| Failure::Failed(format!("reading stdin: {error}")))? == 0 {
            return Ok(false);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        self.number += 1;
        Ok(true)
    }
}
