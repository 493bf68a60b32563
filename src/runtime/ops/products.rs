//! Finds the products of matrices in a graph that tract has simplified, the bodies of its loops
//! included, and puts ours in their place, with the bias and the `Relu` behind them.

use tract_onnx::prelude::{
    DatumType, OutletId, Tensor, TractResult, TypedModel, TypedModelPatch, TypedNode,
};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::scan::Scan;

use super::kernel::typed;
use super::product::Product;
use super::tensors::values;

/// Replaces every product of floats.
pub(super) fn replace_products(model: &mut TypedModel) -> TractResult<()> {
    // One by one: a patch clears nodes away that others would build on. New nodes come last.
    let mut id = 0;
    while let Some(node) = model.nodes.get(id) {
        if let Some(patch) = patch(model, node)? {
            patch.apply(model)?;
        }
        id += 1;
    }
    for node in &mut model.nodes {
        if let Some(scan) = node.op.downcast_mut::<Scan>() {
            replace_products(&mut scan.body)?;
        }
    }
    Ok(())
}

fn patch(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some((mut product, inputs)) = product(model, node) else {
        return Ok(None);
    };
    let mut last = node;
    if let Some((next, bias)) = next(model, last, "Add")
        && product.add(&bias)
    {
        last = next;
    }
    if let Some((next, least)) = next(model, last, "Max")
        && values::<f32>(&least).is_ok_and(|least| least.iter().all(|least| *least == 0.0))
    {
        product.finish.relu = true;
        last = next;
    }
    let mut patch = TypedModelPatch::new("a product");
    let taps = patch.taps(model, &inputs)?;
    let wires = patch.wire_node(&node.name, typed(product), &taps)?;
    if let Some(wire) = wires.first() {
        patch.shunt_outside(model, last.id.into(), *wire)?;
    }
    Ok(Some(patch))
}

/// The product that `node` computes, and where its inputs come from.
fn product(model: &TypedModel, node: &TypedNode) -> Option<(Product, Vec<OutletId>)> {
    let op = node.op_as::<EinSum>()?;
    let [first, second] = *node.inputs else {
        return None;
    };
    let facts = [
        model.outlet_fact(first).ok()?,
        model.outlet_fact(second).ok()?,
    ];
    let [a, b] = facts;
    if [a, b].iter().any(|fact| fact.datum_type != DatumType::F32) {
        return None;
    }
    let shapes = [a.shape.as_concrete()?, b.shape.as_concrete()?];
    let constants = [a.konst.as_deref(), b.konst.as_deref()];
    let product = Product::of(op, shapes, constants)?;
    let inputs = product.inputs().into_iter().flatten();
    let inputs = inputs
        .filter_map(|index| node.inputs.get(index).copied())
        .collect();
    Some((product, inputs))
}

/// The only node that reads `node`, if it is an operation of this name with a constant.
fn next<'a>(
    model: &'a TypedModel,
    node: &TypedNode,
    name: &str,
) -> Option<(&'a TypedNode, std::sync::Arc<Tensor>)> {
    if model.outputs.contains(&node.id.into()) {
        return None;
    }
    let next = model.single_succ(node.id).ok()??;
    let op = next.op_as::<TypedBinOp>()?;
    let same = |outlet: OutletId| {
        let before = model.outlet_fact(node.id.into()).ok()?;
        let after = model.outlet_fact(outlet).ok()?;
        (before.shape == after.shape && before.datum_type == after.datum_type).then_some(())
    };
    if op.0.name() != name || op.1.is_some() {
        return None;
    }
    same(next.id.into())?;
    let other = next.inputs.iter().find(|input| input.node != node.id)?;
    let constant = model.outlet_fact(*other).ok()?.konst.clone()?;
    Some((next, constant))
}
