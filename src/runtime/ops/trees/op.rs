//! The operators as tract sees them.

use std::sync::{Arc, OnceLock};

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::tract_ndarray::Array1;
use tract_onnx::prelude::{
    Datum, DatumType, IntoTValue, OutletId, TValue, TVec, Tensor, TractResult, TypedFact,
    TypedModel,
};
use tract_onnx::tract_hir::internal::{
    DatumTypeExt, DimLike, EvalContext, EvalOp, Expansion, InferenceOp, InferenceResult, Op,
    Solver, SpecialOps, StaticName, TensorProxy, ToDim, TractErrorContext, TypedOp, as_op, bail,
    check_input_arity, check_output_arity, expand, op_as_typed_op, op_out_of_plan,
};

use super::attributes::{Labels, Parsed};
use super::compiled::Compiled;
use super::ensemble::Precision;
use super::real::{Feature, Real};
use super::{version_5, versions_1_3};
use crate::codec::Values;
use crate::runtime::live_rows;
use crate::runtime::ops::direct::{Rows, Score, append_labels, room};

type Operator = (Box<dyn InferenceOp>, Vec<String>);

pub(super) fn classifier(ctx: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Operator> {
    operator(
        "TreeEnsembleClassifier",
        node,
        versions_1_3::classifier_node(ctx, node),
    )
}

pub(super) fn regressor(ctx: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Operator> {
    operator(
        "TreeEnsembleRegressor",
        node,
        versions_1_3::regressor_node(ctx, node),
    )
}

pub(super) fn ensemble(ctx: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Operator> {
    operator("TreeEnsemble", node, version_5::ensemble_node(ctx, node))
}

fn operator(
    name: &'static str,
    node: &NodeProto,
    parsed: TractResult<Parsed>,
) -> TractResult<Operator> {
    let parsed = parsed.with_context(|| format!("{name} {:?}", node.name))?;
    let trees = Trees {
        name,
        parsed: Arc::new(parsed),
        compiled: Arc::default(),
    };
    Ok((expand(trees), vec![]))
}

/// An ensemble that is not compiled yet: the type of its input is not known.
#[derive(Debug, Clone)]
struct Trees {
    name: &'static str,
    parsed: Arc<Parsed>,
    /// All plans of a model share what is compiled: the graph is read once, and each plan has a
    /// clone of it.
    compiled: Arc<[OnceLock<Arc<Compiled>>; 2]>,
}

impl Trees {
    fn compiled(&self, precision: Precision) -> TractResult<Arc<Compiled>> {
        let [single, double] = &*self.compiled;
        let slot = match precision {
            Precision::Single => single,
            Precision::Double => double,
        };
        if let Some(compiled) = slot.get() {
            return Ok(Arc::clone(compiled));
        }
        let Parsed { ensemble, task, .. } = &*self.parsed;
        let compiled = Arc::new(Compiled::new(ensemble, task, precision)?);
        Ok(Arc::clone(slot.get_or_init(|| compiled)))
    }

    fn score_type(&self, input: DatumType) -> DatumType {
        match input {
            DatumType::F64 if self.parsed.scores_follow_input => DatumType::F64,
            _ => DatumType::F32,
        }
    }
}

impl Expansion for Trees {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(1 + usize::from(self.parsed.labels.is_some()))
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, self.nboutputs()?)?;
        let [input] = inputs else {
            bail!("{} takes one input", self.name);
        };
        let scores = outputs.last().context("no outputs")?;
        let targets = self.parsed.ensemble.targets;
        s.given(&input.datum_type, move |s, found| {
            s.equals(&scores.datum_type, self.score_type(found))
        })?;
        s.equals(&scores.rank, 2)?;
        s.equals(&scores.shape[1], targets.to_dim())?;
        s.given(&input.rank, move |s, rank| match rank {
            1 => s.equals(&scores.shape[0], 1.to_dim()),
            2 => s.equals(&scores.shape[0], &input.shape[0]),
            _ => bail!("{} takes a matrix, but got {rank} axes", self.name),
        })?;
        if let (Some(labels), [label, _]) = (&self.parsed.labels, outputs) {
            s.equals(&label.datum_type, labels.datum_type())?;
            s.equals(&label.rank, 1)?;
            s.equals(&label.shape[0], &scores.shape[0])?;
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let [input] = inputs else {
            bail!("{} takes one input", self.name);
        };
        let fact = model.outlet_fact(*input)?;
        let precision = match fact.datum_type {
            DatumType::F32 | DatumType::I32 | DatumType::I64 => Precision::Single,
            DatumType::F64 => Precision::Double,
            other => bail!("{} {prefix:?} does not take {other:?}", self.name),
        };
        let compiled = self
            .compiled(precision)
            .with_context(|| format!("{} {prefix:?}", self.name))?;
        let width = fact.shape.last().and_then(|width| width.to_usize().ok());
        if width.is_some_and(|width| width < compiled.width()) {
            bail!(
                "{} {prefix:?} asks for feature {}, but a row has {}",
                self.name,
                compiled.width() - 1,
                width.unwrap_or_default()
            );
        }
        let op = CompiledTrees {
            name: self.name,
            scores: self.score_type(fact.datum_type),
            parsed: Arc::clone(&self.parsed),
            compiled,
        };
        model.wire_node(prefix, op, inputs)
    }
}

impl Labels {
    fn datum_type(&self) -> DatumType {
        match self {
            Labels::Ints(_) => DatumType::I64,
            Labels::Strings(_) => DatumType::String,
        }
    }

    /// The tensor of the labels at these places.
    fn tensor(&self, mut places: Vec<i64>) -> Tensor {
        match self {
            Labels::Ints(labels) => {
                for place in &mut places {
                    *place = labels.get(*place as usize).copied().unwrap_or_default();
                }
                Array1::from(places).into()
            }
            Labels::Strings(labels) => {
                let label = |place| labels.get(place as usize).cloned().unwrap_or_default();
                Array1::from_iter(places.into_iter().map(label)).into()
            }
        }
    }
}

/// The operator that runs. It keeps no state: its buffers are those of the thread.
#[derive(Debug, Clone)]
struct CompiledTrees {
    name: &'static str,
    scores: DatumType,
    parsed: Arc<Parsed>,
    compiled: Arc<Compiled>,
}

impl PartialEq for CompiledTrees {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.compiled, &other.compiled)
    }
}

impl Eq for CompiledTrees {}

/// Where the tables of compiled trees lie and how many bytes they are.
pub(in crate::runtime::ops) fn held(op: &dyn TypedOp) -> Option<(usize, usize)> {
    let CompiledTrees { compiled, .. } = op.downcast_ref()?;
    Some((Arc::as_ptr(compiled).addr(), compiled.bytes()))
}

/// Compiled trees as what scores rows of floats.
pub(in crate::runtime::ops) fn score(op: &dyn TypedOp) -> Option<&dyn Score> {
    let trees: &CompiledTrees = op.downcast_ref()?;
    Some(trees)
}

impl Score for CompiledTrees {
    fn append(
        &self,
        rows: Rows<'_>,
        scores: &mut Vec<f32>,
        labels: Option<&mut Values>,
    ) -> TractResult<()> {
        let scores = room(scores, rows.count * self.compiled.targets());
        let run =
            |places: &mut [i64], scores| self.compiled.run(rows.values, rows.width, scores, places);
        match (labels, &self.parsed.labels) {
            // In place: most labels are numbers.
            (Some(Values::Int64(to)), Some(Labels::Ints(labels))) => {
                let to = room(to, rows.count);
                run(to, scores)?;
                for place in to {
                    *place = labels.get(*place as usize).copied().unwrap_or_default();
                }
            }
            (Some(to), Some(Labels::Strings(labels))) => {
                let mut places = vec![0; rows.count];
                run(&mut places, scores)?;
                let places = places.into_iter().map(|place| place as usize);
                append_labels(to, places, &[], labels)?;
            }
            (None, _) => run(&mut [], scores)?,
            (Some(_), _) => bail!("the labels are of another type"),
        }
        Ok(())
    }
}

impl CompiledTrees {
    fn run<X: Feature + Datum>(&self, input: &Tensor) -> TractResult<TVec<TValue>> {
        match self.scores {
            DatumType::F64 => self.score::<X, f64>(input),
            _ => self.score::<X, f32>(input),
        }
    }

    fn score<X: Feature + Datum, O: Real + Datum>(
        &self,
        input: &Tensor,
    ) -> TractResult<TVec<TValue>> {
        let (rows, width) = match input.shape() {
            [width] => (1, *width),
            [rows, width] => (*rows, *width),
            shape => bail!("{} takes a matrix, but got the shape {shape:?}", self.name),
        };
        let features = input.try_as_plain_ram()?;
        let features = features.as_slice::<X>()?;
        let mut scores = Tensor::zero_dt(O::datum_type(), &[rows, self.compiled.targets()])?;
        let mut view = scores.try_as_plain_ram_mut()?;
        let labelled = if self.parsed.labels.is_some() {
            rows
        } else {
            0
        };
        let mut places = vec![0; labelled];
        // Padding is not scored.
        let live = live_rows::of(rows) * self.compiled.targets();
        let some = view.as_slice_mut::<O>()?.get_mut(..live);
        let some = some.unwrap_or_default();
        self.compiled.run(features, width, some, &mut places)?;
        let mut outputs = TVec::new();
        if let Some(labels) = &self.parsed.labels {
            outputs.push(labels.tensor(places).into_tvalue());
        }
        outputs.push(scores.into_tvalue());
        Ok(outputs)
    }
}

impl Op for CompiledTrees {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    op_as_typed_op!();
}

impl EvalOp for CompiledTrees {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input] = inputs.as_slice() else {
            bail!("{} takes one input", self.name);
        };
        match input.datum_type() {
            DatumType::F32 => self.run::<f32>(input),
            DatumType::F64 => self.run::<f64>(input),
            DatumType::I32 => self.run::<i32>(input),
            DatumType::I64 => self.run::<i64>(input),
            other => bail!("{} does not take {other:?}", self.name),
        }
    }
}

impl TypedOp for CompiledTrees {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [input] = inputs else {
            bail!("{} takes one input", self.name);
        };
        let rows = match input.rank() {
            1 => 1.to_dim(),
            _ => input.shape.first().cloned().unwrap_or_else(|| 1.to_dim()),
        };
        let mut facts = TVec::new();
        if let Some(labels) = &self.parsed.labels {
            facts.push(labels.datum_type().fact([rows.clone()]));
        }
        facts.push(self.scores.fact([rows, self.compiled.targets().to_dim()]));
        Ok(facts)
    }

    as_op!();
}
