//! Versions whose files lie in an object store: fetched, verified, kept on this machine, and waited
//! for while the store is away. The store is moto, which checks every request's signature.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, Process, bin, eventually, free_ports, in_ci, try_http_get};
use crate::world::{Done, Instance, PATIENCE, World, events, models, predictions};

pub fn trials() -> Vec<Trial> {
    vec![on_shared_broker(
        "versions_in_an_object_store_serve",
        versions_in_an_object_store_serve,
    )]
}

/// Makes a user, with whose key everything after it is done, and a bucket; prints the key.
const PREPARE: &str = r"
import boto3, json, sys
client = lambda service, **keys: boto3.client(
    service, endpoint_url=sys.argv[1], region_name='us-east-1', **keys)
anybody = dict(aws_access_key_id='anybody', aws_secret_access_key='anybody')
iam = client('iam', **anybody)
iam.create_user(UserName='swapstream')
allowed = {'Effect': 'Allow', 'Action': 's3:*', 'Resource': '*'}
iam.put_user_policy(UserName='swapstream', PolicyName='s3', PolicyDocument=json.dumps(
    {'Version': '2012-10-17', 'Statement': [allowed]}))
key = iam.create_access_key(UserName='swapstream')['AccessKey']
s3 = client('s3', aws_access_key_id=key['AccessKeyId'], aws_secret_access_key=key['SecretAccessKey'])
s3.create_bucket(Bucket='models')
print(key['AccessKeyId'], key['SecretAccessKey'])
";

/// Puts a file under a key.
const PUT: &str = r"
import boto3, sys
s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1')
s3.upload_file(sys.argv[2], 'models', sys.argv[3])
";

/// An S3-compatible server, and the key with which it is used.
struct Store {
    python: String,
    port: u16,
    server: Process,
    env: Vec<(&'static str, String)>,
}

impl Store {
    /// `None`: moto is not installed.
    fn start() -> Option<Self> {
        let python = std::env::var("SWAPSTREAM_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
        let has_moto = Command::new(&python)
            .args(["-c", "import moto.server, boto3"])
            .stderr(Stdio::null())
            .status();
        if !has_moto.is_ok_and(|status| status.success()) {
            return None;
        }
        let port = free_ports().unwrap().0;
        let mut store = Self {
            server: serve(&python, port),
            python,
            port,
            env: Vec::new(),
        };
        store.prepare();
        Some(store)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits for the server, which has forgotten everything, and makes a key and a bucket.
    fn prepare(&mut self) {
        let address = format!("127.0.0.1:{}", self.port);
        eventually("moto listens", PATIENCE, || {
            try_http_get(&address, "/moto-api/").map(drop)
        });
        let key = self.python(PREPARE, &[]);
        let (id, secret) = key.trim().split_once(' ').unwrap();
        self.env = vec![
            ("AWS_ACCESS_KEY_ID", id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ];
    }

    fn python(&self, script: &str, args: &[&str]) -> String {
        let out = Command::new(&self.python)
            .args(["-c", script, &self.url()])
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn put(&self, file: &Path, key: &str) {
        self.python(PUT, &[file.to_str().unwrap(), key]);
    }

    fn secret(&self) -> &str {
        &self.env[1].1
    }
}

fn serve(python: &str, port: u16) -> Process {
    let mut command = Command::new(python);
    command
        .args([
            "-c",
            "import sys, moto.server; moto.server.main(sys.argv[1:])",
        ])
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        // What comes before is done by anybody: the user, its rights, its key.
        .env("INITIAL_NO_AUTH_ACTION_COUNT", "3");
    Process::spawn(&mut command)
}

fn run(world: &World, store: &Store, args: &[&str]) -> Done {
    let out = Command::new(bin())
        .arg("-c")
        .arg(world.config("cli"))
        .args(args)
        .envs(store.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let done = Done {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8(out.stdout).unwrap(),
        stderr: String::from_utf8(out.stderr).unwrap(),
    };
    let all = format!("{}{}", done.stdout, done.stderr);
    assert!(!all.contains(store.secret()), "{done:?}");
    done
}

/// Publishes what lies under `key`, which is said to be `file` where one is given.
fn publish(
    world: &World,
    store: &Store,
    version: &str,
    key: &str,
    file: Option<&Path>,
    more: &[&str],
) -> Done {
    // Version 2's file is the only one with another contract than version 1's.
    let v2 = file.is_some_and(|file| file.ends_with("v2.onnx"));
    let manifest = models().join(if v2 { "v2.toml" } else { "v1.toml" });
    let uri = format!("s3://models/{key}");
    let mut args = vec!["model", "publish"];
    args.extend(file.map(|file| file.to_str().unwrap()));
    args.extend(["--uri", &uri, "--manifest", manifest.to_str().unwrap()]);
    args.extend(["--model", "late-arrival", "--version", version]);
    args.extend(["--output", "json"]);
    args.extend(more);
    run(world, store, &args)
}

/// What instance `a` says about its model.
fn report(world: &World) -> Value {
    world.status()["models"][0]["instances"][0].clone()
}

/// An instance with a cache of its own.
fn start(world: &mut World, store: &Store, cache: &Path) -> Instance {
    world.env = store.env.clone();
    world.registry_extra = format!("cache_directory = \"{}\"", cache.display());
    world.start("a")
}

fn stop(instance: Instance, store: &Store) {
    let lines = instance.stop().join("\n");
    assert!(!lines.contains(store.secret()), "{lines}");
}

fn answers(world: &World, count: usize, version: &str) {
    world.produce([(0, None, Some(events()[0].as_slice()))]);
    let records = world.read(&world.output(), count);
    assert_eq!(records.len(), count);
    assert_eq!(predictions(&records)[count - 1].version, version);
}

fn kept(cache: &Path) -> usize {
    std::fs::read_dir(cache.join("sha256")).map_or(0, Iterator::count)
}

fn versions_in_an_object_store_serve(broker: &'static Broker) -> TestResult {
    let Some(mut store) = Store::start() else {
        let why = "no Python with moto[s3], flask and flask-cors; SWAPSTREAM_TEST_PYTHON may name \
                   one";
        if in_ci() {
            return Err(Failed::from(why));
        }
        eprintln!("not run: {why}");
        return Ok(());
    };
    let mut world = World::new(broker, 1);
    let [v1, v2] = ["v1.onnx", "v2.onnx"].map(|name| models().join(name));
    store.put(&v1, "flights/v1.onnx");
    refuses_to_publish(&world, &mut store, &v1, &v2);

    // The digest is that of what lies there, whether the file is at hand or not.
    let published = publish(&world, &store, "1", "flights/v1.onnx", Some(&v1), &[]).ok();
    assert_eq!(published.json()["chunks"], 0);
    let again = publish(&world, &store, "1", "flights/v1.onnx", None, &[]).ok();
    assert_eq!(again.json()["outcome"], "unchanged");
    publish(
        &world,
        &store,
        "later",
        "flights/later.onnx",
        Some(&v2),
        &["--no-check"],
    )
    .ok();
    world.deploy("1");
    let [first, second] = ["first", "second"].map(|name| world.path(name));
    let instance = start(&mut world, &store, &first);
    instance.wait_ready();
    answers(&world, 1, "1");
    assert_eq!(kept(&first), 1);

    // Other bytes than the manifest's, of the same length, are refused; what serves serves on.
    replaced(&world, &store, &v1, &instance);
    answers(&world, 2, "1");
    // A refusal is not remembered over a restart, and without the store it could not be told again.
    let again = world.append_deploy("1", None);
    instance.wait_serves(again);
    stop(instance, &store);

    // The store goes away. What is kept here serves after a restart.
    store.server.kill9();
    let instance = start(&mut world, &store, &first);
    instance.wait_ready();
    answers(&world, 3, "1");
    // What is not waits for it, and falls through to nothing.
    let revision = world.append_deploy("later", None);
    eventually("the load waits", PATIENCE, || {
        let report = report(&world);
        match report["working_on"]["error"].as_str() {
            Some(why) if why.contains("s3://models/flights/later.onnx") => Ok(()),
            _ => Err(report.to_string()),
        }
    });
    assert_eq!(report(&world)["serving"]["version"], "1");
    stop(instance, &store);

    // It comes back, at first without the file: then that is waited for.
    store.server = serve(&store.python, store.port);
    store.prepare();
    let instance = start(&mut world, &store, &second);
    eventually("the file is waited for", PATIENCE, || {
        let report = report(&world);
        match report["working_on"]["error"].as_str() {
            Some(why) if why.contains("nothing there (404)") => Ok(()),
            _ => Err(report.to_string()),
        }
    });
    store.put(&v2, "flights/later.onnx");
    // An empty disk, and one version in the store: it serves.
    instance.wait_serves(revision);
    instance.wait_ready();
    answers(&world, 4, "later");
    assert_eq!(kept(&second), 1);
    stop(instance, &store);
    Ok(())
}

fn refuses_to_publish(world: &World, store: &mut Store, v1: &Path, v2: &Path) {
    let refused = publish(world, store, "x", "flights/v1.onnx", Some(v2), &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("the manifest says"), "{refused:?}");
    let refused = publish(world, store, "x", "flights/none.onnx", Some(v1), &[]);
    assert!(
        refused.stderr.contains("nothing there (404)"),
        "{refused:?}"
    );
    // Another secret than the server knows.
    let right = std::mem::replace(&mut store.env[1].1, "wrong-secret".to_owned());
    let refused = publish(world, store, "x", "flights/v1.onnx", Some(v1), &[]);
    assert!(
        refused.stderr.contains("only to others (403)"),
        "{refused:?}"
    );
    store.env[1].1 = right;
    let uri = "https://ann:hush@host/m.onnx";
    let file: PathBuf = v1.to_owned();
    let args = ["model", "publish", file.to_str().unwrap(), "--no-check"];
    let mut args = args.to_vec();
    args.extend(["--uri", uri, "--model", "late-arrival", "--version", "x"]);
    let refused = run(world, store, &args);
    assert!(
        refused.stderr.contains("a user or a password"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("hush"), "{refused:?}");
}

fn replaced(world: &World, store: &Store, v1: &Path, instance: &Instance) {
    let mut bytes = std::fs::read(v1).unwrap();
    let published = world.path("replaced.onnx");
    // A file of its own, so that it is not in the cache under the digest of version 1.
    bytes.push(0);
    std::fs::write(&published, &bytes).unwrap();
    publish(
        world,
        store,
        "replaced",
        "r.onnx",
        Some(&published),
        &["--no-check"],
    )
    .ok();
    let last = bytes.len() - 1;
    bytes[last] = 1;
    std::fs::write(&published, &bytes).unwrap();
    store.put(&published, "r.onnx");
    let revision = world.append_deploy("replaced", None);
    let refused = eventually("the refusal", PATIENCE, || {
        let report = report(world);
        match report["refused"]["revision"].as_i64() {
            Some(found) if found == revision => Ok(report),
            _ => Err(report.to_string()),
        }
    });
    assert_eq!(refused["refused"]["stage"], "verified", "{refused}");
    let reason = refused["refused"]["reason"].as_str().unwrap();
    assert!(reason.contains("the manifest says sha256:"), "{reason}");
    assert_eq!(refused["serving"]["version"], "1");
    assert!(instance.ready().is_ok());
}
