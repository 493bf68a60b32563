//! What the leaves add, stored by what they have in common: most ensembles have one weight per
//! leaf, and it fits into the node.

use std::collections::HashMap;

use super::ensemble::{Ensemble, TreeError, Weight};
use super::lower::{Low, Lowered};
use super::pack::Places;

/// Where the weights of a leaf are.
#[derive(Debug, PartialEq)]
pub(crate) enum Leaves {
    /// The payload is the weight, as the bits of a float; these are the targets of the trees.
    Single(Vec<u32>),
    /// The payload is the number of a row of weights, one for each target.
    Dense(Vec<f64>),
    /// The payload is the number of a list, from one of `starts` to the next.
    Sparse {
        starts: Vec<u32>,
        weights: Vec<Weight>,
    },
}

/// Whether rows get a weight for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scored {
    Always,
    Never,
    Depends,
}

/// Chooses how leaves are stored. Then the payload of each node of `lowered`, of which only those
/// of leaves mean something. `sparse` asks for lists in any case.
pub(crate) fn leaves(
    ensemble: &Ensemble,
    lowered: &Lowered,
    trees: &[Places],
    scored: &[Scored],
    sparse: bool,
) -> Result<(Leaves, Vec<u32>), TreeError> {
    if !sparse && let Some(found) = single(ensemble, lowered, trees) {
        return Ok(found);
    }
    let targets = ensemble.targets;
    let lists = || lowered.nodes.iter().map(|low| list(ensemble, low));
    let (count, given) = lists()
        .flatten()
        .fold((0_usize, 0_usize), |(count, given), weights| {
            (count + 1, given + weights.len())
        });
    // Not much more than the file itself holds, so that no small file asks for much memory.
    let small = count.saturating_mul(targets) <= given.saturating_mul(4);
    // A zero for a missing weight changes no sum, but would make up a score.
    let complete = !scored.contains(&Scored::Depends);
    let mut payloads = vec![0; lowered.nodes.len()];
    let slots = payloads.iter_mut().zip(lists());
    let slots = slots.filter_map(|(payload, weights)| Some((payload, weights?)));
    if !sparse && small && complete && lists().flatten().all(each_target_once) {
        let mut dense = vec![0.0; count * targets];
        for (row, (payload, weights)) in slots.enumerate() {
            *payload = number(row)?;
            for weight in weights {
                if let Some(slot) = dense.get_mut(row * targets + weight.target as usize) {
                    *slot = weight.value;
                }
            }
        }
        return Ok((Leaves::Dense(dense), payloads));
    }
    let mut starts = vec![0];
    let mut all = Vec::with_capacity(given);
    for (index, (payload, weights)) in slots.enumerate() {
        *payload = number(index)?;
        all.extend_from_slice(weights);
        starts.push(number(all.len())?);
    }
    let weights = all;
    Ok((Leaves::Sparse { starts, weights }, payloads))
}

/// The weights of a leaf; `None` where `low` is none.
fn list<'a>(ensemble: &'a Ensemble, low: &Low) -> Option<&'a [Weight]> {
    match low {
        Low::Leaf { start, end } => {
            let range = *start as usize..*end as usize;
            Some(ensemble.weights.get(range).unwrap_or_default())
        }
        Low::Test { .. } => None,
    }
}

/// Payloads must not be NaN when they are read as a float.
fn number(index: usize) -> Result<u32, TreeError> {
    let index = u32::try_from(index).ok();
    index
        .filter(|index| *index < f32::INFINITY.to_bits())
        .ok_or_else(|| TreeError("the ensemble has too many leaves".to_owned()))
}

fn each_target_once(weights: &[Weight]) -> bool {
    let mut targets: Vec<u32> = weights.iter().map(|weight| weight.target).collect();
    targets.sort_unstable();
    targets
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a != b))
}

/// One weight per leaf, a float, and for the same target in all leaves of a tree.
fn single(ensemble: &Ensemble, lowered: &Lowered, trees: &[Places]) -> Option<(Leaves, Vec<u32>)> {
    let mut payloads = vec![0; lowered.nodes.len()];
    let mut targets = Vec::with_capacity(trees.len());
    for tree in trees {
        let mut target = None;
        for place in &tree.places {
            let node = place.low as usize;
            let Some(weights) = list(ensemble, lowered.nodes.get(node)?) else {
                continue;
            };
            let [weight] = weights else {
                return None;
            };
            let single = weight.value as f32;
            if f64::from(single) != weight.value
                || *target.get_or_insert(weight.target) != weight.target
            {
                return None;
            }
            *payloads.get_mut(node)? = single.to_bits();
        }
        targets.push(target?);
    }
    Some((Leaves::Single(targets), payloads))
}

/// Which targets get a weight in every row, and which in none.
pub(crate) fn scored(ensemble: &Ensemble, lowered: &Lowered, trees: &[Places]) -> Vec<Scored> {
    let mut scored = vec![Scored::Never; ensemble.targets];
    for tree in trees {
        let mut leaves = 0_usize;
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for place in &tree.places {
            let low = lowered.nodes.get(place.low as usize);
            let Some(weights) = low.and_then(|low| list(ensemble, low)) else {
                continue;
            };
            leaves += 1;
            let mut targets: Vec<u32> = weights.iter().map(|weight| weight.target).collect();
            targets.sort_unstable();
            targets.dedup();
            for target in targets {
                *counts.entry(target).or_default() += 1;
            }
        }
        for (target, count) in counts {
            match scored.get_mut(target as usize) {
                Some(Scored::Always) | None => {}
                Some(slot) if count == leaves => *slot = Scored::Always,
                Some(slot) => *slot = Scored::Depends,
            }
        }
    }
    scored
}
