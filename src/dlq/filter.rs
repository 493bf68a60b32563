//! Which dead letters are meant. Pure.

use super::Letter;
use crate::codec::Stage;

/// Which dead letters are meant: those that every part that is set lets through. A list lets
/// through what is equal to one of its entries; an empty one, everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Where the input failed.
    pub stages: Vec<Stage>,
    /// Names of the cause.
    pub classes: Vec<String>,
    /// Models that served.
    pub models: Vec<String>,
    /// Versions that served.
    pub versions: Vec<String>,
    /// Topics of the inputs.
    pub source_topics: Vec<String>,
    /// Places in the dead-letter topic: partition and offset.
    pub places: Vec<(i32, i64)>,
    /// Only dead letters whose timestamp is this or later, milliseconds since 1970.
    pub since: Option<i64>,
    /// Only dead letters whose timestamp is before this, milliseconds since 1970.
    pub until: Option<i64>,
}

impl Filter {
    /// Whether `letter` is meant. One without a timestamp is in no span of time.
    pub fn matches(&self, letter: &Letter) -> bool {
        let text = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|one| one == found))
        };
        let time = |bound: Option<i64>, holds: fn(i64, i64) -> bool| {
            bound.is_none_or(|bound| letter.timestamp.is_some_and(|at| holds(at, bound)))
        };
        let stage = |stage: &Stage| stage.as_str() == letter.stage;
        (self.stages.is_empty() || self.stages.iter().any(stage))
            && text(&self.classes, Some(&letter.class))
            && text(&self.models, letter.model.as_deref())
            && text(&self.versions, letter.version.as_deref())
            && text(&self.source_topics, letter.source.topic.as_deref())
            && (self.places.is_empty() || self.places.contains(&(letter.partition, letter.offset)))
            && time(self.since, |at, since| at >= since)
            && time(self.until, |at, until| at < until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::letter::tests::dead;
    use super::*;
    use crate::record::Origin;

    fn letter(timestamp: Option<i64>) -> Letter {
        let origin = Origin {
            topic: "events",
            partition: 0,
            offset: 5,
            timestamp,
        };
        Letter::read(&dead(origin, None, &[])).unwrap()
    }

    #[test]
    fn each_part_narrows() {
        let letter = letter(Some(10));
        let right = Filter {
            stages: vec![Stage::Infer, Stage::Decode],
            classes: vec!["invalid_json".to_owned()],
            source_topics: vec!["others".to_owned(), "events".to_owned()],
            places: vec![(2, 7)],
            since: Some(10),
            until: Some(11),
            ..Filter::default()
        };
        assert!(right.matches(&letter));
        let wrong: [fn(&mut Filter); 8] = [
            |filter| filter.stages = vec![Stage::Infer],
            |filter| filter.classes = vec!["empty".to_owned()],
            |filter| filter.models = vec!["fraud".to_owned()],
            |filter| filter.versions = vec!["1".to_owned()],
            |filter| filter.source_topics = vec!["others".to_owned()],
            |filter| filter.places = vec![(2, 8), (1, 7)],
            |filter| filter.since = Some(11),
            |filter| filter.until = Some(10),
        ];
        for (index, change) in wrong.into_iter().enumerate() {
            let mut filter = right.clone();
            change(&mut filter);
            assert!(!filter.matches(&letter), "{index}");
        }
    }

    proptest! {
        #[test]
        fn a_moment_cuts_the_letters_in_two(at in proptest::option::of(0..100_i64), cut in 0..100_i64) {
            let letter = letter(at);
            let since = Filter { since: Some(cut), ..Filter::default() };
            let until = Filter { until: Some(cut), ..Filter::default() };
            let both = u32::from(since.matches(&letter)) + u32::from(until.matches(&letter));
            prop_assert_eq!(both, u32::from(at.is_some()));
            prop_assert!(Filter::default().matches(&letter));
        }
    }
}
