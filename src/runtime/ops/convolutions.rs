//! Finds the convolutions in a graph that tract has simplified and puts ours in their place, with
//! the `Relu` or `Clip` behind them. Between ours the channels of a pixel lie side by side, through
//! poolings and operations on single values too: what a window sees is then a few long runs.

use std::collections::HashMap;

use tract_onnx::prelude::{
    DatumType, OutletId, TVec, TractResult, TypedModel, TypedModelPatch, TypedNode, TypedOp,
};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, MaxPool, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_hir::internal::anyhow;

use super::convolution::{Convolution, Kernels};
use super::depthwise::Depthwise;
use super::images::{Images, Window};
use super::kernel::typed;
use super::packed::Packed;
use super::panels::{Finish, Panels};
use super::products::take_in_limits;
use super::tensors::values;

/// What a node becomes.
enum Layer {
    Convolution(Box<Convolution>),
    /// The same as it was, on values in another order.
    Carried(Box<dyn TypedOp>),
}

/// A node with what is taken in behind it.
struct Found {
    layer: Layer,
    inputs: Vec<OutletId>,
    first: usize,
    /// The last node that it stands for.
    last: usize,
    /// Whether the channels of a pixel lie side by side in the result.
    channels_last: bool,
}

/// Replaces every convolution of floats with known kernels.
pub(super) fn replace_convolutions(model: &mut TypedModel, packed: &Packed) -> TractResult<()> {
    if !model.nodes.iter().any(TypedNode::op_is::<Conv>) {
        return Ok(());
    }
    let mut found = find(model, packed)?;
    choose_layouts(model, &mut found);
    let mut patch = TypedModelPatch::new("convolutions");
    // By what they take the place of, and whether the channels of a pixel lie side by side in them.
    let mut made: HashMap<OutletId, (OutletId, bool)> = HashMap::new();
    for found in found {
        let mut inputs = TVec::new();
        for input in &found.inputs {
            inputs.push(match made.get(input) {
                Some((made, _)) => *made,
                None => patch.tap_model(model, *input)?,
            });
        }
        let op = match found.layer {
            Layer::Convolution(mut convolution) => {
                let images = found.inputs.first().and_then(|images| made.get(images));
                convolution.from.channels_last = images.is_some_and(|(_, last)| *last);
                if found.channels_last {
                    convolution.put_channels_last();
                }
                typed(*convolution)
            }
            Layer::Carried(_) if !found.channels_last => continue,
            Layer::Carried(op) => op,
        };
        let last = OutletId::from(found.last);
        let wires = patch.wire_node(&model.node(found.last).name, op, &inputs)?;
        let wire = *wires.first().ok_or_else(|| anyhow!("it has no output"))?;
        made.insert(last, (wire, found.channels_last));
        if !found.channels_last {
            patch.shunt_outside(model, last, wire)?;
        }
    }
    patch.apply(model)
}

/// Convolutions, and what may stand between them, in the order in which they are computed.
fn find(model: &TypedModel, packed: &Packed) -> TractResult<Vec<Found>> {
    let mut found = Vec::new();
    let mut taken = Vec::new();
    for id in model.eval_order()? {
        let node = model.node(id);
        if taken.contains(&id) {
            continue;
        }
        let layer = match convolution(model, node, packed) {
            Some((convolution, last)) => {
                let inputs = node.inputs.iter().take(1).copied().collect();
                Some((Layer::Convolution(Box::new(convolution)), inputs, last))
            }
            None => carried(model, node).map(|op| (Layer::Carried(op), node.inputs.clone(), node)),
        };
        let Some((layer, inputs, last)) = layer else {
            continue;
        };
        let mut next = node;
        while next.id != last.id
            && let Some(successor) = model.single_succ(next.id)?
        {
            taken.push(successor.id);
            next = successor;
        }
        found.push(Found {
            layer,
            inputs,
            first: id,
            last: last.id,
            channels_last: true,
        });
    }
    Ok(found)
}

/// Channels lie side by side where all that read them can take that. What is carried has all its
/// images in one order.
fn choose_layouts(model: &TypedModel, found: &mut [Found]) {
    let by_first: HashMap<usize, usize> = found
        .iter()
        .enumerate()
        .map(|(index, found)| (found.first, index))
        .collect();
    let by_last: HashMap<usize, usize> = found
        .iter()
        .enumerate()
        .map(|(index, found)| (found.last, index))
        .collect();
    let images = |found: &Found| -> Vec<Option<usize>> {
        let images = found
            .inputs
            .iter()
            .filter(|input| !is_constant(model, **input));
        images
            .map(|input| by_last.get(&input.node).copied())
            .collect()
    };
    loop {
        let lies = |index: Option<usize>| {
            index
                .and_then(|index| found.get(index))
                .is_some_and(|found| found.channels_last)
        };
        let mut wrong = Vec::new();
        for (index, found) in found.iter().enumerate() {
            let outlet = OutletId::from(found.last);
            let mut readers = model.outlet_successors(outlet).iter();
            let read_otherwise = model.outputs.contains(&outlet)
                || !readers.all(|reader| by_first.contains_key(&reader.node));
            if read_otherwise {
                wrong.push(index);
            }
            if matches!(found.layer, Layer::Carried(_)) {
                let images = images(found);
                if !images.iter().all(|image| lies(*image)) {
                    wrong.push(index);
                }
                if !found.channels_last {
                    wrong.extend(images.into_iter().flatten());
                }
            }
        }
        let mut changed = false;
        for index in wrong {
            if let Some(found) = found.get_mut(index) {
                changed |= std::mem::take(&mut found.channels_last);
            }
        }
        if !changed {
            return;
        }
    }
}

fn is_constant(model: &TypedModel, outlet: OutletId) -> bool {
    model
        .outlet_fact(outlet)
        .is_ok_and(|fact| fact.konst.is_some())
}

/// `node` for images whose channels of a pixel lie side by side, if it is one of those that may
/// stand between convolutions.
fn carried(model: &TypedModel, node: &TypedNode) -> Option<Box<dyn TypedOp>> {
    let first_last = |spec: &PoolSpec| {
        let data_format = match spec.data_format {
            DataFormat::NCHW => DataFormat::NHWC,
            DataFormat::CHW => DataFormat::HWC,
            DataFormat::NHWC | DataFormat::HWC => return None,
        };
        Some(PoolSpec {
            data_format,
            ..spec.clone()
        })
    };
    if let Some(pool) = node.op_as::<MaxPool>() {
        let pool_spec = first_last(&pool.pool_spec)?;
        let op = MaxPool {
            pool_spec,
            ..pool.clone()
        };
        return pool
            .with_index_outputs
            .is_none()
            .then(|| Box::new(op) as Box<dyn TypedOp>);
    }
    if let Some(pool) = node.op_as::<SumPool>() {
        let pool_spec = first_last(&pool.pool_spec)?;
        return Some(Box::new(SumPool {
            pool_spec,
            ..pool.clone()
        }));
    }
    if !node.op_is::<ElementWiseOp>() && !node.op_is::<TypedBinOp>() {
        return None;
    }
    let shape = &model.outlet_fact(node.id.into()).ok()?.shape;
    let fits = |input: &OutletId| {
        let fact = model.outlet_fact(*input).ok()?;
        let fits = match &fact.konst {
            Some(value) => value.len() == 1 && value.rank() == shape.rank(),
            None => fact.shape == *shape,
        };
        fits.then_some(())
    };
    node.inputs
        .iter()
        .all(|input| fits(input).is_some())
        .then(|| node.op.clone())
}

/// The convolution that `node` computes, and the last of the nodes that are taken in.
fn convolution<'a>(
    model: &'a TypedModel,
    node: &'a TypedNode,
    packed: &Packed,
) -> Option<(Convolution, &'a TypedNode)> {
    let op = node.op_as::<Conv>()?;
    let [images, kernels, bias] = *node.inputs else {
        return None;
    };
    let fact = model.outlet_fact(images).ok()?;
    let [kernels, bias] = [kernels, bias].map(|input| model.outlet_fact(input).ok()?.konst.clone());
    let (kernels, bias) = (kernels?, bias?);
    let floats = fact.datum_type == DatumType::F32;
    if op.q_params.is_some() || !floats || op.kernel_fmt != KernelFormat::OIHW {
        return None;
    }
    let (from, to, window) = geometry(op, fact.shape.as_concrete()?)?;
    let bias = values::<f32>(&bias).ok()?;
    let bias = match *bias {
        [value] => vec![value; to.channels],
        _ => bias.to_vec(),
    };
    let last_and_finish = |channels: std::ops::Range<usize>| {
        let mut finish = Finish::adding(bias.get(channels).unwrap_or_default());
        let last = take_in_limits(model, node, &mut finish);
        (last, finish)
    };
    let (last, finish) = last_and_finish(0..to.channels);
    let values = values::<f32>(&kernels).ok()?;
    let of_group = from.channels / op.group.max(1);
    let [rows, columns] = window.size;
    let taps = rows * columns;
    // Kernel, channel of the group, place in the window.
    let value = move |kernel: usize, channel: usize, tap: usize| {
        let place = (kernel * of_group + channel) * taps + tap;
        values.get(place).copied().unwrap_or_default()
    };
    let kernels = if op.group > 1 && of_group == 1 && to.channels == from.channels {
        let value = |channel, tap| value(channel, 0, tap);
        Kernels::Depthwise(Depthwise::new(to.channels, taps, finish, value))
    } else {
        let width = to.channels / op.group.max(1);
        let group = |group: usize| {
            let panels = Panels::new(of_group * taps, width, |place, kernel| {
                let (tap, channel) = (place / of_group, place % of_group);
                value(group * width + kernel, channel, tap)
            });
            let (_, finish) = last_and_finish(group * width..(group + 1) * width);
            (packed.shared(panels), finish)
        };
        Kernels::Groups((0..op.group).map(group).collect())
    };
    let shape = model
        .outlet_fact(node.id.into())
        .ok()?
        .shape
        .as_concrete()?;
    let convolution = Convolution {
        from,
        window,
        kernels,
        to,
        shape: shape.to_vec(),
        spatial_axes: op.pool_spec.rank(),
    };
    Some((convolution, last))
}

/// Of a convolution over images of `shape`: those, the results, and the window; `None` where there
/// is another number of spatial axes than one or two.
fn geometry(op: &Conv, shape: &[usize]) -> Option<(Images, Images, Window)> {
    let spec = &op.pool_spec;
    let axes: TVec<usize> = shape.iter().copied().collect();
    let shape = spec.data_format.shape(axes).ok()?;
    if spec.data_format.c_is_last() {
        return None;
    }
    let lengths = shape.hw_dims();
    let both = |of: &[usize], missing: usize| match *of {
        [across] => Some([missing, across]),
        [down, across] => Some([down, across]),
        _ => None,
    };
    let [height, width] = both(lengths, 1)?;
    let axes = spec.computed_padding(lengths);
    let places: Vec<usize> = axes.iter().map(|axis| axis.convoluted).collect();
    let before: Vec<usize> = axes.iter().map(|axis| axis.pad_before).collect();
    let window = Window {
        size: both(&spec.kernel_shape, 1)?,
        strides: both(&spec.strides(), 1)?,
        dilations: both(&spec.dilations(), 1)?,
        before: both(&before, 0)?,
        places: both(&places, 1)?,
    };
    let from = Images {
        count: shape.n().copied().unwrap_or(1),
        channels: *shape.c(),
        height,
        width,
        channels_last: false,
    };
    let [height, width] = window.places;
    let to = Images {
        channels: spec.output_channels,
        height,
        width,
        ..from
    };
    // What is empty is left alone.
    let full = from.values() * to.values() * from.count > 0;
    full.then_some((from, to, window))
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::{Datum, IntoTValue, Tensor, TypedFact, TypedSimplePlan};
    use tract_onnx::tract_core::ops::cnn::PaddingSpec;
    use tract_onnx::tract_core::ops::math;
    use tract_onnx::tract_hir::internal::{DatumTypeExt, IntoTensor, Op, SpecialOps, tensor0};

    use super::*;
    use crate::runtime::ops::tensors::tensor_of;

    fn numbers(shape: &[usize], seed: f32) -> Tensor {
        let len = shape.iter().product::<usize>();
        let numbers = (0..len).map(|i| ((i as f32 + 1.0) * seed).sin()).collect();
        tensor_of::<f32>(shape, numbers).unwrap().into_tensor()
    }

    /// A convolution of `model`, three by three with a border, and the `Clip` behind it.
    fn add(
        model: &mut TypedModel,
        name: &str,
        from: OutletId,
        channels: [usize; 2],
        group: usize,
    ) -> OutletId {
        let [read, made] = channels;
        let pool_spec = PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: [3, 3].into_iter().collect(),
            padding: PaddingSpec::Explicit(
                [1, 1].into_iter().collect(),
                [1, 1].into_iter().collect(),
            ),
            dilations: None,
            strides: Some([1, 2].into_iter().collect()),
            input_channels: read,
            output_channels: made,
        };
        let op = Conv {
            pool_spec,
            kernel_fmt: KernelFormat::OIHW,
            group,
            q_params: None,
        };
        let kernels = numbers(&[made, read / group, 3, 3], 0.7);
        let kernels = model.add_const(format!("{name}.kernels"), kernels).unwrap();
        let bias = model
            .add_const(format!("{name}.bias"), numbers(&[made], 1.3))
            .unwrap();
        let mut last = model.wire_node(name, op, &[from, kernels, bias]).unwrap()[0];
        for (op, limit) in [(math::max(), 0.0_f32), (math::min(), 6.0)] {
            let name = format!("{name}.{}", op.name());
            let limit = tensor0(limit).broadcast_into_rank(4).unwrap();
            let limit = model.add_const(format!("{name}.limit"), limit).unwrap();
            last = model.wire_node(name, op, &[last, limit]).unwrap()[0];
        }
        last
    }

    #[test]
    fn a_chain_is_what_tract_computes() {
        let mut model = TypedModel::default();
        let images = model
            .add_source("x", f32::datum_type().fact([2, 3, 9, 20]))
            .unwrap();
        let first = add(&mut model, "a", images, [3, 18], 1);
        let pool_spec = PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: [2, 2].into_iter().collect(),
            padding: PaddingSpec::Valid,
            dilations: None,
            strides: None,
            input_channels: 18,
            output_channels: 18,
        };
        let pool = MaxPool::new(pool_spec, None);
        let pooled = model.wire_node("pool", pool, &[first]).unwrap()[0];
        let squashed = model.wire_node("tanh", math::tanh(), &[pooled]).unwrap()[0];
        let c = add(&mut model, "c", squashed, [18, 18], 18);
        let d = add(&mut model, "d", c, [18, 6], 2);
        // One that is read as it was as well.
        let e = add(&mut model, "e", d, [6, 6], 1);
        model.select_output_outlets(&[e, d]).unwrap();
        let x = numbers(&[2, 3, 9, 20], 0.1).into_tvalue();
        let run = |model: &TypedModel| {
            let plan = TypedSimplePlan::new(model.clone()).unwrap();
            plan.spawn()
                .unwrap()
                .run([x.clone()].into_iter().collect())
                .unwrap()
        };
        let expected = run(&model);
        let mut ours = model.clone();
        replace_convolutions(&mut ours, &Packed::default()).unwrap();
        let facts: Vec<&TypedFact> = [e, d]
            .iter()
            .map(|o| model.outlet_fact(*o).unwrap())
            .collect();
        for (found, fact) in ours.output_outlets().unwrap().iter().zip(facts) {
            assert_eq!(ours.outlet_fact(*found).unwrap().shape, fact.shape);
        }
        ours.compact().unwrap();
        let names: Vec<_> = ours
            .nodes
            .iter()
            .map(|node| node.op.name().into_owned())
            .collect();
        let gone = ["Conv", "Max", "Min"];
        assert!(
            !names.iter().any(|name| gone.contains(&name.as_str())),
            "{names:?}"
        );
        // Until the last but one the channels lie side by side.
        let shape = |name: &str| {
            let node = ours
                .nodes
                .iter()
                .find(|node| node.name.starts_with(name))
                .unwrap();
            ours.outlet_fact(node.id.into())
                .unwrap()
                .shape
                .as_concrete()
                .unwrap()
                .to_vec()
        };
        assert_eq!(shape("pool"), [2, 8, 9, 18]);
        assert_eq!(shape("c"), [2, 8, 5, 18]);
        assert_eq!(shape("d"), [2, 6, 8, 3]);
        for (found, expected) in run(&ours).iter().zip(&expected) {
            found.close_enough(expected, true).unwrap();
        }
    }
}
