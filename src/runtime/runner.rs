//! Runs plans of tract's on batches of any size: rows are copied into tensors that are kept,
//! padded with zeros or split to the plans' sizes.

use std::ops::Range;
use std::sync::Arc;

use tract_onnx::prelude::tract_ndarray::{ArrayD, IxDyn};
use tract_onnx::prelude::{
    Datum, DatumType, IntoTValue, TValue, TVec, Tensor, TractResult, TypedSimpleState,
};
use tract_onnx::tract_hir::internal::anyhow;

use super::direct::Direct;
use super::plans::{self, Plan};
use super::types::datum_type;
use super::{RunError, Runner, brief, live_rows, panics};
use crate::codec::Columns;
use crate::model::{ElementType, Signature, TensorSpec};
use crate::with_values;

/// One worker's way to run a model.
pub(super) struct TractRunner {
    signature: Arc<Signature>,
    /// Rows of the plans, ascending, and what belongs to each.
    sizes: Vec<usize>,
    lanes: Vec<Lane>,
    /// Runs the model without plans, where that is possible.
    direct: Option<Direct>,
}

/// One worker's state of a plan.
struct Lane {
    plan: Plan,
    /// Spawned when it is needed and there is none.
    state: Option<TypedSimpleState>,
    /// The plan's inputs, allocated once.
    inputs: Vec<Arc<Tensor>>,
    /// Rows of `inputs` that may hold something else than zeros.
    dirty: usize,
}

impl TractRunner {
    /// `plans` are ordered by their rows.
    pub(super) fn new(plans: &[Plan], direct: Option<Direct>, signature: Arc<Signature>) -> Self {
        Self {
            direct,
            signature,
            sizes: plans.iter().map(|plan| plan.rows).collect(),
            lanes: plans.iter().cloned().map(Lane::new).collect(),
        }
    }

    fn run_all(&mut self, inputs: &Columns, outputs: &mut Columns) -> TractResult<()> {
        if let Some(direct) = &self.direct {
            return direct.run(inputs, outputs);
        }
        let mut start = 0;
        while start < inputs.rows {
            let lane = self
                .lanes
                .get_mut(plans::next(&self.sizes, inputs.rows - start));
            let lane = lane.ok_or_else(|| anyhow!("the model has no plan"))?;
            let end = inputs.rows.min(start + lane.plan.rows);
            lane.run(&self.signature, inputs, start..end, outputs)?;
            start = end;
        }
        Ok(())
    }
}

impl Lane {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            state: None,
            inputs: Vec::new(),
            dirty: 0,
        }
    }

    fn run(
        &mut self,
        signature: &Signature,
        inputs: &Columns,
        rows: Range<usize>,
        outputs: &mut Columns,
    ) -> TractResult<()> {
        self.fill(signature, inputs, rows.clone())?;
        let state = match self.state.take() {
            Some(state) => state,
            None => self.plan.graph.spawn()?,
        };
        let state = self.state.insert(state);
        let tensors: TVec<TValue> = self
            .inputs
            .iter()
            .map(|tensor| Arc::clone(tensor).into_tvalue())
            .collect();
        let computed = live_rows::with(self.plan.rows, rows.len(), || state.run(tensors))?;
        // Loops (Scan, LSTM, GRU) go on from where the last run ended: tract is made for
        // streams of one signal. Every batch begins anew.
        if state.op_states.iter().any(Option::is_some) {
            self.state = None;
        }
        self.append(signature, &computed, rows.len(), outputs)
    }

    /// Makes a new start: a failed run may leave anything behind.
    fn reset(&mut self) {
        self.state = None;
        self.inputs.clear();
        self.dirty = 0;
    }

    /// Puts `rows` into the plan's inputs, and zeros into the rest.
    fn fill(
        &mut self,
        signature: &Signature,
        columns: &Columns,
        rows: Range<usize>,
    ) -> TractResult<()> {
        let stale = self.dirty.saturating_sub(rows.len());
        for (index, spec) in signature.inputs.iter().enumerate() {
            let row_len = spec.row_len();
            let column = columns.columns.get(index);
            let column = column.ok_or_else(|| anyhow!("no column for input {:?}", spec.name))?;
            if self.inputs.len() == index {
                self.inputs.push(Arc::new(zeros(spec, self.plan.rows)?));
            }
            let Some(slot) = self.inputs.get_mut(index) else {
                continue;
            };
            if Arc::get_mut(slot).is_none() {
                // The plan kept the tensor, as one of its outputs for instance.
                *slot = Arc::new(zeros(spec, self.plan.rows)?);
            }
            let tensor = Arc::get_mut(slot).ok_or_else(|| anyhow!("an input is still in use"))?;
            let range = rows.start * row_len..rows.end * row_len;
            with_values!(&column.values, values => copy_in(
                tensor,
                values.get(range).ok_or_else(|| {
                    anyhow!("the column of input {:?} has too few values", spec.name)
                })?,
                stale * row_len,
            ))?;
        }
        self.dirty = rows.len();
        Ok(())
    }

    /// Appends the first `rows` rows of what was computed.
    fn append(
        &self,
        signature: &Signature,
        computed: &[TValue],
        rows: usize,
        outputs: &mut Columns,
    ) -> TractResult<()> {
        for (index, spec) in signature.outputs.iter().enumerate() {
            let name = &spec.name;
            let (Some(tensor), Some(column)) =
                (computed.get(index), outputs.columns.get_mut(index))
            else {
                return Err(anyhow!("output {name:?} is missing"));
            };
            let batch = tensor.shape().first().copied();
            let len = self.plan.rows * spec.row_len();
            if batch != Some(self.plan.rows) || tensor.len() != len {
                return Err(anyhow!(
                    "output {name:?} has the shape {:?} for a batch of {}",
                    tensor.shape(),
                    self.plan.rows
                ));
            }
            let take = rows * spec.row_len();
            if tensor.datum_type() == DatumType::TDim {
                let tensor = tensor.cast_to::<i64>()?;
                with_values!(&mut column.values, values => copy_out(&tensor, take, values))?;
            } else {
                with_values!(&mut column.values, values => copy_out(tensor, take, values))?;
            }
        }
        outputs.rows += rows;
        Ok(())
    }
}

impl Runner for TractRunner {
    fn run(&mut self, inputs: &Columns, outputs: &mut Columns) -> Result<(), RunError> {
        outputs.clear();
        let error = match panics::catch(|| self.run_all(inputs, outputs)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => RunError::Failed(brief(&error)),
            Err(panic) => RunError::Panicked(panic),
        };
        outputs.clear();
        self.lanes.iter_mut().for_each(Lane::reset);
        Err(error)
    }
}

fn zeros(spec: &TensorSpec, rows: usize) -> TractResult<Tensor> {
    let shape: Vec<usize> = [rows].iter().chain(&spec.row_shape).copied().collect();
    if spec.element == ElementType::String {
        return Ok(ArrayD::<String>::default(IxDyn(&shape)).into());
    }
    Tensor::zero_dt(datum_type(spec.element), &shape)
}

/// `values` go to the front, and zeros over the next `stale` values.
fn copy_in<T: Datum + Clone + Default>(
    tensor: &mut Tensor,
    values: &[T],
    stale: usize,
) -> TractResult<()> {
    let mut view = tensor.try_as_plain_ram_mut()?;
    let slots = view.as_slice_mut::<T>()?;
    let (front, rest) = slots
        .split_at_mut_checked(values.len())
        .ok_or_else(|| anyhow!("more values than the plan takes"))?;
    front.clone_from_slice(values);
    if let Some(stale) = rest.get_mut(..stale) {
        stale.fill(T::default());
    }
    Ok(())
}

fn copy_out<T: Datum + Clone>(tensor: &Tensor, take: usize, to: &mut Vec<T>) -> TractResult<()> {
    let view = tensor.try_as_plain_ram()?;
    let values = view.as_slice::<T>()?;
    to.extend_from_slice(values.get(..take).unwrap_or(values));
    Ok(())
}
