//! `StringNormalizer`: upper or lower case, and stop words left out.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/nn/string_normalizer.cc`): where
//! the case counts for nothing, stop words and strings are compared in one; if no string is left,
//! there is an empty one. A letter whose other case is no single letter stays as it is; locales
//! do not matter.

use std::collections::HashSet;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, TDim, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::{ToDim, bail};

use super::super::attributes;
use super::super::kernel::{Built, Fact, Kernel, operator};
use super::super::tensors::{input, tensor_of, values};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
}

impl Case {
    fn apply(self, text: &str) -> String {
        let one = |letter: char, mut other: std::iter::Peekable<_>| {
            let changed: Option<char> = Iterator::next(&mut other);
            match (changed, other.peek()) {
                (Some(changed), None) => changed,
                _ => letter,
            }
        };
        let mapped = |letter: char| match self {
            Self::Lower => one(letter, Letters::Lower(letter.to_lowercase()).peekable()),
            Self::Upper => one(letter, Letters::Upper(letter.to_uppercase()).peekable()),
        };
        text.chars().map(mapped).collect()
    }
}

/// The letters that another case of a letter is.
enum Letters {
    Lower(std::char::ToLowercase),
    Upper(std::char::ToUppercase),
}

impl Iterator for Letters {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Lower(letters) => letters.next(),
            Self::Upper(letters) => letters.next(),
        }
    }
}

#[derive(Debug)]
struct StringNormalizer {
    change: Option<Case>,
    /// What stop words are compared in.
    compare: Option<Case>,
    stop_words: HashSet<String>,
    /// The length of what is left, where stop words are left out.
    left: TDim,
}

/// Builds `StringNormalizer`.
pub(super) fn string_normalizer(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let action = attributes::string(node, "case_change_action", "NONE")?;
    let change = match action.as_str() {
        "NONE" => None,
        "LOWER" => Some(Case::Lower),
        "UPPER" => Some(Case::Upper),
        other => bail!("has the case_change_action {other:?}"),
    };
    let sensitive = attributes::int(node, "is_case_sensitive", 0)? != 0;
    let compare = (!sensitive).then(|| change.unwrap_or(Case::Lower));
    let words = attributes::strings(node, "stopwords")?.into_iter();
    Ok(operator(StringNormalizer {
        change,
        compare,
        stop_words: words.map(|word| cased(compare, &word)).collect(),
        left: context.template.symbols.new_with_prefix("words").to_dim(),
    }))
}

fn cased(case: Option<Case>, text: &str) -> String {
    case.map_or_else(|| text.to_owned(), |case| case.apply(text))
}

impl Kernel for StringNormalizer {
    fn name(&self) -> &'static str {
        "StringNormalizer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [Fact { element, shape }] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        if *element != String::datum_type() {
            bail!("takes strings, not {element:?}");
        }
        let mut shape = shape.clone();
        match shape.as_slice() {
            [_] => {}
            [rows, _] if *rows == TDim::from(1) => {}
            _ => bail!("takes strings of the shape [C] or [1, C], not {shape:?}"),
        }
        let none = shape.last() == Some(&TDim::from(0));
        if let Some(count) = shape.last_mut() {
            match (none, self.stop_words.is_empty()) {
                (true, _) => *count = TDim::from(1),
                (false, true) => {}
                (false, false) => *count = self.left.clone(),
            }
        }
        Ok(tvec!(Fact::new(*element, shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let mut left = Vec::new();
        for text in values::<String>(x)? {
            let stops =
                !self.stop_words.is_empty() && self.stop_words.contains(&cased(self.compare, text));
            if !stops {
                left.push(cased(self.change, text));
            }
        }
        if left.is_empty() {
            left.push(String::new());
        }
        let mut shape = x.shape().to_vec();
        if let Some(count) = shape.last_mut() {
            *count = left.len();
        }
        Ok(tvec!(tensor_of(&shape, left)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalizer(change: Option<Case>, sensitive: bool, words: &[&str]) -> StringNormalizer {
        let compare = (!sensitive).then(|| change.unwrap_or(Case::Lower));
        let words = words.iter().map(|word| cased(compare, word));
        StringNormalizer {
            change,
            compare,
            stop_words: words.collect(),
            left: TDim::from(7),
        }
    }

    fn normalized(kernel: &StringNormalizer, texts: &[&str]) -> Vec<String> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        let x = tensor_of(&[texts.len()], texts).unwrap();
        let y = kernel.eval(&[x]).unwrap();
        values::<String>(&y[0]).unwrap().to_vec()
    }

    #[test]
    fn words_are_left_out_and_the_case_is_changed() {
        let texts = ["Monday", "tuesday", "MONDAY", "ÄSTRASSE", "ß"];
        let lower = normalizer(Some(Case::Lower), false, &["Monday"]);
        assert_eq!(normalized(&lower, &texts), ["tuesday", "ästrasse", "ß"]);
        let upper = normalizer(Some(Case::Upper), true, &["Monday"]);
        assert_eq!(
            normalized(&upper, &texts),
            ["TUESDAY", "MONDAY", "ÄSTRASSE", "ß"]
        );
        let none = normalizer(None, false, &["TUESDAY", "monday", "ß"]);
        assert_eq!(normalized(&none, &texts), ["ÄSTRASSE"]);
        assert_eq!(normalized(&none, &["Monday"]), [""]);
        assert_eq!(normalized(&normalizer(None, true, &[]), &["Aé"]), ["Aé"]);
    }

    #[test]
    fn the_size_is_known_without_stop_words_alone() {
        let fact = |shape: &[usize]| {
            let shape: Vec<TDim> = shape.iter().map(|axis| TDim::from(*axis)).collect();
            [Fact::new(String::datum_type(), shape)]
        };
        let length = |words: &[&str], shape: &[usize]| {
            let facts = normalizer(None, true, words).facts(&fact(shape));
            facts.map(|facts| facts[0].shape.last().cloned().unwrap())
        };
        assert_eq!(length(&[], &[3]).unwrap(), TDim::from(3));
        assert_eq!(length(&["a"], &[1, 3]).unwrap(), TDim::from(7));
        assert_eq!(length(&["a"], &[0]).unwrap(), TDim::from(1));
        assert!(length(&[], &[2, 3]).is_err());
    }
}
