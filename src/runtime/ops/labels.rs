//! The class labels of a classifier: integers or strings.

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, TValue, TractResult};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::attributes;
use super::tensors::{filled, tensor_of};

/// The labels, in class order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    /// The attributes `classlabels_strings` and `ints` (whose name differs between operators).
    pub(in crate::runtime) fn of(node: &NodeProto, ints: &str) -> TractResult<Self> {
        let strings = attributes::strings(node, "classlabels_strings")?;
        let ints = attributes::ints(node, ints)?;
        match (strings.is_empty(), ints.is_empty()) {
            (false, true) => Ok(Self::Strings(strings)),
            (true, false) => Ok(Self::Ints(ints)),
            (true, true) => bail!("node {:?} has no class labels", node.name),
            (false, false) => bail!(
                "node {:?} has both integer and string class labels",
                node.name
            ),
        }
    }

    pub(in crate::runtime) fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Strings(labels) => labels.len(),
        }
    }

    /// The type of an output that holds labels.
    pub(in crate::runtime) fn element(&self) -> DatumType {
        match self {
            Self::Ints(_) => i64::datum_type(),
            Self::Strings(_) => String::datum_type(),
        }
    }

    /// The labels 0 and 1, as ONNX Runtime gives where a binary model lists not two labels.
    pub(in crate::runtime) fn zero_and_one(&self) -> Self {
        match self {
            Self::Ints(_) => Self::Ints(vec![0, 1]),
            Self::Strings(_) => Self::Strings(vec!["0".to_owned(), "1".to_owned()]),
        }
    }

    /// A tensor with the label of each of `classes`.
    pub(in crate::runtime) fn tensor(&self, classes: &[usize]) -> TractResult<TValue> {
        fn label<T>(labels: &[T], class: usize) -> TractResult<&T> {
            labels
                .get(class)
                .ok_or_else(|| anyhow!("class {class} has no label"))
        }
        let shape = [classes.len()];
        match self {
            Self::Ints(labels) => filled::<i64>(&shape, |out| {
                for (out, class) in out.iter_mut().zip(classes) {
                    *out = *label(labels, *class)?;
                }
                Ok(())
            }),
            Self::Strings(labels) => {
                let values = classes.iter().map(|class| label(labels, *class).cloned());
                tensor_of::<String>(&shape, values.collect::<TractResult<_>>()?)
            }
        }
    }
}

/// The first of the largest scores; a NaN is never larger.
pub(in crate::runtime) fn best_class(scores: &[f32]) -> usize {
    let mut best = 0;
    let mut most = scores.first().copied().unwrap_or_default();
    for (class, score) in scores.iter().enumerate().skip(1) {
        // Without a branch: nobody can foresee which class is better.
        let better = *score > most;
        best = if better { class } else { best };
        most = if better { *score } else { most };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_wins() {
        assert_eq!(best_class(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(best_class(&[f32::NAN, 3.0]), 0);
        assert_eq!(best_class(&[1.0, f32::NAN, 2.0]), 2);
        assert_eq!(best_class(&[]), 0);
    }

    #[test]
    fn labels_become_tensors() {
        let strings = Labels::Strings(vec!["a".to_owned(), "b".to_owned()]);
        let tensor = strings.tensor(&[1, 0, 1]).unwrap();
        let view = tensor.try_as_plain_ram().unwrap();
        assert_eq!(view.as_slice::<String>().unwrap(), ["b", "a", "b"]);
        assert!(strings.tensor(&[2]).is_err());
        let ints = Labels::Ints(vec![5, 7]).tensor(&[1]).unwrap();
        let view = ints.try_as_plain_ram().unwrap();
        assert_eq!(view.as_slice::<i64>().unwrap(), [7]);
    }
}
