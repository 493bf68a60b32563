//! The floors: what merely moving the bytes costs, and what the model alone costs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use serde_json::Value;
use swapstream::codec::{Columns, Decoder, InputRef, NonFiniteOutputs};
use swapstream::kafka::{RecordLimits, worker_properties};
use swapstream::model::{Contract, Digest, ManifestDraft};
use swapstream::record::Origin;
use swapstream::runtime::{CompiledModel, LoadLimits, load};
use swapstream::scorer::{Scorer, Tag};

use crate::cluster::settings;
use crate::usage;
use crate::workload::Workload;

/// The same as the stream's `commit_interval` and `max_cycle_records`.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const CYCLE_RECORDS: usize = 50_000;
/// The same as the stream's `max_batch_size`.
const BATCH: usize = 256;

/// How long it waits for a record. The crate spins through the last millisecond of a wait, which would
/// be half of a short one.
const WAIT: Duration = Duration::from_millis(50);

/// Counts answers of even and of odd cycles.
#[derive(Default)]
struct Context([AtomicUsize; 2]);

impl ClientContext for Context {}
impl ConsumerContext for Context {
    fn commit_callback(
        &self,
        result: rdkafka::error::KafkaResult<()>,
        _offsets: &TopicPartitionList,
    ) {
        result.unwrap();
    }
}
impl ProducerContext for Context {
    /// Number of the cycle.
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, cycle: usize) {
        assert!(result.is_ok(), "{:?}", result.as_ref().err());
        let [even, odd] = &self.0;
        let answered = if cycle.is_multiple_of(2) { even } else { odd };
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn create<T: rdkafka::config::FromClientConfigAndContext<Context>>(
    properties: BTreeMap<String, String>,
) -> T {
    let mut config = ClientConfig::new();
    for (key, value) in properties {
        config.set(key, value);
    }
    config.create_with_context(Context::default()).unwrap()
}

/// Runs as a process of its own until it is killed: consumes, and produces for each record one with
/// its key, our headers and the bytes of one of our predictions, with our clients' properties and
/// commit cycle: the offsets of one are committed when all of it is acknowledged, while the next goes on. Written with the rdkafka crate as its users would.
pub fn passthrough(job: &Path) {
    let job: Value = serde_json::from_slice(&std::fs::read(job).unwrap()).unwrap();
    let text = |name: &str| job[name].as_str().unwrap().to_owned();
    let mut kafka = settings(&text("bootstrap"));
    for (key, value) in job["client"].as_object().unwrap() {
        let value = value.as_str().unwrap().to_owned();
        kafka.client.insert(key.clone(), value);
    }
    let limits = RecordLimits {
        record: 4_000_000,
        batch: 4_000_000,
    };
    let [mut reading, writing] = worker_properties(&kafka, &text("group"), limits);
    // Ours starts where it wants to by other means.
    reading.insert("auto.offset.reset".to_owned(), "earliest".to_owned());
    reading.insert("enable.partition.eof".to_owned(), "false".to_owned());
    let consumer: BaseConsumer<Context> = create(reading);
    let producer: BaseProducer<Context> = create(writing);
    let predictions = std::fs::read(text("predictions")).unwrap();
    let predictions: Vec<&[u8]> = predictions.split(|b| *b == b'\n').collect();
    let (model, version, digest) = (text("model"), text("version"), text("digest"));
    let output = text("output_topic");
    consumer.subscribe(&[&text("input_topic")]).unwrap();
    let mut next: HashMap<i32, i64> = HashMap::new();
    let (mut since, mut sent) = (Instant::now(), 0_usize);
    // The cycle that goes on, its records, and what is sent of even and of odd cycles.
    let (mut cycle, mut records, mut counts) = (0_usize, 0, [0_usize; 2]);
    // What the cycle that has ended is to commit.
    let mut ended: Option<TopicPartitionList> = None;
    let answered = |counts: &[usize; 2], cycle: usize| {
        let count = &producer.context().0[cycle % 2];
        count.load(Ordering::Relaxed) == counts[cycle % 2]
    };
    loop {
        // As ours does, the producer is served once a batch.
        for _ in 0..BATCH {
            let Some(message) = consumer.poll(WAIT) else {
                break;
            };
            let message = message.unwrap();
            let headers = OwnedHeaders::new_with_capacity(3)
                .insert(Header {
                    key: "model-name",
                    value: Some(&model),
                })
                .insert(Header {
                    key: "model-version",
                    value: Some(&version),
                })
                .insert(Header {
                    key: "model-digest",
                    value: Some(&digest),
                });
            let mut record = BaseRecord::with_opaque_to(&output, cycle)
                .partition(message.partition())
                .payload(predictions[sent % predictions.len()])
                .headers(headers);
            sent += 1;
            record.key = message.key();
            record.timestamp = message.timestamp().to_millis();
            while let Err((error, back)) = producer.send(record) {
                let full = error.rdkafka_error_code();
                assert_eq!(full, Some(rdkafka::error::RDKafkaErrorCode::QueueFull));
                producer.poll(Duration::from_millis(1));
                record = back;
            }
            next.insert(message.partition(), message.offset() + 1);
            counts[cycle % 2] += 1;
            records += 1;
        }
        producer.poll(Duration::ZERO);
        let due = records >= CYCLE_RECORDS || since.elapsed() >= COMMIT_INTERVAL;
        while due && ended.is_some() && !answered(&counts, cycle + 1) {
            producer.poll(Duration::from_millis(1));
        }
        if let Some(list) = ended.take_if(|_| answered(&counts, cycle + 1)) {
            consumer.commit(&list, CommitMode::Async).unwrap();
        }
        if records > 0 && due {
            let mut list = TopicPartitionList::new();
            for (partition, offset) in &next {
                list.add_partition_offset(
                    &text("input_topic"),
                    *partition,
                    Offset::Offset(*offset),
                )
                .unwrap();
            }
            ended = Some(list);
            cycle += 1;
            records = 0;
            since = Instant::now();
        }
    }
}

/// Predictions of the workload's events as ours writes them, for the floor to send.
pub fn sample_predictions(workload: &Workload, model: &str, topic: &str) -> Vec<Vec<u8>> {
    let (compiled, contract, digest) = compile(workload);
    let (model, version) = (model.parse().unwrap(), "1".parse().unwrap());
    let tag = Tag {
        model: Some(&model),
        version: Some(&version),
        digest: &digest,
        revision: Some(0),
    };
    let include: Vec<String> = workload.include.iter().map(|f| (*f).to_owned()).collect();
    let non_finite = NonFiniteOutputs::Reject;
    let mut scorer = Scorer::new(compiled, &contract, tag, &include, non_finite).unwrap();
    let mut samples = Vec::new();
    for (number, (_, event)) in workload.events.iter().enumerate() {
        scorer.clear();
        scorer.push(Some(event));
        scorer.run();
        let origin = Origin {
            topic,
            partition: number as i32 % crate::cluster::PARTITIONS,
            offset: 100_000 + number as i64,
            timestamp: Some(1_790_000_000_000),
        };
        let mut text = Vec::new();
        let encoded = scorer.encode(0, InputRef::Record(origin), &mut text);
        encoded.unwrap();
        samples.push(text);
    }
    samples
}

fn compile(workload: &Workload) -> (Arc<dyn CompiledModel>, Contract, Digest) {
    let draft = std::fs::read_to_string(&workload.manifest).unwrap();
    let draft = ManifestDraft::from_toml(&draft).unwrap();
    let bytes = std::fs::read(&workload.model).unwrap();
    let kind = draft.runtime.unwrap_or_default();
    let model = load(&bytes, kind, LoadLimits::default()).unwrap();
    let contract = Contract::resolve(&draft.inputs, &draft.outputs, model.signature()).unwrap();
    (model, contract, Digest::of(&bytes))
}

/// The model alone: tensors in memory, batches of `batch` rows, one thread.
pub struct Inference {
    model: Arc<dyn CompiledModel>,
    batches: Vec<Columns>,
    pub rows: usize,
}

impl Inference {
    /// Loads the model and decodes the workload's events once.
    pub fn new(workload: &Workload, batch: usize) -> Self {
        let (model, contract, _) = compile(workload);
        let signature = model.signature();
        let mut decoder = Decoder::new(&contract, &[]);
        let mut events = workload.events.iter().cycle();
        let count = workload.events.len().div_ceil(batch);
        let batches = (0..count).map(|_| {
            let mut columns = Columns::new(&signature.inputs);
            for _ in 0..batch {
                let (_, event) = events.next().unwrap();
                decoder
                    .decode(Some(event), &mut columns, &mut Vec::new())
                    .unwrap();
            }
            columns
        });
        let batches = batches.collect();
        Self {
            model,
            batches,
            rows: batch,
        }
    }

    /// Runs for `time` in each of `threads` threads; gives rows a second, and processor seconds for
    /// a million rows.
    pub fn run(&self, threads: usize, time: Duration) -> (f64, f64) {
        let done: Vec<(usize, Duration, Duration)> = std::thread::scope(|scope| {
            let one = || {
                let mut runner = self.model.runner().unwrap();
                let mut outputs = Columns::new(&self.model.signature().outputs);
                runner.run(&self.batches[0], &mut outputs).unwrap();
                let (start, cpu) = (Instant::now(), usage::thread_cpu());
                let mut rows = 0;
                for batch in self.batches.iter().cycle() {
                    runner.run(batch, &mut outputs).unwrap();
                    rows += self.rows;
                    if start.elapsed() >= time {
                        break;
                    }
                }
                (
                    rows,
                    start.elapsed(),
                    usage::thread_cpu().saturating_sub(cpu),
                )
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let rate = done.iter().map(|(n, t, _)| *n as f64 / t.as_secs_f64());
        let rows: usize = done.iter().map(|(rows, ..)| rows).sum();
        let cpu: f64 = done.iter().map(|(.., cpu)| cpu.as_secs_f64()).sum();
        (rate.sum(), cpu * 1e6 / rows as f64)
    }
}
