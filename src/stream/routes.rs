//! Which partition an output record goes to. Pure.
//!
//! The input's partition where the counts match, so that order is kept partition by partition;
//! else keyed records go where their key hashes to (`murmur2_random`, as Java's producer does),
//! and keyless ones to the input partition modulo the count.

use std::collections::BTreeMap;

/// Partition counts of a stream's topics, looked up at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Routes {
    inputs: BTreeMap<String, i32>,
    outputs: i32,
}

impl Routes {
    pub(super) fn new(inputs: BTreeMap<String, i32>, outputs: i32) -> Self {
        Self { inputs, outputs }
    }

    /// The partition for a record of `topic` / `partition`; `None` leaves it to the key.
    pub(super) fn partition(&self, topic: &str, partition: i32, keyed: bool) -> Option<i32> {
        // A partition added since the start may be beyond the output's count.
        let same = self.inputs.get(topic) == Some(&self.outputs) && partition < self.outputs;
        match (same, keyed) {
            (true, _) => Some(partition),
            (false, true) => None,
            (false, false) => Some(partition % self.outputs.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_counts_keep_the_partition_and_others_go_by_key() {
        let inputs = BTreeMap::from([("a".to_owned(), 4), ("b".to_owned(), 6)]);
        let routes = Routes::new(inputs, 4);
        assert_eq!(routes.partition("a", 3, true), Some(3));
        assert_eq!(routes.partition("a", 3, false), Some(3));
        assert_eq!(routes.partition("a", 5, false), Some(1));
        assert_eq!(routes.partition("b", 5, true), None);
        assert_eq!(routes.partition("b", 5, false), Some(1));
    }
}
