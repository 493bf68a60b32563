//! Where a partition starts: without a committed offset, at its end, and after its records were
//! deleted.

use std::time::Duration;

use libtest_mimic::Trial;
use swapstream::kafka::{ClientShare, Membership, Polled, Position, Source};
use swapstream::record::{NextOffset, TopicPartition};

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{PATIENCE, World, events, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker(
            "latest_starts_at_the_end_and_stays",
            latest_starts_at_the_end_and_stays,
        ),
        on_shared_broker(
            "a_start_at_the_end_is_committed_before_anything_is_read",
            a_start_at_the_end_is_committed,
        ),
        on_shared_broker("a_start_time_is_looked_up", a_start_time_is_looked_up),
        on_shared_broker("an_offset_out_of_range_stops", an_offset_out_of_range_stops),
        on_shared_broker(
            "an_offset_out_of_range_goes_on",
            an_offset_out_of_range_goes_on,
        ),
        on_shared_broker(
            "a_start_at_the_end_keeps_its_revision",
            a_start_keeps_its_revision,
        ),
    ]
}

fn send(world: &World, count: usize) {
    let sample = events();
    world.produce(
        sample
            .iter()
            .take(count)
            .map(|event| (0, None, Some(event.as_slice()))),
    );
}

/// Commits an offset for the group as another program would.
fn commit_by_hand(world: &World, offset: i64, metadata: &str) {
    let share = ClientShare::of(world.kafka.memory, 4);
    let source = Source::join(
        &world.kafka,
        &world.name,
        &[world.input()],
        &Membership::default(),
        share,
    )
    .unwrap();
    let partition = TopicPartition::new(world.input(), 0);
    let mut sent = false;
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(
            std::time::Instant::now() < end,
            "the commit is not answered"
        );
        match source.poll_event(Duration::from_millis(50)) {
            Polled::Assigned(partitions) => {
                let at_end: Vec<_> = partitions.into_iter().map(|p| (p, Position::End)).collect();
                source.assign(&at_end).unwrap();
                let offsets = [(partition.clone(), NextOffset(offset), metadata.to_owned())];
                source.commit(&offsets).unwrap();
                sent = true;
            }
            Polled::Committed(result) => {
                assert!(sent);
                result.unwrap();
                break;
            }
            _ => {}
        }
    }
    source.close(PATIENCE);
}

fn latest_starts_at_the_end_and_stays(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.stream_extra.push_str("start_from = \"latest\"");
    world.publish("v1", "1").ok();
    world.deploy("1");
    send(&world, 10);
    let first = world.start_ready("a");
    // The start is a place, and it is committed before any record is scored.
    eventually("the start is committed", PATIENCE, || {
        match world.committed().first().and_then(|(offset, _)| *offset) {
            Some(10) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    first.stop();
    send(&world, 5);
    let second = world.start_ready("a");
    let out = world.read(&world.output(), 5);
    second.stop();
    let offsets: Vec<i64> = predictions(&out).iter().map(|one| one.offset).collect();
    assert_eq!(
        offsets,
        [10, 11, 12, 13, 14],
        "what came while nobody was there is scored"
    );
    Ok(())
}

/// What ends a session before its first commit must not move the start: a death, a refused output.
fn a_start_at_the_end_is_committed(broker: &'static Broker) -> TestResult {
    for guarantee in ["at_least_once", "exactly_once"] {
        let mut world = World::new(broker, 2);
        // No cycle ends by itself meanwhile; an exactly-once one is shorter than its transaction.
        world.stream_extra = format!(
            "workers = 1\nstart_from = \"latest\"\non_error = {{ decode = \"fail\" }}\n\
             processing_guarantee = \"{guarantee}\"\ncommit_interval = \"8s\""
        );
        world.publish("v1", "1").ok();
        world.deploy("1");
        send(&world, 10);
        let mut first = world.start_ready("a");
        first.process.wait_for_line("took over", PATIENCE);
        let committed = |world: &World| -> Vec<Option<i64>> {
            world.committed().iter().map(|(next, _)| *next).collect()
        };
        assert_eq!(committed(&world), [Some(10), Some(0)], "{guarantee}");
        // A record that stops the stream, and one after it.
        world.produce([(1, None, Some(&b"no event"[..]))]);
        eventually("it stops", PATIENCE, || match first.get("/readyz") {
            (503, body) if body.contains("on_error.decode") => Ok(()),
            (code, body) => Err(format!("{code} {body}")),
        });
        first.process.kill9();
        world.produce([(1, None, Some(&events()[0][..]))]);
        // It is not passed over: by default it is a dead letter.
        world.stream_extra =
            format!("start_from = \"latest\"\nprocessing_guarantee = \"{guarantee}\"");
        let second = world.start_ready("a");
        assert_eq!(world.read(&world.dead_letters(), 1).len(), 1);
        let out = world.read(&world.output(), 1);
        assert_eq!(predictions(&out)[0].offset, 1, "{guarantee}");
        second.stop();
    }
    Ok(())
}

fn a_start_time_is_looked_up(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    send(&world, 7);
    // Record timestamps have milliseconds: the clock must have moved on.
    let all = world.read(&world.input(), 7);
    let newest = all
        .iter()
        .filter_map(|record| record.timestamp)
        .max()
        .unwrap();
    let after = std::time::UNIX_EPOCH + Duration::from_millis(newest as u64 + 1);
    eventually("the clock moves on", PATIENCE, || {
        if std::time::SystemTime::now() > after {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    });
    send(&world, 3);
    let time = humantime::format_rfc3339_millis(after);
    world.stream_extra = format!("start_from = \"{time}\"");
    let instance = world.start_ready("a");
    let out = world.read(&world.output(), 3);
    instance.stop();
    let offsets: Vec<i64> = predictions(&out).iter().map(|one| one.offset).collect();
    assert_eq!(offsets, [7, 8, 9]);
    Ok(())
}

fn an_offset_out_of_range_stops(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    send(&world, 10);
    commit_by_hand(&world, 1000, "");
    let instance = world.start("a");
    let (code, body) = eventually("the stream has stopped", PATIENCE, || {
        match instance.get("/livez") {
            (503, body) => Ok((503, body)),
            other => Err(format!(
                "{other:?}\n{}",
                instance.process.stderr_lines().join("\n")
            )),
        }
    });
    assert_eq!(code, 503);
    assert!(
        body.contains("on_data_loss") && body.contains("flights"),
        "{body}"
    );
    assert_eq!(
        world.committed()[0].0,
        Some(1000),
        "nothing is committed over the loss"
    );
    let said = instance.stop();
    let left_behind = said.iter().find(|line| line.contains("did not close"));
    assert_eq!(left_behind, None);
    assert!(world.all(&world.output()).is_empty());
    Ok(())
}

fn an_offset_out_of_range_goes_on(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.stream_extra.push_str("on_data_loss = \"earliest\"");
    world.publish("v1", "1").ok();
    world.deploy("1");
    send(&world, 10);
    commit_by_hand(&world, 1000, "");
    let instance = world.start_ready("a");
    eventually("all is scored", Duration::from_secs(20), || {
        match world.all(&world.output()).len() {
            10 => Ok(()),
            n => Err(format!(
                "{n} records\n{}",
                instance.process.stderr_lines().join("\n")
            )),
        }
    });
    eventually("the new position is committed", PATIENCE, || {
        match world.committed()[0].0 {
            Some(10) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    instance.stop();
    Ok(())
}

/// A lost offset says which revision scored up to it, and the end that takes its place says the same.
fn a_start_keeps_its_revision(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.stream_extra = "on_data_loss = \"latest\"\ncommit_interval = \"2m\"".to_owned();
    world.publish("v1", "1").ok();
    world.deploy("1");
    send(&world, 10);
    commit_by_hand(&world, 1000, "r=7");
    let instance = world.start_ready("a");
    instance.process.wait_for_line("took over", PATIENCE);
    assert_eq!(world.committed(), [(Some(10), "r=7".to_owned())]);
    instance
        .process
        .wait_for_line("back until revision 7 of model", PATIENCE);
    instance.stop();
    Ok(())
}
