//! Reads back what a processor wrote: every input answered exactly once, and samples of the values.

use serde_json::Value;

use crate::cluster::{Cluster, Output, PARTITIONS};
use crate::processor::Kind;
use crate::workload::Workload;

/// Every so many records the values are compared.
const SAMPLE: i64 = 997;
/// How far a peer's numbers may be from ours: other kernels round differently.
const TOLERANCE: f64 = 1e-4;

/// One answered input.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Of the input record.
    pub offset: i64,
    /// When the broker appended the output.
    pub appended: i64,
    /// Of the deployment that served; ours only.
    pub revision: i64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verified {
    pub records: u64,
    /// Values that were compared.
    pub compared: u64,
    /// Inputs without an answer before the last that has one, and answers after the first.
    pub lost: u64,
    pub duplicated: u64,
}

/// Reads `topic`; hands each answer to `take`. `expected` are the answers of `swapstream score` to
/// the workload's events: ours must have the same bits.
pub fn read(
    cluster: &Cluster,
    topic: &str,
    kind: Kind,
    workload: &Workload,
    expected: &[Value],
    mut take: impl FnMut(Answer),
) -> Verified {
    let mut seen: Vec<Vec<bool>> = vec![Vec::new(); PARTITIONS as usize];
    let mut verified = Verified::default();
    let mut nth = vec![0_i64; PARTITIONS as usize];
    cluster.read(topic, |partition, _, output| {
        let (partition, offset, revision) = if kind == Kind::Passthrough {
            // It writes what it reads, in order.
            let offset = nth[partition as usize];
            nth[partition as usize] += 1;
            (partition, offset, 0)
        } else {
            let (input, offset, revision) = origin(&output.value);
            // Kafka Streams chooses by the key; the others keep the input's partition.
            let kept = input == partition || kind == Kind::KafkaStreams;
            assert!(kept, "{}: {input} became {partition}", kind.as_str());
            (input, offset, revision)
        };
        let answered = &mut seen[partition as usize];
        if answered.len() <= offset as usize {
            answered.resize(offset as usize + 1, false);
        }
        if std::mem::replace(&mut answered[offset as usize], true) {
            verified.duplicated += 1;
        }
        verified.records += 1;
        let index = (offset * i64::from(PARTITIONS)) as usize + partition as usize;
        let index = index % workload.events.len();
        if (offset + i64::from(partition)) % SAMPLE == 0 {
            verified.compared += 1;
            compare(kind, workload, index, &output, expected);
        }
        take(Answer {
            offset,
            appended: output.timestamp,
            revision,
        });
    });
    let holes = seen.iter().flatten().filter(|answered| !**answered);
    verified.lost = holes.count() as u64;
    verified
}

impl Verified {
    /// Every input up to the last answered one has exactly one answer, and values were compared.
    pub fn assert_exactly_once(&self) {
        assert!(self.lost == 0 && self.duplicated == 0, "{self:?}");
        assert!(self.compared > 0, "nothing was compared: {self:?}");
    }
}

fn compare(kind: Kind, workload: &Workload, index: usize, output: &Output, expected: &[Value]) {
    let (key, _) = &workload.events[index];
    let headers = output.headers;
    assert_eq!(output.key.as_ref(), Some(key), "{}: key", kind.as_str());
    assert_eq!(headers, 3, "{}: headers", kind.as_str());
    if kind == Kind::Passthrough {
        return;
    }
    let value: Value = serde_json::from_slice(&output.value).unwrap();
    let (theirs, ours) = (&value["outputs"], &expected[index]["outputs"]);
    let same = if kind.is_ours() {
        value["include"] == expected[index]["include"] && theirs == ours
    } else {
        near(theirs, ours)
    };
    assert!(
        same,
        "{}: event {index}: {theirs} instead of {ours}",
        kind.as_str()
    );
}

fn near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| near(v, w)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(v, w)| near(v, w))
        }
        // One value is a scalar with us.
        (Value::Array(a), b) if a.len() == 1 => near(&a[0], b),
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= TOLERANCE * b.abs().max(1.0),
            _ => a == b,
        },
    }
}

/// Partition and offset of a prediction's input, and its revision.
fn origin(value: &[u8]) -> (i32, i64, i64) {
    let at = |needle: &[u8], from: usize| {
        let found = value[from..]
            .windows(needle.len())
            .position(|w| w == needle);
        let found = found.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(value)));
        from + found + needle.len()
    };
    let revision = at(b"\"revision\":", 0);
    let input = at(b"\"input\":{", revision);
    let of = at(b"\"partition\":", input);
    let offset = at(b"\"offset\":", of);
    (
        number(&value[of..]) as i32,
        number(&value[offset..]),
        number(&value[revision..]),
    )
}

fn number(text: &[u8]) -> i64 {
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
}
