//! The one tract operator behind all operators of our own: a [`Kernel`] says what its outputs are
//! and computes them; everything that tract wants to know besides is answered here.

use std::fmt;
use std::sync::Arc;

use tract_onnx::prelude::{
    DatumType, SpecialOps, TDim, TVec, TractResult, TypedFact, TypedModel, TypedOp,
};
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{
    Cost, DatumTypeExt, EvalContext, EvalOp, Expansion, Op, OutletId, StaticName, TValue, as_op,
    check_input_arity, check_output_arity, expand, op_as_typed_op, op_out_of_plan, tvec,
};

use super::direct::{Finish, Score};

/// An operator as we write it.
pub(in crate::runtime) trait Kernel: fmt::Debug + Send + Sync + 'static {
    /// The ONNX name.
    fn name(&self) -> &'static str;

    /// How many inputs the node has.
    fn inputs(&self) -> usize {
        1
    }

    /// How many outputs the node has.
    fn outputs(&self) -> usize {
        1
    }

    /// How many multiplications a run takes, where it is known and they are many.
    fn multiplications(&self) -> usize {
        0
    }

    /// Type and shape of the outputs, or why the inputs do not fit.
    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>>;

    /// The kernel as what scores rows of floats, if it is that.
    fn score(&self) -> Option<&dyn Score> {
        None
    }

    /// The kernel as what changes rows of floats where they lie, if it is that.
    fn finish(&self) -> Option<&dyn Finish> {
        None
    }

    /// Bytes of the tables that it keeps.
    fn bytes(&self) -> usize {
        0
    }

    /// The outputs, exactly as [`Kernel::facts`] announced them. A row of them depends on the same
    /// row of the inputs only, and is computed in the same order wherever it lies.
    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>>;
}

/// Type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct Fact {
    pub(in crate::runtime) element: DatumType,
    pub(in crate::runtime) shape: TVec<TDim>,
}

impl Fact {
    pub(in crate::runtime) fn new(
        element: DatumType,
        shape: impl IntoIterator<Item = TDim>,
    ) -> Self {
        Self {
            element,
            shape: shape.into_iter().collect(),
        }
    }

    fn of(fact: &TypedFact) -> Self {
        Self::new(fact.datum_type, fact.shape.iter().cloned())
    }
}

/// What a builder of tract's gives back.
pub(in crate::runtime) type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// `kernel` as a builder of tract's gives it back.
pub(in crate::runtime) fn operator(kernel: impl Kernel) -> (Box<dyn InferenceOp>, Vec<String>) {
    (expand(OwnOperator(Arc::new(kernel))), Vec::new())
}

/// `kernel` as an operator of a graph whose types and shapes are known.
pub(in crate::runtime) fn typed(kernel: impl Kernel) -> Box<dyn TypedOp> {
    Box::new(OwnOperator(Arc::new(kernel)))
}

/// A kernel as tract sees it.
#[derive(Clone)]
struct OwnOperator(Arc<dyn Kernel>);

impl fmt::Debug for OwnOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl PartialEq for OwnOperator {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for OwnOperator {}

/// `op` as a [`Kernel`], if it is one.
pub(super) fn of(op: &dyn TypedOp) -> Option<&dyn Kernel> {
    let OwnOperator(kernel) = op.downcast_ref()?;
    Some(&**kernel)
}

/// Where the tables of `op` lie and how long they are, if it is a [`Kernel`].
pub(super) fn held(op: &dyn TypedOp) -> Option<(usize, usize)> {
    let OwnOperator(kernel) = op.downcast_ref()?;
    Some((Arc::as_ptr(kernel).addr(), kernel.bytes()))
}

impl Op for OwnOperator {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for OwnOperator {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.eval(&inputs)
    }
}

impl TypedOp for OwnOperator {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let inputs: Vec<Fact> = inputs.iter().map(|fact| Fact::of(fact)).collect();
        let outputs = self.0.facts(&inputs)?;
        Ok(outputs
            .into_iter()
            .map(|fact| fact.element.fact(fact.shape))
            .collect())
    }

    fn cost(&self, _: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let multiplications = TDim::from(self.0.multiplications());
        Ok(tvec!((Cost::FMA(DatumType::F32), multiplications)))
    }

    as_op!();
}

impl Expansion for OwnOperator {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.0.outputs())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.0.inputs())?;
        check_output_arity(outputs, self.0.outputs())?;
        let elements = inputs.iter().map(|input| &input.datum_type);
        solver.given_all(elements, move |solver, elements| {
            let shapes = inputs.iter().map(|input| &input.shape);
            solver.given_all(shapes, move |solver, shapes| {
                let pairs = elements.iter().zip(shapes);
                let inputs: Vec<Fact> = pairs
                    .map(|(element, shape)| Fact::new(*element, shape))
                    .collect();
                for (output, fact) in outputs.iter().zip(self.0.facts(&inputs)?) {
                    solver.equals(&output.datum_type, fact.element)?;
                    solver.equals(&output.shape, fact.shape)?;
                }
                Ok(())
            })
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}
