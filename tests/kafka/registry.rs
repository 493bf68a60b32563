//! The commands over the registry's topics: rolling back, looking back, deleting, moving.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::Broker;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::world::{Done, World};

pub fn trials() -> Vec<Trial> {
    vec![on_shared_broker(
        "rollback_walks_back_like_a_stack",
        rollback_walks_back,
    )]
}

/// Runs a subcommand of `model` with `--output json`.
pub fn model(world: &World, args: &[&str]) -> Done {
    let mut all = vec!["model"];
    all.extend(args);
    all.extend(["--output", "json"]);
    world.run(&all)
}

fn versions_of(events: &Value) -> Vec<(String, String, bool)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = events["events"].as_array().unwrap().iter();
    events
        .map(|e| {
            (
                text(&e["action"]),
                text(&e["version"]),
                e["effective"] == true,
            )
        })
        .collect()
}

fn rollback_walks_back(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    for (flights, version) in [("v1", "1"), ("v2", "2"), ("v1", "3")] {
        world.publish(flights, version).ok();
    }
    let never = model(&world, &["rollback", "late-arrival"]);
    assert_eq!(never.code, 1);
    assert!(never.stderr.contains("never deployed"), "{never:?}");
    for version in ["1", "2", "3"] {
        world.deploy(version);
    }
    let instance = world.start_ready("a");
    // 3 → 2 → 1, and no further; each is served.
    for version in ["2", "1"] {
        let args = [
            "rollback",
            "late-arrival",
            "--by",
            "ann",
            "--reason",
            "alarms",
            "--wait",
        ];
        let json = model(&world, &args).ok().json();
        assert_eq!(json["event"]["action"], "rollback");
        assert_eq!(json["event"]["version"], version);
        assert!(json["event"]["if_revision"].is_i64(), "{json}");
        assert_eq!(json["converged"], true, "{json}");
        instance.wait_serves(json["revision"].as_i64().unwrap());
    }
    let end = model(&world, &["rollback", "late-arrival"]);
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains("before version 1"), "{end:?}");
    // To a named one, but only if nobody was quicker.
    let stale = [
        "rollback",
        "late-arrival",
        "--to",
        "3",
        "--if-revision",
        "0",
    ];
    let stale = model(&world, &stale);
    assert_eq!(stale.code, 1, "{stale:?}");
    assert_eq!(stale.json()["winner"]["event"]["by"], "ann");
    let unknown = model(&world, &["rollback", "late-arrival", "--to", "7"]);
    assert!(unknown.stderr.contains("never served"), "{unknown:?}");
    model(&world, &["rollback", "late-arrival", "--to", "3", "--wait"]).ok();
    // What cannot be loaded is not rolled back to.
    let file = world.path("bad.onnx");
    std::fs::write(&file, b"no model")?;
    let file = file.to_str().unwrap();
    world
        .publish_file(file, &["--no-check"], "late-arrival", "bad")
        .ok();
    world.append_deploy("bad", None);
    world.deploy("2");
    let bad = model(&world, &["rollback", "late-arrival"]);
    assert_eq!((bad.code, &*bad.stdout), (1, ""), "{bad:?}");
    assert!(bad.stderr.contains("would be refused"), "{bad:?}");

    let history = model(&world, &["history", "late-arrival"]).ok().json();
    assert_eq!(history["schema"], "swapstream.model-history/v1");
    let told = versions_of(&history);
    let wanted = [
        ("deploy", "1", true),
        ("deploy", "2", true),
        ("deploy", "3", true),
        ("rollback", "2", true),
        ("rollback", "1", true),
        ("rollback", "3", false),
        ("rollback", "3", true),
        ("deploy", "bad", true),
        ("deploy", "2", true),
    ];
    let wanted = wanted.map(|(a, v, e)| (a.to_owned(), v.to_owned(), e));
    assert_eq!(told, wanted);
    let events = history["events"].as_array().unwrap();
    assert_eq!(events[3]["by"], "ann");
    assert_eq!(events[3]["reason"], "alarms");
    assert!(events[3]["served_ms"].as_u64().unwrap() > 0);
    assert_eq!(events[8]["current"], true);
    assert!(
        events[5]["why"]
            .as_str()
            .unwrap()
            .contains("expects revision 0")
    );
    let text = world.run(&["model", "history", "late-arrival"]).ok().stdout;
    assert!(
        text.contains("rollback (void)") && text.contains("alarms"),
        "{text}"
    );

    let diff = model(&world, &["diff", "late-arrival", "1", "2"])
        .ok()
        .json();
    assert_eq!(diff["same_artifact"], false);
    let changes = diff["changes"].as_array().unwrap();
    let auc = changes.iter().find(|c| c["what"] == "lineage.metrics.auc");
    assert!(
        auc.is_some_and(|c| c["delta"].as_f64().unwrap() > 0.0),
        "{diff}"
    );
    let signature = changes.iter().any(|c| {
        c["what"]
            .as_str()
            .unwrap()
            .starts_with("lineage.onnx_inputs")
    });
    assert!(signature, "{diff}");
    let same = model(&world, &["diff", "late-arrival", "1", "3"])
        .ok()
        .json();
    assert_eq!(same["same_artifact"], true);
    instance.stop();
    Ok(())
}
