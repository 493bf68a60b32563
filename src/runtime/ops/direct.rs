//! Operators that score rows of floats as they lie in a column, without tensors: models of which
//! they are all there is need no plan.

use tract_onnx::prelude::{TractResult, TypedOp};
use tract_onnx::tract_hir::internal::bail;

use super::{kernel, trees};
use crate::codec::Values;

/// Rows of floats.
#[derive(Debug, Clone, Copy)]
pub(in crate::runtime) struct Rows<'a> {
    pub(in crate::runtime) values: &'a [f32],
    pub(in crate::runtime) count: usize,
    pub(in crate::runtime) width: usize,
}

/// Scores rows.
pub(in crate::runtime) trait Score {
    /// Appends the scores of `rows`, and their labels where those are asked for. A row's scores
    /// are what [`Kernel::eval`](super::kernel::Kernel::eval) gives for it, to the bit.
    fn append(
        &self,
        rows: Rows<'_>,
        scores: &mut Vec<f32>,
        labels: Option<&mut Values>,
    ) -> TractResult<()>;
}

/// Changes rows where they lie.
pub(in crate::runtime) trait Finish {
    /// Changes rows of `width` values each.
    fn finish(&self, values: &mut [f32], width: usize);
}

/// `op` as what scores rows, if it can.
pub(in crate::runtime) fn score(op: &dyn TypedOp) -> Option<&dyn Score> {
    trees::score(op).or_else(|| kernel::of(op)?.score())
}

/// `op` as what changes rows where they lie, if it can.
pub(in crate::runtime) fn finish(op: &dyn TypedOp) -> Option<&dyn Finish> {
    kernel::of(op)?.finish()
}

/// Room for `count` values at the end of a column.
pub(super) fn room<T: Copy + Default>(column: &mut Vec<T>, count: usize) -> &mut [T] {
    let start = column.len();
    column.resize(start + count, T::default());
    column.get_mut(start..).unwrap_or_default()
}

/// Appends the label at each of `places`, which are those of some list of labels.
pub(super) fn append_labels(
    to: &mut Values,
    places: impl Iterator<Item = usize>,
    ints: &[i64],
    strings: &[String],
) -> TractResult<()> {
    match to {
        Values::Int64(to) => to.extend(places.map(|at| ints.get(at).copied().unwrap_or_default())),
        Values::String(to) => {
            to.extend(places.map(|at| strings.get(at).cloned().unwrap_or_default()));
        }
        other => bail!("labels are no {}", other.element()),
    }
    Ok(())
}
