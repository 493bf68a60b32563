//! The events of a run. Pure: key, number and kind make the bytes, so nothing of them need be kept.

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Good,
    NotJson,
    Empty,
    Tombstone,
    NotAnObject,
    NotUtf8,
    TooDeep,
    Missing,
    WrongType,
}

impl Kind {
    /// What cannot be scored, by any version.
    pub const POISON: [Kind; 8] = [
        Kind::NotJson,
        Kind::Empty,
        Kind::Tombstone,
        Kind::NotAnObject,
        Kind::NotUtf8,
        Kind::TooDeep,
        Kind::Missing,
        Kind::WrongType,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Good => "good",
            Kind::NotJson => "not_json",
            Kind::Empty => "empty",
            Kind::Tombstone => "tombstone",
            Kind::NotAnObject => "not_an_object",
            Kind::NotUtf8 => "not_utf8",
            Kind::TooDeep => "too_deep",
            Kind::Missing => "missing",
            Kind::WrongType => "wrong_type",
        }
    }

    pub fn named(name: &str) -> Option<Kind> {
        let mut all = Self::POISON.into_iter().chain([Kind::Good]);
        all.find(|kind| kind.name() == name)
    }

    /// Stage and class of its dead letter.
    pub fn refusal(self) -> Option<(&'static str, &'static str)> {
        match self {
            Kind::Good => None,
            Kind::NotJson => Some(("decode", "invalid_json")),
            Kind::Empty => Some(("decode", "empty")),
            Kind::Tombstone => Some(("decode", "tombstone")),
            Kind::NotAnObject => Some(("decode", "not_an_object")),
            Kind::NotUtf8 => Some(("decode", "invalid_utf8")),
            Kind::TooDeep => Some(("decode", "too_deep")),
            Kind::Missing => Some(("features", "missing_feature")),
            Kind::WrongType => Some(("features", "wrong_type")),
        }
    }
}

/// What the header of every input says; it travels with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub key: u32,
    pub seq: u64,
    pub kind: Kind,
}

/// The header's name.
pub const HEADER: &str = "chaos";

impl Mark {
    pub fn text(&self) -> String {
        format!("{} {} {}", self.key, self.seq, self.kind.name())
    }

    pub fn parse(text: &str) -> Option<Mark> {
        let mut words = text.split(' ');
        let mark = Mark {
            key: words.next()?.parse().ok()?,
            seq: words.next()?.parse().ok()?,
            kind: Kind::named(words.next()?)?,
        };
        words.next().is_none().then_some(mark)
    }

    /// The record's key.
    pub fn record_key(&self) -> String {
        format!("key-{}", self.key)
    }

    /// Which of `count` sample events it is made from.
    pub fn sample(&self, count: usize) -> usize {
        (self.seq.wrapping_mul(2_654_435_761) >> 7) as usize % count
    }

    /// The record's value, from sample events that are JSON objects.
    pub fn value(&self, samples: &[String]) -> Option<Vec<u8>> {
        let Mark { key, seq, kind } = self;
        let good = || {
            let sample = &samples[self.sample(samples.len())];
            format!("{{\"k\":{key},\"seq\":{seq},{}", &sample[1..])
        };
        match kind {
            Kind::Good => Some(good().into_bytes()),
            Kind::NotJson => Some(format!("not json {key} {seq}").into_bytes()),
            Kind::Empty => Some(Vec::new()),
            Kind::Tombstone => None,
            Kind::NotAnObject => Some(format!("[{key},{seq}]").into_bytes()),
            Kind::NotUtf8 => Some(vec![b'{', b'"', 0xff, 0xfe, b'"', b':', b'1', b'}']),
            Kind::TooDeep => {
                let mut deep = format!("{{\"seq\":{seq},\"deep\":");
                deep.push_str(&"[".repeat(200));
                deep.push_str(&"]".repeat(200));
                deep.push('}');
                Some(deep.into_bytes())
            }
            Kind::Missing => Some(format!("{{\"k\":{key},\"seq\":{seq}}}").into_bytes()),
            Kind::WrongType => {
                let text = good();
                let at = "\"distance_miles\":";
                let broken = text.replacen(at, "\"distance_miles\":\"far\",\"was\":", 1);
                assert_ne!(text, broken, "the sample has the field");
                Some(broken.into_bytes())
            }
        }
    }
}
