//! Reading registry topics to their end: transactions leave offsets that no reader sees.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use swapstream::kafka::{LogEvent, LogReader, LogStart, Publisher, read_to_end};
use swapstream::record::OutRecord;

use crate::support::Broker;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::world::{PATIENCE, World};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("an_empty_log_is_at_its_end_at_once", an_empty_log),
        on_shared_broker("markers_and_aborts_are_no_records", markers_and_aborts),
        on_shared_broker("an_open_transaction_holds_its_readers", an_open_transaction),
        on_shared_broker("a_log_that_lost_its_start_begins_later", a_lost_start),
    ]
}

fn record(topic: &str, value: &str) -> OutRecord {
    OutRecord {
        topic: topic.to_owned(),
        partition: Some(0),
        key: Some(b"k".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        ..OutRecord::default()
    }
}

/// The values up to the stable end, and the offset after it.
fn read(world: &World, topic: &str, start: LogStart) -> (Vec<String>, i64) {
    let mut values = Vec::new();
    let next = read_to_end(&world.kafka, topic, start, PATIENCE, &mut |record| {
        values.push(String::from_utf8(record.value.unwrap()).unwrap());
        ControlFlow::Continue(())
    });
    (values, next.unwrap())
}

/// Polls to the first end of the log.
fn end_of_log(reader: &mut LogReader) -> (usize, i64) {
    let deadline = Instant::now() + PATIENCE;
    let mut records = 0;
    loop {
        assert!(Instant::now() < deadline, "no end of the log");
        match reader.poll(Duration::from_millis(100)).unwrap() {
            LogEvent::Record(_) => records += 1,
            LogEvent::EndOfLog { next } => return (records, next),
            LogEvent::Idle => {}
        }
    }
}

fn log(broker: &Broker) -> (World, String) {
    let world = World::at(broker.bootstrap(), 1);
    let topic = format!("{}-log", world.name);
    world.create_topic(&topic, 1, &[]);
    (world, topic)
}

fn an_empty_log(broker: &'static Broker) -> TestResult {
    let (world, topic) = log(broker);
    assert_eq!(read(&world, &topic, LogStart::Beginning), (vec![], 0));
    let mut reader = LogReader::open(&world.kafka, &topic, LogStart::Beginning)?;
    assert_eq!(reader.stable_end(PATIENCE)?, 0);
    assert_eq!(end_of_log(&mut reader), (0, 0));
    Ok(())
}

fn markers_and_aborts(broker: &'static Broker) -> TestResult {
    let (world, topic) = log(broker);
    let mut publisher = Publisher::transactional(&world.kafka, &world.name)?;
    // Offsets 0, 1 and a marker at 2; then 3 and a marker at 4, of which nothing counts.
    publisher.begin()?;
    publisher.send(&record(&topic, "a"))?;
    publisher.send(&record(&topic, "b"))?;
    publisher.commit()?;
    publisher.begin()?;
    publisher.send(&record(&topic, "never"))?;
    publisher.abort()?;
    let all = (vec!["a".to_owned(), "b".to_owned()], 5);
    assert_eq!(read(&world, &topic, LogStart::Beginning), all);
    assert_eq!(
        read(&world, &topic, LogStart::Offset(1)),
        (vec!["b".to_owned()], 5)
    );
    // Nothing but what no reader sees.
    assert_eq!(read(&world, &topic, LogStart::Offset(2)), (vec![], 5));
    let mut reader = LogReader::open(&world.kafka, &topic, LogStart::Beginning)?;
    assert_eq!(reader.stable_end(PATIENCE)?, 5);
    assert_eq!(end_of_log(&mut reader), (2, 5));
    Ok(())
}

fn an_open_transaction(broker: &'static Broker) -> TestResult {
    let (world, topic) = log(broker);
    let mut plain = Publisher::idempotent(&world.kafka)?;
    plain.send(&record(&topic, "before"))?;
    let mut open = Publisher::transactional(&world.kafka, &world.name)?;
    open.begin()?;
    open.send(&record(&topic, "open"))?;
    plain.send(&record(&topic, "after"))?;
    // The stable end lies before the open transaction, and reading to it does not wait for more.
    assert_eq!(
        read(&world, &topic, LogStart::Beginning),
        (vec!["before".to_owned()], 1)
    );
    open.commit()?;
    let all = ["before", "open", "after"].map(str::to_owned).to_vec();
    assert_eq!(read(&world, &topic, LogStart::Beginning), (all, 4));
    Ok(())
}

fn a_lost_start(broker: &'static Broker) -> TestResult {
    let (world, topic) = log(broker);
    let mut publisher = Publisher::idempotent(&world.kafka)?;
    for value in ["a", "b", "c"] {
        publisher.send(&record(&topic, value))?;
    }
    world.delete_records(&topic, 2);
    assert_eq!(
        read(&world, &topic, LogStart::Beginning),
        (vec!["c".to_owned()], 3)
    );
    let mut reader = LogReader::open(&world.kafka, &topic, LogStart::Beginning)?;
    assert_eq!(
        (reader.log_start(PATIENCE)?, end_of_log(&mut reader)),
        (2, (1, 3))
    );
    Ok(())
}
