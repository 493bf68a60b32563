//! Which records a topic takes, by its settings. A broker refuses the whole batch for one of them, with
//! every try, so they are kept back. Pure.

use crate::kafka::{DEFAULT_MAX_MESSAGE_BYTES, TopicInfo};

/// How much earlier than a topic's limit, or half of it, a record counts as too old: clocks differ, and it
/// is not there at once.
const MARGIN_MS: i64 = 60_000;

/// What a topic asks of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acceptance {
    /// Largest record, in bytes.
    pub(super) max_bytes: usize,
    /// Whether each needs a key: the topic is compacted.
    pub(super) keyed: bool,
    /// How many milliseconds before the broker's time a record's own may lie, and how many after it.
    times: Option<(i64, i64)>,
}

impl Default for Acceptance {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            keyed: false,
            times: None,
        }
    }
}

impl Acceptance {
    /// By the settings of a topic. Those of times are Kafka's since 3.6 (KIP-937), where the longest time after
    /// is an hour by default since 4.0; before 4.0 `message.timestamp.difference.max.ms` holds where they are
    /// not set.
    pub(super) fn of(info: &TopicInfo) -> Self {
        let config = &info.config;
        let number = |name: &str| config.get(name).and_then(|text| text.parse::<i64>().ok());
        let either = |name: &str| {
            let difference = number("message.timestamp.difference.max.ms");
            let own = number(name).filter(|limit| *limit != i64::MAX);
            own.or(difference).unwrap_or(i64::MAX)
        };
        let own = config.get("message.timestamp.type").map(String::as_str) != Some("LogAppendTime");
        let times = (
            either("message.timestamp.before.max.ms"),
            either("message.timestamp.after.max.ms"),
        );
        Self {
            max_bytes: info.max_message_bytes(),
            keyed: config
                .get("cleanup.policy")
                .is_some_and(|policy| policy.split(',').any(|one| one.trim() == "compact")),
            times: (own && times != (i64::MAX, i64::MAX)).then_some(times),
        }
    }

    /// Whether it takes a record of `timestamp`, milliseconds since 1970, at `now`.
    pub(super) fn takes_time(&self, timestamp: Option<i64>, now: i64) -> bool {
        // The client gives a record without a time, or of the time 0, that of sending.
        let timestamp = timestamp.filter(|timestamp| *timestamp != 0);
        let (Some((before, after)), Some(timestamp)) = (self.times, timestamp) else {
            return true;
        };
        let age = now.saturating_sub(timestamp);
        age <= before - MARGIN_MS.min(before / 2) && age.saturating_neg() <= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &[(&str, &str)]) -> Acceptance {
        let config = config.iter();
        Acceptance::of(&TopicInfo {
            partitions: 1,
            config: config
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        })
    }

    #[test]
    fn settings_are_read() {
        assert_eq!(of(&[]), Acceptance::default());
        let all = of(&[
            ("max.message.bytes", "77"),
            ("cleanup.policy", "delete, compact"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "3600000"),
        ]);
        assert_eq!((all.max_bytes, all.keyed), (77, true));
        assert_eq!(all.times, Some((i64::MAX, 3_600_000)));
        assert!(!of(&[("cleanup.policy", "delete")]).keyed);
    }

    #[test]
    fn times_are_held_against_the_brokers() {
        const NOW: i64 = 1_800_000_000_000;
        let hour = of(&[
            ("message.timestamp.before.max.ms", "3600000"),
            ("message.timestamp.after.max.ms", "3600000"),
        ]);
        let takes = |rules: &Acceptance, age: i64| rules.takes_time(Some(NOW - age), NOW);
        let minutes = 60_000;
        assert!(takes(&hour, 59 * minutes) && takes(&hour, 0) && takes(&hour, -60 * minutes));
        assert!(!takes(&hour, 59 * minutes + 1) && !takes(&hour, -60 * minutes - 1));
        assert!(
            hour.takes_time(None, NOW),
            "the client gives it the time of sending"
        );
        let older = of(&[("message.timestamp.difference.max.ms", "3600000")]);
        assert_eq!(older, hour);
        let between = of(&[
            ("message.timestamp.difference.max.ms", "3600000"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ]);
        assert_eq!(between, hour);
        let short = of(&[("message.timestamp.before.max.ms", "30000")]);
        assert!(takes(&short, 0) && takes(&short, 15_000) && !takes(&short, 15_001));
        assert!(short.takes_time(Some(0), NOW));
        let broker = of(&[
            ("message.timestamp.type", "LogAppendTime"),
            ("message.timestamp.before.max.ms", "1"),
        ]);
        assert!(takes(&broker, i64::MAX / 2));
        assert!(takes(&Acceptance::default(), i64::MIN / 2));
    }
}
