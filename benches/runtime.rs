//! `cargo bench --bench runtime [-- NAME]`: our time for a batch against ONNX Runtime's, for every
//! kind of model; one thread, in one process, taking turns.
//!
//! Both sides do what a worker does: typed columns in, typed columns out. The models are those of
//! `models/bench` (see `make.py` there), or of the directory that `SWAPSTREAM_BENCH_MODELS` names,
//! with a `models.json` of the same form.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use swapstream::codec::{Columns, Values};
use swapstream::model::{RuntimeKind, TensorSpec};
use swapstream::runtime::{CompiledModel, LoadLimits, Runner, check_onnxruntime, load};

const BATCHES: [usize; 5] = [1, 8, 32, 128, 512];

/// Each side is timed this often; the median counts.
const ROUNDS: usize = 21;

/// What one timing takes at least: shorter runs are repeated on other rows.
const LEAST: Duration = Duration::from_micros(500);

/// Rows that batches are made of, at least and as a rule.
const LEAST_ROWS: usize = 1000;
const ROWS: usize = 2048;

/// The kinds of models, in the order of the summary.
const KINDS: [&str; 9] = [
    "boosted_binary",
    "boosted_regression",
    "boosted_unlimited_depth",
    "multiclass",
    "forest",
    "catboost",
    "linear",
    "pipeline",
    "net",
];

/// A line of the table.
struct Row {
    model: String,
    kind: String,
    batch: usize,
    ours_us: f64,
    ort_us: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts benchmarks without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    let folder = std::env::var_os("SWAPSTREAM_BENCH_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bench"),
        PathBuf::from,
    );
    let index = std::fs::read(folder.join("models.json")).unwrap_or_else(|error| {
        eprintln!(
            "{}/models.json: {error}\nto make the models: pip install -r \
             models/bench/requirements.txt && python models/bench/make.py",
            folder.display()
        );
        std::process::exit(1)
    });
    if let Err(error) = check_onnxruntime() {
        eprintln!("{error}");
        std::process::exit(1)
    }
    let index: Value = serde_json::from_slice(&index).unwrap();
    let mut table = Vec::new();
    println!(
        "{:<28} {:<24} {:>5} {:>11} {:>11} {:>6}",
        "model", "kind", "batch", "ours µs", "ort µs", "ratio"
    );
    for model in index["models"].as_array().unwrap() {
        let name = model["name"].as_str().unwrap();
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            compare(&folder, name, model, &mut table);
        }
    }
    summary(&table);
    write(&table);
}

/// Times one model at all batch sizes.
fn compare(folder: &Path, name: &str, model: &Value, table: &mut Vec<Row>) {
    let bytes = file(&folder.join(model["file"].as_str().unwrap()));
    let theirs = match load(&bytes, RuntimeKind::OnnxRuntime, LoadLimits::default()) {
        Ok(theirs) => theirs,
        Err(error) => return println!("{name:<28} ONNX Runtime refuses it: {error}"),
    };
    let ours = match load(&bytes, RuntimeKind::Tract, LoadLimits::default()) {
        Ok(ours) => ours,
        Err(error) => return println!("{name:<28} we refuse it: {error}"),
    };
    let specs = &theirs.signature().inputs;
    assert_eq!(specs, &ours.signature().inputs, "{name}");
    let rows = rows(folder, specs, model["rows"].as_array().unwrap());
    if let Some(difference) = difference(&*ours, &*theirs, &rows) {
        println!("{name:<28} the answers differ: {difference}");
    }
    for batch in BATCHES {
        let batches = batches(&rows, specs, batch);
        let sides = [&*ours, &*theirs].map(|model| Side::new(model, &batches));
        let [ours_us, ort_us] = medians(sides, &batches);
        let row = Row {
            model: name.to_owned(),
            kind: model["kind"].as_str().unwrap().to_owned(),
            batch,
            ours_us,
            ort_us,
        };
        println!(
            "{:<28} {:<24} {batch:>5} {ours_us:>11.2} {ort_us:>11.2} {:>6.2}",
            row.model,
            row.kind,
            ours_us / ort_us
        );
        table.push(row);
    }
}

/// One runtime with one model.
struct Side {
    runner: Box<dyn Runner>,
    outputs: Columns,
    next: usize,
    times: Vec<f64>,
}

impl Side {
    /// Runs every batch once, so that memory is there.
    fn new(model: &dyn CompiledModel, batches: &[Columns]) -> Self {
        let mut side = Self {
            runner: model.runner().unwrap(),
            outputs: Columns::new(&model.signature().outputs),
            next: 0,
            times: Vec::new(),
        };
        side.run(batches, batches.len());
        side
    }

    /// Runs the next `count` batches; gives the time for one.
    fn run(&mut self, batches: &[Columns], count: usize) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            let batch = &batches[self.next % batches.len()];
            self.runner.run(batch, &mut self.outputs).unwrap();
            self.next += 1;
        }
        start.elapsed() / u32::try_from(count).unwrap()
    }
}

/// Median times of both sides in microseconds, round by round in turns.
fn medians(mut sides: [Side; 2], batches: &[Columns]) -> [f64; 2] {
    let counts = sides.each_mut().map(|side| {
        let one = side.run(batches, batches.len().min(16));
        LEAST.as_nanos().div_ceil(one.as_nanos().max(1)) as usize
    });
    for _ in 0..ROUNDS {
        for (side, count) in sides.iter_mut().zip(counts) {
            let time = side.run(batches, count).as_secs_f64() * 1e6;
            side.times.push(time);
        }
    }
    sides.map(|mut side| {
        side.times.sort_by(f64::total_cmp);
        side.times[ROUNDS / 2]
    })
}

/// The rows cut into batches, all of them distinct; the last rows of a size that does not divide
/// their number are left out.
fn batches(rows: &Columns, specs: &[TensorSpec], batch: usize) -> Vec<Columns> {
    let cut = |start: usize| {
        let mut part = Columns::new(specs);
        for (to, from) in part.columns.iter_mut().zip(&rows.columns) {
            let range = start * from.row_len..(start + batch) * from.row_len;
            to.values.extend_from(&from.values, range);
        }
        part.rows = batch;
        part
    };
    (0..rows.rows / batch).map(|n| cut(n * batch)).collect()
}

/// Where the answers to some rows differ by more than 1e-4 and 1e-4 of the value.
fn difference(
    ours: &dyn CompiledModel,
    theirs: &dyn CompiledModel,
    rows: &Columns,
) -> Option<String> {
    let [a, b] = [ours, theirs].map(|model| {
        let mut outputs = Columns::new(&model.signature().outputs);
        model.runner().unwrap().run(rows, &mut outputs).unwrap();
        outputs
    });
    let specs = ours.signature().outputs.iter();
    let mut found = Vec::new();
    for ((spec, a), b) in specs.zip(&a.columns).zip(&b.columns) {
        let different = match (&a.values, &b.values) {
            (Values::Float(a), Values::Float(b)) => {
                let far = |(a, b): &(&f32, &f32)| (*a - *b).abs() > 1e-4 * b.abs().max(1.0);
                a.iter().zip(b).filter(far).count()
            }
            (Values::Int64(a), Values::Int64(b)) => a.iter().zip(b).filter(|(a, b)| a != b).count(),
            (a, b) => usize::from(a != b),
        };
        if different > 0 {
            found.push(format!("{different} values of {:?}", spec.name));
        }
    }
    (!found.is_empty()).then(|| found.join(", "))
}

/// The rows of the model's inputs; random ones where there is no file.
fn rows(folder: &Path, specs: &[TensorSpec], files: &[Value]) -> Columns {
    assert_eq!(specs.len(), files.len(), "a file of rows for each input");
    let mut columns = Columns::new(specs);
    for ((column, spec), name) in columns.columns.iter_mut().zip(specs).zip(files) {
        column.values = match name.as_str() {
            None => Values::Float(random(ROWS * spec.row_len())),
            Some(name) if name.contains(".json") => {
                Values::String(serde_json::from_slice(&file(&folder.join(name))).unwrap())
            }
            Some(name) => npy(&file(&folder.join(name))),
        };
        assert_eq!(column.values.element(), spec.element, "{}", spec.name);
        columns.rows = column.values.len() / column.row_len;
        assert!(columns.rows >= LEAST_ROWS, "{} has too few rows", spec.name);
    }
    columns
}

/// Uniform numbers with mean 0 and variance 1, the same on every run (`SplitMix64`).
fn random(count: usize) -> Vec<f32> {
    let mut state = 2013_u64;
    let next = |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 40) as f32 / (1_u32 << 24) as f32;
        (uniform - 0.5) * 12_f32.sqrt()
    };
    (0..count).map(next).collect()
}

/// The values of a `NumPy` file.
fn npy(bytes: &[u8]) -> Values {
    assert!(bytes.starts_with(b"\x93NUMPY\x01"), "not an .npy file");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = (&bytes[10..10 + header], &bytes[10 + header..]);
    let header = std::str::from_utf8(header).unwrap();
    assert!(header.contains("'fortran_order': False"), "{header}");
    if header.contains("'<f4'") {
        let values = data.chunks_exact(4).map(|b| b.try_into().unwrap());
        Values::Float(values.map(f32::from_le_bytes).collect())
    } else if header.contains("'<i8'") {
        let values = data.chunks_exact(8).map(|b| b.try_into().unwrap());
        Values::Int64(values.map(i64::from_le_bytes).collect())
    } else {
        panic!("not supported: {header}")
    }
}

/// A file's content, unpacked if it is gzipped.
fn file(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut unpacked = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(&*bytes);
    decoder.read_to_end(&mut unpacked).unwrap();
    unpacked
}

/// The ratios as geometric means, kind by kind.
fn summary(table: &[Row]) {
    println!("\nour time / ONNX Runtime's by batch size, geometric means:\n");
    println!("| kind | 1 | 8 | 32 | 128 | 512 |\n|---|---|---|---|---|---|");
    for kind in KINDS {
        let mean = |batch| {
            let rows = table.iter().filter(|r| r.kind == kind && r.batch == batch);
            let logs: Vec<f64> = rows.map(|r| (r.ours_us / r.ort_us).ln()).collect();
            let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
            if logs.is_empty() {
                "–".to_owned()
            } else {
                format!("{mean:.2}")
            }
        };
        println!("| {kind} | {} |", BATCHES.map(mean).join(" | "));
    }
}

/// Writes `bench/runtime.json` into the target directory.
fn write(table: &[Row]) {
    let round = |us: f64| (us * 1000.0).round() / 1000.0;
    let rows = table.iter().map(|row| {
        json!({
            "model": row.model,
            "kind": row.kind,
            "batch": row.batch,
            "ours_us": round(row.ours_us),
            "ort_us": round(row.ort_us),
            "ratio": (row.ours_us / row.ort_us * 1e4).round() / 1e4,
        })
    });
    let rows: Vec<Value> = rows.collect();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("bench/runtime.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, json!({ "rows": rows }).to_string() + "\n").unwrap();
    println!("\nwritten to {}", path.display());
}
