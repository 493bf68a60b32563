//! What plans hold for as long as a model is loaded.

use std::collections::BTreeMap;

use tract_onnx::tract_core::ops::konst::Const;

use super::ops;
use super::plans::Plan;

/// Bytes of the constants and tables of `plans`; what they share is counted once. What a worker
/// holds while it runs them comes on top.
pub(super) fn bytes(plans: &[Plan]) -> usize {
    let mut held = BTreeMap::new();
    let nodes = plans.iter().flat_map(|plan| &plan.graph.model().nodes);
    for node in nodes {
        if let Some(constant) = node.op_as::<Const>() {
            let tensor = constant.val();
            let size = tensor.len() * tensor.datum_type().size_of();
            held.insert(std::sync::Arc::as_ptr(tensor).addr(), size);
        } else if let Some((place, size)) = ops::held(&*node.op) {
            held.insert(place, size);
        }
    }
    held.values().sum()
}
