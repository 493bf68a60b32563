//! The type rules: which JSON scalar fits which element type.

use crate::codec::Values;

/// A JSON scalar other than null, as the parser gives it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
    Bool(bool),
    /// A negative integer.
    Int(i64),
    /// An integer of 0 or more.
    Uint(u64),
    /// A number with a fraction or exponent, `-0`, or an integer beyond 64 bits.
    Float(f64),
    Text(&'a str),
}

/// Why a scalar does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is of another type; what it is.
    Type(&'static str),
    /// It is a number that the type cannot hold.
    Range,
}

/// Puts `scalar` into `values[at]`.
pub(super) fn write(values: &mut Values, at: usize, scalar: Scalar<'_>) -> Result<(), Refusal> {
    match values {
        Values::Float(v) => put(v, at, float(scalar)?),
        Values::Double(v) => put(v, at, double(scalar)?),
        Values::Int8(v) => put(v, at, integer(scalar)?),
        Values::Int16(v) => put(v, at, integer(scalar)?),
        Values::Int32(v) => put(v, at, integer(scalar)?),
        Values::Int64(v) => put(v, at, integer(scalar)?),
        Values::Uint8(v) => put(v, at, integer(scalar)?),
        Values::Uint16(v) => put(v, at, integer(scalar)?),
        Values::Uint32(v) => put(v, at, integer(scalar)?),
        Values::Uint64(v) => put(v, at, integer(scalar)?),
        Values::Bool(v) => match scalar {
            Scalar::Bool(value) => put(v, at, value),
            other => return Err(other.refused()),
        },
        Values::String(v) => match scalar {
            Scalar::Text(value) => put(v, at, value.to_owned()),
            other => return Err(other.refused()),
        },
    }
    Ok(())
}

fn put<T>(values: &mut [T], at: usize, value: T) {
    if let Some(slot) = values.get_mut(at) {
        *slot = value;
    }
}

impl Scalar<'_> {
    fn refused(self) -> Refusal {
        Refusal::Type(match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Uint(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a string",
        })
    }
}

fn double(scalar: Scalar<'_>) -> Result<f64, Refusal> {
    match scalar {
        Scalar::Int(value) => Ok(value as f64),
        Scalar::Uint(value) => Ok(value as f64),
        Scalar::Float(value) => Ok(value),
        other => Err(other.refused()),
    }
}

fn float(scalar: Scalar<'_>) -> Result<f32, Refusal> {
    let value = double(scalar)? as f32;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Refusal::Range)
    }
}

fn integer<T: TryFrom<i64> + TryFrom<u64>>(scalar: Scalar<'_>) -> Result<T, Refusal> {
    /// From here on several integers read as the same double: `9007199254740993.0` would become
    /// its neighbour without a word.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match scalar {
        Scalar::Int(value) => T::try_from(value).map_err(|_| Refusal::Range),
        Scalar::Uint(value) => T::try_from(value).map_err(|_| Refusal::Range),
        Scalar::Float(value) if value.fract() != 0.0 => Err(scalar.refused()),
        Scalar::Float(value) if value.abs() >= EXACT => Err(Refusal::Range),
        Scalar::Float(value) => T::try_from(value as i64).map_err(|_| Refusal::Range),
        other => Err(other.refused()),
    }
}
