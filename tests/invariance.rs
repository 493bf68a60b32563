//! A row's bits do not depend on its batch: for every model of the project that loads, 200 rows
//! alone and in batches of 2 to 512 at random positions.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test reports"
)]

#[path = "support/trees.rs"]
#[allow(dead_code, reason = "its random numbers are all that is needed")]
mod trees;

use std::io::Read;
use std::path::{Path, PathBuf};

use swapstream::codec::{Columns, Values};
use swapstream::model::{RuntimeKind, TensorSpec};
use swapstream::runtime::{CompiledModel, LoadLimits, Runner, load};
use trees::Random;

const ROWS: usize = 200;
const BATCHES: [usize; 19] = [
    2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 127, 129, 200, 511, 512,
];

/// Models whose rows do depend on their batch, and why.
const EXCEPTIONS: [(&str, &str); 1] =
    [("mixing.onnx", "it adds the mean of the batch to each row")];

/// Files of these folders that are no models, or that are refused, are passed over; but so many
/// are to be tried at least.
const LEAST: usize = 45;

fn models() -> Vec<PathBuf> {
    let folders = ["tests/fixtures", "models/bench", "models/flights"];
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
        })
        .filter(|path| path.to_string_lossy().contains(".onnx"))
        .collect();
    files.sort();
    files
}

fn bytes(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if path.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*bytes)
        .read_to_end(&mut unpacked)
        .unwrap();
    unpacked
}

/// Made-up rows: what the inputs of all models take.
fn rows(specs: &[TensorSpec], random: &mut Random) -> Vec<Columns> {
    let one = |_| {
        let mut row = Columns::new(specs);
        row.rows = 1;
        for column in &mut row.columns {
            let len = column.row_len;
            let mut float = || match random.below(50) {
                0 => 0.0,
                n => (n as f32 - 25.0) * (random.below(1000) as f32 + 1.0) / 3000.0,
            };
            match &mut column.values {
                Values::Float(v) => v.extend((0..len).map(|_| float())),
                Values::Double(v) => v.extend((0..len).map(|_| f64::from(float()))),
                Values::Int64(v) => v.extend((0..len).map(|_| random.below(2) as i64)),
                Values::Int32(v) => v.extend((0..len).map(|_| random.below(2) as i32)),
                Values::String(v) => {
                    let words = ["DE", "SE", "red", "blue", "UA", "EWR", "a", "b"];
                    v.extend((0..len).map(|_| words[random.below(words.len())].to_owned()));
                }
                Values::Bool(v) => v.extend((0..len).map(|_| random.below(2) == 1)),
                other => panic!("no model has inputs of {other:?}"),
            }
        }
        row
    };
    (0..ROWS).map(one).collect()
}

fn run(runner: &mut dyn Runner, model: &dyn CompiledModel, inputs: &Columns) -> Option<Columns> {
    let mut outputs = Columns::new(&model.signature().outputs);
    runner.run(inputs, &mut outputs).ok()?;
    Some(outputs)
}

/// The values of a row as text, which has all their bits; any NaN is as good as another.
fn bits(outputs: &Columns, row: usize) -> Vec<String> {
    let row = outputs.row(row);
    let values = row.columns.iter().map(|column| &column.values);
    values.map(|values| format!("{values:?}")).collect()
}

/// What of a model depends on the batch; `None` where no row can be run.
fn differences(model: &dyn CompiledModel) -> Option<Vec<String>> {
    let mut random = Random(7);
    let mut runner = model.runner().unwrap();
    let rows: Vec<(Columns, Vec<String>)> = rows(&model.signature().inputs, &mut random)
        .into_iter()
        .filter_map(|row| {
            let alone = run(&mut *runner, model, &row)?;
            Some((row, bits(&alone, 0)))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for size in BATCHES {
        let picks: Vec<usize> = (0..size).map(|_| random.below(rows.len())).collect();
        let mut batch = Columns::new(&model.signature().inputs);
        for pick in &picks {
            batch.append(&rows[*pick].0);
        }
        let Some(together) = run(&mut *runner, model, &batch) else {
            found.push(format!("a batch of {size} fails"));
            continue;
        };
        let other = picks
            .iter()
            .enumerate()
            .filter(|(position, pick)| bits(&together, *position) != rows[**pick].1);
        let other = other.count();
        if other > 0 {
            found.push(format!("{other} rows of a batch of {size}"));
        }
    }
    Some(found)
}

#[test]
fn no_row_depends_on_its_batch() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for path in models() {
        let Ok(model) = load(&bytes(&path), RuntimeKind::Tract, LoadLimits::default()) else {
            continue;
        };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let exception = EXCEPTIONS.iter().any(|(exception, _)| *exception == name);
        if model.info().batch_invariant == exception {
            wrong.push(format!("{name}: batch_invariant is {}", !exception));
        }
        match differences(&*model) {
            None => wrong.push(format!("{name}: no row can be run")),
            Some(found) if found.is_empty() == exception => {
                wrong.push(format!("{name}: {found:?}"));
            }
            Some(_) => tried += 1,
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried >= LEAST, "only {tried} models were tried");
}
