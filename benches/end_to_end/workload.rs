//! The workloads: a model, its manifest, and the events that it scores.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::models;
use super::random::Random;

/// How an event holds the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One field for each feature.
    Features,
    /// One field with an array.
    Array,
    /// One field with a string of numbers and commas.
    Separated,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Array => "array",
            Self::Separated => "separated",
        }
    }
}

/// A model with its events.
#[derive(Debug)]
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub format: Format,
    /// Fields that the model reads.
    pub features: Vec<String>,
    /// Fields that predictions repeat.
    pub include: &'static [&'static str],
    pub model: PathBuf,
    pub manifest: PathBuf,
    /// Keys and events, used in turns.
    pub events: Vec<(Vec<u8>, Vec<u8>)>,
    /// Compression of inputs and outputs, the same for all processors.
    pub compression: &'static str,
    /// Events that the input topic holds in a full run.
    pub records: usize,
}

/// Names of all workloads.
pub const NAMES: [&str; 5] = ["tabular", "crayfish", "crayfish_array", "wide", "heavy"];

impl Workload {
    /// Makes the workload `name`; its files go into `folder`.
    pub fn new(name: &str, folder: &Path) -> Self {
        match name {
            "tabular" => tabular(folder),
            "crayfish" => crayfish(folder, Format::Separated),
            "crayfish_array" => crayfish(folder, Format::Array),
            "wide" => wide(folder),
            "heavy" => heavy(folder),
            other => panic!("no workload {other:?}: there are {NAMES:?}"),
        }
    }

    /// Mean size of an event in bytes.
    pub fn event_bytes(&self) -> usize {
        self.events.iter().map(|(_, e)| e.len()).sum::<usize>() / self.events.len()
    }
}

fn store(folder: &Path, name: &str, model: &[u8], manifest: &str) -> (PathBuf, PathBuf) {
    let (onnx, toml) = (
        folder.join(format!("{name}.onnx")),
        folder.join(format!("{name}.toml")),
    );
    std::fs::write(&onnx, model).unwrap();
    std::fs::write(&toml, manifest).unwrap();
    (onnx, toml)
}

/// What `models/bench/make.py` calls the columns of `flights.npy.gz`.
const FLIGHT_FEATURES: [&str; 20] = [
    "month",
    "day",
    "weekday",
    "sched_dep_minute",
    "sched_arr_minute",
    "dep_delay_minutes",
    "distance_miles",
    "flight",
    "carrier_id",
    "origin_id",
    "dest_id",
    "hour",
    "temp_f",
    "dewpoint_f",
    "humidity_pct",
    "wind_dir_deg",
    "wind_mph",
    "wind_gust_mph",
    "precip_in",
    "pressure_mb",
];

/// The last column.
const LAST_FLIGHT_FEATURE: &str = "visibility_mi";

fn tabular(folder: &Path) -> Workload {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bench");
    let model = unpack(&bench.join("lgbm100_binary.onnx.gz"));
    let (width, values) = npy(&unpack(&bench.join("flights.npy.gz")));
    let mut features: Vec<String> = FLIGHT_FEATURES.map(str::to_owned).to_vec();
    features.push(LAST_FLIGHT_FEATURE.to_owned());
    assert_eq!(width, features.len(), "columns of flights.npy.gz");
    let manifest = format!(
        "[[inputs]]\nname = \"x\"\nfeatures = {}\n",
        serde_json::to_string(&features).unwrap()
    );
    let (model, manifest) = store(folder, "tabular", &model, &manifest);
    let events = values.chunks_exact(width).enumerate().map(|(number, row)| {
        let id = format!("{:04}-2013-{:02}-{:02}-{number}", row[7], row[0], row[1]);
        let mut event = format!("{{\"flight_id\":\"{id}\"");
        for (name, value) in features.iter().zip(row) {
            let value = if value.is_nan() {
                Value::Null
            } else if value.fract() == 0.0 {
                json!(*value as i64)
            } else {
                json!(value)
            };
            write!(event, ",\"{name}\":{value}").unwrap();
        }
        event.push_str(",\"arrived_late\":false}");
        (id.into_bytes(), event.into_bytes())
    });
    Workload {
        name: "tabular",
        about: "flights, 21 features of a JSON object; LightGBM, 100 trees",
        format: Format::Features,
        events: events.collect(),
        features,
        include: &["flight_id"],
        model,
        manifest,
        compression: "lz4",
        records: 3_000_000,
    }
}

const CRAYFISH_FIELDS: &[&str] = &[
    "creationTimestamp",
    "dataPointSz1",
    "dataPointSz2",
    "dataPoint",
];

fn crayfish(folder: &Path, format: Format) -> Workload {
    let (name, about, separator) = if format == Format::Array {
        (
            "crayfish_array",
            "Crayfish's dense net, 784 numbers in a JSON array, repeated in the output",
            "",
        )
    } else {
        (
            "crayfish",
            "Crayfish's dense net, 784 numbers in one string, repeated in the output",
            "separator = \",\"\n",
        )
    };
    let manifest = format!("[[inputs]]\nname = \"dataPoint\"\n{separator}");
    let (model, manifest) = store(folder, name, &models::crayfish(), &manifest);
    let mut random = Random::new(4);
    let events = (0..512).map(|number| {
        let numbers: Vec<String> = (0..784).map(|_| random.next().to_string()).collect();
        let mut point = numbers.join(",");
        point = if format == Format::Array {
            format!("[{point}]")
        } else {
            format!("\"{point},\"")
        };
        let event = format!(
            "{{\"creationTimestamp\":{},\"dataPointSz1\":1,\"dataPointSz2\":784,\"dataPoint\":{point},\
             \"prediction\":null}}",
            1_700_000_000_000_u64 + number
        );
        let key = (number as u32).wrapping_mul(2_654_435_761).to_string();
        (key.into_bytes(), event.into_bytes())
    });
    Workload {
        name,
        about,
        format,
        events: events.collect(),
        features: vec!["dataPoint".to_owned()],
        include: CRAYFISH_FIELDS,
        model,
        manifest,
        // Kafka's default, which Crayfish leaves as it is.
        compression: "none",
        records: 200_000,
    }
}

fn wide(folder: &Path) -> Workload {
    let features: Vec<String> = (0..models::WIDE_FEATURES)
        .map(|n| format!("f{n:03}"))
        .collect();
    let manifest = format!(
        "[[inputs]]\nname = \"features\"\nfeatures = {}\n",
        serde_json::to_string(&features).unwrap()
    );
    let (model, manifest) = store(folder, "wide", &models::wide(), &manifest);
    let mut random = Random::new(5);
    let events = (0..1024).map(|number| {
        let mut event = format!("{{\"id\":\"w-{number}\"");
        for name in &features {
            let value = (random.next() * 10_000.0).round() / 100.0;
            write!(event, ",\"{name}\":{value}").unwrap();
        }
        event.push('}');
        (format!("w-{number}").into_bytes(), event.into_bytes())
    });
    Workload {
        name: "wide",
        about: "200 numeric features; 500 trees of 31 leaves",
        format: Format::Features,
        events: events.collect(),
        features,
        include: &["id"],
        model,
        manifest,
        compression: "lz4",
        records: 600_000,
    }
}

fn heavy(folder: &Path) -> Workload {
    let manifest = "[[inputs]]\nname = \"pixels\"\n";
    let (model, manifest) = store(folder, "heavy", &models::heavy(), manifest);
    let mut random = Random::new(6);
    let events = (0..256).map(|number| {
        let pixels: Vec<String> = (0..784)
            .map(|_| ((random.next() * 256.0) as u8).to_string())
            .collect();
        let event = format!(
            "{{\"id\":\"h-{number}\",\"pixels\":[{}]}}",
            pixels.join(",")
        );
        (format!("h-{number}").into_bytes(), event.into_bytes())
    });
    Workload {
        name: "heavy",
        about: "28 × 28 pixels; 18 convolutions, 116 million multiplications an event",
        format: Format::Array,
        events: events.collect(),
        features: vec!["pixels".to_owned()],
        include: &["id"],
        model,
        manifest,
        compression: "lz4",
        records: 60_000,
    }
}

fn unpack(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*bytes)
        .read_to_end(&mut unpacked)
        .unwrap();
    unpacked
}

/// Columns and values of a `NumPy` file of floats.
fn npy(bytes: &[u8]) -> (usize, Vec<f32>) {
    assert!(bytes.starts_with(b"\x93NUMPY\x01"), "not an .npy file");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = (&bytes[10..10 + length], &bytes[10 + length..]);
    let header = std::str::from_utf8(header).unwrap();
    assert!(header.contains("'<f4'"), "{header}");
    let shape = header.split("'shape': (").nth(1).unwrap();
    let columns = shape.split(')').next().unwrap().split(',').nth(1).unwrap();
    let values = data.chunks_exact(4).map(|b| b.try_into().unwrap());
    (
        columns.trim().parse().unwrap(),
        values.map(f32::from_le_bytes).collect(),
    )
}
