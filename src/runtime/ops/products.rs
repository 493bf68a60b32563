//! Finds the products of matrices in a graph that tract has simplified, the bodies of its loops
//! included, and puts ours in their place, with the bias and the `Relu` behind them.

use tract_onnx::prelude::{
    DatumType, OutletId, Tensor, TractResult, TypedModel, TypedModelPatch, TypedNode,
};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::scan::Scan;

use super::kernel::typed;
use super::packed::Packed;
use super::panels::Finish;
use super::product::Product;
use super::tensors::values;

/// Replaces every product of floats.
pub(super) fn replace_products(model: &mut TypedModel, packed: &Packed) -> TractResult<()> {
    // One by one: a patch clears nodes away that others would build on. New nodes come last.
    let mut id = 0;
    while let Some(node) = model.nodes.get(id) {
        if let Some(patch) = patch(model, node, packed)? {
            patch.apply(model)?;
        }
        id += 1;
    }
    for node in &mut model.nodes {
        if let Some(scan) = node.op.downcast_mut::<Scan>() {
            replace_products(&mut scan.body, packed)?;
        }
    }
    Ok(())
}

fn patch(
    model: &TypedModel,
    node: &TypedNode,
    packed: &Packed,
) -> TractResult<Option<TypedModelPatch>> {
    let Some((mut product, inputs)) = product(model, node, packed) else {
        return Ok(None);
    };
    let mut last = node;
    if let Some((next, bias)) = next(model, last, "Add")
        && product.add(&bias)
    {
        last = next;
    }
    last = take_in_limits(model, last, &mut product.finish);
    let mut patch = TypedModelPatch::new("a product");
    let taps = patch.taps(model, &inputs)?;
    let wires = patch.wire_node(&node.name, typed(product), &taps)?;
    if let Some(wire) = wires.first() {
        patch.shunt_outside(model, last.id.into(), *wire)?;
    }
    Ok(Some(patch))
}

/// Takes in the `Relu` or `Clip` that follows `last`. The node behind which to go on.
pub(super) fn take_in_limits<'a>(
    model: &'a TypedModel,
    mut last: &'a TypedNode,
    finish: &mut Finish,
) -> &'a TypedNode {
    let same = |limits: &Tensor| match values::<f32>(limits).ok()? {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => Some(*first),
        _ => None,
    };
    if let Some((next, least)) = next(model, last, "Max")
        && same(&least) == Some(0.0)
    {
        finish.relu = true;
        last = next;
    }
    if let Some((next, most)) = next(model, last, "Min")
        && let Some(most) = same(&most)
        && !most.is_nan()
    {
        finish.most = Some(most);
        last = next;
    }
    last
}

/// The product that `node` computes, and where its inputs come from.
fn product(
    model: &TypedModel,
    node: &TypedNode,
    packed: &Packed,
) -> Option<(Product, Vec<OutletId>)> {
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
    let product = Product::of(op, shapes, constants, packed)?;
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
