//! Lays lowered trees out for the kernel: children next to each other, level by level.

use std::collections::{HashMap, VecDeque};

use super::ensemble::{Precision, TreeError};
use super::kernel::{Double, Forest, Narrow, Node, Wide};
use super::lower::{Low, Lowered};

/// A forest in the smallest nodes that hold it.
#[derive(Debug)]
pub(crate) enum Packed {
    Narrow(Forest<Narrow>),
    Wide(Forest<Wide>),
    Double(Forest<Double>),
}

/// One tree: what stands at each place. Where several nodes lead to one, each has a copy of it;
/// the copies share their children.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Places {
    pub(crate) places: Vec<Place>,
    depth: u32,
}

/// A node of [`Lowered`] and where its left child stands; a leaf leads to itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) low: u32,
    left: u32,
}

/// Finds a place for each node. Trees may share nodes, but each gets its own copy: not for ever.
pub(crate) fn places(lowered: &Lowered) -> Result<Vec<Places>, TreeError> {
    let mut budget = 2 * (lowered.nodes.len() + lowered.roots.len()) + (1 << 16);
    lowered
        .roots
        .iter()
        .map(|root| {
            let tree = tree(lowered, *root, budget)?;
            budget = budget.saturating_sub(tree.places.len());
            Ok(tree)
        })
        .collect()
}

fn tree(lowered: &Lowered, root: u32, budget: usize) -> Result<Places, TreeError> {
    let mut places = vec![Place { low: root, left: 0 }];
    let mut children: HashMap<u32, u32> = HashMap::new();
    let mut queue = VecDeque::from([0_usize]);
    while let Some(at) = queue.pop_front() {
        let end = places.len();
        let Some(place) = places.get_mut(at) else {
            continue;
        };
        match lowered.nodes.get(place.low as usize) {
            Some(Low::Test { left, right, .. }) => {
                let new = *children.entry(place.low).or_insert(end as u32);
                place.left = new;
                if new as usize == end {
                    if end + 2 > budget {
                        return Err(TreeError("the trees share too many nodes".to_owned()));
                    }
                    queue.extend([end, end + 1]);
                    places.extend([left, right].map(|low| Place { low: *low, left: 0 }));
                }
            }
            _ => place.left = at as u32,
        }
    }
    let depth = lowered.depths.get(root as usize).copied();
    Ok(Places {
        places,
        depth: depth.unwrap_or_default(),
    })
}

/// Packs the trees; `payloads` holds what each leaf of `lowered` gives.
pub(crate) fn pack(
    lowered: &Lowered,
    trees: &[Places],
    payloads: &[u32],
) -> Result<Packed, TreeError> {
    let too_large = || TreeError("the ensemble is too large".to_owned());
    if lowered.thresholds == Precision::Double {
        return forest(lowered, trees, payloads)
            .map(Packed::Double)
            .ok_or_else(too_large);
    }
    if let Some(narrow) = forest(lowered, trees, payloads) {
        return Ok(Packed::Narrow(narrow));
    }
    forest(lowered, trees, payloads)
        .map(Packed::Wide)
        .ok_or_else(too_large)
}

/// `None` where the trees do not fit into nodes of this kind.
fn forest<N: Node>(lowered: &Lowered, trees: &[Places], payloads: &[u32]) -> Option<Forest<N>> {
    let packed = |tree: &Places| {
        let nodes = tree.places.iter().map(|place| {
            let low = lowered.nodes.get(place.low as usize)?;
            let left = place.left as usize;
            match low {
                Low::Test {
                    column, threshold, ..
                } => N::test(*threshold, *column as usize + 1, left),
                Low::Leaf { .. } => N::leaf(*payloads.get(place.low as usize)?, left),
            }
        });
        // The kernel wants every place to have a next one.
        let nodes = nodes.chain([N::leaf(0, 0)]);
        Some((nodes.collect::<Option<Vec<N>>>()?, tree.depth))
    };
    let trees = trees.iter().map(packed).collect::<Option<Vec<_>>>()?;
    Forest::new(trees, lowered.columns.len() + 1)
}
