//! Operators of the standard domain on strings and n-grams, which tract lacks: what scikit-learn's
//! text pipelines are exported as.

mod string_concat;
mod string_normalizer;
mod string_split;
mod tf_idf_vectorizer;

use tract_onnx::model::OnnxOpRegister;

/// Adds the operators.
pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("StringConcat", string_concat::string_concat);
    operators.insert("StringNormalizer", string_normalizer::string_normalizer);
    operators.insert("StringSplit", string_split::string_split);
    operators.insert("TfIdfVectorizer", tf_idf_vectorizer::tf_idf_vectorizer);
}
