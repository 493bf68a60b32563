//! The golden check: a version must give the outputs that its training framework gave.
//!
//! A runtime can be wrong without an error, so an answer alone proves nothing.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Scorer, Tag};
use crate::codec::{InputRef, NonFiniteOutputs};
use crate::model::{Checks, Contract, Digest, GoldenRow};
use crate::runtime::CompiledModel;

/// Rows that are scored together.
const BATCH: usize = 64;

/// Why a golden row does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("golden row {row}: {message}")]
pub struct GoldenError {
    /// The row, counted from 1.
    pub row: usize,
    /// What differs.
    pub message: String,
}

/// Scores the golden rows of `checks` and compares the outputs with what is expected.
///
/// # Errors
/// The first row that fails or differs by more than the tolerance.
pub fn check(
    compiled: &Arc<dyn CompiledModel>,
    contract: &Contract,
    checks: &Checks,
) -> Result<(), GoldenError> {
    if checks.golden.is_empty() {
        return Ok(());
    }
    let digest = Digest::of(&[]);
    let tag = Tag {
        model: None,
        version: None,
        digest: &digest,
        revision: None,
    };
    let null = NonFiniteOutputs::Null;
    let mut scorer =
        Scorer::new(Arc::clone(compiled), contract, tag, &[], null).map_err(|error| {
            GoldenError {
                row: 1,
                message: error.to_string(),
            }
        })?;
    let mut first = 1;
    for rows in checks.golden.chunks(BATCH) {
        check_batch(&mut scorer, rows, first, checks.tolerance)?;
        first += rows.len();
    }
    Ok(())
}

fn check_batch(
    scorer: &mut Scorer,
    rows: &[GoldenRow],
    first: usize,
    tolerance: f64,
) -> Result<(), GoldenError> {
    scorer.clear();
    for row in rows {
        scorer.push(Some(row.input.to_string().as_bytes()));
    }
    scorer.run();
    let mut text = Vec::new();
    for (index, expected) in rows.iter().enumerate() {
        let row = first + index;
        let error = |message: String| GoldenError { row, message };
        text.clear();
        scorer
            .encode(index, InputRef::Line(row as u64), &mut text)
            .map_err(|e| error(e.to_string()))?;
        let prediction: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|e| error(e.to_string()))?;
        let outputs = prediction.get("outputs").and_then(Value::as_object);
        for (name, wanted) in &expected.outputs {
            let got = outputs.and_then(|outputs| outputs.get(name));
            let got = got.ok_or_else(|| error(format!("the model gives no output {name:?}")))?;
            compare(name, got, wanted, tolerance).map_err(error)?;
        }
    }
    Ok(())
}

/// Numbers may differ by |a−b| ≤ tolerance · max(1, |b|); everything else must be equal.
fn compare(place: &str, got: &Value, wanted: &Value, tolerance: f64) -> Result<(), String> {
    let differs = || Err(format!("output {place}: got {got}, expected {wanted}"));
    match (got, wanted) {
        // Whole numbers are labels and counts: near is wrong.
        (Value::Number(a), Value::Number(b)) if whole(a) && whole(b) => {
            if a == b {
                Ok(())
            } else {
                differs()
            }
        }
        (Value::Number(got), Value::Number(wanted)) => {
            let (Some(a), Some(b)) = (got.as_f64(), wanted.as_f64()) else {
                return differs();
            };
            let close = (a - b).abs() <= tolerance * b.abs().max(1.0);
            if close { Ok(()) } else { differs() }
        }
        (Value::Array(got), Value::Array(wanted)) if got.len() == wanted.len() => {
            for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
                compare(&format!("{place}[{index}]"), got, wanted, tolerance)?;
            }
            Ok(())
        }
        (Value::Object(got), Value::Object(wanted)) if got.len() == wanted.len() => {
            for (key, wanted) in wanted {
                let place = format!("{place}.{key}");
                let Some(got) = got.get(key) else {
                    return Err(format!("output {place} is missing"));
                };
                compare(&place, got, wanted, tolerance)?;
            }
            Ok(())
        }
        _ if got == wanted => Ok(()),
        _ => differs(),
    }
}

fn whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_within_the_tolerance_are_equal_and_all_else_must_match() {
        let ok = |a: Value, b: Value| compare("p", &a, &b, 1e-5);
        assert_eq!(ok(json!(0.5), json!(0.500_004)), Ok(()));
        assert_eq!(ok(json!([1, [2.0, 3]]), json!([1, [2, 3]])), Ok(()));
        assert_eq!(ok(json!(1_000_000.0), json!(1_000_005.0)), Ok(()));
        assert!(
            ok(json!(0.5), json!(0.51))
                .unwrap_err()
                .contains("got 0.5, expected 0.51")
        );
        assert!(ok(json!([1]), json!([1, 2])).is_err());
        assert!(ok(json!(1_000_001), json!(1_000_000)).is_err());
        assert!(
            ok(json!({"a": 1}), json!({"a": 2}))
                .unwrap_err()
                .contains("p.a")
        );
        assert!(ok(json!("a"), json!("b")).is_err());
        assert!(ok(json!(null), json!(0)).is_err());
    }
}
