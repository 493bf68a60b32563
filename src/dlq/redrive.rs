//! Sends dead letters again, each once: the records and the mark that names them are one
//! transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choice::Target;
use super::{
    Choice, DeadLetterTopic, DlqError, Left, Letter, MARK_SCHEMA, Mark, Marks, OffsetSet, Rules,
};
use crate::codec::record_size;
use crate::kafka::{Admin, ErrorKind, KafkaError, KafkaSettings, Publisher};
use crate::record::{OutRecord, OwnedRecord};

/// Value of `schema` in a report.
pub const REDRIVE_SCHEMA: &str = "swapstream.dlq-redrive/v1";

/// How long a look-up of a topic may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most records in one transaction: it must be over long before its time-out.
const MAX_RECORDS: usize = 500;
/// Most bytes of records in one transaction, but for a single one that is larger.
const MAX_BYTES: usize = 4 << 20;

/// What to send again.
#[derive(Debug, Clone, Default)]
pub struct RedriveRequest {
    /// What decides.
    pub rules: Rules,
    /// At most so many records.
    pub limit: Option<u64>,
    /// The time to note, RFC 3339.
    pub at: Option<String>,
    /// Who does it.
    pub by: Option<String>,
}

/// What was sent again and what was left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RedriveReport {
    /// Always `swapstream.dlq-redrive/v1`.
    pub schema: String,
    /// The dead-letter topic.
    pub topic: String,
    /// Whether nothing was sent, and `redriven` is what would have been.
    pub dry_run: bool,
    /// Dead letters that the filter lets through.
    pub dead_letters: u64,
    /// Those of them that were sent again now.
    pub redriven: u64,
    /// Where to.
    pub sent: Vec<Sent>,
    /// Left: sent again before.
    pub already_redriven: u64,
    /// Left: scored as often as is allowed.
    pub max_attempts: u64,
    /// Left: cut, the whole is not in them.
    pub truncated: u64,
    /// Left: larger than the topic takes that they would go to.
    pub too_large: u64,
    /// Left: from no input topic, or from one of no configured stream.
    pub other_source: u64,
    /// Left: more than the limit.
    pub over_limit: u64,
}

/// How many records a topic got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    /// The topic.
    pub topic: String,
    /// How many records.
    pub records: u64,
}

/// The id under which the dead letters of `topic` are sent again: whoever starts last wins, and
/// two never send the same.
pub fn transactional_id(topic: &str) -> String {
    format!("swapstream-dlq-redrive-{topic}")
}

/// What [`redrive`] would do now.
pub fn dry_run(
    kafka: &KafkaSettings,
    topic: &str,
    request: &RedriveRequest,
) -> Result<RedriveReport, DlqError> {
    let topic = DeadLetterTopic::open(kafka, topic)?;
    Run::new(kafka, topic, request, None)?.run(&mut |_, _| ())
}

/// Sends dead letters of `topic` again. `progress` is called with how many of the dead letters
/// that are meant were dealt with, and how many there are.
///
/// # Errors
/// What Kafka says; [`DlqError::Interrupted`] where some were sent already. It may be called again
/// after every error: what was sent is marked.
pub fn redrive(
    kafka: &KafkaSettings,
    topic: &str,
    request: &RedriveRequest,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RedriveReport, DlqError> {
    // A look before anything is started: a wrong name is no reason to claim an id.
    DeadLetterTopic::open(kafka, topic)?;
    // From here on no rival can commit, and what it has committed is seen below.
    let publisher = Publisher::transactional_for_any(kafka, &transactional_id(topic))?;
    let topic = DeadLetterTopic::open_decided(kafka, topic)?;
    Run::new(kafka, topic, request, Some(publisher))?.run(progress)
}

/// A run under way.
struct Run<'r> {
    request: &'r RedriveRequest,
    topic: DeadLetterTopic,
    publisher: Option<Publisher>,
    admin: Admin,
    marks: Marks,
    targets: BTreeMap<String, Target>,
    batch: Batch,
    sent: BTreeMap<String, u64>,
    report: RedriveReport,
}

/// Records of one partition that are sent together.
#[derive(Default)]
struct Batch {
    records: Vec<OutRecord>,
    offsets: OffsetSet,
    bytes: usize,
}

impl<'r> Run<'r> {
    fn new(
        kafka: &KafkaSettings,
        topic: DeadLetterTopic,
        request: &'r RedriveRequest,
        publisher: Option<Publisher>,
    ) -> Result<Self, DlqError> {
        let report = RedriveReport {
            schema: REDRIVE_SCHEMA.to_owned(),
            topic: topic.name().to_owned(),
            dry_run: publisher.is_none(),
            ..RedriveReport::default()
        };
        Ok(Self {
            request,
            admin: Admin::new(kafka)?,
            topic,
            publisher,
            marks: Marks::default(),
            targets: BTreeMap::new(),
            batch: Batch::default(),
            sent: BTreeMap::new(),
            report,
        })
    }

    fn run(mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<RedriveReport, DlqError> {
        let mut meant = 0;
        let filter = &self.request.rules.filter;
        self.marks = self.topic.marks(&mut |record| {
            let letter = Letter::read(record);
            meant += u64::from(letter.is_some_and(|letter| filter.matches(&letter)));
        })?;
        let topic = self.topic.clone();
        for partition in topic.partitions() {
            let read = topic.each_of(partition, 0, &mut |record| {
                self.take(record)?;
                progress(self.report.dead_letters, meant);
                Ok(())
            });
            read.and_then(|()| self.flush(partition))
                .map_err(|error| self.interrupted(error))?;
        }
        let sent = std::mem::take(&mut self.sent).into_iter();
        self.report.sent = sent
            .map(|(topic, records)| Sent { topic, records })
            .collect();
        Ok(self.report)
    }

    fn interrupted(&self, cause: DlqError) -> DlqError {
        let redriven = self.sent.values().sum();
        if redriven == 0 || self.report.dry_run {
            return cause;
        }
        DlqError::Interrupted {
            redriven,
            cause: Box::new(cause),
        }
    }

    fn take(&mut self, record: OwnedRecord) -> Result<(), DlqError> {
        let (partition, offset) = (record.partition, record.offset);
        self.look_up_target(&record)?;
        let rules = &self.request.rules;
        let choice = rules.choose(record, &self.marks, &self.targets);
        if choice == Choice::NotMeant {
            return Ok(());
        }
        self.report.dead_letters += 1;
        let over = self
            .request
            .limit
            .is_some_and(|limit| self.report.redriven >= limit);
        match choice {
            Choice::NotMeant => {}
            Choice::Left(left) => *self.report.left(left) += 1,
            Choice::Send(_) if over => self.report.over_limit += 1,
            Choice::Send(out) => {
                let bytes = record_size(out.key.as_deref(), out.value.as_deref(), &out.headers);
                if self.batch.is_full(bytes) {
                    self.flush(partition)?;
                }
                self.batch.add(out, offset, bytes);
                self.report.redriven += 1;
            }
        }
        Ok(())
    }

    /// Looks up where `record` would go, once for each topic.
    fn look_up_target(&mut self, record: &OwnedRecord) -> Result<(), DlqError> {
        let letter = Letter::read(record);
        let destination = letter
            .as_ref()
            .and_then(|letter| self.request.rules.destination(letter, &self.marks));
        let Some(Ok(topic)) = destination else {
            return Ok(());
        };
        if self.targets.contains_key(topic) {
            return Ok(());
        }
        let found = self.admin.topic(topic, TIMEOUT)?;
        let info = found.ok_or_else(|| DlqError::MissingTarget(topic.to_owned()))?;
        let target = Target {
            partitions: info.partitions,
            max_bytes: info.max_message_bytes(),
        };
        self.targets.insert(topic.to_owned(), target);
        Ok(())
    }

    /// Sends what was gathered of `partition`, with its mark, and commits.
    fn flush(&mut self, partition: i32) -> Result<(), DlqError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.records.is_empty() {
            return Ok(());
        }
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for record in &batch.records {
            *counts.entry(record.topic.clone()).or_default() += 1;
        }
        if let Some(publisher) = &mut self.publisher {
            let mark = Mark {
                schema: MARK_SCHEMA.to_owned(),
                topic: self.topic.name().to_owned(),
                partition,
                offsets: batch.offsets.ranges().collect(),
                to: self.request.rules.to.clone(),
                at: self.request.at.clone(),
                by: self.request.by.clone(),
            };
            send(publisher, batch, &mark).map_err(|error| match error.kind {
                ErrorKind::Fenced => DlqError::Rival(mark.topic),
                _ => error.into(),
            })?;
        }
        for (topic, count) in counts {
            *self.sent.entry(topic).or_default() += count;
        }
        Ok(())
    }
}

/// One transaction: the records and their mark.
fn send(publisher: &mut Publisher, batch: Batch, mark: &Mark) -> Result<(), KafkaError> {
    let context = "writing a mark";
    let mark = mark
        .record()
        .map_err(|error| KafkaError::new(ErrorKind::Configuration, context, error))?;
    publisher.begin()?;
    let records = batch.records.into_iter().chain([mark]);
    if let Err(error) = publisher.send_all(records, &mut |_| ()) {
        // Else readers of the topics would wait for the transaction's time-out.
        if let Err(error) = publisher.abort() {
            tracing::debug!("{error}");
        }
        return Err(error);
    }
    publisher.commit().map_err(|mut error| {
        error.message.push_str(
            "; whether the last records were sent shows when the command is run again: it sends \
             none of them twice",
        );
        error
    })
}

impl Batch {
    /// Whether a record of `bytes` is one too many.
    fn is_full(&self, bytes: usize) -> bool {
        let count = self.records.len();
        count >= MAX_RECORDS || (count > 0 && self.bytes + bytes > MAX_BYTES)
    }

    fn add(&mut self, record: OutRecord, offset: i64, bytes: usize) {
        self.records.push(record);
        self.offsets.insert(offset, offset);
        self.bytes += bytes;
    }
}

impl RedriveReport {
    fn left(&mut self, left: Left) -> &mut u64 {
        match left {
            Left::AlreadyRedriven => &mut self.already_redriven,
            Left::MaxAttempts => &mut self.max_attempts,
            Left::Truncated => &mut self.truncated,
            Left::TooLarge => &mut self.too_large,
            Left::OtherSource => &mut self.other_source,
        }
    }
}
