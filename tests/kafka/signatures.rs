//! Signed versions: only those serve that a trusted key has signed, and minisign itself agrees.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use minisign::KeyPair;
use swapstream::record::{Header, OwnedRecord};

use crate::registry::model;
use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, eventually, in_ci};
use crate::world::{Done, PATIENCE, World, models};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker("only_signed_versions_serve", only_signed_versions_serve),
        on_shared_broker("minisign_verifies_what_is_stored", minisign_verifies),
    ]
}

/// A key pair; gives the file of the secret key and the public one.
fn key(world: &World, name: &str) -> (PathBuf, String) {
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let file = world.path(name);
    std::fs::write(&file, pair.sk.to_box(None).unwrap().to_string()).unwrap();
    (file, pair.pk.to_base64())
}

fn trusting(world: &mut World, keys: &[&str]) {
    world.registry_extra = format!("require_signature = true\ntrusted_keys = {keys:?}");
}

fn publish(world: &World, version: &str, key: Option<&Path>) -> Done {
    let file = models().join("v1.onnx");
    let manifest = models().join("v1.toml");
    let mut more = vec!["--manifest", manifest.to_str().unwrap()];
    if let Some(key) = key {
        more.extend(["--sign", key.to_str().unwrap()]);
    }
    world.publish_file(file.to_str().unwrap(), &more, "late-arrival", version)
}

/// The record of a version.
fn stored(world: &World, version: &str) -> OwnedRecord {
    let all = world
        .tail_of(&world.registry_topic("versions"), 1)
        .read_to_end();
    let key = format!("late-arrival/{version}");
    let found = all
        .into_iter()
        .rfind(|r| r.key.as_deref() == Some(key.as_bytes()));
    found.unwrap()
}

fn only_signed_versions_serve(broker: &'static Broker) -> TestResult {
    let mut world = World::new(broker, 1);
    let [(old, old_public), (new, new_public), (other, _)] =
        ["old", "new", "other"].map(|name| key(&world, name));
    // Before signatures are required, anything is published.
    publish(&world, "unsigned", None).ok();
    publish(&world, "foreign", Some(&other)).ok();
    publish(&world, "1", Some(&old)).ok();
    trusting(&mut world, &[&old_public, &new_public]);
    for (key, part) in [(None, "it is not signed"), (Some(&*other), "not among")] {
        let refused = publish(&world, "refused", key);
        assert_eq!((refused.code, &*refused.stdout), (1, ""), "{refused:?}");
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    publish(&world, "2", Some(&new)).ok();
    // One that was signed, and the record altered; one whose signature stands under another number.
    let record = stored(&world, "1");
    let value = String::from_utf8(record.value.clone().unwrap())?;
    let forge = |version: &str, value: &str| {
        let topic = world.registry_topic("versions");
        let key = format!("late-arrival/{version}");
        world.append(&topic, &key, Some(value.into()), record.headers.clone());
    };
    let altered = value.replace(r#""version":"1""#, r#""version":"altered""#);
    assert_ne!(altered, value);
    forge("altered", &altered);
    forge("replayed", &value);
    let mut garbled = record.headers.clone();
    let signature = garbled.iter_mut().find(|h| h.key == "minisign").unwrap();
    signature.value = Some(b"untrusted comment: x\nnot base64".to_vec());
    let renamed = value.replace(r#""version":"1""#, r#""version":"garbled""#);
    let topic = world.registry_topic("versions");
    world.append(
        &topic,
        "late-arrival/garbled",
        Some(renamed.into()),
        garbled,
    );

    let deploy = |version: &str| model(&world, &["deploy", "late-arrival", version]);
    deploy("1").ok();
    let instance = world.start_ready("a");
    for (version, part) in [
        ("unsigned", "it is not signed"),
        ("foreign", "not among registry.trusted_keys"),
        ("altered", "one of them was altered"),
        ("replayed", "its key says late-arrival replayed"),
        ("garbled", "the signature cannot be read"),
    ] {
        // The command refuses; so does every instance, whoever wrote the event.
        let refused = deploy(version);
        assert_eq!(refused.code, 1, "{version}: {refused:?}");
        assert!(refused.stderr.contains(part), "{version}: {refused:?}");
        let revision = world.append_deploy(version, None);
        let reason = eventually("the refusal is in the status", PATIENCE, || {
            let status = world.status();
            let report = &status["models"][0]["instances"][0];
            if report["refused"]["revision"] == revision && report["serving"]["version"] == "1" {
                Ok(report["refused"]["reason"].as_str().unwrap().to_owned())
            } else {
                Err(status.to_string())
            }
        });
        assert!(reason.contains(part), "{version}: {reason}");
        assert!(instance.ready().is_ok());
    }
    let second = deploy("2").ok().json();
    instance.wait_serves(second["revision"].as_i64().unwrap());
    instance.stop();
    // Rotation: the old key is no longer trusted, so a new instance does not go back to version 1.
    trusting(&mut world, &[&new_public]);
    let back = model(&world, &["rollback", "late-arrival", "--to", "1"]);
    assert!(back.stderr.contains("not among"), "{back:?}");
    world.start_ready("b").stop();
    let shown = model(&world, &["show", "late-arrival", "2"]).ok().json();
    assert_eq!(shown["signature"], "trusted");
    let shown = model(&world, &["show", "late-arrival", "1"]).ok().json();
    assert_eq!(shown["signature"], "untrusted");
    Ok(())
}

fn run(dir: &Path, program: &str, args: &[&str]) -> Done {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Done {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

fn minisign_verifies(broker: &'static Broker) -> TestResult {
    if Command::new("minisign").arg("-v").output().is_err() {
        let why = "the program minisign is not on the PATH (Debian: apt-get install minisign)";
        if in_ci() {
            return Err(Failed::from(why));
        }
        eprintln!("not run: {why}");
        return Ok(());
    }
    let mut world = World::new(broker, 1);
    let dir = world.path("");
    // A key of minisign's own signs here.
    run(
        &dir,
        "minisign",
        &["-G", "-W", "-p", "key.pub", "-s", "key.sec"],
    )
    .ok();
    let public = std::fs::read_to_string(dir.join("key.pub"))?;
    let public = public.lines().nth(1).unwrap().to_owned();
    trusting(&mut world, &[&public]);
    let published = publish(&world, "1", Some(&dir.join("key.sec"))).ok().json();
    assert_eq!(published["signed"], true);
    let record = stored(&world, "1");
    let show = |flag: &str| {
        world
            .run(&["model", "show", "late-arrival", "1", flag])
            .ok()
            .stdout
    };
    let signature: Vec<&Header> = record
        .headers
        .iter()
        .filter(|h| h.key == "minisign")
        .collect();
    assert_eq!(
        signature[0].value.as_deref(),
        Some(show("--signature").as_bytes())
    );
    std::fs::write(dir.join("manifest.json"), show("--raw"))?;
    std::fs::write(dir.join("manifest.json.minisig"), show("--signature"))?;
    let verify = ["-V", "-P", &public, "-m", "manifest.json"];
    let verified = run(&dir, "minisign", &verify).ok();
    assert!(
        verified.stdout.contains("late-arrival 1 sha256:"),
        "{verified:?}"
    );
    // The same out of a bundle; with minisign's signature instead of ours it is imported as well.
    let tar = dir.join("v1.tar");
    model(
        &world,
        &["export", "late-arrival", "1", "-o", tar.to_str().unwrap()],
    )
    .ok();
    run(&dir, "tar", &["xf", "v1.tar"]).ok();
    run(&dir, "minisign", &verify).ok();
    run(
        &dir,
        "minisign",
        &[
            "-S",
            "-s",
            "key.sec",
            "-m",
            "manifest.json",
            "-t",
            "by hand",
        ],
    )
    .ok();
    let entries = ["manifest.json", "manifest.json.minisig", "model.onnx"];
    let mut args = vec!["cf", "by-hand.tar"];
    args.extend(entries);
    run(&dir, "tar", &args).ok();
    let mut other = World::new(broker, 1);
    trusting(&mut other, &[&public]);
    let bundle = dir.join("by-hand.tar");
    model(&other, &["import", bundle.to_str().unwrap()]).ok();
    let shown = other
        .run(&["model", "show", "late-arrival", "1"])
        .ok()
        .stdout;
    assert!(shown.contains(": by hand"), "{shown}");
    other.deploy("1");
    other.start_ready("a").stop();
    // And minisign sees what was altered.
    let altered = show("--raw").replace("late-arrival", "late-arrivaL");
    std::fs::write(dir.join("manifest.json"), altered)?;
    assert_ne!(run(&dir, "minisign", &verify).code, 0);
    Ok(())
}
