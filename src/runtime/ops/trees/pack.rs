//! Lays lowered trees out for the kernel: children next to each other, and as many of a node's
//! descendants as a line of the cache takes behind one another.

use std::collections::{HashMap, VecDeque};

use super::ensemble::{Precision, TreeError};
use super::kernel::{Double, Forest, LINE, Narrow, Node, Wide};
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
    // Places whose children have none yet, the next one last.
    let mut open = vec![0_usize];
    while let Some(at) = open.pop() {
        let mut near = VecDeque::from([at]);
        while let Some(at) = near.pop_front() {
            let end = places.len();
            let Some(place) = places.get_mut(at) else {
                continue;
            };
            let Some(Low::Test { left, right, .. }) = lowered.nodes.get(place.low as usize) else {
                place.left = at as u32;
                continue;
            };
            let new = *children.entry(place.low).or_insert(end as u32);
            place.left = new;
            if new as usize != end {
                continue;
            }
            if end + 2 > budget {
                return Err(TreeError("the trees share too many nodes".to_owned()));
            }
            near.extend([end, end + 1]);
            places.extend([left, right].map(|low| Place { low: *low, left: 0 }));
            // The root lies in the line before.
            if places.len() % LINE == 1 {
                break;
            }
        }
        open.extend(near.into_iter().rev());
    }
    Ok(Places { places })
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
        let nodes = tree.places.iter().enumerate().map(|(at, place)| {
            let low = lowered.nodes.get(place.low as usize)?;
            let left = place.left as isize - at as isize;
            match low {
                Low::Test {
                    column, threshold, ..
                } => N::test(*threshold, *column as usize + 1, left),
                Low::Leaf { .. } => Some(N::leaf(*payloads.get(place.low as usize)?)),
            }
        });
        // The kernel wants every place to have a next one.
        let nodes = nodes.chain([Some(N::end())]);
        let height = |place: &Place| lowered.depths.get(place.low as usize).copied();
        let heights = tree.places.iter().map(height).chain([Some(0)]);
        Some((
            nodes.collect::<Option<Vec<N>>>()?,
            heights.collect::<Option<Vec<u32>>>()?,
        ))
    };
    let trees = trees.iter().map(packed).collect::<Option<Vec<_>>>()?;
    Forest::new(trees, lowered.columns.len() + 1)
}
