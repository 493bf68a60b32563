//! The commands over the registry's topics: rolling back, looking back, deleting, moving.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually};
use crate::world::{Done, PATIENCE, World, models};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("rollback_walks_back_like_a_stack", rollback_walks_back),
        on_shared_broker(
            "a_deleted_number_never_returns",
            a_deleted_number_never_returns,
        ),
        on_shared_broker("gc_frees_orphans_only", gc_frees_orphans_only),
        on_shared_broker("a_version_moves_unchanged", a_version_moves_unchanged),
        on_shared_broker("a_file_by_reference_serves", a_file_by_reference_serves),
    ]
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

/// The keys of a topic that have a value.
pub fn live_keys(world: &World, kind: &str) -> BTreeSet<String> {
    let mut live = BTreeSet::new();
    for record in world.tail_of(&world.registry_topic(kind), 1).read_to_end() {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        if record.value.is_some() {
            live.insert(key);
        } else {
            live.remove(&key);
        }
    }
    live
}

fn a_deleted_number_never_returns(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    for (flights, version) in [("v1", "1"), ("v2", "2"), ("v2", "3")] {
        world.publish(flights, version).ok();
    }
    let delete = |world: &World, version: &str| {
        model(
            world,
            &[
                "delete",
                "late-arrival",
                version,
                "--by",
                "ann",
                "--reason",
                "old",
            ],
        )
    };
    world.deploy("1");
    let deployed = delete(&world, "1");
    assert_eq!((deployed.code, &*deployed.stdout), (1, ""), "{deployed:?}");
    assert!(
        deployed.stderr.contains("it is deployed (revision 0)"),
        "{deployed:?}"
    );
    world.deploy("2");
    let lately = delete(&world, "1");
    assert!(
        lately.stderr.contains("registry.retention keeps it"),
        "{lately:?}"
    );
    // An instance serves version 1 still: version 2 is refused by all.
    world.registry_extra = r#"retention = "0s""#.to_owned();
    world.append_deploy("3", Some(&format!("sha256:{}", "0".repeat(64))));
    let instance = world.start_ready("a");
    let served = delete(&world, "2");
    assert!(served.stderr.contains("served by a"), "{served:?}");
    let unknown = delete(&world, "7");
    assert!(unknown.stderr.contains("no version 7"), "{unknown:?}");
    // Version 1 is neither deployed nor served nor kept.
    let before = live_keys(&world, "artifacts");
    let done = delete(&world, "1").ok().json();
    assert_eq!(
        (&done["outcome"], &done["chunks"]),
        (&"deleted".into(), &1.into())
    );
    let after = live_keys(&world, "artifacts");
    assert_eq!(before.len() - 1, after.len());
    let again = delete(&world, "1").ok().json();
    assert_eq!(again["outcome"], "unchanged");
    assert_eq!(again["offset"], done["offset"]);
    for flights in ["v1", "v2"] {
        let taken = world.publish(flights, "1");
        assert_eq!(taken.code, 1);
        assert!(taken.stderr.contains("deleted by ann"), "{taken:?}");
    }
    let deploy = model(&world, &["deploy", "late-arrival", "1"]);
    assert!(deploy.stderr.contains("was deleted"), "{deploy:?}");
    let back = model(&world, &["rollback", "late-arrival", "--to", "1"]);
    assert!(back.stderr.contains("was deleted"), "{back:?}");
    // An event past the commands is refused, and the stream is undisturbed.
    let revision = world.append_deploy("1", None);
    let refused = refusal(&world, "1", revision);
    assert!(
        refused["reason"]
            .as_str()
            .unwrap()
            .contains("it was deleted"),
        "{refused}"
    );
    assert!(instance.ready().is_ok());
    let record = world
        .tail_of(&world.registry_topic("versions"), 1)
        .read_to_end();
    let record: Value = serde_json::from_slice(record.last().unwrap().value.as_ref().unwrap())?;
    assert_eq!(record["schema"], "swapstream.deletion/v1");
    assert_eq!(
        (&record["deleted"], &record["reason"]),
        (&true.into(), &"old".into())
    );
    instance.stop();
    Ok(())
}

/// What instance `a` says about a version that it refused.
pub fn refusal(world: &World, version: &str, revision: i64) -> Value {
    eventually("the refusal is in the status", PATIENCE, || {
        let status = world.status();
        let refused = &status["models"][0]["instances"][0]["refused"];
        if refused["version"] == version && refused["revision"] == revision {
            Ok(refused.clone())
        } else {
            Err(status.to_string())
        }
    })
}

fn gc_frees_orphans_only(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let needed = live_keys(&world, "artifacts");
    // What a publication leaves that is killed before its manifest, and who was killed itself.
    for index in 0..3 {
        let topic = world.registry_topic("artifacts");
        world.append(
            &topic,
            &format!("half-done/{index}"),
            Some(vec![0; 1000]),
            Vec::new(),
        );
    }
    let status = world.registry_topic("status");
    world.append(
        &status,
        "gone/late-arrival",
        Some(b"{}".to_vec()),
        Vec::new(),
    );
    let young = model(&world, &["gc"]).ok().json();
    assert_eq!(
        young["orphans"].as_array().unwrap().len(),
        0,
        "younger than a day"
    );
    let dry = model(&world, &["gc", "--older-than", "0s", "--dry-run"])
        .ok()
        .json();
    assert_eq!(dry["orphans"][0]["upload"], "half-done");
    assert_eq!((&dry["bytes"], &dry["kept"]), (&3000.into(), &1.into()));
    assert_eq!(live_keys(&world, "artifacts").len(), needed.len() + 3);
    let done = model(&world, &["gc", "--older-than", "0s"]).ok().json();
    assert_eq!(done["orphans"][0]["chunks"], 3);
    assert_eq!(done["instances"], serde_json::json!(["gone"]));
    assert_eq!(live_keys(&world, "artifacts"), needed);
    assert!(live_keys(&world, "status").is_empty());
    // What a living instance has said stays: it does not say it again.
    let instance = world.start_ready("a");
    let said = eventually("its status", PATIENCE, || {
        let said = live_keys(&world, "status");
        let all = said.len() >= 2;
        all.then_some(said.clone())
            .ok_or_else(|| format!("{said:?}"))
    });
    let done = model(&world, &["gc", "--older-than", "0s"]).ok().json();
    assert_eq!(done["instances"], serde_json::json!([]));
    assert!(said.is_subset(&live_keys(&world, "status")), "{said:?}");
    instance.stop();
    Ok(())
}

fn a_version_moves_unchanged(broker: &'static Broker) -> TestResult {
    let (from, to) = (World::new(broker, 1), World::new(broker, 1));
    let published = from.publish("v2", "2").ok().json();
    let raw = |world: &World| {
        world
            .run(&["model", "show", "late-arrival", "2", "--raw"])
            .ok()
            .stdout
    };
    // Through a file.
    let file = from.path("v2.tar");
    let path = file.to_str().unwrap();
    let exported = model(&from, &["export", "late-arrival", "2", "-o", path])
        .ok()
        .json();
    assert_eq!(exported["digest"], published["digest"]);
    let imported = model(&to, &["import", path]).ok().json();
    assert_eq!(
        (&imported["outcome"], &imported["digest"]),
        (&"published".into(), &published["digest"])
    );
    assert_eq!(raw(&from), raw(&to), "the very same manifest");
    assert_eq!(
        model(&to, &["import", path]).ok().json()["outcome"],
        "unchanged"
    );
    // From registry to registry.
    let third = World::new(broker, 1);
    let config = third.config("cli");
    let copied = model(
        &from,
        &[
            "copy",
            "late-arrival",
            "2",
            "--to",
            config.to_str().unwrap(),
        ],
    );
    assert_eq!(copied.ok().json()["outcome"], "published");
    assert_eq!(raw(&from), raw(&third));
    // What was moved serves.
    third.deploy("2");
    third.start_ready("a").stop();
    // A bundle that was tampered with is none.
    let mut bytes = std::fs::read(&file)?;
    let at = bytes.len() - 4096;
    bytes[at] ^= 1;
    let bad = from.path("bad.tar");
    std::fs::write(&bad, &bytes)?;
    let refused = model(&to, &["import", bad.to_str().unwrap()]);
    assert_eq!((refused.code, &*refused.stdout), (1, ""), "{refused:?}");
    assert!(
        refused.stderr.contains("the manifest says sha256:"),
        "{refused:?}"
    );
    let none = model(&to, &["import", models().join("v1.onnx").to_str().unwrap()]);
    assert!(none.stderr.contains("not a bundle"), "{none:?}");
    Ok(())
}

fn a_file_by_reference_serves(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let file = world.path("model.onnx");
    std::fs::copy(models().join("v1.onnx"), &file)?;
    let uri = format!("file://{}", file.display());
    let manifest = models().join("v1.toml");
    let publish = |version: &str, uri: &str, more: &[&str]| {
        let mut all = vec!["--manifest", manifest.to_str().unwrap(), "--uri", uri];
        all.extend(more);
        world.publish_file(file.to_str().unwrap(), &all, "late-arrival", version)
    };
    for (uri, part) in [
        ("file:///nowhere/1.onnx", "No such file"),
        ("gopher://models", "no address that can be read"),
    ] {
        let refused = publish("refused", uri, &[]);
        assert_eq!((refused.code, &*refused.stdout), (1, ""), "{refused:?}");
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    let published = publish("1", &uri, &[]).ok().json();
    assert_eq!(published["chunks"], 0, "nothing of it lies in Kafka");
    assert!(live_keys(&world, "artifacts").is_empty());
    world.deploy("1");
    let instance = world.start_ready("a");
    // The file is another one now: a version that names it is refused, what serves serves on.
    std::fs::copy(models().join("v2.onnx"), &file)?;
    let manifest = world
        .run(&["model", "show", "late-arrival", "1", "--raw"])
        .ok()
        .stdout;
    let forged = manifest.replace(r#""version":"1""#, r#""version":"replaced""#);
    let topic = world.registry_topic("versions");
    world.append(
        &topic,
        "late-arrival/replaced",
        Some(forged.into()),
        Vec::new(),
    );
    // A version of the same digest is not loaded again; so one in between.
    world.publish("v2", "2").ok();
    let second = world.deploy("2");
    instance.wait_serves(second);
    let revision = world.append_deploy("replaced", None);
    let refused = refusal(&world, "replaced", revision);
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("the manifest says"), "{refused}");
    // A file that is gone may come back: nothing falls through to an older version.
    std::fs::remove_file(&file)?;
    let revision = world.append_deploy("1", None);
    eventually("the load waits", PATIENCE, || {
        let status = world.status();
        let work = &status["models"][0]["instances"][0]["working_on"];
        match work["error"].as_str() {
            Some(error) if error.contains("No such file") => Ok(()),
            _ => Err(status.to_string()),
        }
    });
    std::fs::copy(models().join("v1.onnx"), &file)?;
    instance.wait_serves(revision);
    // With --inline the registry has it, and the address is a note.
    publish("inline", &uri, &["--inline"]).ok();
    std::fs::remove_file(&file)?;
    let revision = world.append_deploy("inline", None);
    instance.wait_serves(revision);
    instance.stop();
    Ok(())
}
