//! `cargo run --release [-- ROUNDS]` in this folder: reads the same fields of the same events into the same
//! row of floats by serde_json, sonic-rs, simd-json and the decoder of Swapstream, in turns.
//!
//! The three parsers share one seed that knows the order of the fields, as the decoder does: what
//! differs is the parser alone. simd-json writes into its input, so it gets a copy.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use swapstream::codec::{Columns, Decoder};
use swapstream::model::{
    Contract, ElementType, Feature, InputContract, InputSource, Missing, MissingPolicy, Separator,
    TensorSpec,
};

/// How the fields of a row are read.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One number or null a field.
    Numbers,
    /// One string of numbers.
    Text,
}

struct Workload {
    name: &'static str,
    kind: Kind,
    fields: Vec<&'static str>,
    events: Vec<Vec<u8>>,
    contract: Contract,
}

/// Reads an event into `row`; `next` is the field that is expected.
struct Row<'a> {
    workload: &'a Workload,
    row: &'a mut Vec<f32>,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut next = 0;
        while let Some(found) = map.next_key_seed(Key(self.workload.fields.get(next).copied()))? {
            if !found {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            next += 1;
            match self.workload.kind {
                Kind::Numbers => self.row.push(
                    map.next_value::<Option<f64>>()?
                        .map_or(f32::NAN, |x| x as f32),
                ),
                Kind::Text => map.next_value_seed(Text(self.row))?,
            }
        }
        Ok(())
    }
}

/// Whether the key is the one that is expected.
struct Key(Option<&'static str>);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(self.0 == Some(key))
    }
}

struct Text<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string of numbers")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let parts = text.trim_end_matches(',').split(',');
        self.0
            .extend(parts.map(|part| part.parse::<f64>().expect("a number") as f32));
        Ok(())
    }
}

fn contract(fields: &[&str], kind: Kind) -> Contract {
    let missing = Missing {
        absent: MissingPolicy::Reject,
        null: MissingPolicy::Nan,
    };
    let feature = |name: &str| Feature {
        name: name.to_owned(),
        missing: missing.clone(),
    };
    let (width, source) = match kind {
        Kind::Numbers => {
            let listed = fields.iter().map(|name| feature(name));
            (fields.len(), InputSource::Features(listed.collect()))
        }
        Kind::Text => {
            let comma = Separator::new(',').expect("a separator");
            (784, InputSource::Separated(feature(fields[0]), comma))
        }
    };
    Contract {
        inputs: vec![InputContract {
            spec: TensorSpec {
                name: "x".to_owned(),
                element: ElementType::Float,
                row_shape: vec![width],
                classes: None,
            },
            source,
        }],
        outputs: Vec::new(),
    }
}

const FLIGHT: [&str; 21] = [
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
    "visibility_mi",
];

fn tabular() -> Workload {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/bench/flights.npy.gz");
    let packed = std::fs::read(&path).expect("the flights");
    let mut bytes = Vec::new();
    let mut unpacker = flate2::read::GzDecoder::new(&*packed);
    unpacker.read_to_end(&mut bytes).expect("gzip");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values = bytes[header..].chunks_exact(4);
    let values: Vec<f32> = values
        .map(|four| f32::from_le_bytes(four.try_into().expect("four bytes")))
        .collect();
    let events = values
        .chunks_exact(FLIGHT.len())
        .enumerate()
        .map(|(number, row)| {
            let mut event = format!("{{\"flight_id\":\"2013-{number:09}-{:04}\"", row[7]);
            for (name, value) in FLIGHT.iter().zip(row) {
                if value.is_nan() {
                    event += &format!(",\"{name}\":null");
                } else {
                    event += &format!(",\"{name}\":{value}");
                }
            }
            event += ",\"arrived_late\":false}";
            event.into_bytes()
        });
    Workload {
        name: "tabular",
        kind: Kind::Numbers,
        fields: FLIGHT.to_vec(),
        events: events.collect(),
        contract: contract(&FLIGHT, Kind::Numbers),
    }
}

fn crayfish() -> Workload {
    let mut state = 4_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let events = (0..128).map(|number| {
        let point: String = (0..784).map(|_| format!("{},", random())).collect();
        format!(
            "{{\"creationTimestamp\":{},\"dataPointSz1\":1,\"dataPointSz2\":784,\"dataPoint\":\"{point}\",\
             \"prediction\":null}}",
            1_700_000_000_000_u64 + number
        )
        .into_bytes()
    });
    Workload {
        name: "crayfish",
        kind: Kind::Text,
        fields: vec!["dataPoint"],
        events: events.collect(),
        contract: contract(&["dataPoint"], Kind::Text),
    }
}

/// Nanoseconds an event, and the sum of all values, which must be the same for all.
fn time(workload: &Workload, mut read: impl FnMut(&[u8], &mut Vec<f32>)) -> (f64, f64) {
    let mut row = Vec::new();
    let mut sum = 0.0;
    let start = Instant::now();
    for event in &workload.events {
        row.clear();
        read(event, &mut row);
        sum += f64::from(row.iter().copied().filter(|x| !x.is_nan()).sum::<f32>());
    }
    let nanos = start.elapsed().as_nanos() as f64 / workload.events.len() as f64;
    (nanos, sum)
}

fn compare(workload: &Workload, rounds: usize) {
    let mut decoder = Decoder::new(&workload.contract, &[]);
    let specs: Vec<_> = workload.contract.inputs.iter().map(|i| &i.spec).collect();
    let mut columns = Columns::new(specs);
    let mut copy = Vec::new();
    let mut buffers = simd_json::Buffers::default();
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        let all = [
            time(workload, |event, row| {
                let mut parser = serde_json::Deserializer::from_slice(event);
                Row { workload, row }
                    .deserialize(&mut parser)
                    .expect("serde_json");
            }),
            time(workload, |event, row| {
                let mut parser = sonic_rs::Deserializer::from_slice(event);
                Row { workload, row }
                    .deserialize(&mut parser)
                    .expect("sonic-rs");
            }),
            time(workload, |event, row| {
                copy.clear();
                copy.extend_from_slice(event);
                let mut parser =
                    simd_json::Deserializer::from_slice_with_buffers(&mut copy, &mut buffers)
                        .expect("simd-json");
                Row { workload, row }
                    .deserialize(&mut parser)
                    .expect("simd-json");
            }),
            time(workload, |event, row| {
                columns.clear();
                decoder
                    .decode(Some(event), &mut columns, &mut Vec::new())
                    .expect("swapstream");
                if let swapstream::codec::Values::Float(values) = &columns.columns[0].values {
                    row.extend_from_slice(values);
                }
            }),
        ];
        for (own, (nanos, sum)) in times.iter_mut().zip(all) {
            assert_eq!(sum, all[0].1, "{}: other values", workload.name);
            own.push(nanos);
        }
    }
    for (name, own) in ["serde_json", "sonic-rs", "simd-json", "swapstream"]
        .iter()
        .zip(&mut times)
    {
        own.sort_by(f64::total_cmp);
        println!(
            "{:<9} {name:<11} {:>8.0} ns an event",
            workload.name,
            own[own.len() / 2]
        );
    }
}

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(21, |n| n.parse().expect("a number of rounds"));
    for workload in [tabular(), crayfish()] {
        compare(&workload, rounds);
    }
}
