//! What becomes of each dead letter when a topic is redriven: it is sent again, or left, and why.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Filter, Letter, Marks};
use crate::codec::{ERROR_PREFIX, is_error_header, record_size};
use crate::record::{Header, OutRecord, OwnedRecord};

/// The timestamp of a record that is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timestamps {
    /// The dead letter's, which is the input's.
    #[default]
    Original,
    /// The moment of sending.
    Now,
}

/// Why a dead letter that is meant is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// It was sent again before.
    AlreadyRedriven,
    /// Its event was scored as often as is allowed.
    MaxAttempts,
    /// It was cut: the whole is not in it.
    Truncated,
    /// It would be larger than its topic takes.
    TooLarge,
    /// Its headers name no topic, or one that is no input of the configured streams.
    OtherSource,
}

/// What becomes of a record of a dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The filter does not let it through, or it is no dead letter.
    NotMeant,
    /// It stays.
    Left(Left),
    /// It is sent, as this.
    Send(OutRecord),
}

/// What a topic that records go back to takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Its number of partitions.
    pub partitions: i32,
    /// Its `max.message.bytes`.
    pub max_bytes: usize,
}

/// What decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Which dead letters are meant.
    pub filter: Filter,
    /// An event that has failed this often is left.
    pub max_attempts: u32,
    /// Where to; `None`: each to its input topic.
    pub to: Option<String>,
    /// The input topics that records may go back to; `None`: any.
    pub sources: Option<BTreeSet<String>>,
    /// The timestamp of what is sent.
    pub timestamps: Timestamps,
}

impl Rules {
    /// What becomes of `letter`, its size not looked at: the topic that it goes to, or why it is
    /// left; `None` where it is not meant.
    pub(super) fn destination<'a>(
        &'a self,
        letter: &'a Letter,
        marks: &Marks,
    ) -> Option<Result<&'a str, Left>> {
        if !self.filter.matches(letter) {
            return None;
        }
        if marks.contains(letter.partition, letter.offset) {
            return Some(Err(Left::AlreadyRedriven));
        }
        if letter.truncated {
            return Some(Err(Left::Truncated));
        }
        if letter.attempt >= self.max_attempts {
            return Some(Err(Left::MaxAttempts));
        }
        let allowed = |topic: &&str| {
            let sources = self.sources.as_ref();
            sources.is_none_or(|sources| sources.contains(*topic))
        };
        let topic = match &self.to {
            Some(topic) => Some(topic.as_str()),
            None => letter.source.topic.as_deref().filter(allowed),
        };
        Some(topic.ok_or(Left::OtherSource))
    }

    /// What becomes of `record`, given what was sent before and what the targets take.
    pub(super) fn choose(
        &self,
        record: OwnedRecord,
        marks: &Marks,
        targets: &BTreeMap<String, Target>,
    ) -> Choice {
        let Some(letter) = Letter::read(&record) else {
            return Choice::NotMeant;
        };
        let topic = match self.destination(&letter, marks) {
            None => return Choice::NotMeant,
            Some(Err(left)) => return Choice::Left(left),
            Some(Ok(topic)) => topic,
        };
        let Some(target) = targets.get(topic) else {
            return Choice::Left(Left::OtherSource);
        };
        let out = self.rebuild(record, &letter, topic, *target);
        if record_size(out.key.as_deref(), out.value.as_deref(), &out.headers) > target.max_bytes {
            return Choice::Left(Left::TooLarge);
        }
        Choice::Send(out)
    }

    /// The input as it was, and how often it has failed so far.
    fn rebuild(
        &self,
        record: OwnedRecord,
        letter: &Letter,
        topic: &str,
        target: Target,
    ) -> OutRecord {
        let mut headers = record.headers;
        headers.retain(|header| !is_error_header(&header.key));
        let attempt = Header::text(format!("{ERROR_PREFIX}attempt"), letter.attempt);
        headers.push(attempt);
        let home = letter.source.topic.as_deref() == Some(topic);
        let partition = letter
            .source
            .partition
            .filter(|partition| home && (0..target.partitions).contains(partition));
        OutRecord {
            topic: topic.to_owned(),
            partition,
            key: record.key,
            value: record.value,
            headers,
            timestamp: match self.timestamps {
                Timestamps::Original => record.timestamp,
                Timestamps::Now => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::letter::tests::dead;
    use super::super::{MARK_SCHEMA, Mark};
    use super::*;
    use crate::codec::{DeadLetter, RowError, Stage};
    use crate::record::Origin;

    const ORIGIN: Origin<'_> = Origin {
        topic: "events",
        partition: 3,
        offset: 991,
        timestamp: Some(1_000),
    };

    fn rules() -> Rules {
        Rules {
            max_attempts: 3,
            ..Rules::default()
        }
    }

    fn targets(partitions: i32, max_bytes: usize) -> BTreeMap<String, Target> {
        let target = Target {
            partitions,
            max_bytes,
        };
        ["events", "other"]
            .map(|name| (name.to_owned(), target))
            .into()
    }

    fn choose(rules: &Rules, record: OwnedRecord) -> Choice {
        rules.choose(record, &Marks::default(), &targets(4, 1_000))
    }

    fn attempt(number: u32) -> Header {
        Header::text(format!("{ERROR_PREFIX}attempt"), number)
    }

    #[test]
    fn each_reason_to_leave_one() {
        let plain = || dead(ORIGIN, Some(b"v"), &[]);
        assert!(matches!(choose(&rules(), plain()), Choice::Send(_)));
        let stage = Filter {
            stages: vec![Stage::Infer],
            ..Filter::default()
        };
        let other = Rules {
            filter: stage,
            ..rules()
        };
        assert_eq!(choose(&other, plain()), Choice::NotMeant);

        let left = |rules: &Rules, record| match choose(rules, record) {
            Choice::Left(left) => left,
            other => panic!("{other:?}"),
        };
        // Failed once before and again by now: two of three. One more, and it is enough.
        let twice = dead(ORIGIN, None, &[attempt(1)]);
        assert!(matches!(choose(&rules(), twice), Choice::Send(_)));
        let thrice = dead(ORIGIN, None, &[attempt(2)]);
        assert_eq!(left(&rules(), thrice), Left::MaxAttempts);
        let mut cut = plain();
        cut.headers
            .push(Header::text(format!("{ERROR_PREFIX}truncated"), true));
        assert_eq!(left(&rules(), cut), Left::Truncated);
        let large = dead(ORIGIN, Some(&[b'x'; 950]), &[]);
        assert_eq!(left(&rules(), large), Left::TooLarge);
        let only = Rules {
            sources: Some(BTreeSet::from(["other".to_owned()])),
            ..rules()
        };
        assert_eq!(left(&only, plain()), Left::OtherSource);
        // Where the operator names the topic, it is that one.
        let named = Rules {
            to: Some("other".to_owned()),
            ..only
        };
        let Choice::Send(out) = choose(&named, plain()) else {
            panic!("sent");
        };
        assert_eq!((out.topic.as_str(), out.partition), ("other", None));
    }

    #[test]
    fn what_was_sent_before_is_left() {
        let record = dead(ORIGIN, None, &[]);
        let mark = Mark {
            schema: MARK_SCHEMA.to_owned(),
            topic: record.topic.clone(),
            partition: record.partition,
            offsets: vec![(record.offset, record.offset)],
            to: None,
            at: None,
            by: None,
        };
        let out = mark.record().unwrap();
        let mut marks = Marks::default();
        let lying = OwnedRecord {
            offset: record.offset + 1,
            value: out.value,
            headers: out.headers,
            ..record.clone()
        };
        assert!(marks.apply(&lying).unwrap());
        let choice = rules().choose(record, &marks, &targets(4, 1_000));
        assert_eq!(choice, Choice::Left(Left::AlreadyRedriven));
    }

    #[test]
    fn the_partition_is_the_inputs_where_it_is_there() {
        let sent = |partitions, timestamps| {
            let rules = Rules {
                timestamps,
                ..rules()
            };
            let record = dead(ORIGIN, None, &[]);
            match rules.choose(record, &Marks::default(), &targets(partitions, 1_000)) {
                Choice::Send(out) => (out.partition, out.timestamp),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(sent(4, Timestamps::Original), (Some(3), Some(1_000)));
        assert_eq!(sent(3, Timestamps::Now), (None, None));
    }

    fn header() -> impl Strategy<Value = Header> {
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9));
        ("[a-c]{0,2}", value).prop_map(|(key, value)| Header { key, value })
    }

    proptest! {
        /// There and back: what goes back is the input, byte by byte, with one header more; and
        /// failing again it counts on.
        #[test]
        fn a_record_goes_round(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
            headers in proptest::collection::vec(header(), 0..6),
        ) {
            let mut record = dead(ORIGIN, value.as_deref(), &headers);
            record.key.clone_from(&key);
            let Choice::Send(out) = choose(&rules(), record) else {
                panic!("sent");
            };
            let (last, kept) = out.headers.split_last().unwrap();
            prop_assert_eq!(kept, &headers[..]);
            prop_assert_eq!(last, &attempt(1));
            prop_assert_eq!(&out.key, &key);
            prop_assert_eq!(&out.value, &value);
            prop_assert_eq!(out.timestamp, Some(1_000));
            let error = RowError::new(Stage::Infer, "runtime_error", "again");
            let again = DeadLetter::new(ORIGIN, &error, None, value.as_deref(), &out.headers);
            prop_assert_eq!(again.headers.last(), Some(&attempt(2)));
            prop_assert_eq!(&again.headers[..headers.len()], &headers[..]);
        }
    }
}
