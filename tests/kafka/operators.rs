//! Several operators at once: one total order, no lost update.

use libtest_mimic::Trial;

use crate::support::Broker;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::world::World;

pub fn trials() -> Vec<Trial> {
    vec![on_shared_broker("of_operators_at_once_one_wins", one_wins)]
}

/// All decide by what was there before any of them; the log says who was first, to each.
fn one_wins(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.publish("v2", "2").ok();
    let base = world.deploy("1").to_string();
    let deploy = |who: &str| {
        let args = [
            "model",
            "deploy",
            "late-arrival",
            "2",
            "--if-revision",
            &base,
        ];
        world.run(&[&args[..], &["--by", who, "--output", "json"]].concat())
    };
    let done = std::thread::scope(|scope| {
        let operators = ["ann", "bob", "carl"];
        let started = operators.map(|who| scope.spawn(move || (who, deploy(who))));
        started.map(|operator| operator.join().unwrap())
    });
    let (won, lost): (Vec<_>, Vec<_>) = done.iter().partition(|(_, done)| done.code == 0);
    let [(winner, first)] = won[..] else {
        panic!("not one: {done:?}")
    };
    let first = first.json()["revision"].clone();
    for (who, done) in lost {
        let json = done.json();
        assert_eq!(
            (done.code, &json["effective"]),
            (1, &false.into()),
            "{who}: {json}"
        );
        assert_eq!(json["winner"]["event"]["by"], *winner, "{who}: {json}");
        assert_eq!(json["winner"]["revision"], first, "{who}: {json}");
    }
    let args = ["model", "history", "late-arrival", "--output", "json"];
    let history = world.run(&args).ok().json();
    let events = history["events"].as_array().unwrap();
    let effective: Vec<_> = events.iter().filter(|e| e["effective"] == true).collect();
    assert_eq!((events.len(), effective.len()), (4, 2), "{history}");
    assert_eq!(effective[1]["by"], *winner, "{history}");
    Ok(())
}
