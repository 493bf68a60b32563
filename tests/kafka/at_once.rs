//! Several who change the registry at once, and brokers that go away while they do.

use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::registry::model;
use crate::support::trials::{TestResult, on_own_broker, on_shared_broker};
use crate::support::{Broker, BrokerOptions, Process, bin, eventually};
use crate::world::{PATIENCE, World};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker(
            "a_version_that_is_deployed_while_it_is_deleted_stays",
            deployed_while_deleted,
        ),
        on_shared_broker(
            "a_deletion_puts_back_what_was_deployed_meanwhile",
            puts_back,
        ),
        on_shared_broker(
            "of_a_deletion_and_a_deployment_one_sees_the_other",
            a_deletion_and_a_deployment,
        ),
        on_own_broker(
            "a_deployment_is_waited_for_through_an_outage",
            BrokerOptions::default,
            an_outage,
        ),
    ]
}

fn command(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(bin());
    command.arg("-c").arg(world.config("cli")).arg("model");
    command.args(args).args(["--output", "json"]);
    command
}

fn start(world: &World, args: &[&str]) -> Process {
    Process::spawn(&mut command(world, args))
}

/// A world in which what is not deployed may be deleted at once.
fn world(broker: &Broker) -> World {
    let mut world = World::new(broker, 1);
    world.registry_extra = r#"retention = "0s""#.to_owned();
    world.publish("v2", "base").ok();
    world.deploy("base");
    world
}

/// The deletion ends, and says that the version is deployed.
fn refused(deletion: &mut Process, revision: i64) {
    let ended = deletion.wait_exit(PATIENCE);
    let said = deletion.stderr_lines().join("\n");
    assert_eq!(ended.code(), Some(1), "{said}");
    let why = format!("it is deployed (revision {revision})");
    assert!(said.contains(&why), "{said}");
}

/// A new instance serves what the event at `revision` deploys.
fn serves(world: &World, revision: i64) {
    let instance = world.start_ready("a");
    instance.wait_serves(revision);
    instance.stop();
}

fn deployed_while_deleted(broker: &'static Broker) -> TestResult {
    let world = world(broker);
    world.publish("v1", "1").ok();
    // The deletion has looked at the deployments, and waits for what an open transaction hides.
    let other = world.open_transaction(&world.registry_topic("versions"));
    let mut deletion = start(&world, &["delete", "late-arrival", "1"]);
    deletion.wait_for_line("an open transaction of another producer", PATIENCE);
    let revision = world.deploy("1");
    other.abort()?;
    refused(&mut deletion, revision);
    serves(&world, revision);
    Ok(())
}

/// The event of somebody whose look at the versions was earlier comes when the deletion is written.
fn puts_back(broker: &'static Broker) -> TestResult {
    let world = world(broker);
    world.publish("v1", "1").ok();
    let mut command = command(&world, &["delete", "late-arrival", "1"]);
    let mut deletion = Process::spawn(command.env("FAILPOINTS", "after-deletion=return(stop)"));
    eventually("it stands still", PATIENCE, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", deletion.pid()));
        match stat {
            Ok(stat) if stat.contains(") T ") => Ok(()),
            other => Err(format!("{other:?} {:?}", deletion.stderr_lines())),
        }
    });
    let show = ["show", "late-arrival", "1"];
    assert_eq!(model(&world, &show).code, 1, "it is deleted");
    let revision = world.append_deploy("1", None);
    deletion.resume();
    refused(&mut deletion, revision);
    model(&world, &show).ok();
    serves(&world, revision);
    Ok(())
}

fn a_deletion_and_a_deployment(broker: &'static Broker) -> TestResult {
    let world = world(broker);
    let (mut deletions, mut deployments) = (0, 0);
    for round in 0..5 {
        let version = format!("{round}");
        world.publish("v1", &version).ok();
        let deletion = start(&world, &["delete", "late-arrival", &version]);
        // The moment itself is what is tried: all over the time that a deletion takes.
        std::thread::sleep(Duration::from_millis(250) * round);
        let deployment = start(&world, &["deploy", "late-arrival", &version]);
        let mut rivals = [deletion, deployment];
        let [deletion, deployment] = rivals
            .each_mut()
            .map(|rival| rival.wait_exit(PATIENCE).success());
        assert!(!(deletion && deployment), "round {round}: {rivals:?}");
        deletions += u32::from(deletion);
        deployments += u32::from(deployment);
        let shown = model(&world, &["show", "late-arrival", &version]);
        assert_eq!(
            shown.code == 0,
            !deletion,
            "round {round}: {shown:?} {rivals:?}"
        );
        world.deploy("base");
    }
    eprintln!("of 5, {deletions} deletions and {deployments} deployments went through");
    Ok(())
}

/// The event is in the log, and its end is told, whatever the broker does meanwhile.
fn an_outage(broker: &Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    let args = ["deploy", "late-arrival", "1", "--wait", "--timeout", "120s"];
    let mut command = command(&world, &args);
    let mut deployment = Process::spawn(command.env("RUST_LOG", "info"));
    deployment.wait_for_line("waiting for live instances", PATIENCE);
    broker.pause();
    deployment.wait_for_line("still waiting for the event at revision 0", PATIENCE);
    broker.resume();
    let instance = world.start_ready("a");
    let ended = deployment.wait_exit(PATIENCE);
    assert!(ended.success(), "{:?}", deployment.stderr_lines());
    let told: serde_json::Value = serde_json::from_str(&deployment.stdout_lines().join(""))?;
    assert_eq!(told["converged"], true, "{told}");
    instance.stop();
    Ok(())
}
