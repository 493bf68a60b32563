//! Compiles an ONNX file with tract: plans of a few fixed batch sizes, tried out before they are
//! given away.

use std::fmt;
use std::sync::Arc;

use tract_onnx::prelude::{InferenceFact, InferenceModel, TypedModel, TypedSimplePlan};
use tract_onnx::tract_hir::internal::{DimLike, ToDim};

use super::axes::{self, Computed};
use super::direct::Direct;
use super::invariance::Purpose;
use super::onnx_file::{self, LoadLimits, OnnxFile};
use super::plan::{self, Packed, Trouble, guarded};
use super::plans::{self, PLAN_ROWS, Plan};
use super::runner::TractRunner;
use super::types::{datum_type, element_type};
use super::{
    CompiledInfo, CompiledModel, LoadError, RunError, Runner, brief, footprint, invariance,
    live_rows, samples, support,
};
use crate::codec::Columns;
use crate::model::{Signature, TensorSpec};

/// The other batch size at which the outputs' shapes are computed. Prime, so that no reshape that
/// folds rows into another axis fits it by chance.
const OTHER_ROWS: usize = 7;

/// How to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompileOptions {
    /// Rows of the only plan where the model leaves the batch size open; `None` makes several.
    pub plan_rows: Option<usize>,
    /// What the file may hold at most.
    pub limits: LoadLimits,
}

/// Compiles `bytes`, runs them on zeros, and finds out whether rows are independent.
pub fn compile(
    bytes: &[u8],
    options: &CompileOptions,
) -> Result<Arc<dyn CompiledModel>, LoadError> {
    let file = onnx_file::parse(bytes, &options.limits)?;
    Ok(Arc::new(compile_file(&file, options)?))
}

fn compile_file(file: &OnnxFile, options: &CompileOptions) -> Result<TractModel, LoadError> {
    let OnnxFile {
        proto,
        maps,
        summary,
    } = file;
    support::check(summary)?;
    let (inputs, fixed_rows) = axes::inputs(&maps.declared_inputs(&summary.inputs), maps)?;
    let only = fixed_rows.or(options.plan_rows);
    let rows = only.unwrap_or(PLAN_ROWS);
    axes::check_size(&inputs, rows, &options.limits)?;

    let parsed = guarded(|| plan::parse(proto)).map_err(refused)?;
    let packed = Packed::default();
    let plan::Prepared { model, failure } =
        plan::prepare(&parsed, &facts(&inputs, rows), &packed).map_err(refused)?;
    let outputs = axes::outputs(&summary.outputs, maps, &computed(&model)?, rows)?;
    plan::check_bounded(&model)?;
    if fixed_rows.is_none() {
        let other = other_shapes(&parsed, &inputs)?;
        axes::same_rows(
            &outputs,
            &axes::outputs(&summary.outputs, maps, &other, OTHER_ROWS)?,
        )?;
    }

    let simplified = failure.is_none();
    let work = plan::multiplications(&model) / rows.max(1);
    let graph = guarded(|| TypedSimplePlan::new(model))
        .map_err(|error| refused(failure.unwrap_or(error)))?;
    let main = Plan { rows, graph };
    let signature = Arc::new(Signature { inputs, outputs });
    let mut runner = TractRunner::new(std::slice::from_ref(&main), None, Arc::clone(&signature));
    // Made-up rows hold no known categories; that is not what is tried out.
    let time = live_rows::on_trial(|| {
        run_on_zeros(&mut runner, &signature)?;
        Ok(plans::time(&mut runner, &signature, rows))
    })?;
    let mut plans = vec![main];
    if only.is_none() {
        for rows in plans::others(time, summary.initialiser_bytes) {
            let fits = axes::check_size(&signature.inputs, rows, &options.limits).is_ok();
            plans.extend(
                fits.then(|| another(&parsed, file, &signature, rows, simplified, &packed))
                    .flatten(),
            );
        }
        plans.sort_by_key(|plan| plan.rows);
    }
    Ok(live_rows::on_trial(|| {
        // A weight of four bytes is multiplied once a row, but in a convolution.
        let weights = summary.initialiser_bytes.max(4 * work);
        first_invariant(&plans, rows, signature, weights)
    }))
}

/// A plan of another size, if it can be made in the same way and computes the same outputs.
fn another(
    parsed: &InferenceModel,
    file: &OnnxFile,
    signature: &Signature,
    rows: usize,
    simplified: bool,
    packed: &Packed,
) -> Option<Plan> {
    let prepared = plan::prepare(parsed, &facts(&signature.inputs, rows), packed).ok()?;
    let outputs = axes::outputs(
        &file.summary.outputs,
        &file.maps,
        &computed(&prepared.model).ok()?,
        rows,
    )
    .ok()?;
    if outputs != signature.outputs || prepared.failure.is_none() != simplified {
        return None;
    }
    plan::check_bounded(&prepared.model).ok()?;
    let graph = guarded(|| TypedSimplePlan::new(prepared.model)).ok()?;
    Some(Plan { rows, graph })
}

/// The first set of plans in which a row's bits do not depend on its batch; where there is none,
/// the plan of `main` rows alone.
fn first_invariant(
    plans: &[Plan],
    main: usize,
    signature: Arc<Signature>,
    weights: usize,
) -> TractModel {
    let direct = plans.first().and_then(|plan| Direct::of(&plan.graph));
    let mut model = TractModel {
        plans: Vec::new(),
        direct,
        info: CompiledInfo {
            runtime: "tract",
            batch_invariant: false,
            plan_rows: main,
            plans: 0,
            plan_bytes: 0,
        },
        signature,
    };
    for set in plans::sets(plans, main) {
        let sizes = invariance::sizes_of_plans(set.iter().map(|plan| plan.rows));
        model.info.plan_rows = set.last().map_or(main, |plan| plan.rows);
        // The last one runs whatever is found.
        let purpose = match set.len() {
            0 | 1 => Purpose::Report,
            _ => Purpose::Decide { weights },
        };
        model.plans = set;
        let mut runner = model.new_runner();
        if invariance::holds(&mut runner, &model.signature, &sizes, purpose) {
            model.info.batch_invariant = true;
            break;
        }
    }
    model.info.plans = model.plans.len();
    model.info.plan_bytes = footprint::bytes(&model.plans);
    model
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn refused(trouble: Trouble) -> LoadError {
    LoadError::new(trouble.to_string())
}

/// What the inputs are for a batch of `rows`.
fn facts(inputs: &[TensorSpec], rows: usize) -> Vec<InferenceFact> {
    let fact = |spec: &TensorSpec| {
        let axes = [rows].into_iter().chain(spec.row_shape.iter().copied());
        let shape: Vec<_> = axes.map(|axis| axis.to_dim()).collect();
        InferenceFact::dt_shape(datum_type(spec.element), shape)
    };
    inputs.iter().map(fact).collect()
}

/// What the outputs are for a batch of [`OTHER_ROWS`].
fn other_shapes(
    parsed: &InferenceModel,
    inputs: &[TensorSpec],
) -> Result<Vec<Computed>, LoadError> {
    let facts = facts(inputs, OTHER_ROWS);
    let model = guarded(|| plan::typed(parsed, &facts));
    let failed = |error: Trouble| {
        LoadError::new(format!(
            "the model takes any batch size by its inputs, but fails for {OTHER_ROWS} rows: {error}"
        ))
    };
    let shapes = computed(&model.map_err(failed)?)?;
    if shapes.iter().all(|output| !output.shape.contains(&None)) {
        return Ok(shapes);
    }
    // Shapes that hang on inner values are known only once those are folded.
    let model = guarded(|| plan::typed(parsed, &facts)?.into_optimized());
    computed(&model.map_err(failed)?)
}

fn computed(model: &TypedModel) -> Result<Vec<Computed>, LoadError> {
    let outlets = model.output_outlets();
    let outlets = outlets.map_err(|error| LoadError::new(brief(&error)))?;
    outlets
        .iter()
        .map(|outlet| {
            let fact = model.outlet_fact(*outlet);
            let fact = fact.map_err(|error| LoadError::new(brief(&error)))?;
            Ok(Computed {
                element: element_type(fact.datum_type),
                shape: fact.shape.iter().map(|dim| dim.to_usize().ok()).collect(),
            })
        })
        .collect()
}

/// A plan that fails on zeros would fail on every batch that is padded. What the numbers are does
/// not matter.
fn run_on_zeros(runner: &mut dyn Runner, signature: &Signature) -> Result<(), LoadError> {
    let zeros = samples::zeros(&signature.inputs, 1);
    let mut outputs = Columns::new(&signature.outputs);
    runner
        .run(&zeros, &mut outputs)
        .map_err(|error| LoadError::new(format!("fails on a batch of zeros: {error}")))
}

/// A model that tract runs.
struct TractModel {
    plans: Vec<Plan>,
    direct: Option<Direct>,
    signature: Arc<Signature>,
    info: CompiledInfo,
}

impl TractModel {
    fn new_runner(&self) -> TractRunner {
        TractRunner::new(
            &self.plans,
            self.direct.clone(),
            Arc::clone(&self.signature),
        )
    }
}

impl fmt::Debug for TractModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TractModel")
            .field("signature", &self.signature)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl CompiledModel for TractModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn info(&self) -> &CompiledInfo {
        &self.info
    }

    fn runner(&self) -> Result<Box<dyn Runner>, RunError> {
        Ok(Box::new(self.new_runner()))
    }
}
