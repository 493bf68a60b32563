//! The attributes of a node, with messages that name it.

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Tensor, TractResult};
use tract_onnx::tract_hir::internal::bail;

/// A list of floats; empty where it is absent.
pub(super) fn floats(node: &NodeProto, name: &str) -> TractResult<Vec<f32>> {
    Ok(node.get_attr_opt_vec(name)?.unwrap_or_default())
}

/// A list of integers; empty where it is absent.
pub(super) fn ints(node: &NodeProto, name: &str) -> TractResult<Vec<i64>> {
    Ok(node.get_attr_opt_vec(name)?.unwrap_or_default())
}

/// A list of strings; empty where it is absent.
pub(super) fn strings(node: &NodeProto, name: &str) -> TractResult<Vec<String>> {
    Ok(node.get_attr_opt_vec(name)?.unwrap_or_default())
}

/// An integer.
pub(super) fn int(node: &NodeProto, name: &str, default: i64) -> TractResult<i64> {
    Ok(node.get_attr_opt(name)?.unwrap_or(default))
}

/// A float.
pub(super) fn float(node: &NodeProto, name: &str, default: f32) -> TractResult<f32> {
    Ok(node.get_attr_opt(name)?.unwrap_or(default))
}

/// A string.
pub(super) fn string(node: &NodeProto, name: &str, default: &str) -> TractResult<String> {
    Ok(node
        .get_attr_opt(name)?
        .unwrap_or_else(|| default.to_owned()))
}

/// A tensor.
pub(super) fn tensor(node: &NodeProto, name: &str) -> TractResult<Option<Tensor>> {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    let proto = attribute.and_then(|attribute| attribute.t.as_ref());
    // A tensor without a type stands for none: the specification's way to write "no default".
    proto
        .filter(|proto| proto.data_type != 0)
        .map(|proto| load(node, name, proto))
        .transpose()
}

fn load(node: &NodeProto, name: &str, proto: &tract_onnx::pb::TensorProto) -> TractResult<Tensor> {
    let resolver = tract_onnx::data_resolver::MmapDataResolver;
    match tract_onnx::tensor::load_tensor(&resolver, proto, None) {
        Ok(tensor) => Ok(tensor),
        Err(error) => bail!("node {:?}, attribute {name:?}: {error}", node.name),
    }
}
