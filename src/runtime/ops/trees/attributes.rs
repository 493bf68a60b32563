//! Reads an ensemble out of an operator's attributes: lengths, names and numbers are checked here.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::prelude::{DatumType, TractResult};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::ensemble::{Aggregate, Classifier, Ensemble, PostTransform, Task};

/// What an operator says.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) ensemble: Ensemble,
    pub(super) task: Task,
    /// Present in a classifier.
    pub(super) labels: Option<Labels>,
    /// Whether scores are doubles where the features are.
    pub(super) scores_follow_input: bool,
}

/// A classifier's labels by the place that [`Compiled`](super::compiled::Compiled) finds.
#[derive(Debug)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

/// More targets or classes are refused: the answer to a row would be megabytes.
const MAX_TARGETS: usize = 100_000;

/// Numbers, and whether they are doubles.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) values: Vec<f64>,
    pub(super) doubles: bool,
}

/// The attribute `name`: integers, or nothing.
pub(super) fn ints<'a>(node: &'a NodeProto, name: &str) -> TractResult<&'a [i64]> {
    Ok(node.get_attr_opt_slice(name)?.unwrap_or_default())
}

/// The attribute `name`: `len` integers.
pub(super) fn list<'a>(node: &'a NodeProto, name: &str, len: usize) -> TractResult<&'a [i64]> {
    let list = ints(node, name)?;
    check_len(name, list.len(), len)?;
    Ok(list)
}

/// The attribute `name`, floats, or `name_as_tensor`.
pub(super) fn numbers(
    ctx: &ParsingContext<'_>,
    node: &NodeProto,
    name: &str,
) -> TractResult<Numbers> {
    let floats: &[f32] = node.get_attr_opt_slice(name)?.unwrap_or_default();
    let tensor = tensor(ctx, node, &format!("{name}_as_tensor"))?;
    match (floats, tensor) {
        (_, None) => Ok(Numbers {
            values: floats.iter().copied().map(f64::from).collect(),
            doubles: false,
        }),
        ([], Some(numbers)) => Ok(numbers),
        (_, Some(_)) => bail!("both {name} and {name}_as_tensor are given"),
    }
}

/// The attribute `name`, a tensor of floats, doubles or bytes.
pub(super) fn tensor(
    ctx: &ParsingContext<'_>,
    node: &NodeProto,
    name: &str,
) -> TractResult<Option<Numbers>> {
    let Some(proto) = node.get_attr_opt::<&TensorProto>(name)? else {
        return Ok(None);
    };
    let tensor = ctx.load_tensor(proto)?;
    let doubles = match tensor.datum_type() {
        DatumType::F64 => true,
        DatumType::F32 | DatumType::U8 => false,
        other => bail!("{name} is a tensor of {other:?}; floats or doubles are supported"),
    };
    let values = tensor.cast_to::<f64>()?;
    let values = values.try_as_plain_ram()?.as_slice::<f64>()?.to_vec();
    Ok(Some(Numbers { values, doubles }))
}

/// Refuses a list of another length than `len`.
pub(super) fn check_len(name: &str, found: usize, len: usize) -> TractResult<()> {
    if found == len {
        return Ok(());
    }
    Err(anyhow!("{name} has {found} values, expected {len}"))
}

/// The number of targets or classes.
pub(super) fn check_targets(targets: usize) -> TractResult<()> {
    match targets {
        0 => Err(anyhow!("there are no targets or classes")),
        1..=MAX_TARGETS => Ok(()),
        _ => Err(anyhow!(
            "{targets} targets or classes are more than {MAX_TARGETS}"
        )),
    }
}

/// An index that is not negative.
pub(super) fn index(name: &str, value: i64) -> TractResult<u32> {
    let index = i32::try_from(value)
        .ok()
        .and_then(|value| u32::try_from(value).ok());
    index.ok_or_else(|| anyhow!("{name} has the value {value}, which is no index"))
}

/// The labels of a classifier, and the number of its classes.
pub(super) fn labels(node: &NodeProto) -> TractResult<(Labels, usize)> {
    let strings: Vec<String> = node
        .get_attr_opt_vec("classlabels_strings")?
        .unwrap_or_default();
    let numbers = ints(node, "classlabels_int64s")?;
    Ok(match (strings.as_slice(), numbers) {
        ([], []) => bail!("classlabels_strings and classlabels_int64s are empty"),
        // One class: ONNX Runtime answers 1 where the score is positive, else 0.
        ([], [_]) => (Labels::Ints(vec![0, 1]), 1),
        ([], numbers) => (Labels::Ints(numbers.to_vec()), numbers.len()),
        ([only], []) => (Labels::Strings(vec![only.clone(), only.clone()]), 1),
        (strings, []) => (Labels::Strings(strings.to_vec()), strings.len()),
        _ => bail!("both classlabels_strings and classlabels_int64s are given"),
    })
}

/// How a classifier whose leaves have these `weights` for `ids` picks its label.
pub(super) fn classifier(classes: usize, ids: &[i64], weights: &[f64]) -> Classifier {
    let one_column = ids
        .split_first()
        .is_some_and(|(first, rest)| rest.iter().all(|id| id == first));
    Classifier {
        binary: classes == 2 && one_column,
        weights_are_positive: !weights.iter().any(|weight| *weight < 0.0),
    }
}

/// Refuses base values that do not belong to the targets one by one.
pub(super) fn check_base_values(found: usize, targets: usize, classifier: bool) -> TractResult<()> {
    let fits = found == 0 || found == targets || (classifier && targets == 2 && found == 1);
    if fits {
        return Ok(());
    }
    Err(anyhow!(
        "base_values has {found} values for {targets} targets or classes"
    ))
}

pub(super) fn aggregate(name: &str) -> TractResult<Aggregate> {
    Ok(match name {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        _ => bail!("unknown aggregate_function {name:?}"),
    })
}

pub(super) fn post_transform(name: &str) -> TractResult<PostTransform> {
    Ok(match name {
        "NONE" => PostTransform::None,
        "SOFTMAX" => PostTransform::Softmax,
        "LOGISTIC" => PostTransform::Logistic,
        "SOFTMAX_ZERO" => PostTransform::SoftmaxZero,
        "PROBIT" => PostTransform::Probit,
        _ => bail!("unknown post_transform {name:?}"),
    })
}
