//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor`, versions 1 to 3: nodes are named by their
//! tree and a number in it, weights by the node that they belong to.

use std::collections::{HashMap, HashSet};

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::attributes::{
    Numbers, Parsed, aggregate, check_base_values, check_len, check_targets, classifier, index,
    ints, labels, list, numbers, post_transform,
};
use super::ensemble::{Aggregate, Branch, Ensemble, Mode, Node, Task, Weight};

/// A node's name: its tree, and its number in it.
type Name = (i64, i64);

pub(super) fn classifier_node(ctx: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Parsed> {
    let (labels, classes) = labels(node)?;
    let (ensemble, doubles, weights) = trees(ctx, node, "class", classes)?;
    let rules = classifier(classes, ints(node, "class_ids")?, &weights);
    let mut task = task(ctx, node, doubles)?;
    check_base_values(task.base_values.len(), classes, true)?;
    task.classifier = Some(rules);
    Ok(Parsed {
        ensemble,
        task,
        labels: Some(labels),
        scores_follow_input: false,
    })
}

pub(super) fn regressor_node(ctx: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Parsed> {
    let targets: usize = node.get_attr("n_targets")?;
    let (ensemble, doubles, _) = trees(ctx, node, "target", targets)?;
    let mut task = task(ctx, node, doubles)?;
    check_base_values(task.base_values.len(), targets, false)?;
    task.aggregate = aggregate(node.get_attr_opt("aggregate_function")?.unwrap_or("SUM"))?;
    Ok(Parsed {
        ensemble,
        task,
        labels: None,
        scores_follow_input: false,
    })
}

fn task(ctx: &ParsingContext<'_>, node: &NodeProto, doubles: bool) -> TractResult<Task> {
    let base_values = numbers(ctx, node, "base_values")?;
    Ok(Task {
        aggregate: Aggregate::Sum,
        post_transform: post_transform(node.get_attr_opt("post_transform")?.unwrap_or("NONE"))?,
        doubles: doubles || base_values.doubles,
        base_values: base_values.values,
        classifier: None,
    })
}

/// The trees, whether any of their numbers are doubles, and the weights as they are listed.
fn trees(
    ctx: &ParsingContext<'_>,
    node: &NodeProto,
    prefix: &str,
    targets: usize,
) -> TractResult<(Ensemble, bool, Vec<f64>)> {
    check_targets(targets)?;
    let (names, places) = names(node)?;
    let values = numbers(ctx, node, "nodes_values")?;
    check_len("nodes_values", values.values.len(), names.len())?;
    let weights = numbers(ctx, node, &format!("{prefix}_weights"))?;
    let mut ensemble = Ensemble {
        nodes: nodes(node, &names, &places, &values)?,
        targets,
        ..Ensemble::default()
    };
    ensemble.roots = roots(&names, &ensemble.nodes)?;
    add_weights(node, prefix, &places, &weights.values, &mut ensemble)?;
    if targets == 1 {
        let stray = ensemble.nodes.iter().zip(&values.values);
        let stray = stray.zip(&names).find(|((node, value), _)| {
            matches!(node, Node::Leaf(weights) if weights.is_empty()) && **value != 0.0
        });
        if let Some((_, (tree, number))) = stray {
            bail!("leaf {number} of tree {tree} has a value, but no weight");
        }
    }
    Ok((ensemble, values.doubles || weights.doubles, weights.values))
}

/// The nodes' names, and the place of each in the lists.
fn names(node: &NodeProto) -> TractResult<(Vec<Name>, HashMap<Name, u32>)> {
    let trees = ints(node, "nodes_treeids")?;
    let numbers = list(node, "nodes_nodeids", trees.len())?;
    let names: Vec<Name> = trees.iter().copied().zip(numbers.iter().copied()).collect();
    let mut places = HashMap::with_capacity(names.len());
    for (place, name) in names.iter().enumerate() {
        if places.insert(*name, u32::try_from(place)?).is_some() {
            bail!("node {} of tree {} is there twice", name.1, name.0);
        }
    }
    Ok((names, places))
}

fn nodes(
    node: &NodeProto,
    names: &[Name],
    places: &HashMap<Name, u32>,
    values: &Numbers,
) -> TractResult<Vec<Node>> {
    let modes: Vec<&str> = node.get_attr_opt_vec("nodes_modes")?.unwrap_or_default();
    let list = |name: &str| list(node, name, names.len());
    check_len("nodes_modes", modes.len(), names.len())?;
    let features = list("nodes_featureids")?;
    let (yes, no) = (list("nodes_truenodeids")?, list("nodes_falsenodeids")?);
    let missing = ints(node, "nodes_missing_value_tracks_true")?;
    if missing.len() > names.len() {
        check_len(
            "nodes_missing_value_tracks_true",
            missing.len(),
            names.len(),
        )?;
    }
    // What is missing at the end of the list is 0, as it is for ONNX Runtime.
    let missing = missing.iter().chain(std::iter::repeat(&0));
    let children = yes.iter().zip(no);
    names
        .iter()
        .zip(modes)
        .zip(values.values.iter().zip(features))
        .zip(children.zip(missing))
        .map(|(((name, mode), (value, feature)), ((yes, no), missing))| {
            let Some(mode) = mode_of(mode)? else {
                return Ok(Node::Leaf(0..0));
            };
            let child = |number: &i64| {
                let place = places.get(&(name.0, *number)).copied();
                place.ok_or_else(|| {
                    anyhow!(
                        "node {} of tree {} leads to node {number}, which is not there",
                        name.1,
                        name.0
                    )
                })
            };
            Ok(Node::Branch(Branch {
                feature: index("nodes_featureids", *feature)?,
                mode,
                value: *value,
                missing_is_yes: *missing == 1,
                yes: child(yes)?,
                no: child(no)?,
            }))
        })
        .collect()
}

/// `None` is a leaf.
fn mode_of(name: &str) -> TractResult<Option<Mode>> {
    Ok(Some(match name {
        "LEAF" => return Ok(None),
        "BRANCH_LEQ" => Mode::Leq,
        "BRANCH_LT" => Mode::Lt,
        "BRANCH_GTE" => Mode::Gte,
        "BRANCH_GT" => Mode::Gt,
        "BRANCH_EQ" => Mode::Eq,
        "BRANCH_NEQ" => Mode::Neq,
        _ => bail!("unknown mode {name:?} in nodes_modes"),
    }))
}

/// A tree's root is its first node. Other orders mean different things to different runtimes.
fn roots(names: &[Name], nodes: &[Node]) -> TractResult<Vec<u32>> {
    let mut roots = Vec::new();
    let mut seen = HashSet::new();
    let mut before = None;
    for (place, (tree, _)) in names.iter().enumerate() {
        if before == Some(*tree) {
            continue;
        }
        if !seen.insert(*tree) {
            bail!("the nodes of tree {tree} are not next to each other");
        }
        before = Some(*tree);
        roots.push(u32::try_from(place)?);
    }
    let all: HashSet<u32> = roots.iter().copied().collect();
    for node in nodes {
        let Node::Branch(branch) = node else { continue };
        if let Some(root) = [branch.yes, branch.no]
            .iter()
            .find(|child| all.contains(child))
        {
            let tree = names
                .get(*root as usize)
                .map(|name| name.0)
                .unwrap_or_default();
            bail!("the first node of tree {tree} is not its root, or the tree leads in a circle");
        }
    }
    Ok(roots)
}

/// Gives the leaves their weights. Weights of branches are ignored, as by ONNX Runtime, and where
/// there is one target only, all weights of a leaf but the first.
fn add_weights(
    node: &NodeProto,
    prefix: &str,
    places: &HashMap<Name, u32>,
    values: &[f64],
    ensemble: &mut Ensemble,
) -> TractResult<()> {
    let list = |what: &str| list(node, &format!("{prefix}_{what}"), values.len());
    let (trees, numbers, ids) = (list("treeids")?, list("nodeids")?, list("ids")?);
    let mut given = Vec::with_capacity(values.len());
    for (((tree, number), id), value) in trees.iter().zip(numbers).zip(ids).zip(values) {
        let Some(place) = places.get(&(*tree, *number)) else {
            bail!("a weight is for node {number} of tree {tree}, which is not there");
        };
        let target = index(&format!("{prefix}_ids"), *id)?;
        if target as usize >= ensemble.targets {
            bail!(
                "{prefix}_ids has the value {id}, but there are {}",
                ensemble.targets
            );
        }
        given.push((
            *place,
            Weight {
                target,
                value: *value,
            },
        ));
    }
    given.sort_by_key(|(place, _)| *place);
    for group in given.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((place, _)) = group.first() else {
            continue;
        };
        if let Some(Node::Leaf(range)) = ensemble.nodes.get_mut(*place as usize) {
            let most = if ensemble.targets == 1 {
                1
            } else {
                group.len()
            };
            let start = u32::try_from(ensemble.weights.len())?;
            ensemble
                .weights
                .extend(group.iter().take(most).map(|(_, weight)| *weight));
            *range = start..u32::try_from(ensemble.weights.len())?;
        }
    }
    Ok(())
}
