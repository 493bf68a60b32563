//! Operators of tract's that round coarsely, computed more precisely: Fourier transforms, and the
//! gates of recurrent nets, which take differences of what is nearly equal.

use tract_onnx::prelude::{
    DatumType, IntoTValue, TValue, TVec, Tensor, TractResult, TypedFact, TypedModel,
};
use tract_onnx::tract_core::internal::{EvalContext, EvalOp, Op, StaticName, TypedOp};
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_core::ops::fft::Fft;
use tract_onnx::tract_core::ops::nn::Sigmoid;
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_core::{as_op, op_as_typed_op, op_out_of_plan};

/// Replaces them in `model` and in the bodies of its loops.
pub(crate) fn make_precise(model: &mut TypedModel) {
    replace(model, false);
}

fn replace(model: &mut TypedModel, in_loop: bool) {
    for node in &mut model.nodes {
        if let Some(fft) = node.op_as::<Fft>() {
            node.op = Box::new(PreciseFft(fft.clone()));
        } else if let Some(scan) = node.op.downcast_mut::<Scan>() {
            replace(&mut scan.body, true);
        } else if in_loop
            && let Some(op) = node.op.downcast_mut::<ElementWiseOp>()
            && op.0.is::<Sigmoid>()
        {
            op.0 = Box::new(PreciseSigmoid);
        }
    }
}

/// A Fourier transform in double precision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PreciseFft(Fft);

impl Op for PreciseFft {
    fn name(&self) -> StaticName {
        "PreciseFft".into()
    }

    op_as_typed_op!();
}

impl EvalOp for PreciseFft {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let types: Vec<DatumType> = inputs.iter().map(|input| input.datum_type()).collect();
        let wide = inputs
            .iter()
            .map(|input| Ok(input.cast_to::<f64>()?.into_owned().into_tvalue()));
        let outputs = self.0.eval(context, wide.collect::<TractResult<_>>()?)?;
        let narrow = outputs.iter().zip(types);
        narrow
            .map(|(output, dt)| Ok(output.cast_to_dt(dt)?.into_owned().into_tvalue()))
            .collect()
    }
}

impl TypedOp for PreciseFft {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    as_op!();
}

/// The logistic function to the last bits: tract's stops a millionth short of 1, and a GRU
/// subtracts it from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PreciseSigmoid;

impl ElementWiseMiniOp for PreciseSigmoid {
    fn name(&self) -> String {
        "PreciseSigmoid".to_owned()
    }

    fn eval_in_place(&self, tensor: &mut Tensor, _to: Option<DatumType>) -> TractResult<()> {
        if tensor.datum_type() != DatumType::F32 {
            return Sigmoid {}.eval_in_place(tensor, None);
        }
        let mut view = tensor.try_as_plain_ram_mut()?;
        view.as_slice_mut::<f32>()?
            .iter_mut()
            .for_each(|x| *x = sigmoid(*x));
        Ok(())
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Within two units of the last place between ±87, and constant beyond. Without branches or calls,
/// so that the compiler makes vectors of it.
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    // The logarithm of 2 in two parts, so that what is left has all its bits.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 87.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let series = [
        1.987_569_1e-4,
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let tail = series.iter().fold(0.0, |sum, c| sum * r + c);
    let power = f32::from_bits((n as i32 + 127).cast_unsigned() << 23);
    (tail * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_the_last_bits() {
        for step in -87_000..=87_000 {
            let x = step as f32 / 1000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}) is off by {error:e}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert_eq!(sigmoid(20.0), 1.0);
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37);
        assert!(sigmoid(f32::NAN).is_nan());
    }
}
