//! Random tree ensembles as ONNX files, and rows that comparisons go wrong at.

/// Values that comparisons go wrong at, the thresholds of half of the tests among them.
const VALUES: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1.0e-45,
    -1.0e-45,
    16_777_216.0,
    2.5,
    0.1,
];

const MODES: [&str; 6] = [
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
];

/// What leaves add to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scores {
    /// Each leaf to all targets.
    All,
    /// Each leaf to this target, as boosted binary classifiers have it.
    One(usize),
}

/// How large weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    /// Multiples of 1/1024, so that their sums are exact: equal sums are equal leaves.
    Exact,
    /// The same, and none below zero, as forests have them.
    Positive,
    /// Of no form, so that sums are rounded.
    Any,
}

/// What ensembles are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) trees: usize,
    /// Leaves of a tree.
    pub(crate) leaves: usize,
    pub(crate) features: usize,
    /// Targets of a regressor; classes, of which there are more than two, of a classifier.
    pub(crate) targets: usize,
    pub(crate) classifier: bool,
    /// One mode for all nodes.
    pub(crate) one_mode: bool,
    pub(crate) scores: Scores,
    pub(crate) weights: Weights,
    pub(crate) post_transform: &'static str,
    pub(crate) labels: Labels,
    /// Base values.
    pub(crate) base: usize,
}

/// Names of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Labels {
    /// Whole numbers from this one on.
    From(i64),
    Strings,
}

/// `SplitMix64`.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % most as u64) as usize
    }

    fn weight(&mut self, weights: Weights) -> f32 {
        match weights {
            Weights::Exact => (self.below(4096) as f32 - 2048.0) / 1024.0,
            Weights::Positive => self.below(64) as f32 / 1024.0,
            Weights::Any => (self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0) / 3.0,
        }
    }

    fn value(&mut self) -> f32 {
        match self.below(2) {
            0 => VALUES[self.below(VALUES.len())],
            _ => self.below(8) as f32 / 4.0 - 1.0,
        }
    }
}

/// Rows of `features` values, NaN among them.
pub(crate) fn rows(shape: Shape, count: usize) -> Vec<f32> {
    let mut random = Random(shape.seed ^ 0xf00d);
    let mut value = |_| match random.below(10) {
        0 => f32::NAN,
        _ => random.value(),
    };
    (0..count * shape.features).map(&mut value).collect()
}

#[derive(Default)]
struct Lists {
    trees: Vec<i64>,
    nodes: Vec<i64>,
    features: Vec<i64>,
    values: Vec<f32>,
    modes: Vec<&'static str>,
    yes: Vec<i64>,
    no: Vec<i64>,
    missing: Vec<i64>,
    weight_trees: Vec<i64>,
    weight_nodes: Vec<i64>,
    weight_targets: Vec<i64>,
    weights: Vec<f32>,
}

/// An ONNX file with one ensemble.
pub(crate) fn model(shape: Shape) -> Vec<u8> {
    let mut random = Random(shape.seed);
    let mut lists = Lists::default();
    for tree in 0..shape.trees {
        grow(shape, tree as i64, &mut random, &mut lists);
    }
    let (prefix, kind) = if shape.classifier {
        ("class", "TreeEnsembleClassifier")
    } else {
        ("target", "TreeEnsembleRegressor")
    };
    let Lists { modes, .. } = &lists;
    let mut node = Message::default();
    node.text(1, "x");
    if shape.classifier {
        node.text(2, "label");
    }
    node.text(2, "scores");
    node.text(4, kind);
    node.text(7, "ai.onnx.ml");
    node.ints("nodes_treeids", &lists.trees);
    node.ints("nodes_nodeids", &lists.nodes);
    node.ints("nodes_featureids", &lists.features);
    node.floats("nodes_values", &lists.values);
    node.strings("nodes_modes", modes);
    node.ints("nodes_truenodeids", &lists.yes);
    node.ints("nodes_falsenodeids", &lists.no);
    node.ints("nodes_missing_value_tracks_true", &lists.missing);
    node.ints(&format!("{prefix}_treeids"), &lists.weight_trees);
    node.ints(&format!("{prefix}_nodeids"), &lists.weight_nodes);
    node.ints(&format!("{prefix}_ids"), &lists.weight_targets);
    node.floats(&format!("{prefix}_weights"), &lists.weights);
    node.string("post_transform", shape.post_transform);
    if shape.base > 0 {
        let base: Vec<f32> = (0..shape.base)
            .map(|_| random.weight(shape.weights))
            .collect();
        node.floats("base_values", &base);
    }
    match (shape.classifier, shape.labels) {
        (true, Labels::From(first)) => {
            let labels: Vec<i64> = (first..).take(shape.targets).collect();
            node.ints("classlabels_int64s", &labels);
        }
        (true, Labels::Strings) => {
            let labels: Vec<String> = (0..shape.targets)
                .map(|class| format!("c{class}"))
                .collect();
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            node.strings("classlabels_strings", &labels);
        }
        (false, _) => node.int("n_targets", shape.targets as i64),
    }
    file(shape, &node)
}

/// An ONNX file whose graph is `node`.
fn file(shape: Shape, node: &Message) -> Vec<u8> {
    let mut graph = Message::default();
    graph.message(1, node);
    graph.text(2, "trees");
    graph.message(11, &value_info("x", FLOAT, Some(shape.features)));
    if shape.classifier {
        let element = match shape.labels {
            Labels::From(_) => INT64,
            Labels::Strings => STRING,
        };
        graph.message(12, &value_info("label", element, None));
    }
    graph.message(12, &value_info("scores", FLOAT, Some(shape.targets)));
    let mut model = Message::default();
    model.number(1, 8);
    model.message(7, &graph);
    for (domain, version) in [("", 17), ("ai.onnx.ml", 3)] {
        let mut opset = Message::default();
        opset.text(1, domain);
        opset.number(2, version);
        model.message(8, &opset);
    }
    model.0
}

/// Grows a tree: leaf by leaf, each the split of a random one.
fn grow(shape: Shape, tree: i64, random: &mut Random, lists: &mut Lists) {
    let mut children: Vec<Option<[usize; 2]>> = vec![None];
    let mut leaves = vec![0];
    for _ in 1..shape.leaves {
        let split = leaves.swap_remove(random.below(leaves.len()));
        let next = children.len();
        children[split] = Some([next, next + 1]);
        children.extend([None, None]);
        leaves.extend([next, next + 1]);
    }
    for (node, children) in children.into_iter().enumerate() {
        lists.trees.push(tree);
        lists.nodes.push(node as i64);
        let [yes, no] = children.unwrap_or_default();
        lists.yes.push(yes as i64);
        lists.no.push(no as i64);
        let mode = if shape.one_mode {
            0
        } else {
            random.below(MODES.len())
        };
        lists.modes.push(if children.is_some() {
            MODES[mode]
        } else {
            "LEAF"
        });
        lists.features.push(random.below(shape.features) as i64);
        lists.values.push(if children.is_some() {
            random.value()
        } else {
            0.0
        });
        lists
            .missing
            .push(i64::from(children.is_some() && random.below(2) == 1));
        if children.is_none() {
            let targets = match shape.scores {
                Scores::All => 0..shape.targets,
                Scores::One(target) => target..target + 1,
            };
            for target in targets {
                lists.weight_trees.push(tree);
                lists.weight_nodes.push(node as i64);
                lists.weight_targets.push(target as i64);
                lists.weights.push(random.weight(shape.weights));
            }
        }
    }
}

const FLOAT: u64 = 1;
const INT64: u64 = 7;
const STRING: u64 = 8;

/// `[batch, width]`, or `[batch]`.
fn value_info(name: &str, element: u64, width: Option<usize>) -> Message {
    let mut batch = Message::default();
    batch.text(2, "batch");
    let mut shape = Message::default();
    shape.message(1, &batch);
    if let Some(width) = width {
        let mut dim = Message::default();
        dim.number(1, width as u64);
        shape.message(1, &dim);
    }
    let mut tensor = Message::default();
    tensor.number(1, element);
    tensor.message(2, &shape);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut info = Message::default();
    info.text(1, name);
    info.message(2, &kind);
    info
}

/// A message of protocol buffers: enough of them for a file.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// Adds an attribute of a node.
    fn attribute(&mut self, name: &str, kind: u64, fill: impl FnOnce(&mut Self)) {
        let mut attribute = Self::default();
        attribute.text(1, name);
        fill(&mut attribute);
        attribute.number(20, kind);
        self.message(5, &attribute);
    }

    fn int(&mut self, name: &str, value: i64) {
        self.attribute(name, 2, |attribute| attribute.number(3, value as u64));
    }

    fn string(&mut self, name: &str, value: &str) {
        self.attribute(name, 3, |attribute| attribute.text(4, value));
    }

    fn ints(&mut self, name: &str, values: &[i64]) {
        self.attribute(name, 7, |attribute| {
            for value in values {
                attribute.number(8, *value as u64);
            }
        });
    }

    fn floats(&mut self, name: &str, values: &[f32]) {
        self.attribute(name, 6, |attribute| {
            for value in values {
                attribute.varint(7 << 3 | 5);
                attribute.0.extend(value.to_le_bytes());
            }
        });
    }

    fn strings(&mut self, name: &str, values: &[&str]) {
        self.attribute(name, 8, |attribute| {
            for value in values {
                attribute.text(9, value);
            }
        });
    }
}
