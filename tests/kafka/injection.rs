//! What a broker cannot be made to do: every call of the transaction protocol is answered by every
//! class of error, by librdkafka's mock cluster. What counts is the kind of the error, which decides
//! what a worker does, and that the producer can be used again where that kind says so.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Code};
use swapstream::kafka::{
    ClientShare, ErrorKind, KafkaError, KafkaSettings, Membership, OutgoingRecord, Polled,
    Position, Producer, RecordHeaders, RecordLimits, Source,
};
use swapstream::record::{NextOffset, TopicPartition};

use crate::support::trials::{TestResult, without_broker};
use crate::support::unique;
use crate::world::PATIENCE;

pub fn trials() -> Vec<Trial> {
    vec![without_broker(
        "each_error_of_each_call_has_its_kind",
        each_error_of_each_call,
    )]
}

const CALL: Duration = Duration::from_secs(5);
const TOPIC: &str = "out";

/// Where a call gets its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Init,
    Produce,
    SendOffsets,
    Commit,
    Abort,
}

/// What comes of it; `Good`: librdkafka repeats by itself.
type Expected = Option<ErrorKind>;
const GOOD: Expected = None;
const ABORTABLE: Expected = Some(ErrorKind::Abortable);
const FATAL: Expected = Some(ErrorKind::Fatal);
const FENCED: Expected = Some(ErrorKind::Fenced);
const REFUSED: Expected = Some(ErrorKind::Authorization);

fn cases() -> Vec<(Step, Api, Code, Expected)> {
    vec![
        (
            Step::Init,
            Api::InitProducerId,
            Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            GOOD,
        ),
        (
            Step::Init,
            Api::InitProducerId,
            Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            GOOD,
        ),
        (
            Step::Init,
            Api::InitProducerId,
            Code::RD_KAFKA_RESP_ERR__TRANSPORT,
            GOOD,
        ),
        (
            Step::Init,
            Api::InitProducerId,
            Code::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            REFUSED,
        ),
        (
            Step::Init,
            Api::FindCoordinator,
            Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            GOOD,
        ),
        (
            Step::Produce,
            Api::AddPartitionsToTxn,
            Code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
            GOOD,
        ),
        (
            Step::Produce,
            Api::AddPartitionsToTxn,
            Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
            FENCED,
        ),
        (
            Step::Produce,
            Api::AddPartitionsToTxn,
            Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            FENCED,
        ),
        (
            Step::Produce,
            Api::Produce,
            Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            GOOD,
        ),
        (
            Step::Produce,
            Api::Produce,
            Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            FENCED,
        ),
        (
            Step::SendOffsets,
            Api::AddOffsetsToTxn,
            Code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
            GOOD,
        ),
        (
            Step::SendOffsets,
            Api::AddOffsetsToTxn,
            Code::RD_KAFKA_RESP_ERR__TRANSPORT,
            GOOD,
        ),
        (
            Step::SendOffsets,
            Api::AddOffsetsToTxn,
            Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            ABORTABLE,
        ),
        (
            Step::SendOffsets,
            Api::AddOffsetsToTxn,
            Code::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE,
            FATAL,
        ),
        (
            Step::SendOffsets,
            Api::AddOffsetsToTxn,
            Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            FENCED,
        ),
        (
            Step::SendOffsets,
            Api::TxnOffsetCommit,
            Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            GOOD,
        ),
        (
            Step::SendOffsets,
            Api::TxnOffsetCommit,
            Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
            ABORTABLE,
        ),
        (
            Step::SendOffsets,
            Api::TxnOffsetCommit,
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            ABORTABLE,
        ),
        (
            Step::SendOffsets,
            Api::TxnOffsetCommit,
            Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
            ABORTABLE,
        ),
        (
            Step::SendOffsets,
            Api::TxnOffsetCommit,
            Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            FENCED,
        ),
        (
            Step::Commit,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
            GOOD,
        ),
        (
            Step::Commit,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            GOOD,
        ),
        (
            Step::Commit,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR__TRANSPORT,
            GOOD,
        ),
        (
            Step::Commit,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
            ABORTABLE,
        ),
        (
            Step::Commit,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE,
            FATAL,
        ),
        (
            Step::Commit,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
            FENCED,
        ),
        (
            Step::Abort,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
            GOOD,
        ),
        (
            Step::Abort,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE,
            FATAL,
        ),
        (
            Step::Abort,
            Api::EndTxn,
            Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            FENCED,
        ),
    ]
}

struct Rig<'c> {
    cluster: MockCluster<'c, DefaultProducerContext>,
    kafka: KafkaSettings,
    source: Source,
}

impl Rig<'_> {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("in", 1, 1).unwrap();
        cluster.create_topic(TOPIC, 2, 1).unwrap();
        let kafka = KafkaSettings {
            bootstrap_servers: cluster.bootstrap_servers(),
            client: std::collections::BTreeMap::new(),
            memory: 32 << 20,
        };
        let share = ClientShare::of(kafka.memory, 1);
        let inputs = ["in".to_owned()];
        let source = Source::join(&kafka, "group", &inputs, &Membership::default(), share);
        let source = source.unwrap();
        assert!(!source.is_member());
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "the group does not form");
            if let Polled::Assigned(partitions) = source.poll_event(Duration::from_millis(100)) {
                let starts: Vec<_> = partitions
                    .into_iter()
                    .map(|p| (p, Position::Beginning))
                    .collect();
                source.assign(&starts).unwrap();
                break;
            }
        }
        assert!(source.is_member());
        Self {
            cluster,
            kafka,
            source,
        }
    }

    fn producer(&self) -> Producer {
        let limits = RecordLimits {
            record: 1_000_000,
            batch: 1_000_000,
        };
        let share = ClientShare::of(self.kafka.memory, 1);
        Producer::transactional(&self.kafka, share, limits, &unique("id")).unwrap()
    }

    /// Sends a record to each partition and waits until all are answered.
    fn produce(producer: &Producer) -> Result<(), KafkaError> {
        for partition in [0, 1] {
            let mut record = OutgoingRecord {
                topic: TOPIC,
                partition: Some(partition),
                key: None,
                value: Some(b"x"),
                timestamp: None,
                headers: RecordHeaders::new(0),
                token: 0,
            };
            producer.send(&mut record).unwrap();
        }
        let end = Instant::now() + PATIENCE;
        while producer.in_flight() > 0 && producer.failure().is_none() {
            assert!(Instant::now() < end, "records are not answered");
            producer.poll(Duration::from_millis(1));
        }
        producer.failure().map_or(Ok(()), Err)
    }

    fn offsets() -> [(TopicPartition, NextOffset, String); 1] {
        [(
            TopicPartition::new("in", 0),
            NextOffset(1),
            "r=1".to_owned(),
        )]
    }

    /// A whole transaction, whose `step` is answered by `errors`.
    fn run(
        &self,
        producer: &Producer,
        ends: Step,
        mut before: impl FnMut(Step),
    ) -> Result<(), (Step, KafkaError)> {
        let at = |step| move |error| (step, error);
        producer.begin().unwrap();
        before(Step::Produce);
        Self::produce(producer).map_err(at(Step::Produce))?;
        before(Step::SendOffsets);
        let sent = producer.send_offsets(&self.source, &Self::offsets(), CALL);
        sent.map_err(at(Step::SendOffsets))?;
        before(ends);
        match ends {
            Step::Abort => producer.abort(CALL),
            _ => producer.commit(CALL),
        }
        .map_err(at(ends))
    }

    fn case(&self, step: Step, api: Api, code: Code, expected: Expected) {
        let case = format!("{step:?}: {api:?} answers {code:?}");
        self.cluster.clear_request_errors(api);
        let producer = self.producer();
        let inject = |at: Step| {
            if at == step {
                self.cluster.request_errors(api, &[code]);
            }
        };
        inject(Step::Init);
        let mut ended = producer.init(CALL).map_err(|error| (Step::Init, error));
        if ended.is_ok() {
            let ends = step.max(Step::Commit);
            ended = self.run(&producer, ends, inject);
        }
        let seen = ended.as_ref().err().map(|(at, error)| (*at, error.kind));
        assert_eq!(seen, expected.map(|kind| (step, kind)), "{case}: {ended:?}");
        if expected == ABORTABLE {
            producer
                .abort(CALL)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        if expected.is_none() || expected == ABORTABLE {
            let again = self.run(&producer, Step::Commit, |_| {});
            assert!(again.is_ok(), "{case}: afterwards {again:?}");
        }
    }
}

fn each_error_of_each_call() -> TestResult {
    let rig = Rig::new();
    for (step, api, code, expected) in cases() {
        rig.case(step, api, code, expected);
    }
    // A broker that does not answer in time: nobody knows what came of it.
    for (ends, what) in [(Step::Commit, "commit"), (Step::Abort, "abort")] {
        let producer = rig.producer();
        producer.init(CALL)?;
        let slow = |at: Step| {
            if at == ends {
                rig.cluster
                    .broker_round_trip_time(1, CALL + Duration::from_secs(1))
                    .unwrap();
            }
        };
        let (at, error) = rig.run(&producer, ends, slow).unwrap_err();
        assert_eq!(
            (at, error.kind),
            (ends, ErrorKind::TimedOut),
            "{what}: {error}"
        );
        rig.cluster.broker_round_trip_time(1, Duration::ZERO)?;
    }
    rig.source.close(CALL);
    Ok(())
}
