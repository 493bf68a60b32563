//! The revision fence: a commit says which revision scored up to it, and no instance goes on with
//! an older one before it has waited.

use libtest_mimic::Trial;

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{Instance, PATIENCE, World, events, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("commits_carry_the_revision", commits_carry_the_revision),
        on_shared_broker("a_hold_ends_when_its_time_is_over", a_hold_expires),
        on_shared_broker("a_hold_ends_when_the_revision_serves", a_hold_is_reached),
        on_shared_broker(
            "a_hold_ends_when_the_revision_is_refused",
            a_hold_is_reached_by_refusal,
        ),
    ]
}

/// Sends `count` events to partition 0.
fn send(world: &World, count: usize) {
    let sample = events();
    world.produce(
        sample
            .iter()
            .take(count)
            .map(|e| (0, None, Some(e.as_slice()))),
    );
}

fn holds(instance: &Instance, outcome: &str) -> f64 {
    let labels = format!("{{outcome=\"{outcome}\",stream=\"flights\"}}");
    instance.metric(&format!("swapstream_revision_holds_total{labels}"))
}

fn wait_held(instance: &Instance) {
    eventually("the partition is held", PATIENCE, || {
        match instance.metric("swapstream_held_partitions{stream=\"flights\"}") {
            1.0 => Ok(()),
            other => Err(format!("{other}")),
        }
    });
}

fn commits_carry_the_revision(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 2);
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    let first = world.deploy("1");
    let instance = world.start_ready("a");
    send(&world, 10);
    let mut tail = world.tail(&world.output());
    tail.until(10, PATIENCE);
    // The commit that follows by itself, and its answer.
    let committed = r#"swapstream_commits_total{outcome="committed",stream="flights"}"#;
    let wanted = (Some(10), format!("r={first}"));
    eventually("the commit", PATIENCE, || {
        let found = world.committed();
        if found[0] == wanted && instance.metric(committed) >= 1.0 {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    // Where nothing came, the place to start from is committed, and no revision.
    assert_eq!(world.committed()[1], (Some(0), "r=-1".to_owned()));
    let second = world.deploy("2");
    instance.wait_serves(second);
    send(&world, 5);
    tail.until(15, PATIENCE);
    instance.stop();
    assert_eq!(world.committed()[0], (Some(15), format!("r={second}")));
    Ok(())
}

fn a_hold_expires(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.stream_extra.push_str("revision_hold = \"3s\"");
    world.publish("v1", "1").ok();
    let revision = world.deploy("1");
    send(&world, 10);
    world.commit(0, 3, "r=999");
    let instance = world.start("a");
    wait_held(&instance);
    assert!(world.all(&world.output()).is_empty(), "it waits");
    let mut tail = world.tail(&world.output());
    tail.until(7, PATIENCE);
    let read = predictions(&tail.records);
    assert_eq!(
        read.iter().map(|one| one.offset).collect::<Vec<_>>(),
        [3, 4, 5, 6, 7, 8, 9]
    );
    assert!(read.iter().all(|one| one.revision == revision));
    assert_eq!(
        (holds(&instance, "expired"), holds(&instance, "reached")),
        (1.0, 0.0)
    );
    let line = instance
        .process
        .wait_for_line("goes on with an older revision", PATIENCE);
    assert!(line.contains(&world.input()), "{line}");
    instance.stop();
    Ok(())
}

fn a_hold_is_reached(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.stream_extra.push_str("revision_hold = \"10m\"");
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    let old = world.deploy("1");
    send(&world, 10);
    // What an instance leaves that knew of the next deployment already.
    let next = old + 1;
    world.commit(0, 3, &format!("r={next}"));
    let instance = world.start_ready("a");
    wait_held(&instance);
    assert!(world.all(&world.output()).is_empty(), "it waits");
    assert_eq!(world.deploy("2"), next);
    let mut tail = world.tail(&world.output());
    tail.until(7, PATIENCE);
    let read = predictions(&tail.records);
    assert!(
        read.iter()
            .all(|one| one.revision == next && one.version == "2"),
        "nothing was scored by the older one"
    );
    assert_eq!(
        (holds(&instance, "expired"), holds(&instance, "reached")),
        (0.0, 1.0)
    );
    instance.stop();
    Ok(())
}

fn a_hold_is_reached_by_refusal(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    world.stream_extra.push_str("revision_hold = \"10m\"");
    world.publish("v1", "1").ok();
    let old = world.deploy("1");
    send(&world, 4);
    world.commit(0, 1, &format!("r={}", old + 1));
    let instance = world.start_ready("a");
    wait_held(&instance);
    assert_eq!(world.append_deploy("never-published", None), old + 1);
    let mut tail = world.tail(&world.output());
    tail.until(3, PATIENCE);
    assert!(
        predictions(&tail.records)
            .iter()
            .all(|one| one.revision == old)
    );
    assert_eq!(holds(&instance, "reached"), 1.0);
    instance.stop();
    Ok(())
}
