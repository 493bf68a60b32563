//! Compiles an ONNX file with tract: one plan of a fixed batch size, tried out before it is given
//! away.

use std::fmt;
use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{InferenceFact, TypedModel, TypedSimplePlan};
use tract_onnx::tract_hir::internal::{DimLike, ToDim};

use super::axes::{self, Computed};
use super::onnx_file::{self, LoadLimits, OnnxFile};
use super::plan::{self, Trouble, guarded};
use super::runner::TractRunner;
use super::types::{datum_type, element_type};
use super::{
    CompiledInfo, CompiledModel, LoadError, RunError, Runner, brief, invariance, live_rows,
    samples, support,
};
use crate::codec::Columns;
use crate::model::{Signature, TensorSpec};

/// Rows of a plan where the model leaves the batch size open.
pub const PLAN_ROWS: usize = 32;

/// The other batch size at which the outputs' shapes are computed. Prime, so that no reshape that
/// folds rows into another axis fits it by chance.
const OTHER_ROWS: usize = 7;

/// How to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileOptions {
    /// Rows of the plan where the model leaves the batch size open.
    pub plan_rows: usize,
    /// What the file may hold at most.
    pub limits: LoadLimits,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            plan_rows: PLAN_ROWS,
            limits: LoadLimits::default(),
        }
    }
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
    let rows = fixed_rows.unwrap_or(options.plan_rows);
    axes::check_size(&inputs, rows, &options.limits)?;

    let plan::Prepared { model, failure } =
        plan::prepare(proto, &facts(&inputs, rows)).map_err(|t| refused(&t))?;
    let outputs = axes::outputs(&summary.outputs, maps, &computed(&model)?, rows)?;
    plan::check_bounded(&model)?;
    if fixed_rows.is_none() {
        let other = other_shapes(proto, &inputs)?;
        axes::same_rows(
            &outputs,
            &axes::outputs(&summary.outputs, maps, &other, OTHER_ROWS)?,
        )?;
    }

    let plan = guarded(|| TypedSimplePlan::new(model))
        .map_err(|error| refused(&failure.unwrap_or(error)))?;
    let mut model = TractModel {
        plan,
        signature: Arc::new(Signature { inputs, outputs }),
        info: CompiledInfo {
            runtime: "tract",
            batch_invariant: false,
            plan_rows: rows,
        },
    };
    let mut runner = model.new_runner();
    // Made-up rows hold no known categories; that is not what is tried out.
    model.info.batch_invariant = live_rows::on_trial(|| {
        run_on_zeros(&mut runner, &model.signature)?;
        Ok(invariance::holds(&mut runner, &model.signature, rows))
    })?;
    Ok(model)
}

fn refused(trouble: &Trouble) -> LoadError {
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
fn other_shapes(proto: &ModelProto, inputs: &[TensorSpec]) -> Result<Vec<Computed>, LoadError> {
    let facts = facts(inputs, OTHER_ROWS);
    let model = guarded(|| plan::typed(proto, &facts));
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
    let model = guarded(|| plan::typed(proto, &facts)?.into_optimized());
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
    plan: Arc<TypedSimplePlan>,
    signature: Arc<Signature>,
    info: CompiledInfo,
}

impl TractModel {
    fn new_runner(&self) -> TractRunner {
        TractRunner::new(
            Arc::clone(&self.plan),
            Arc::clone(&self.signature),
            self.info.plan_rows,
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
