//! The generated models: the same bytes on every run. Their time does not hang on what they learned.

use super::onnx::{Graph, Value};
use super::random::Random;

/// Crayfish's dense net: 784 → 32 × 4 → 10 with `ReLU`, input `[batch, 1, 784]`, flattened the way
/// that `PyTorch` exports it. 28,618 parameters.
pub fn crayfish() -> Vec<u8> {
    let mut random = Random::new(1);
    let mut graph = Graph::default();
    graph.input("dataPoint", &[1, 784]);
    graph.ints("zero", &[], &[0]);
    graph.ints("axes", &[1], &[0]);
    graph.ints("rest", &[1], &[-1]);
    let on = |operator| ("", operator);
    graph.node(on("Shape"), &["dataPoint"], "shape", &[]);
    let axis = [("axis", Value::Int(0))];
    graph.node(on("Gather"), &["shape", "zero"], "rows", &axis);
    graph.node(on("Unsqueeze"), &["rows", "axes"], "rows_1d", &[]);
    graph.node(on("Concat"), &["rows_1d", "rest"], "flat_shape", &axis);
    graph.node(on("Reshape"), &["dataPoint", "flat_shape"], "layer_0", &[]);
    let widths = [784, 32, 32, 32, 32, 10];
    for (layer, pair) in widths.windows(2).enumerate() {
        let last = layer + 2 == widths.len();
        let output = if last {
            "output".to_owned()
        } else {
            format!("gemm_{layer}")
        };
        gemm(&mut graph, &mut random, layer, (pair[0], pair[1]), &output);
        if !last {
            let next = format!("layer_{}", layer + 1);
            graph.node(on("Relu"), &[&output], &next, &[]);
        }
    }
    graph.output("output", &[10]);
    graph.model(&[("", 13)])
}

/// A dense net of 105 MB, which differs by `seed`: 64 → 2290 × 6 → 10.
pub fn large(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut graph = Graph::default();
    graph.input("layer_0", &[64]);
    let widths = [64, 2290, 2290, 2290, 2290, 2290, 2290, 10];
    for (layer, pair) in widths.windows(2).enumerate() {
        let gemm_output = format!("gemm_{layer}");
        gemm(
            &mut graph,
            &mut random,
            layer,
            (pair[0], pair[1]),
            &gemm_output,
        );
        let next = format!("layer_{}", layer + 1);
        graph.node(("", "Relu"), &[&gemm_output], &next, &[]);
    }
    graph.output(&format!("layer_{}", widths.len() - 1), &[10]);
    graph.model(&[("", 13)])
}

/// `layer_<layer>` through a dense layer into `output`.
fn gemm(graph: &mut Graph, random: &mut Random, layer: usize, size: (i64, i64), output: &str) {
    let (from, to) = size;
    let scale = 1.0 / (from as f32).sqrt();
    let (weight, bias) = (format!("weight_{layer}"), format!("bias_{layer}"));
    let values = random.uniform((from * to) as usize, scale);
    graph.floats(&weight, &[to, from], &values);
    graph.floats(&bias, &[to], &random.uniform(to as usize, scale));
    let input = format!("layer_{layer}");
    let attributes = [("transB", Value::Int(1))];
    graph.node(("", "Gemm"), &[&input, &weight, &bias], output, &attributes);
}

/// Channels in and out, and the stride, of each convolution of [`heavy`].
const CONVOLUTIONS: [(i64, i64, i64); 18] = [
    (1, 32, 1),
    (32, 32, 1),
    (32, 32, 1),
    (32, 32, 1),
    (32, 32, 1),
    (32, 32, 1),
    (32, 64, 2),
    (64, 64, 1),
    (64, 64, 1),
    (64, 64, 1),
    (64, 64, 1),
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 128, 1),
    (128, 128, 1),
    (128, 128, 1),
    (128, 128, 1),
];

/// A convolutional net over 28 × 28 pixels: 116 million multiplications an event, so that it takes
/// a millisecond and more on the fastest of cores.
pub fn heavy() -> Vec<u8> {
    let mut random = Random::new(2);
    let mut graph = Graph::default();
    graph.input("pixels", &[1, 28, 28]);
    let mut input = "pixels".to_owned();
    for (layer, (from, to, stride)) in CONVOLUTIONS.into_iter().enumerate() {
        let scale = (6.0 / (from * 9) as f32).sqrt();
        let names = ["kernel", "offset", "conv", "relu"].map(|name| format!("{name}_{layer}"));
        let [kernel, offset, conv, relu] = &names;
        let values = random.uniform((to * from * 9) as usize, scale);
        graph.floats(kernel, &[to, from, 3, 3], &values);
        graph.floats(offset, &[to], &random.uniform(to as usize, 0.1));
        let attributes = [
            ("kernel_shape", Value::Ints(&[3, 3])),
            ("pads", Value::Ints(&[1, 1, 1, 1])),
            ("strides", Value::Ints(&[stride, stride])),
        ];
        graph.node(("", "Conv"), &[&input, kernel, offset], conv, &attributes);
        graph.node(("", "Relu"), &[conv], relu, &[]);
        input.clone_from(relu);
    }
    graph.node(("", "GlobalAveragePool"), &[&input], "pooled", &[]);
    let axis = [("axis", Value::Int(1))];
    graph.node(("", "Flatten"), &["pooled"], "layer_0", &axis);
    gemm(&mut graph, &mut random, 0, (128, 10), "scores");
    graph.output("scores", &[10]);
    graph.model(&[("", 13)])
}

/// Trees of [`wide`], their leaves, and the features that they see.
const TREES: usize = 500;
const LEAVES: usize = 31;
pub const WIDE_FEATURES: usize = 200;

/// A regression ensemble in the shape that gradient boosting grows: leaf by leaf, unbalanced.
pub fn wide() -> Vec<u8> {
    let mut random = Random::new(3);
    let mut trees = Trees::default();
    for tree in 0..TREES {
        trees.grow(tree as i64, &mut random);
    }
    let modes: Vec<&str> = trees.modes.clone();
    let mut graph = Graph::default();
    graph.input("features", &[WIDE_FEATURES as i64]);
    let zeros = vec![0; trees.leaf_nodes.len()];
    let attributes = [
        ("nodes_treeids", Value::Ints(&trees.trees)),
        ("nodes_nodeids", Value::Ints(&trees.nodes)),
        ("nodes_featureids", Value::Ints(&trees.features)),
        ("nodes_modes", Value::Texts(&modes)),
        ("nodes_values", Value::Floats(&trees.values)),
        ("nodes_truenodeids", Value::Ints(&trees.yes)),
        ("nodes_falsenodeids", Value::Ints(&trees.no)),
        ("target_treeids", Value::Ints(&trees.leaf_trees)),
        ("target_nodeids", Value::Ints(&trees.leaf_nodes)),
        ("target_ids", Value::Ints(&zeros)),
        ("target_weights", Value::Floats(&trees.weights)),
        ("n_targets", Value::Int(1)),
        ("post_transform", Value::Text("NONE")),
    ];
    let operator = ("ai.onnx.ml", "TreeEnsembleRegressor");
    graph.node(operator, &["features"], "score", &attributes);
    graph.output("score", &[1]);
    graph.model(&[("", 13), ("ai.onnx.ml", 3)])
}

/// The attributes of an ensemble.
#[derive(Default)]
struct Trees {
    trees: Vec<i64>,
    nodes: Vec<i64>,
    features: Vec<i64>,
    modes: Vec<&'static str>,
    values: Vec<f32>,
    yes: Vec<i64>,
    no: Vec<i64>,
    leaf_trees: Vec<i64>,
    leaf_nodes: Vec<i64>,
    weights: Vec<f32>,
}

impl Trees {
    fn grow(&mut self, tree: i64, random: &mut Random) {
        // A leaf is split with a chance by the share of events that reach it.
        let mut splits: Vec<Option<(usize, usize)>> = vec![None];
        let mut leaves = vec![(0_usize, 1.0_f32)];
        while leaves.len() < LEAVES {
            let at = (0..leaves.len())
                .max_by(|a, b| {
                    let chance = |i: &usize| leaves[*i].1;
                    chance(a).total_cmp(&chance(b))
                })
                .unwrap();
            let (node, share) = leaves.swap_remove(at);
            let left = 0.2 + 0.6 * random.next();
            splits[node] = Some((splits.len(), splits.len() + 1));
            leaves.push((splits.len(), share * left));
            leaves.push((splits.len() + 1, share * (1.0 - left)));
            splits.extend([None, None]);
        }
        for (node, split) in splits.into_iter().enumerate() {
            self.trees.push(tree);
            self.nodes.push(node as i64);
            let (yes, no) = split.unwrap_or_default();
            self.yes.push(yes as i64);
            self.no.push(no as i64);
            if split.is_some() {
                self.modes.push("BRANCH_LEQ");
                let feature = random.next() * WIDE_FEATURES as f32;
                self.features.push(feature as i64);
                self.values.push(random.next() * 100.0);
            } else {
                self.modes.push("LEAF");
                self.features.push(0);
                self.values.push(0.0);
                self.leaf_trees.push(tree);
                self.leaf_nodes.push(node as i64);
                self.weights.push(random.next() * 0.2 - 0.1);
            }
        }
    }
}
