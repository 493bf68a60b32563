//! `StringSplit`: the parts of each string, filled up with empty ones, and how many there are.
//!
//! As Python's `str.split`: without a delimiter between runs of white space, none of which is kept.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, TDim, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::{ToDim, anyhow, bail};

use super::super::attributes;
use super::super::kernel::{Built, Fact, Kernel, operator};
use super::super::tensors::{input, tensor_of, values};

#[derive(Debug)]
struct StringSplit {
    /// Empty for white space.
    delimiter: String,
    /// Splits at most.
    most: usize,
    /// Parts of the string that has the most.
    parts: TDim,
}

/// Builds `StringSplit`.
pub(super) fn string_split(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let most = match attributes::int(node, "maxsplit", -1)? {
        // A negative number is none.
        most if most < 0 => usize::MAX,
        most => usize::try_from(most)?,
    };
    Ok(operator(StringSplit {
        delimiter: attributes::string(node, "delimiter", "")?,
        most,
        parts: context.template.symbols.new_with_prefix("parts").to_dim(),
    }))
}

impl StringSplit {
    fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let most = self.most.saturating_add(1);
        if !self.delimiter.is_empty() {
            return match text {
                "" => Vec::new(),
                text => text.splitn(most, &self.delimiter).collect(),
            };
        }
        let mut parts = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = match parts.len() {
                splits if splits >= self.most => None,
                _ => rest.split_once(char::is_whitespace),
            };
            if let Some((part, behind)) = end {
                parts.push(part);
                rest = behind.trim_start();
            } else {
                parts.push(rest);
                rest = "";
            }
        }
        parts
    }
}

impl Kernel for StringSplit {
    fn name(&self) -> &'static str {
        "StringSplit"
    }

    fn outputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [Fact { element, shape }] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        if *element != String::datum_type() {
            bail!("takes strings, not {element:?}");
        }
        let mut parts = shape.clone();
        parts.push(self.parts.clone());
        Ok(tvec!(
            Fact::new(*element, parts),
            Fact::new(i64::datum_type(), shape.clone())
        ))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let texts = values::<String>(x)?;
        let split: Vec<Vec<&str>> = texts.iter().map(|text| self.split(text)).collect();
        let most = split.iter().map(Vec::len).max().unwrap_or_default();
        let total = most.checked_mul(split.len());
        let total = total.ok_or_else(|| anyhow!("there are too many parts"))?;
        let mut parts = Vec::with_capacity(total);
        for found in &split {
            let filled = found.iter().copied().chain(std::iter::repeat(""));
            parts.extend(filled.take(most).map(str::to_owned));
        }
        let mut shape = x.shape().to_vec();
        let counts = split.iter().map(|parts| parts.len() as i64).collect();
        let counts = tensor_of::<i64>(&shape, counts)?;
        shape.push(most);
        Ok(tvec!(tensor_of(&shape, parts)?, counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_split_as_python_splits_them() {
        let split = |delimiter: &str, most: usize, text: &'static str| {
            let kernel = StringSplit {
                delimiter: delimiter.to_owned(),
                most,
                parts: TDim::from(1),
            };
            kernel.split(text)
        };
        let no_end = usize::MAX;
        assert_eq!(split("", no_end, "  a b\t c "), ["a", "b", "c"]);
        assert_eq!(split("", 1, " a  b c "), ["a", "b c "]);
        assert_eq!(split("-", no_end, "a--b-"), ["a", "", "b", ""]);
        assert_eq!(split("-", 1, "a-b-c"), ["a", "b-c"]);
        assert_eq!(split(",", no_end, ""), [""; 0]);
        assert_eq!(split("", no_end, "  "), [""; 0]);
        assert_eq!(split("", 0, " a b"), ["a b"]);
    }
}
