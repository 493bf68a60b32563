//! The golden rows of a manifest: runs them through decoding, the model and encoding, and holds
//! the outputs against what the training framework gave.

use serde_json::{Map, Value};

use crate::codec::{Columns, Decoder, InputRef, NonFiniteOutputs, Prediction, PredictionEncoder};
use crate::model::{Contract, GoldenRow, Manifest};
use crate::runtime::CompiledModel;

/// Runs every golden row of `manifest`; the error names the first that comes out otherwise.
pub(super) fn check(
    manifest: &Manifest,
    contract: &Contract,
    compiled: &dyn CompiledModel,
) -> Result<(), String> {
    let checks = &manifest.checks;
    if checks.golden.is_empty() {
        return Ok(());
    }
    let encoder = PredictionEncoder::new(
        Some(&manifest.model),
        Some(&manifest.version),
        &manifest.artifact.digest,
        None,
        contract,
        NonFiniteOutputs::Null,
    );
    let mut rows = Rows {
        decoder: Decoder::new(contract, &[]),
        inputs: Columns::new(contract.inputs.iter().map(|input| &input.spec)),
        outputs: Columns::new(&compiled.signature().outputs),
        runner: compiled.runner().map_err(|error| error.to_string())?,
        encoder,
    };
    for (line, row) in (1..).zip(&checks.golden) {
        let outputs = rows
            .run(row, line)
            .map_err(|why| format!("golden row {line}: {why}"))?;
        compare(&row.outputs, &outputs, checks.tolerance)
            .map_err(|why| format!("golden row {line}: {why}"))?;
    }
    Ok(())
}

struct Rows {
    decoder: Decoder,
    inputs: Columns,
    outputs: Columns,
    runner: Box<dyn crate::runtime::Runner>,
    encoder: PredictionEncoder,
}

impl Rows {
    fn run(&mut self, row: &GoldenRow, line: u64) -> Result<Map<String, Value>, String> {
        let event = row.input.to_string();
        self.inputs.clear();
        self.decoder
            .decode(Some(event.as_bytes()), &mut self.inputs, &mut Vec::new())
            .map_err(|error| error.to_string())?;
        self.runner
            .run(&self.inputs, &mut self.outputs)
            .map_err(|error| error.to_string())?;
        let mut json = Vec::new();
        self.encoder
            .encode(&self.outputs, 0, InputRef::Line(line), None, &mut json)
            .map_err(|error| error.to_string())?;
        let prediction: Prediction =
            serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        Ok(prediction.outputs)
    }
}

/// Holds `actual` against `golden`; outputs that the golden row does not name are not checked.
fn compare(
    golden: &Map<String, Value>,
    actual: &Map<String, Value>,
    tolerance: f64,
) -> Result<(), String> {
    for (name, golden) in golden {
        let Some(actual) = actual.get(name) else {
            let known = actual
                .keys()
                .map(|k| format!("{k:?}"))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(format!(
                "there is no output {name:?}, the model gives {known}"
            ));
        };
        equal(golden, actual, tolerance)
            .map_err(|why| format!("output {name:?} {why} (tolerance {tolerance:e})"))?;
    }
    Ok(())
}

fn equal(golden: &Value, actual: &Value, tolerance: f64) -> Result<(), String> {
    match (golden, actual) {
        (Value::Number(a), Value::Number(b)) => {
            let whole = |n: &serde_json::Number| n.is_i64() || n.is_u64();
            let near = match (a.as_f64(), b.as_f64()) {
                // Whole numbers are labels and counts: near is not enough.
                _ if whole(a) && whole(b) => a == b,
                (Some(a), Some(b)) => (b - a).abs() <= tolerance * a.abs().max(1.0),
                _ => false,
            };
            if near {
                Ok(())
            } else {
                Err(format!("is {b} instead of {a}"))
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return Err(format!("has {} values instead of {}", b.len(), a.len()));
            }
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.try_for_each(|(i, (a, b))| {
                equal(a, b, tolerance).map_err(|why| format!("at {i} {why}"))
            })
        }
        (Value::Object(a), Value::Object(b)) => {
            if a.len() != b.len() || a.keys().any(|key| !b.contains_key(key)) {
                return Err("has other keys".to_owned());
            }
            a.iter().try_for_each(|(key, a)| {
                let b = b.get(key).unwrap_or(&Value::Null);
                equal(a, b, tolerance).map_err(|why| format!("at {key:?} {why}"))
            })
        }
        (a, b) if a == b => Ok(()),
        (a, b) => Err(format!("is {} instead of {}", short(b), short(a))),
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(golden: &Value, actual: &Value) -> Result<(), String> {
        compare(
            golden.as_object().unwrap(),
            actual.as_object().unwrap(),
            1e-3,
        )
    }

    #[test]
    fn numbers_may_differ_within_the_tolerance_and_labels_not_at_all() {
        for (golden, actual, fine) in [
            (json!({"p": 0.5}), json!({"p": 0.5009, "other": 1}), true),
            (json!({"p": 0.5}), json!({"p": 0.502}), false),
            (json!({"p": 1000.0}), json!({"p": 1000.9}), true),
            (json!({"p": 1}), json!({"p": 1.0001}), true),
            (json!({"l": 100_000}), json!({"l": 100_001}), false),
            (json!({"p": 0.5}), json!({"p": null}), false),
            (json!({"p": null}), json!({"p": null}), true),
            (json!({"p": [0.1, [0.2]]}), json!({"p": [0.1, [0.2]]}), true),
            (json!({"p": [0.1]}), json!({"p": [0.1, 0.2]}), false),
            (json!({"p": {"a": 0.1}}), json!({"p": {"a": 0.1}}), true),
            (json!({"p": {"a": 0.1}}), json!({"p": {"b": 0.1}}), false),
            (json!({"s": "x"}), json!({"s": "y"}), false),
            (json!({"q": 1}), json!({"p": 1}), false),
        ] {
            assert_eq!(check(&golden, &actual).is_ok(), fine, "{golden} {actual}");
        }
        let why = check(&json!({"p": [1.0, 2.0]}), &json!({"p": [1.0, 3.0]})).unwrap_err();
        assert!(why.contains("\"p\" at 1 is 3.0 instead of 2.0"), "{why}");
    }
}
