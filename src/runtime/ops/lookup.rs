//! From a category to its position in a list: integers, floats or strings, found by bisection.

use std::cmp::Ordering;

use tract_onnx::prelude::{DatumType, Tensor, TractResult};
use tract_onnx::tract_hir::internal::bail;

use super::tensors::{values, with_number_type};

/// Which position counts where a key is listed twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twice {
    First,
    Last,
}

/// Keys with their positions, sorted by key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Keys {
    Ints(Vec<(i64, usize)>),
    /// Compared as numbers; where `nan` is set, a NaN key is found by any NaN.
    Floats {
        sorted: Vec<(f64, usize)>,
        nan: Option<usize>,
    },
    Strings(Vec<(String, usize)>),
}

/// Sorts keys that come in the order of their positions; one of those that are equal is kept.
fn sorted<K>(
    keys: impl Iterator<Item = K>,
    twice: Twice,
    order: impl Fn(&K, &K) -> Ordering,
) -> Vec<(K, usize)> {
    let mut pairs: Vec<(K, usize)> = keys.enumerate().map(|(at, key)| (key, at)).collect();
    pairs.sort_by(|(a, at_a), (b, at_b)| {
        let by_position = match twice {
            Twice::First => at_a.cmp(at_b),
            Twice::Last => at_b.cmp(at_a),
        };
        order(a, b).then(by_position)
    });
    pairs.dedup_by(|(b, _), (a, _)| order(a, b) == Ordering::Equal);
    pairs
}

/// Numbers by value, so that −0 is 0; NaN after all others.
fn by_value(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn position<K>(sorted: &[(K, usize)], order: impl Fn(&K) -> Ordering) -> Option<usize> {
    let found = sorted.binary_search_by(|(key, _)| order(key)).ok()?;
    sorted.get(found).map(|(_, at)| *at)
}

impl Keys {
    pub(super) fn ints(keys: &[i64], twice: Twice) -> Self {
        Self::Ints(sorted(keys.iter().copied(), twice, i64::cmp))
    }

    pub(super) fn strings(keys: &[String], twice: Twice) -> Self {
        Self::Strings(sorted(keys.iter().cloned(), twice, String::cmp))
    }

    /// With `nan_is_a_key`, a NaN among `keys` is found by any NaN; without, it never is.
    pub(super) fn floats(
        keys: impl Iterator<Item = f64>,
        twice: Twice,
        nan_is_a_key: bool,
    ) -> Self {
        let mut sorted = sorted(keys, twice, |a, b| by_value(*a, *b));
        let nan = sorted.pop_if(|(key, _)| key.is_nan()).map(|(_, at)| at);
        Self::Floats {
            sorted,
            nan: nan.filter(|_| nan_is_a_key),
        }
    }

    /// What the keys are compared with.
    pub(super) fn takes(&self, element: DatumType) -> bool {
        match self {
            Self::Ints(_) => element.is_integer(),
            Self::Floats { .. } => matches!(element, DatumType::F32 | DatumType::F64),
            Self::Strings(_) => element == DatumType::String,
        }
    }

    fn int(&self, value: i64) -> Option<usize> {
        match self {
            Self::Ints(sorted) => position(sorted, |key| key.cmp(&value)),
            Self::Floats { .. } | Self::Strings(_) => None,
        }
    }

    fn float(&self, value: f64) -> Option<usize> {
        match self {
            Self::Floats { nan, .. } if value.is_nan() => *nan,
            Self::Floats { sorted, .. } => position(sorted, |key| by_value(*key, value)),
            // As C++ converts it; what no integer stands for is no key.
            Self::Ints(_) if value.abs() < 9.2e18 => self.int(value as i64),
            Self::Ints(_) | Self::Strings(_) => None,
        }
    }

    fn string(&self, value: &str) -> Option<usize> {
        match self {
            Self::Strings(sorted) => position(sorted, |key| key.as_str().cmp(value)),
            Self::Floats { .. } | Self::Ints(_) => None,
        }
    }

    /// Calls `each` for every value of `x` with the position of its key. Floats are cut to
    /// integers where the keys are integers.
    #[expect(
        clippy::unnecessary_cast,
        reason = "two of the macro's types are these"
    )]
    pub(super) fn find(
        &self,
        x: &Tensor,
        mut each: impl FnMut(Option<usize>) -> TractResult<()>,
    ) -> TractResult<()> {
        match x.datum_type() {
            DatumType::String => {
                let mut x = values::<String>(x)?.iter();
                x.try_for_each(|value| each(self.string(value)))
            }
            DatumType::Bool => bail!("takes numbers or strings, not booleans"),
            element if element.is_float() => with_number_type!(element, T => {
                let mut x = values::<T>(x)?.iter();
                x.try_for_each(|value| each(self.float(*value as f64)))
            }),
            element => with_number_type!(element, T => {
                let mut x = values::<T>(x)?.iter();
                x.try_for_each(|value| each(self.int(*value as i64)))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ops::tensors::tensor_of;
    use tract_onnx::prelude::Datum;

    fn found<T: Datum>(keys: &Keys, x: Vec<T>) -> Vec<Option<usize>> {
        let x = tensor_of(&[x.len()], x).unwrap();
        let mut found = Vec::new();
        keys.find(&x, |at| {
            found.push(at);
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn keys_are_found_by_value() {
        let ints = Keys::ints(&[5, -1, 5], Twice::First);
        assert_eq!(found(&ints, vec![5_i64, -1, 0]), [Some(0), Some(1), None]);
        assert_eq!(found(&ints, vec![5_i32]), [Some(0)]);
        let cut = found(&ints, vec![5.9_f32, -1.9, f32::NAN, 1e30]);
        assert_eq!(cut, [Some(0), Some(1), None, None]);
        let ints = Keys::ints(&[5, -1, 5], Twice::Last);
        assert_eq!(found(&ints, vec![5_i64]), [Some(2)]);
        let strings = Keys::strings(&["b".to_owned(), String::new()], Twice::First);
        let texts = ["", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(found(&strings, texts), [Some(1), Some(0), None]);
    }

    #[test]
    fn float_keys_know_no_negative_zero_and_one_nan() {
        let keys = || [f64::NAN, 0.0, 1.5, -0.0].into_iter();
        let x = || vec![f32::NAN, -f32::NAN, -0.0, 1.5, 2.0];
        let with_nan = Keys::floats(keys(), Twice::First, true);
        let expected = [Some(0), Some(0), Some(1), Some(2), None];
        assert_eq!(found(&with_nan, x()), expected);
        let without = Keys::floats(keys(), Twice::First, false);
        assert_eq!(found(&without, x())[..3], [None, None, Some(1)]);
    }
}
