//! `TreeEnsemble` of opset 5: branches and leaves in lists of their own, sets as a mode.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::attributes::{Numbers, Parsed, check_len, check_targets, index, ints, list, tensor};
use super::ensemble::{Aggregate, Branch, Ensemble, Mode, Node, PostTransform, Task, Weight};

pub(super) fn ensemble_node(ctx: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Parsed> {
    let targets: i64 = node.get_attr_opt("n_targets")?.unwrap_or_default();
    let targets = usize::try_from(targets)?;
    check_targets(targets)?;
    let required = |name: &str| {
        tensor(ctx, node, name)?.ok_or_else(|| anyhow!("the attribute {name} is missing"))
    };
    let (splits, weights) = (required("nodes_splits")?, required("leaf_weights")?);
    let modes = required("nodes_modes")?;
    let members = tensor(ctx, node, "membership_values")?.unwrap_or_default();
    let mut sets: Vec<Vec<f64>> = members
        .values
        .split(|value| value.is_nan())
        .map(<[f64]>::to_vec)
        .collect();
    let (mut nodes, used) = branches(node, &splits, &modes, weights.values.len())?;
    if used > sets.len() || (used > 0 && members.values.is_empty()) {
        bail!("membership_values has fewer sets than nodes_modes asks for");
    }
    sets.truncate(used);
    let targetids = list(node, "leaf_targetids", weights.values.len())?;
    let mut leaves = Vec::with_capacity(targetids.len());
    for (place, (target, value)) in (0_u32..).zip(targetids.iter().zip(&weights.values)) {
        let target = index("leaf_targetids", *target)?;
        if target as usize >= targets {
            bail!("leaf_targetids has the value {target}, but there are {targets}");
        }
        leaves.push(Weight {
            target,
            value: *value,
        });
        nodes.push(Node::Leaf(place..place + 1));
    }
    let inner = nodes.len() - leaves.len();
    let mut roots = Vec::new();
    for root in ints(node, "tree_roots")? {
        let root = index("tree_roots", *root)?;
        if root as usize >= inner {
            bail!("tree_roots has the value {root}, but there are {inner} nodes");
        }
        roots.push(root);
    }
    Ok(Parsed {
        ensemble: Ensemble {
            nodes,
            roots,
            weights: leaves,
            members: sets,
            targets,
        },
        task: task(node, splits.doubles || weights.doubles)?,
        labels: None,
        scores_follow_input: true,
    })
}

/// The branches, which lead to each other or, behind them, to `leaves` leaves; and how many sets
/// they ask for.
fn branches(
    node: &NodeProto,
    splits: &Numbers,
    modes: &Numbers,
    leaves: usize,
) -> TractResult<(Vec<Node>, usize)> {
    let len = modes.values.len();
    let list = |name: &str| list(node, name, len);
    check_len("nodes_splits", splits.values.len(), len)?;
    let features = list("nodes_featureids")?;
    let yes = list("nodes_truenodeids")?
        .iter()
        .zip(list("nodes_trueleafs")?);
    let no = list("nodes_falsenodeids")?
        .iter()
        .zip(list("nodes_falseleafs")?);
    let missing = match ints(node, "nodes_missing_value_tracks_true")? {
        [] => vec![0; len],
        given => given.to_vec(),
    };
    check_len("nodes_missing_value_tracks_true", missing.len(), len)?;
    let child = |(to, is_leaf): (&i64, &i64)| {
        let (name, start, end) = match is_leaf {
            0 => ("a node", 0, len),
            _ => ("a leaf", len, leaves),
        };
        let to = index("nodes_truenodeids or nodes_falsenodeids", *to)?;
        if to as usize >= end {
            bail!("a node leads to {name} {to}, but there are {end}");
        }
        Ok(u32::try_from(start + to as usize)?)
    };
    let mut sets = 0;
    let mut nodes = Vec::with_capacity(len + leaves);
    let tests = modes
        .values
        .iter()
        .zip(&splits.values)
        .zip(features.iter().zip(missing));
    for (((mode, value), (feature, missing)), (yes, no)) in tests.zip(yes.zip(no)) {
        let mode = mode_of(*mode as i64, sets)?;
        sets += u32::from(matches!(mode, Mode::Member(_)));
        nodes.push(Node::Branch(Branch {
            feature: index("nodes_featureids", *feature)?,
            mode,
            value: *value,
            missing_is_yes: missing == 1,
            yes: child(yes)?,
            no: child(no)?,
        }));
    }
    Ok((nodes, sets as usize))
}

fn mode_of(number: i64, set: u32) -> TractResult<Mode> {
    Ok(match number {
        0 => Mode::Leq,
        1 => Mode::Lt,
        2 => Mode::Gte,
        3 => Mode::Gt,
        4 => Mode::Eq,
        5 => Mode::Neq,
        6 => Mode::Member(set),
        _ => bail!("unknown mode {number} in nodes_modes"),
    })
}

fn task(node: &NodeProto, doubles: bool) -> TractResult<Task> {
    let aggregate = match node.get_attr_opt::<i64>("aggregate_function")?.unwrap_or(1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => bail!("unknown aggregate_function {other}"),
    };
    let post_transform = match node.get_attr_opt::<i64>("post_transform")?.unwrap_or(0) {
        0 => PostTransform::None,
        1 => PostTransform::Softmax,
        2 => PostTransform::Logistic,
        3 => PostTransform::SoftmaxZero,
        4 => PostTransform::Probit,
        other => bail!("unknown post_transform {other}"),
    };
    Ok(Task {
        aggregate,
        post_transform,
        base_values: Vec::new(),
        classifier: None,
        doubles,
    })
}
