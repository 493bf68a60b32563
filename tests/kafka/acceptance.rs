//! Records that a topic would refuse with every try: each is answered, and what follows is scored.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use serde_json::Value;
use swapstream::kafka::{
    ClientShare, DEFAULT_KAFKA_MEMORY, OutgoingRecord, Producer, Publisher, RecordHeaders,
    RecordLimits,
};
use swapstream::record::OutRecord;

use crate::dlq::ERRORS;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{PATIENCE, World, events, header, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker(
            "what_the_output_topic_would_refuse_is_a_dead_letter",
            what_the_output_would_refuse,
        ),
        on_shared_broker(
            "a_record_larger_than_a_workers_share_is_answered",
            larger_than_a_share,
        ),
        on_shared_broker(
            "what_follows_a_refused_batch_is_not_delivered",
            what_follows_a_refused_batch,
        ),
        on_shared_broker(
            "a_worker_that_waits_for_more_records_stops_in_time",
            a_stop_while_waiting,
        ),
    ]
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn what_the_output_would_refuse(broker: &'static Broker) -> TestResult {
    let world = World::at(broker.bootstrap(), 1);
    let hour = ("message.timestamp.before.max.ms", "3600000");
    world.create_topic(&world.input(), 1, &[]);
    world.create_topic(&world.output(), 1, &[("cleanup.policy", "compact"), hour]);
    world.create_topic(&world.dead_letters(), 1, &[hour]);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let now = SystemTime::now();
    let yesterday = now - Duration::from_hours(24);
    let good = events().remove(0);
    let mut publisher = Publisher::idempotent(&world.kafka)?;
    let records = [
        (Some(&b"old"[..]), yesterday),
        (None, now),
        (Some(b"good"), now),
    ];
    for (key, time) in records {
        publisher.send(&OutRecord {
            topic: world.input(),
            partition: Some(0),
            key: key.map(<[u8]>::to_vec),
            value: Some(good.clone()),
            timestamp: Some(millis(time)),
            ..OutRecord::default()
        })?;
    }
    let out = world.read(&world.output(), 1);
    assert_eq!(predictions(&out)[0].offset, 2);
    let dead = world.read(&world.dead_letters(), 2);
    let classes = [0, 1].map(|n| header(&dead[n], &format!("{ERRORS}class")).unwrap());
    assert_eq!(classes, ["timestamp", "missing_key"]);
    // The time of sending; its header has the input's.
    assert!(dead[0].timestamp.unwrap() >= millis(now), "{:?}", dead[0]);
    let told = header(&dead[0], &format!("{ERRORS}timestamp")).unwrap();
    assert_eq!(told, millis(yesterday).to_string());
    assert_eq!(dead[1].timestamp, Some(millis(now)));
    eventually("all is committed", PATIENCE, || {
        let committed = world.committed()[0].0;
        let all = committed == Some(3);
        all.then_some(()).ok_or_else(|| format!("{committed:?}"))
    });
    instance.stop();
    Ok(())
}

/// The producer of a worker has a queue of 1.75 MiB; a record of 4 waited for room in it for ever.
fn larger_than_a_share(broker: &'static Broker) -> TestResult {
    let mut world = World::at(broker.bootstrap(), 1);
    let big = [("max.message.bytes", "8000000")];
    for topic in [world.input(), world.output(), world.dead_letters()] {
        world.create_topic(&topic, 1, &big);
    }
    world.stream_extra = "workers = 4".to_owned();
    world.extra = "[limits]\nkafka_memory = \"16MiB\"".to_owned();
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let good = events().remove(0);
    let mut large: Value = serde_json::from_slice(&good)?;
    large["flight_id"] = Value::from("x".repeat(4_000_000));
    let large = large.to_string().into_bytes();
    let no_event = vec![b'x'; 4_000_000];
    world.produce([
        (0, None, Some(&large[..])),
        (0, None, Some(&no_event[..])),
        (0, None, Some(&good[..])),
    ]);
    let out = world.read(&world.output(), 2);
    let offsets: Vec<i64> = predictions(&out).iter().map(|one| one.offset).collect();
    assert_eq!(offsets, [0, 2]);
    let dead = world.read(&world.dead_letters(), 1);
    assert_eq!(dead[0].value.as_ref().map(Vec::len), Some(no_event.len()));
    instance.stop();
    // With a queue that a user has made too small the record is condemned, and nothing waits.
    world
        .client
        .push_str("\n\"queue.buffering.max.kbytes\" = \"2000\"");
    let instance = world.start_ready("b");
    world.produce([(0, None, Some(&large[..])), (0, None, Some(&good[..]))]);
    eventually(
        "the stream stops and says why",
        PATIENCE,
        || match instance.get("/readyz") {
            (503, body) if body.contains("queue.buffering.max.kbytes") => Ok(()),
            (code, body) => Err(format!("{code} {body}")),
        },
    );
    instance.stop();
    Ok(())
}

/// It would stand before what is sent again.
fn what_follows_a_refused_batch(broker: &'static Broker) -> TestResult {
    let mut world = World::at(broker.bootstrap(), 1);
    world.create_topic(&world.output(), 1, &[("max.message.bytes", "2000")]);
    let none = ("compression.type".to_owned(), "none".to_owned());
    world.kafka.client.extend([none]);
    // The client knows another limit; a batch is one record.
    let limits = RecordLimits {
        record: 100_000,
        batch: 1_000,
    };
    let share = ClientShare::of(DEFAULT_KAFKA_MEMORY, 1);
    let producer = Producer::new(&world.kafka, share, limits)?;
    for bytes in [900, 5_000, 900, 900] {
        let value = vec![b'x'; bytes];
        let topic = world.output();
        let mut record = OutgoingRecord {
            topic: &topic,
            partition: Some(0),
            key: None,
            value: Some(&value),
            timestamp: None,
            headers: RecordHeaders::new(0),
            token: 0,
        };
        assert!(producer.send(&mut record).is_ok());
    }
    let failure = eventually("a failure", PATIENCE, || {
        producer.poll(Duration::from_millis(10));
        producer.failure().ok_or_else(|| "none".to_owned())
    });
    assert!(
        failure.to_string().contains("Message size too large"),
        "{failure}"
    );
    // Without the guarantee the others are there after some milliseconds.
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        producer.poll(Duration::from_millis(10));
    }
    let sizes: Vec<_> = world
        .all(&world.output())
        .iter()
        .map(|record| record.value.as_ref().map_or(0, Vec::len))
        .collect();
    assert_eq!(sizes, [900]);
    Ok(())
}

fn a_stop_while_waiting(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.shutdown_timeout = "8s";
    world.stream_extra = "max_queue_delay = \"10s\"".to_owned();
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let good = events().remove(0);
    world.produce([(0, None, Some(&good[..]))]);
    // It has the record by now, and waits for more.
    instance.stop();
    let out = world.all(&world.output());
    assert_eq!(world.committed()[0].0.unwrap_or(0), out.len() as i64);
    Ok(())
}
