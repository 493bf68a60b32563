//! Starting while something is missing or wrong: it is named, the instance stays up and unready,
//! and goes on by itself once it is there.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use swapstream::registry::RegistryTopic;

use crate::support::trials::{TestResult, on_own_broker, on_shared_broker, without_broker};
use crate::support::{Broker, BrokerOptions, eventually};
use crate::world::{Instance, PATIENCE, World, events, predictions};

pub fn trials() -> Vec<Trial> {
    vec![
        without_broker("an_absent_broker_is_named", an_absent_broker_is_named),
        on_own_broker(
            "a_broker_that_appears_is_found",
            BrokerOptions::default,
            a_broker_that_appears_is_found,
        ),
        on_shared_broker("missing_topics_are_named", missing_topics_are_named),
        on_shared_broker(
            "missing_registry_topics_are_named",
            missing_registry_topics_are_named,
        ),
        on_shared_broker(
            "wrong_registry_topics_are_refused",
            wrong_registry_topics_are_refused,
        ),
        on_shared_broker(
            "a_deployment_log_without_its_start_is_refused",
            a_log_without_its_start_is_refused,
        ),
    ]
}

/// Waits until the instance is unready for a reason that has all of `parts`.
fn wait_unready(instance: &Instance, parts: &[&str]) {
    eventually("unready, and why", PATIENCE, || {
        match instance.get("/readyz") {
            (503, body) if parts.iter().all(|part| body.contains(part)) => Ok(()),
            (code, body) => Err(format!("{code} {body}, not {parts:?}")),
        }
    });
}

fn an_absent_broker_is_named() -> TestResult {
    // Bound and given back: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let address = address.to_string();
    let world = World::at(&address, 1);
    let mut instance = world.start("a");
    wait_unready(&instance, &["no broker", &address, "Connection refused"]);
    wait_unready(&instance, &["the registry cannot be read", &address]);
    wait_unready(&instance, &["stream flights", &world.input()]);
    assert_eq!(
        instance.get("/livez").0,
        200,
        "an absent broker is no reason to restart"
    );
    // Told by the clients once, not with every attempt.
    let said = |part: &str| {
        let lines = instance.process.stderr_lines();
        let found = lines
            .iter()
            .filter(|line| line.contains(part) && line.contains(" WARN "));
        found.count()
    };
    assert_eq!(said("kafka: "), 1, "{:#?}", instance.process.stderr_lines());
    assert_eq!(said("the registry cannot be followed"), 1);
    assert_eq!(said("trying again until it works"), 1);
    assert!(instance.process.is_running());
    // A command says the same and fails.
    let done = world.run(&["model", "list"]);
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains("Connection refused"),
        "{}",
        done.stderr
    );
    let start = Instant::now();
    instance.process.terminate();
    let status = instance.process.wait_exit(PATIENCE);
    assert!(status.success(), "{status}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}

fn a_broker_that_appears_is_found(broker: &Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    world.produce([(0, None, Some(events()[0].as_slice()))]);
    broker.terminate();
    let instance = world.start("a");
    wait_unready(&instance, &["no broker", broker.bootstrap()]);
    broker.restart();
    instance.wait_ready();
    let out = world.read(&world.output(), 1);
    assert_eq!(predictions(&out).len(), 1);
    instance.stop();
    Ok(())
}

fn missing_topics_are_named(broker: &'static Broker) -> TestResult {
    let world = World::at(broker.bootstrap(), 2);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start("a");
    for (role, topic) in [
        ("input", world.input()),
        ("output", world.output()),
        ("dead-letter", world.dead_letters()),
    ] {
        wait_unready(&instance, &[role, &topic, "does not exist"]);
        let line = instance.process.wait_for_line(&topic, PATIENCE);
        assert!(line.contains("does not exist"), "{line}");
        world.create_topic(&topic, 2, &[]);
    }
    instance.wait_ready();
    world.produce([(1, None, Some(events()[0].as_slice()))]);
    assert_eq!(world.read(&world.output(), 1).len(), 1);
    instance.stop();
    Ok(())
}

fn missing_registry_topics_are_named(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let instance = world.start("a");
    let names = ["versions", "artifacts", "deployments", "status"].map(|k| world.registry_topic(k));
    let parts: Vec<&str> = names.iter().map(String::as_str).collect();
    wait_unready(&instance, &parts);
    wait_unready(&instance, &["swapstream model publish"]);
    // `run` creates nothing.
    let admin = swapstream::kafka::Admin::new(&world.kafka)?;
    for name in &names {
        assert_eq!(admin.partitions(name, PATIENCE)?, None);
    }
    let listed = world.run(&["model", "list"]);
    assert_eq!(listed.code, 1, "{listed:?}");
    assert!(listed.stderr.contains(&names[0]), "{}", listed.stderr);
    world.publish("v1", "1").ok();
    world.deploy("1");
    instance.wait_ready();
    instance.stop();
    Ok(())
}

/// Creates the registry's topics, the one of `kind` with other settings.
fn create_registry(world: &World, wrong: RegistryTopic, partitions: i32, policy: &str) {
    for (topic, kind) in
        RegistryTopic::ALL
            .into_iter()
            .zip(["versions", "artifacts", "deployments", "status"])
    {
        let mut config = topic.config().to_vec();
        let mut count = 1;
        if topic == wrong {
            config[0] = ("cleanup.policy", policy);
            count = partitions;
        }
        assert_eq!(topic.config()[0].0, "cleanup.policy");
        world.create_topic(&world.registry_topic(kind), count, &config);
    }
}

fn wrong_registry_topics_are_refused(broker: &'static Broker) -> TestResult {
    let cases = [
        (
            RegistryTopic::Versions,
            2,
            "compact",
            "partitions cannot be taken away",
        ),
        (
            RegistryTopic::Versions,
            1,
            "delete",
            "--add-config cleanup.policy=compact",
        ),
        (
            RegistryTopic::Deployments,
            1,
            "compact",
            "--add-config cleanup.policy=delete",
        ),
    ];
    for (topic, partitions, policy, fix) in cases {
        let world = World::new(broker, 1);
        create_registry(&world, topic, partitions, policy);
        let published = world.publish("v1", "1");
        assert_eq!(published.code, 1, "{published:?}");
        assert!(published.stderr.contains(fix), "{}", published.stderr);
        let instance = world.start("a");
        wait_unready(&instance, &[fix]);
        instance.stop();
    }
    Ok(())
}

fn a_log_without_its_start_is_refused(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    world.deploy("1");
    world.delete_records(&world.registry_topic("deployments"), 1);
    let instance = world.start("a");
    wait_unready(&instance, &["first offset", "deployments_topic"]);
    assert!(world.all(&world.output()).is_empty());
    // Nor does a command that changes something; who looks sees what is left.
    for command in [
        &["model", "delete", "late-arrival", "1"][..],
        &["model", "rollback", "late-arrival"],
        &["model", "undeploy", "late-arrival"],
    ] {
        let done = world.run(command);
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains("first offset"), "{done:?}");
    }
    let left = world.run(&["model", "history", "late-arrival"]).ok();
    assert!(left.stdout.contains("deploy"), "{left:?}");
    instance.stop();
    Ok(())
}
