//! What lies in a dead-letter topic: counts by stage and class, and the newest rows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeadLetterTopic, DlqError, Filter, Letter, Marks};
use crate::record::OwnedRecord;

/// Value of `schema` in a listing.
pub const LIST_SCHEMA: &str = "swapstream.dlq-list/v1";

/// What lies in a dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listing {
    /// Always `swapstream.dlq-list/v1`.
    pub schema: String,
    /// The dead-letter topic.
    pub topic: String,
    /// Dead letters that the filter lets through.
    pub dead_letters: u64,
    /// Those of them that were sent again.
    pub redriven: u64,
    /// Records of the topic that are neither dead letters of Swapstream's nor its marks.
    pub other_records: u64,
    /// How many of each stage and class, the most frequent first.
    pub counts: Vec<Count>,
    /// The newest of them by their timestamps, in that order; at most as many as asked for.
    pub records: Vec<Row>,
}

/// How many dead letters have one stage and class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// Where the inputs failed.
    pub stage: String,
    /// Why.
    pub class: String,
    /// How many.
    pub dead_letters: u64,
    /// Those of them that were sent again.
    pub redriven: u64,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// What it says of itself.
    #[serde(flatten)]
    pub letter: Letter,
    /// Whether it was sent again.
    pub redriven: bool,
}

/// Lists what lies in `topic`: counts of what `filter` lets through, and its newest `limit` rows.
/// With `pending`, what was sent again is left out.
pub fn list(
    topic: &DeadLetterTopic,
    filter: &Filter,
    pending: bool,
    limit: usize,
) -> Result<Listing, DlqError> {
    let marks = topic.marks(&mut |_| ())?;
    let mut survey = Survey::new(filter, &marks, pending, limit);
    topic.each(&mut |record| {
        survey.take(&record)?;
        Ok(())
    })?;
    Ok(survey.finish(topic.name()))
}

/// What was seen so far.
struct Survey<'a> {
    filter: &'a Filter,
    marks: &'a Marks,
    pending: bool,
    limit: usize,
    others: u64,
    /// Stage and class to dead letters, redriven ones.
    counts: BTreeMap<(String, String), (u64, u64)>,
    /// By timestamp, partition and offset.
    rows: BTreeMap<(Option<i64>, i32, i64), Row>,
}

impl<'a> Survey<'a> {
    fn new(filter: &'a Filter, marks: &'a Marks, pending: bool, limit: usize) -> Self {
        Self {
            filter,
            marks,
            pending,
            limit,
            others: 0,
            counts: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    fn take(&mut self, record: &OwnedRecord) -> Result<(), DlqError> {
        let Some(letter) = Letter::read(record) else {
            if !Marks::default().apply(record)? {
                self.others += 1;
            }
            return Ok(());
        };
        let redriven = self.marks.contains(letter.partition, letter.offset);
        if !self.filter.matches(&letter) || (self.pending && redriven) {
            return Ok(());
        }
        let kind = (letter.stage.clone(), letter.class.clone());
        let count = self.counts.entry(kind).or_default();
        count.0 += 1;
        count.1 += u64::from(redriven);
        let key = (letter.timestamp, letter.partition, letter.offset);
        self.rows.insert(key, Row { letter, redriven });
        if self.rows.len() > self.limit {
            self.rows.pop_first();
        }
        Ok(())
    }

    fn finish(self, topic: &str) -> Listing {
        let count = |((stage, class), (dead_letters, redriven))| Count {
            stage,
            class,
            dead_letters,
            redriven,
        };
        let mut counts: Vec<Count> = self.counts.into_iter().map(count).collect();
        counts.sort_by_key(|count| std::cmp::Reverse(count.dead_letters));
        Listing {
            schema: LIST_SCHEMA.to_owned(),
            topic: topic.to_owned(),
            dead_letters: counts.iter().map(|count| count.dead_letters).sum(),
            redriven: counts.iter().map(|count| count.redriven).sum(),
            other_records: self.others,
            counts,
            records: self.rows.into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::letter::tests::dead;
    use super::super::{MARK_SCHEMA, Mark};
    use super::*;
    use crate::record::Origin;

    fn letter(offset: i64, timestamp: Option<i64>) -> OwnedRecord {
        let origin = Origin {
            topic: "events",
            partition: 0,
            offset: 0,
            timestamp,
        };
        OwnedRecord {
            offset,
            ..dead(origin, None, &[])
        }
    }

    fn mark(offset: i64, offsets: Vec<(i64, i64)>) -> OwnedRecord {
        let mark = Mark {
            schema: MARK_SCHEMA.to_owned(),
            topic: "dlq".to_owned(),
            partition: 2,
            offsets,
            to: None,
            at: None,
            by: None,
        };
        let out = mark.record().unwrap();
        OwnedRecord {
            value: out.value,
            headers: out.headers,
            ..letter(offset, None)
        }
    }

    proptest! {
        /// Counts are of everything, rows are the newest; what was sent again is told apart.
        #[test]
        fn a_survey_counts_all_and_shows_the_newest(
            times in proptest::collection::vec(proptest::option::of(0..50_i64), 0..30),
            sent in 0..30_i64,
            limit in 0..10_usize,
            pending: bool,
        ) {
            let end = times.len() as i64;
            let mut records: Vec<OwnedRecord> = (0..).zip(&times).map(|(o, t)| letter(o, *t)).collect();
            records.push(mark(end, vec![(0, sent - 1)]));
            records.push(OwnedRecord { headers: Vec::new(), ..letter(end + 1, None) });
            let mut marks = Marks::default();
            for record in &records {
                marks.apply(record).unwrap();
            }
            let filter = Filter::default();
            let mut survey = Survey::new(&filter, &marks, pending, limit);
            for record in &records {
                survey.take(record).unwrap();
            }
            let listing = survey.finish("dlq");
            let redriven = sent.min(end);
            let all = if pending { end - redriven } else { end };
            prop_assert_eq!(listing.dead_letters, all as u64);
            prop_assert_eq!(listing.redriven, if pending { 0 } else { redriven as u64 });
            prop_assert_eq!(listing.other_records, 1);
            prop_assert_eq!(listing.records.len(), limit.min(all as usize));
            let mut wanted: Vec<_> = (0..).zip(times)
                .map(|(offset, time)| (time, offset))
                .filter(|(_, offset)| !pending || *offset >= sent)
                .collect();
            wanted.sort_unstable();
            let wanted = wanted.split_off(wanted.len().saturating_sub(limit));
            let shown: Vec<_> = listing.records.iter().map(|row| (row.letter.timestamp, row.letter.offset)).collect();
            prop_assert_eq!(shown, wanted);
            prop_assert!(listing.records.iter().all(|row| row.redriven == (row.letter.offset < sent)));
        }
    }
}
