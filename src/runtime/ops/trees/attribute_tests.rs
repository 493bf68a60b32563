//! What attributes are refused, and how that is said.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto};
use tract_onnx::prelude::{InferenceModel, TractResult};

use super::attributes::Parsed;
use super::{version_5, versions_1_3};

/// A list attribute: integers, floats or words.
#[derive(Clone)]
enum List {
    Int(i64),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Words(Vec<&'static str>),
    Word(&'static str),
}

fn attribute(name: &str, list: &List) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    };
    let r#type = match list {
        List::Int(value) => {
            attribute.i = *value;
            AttributeType::Int
        }
        List::Ints(values) => {
            attribute.ints.clone_from(values);
            AttributeType::Ints
        }
        List::Floats(values) => {
            attribute.floats.clone_from(values);
            AttributeType::Floats
        }
        List::Words(words) => {
            attribute.strings = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            AttributeType::Strings
        }
        List::Word(word) => {
            attribute.s = word.as_bytes().to_vec();
            AttributeType::String
        }
    };
    attribute.r#type = r#type as i32;
    attribute
}

type Parser = fn(&ParsingContext<'_>, &NodeProto) -> TractResult<Parsed>;

fn parse(parser: Parser, lists: &[(&'static str, List)]) -> Result<Parsed, String> {
    let (framework, model) = (tract_onnx::onnx(), ModelProto::default());
    let ctx = ParsingContext {
        onnx_operator_set_version: 17,
        framework: &framework,
        model: &model,
        parent_graphs: vec![],
        model_dir: None,
        template: InferenceModel::default(),
    };
    let node = NodeProto {
        attribute: lists
            .iter()
            .map(|(name, list)| attribute(name, list))
            .collect(),
        ..NodeProto::default()
    };
    parser(&ctx, &node).map_err(|error| format!("{error:#}"))
}

/// A regressor of one branch and two leaves, with some attributes in place of its own.
fn regressor(changes: &[(&'static str, List)]) -> Result<Parsed, String> {
    let mut lists = vec![
        ("n_targets", List::Int(1)),
        ("nodes_treeids", List::Ints(vec![4, 4, 4])),
        ("nodes_nodeids", List::Ints(vec![0, 1, 2])),
        ("nodes_featureids", List::Ints(vec![0, 0, 0])),
        ("nodes_values", List::Floats(vec![0.5, 0.0, 0.0])),
        (
            "nodes_modes",
            List::Words(vec!["BRANCH_LEQ", "LEAF", "LEAF"]),
        ),
        ("nodes_truenodeids", List::Ints(vec![1, 0, 0])),
        ("nodes_falsenodeids", List::Ints(vec![2, 0, 0])),
        ("target_treeids", List::Ints(vec![4, 4])),
        ("target_nodeids", List::Ints(vec![1, 2])),
        ("target_ids", List::Ints(vec![0, 0])),
        ("target_weights", List::Floats(vec![1.0, 2.0])),
    ];
    lists.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    lists.extend(changes.iter().cloned());
    parse(versions_1_3::regressor_node, &lists)
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    regressor(&[]).unwrap();
    for (changes, expected) in refusals() {
        assert_eq!(regressor(&changes).unwrap_err(), expected);
    }
}

fn ints(name: &'static str, values: &[i64]) -> (&'static str, List) {
    (name, List::Ints(values.to_vec()))
}

fn floats(name: &'static str, values: &[f32]) -> (&'static str, List) {
    (name, List::Floats(values.to_vec()))
}

type Refusal = (Vec<(&'static str, List)>, &'static str);

#[expect(clippy::too_many_lines, reason = "a table")]
fn refusals() -> Vec<Refusal> {
    vec![
        (
            vec![ints("nodes_nodeids", &[0, 1])],
            "nodes_nodeids has 2 values, expected 3",
        ),
        (
            vec![ints("nodes_nodeids", &[0, 1, 1])],
            "node 1 of tree 4 is there twice",
        ),
        (
            vec![floats("nodes_values", &[])],
            "nodes_values has 0 values, expected 3",
        ),
        (
            vec![ints("nodes_truenodeids", &[7, 0, 0])],
            "node 0 of tree 4 leads to node 7, which is not there",
        ),
        (
            vec![ints("nodes_truenodeids", &[0, 0, 0])],
            "the first node of tree 4 is not its root, or the tree leads in a circle",
        ),
        (
            vec![ints("nodes_featureids", &[-1, 0, 0])],
            "nodes_featureids has the value -1, which is no index",
        ),
        (
            vec![(
                "nodes_modes",
                List::Words(vec!["BRANCH_XOR", "LEAF", "LEAF"]),
            )],
            "unknown mode \"BRANCH_XOR\" in nodes_modes",
        ),
        (
            vec![ints("nodes_missing_value_tracks_true", &[0; 4])],
            "nodes_missing_value_tracks_true has 4 values, expected 3",
        ),
        (
            vec![ints("target_ids", &[0, 1])],
            "target_ids has the value 1, but there are 1",
        ),
        (
            vec![ints("target_nodeids", &[1, 9])],
            "a weight is for node 9 of tree 4, which is not there",
        ),
        (
            vec![
                floats("nodes_values", &[0.5, 3.0, 0.0]),
                ints("target_nodeids", &[2, 2]),
            ],
            "leaf 1 of tree 4 has a value, but no weight",
        ),
        (
            vec![("n_targets", List::Int(0))],
            "there are no targets or classes",
        ),
        (
            vec![("n_targets", List::Int(1 << 40))],
            "1099511627776 targets or classes are more than 100000",
        ),
        (
            vec![floats("base_values", &[1.0, 2.0])],
            "base_values has 2 values for 1 targets or classes",
        ),
        (
            vec![("aggregate_function", List::Word("MODE"))],
            "unknown aggregate_function \"MODE\"",
        ),
        (
            vec![("post_transform", List::Word("TANH"))],
            "unknown post_transform \"TANH\"",
        ),
        (
            vec![
                ints("nodes_treeids", &[4, 5, 4]),
                ints("target_nodeids", &[2, 2]),
                ints("nodes_truenodeids", &[2, 0, 0]),
            ],
            "the nodes of tree 4 are not next to each other",
        ),
    ]
}

#[test]
fn weights_go_to_leaves_in_their_order() {
    let parsed = regressor(&[
        ("n_targets", List::Int(3)),
        ("target_treeids", List::Ints(vec![4; 5])),
        ("target_nodeids", List::Ints(vec![2, 1, 0, 2, 2])),
        ("target_ids", List::Ints(vec![2, 1, 0, 1, 2])),
        (
            "target_weights",
            List::Floats(vec![1.0, 2.0, 3.0, 4.0, 5.0]),
        ),
    ]);
    let weights: Vec<(u32, f64)> = parsed
        .unwrap()
        .ensemble
        .weights
        .iter()
        .map(|w| (w.target, w.value))
        .collect();
    assert_eq!(weights, [(1, 2.0), (2, 1.0), (1, 4.0), (2, 5.0)]);
    // Of several weights of a leaf for the only target the first counts.
    let parsed = regressor(&[("target_nodeids", List::Ints(vec![1, 1]))]).unwrap();
    assert_eq!(parsed.ensemble.weights.len(), 1);
}

#[test]
fn a_classifier_needs_labels() {
    let classifier = |lists: &[(&'static str, List)]| parse(versions_1_3::classifier_node, lists);
    let (ints, words) = (List::Ints(vec![1, 2]), List::Words(vec!["a", "b"]));
    assert_eq!(
        classifier(&[]).unwrap_err(),
        "classlabels_strings and classlabels_int64s are empty"
    );
    assert_eq!(
        classifier(&[("classlabels_int64s", ints), ("classlabels_strings", words)]).unwrap_err(),
        "both classlabels_strings and classlabels_int64s are given"
    );
}

#[test]
fn an_empty_operator_of_opset_5_is_refused() {
    let found = parse(version_5::ensemble_node, &[("n_targets", List::Int(2))]);
    assert_eq!(found.unwrap_err(), "the attribute nodes_splits is missing");
}
