//! Which dead letters were sent again: marks, and the sets of offsets that they add up to. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DlqError, Letter};
use crate::record::{Header, OutRecord, OwnedRecord};

/// Value of `schema` in a mark.
pub const MARK_SCHEMA: &str = "swapstream.redriven/v1";
/// The header that a mark is known by.
pub const MARK_HEADER: &str = "__swapstream.redriven";

/// A set of offsets, kept as ranges: neighbours cost nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetSet {
    /// First offset of a range to its last one; ranges neither overlap nor touch.
    ranges: BTreeMap<i64, i64>,
}

impl OffsetSet {
    /// Adds the offsets `first` to `last`.
    pub fn insert(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // Every range that begins at the latest right after this one, from the last backwards.
        let end = last.saturating_add(1);
        while let Some((&start, &stop)) = self.ranges.range(..=end).next_back() {
            if stop.saturating_add(1) < first {
                break;
            }
            self.ranges.remove(&start);
            first = first.min(start);
            last = last.max(stop);
        }
        self.ranges.insert(first, last);
    }

    /// Whether `offset` is in the set.
    pub fn contains(&self, offset: i64) -> bool {
        let before = self.ranges.range(..=offset).next_back();
        before.is_some_and(|(_, last)| offset <= *last)
    }

    /// The ranges in order: first and last offset.
    pub fn ranges(&self) -> impl Iterator<Item = (i64, i64)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }
}

/// A record that tells which dead letters of its partition were sent again; written in the same
/// transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mark {
    /// Always `swapstream.redriven/v1`.
    pub schema: String,
    /// The dead-letter topic, in which this record lies.
    pub topic: String,
    /// The partition, likewise.
    pub partition: i32,
    /// Ranges of the offsets that were sent again: first and last one.
    pub offsets: Vec<(i64, i64)>,
    /// Where to; left out where each went back to its input topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Mark {
    /// The mark as a record. Its key is its own, so that it stays where a topic is compacted.
    pub fn record(&self) -> serde_json::Result<OutRecord> {
        let first = self.offsets.first().map_or(0, |(first, _)| *first);
        Ok(OutRecord {
            topic: self.topic.clone(),
            partition: Some(self.partition),
            key: Some(format!("{MARK_HEADER}/{}/{first}", self.partition).into_bytes()),
            value: Some(serde_json::to_vec(self)?),
            headers: vec![Header::text(MARK_HEADER, "v1")],
            timestamp: None,
        })
    }
}

/// What the marks of a topic add up to, by partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    partitions: BTreeMap<i32, OffsetSet>,
}

impl Marks {
    /// Takes a record of the dead-letter topic; gives whether it is a mark.
    ///
    /// # Errors
    /// It is a mark that cannot be read: what was sent again is not known.
    pub fn apply(&mut self, record: &OwnedRecord) -> Result<bool, DlqError> {
        let marked = |header: &Header| header.key == MARK_HEADER;
        // A dead letter keeps the headers of its input, whatever they are.
        if !record.headers.iter().any(marked) || Letter::read(record).is_some() {
            return Ok(false);
        }
        let unreadable = |reason: String| DlqError::UnreadableMark {
            topic: record.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            reason,
        };
        let value = record.value.as_deref().unwrap_or_default();
        let mark: Mark = serde_json::from_slice(value).map_err(|e| unreadable(e.to_string()))?;
        if mark.schema != MARK_SCHEMA {
            return Err(unreadable(format!("schema {:?}", mark.schema)));
        }
        // A copy from elsewhere tells of offsets that are not these.
        if mark.topic == record.topic && mark.partition == record.partition {
            let set = self.partitions.entry(mark.partition).or_default();
            for (first, last) in mark.offsets {
                set.insert(first, last.min(record.offset - 1));
            }
        }
        Ok(true)
    }

    /// Whether the dead letter at `offset` of `partition` was sent again.
    pub fn contains(&self, partition: i32, offset: i64) -> bool {
        let set = self.partitions.get(&partition);
        set.is_some_and(|set| set.contains(offset))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::letter::tests::dead;
    use super::*;
    use crate::record::Origin;

    fn mark(offsets: Vec<(i64, i64)>) -> Mark {
        Mark {
            schema: MARK_SCHEMA.to_owned(),
            topic: "dlq".to_owned(),
            partition: 1,
            offsets,
            to: None,
            at: Some("2026-01-31T08:00:00Z".to_owned()),
            by: None,
        }
    }

    fn lying(mark: &Mark, partition: i32, offset: i64) -> OwnedRecord {
        let out = mark.record().unwrap();
        OwnedRecord {
            topic: "dlq".to_owned(),
            partition,
            offset,
            timestamp: None,
            key: out.key,
            value: out.value,
            headers: out.headers,
        }
    }

    #[test]
    fn a_mark_tells_of_its_own_partition_and_of_what_is_before_it() {
        let mut marks = Marks::default();
        let mark = mark(vec![(0, 2), (4, 99)]);
        assert!(marks.apply(&lying(&mark, 1, 10)).unwrap());
        let told: Vec<i64> = (0..20)
            .filter(|offset| marks.contains(1, *offset))
            .collect();
        assert_eq!(told, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
        // A copy in another partition says nothing, and is a mark all the same.
        let mut marks = Marks::default();
        assert!(marks.apply(&lying(&mark, 0, 10)).unwrap());
        assert_eq!(
            marks,
            Marks {
                partitions: BTreeMap::new()
            }
        );
    }

    #[test]
    fn a_mark_of_another_form_is_an_error_and_a_dead_letter_is_no_mark() {
        let mut newer = mark(vec![(0, 2)]);
        newer.schema = "swapstream.redriven/v2".to_owned();
        let error = Marks::default().apply(&lying(&newer, 1, 10)).unwrap_err();
        assert!(error.to_string().contains("offset 10 of dlq-1"), "{error}");
        let origin = Origin {
            topic: "events",
            partition: 0,
            offset: 5,
            timestamp: None,
        };
        let forged = dead(origin, None, &[Header::text(MARK_HEADER, "v1")]);
        assert_eq!(Marks::default().apply(&forged), Ok(false));
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_added(ranges in proptest::collection::vec((0..60_i64, 0..9_i64), 0..20)) {
            let (mut set, mut model) = (OffsetSet::default(), BTreeSet::new());
            for (first, more) in ranges {
                set.insert(first, first + more - 1);
                model.extend(first..first + more);
            }
            for offset in -1..80 {
                prop_assert_eq!(set.contains(offset), model.contains(&offset), "{}", offset);
            }
            let ranges: Vec<_> = set.ranges().collect();
            // Neither overlapping nor touching.
            prop_assert!(ranges.windows(2).all(|two| two[0].1 + 1 < two[1].0));
        }
    }
}
