//! Operators of our own, registered with tract: those that it lacks, and those that it gets wrong
//! or rounds by a row's place in memory.
//!
//! Each but the trees is a [`kernel::Kernel`]: pure functions over row-major values, every row computed
//! independently of its batch and of its position in it, in a fixed order.

mod array_feature_extractor;
mod attributes;
mod binarizer;
mod convolution;
mod convolutions;
mod coupling;
mod depthwise;
pub(in crate::runtime) mod direct;
mod feature_vectorizer;
mod images;
mod imputer;
mod kernel;
mod label_encoder;
mod labels;
mod linear;
mod lookup;
mod math;
mod normalizer;
mod one_hot_encoder;
mod packed;
mod panels;
mod post_transform;
mod product;
mod products;
mod reduce;
mod replace;
mod rows;
mod scaler;
mod softmax;
mod svm;
mod svm_classifier;
mod svm_regressor;
mod tensors;
mod text;
mod trees;
mod weights;
mod wide;

use tract_onnx::Onnx;
use tract_onnx::prelude::TypedOp;

pub(super) use packed::Packed;
pub(super) use replace::replace;
pub(super) use wide::fused;

/// The operators of the domain `ai.onnx.ml` that are registered here.
pub(super) const ML_OPERATORS: [&str; 16] = [
    "ArrayFeatureExtractor",
    "Binarizer",
    "CategoryMapper",
    "FeatureVectorizer",
    "Imputer",
    "LabelEncoder",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "OneHotEncoder",
    "Scaler",
    "SVMClassifier",
    "SVMRegressor",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
];

/// tract's reader of ONNX, with our operators.
pub(super) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    register(&mut onnx);
    onnx
}

/// Where the tables of an operator of ours lie and how many bytes they are.
pub(super) fn held(op: &dyn TypedOp) -> Option<(usize, usize)> {
    trees::held(op).or_else(|| kernel::held(op))
}

/// Adds the operators to `onnx`, over its own of the same name.
fn register(onnx: &mut Onnx) {
    let register = &mut onnx.op_register;
    register.insert(
        "ArrayFeatureExtractor",
        array_feature_extractor::array_feature_extractor,
    );
    register.insert("Binarizer", binarizer::binarizer);
    register.insert("CategoryMapper", label_encoder::category_mapper);
    register.insert("FeatureVectorizer", feature_vectorizer::feature_vectorizer);
    register.insert("Imputer", imputer::imputer);
    register.insert("LabelEncoder", label_encoder::label_encoder);
    register.insert("LinearClassifier", linear::classifier);
    register.insert("LinearRegressor", linear::regressor);
    register.insert("Normalizer", normalizer::normalizer);
    register.insert("OneHotEncoder", one_hot_encoder::one_hot_encoder);
    register.insert("Scaler", scaler::scaler);
    register.insert("SVMClassifier", svm_classifier::classifier);
    register.insert("SVMRegressor", svm_regressor::regressor);
    text::register(register);
    trees::register(register);
}
