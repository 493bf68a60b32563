//! A broker that asks who you are: TLS, SASL/SCRAM and ACLs end to end with users that may do no
//! more than they must; clear refusals; and secrets that appear nowhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libtest_mimic::Trial;

use crate::support::Operation::{Create, Describe, DescribeConfigs, Read, Write};
use crate::support::trials::{TestResult, on_own_broker};
use crate::support::{
    Broker, BrokerOptions, Kit, Listener, Operation, PINNED_VERSION, Resource, allow, eventually,
    free_ports,
};
use crate::world::{PATIENCE, World, events, predictions};

pub fn trials() -> Vec<Trial> {
    vec![on_own_broker(
        "tls_scram_and_acls_end_to_end",
        secured,
        end_to_end,
    )]
}

/// Passwords by user; nothing may ever show one of them.
const USERS: [(&str, &str); 3] = [
    ("publisher", "publisher-pa55-q7Zk"),
    ("scorer", "scorer-pa55-Vw3r"),
    ("nobody", "nobody-pa55-L0xe"),
];

/// What the options and the test share.
struct Secured {
    port: u16,
    dir: PathBuf,
}

static SECURED: OnceLock<Secured> = OnceLock::new();

/// A listener with TLS and SCRAM beside the open one, whose users are administrators.
fn secured() -> BrokerOptions {
    let secured = SECURED.get_or_init(|| {
        let (port, _) = free_ports().expect("a port");
        let dir = tempfile::tempdir().expect("a directory").keep();
        Secured { port, dir }
    });
    let store = secured.dir.join("broker.p12");
    if !store.exists() {
        make_certificate(&store, &secured.dir.join("ca.pem"));
    }
    let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let properties = [
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        ),
        ("super.users", "User:ANONYMOUS"),
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512"),
        ("listener.name.secure.scram-sha-512.sasl.jaas.config", login),
        ("listener.name.secure.ssl.keystore.type", "PKCS12"),
        (
            "listener.name.secure.ssl.keystore.location",
            store.to_str().expect("UTF-8"),
        ),
        ("listener.name.secure.ssl.keystore.password", STORE_PASSWORD),
        ("listener.name.secure.ssl.key.password", STORE_PASSWORD),
    ];
    let scram = USERS.iter().flat_map(|(user, password)| {
        let user = format!("SCRAM-SHA-512=[name={user},password={password}]");
        ["--add-scram".to_owned(), user]
    });
    BrokerOptions {
        properties: properties
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec(),
        listeners: vec![Listener {
            name: "SECURE".to_owned(),
            protocol: "SASL_SSL".to_owned(),
            port: secured.port,
            advertised: secured.port,
        }],
        format_args: scram.collect(),
        ..BrokerOptions::default()
    }
}

const STORE_PASSWORD: &str = "store-pa55";

/// A key with its certificate, by the tool that comes with every Java.
fn make_certificate(store: &Path, certificate: &Path) {
    let java = &Kit::resolve(PINNED_VERSION).expect("Java was found").java;
    let keytool = |args: &[&str]| {
        let done = Command::new(java.with_file_name("keytool"))
            .args(args)
            .args([
                "-alias",
                "broker",
                "-storetype",
                "PKCS12",
                "-storepass",
                STORE_PASSWORD,
            ])
            .arg("-keystore")
            .arg(store)
            .output()
            .expect("keytool starts");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "keytool {args:?}: {said}");
    };
    let names = "san=ip:127.0.0.1,dns:localhost";
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=localhost",
        "-ext",
        names,
        "-validity",
        "2",
    ]);
    keytool(&[
        "-exportcert",
        "-rfc",
        "-file",
        certificate.to_str().expect("UTF-8"),
    ]);
}

/// The lines of `[kafka.client]` for a user; the password comes from a file.
fn client(world: &World, user: &str, password: &str) -> String {
    let secured = SECURED.get().expect("the broker was started");
    let file = world.path(&format!("{user}.password"));
    std::fs::write(&file, password).expect("the password is written");
    format!(
        "\"session.timeout.ms\" = \"6000\"\n\"security.protocol\" = \"SASL_SSL\"\n\"ssl.ca.location\" = \"{}\"\n\
         \"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\"sasl.username\" = \"{user}\"\n\
         \"sasl.password\" = {{ file = \"{}\" }}\n",
        secured.dir.join("ca.pem").display(),
        file.display()
    )
}

fn password(user: &str) -> &'static str {
    let found = USERS.iter().find(|(name, _)| *name == user);
    found
        .map(|(_, password)| *password)
        .expect("a user of the broker")
}

/// Everything that was shown to somebody.
#[derive(Default)]
struct Shown(Vec<String>);

impl Shown {
    fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    fn check(&self) {
        for text in &self.0 {
            for (_, password) in USERS {
                assert!(!text.contains(password), "a password is shown: {text}");
            }
            assert!(!text.contains(WRONG), "a password is shown: {text}");
        }
    }
}

/// A password that no user has.
const WRONG: &str = "wrong-pa55-T2mm";

/// What `docs/registry.md` says that each needs, and nothing else.
fn give_rights(broker: &Broker, world: &World) {
    let give = |user: &str, operations: &[Operation], resource: Resource, name: &str| {
        let given = allow(broker.bootstrap(), user, operations, resource, name);
        given.unwrap_or_else(|error| panic!("{user} {operations:?} {name}: {error}"));
    };
    let registry = format!("{}-model-", world.name);
    let topic = |kind: &str| world.registry_topic(kind);
    let ids = "swapstream-publish-";
    give(
        "publisher",
        &[Describe, DescribeConfigs, Read, Create],
        Resource::Topic,
        &registry,
    );
    for kind in ["versions", "artifacts", "deployments"] {
        give("publisher", &[Write], Resource::Topic, &topic(kind));
    }
    give(
        "publisher",
        &[Write, Describe],
        Resource::TransactionalId,
        ids,
    );
    give(
        "scorer",
        &[Describe, DescribeConfigs, Read],
        Resource::Topic,
        &registry,
    );
    give("scorer", &[Write], Resource::Topic, &topic("status"));
    give("scorer", &[Read], Resource::Group, &world.name);
    give("scorer", &[Read, Describe], Resource::Topic, &world.input());
    for topic in [world.output(), world.dead_letters()] {
        give(
            "scorer",
            &[Describe, DescribeConfigs, Write],
            Resource::Topic,
            &topic,
        );
    }
}

fn end_to_end(broker: &Broker) -> TestResult {
    let secured = SECURED.get().ok_or("the broker was started")?;
    let mut shown = Shown::default();
    let mut world = World::new(broker, 2);
    give_rights(broker, &world);
    world.servers = Some(format!("127.0.0.1:{}", secured.port));

    world.client = client(&world, "publisher", password("publisher"));
    for done in [world.publish("v1", "1"), world.publish("v2", "2")] {
        let done = done.ok();
        shown.add(done.stdout + &done.stderr);
    }
    world.deploy("2");

    world.client = client(&world, "scorer", password("scorer"));
    let check = world.run(&["config", "check"]).ok();
    shown.add(check.stdout + &check.stderr);
    let instance = world.start_ready("a");
    let sample = events();
    let good = sample
        .iter()
        .take(20)
        .map(|e| (0, None, Some(e.as_slice())));
    world.produce(good.chain([(1, None, Some(&b"not json"[..]))]));
    let read = predictions(&world.read(&world.output(), 20));
    assert!(
        read.iter().all(|one| one.version == "2"),
        "scored by what was deployed"
    );
    assert_eq!(world.read(&world.dead_letters(), 1).len(), 1);
    for path in ["/metrics", "/readyz", "/livez", "/models"] {
        shown.add(instance.get(path).1);
    }
    // An instance may not change models.
    let denied = world.run(&["model", "deploy", "late-arrival", "1"]);
    assert_eq!(denied.code, 1, "{denied:?}");
    let deployments = world.registry_topic("deployments");
    assert!(denied.stderr.contains(&deployments), "{denied:?}");
    assert!(
        denied.stderr.to_lowercase().contains("authoriz"),
        "{denied:?}"
    );
    shown.add(denied.stdout + &denied.stderr);
    shown.add(instance.stop().join("\n"));
    exactly_once(broker, &mut world, &mut shown);
    refusals(&mut world, &mut shown)?;
    shown.check();
    Ok(())
}

/// Transactions need one right more, and without it the missing id is named.
fn exactly_once(broker: &Broker, world: &mut World, shown: &mut Shown) {
    world.stream_extra = "processing_guarantee = \"exactly_once\"".to_owned();
    let instance = world.start("t");
    let id = format!("{}-t-0", world.name);
    eventually("the instance names the transactional id", PATIENCE, || {
        let (code, body) = instance.get("/readyz");
        let named = body.to_lowercase().contains("authoriz") && body.contains(&id);
        if code == 503 && named {
            Ok(())
        } else {
            Err(body)
        }
    });
    let rights = [Write, Describe];
    let ids = format!("{}-", world.name);
    allow(
        broker.bootstrap(),
        "scorer",
        &rights,
        Resource::TransactionalId,
        &ids,
    )
    .unwrap();
    let sample = events();
    world.produce(
        sample
            .iter()
            .take(10)
            .map(|e| (0, None, Some(e.as_slice()))),
    );
    assert_eq!(world.read(&world.output(), 30).len(), 30);
    shown.add(instance.metrics());
    shown.add(instance.stop().join("\n"));
    world.stream_extra.clear();
}

/// Who may not is told what is missing, and where.
fn refusals(world: &mut World, shown: &mut Shown) -> TestResult {
    world.client = client(world, "nobody", password("nobody"));
    let list = world.run(&["model", "list"]);
    assert_eq!(list.code, 1, "{list:?}");
    let versions = world.registry_topic("versions");
    assert!(list.stderr.contains(&versions), "{list:?}");
    assert!(list.stderr.to_lowercase().contains("authoriz"), "{list:?}");
    shown.add(list.stdout + &list.stderr);
    let instance = world.start("b");
    eventually("the instance says what it may not", PATIENCE, || {
        let (code, body) = instance.get("/readyz");
        let named = body.to_lowercase().contains("authoriz") && body.contains(&world.name);
        if code == 503 && named {
            Ok(())
        } else {
            Err(body)
        }
    });
    shown.add(instance.stop().join("\n"));

    // Whoever has another password is not let in, and learns why.
    world.client = client(world, "scorer", WRONG);
    let wrong = world.run(&["model", "list"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(
        wrong.stderr.to_lowercase().contains("authentication"),
        "{wrong:?}"
    );
    shown.add(wrong.stdout + &wrong.stderr);

    // A broker whose certificate nobody has vouched for is not spoken to.
    let trusted = client(world, "scorer", password("scorer"));
    world.client = trusted
        .lines()
        .filter(|line| !line.contains("ssl.ca.location"))
        .fold(String::new(), |all, line| all + line + "\n");
    let unknown = world.run(&["model", "list"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("certificate"), "{unknown:?}");
    shown.add(unknown.stdout + &unknown.stderr);
    Ok(())
}
