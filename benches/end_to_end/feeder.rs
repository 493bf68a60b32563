//! Offers events at a rate for next to nothing: batches of records are encoded and compressed once, and
//! get their time and checksum when they are sent. A client that encodes each event anew takes as much
//! of two processors as what is measured.
//!
//! Formats: the record batch of version 2 and Produce requests of version 8, as Kafka's guide to its
//! protocol and its page on the message format describe them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::cluster::{PARTITIONS, PATIENCE};
use crate::latency::{Plan, now_millis};
use crate::processor::Job;
use crate::workload::Workload;

/// How often a batch goes to each partition.
const TICK: Duration = Duration::from_millis(2);
/// Key and version of the Produce request.
const PRODUCE: (i16, i16) = (0, 8);
/// Where a batch has its checksum, and what follows it: attributes, and the times after the last offset.
const CHECKSUM: usize = 17;
const ATTRIBUTES: usize = 21;
const TIMES: usize = 27;
/// LZ4, in a batch's attributes.
const LZ4: i16 = 3;

/// When the events of a run were sent: as many to each partition, and at the same times.
#[derive(Debug)]
pub struct Sent {
    /// Records of each partition that were there before, long ago.
    first: usize,
    /// Records of each batch.
    records: usize,
    /// When each batch was sent.
    times: Vec<i64>,
}

impl Sent {
    /// When the record with this offset was sent.
    pub fn at(&self, offset: i64) -> i64 {
        let nth = (offset as usize).checked_sub(self.first);
        nth.map_or(0, |nth| self.times[nth / self.records])
    }

    /// Records of all partitions.
    pub fn total(&self) -> usize {
        (self.first + self.records * self.times.len()) * PARTITIONS as usize
    }
}

/// Sends events at the plan's rate. The first `already` are there.
pub fn feed(job: &Job<'_>, input: &str, already: usize, plan: Plan) -> Sent {
    let partitions = PARTITIONS as usize;
    let a_tick = plan.rate * TICK.as_secs_f64() / partitions as f64;
    let mut batches = Batches {
        workload: job.workload,
        records: (a_tick.round() as usize).max(1),
        made: HashMap::new(),
    };
    let every = Duration::from_secs_f64((batches.records * partitions) as f64 / plan.rate);
    let rounds = ((plan.warm_up + plan.counted).as_secs_f64() / every.as_secs_f64()) as u32;
    let first = already / partitions;
    let mut stream = TcpStream::connect(job.cluster.bootstrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let answers = stream.try_clone().unwrap();
    let records = batches.records;
    std::thread::scope(|scope| {
        scope.spawn(move || check(answers, rounds, first, records));
        // A list that moves when it grows halts the feeder, and what it did not send comes in a burst.
        let mut times = Vec::with_capacity(rounds as usize);
        let start = Instant::now();
        for round in 0..rounds {
            let due = start + every * round;
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            let nth = first + round as usize * records;
            let at = now_millis();
            let request = request(input, round, |partition| batches.get(partition, nth, at));
            stream.write_all(&request).unwrap();
            times.push(at);
        }
        Sent {
            first,
            records,
            times,
        }
    })
}

/// A request that writes a batch to each partition.
fn request(topic: &str, number: u32, mut batch: impl FnMut(usize) -> Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    let text = |body: &mut Vec<u8>, text: &str| {
        body.extend((text.len() as i16).to_be_bytes());
        body.extend(text.as_bytes());
    };
    body.extend(PRODUCE.0.to_be_bytes());
    body.extend(PRODUCE.1.to_be_bytes());
    body.extend(number.to_be_bytes());
    text(&mut body, "feeder");
    // No transaction, all replicas, a time limit, one topic.
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend((PATIENCE.as_millis() as i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    text(&mut body, topic);
    body.extend(PARTITIONS.to_be_bytes());
    for partition in 0..PARTITIONS {
        let batch = batch(partition as usize);
        body.extend(partition.to_be_bytes());
        body.extend((batch.len() as i32).to_be_bytes());
        body.extend(batch);
    }
    let mut request = (body.len() as i32).to_be_bytes().to_vec();
    request.extend(body);
    request
}

/// Reads the answers to all requests: every batch must be stored where it is taken to be.
fn check(mut answers: TcpStream, rounds: u32, first: usize, records: usize) {
    for round in 0..rounds {
        let mut length = [0; 4];
        answers.read_exact(&mut length).unwrap();
        let mut answer = vec![0; i32::from_be_bytes(length) as usize];
        answers.read_exact(&mut answer).unwrap();
        let mut rest = answer.as_slice();
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0_i64, |n, b| n << 8 | i64::from(*b));
        assert_eq!(number(take(4)), i64::from(round), "answers come in order");
        take(4);
        let name = number(take(2));
        take(name as usize + 4);
        for _ in 0..PARTITIONS {
            let (partition, error, offset) = (number(take(4)), number(take(2)), number(take(8)));
            assert_eq!(error, 0, "the broker's error for partition {partition}");
            let expected = first + round as usize * records;
            assert_eq!(offset, expected as i64, "partition {partition}");
            // Two times or offsets, no errors of records, no text.
            take(8 + 8 + 4 + 2);
        }
    }
}

/// Batches that were made, by partition and first event.
struct Batches<'w> {
    workload: &'w Workload,
    records: usize,
    made: HashMap<(usize, usize), Vec<u8>>,
}

impl Batches<'_> {
    /// The batch that begins with the `nth` record of `partition`, of this time.
    fn get(&mut self, partition: usize, nth: usize, at: i64) -> Vec<u8> {
        let events = &self.workload.events;
        let index = |nth: usize| (nth * PARTITIONS as usize + partition) % events.len();
        let (first, records) = (index(nth), self.records);
        let lz4 = self.workload.compression == "lz4";
        let batch = self.made.entry((partition, first)).or_insert_with(|| {
            let chosen = (nth..nth + records).map(|nth| &events[index(nth)]);
            encode(chosen, lz4)
        });
        let times = [at.to_be_bytes(), at.to_be_bytes()].concat();
        batch[TIMES..TIMES + 16].copy_from_slice(&times);
        let checksum = crc32c::crc32c(&batch[ATTRIBUTES..]);
        batch[CHECKSUM..ATTRIBUTES].copy_from_slice(&checksum.to_be_bytes());
        batch.clone()
    }
}

/// A batch of records without headers, all of the batch's time.
fn encode<'e>(events: impl ExactSizeIterator<Item = &'e (Vec<u8>, Vec<u8>)>, lz4: bool) -> Vec<u8> {
    let count = events.len() as i32;
    let mut records = Vec::new();
    for (number, (key, value)) in events.enumerate() {
        // Attributes and the time's difference are 0.
        let mut record = vec![0, 0];
        varint(&mut record, number);
        for bytes in [key, value] {
            varint(&mut record, bytes.len());
            record.extend(bytes);
        }
        varint(&mut record, 0);
        varint(&mut records, record.len());
        records.extend(record);
    }
    if lz4 {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(&records).unwrap();
        records = encoder.finish().unwrap();
    }
    let mut batch = 0_i64.to_be_bytes().to_vec();
    // What comes after the length: 49 bytes, and the records.
    batch.extend((49 + records.len() as i32).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(0_u32.to_be_bytes());
    batch.extend(if lz4 { LZ4 } else { 0 }.to_be_bytes());
    batch.extend((count - 1).to_be_bytes());
    batch.extend([0; 16]);
    // No producer id, epoch or sequence.
    batch.extend([0xff; 14]);
    batch.extend(count.to_be_bytes());
    batch.extend(records);
    batch
}

/// A number that is not negative, zigzag, in groups of seven bits.
fn varint(out: &mut Vec<u8>, number: usize) {
    let mut left = number << 1;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
