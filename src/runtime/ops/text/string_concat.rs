//! `StringConcat`: strings of two tensors, one behind the other, broadcast as numbers are.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::tract_ndarray::IxDyn;
use tract_onnx::prelude::{Datum, TDim, TValue, TVec, Tensor, TractResult, tvec};
use tract_onnx::tract_core::broadcast::multi_broadcast;
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::super::kernel::{Built, Fact, Kernel, operator};
use super::super::tensors::{input, tensor_of};

#[derive(Debug)]
struct StringConcat;

/// Builds `StringConcat`.
#[expect(clippy::unnecessary_wraps, reason = "every builder has this form")]
pub(super) fn string_concat(_: &ParsingContext<'_>, _: &NodeProto) -> Built {
    Ok(operator(StringConcat))
}

/// The strings of `tensor`, repeated to `shape`.
fn repeated(tensor: &Tensor, shape: &[usize]) -> TractResult<Vec<String>> {
    let view = tensor.try_as_plain_ram()?;
    let strings = view.to_array_view::<String>()?;
    let strings = strings
        .broadcast(IxDyn(shape))
        .ok_or_else(|| anyhow!("{:?} does not fit {shape:?}", tensor.shape()))?;
    Ok(strings.iter().cloned().collect())
}

impl Kernel for StringConcat {
    fn name(&self) -> &'static str {
        "StringConcat"
    }

    fn inputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        if inputs.iter().any(|i| i.element != String::datum_type()) {
            bail!("takes strings");
        }
        let shapes: Vec<&[TDim]> = inputs.iter().map(|input| input.shape.as_slice()).collect();
        let shape = multi_broadcast(&shapes)?;
        Ok(tvec!(Fact::new(String::datum_type(), shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let shape = multi_broadcast(&[a.shape(), b.shape()])?;
        let mut all = repeated(a, &shape)?;
        for (text, end) in all.iter_mut().zip(repeated(b, &shape)?) {
            text.push_str(&end);
        }
        Ok(tvec!(tensor_of(&shape, all)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tensors::values;
    use super::*;

    #[test]
    fn strings_are_joined_and_broadcast() {
        let strings = |shape: &[usize], texts: &[&str]| {
            let texts = texts.iter().map(ToString::to_string).collect();
            tensor_of::<String>(shape, texts).unwrap()
        };
        let joined = |a, b| StringConcat.eval(&[a, b]).unwrap().remove(0);
        let one = joined(strings(&[2], &["a", "é"]), strings(&[], &["-"]));
        assert_eq!(values::<String>(&one).unwrap(), ["a-", "é-"]);
        let table = joined(strings(&[2, 1], &["a", "b"]), strings(&[2], &["x", ""]));
        assert_eq!(table.shape(), [2, 2]);
        assert_eq!(values::<String>(&table).unwrap(), ["ax", "a", "bx", "b"]);
        let bad = [strings(&[2], &["a", "b"]), strings(&[3], &["x", "y", "z"])];
        assert!(StringConcat.eval(&bad).is_err());
        let fact = |element| Fact::new(element, [TDim::from(2)]);
        let facts = [fact(String::datum_type()), fact(f32::datum_type())];
        assert!(StringConcat.facts(&facts).is_err());
    }
}
