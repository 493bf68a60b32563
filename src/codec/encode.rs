//! From a row of outputs to a prediction: the JSON text, byte by byte the same for the same row.

use serde::Serialize;

use super::format::{ERROR_SCHEMA, PREDICTION_SCHEMA};
use super::{Columns, RowError, Stage, Values};
use crate::model::{Contract, Digest, ModelName, Version};
use crate::record::Origin;

/// What a NaN or infinite output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonFiniteOutputs {
    /// A dead letter, stage `infer`, class `non_finite_output`.
    #[default]
    Reject,
    /// `null` in the prediction.
    Null,
}

/// Where a prediction's event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputRef<'a> {
    /// A Kafka record.
    Record(Origin<'a>),
    /// A line of a file, counted from 1.
    Line(u64),
}

/// Writes the predictions of one serving version; made once for each, since most of a prediction
/// is the same for all rows.
#[derive(Debug, Clone)]
pub struct PredictionEncoder {
    prefix: Vec<u8>,
    outputs: Vec<Output>,
    non_finite: NonFiniteOutputs,
}

#[derive(Debug, Clone)]
struct Output {
    /// Index among the model's outputs.
    index: usize,
    /// The comma before it, its name as JSON, the colon.
    key: Vec<u8>,
    name: String,
    /// Empty where the row is one value.
    shape: Vec<usize>,
    /// Where the row is an object: what stands before each value, with comma and colon.
    keys: Option<Vec<Vec<u8>>>,
    row_len: usize,
}

impl PredictionEncoder {
    /// An encoder for `model` / `version`, deployed by the event at `revision`. `score` has no
    /// version and no revision, and a model only if its manifest names one.
    pub fn new(
        model: Option<&ModelName>,
        version: Option<&Version>,
        digest: &Digest,
        revision: Option<i64>,
        contract: &Contract,
        non_finite: NonFiniteOutputs,
    ) -> Self {
        let revision = revision.map_or_else(|| "null".to_owned(), |revision| revision.to_string());
        let prefix = format!(
            r#"{{"schema":{},"model":{},"version":{},"digest":{},"revision":{revision},"outputs":{{"#,
            json_text(Some(PREDICTION_SCHEMA)),
            json_text(model.map(ModelName::as_str)),
            json_text(version.map(Version::as_str)),
            json_text(Some(&digest.to_string())),
        );
        let outputs = contract.outputs.iter().enumerate().map(|(at, output)| {
            let comma = if at == 0 { "" } else { "," };
            let shape = match output.spec.row_shape.as_slice() {
                [] | [1] => &[],
                shape => shape,
            };
            Output {
                index: output.index,
                key: format!("{comma}{}:", json_text(Some(&output.name))).into_bytes(),
                name: output.name.clone(),
                shape: shape.to_vec(),
                keys: output.spec.classes.as_deref().map(object_keys),
                row_len: output.spec.row_len(),
            }
        });
        Self {
            prefix: prefix.into_bytes(),
            outputs: outputs.collect(),
            non_finite,
        }
    }

    /// Appends the prediction of row `row` to `out`, or leaves `out` as it was.
    ///
    /// `outputs` has a column for each output of the model's signature. `include` is what the
    /// decoder wrote for the row; `None` and empty both mean that no field is included.
    pub fn encode(
        &self,
        outputs: &Columns,
        row: usize,
        input: InputRef<'_>,
        include: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        let start = out.len();
        let result = self.append(outputs, row, input, include, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn append(
        &self,
        outputs: &Columns,
        row: usize,
        input: InputRef<'_>,
        include: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        out.extend_from_slice(&self.prefix);
        for output in &self.outputs {
            out.extend_from_slice(&output.key);
            self.write_output(output, outputs, row, out)?;
        }
        out.extend_from_slice(b"},\"input\":{");
        match input {
            InputRef::Line(line) => {
                out.extend_from_slice(b"\"line\":");
                number(line, out);
            }
            InputRef::Record(origin) => {
                out.extend_from_slice(b"\"topic\":");
                json(origin.topic, out)?;
                out.extend_from_slice(b",\"partition\":");
                number(origin.partition, out);
                out.extend_from_slice(b",\"offset\":");
                number(origin.offset, out);
                out.extend_from_slice(b",\"timestamp\":");
                match origin.timestamp {
                    Some(timestamp) => number(timestamp, out),
                    None => out.extend_from_slice(b"null"),
                }
            }
        }
        out.push(b'}');
        if let Some(include) = include.filter(|include| !include.is_empty()) {
            out.extend_from_slice(b",\"include\":");
            out.extend_from_slice(include);
        }
        out.push(b'}');
        Ok(())
    }

    fn write_output(
        &self,
        output: &Output,
        outputs: &Columns,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        let lacking = || {
            RowError::new(
                Stage::Encode,
                "output_mismatch",
                format!(
                    "the model gave no row of {} values for output {:?}",
                    output.row_len, output.name
                ),
            )
        };
        let column = outputs.columns.get(output.index).ok_or_else(lacking)?;
        if column.row_len != output.row_len {
            return Err(lacking());
        }
        let range = row * output.row_len..(row + 1) * output.row_len;
        macro_rules! write_row {
            ($values:ident, $write:expr) => {{
                let values = $values.get(range).ok_or_else(lacking)?;
                match &output.keys {
                    Some(keys) => object(keys, values, out, &mut $write),
                    None => nested(&output.shape, values, out, &mut $write),
                }
            }};
        }
        match &column.values {
            Values::Float(v) => write_row!(v, |v: &f32, out| {
                if self.finite(v.is_finite(), output, out)? {
                    float(*v, out)?;
                }
                Ok(())
            }),
            Values::Double(v) => write_row!(v, |v: &f64, out| {
                if self.finite(v.is_finite(), output, out)? {
                    json(v, out)?;
                }
                Ok(())
            }),
            Values::Int8(v) => write_row!(v, integer),
            Values::Int16(v) => write_row!(v, integer),
            Values::Int32(v) => write_row!(v, integer),
            Values::Int64(v) => write_row!(v, integer),
            Values::Uint8(v) => write_row!(v, integer),
            Values::Uint16(v) => write_row!(v, integer),
            Values::Uint32(v) => write_row!(v, integer),
            Values::Uint64(v) => write_row!(v, integer),
            Values::Bool(v) => write_row!(v, |v: &bool, out| {
                out.extend_from_slice(if *v { b"true" } else { b"false" });
                Ok(())
            }),
            Values::String(v) => write_row!(v, |v: &String, out| json(v.as_str(), out)),
        }
    }

    /// Whether the value is to be written; where it is not finite, `null` has been, or the row is
    /// refused.
    fn finite(&self, finite: bool, output: &Output, out: &mut Vec<u8>) -> Result<bool, RowError> {
        match self.non_finite {
            _ if finite => Ok(true),
            NonFiniteOutputs::Null => {
                out.extend_from_slice(b"null");
                Ok(false)
            }
            NonFiniteOutputs::Reject => Err(RowError::new(
                Stage::Infer,
                "non_finite_output",
                format!("output {:?} is NaN or infinite", output.name),
            )),
        }
    }
}

/// One line of `score` for an event that failed; without the line's end.
pub fn encode_error(line: u64, error: &RowError) -> String {
    format!(
        r#"{{"schema":{},"input":{{"line":{line}}},"stage":{},"class":{},"message":{}}}"#,
        json_text(Some(ERROR_SCHEMA)),
        json_text(Some(error.stage.as_str())),
        json_text(Some(error.class)),
        json_text(Some(&error.message)),
    )
}

/// The keys of an object as JSON, each with what stands before and behind it.
fn object_keys(classes: &[String]) -> Vec<Vec<u8>> {
    let key = |(at, class): (usize, &String)| {
        let comma = if at == 0 { "" } else { "," };
        format!("{comma}{}:", json_text(Some(class))).into_bytes()
    };
    classes.iter().enumerate().map(key).collect()
}

/// Writes `values` as an object, each under its key.
fn object<T>(
    keys: &[Vec<u8>],
    values: &[T],
    out: &mut Vec<u8>,
    write: &mut impl FnMut(&T, &mut Vec<u8>) -> Result<(), RowError>,
) -> Result<(), RowError> {
    out.push(b'{');
    for (key, value) in keys.iter().zip(values) {
        out.extend_from_slice(key);
        write(value, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// Writes `values` as arrays of `shape`; as one value where the shape is empty.
fn nested<T>(
    shape: &[usize],
    values: &[T],
    out: &mut Vec<u8>,
    write: &mut impl FnMut(&T, &mut Vec<u8>) -> Result<(), RowError>,
) -> Result<(), RowError> {
    let Some((len, inner)) = shape.split_first() else {
        return values.iter().try_for_each(|value| write(value, out));
    };
    let step = inner.iter().product::<usize>();
    out.push(b'[');
    for index in 0..*len {
        if index > 0 {
            out.push(b',');
        }
        let part = values.get(index * step..(index + 1) * step);
        nested(inner, part.unwrap_or_default(), out, write)?;
    }
    out.push(b']');
    Ok(())
}

/// The one float (with its negative) whose shortest form, read as a double and rounded to a float
/// as most readers do, gives its neighbour. Found by trying all 2^32.
const TWICE_ROUNDED: u32 = 0x15ae_43fd;

fn float(value: f32, out: &mut Vec<u8>) -> Result<(), RowError> {
    if value.abs().to_bits() == TWICE_ROUNDED {
        return json(&f64::from(value), out);
    }
    json(&value, out)
}

#[expect(clippy::unnecessary_wraps, reason = "one of several writers")]
fn integer(value: &(impl itoa::Integer + Copy), out: &mut Vec<u8>) -> Result<(), RowError> {
    number(*value, out);
    Ok(())
}

fn number(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `value` as serde's JSON: for floats the shortest form that reads back the same.
fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), RowError> {
    serde_json::to_writer(out, value)
        .map_err(|error| RowError::new(Stage::Encode, "internal", error.to_string()))
}

fn json_text(text: Option<&str>) -> String {
    serde_json::Value::from(text).to_string()
}
