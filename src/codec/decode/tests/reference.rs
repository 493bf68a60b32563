//! A second decoder over `serde_json::Value`: slow and plain, to hold the real one against.

use serde_json::Value;

use crate::codec::Values;
use crate::model::{Contract, Feature, InputSource, MissingPolicy, Separator, TensorSpec};

/// The row that `event` fills, one entry for each input; `None` where the event is refused.
pub(super) fn decode(contract: &Contract, event: &str) -> Option<Vec<Values>> {
    let Value::Object(event) = serde_json::from_str(event).ok()? else {
        return None;
    };
    let mut row = Vec::new();
    for input in &contract.inputs {
        let mut values = Values::new(input.spec.element);
        match &input.source {
            InputSource::Field(feature) => {
                whole(&mut values, &input.spec, feature, event.get(&feature.name))?;
            }
            InputSource::Separated(feature, separator) => {
                separated(&mut values, &input.spec, feature, *separator, &event)?;
            }
            InputSource::Features(features) => {
                let mut cell = input.spec.clone();
                cell.row_shape = Vec::new();
                let is_scalar = matches!(input.spec.row_shape.as_slice(), [] | [1]);
                for feature in features {
                    let value = event.get(&feature.name);
                    if !is_scalar && value.is_some_and(Value::is_array) {
                        return None;
                    }
                    whole(&mut values, &cell, feature, value)?;
                }
            }
        }
        row.push(values);
    }
    Some(row)
}

/// A string of numbers, read as the array that it stands for.
fn separated(
    values: &mut Values,
    spec: &TensorSpec,
    feature: &Feature,
    separator: Separator,
    event: &serde_json::Map<String, Value>,
) -> Option<()> {
    let value = event.get(&feature.name);
    let array = match value {
        Some(Value::String(text)) => {
            let byte = char::from(separator.byte());
            let text = text.strip_suffix(byte).unwrap_or(text);
            let numbers = text.split(byte).map(|part| {
                let number = part.trim_ascii().parse::<f64>().ok();
                number.filter(|number| number.is_finite())
            });
            let numbers: Option<Vec<f64>> = numbers.collect();
            Some(Value::from(numbers?))
        }
        None | Some(Value::Null) => value.cloned(),
        Some(_) => return None,
    };
    let mut flat = spec.clone();
    flat.row_shape = vec![spec.row_len()];
    whole(values, &flat, feature, array.as_ref())
}

fn whole(
    values: &mut Values,
    spec: &TensorSpec,
    feature: &Feature,
    value: Option<&Value>,
) -> Option<()> {
    let all = |values: &mut Values, policy: &MissingPolicy| match policy {
        MissingPolicy::Reject => None,
        policy => (0..spec.row_len()).try_for_each(|_| stand_in(values, policy)),
    };
    let Some(value) = value else {
        return all(values, &feature.missing.absent);
    };
    if value.is_null() {
        return all(values, &feature.missing.null);
    }
    for value in flatten(value, &spec.row_shape)? {
        match value {
            Value::Null => stand_in(values, &feature.missing.null)?,
            value => push(values, value)?,
        }
    }
    Some(())
}

fn flatten<'v>(value: &'v Value, shape: &[usize]) -> Option<Vec<&'v Value>> {
    let scalar_like = matches!(shape, [] | [1]);
    let Value::Array(items) = value else {
        return scalar_like.then(|| vec![value]);
    };
    let flat = !items.iter().any(Value::is_array);
    let len: usize = shape.iter().product();
    if flat && items.len() == len {
        return Some(items.iter().collect());
    }
    if scalar_like {
        return None;
    }
    nested(value, shape)
}

fn nested<'v>(value: &'v Value, shape: &[usize]) -> Option<Vec<&'v Value>> {
    match (value, shape) {
        (Value::Array(items), [len, inner @ ..]) if items.len() == *len => {
            let parts: Option<Vec<_>> = items.iter().map(|item| nested(item, inner)).collect();
            Some(parts?.concat())
        }
        (Value::Array(_), _) | (_, [_, ..]) => None,
        (leaf, []) => Some(vec![leaf]),
    }
}

fn stand_in(values: &mut Values, policy: &MissingPolicy) -> Option<()> {
    let value = match policy {
        MissingPolicy::Reject => return None,
        MissingPolicy::Nan => f64::NAN,
        MissingPolicy::Value(value) => *value,
        MissingPolicy::Text(text) => return push(values, &Value::from(text.as_str())),
    };
    match values {
        Values::Float(v) => v.push(value as f32),
        Values::Double(v) => v.push(value),
        Values::Bool(v) => v.push(value == 1.0),
        other => return push(other, &Value::from(value)),
    }
    Some(())
}

fn push(values: &mut Values, value: &Value) -> Option<()> {
    match values {
        Values::Float(v) => v.push(Some(value.as_f64()? as f32).filter(|x| x.is_finite())?),
        Values::Double(v) => v.push(value.as_f64()?),
        Values::Int8(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Int16(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Int32(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Int64(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Uint8(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Uint16(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Uint32(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Uint64(v) => v.push(integer(value)?.try_into().ok()?),
        Values::Bool(v) => v.push(value.as_bool()?),
        Values::String(v) => v.push(value.as_str()?.to_owned()),
    }
    Some(())
}

fn integer(value: &Value) -> Option<i128> {
    if let Some(value) = value.as_i64() {
        return Some(value.into());
    }
    if let Some(value) = value.as_u64() {
        return Some(value.into());
    }
    let value = value.as_f64()?;
    (value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0).then_some(value as i128)
}
