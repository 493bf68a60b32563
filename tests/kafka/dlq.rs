//! Dead letters after the fact: what is kept of the input, what `dlq` shows, that each is sent
//! again once.

use std::collections::BTreeMap;
use std::process::Command;

use libtest_mimic::Trial;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use swapstream::dlq::{Listing, RedriveReport, ShownRecord};
use swapstream::record::{Header, OwnedRecord};

use crate::support::trials::{TestResult, on_shared_broker};
use crate::support::{Broker, Process, bin, eventually};
use crate::world::{PATIENCE, World, events, header};

pub fn trials() -> Vec<Trial> {
    vec![
        on_shared_broker(
            "dead_letters_go_round_until_their_attempts_are_used",
            dead_letters_go_round,
        ),
        on_shared_broker("each_dead_letter_is_redriven_once", each_is_redriven_once),
        on_shared_broker(
            "what_an_open_transaction_hides_is_not_sent_again",
            what_an_open_transaction_hides,
        ),
        on_shared_broker("redrive_leaves_what_it_must", redrive_leaves_what_it_must),
    ]
}

/// Partition, key, value.
type Keyed<'a> = (i32, Option<&'a [u8]>, Option<&'a [u8]>);

pub const ERRORS: &str = "__swapstream.errors.";

fn text(name: &str, value: &str) -> Header {
    Header::text(name, value)
}

/// Headers as nobody would write them, and Kafka allows.
fn odd_headers() -> Vec<Header> {
    let header = |key: &str, value: Option<&[u8]>| Header {
        key: key.to_owned(),
        value: value.map(<[u8]>::to_vec),
    };
    vec![
        header("trace", Some(b"1")),
        header("null", None),
        header("trace", Some(b"2")),
        header("empty", Some(b"")),
        header("trace", None),
        header("", Some(b"no name")),
        header("bytes", Some(&[0, 0xff, b'\n'])),
        header("\u{1f4a1} name", Some(b"wide")),
    ]
}

pub fn json(world: &World, args: &[&str]) -> Value {
    let mut all = vec!["dlq"];
    all.extend(args);
    all.extend(["--output", "json"]);
    let value = world.run(&all).ok().json();
    match args[0] {
        "list" => reads_as::<Listing>(&value),
        "show" => reads_as::<ShownRecord>(&value),
        _ => reads_as::<RedriveReport>(&value),
    }
    value
}

/// What is printed is what the type, and so the schema, says: nothing more and nothing less.
fn reads_as<T: DeserializeOwned + Serialize>(value: &Value) {
    let read: T = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), *value);
}

fn at_input(world: &World) -> Vec<OwnedRecord> {
    world.all(&world.input())
}

fn dead_letters_go_round(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 2);
    world.publish("v1", "1").ok();
    world.deploy("1");
    let instance = world.start_ready("a");
    let good = events().remove(0);
    // What is kept must be kept for keys and values that are empty, null, and no text.
    let bad: [Keyed<'_>; 4] = [
        (0, Some(b"\xff\x00key"), Some(b"\x00\xffno event\r\n")),
        (1, None, Some(b"")),
        (1, Some(b""), None),
        (1, Some(b"k"), Some(b"{\"carrier\":\"AA\"}")),
    ];
    world.produce([(0, None, Some(&good[..]))]);
    world.produce_with_headers(bad.map(|(p, key, value)| (p, key, value, odd_headers())));
    let inputs: BTreeMap<(i32, i64), OwnedRecord> = at_input(&world)
        .into_iter()
        .map(|record| ((record.partition, record.offset), record))
        .collect();
    let dead = world.read(&world.dead_letters(), bad.len());
    assert_eq!(dead.len(), bad.len());
    for record in &dead {
        let place = |name: &str| {
            header(record, &format!("{ERRORS}{name}"))
                .unwrap()
                .to_owned()
        };
        let at = (place("partition").parse()?, place("offset").parse()?);
        let input = &inputs[&at];
        assert_eq!((&record.key, &record.value), (&input.key, &input.value));
        assert_eq!(record.timestamp, input.timestamp);
        assert_eq!(record.headers[..input.headers.len()], input.headers[..]);
        assert_eq!(input.headers, odd_headers());
    }

    let list = json(&world, &["list", "--limit", "3"]);
    assert_eq!(list["schema"], "swapstream.dlq-list/v1");
    assert_eq!(list["topic"], *world.dead_letters());
    assert_eq!(
        (&list["dead_letters"], &list["redriven"]),
        (&json!(4), &json!(0))
    );
    assert_eq!(list["records"].as_array().unwrap().len(), 3);
    let counts = list["counts"].as_array().unwrap();
    let classes: Vec<_> = counts
        .iter()
        .map(|one| one["class"].as_str().unwrap())
        .collect();
    assert_eq!(
        classes,
        ["empty", "invalid_utf8", "tombstone", "missing_feature"]
    );
    let features = json(&world, &["list", "--stage", "features", "--since", "1h"]);
    assert_eq!(features["dead_letters"], 1);
    assert_eq!(features["records"][0]["source"]["partition"], 1);
    assert_eq!(json(&world, &["list", "--until", "1h"])["dead_letters"], 0);
    let human = world.run(&["dlq", "list"]).ok().stdout;
    assert!(
        human.contains("missing_feature") && human.contains("pending"),
        "{human}"
    );

    shows_everything(&world, &dead);

    // First one class, then the others: none twice, none left out.
    let wanted = json(
        &world,
        &["redrive", "--class", "missing_feature", "--dry-run"],
    );
    assert_eq!(
        (&wanted["redriven"], &wanted["dry_run"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(at_input(&world).len(), 5, "a dry run sends nothing");
    instance.stop();
    let first = json(&world, &["redrive", "--class", "missing_feature"]);
    assert_eq!(
        (&first["redriven"], &first["dead_letters"]),
        (&json!(1), &json!(1))
    );
    let others = json(&world, &["redrive"]);
    assert_eq!(
        (&others["redriven"], &others["already_redriven"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(
        others["sent"],
        json!([{"topic": world.input(), "records": 3}])
    );
    let none = json(&world, &["redrive"]);
    assert_eq!(
        (&none["redriven"], &none["already_redriven"]),
        (&json!(0), &json!(4))
    );
    let sent: Vec<OwnedRecord> = at_input(&world)
        .into_iter()
        .filter(|record| !inputs.contains_key(&(record.partition, record.offset)))
        .collect();
    assert_eq!(sent.len(), bad.len());
    for (partition, key, value) in bad {
        let matching = |record: &&OwnedRecord| {
            (
                record.partition,
                record.key.as_deref(),
                record.value.as_deref(),
            ) == (partition, key, value)
        };
        let found: Vec<_> = sent.iter().filter(matching).collect();
        assert_eq!(found.len(), 1, "{key:?}: {sent:?}");
        let mut headers = odd_headers();
        headers.push(text(&format!("{ERRORS}attempt"), "1"));
        assert_eq!(found[0].headers, headers);
        let first = inputs.values().find(|input| matching(input)).unwrap();
        assert_eq!(found[0].timestamp, first.timestamp);
    }
    let list = json(&world, &["list", "--pending"]);
    assert_eq!(
        (&list["dead_letters"], &list["other_records"]),
        (&json!(0), &json!(0))
    );
    let list = json(&world, &["list"]);
    assert_eq!(
        (&list["dead_letters"], &list["redriven"]),
        (&json!(4), &json!(4))
    );

    // They fail again, and count on until it is enough.
    let instance = world.start_ready("a");
    for (attempt, redriven) in [("2", 4), ("3", 0)] {
        let wanted = json!(4 * attempt.parse::<u64>()?);
        eventually("they failed again", PATIENCE, || {
            match &json(&world, &["list"])["dead_letters"] {
                count if *count == wanted => Ok(()),
                count => Err(count.to_string()),
            }
        });
        let pending = json(&world, &["list", "--pending"]);
        assert_eq!(pending["dead_letters"], 4);
        for row in pending["records"].as_array().unwrap() {
            assert_eq!(row["attempt"].to_string(), attempt, "{row}");
        }
        let report = json(&world, &["redrive"]);
        assert_eq!(report["redriven"], redriven, "{report}");
        assert_eq!(report["max_attempts"], 4 - redriven, "{report}");
    }
    instance.stop();
    Ok(())
}

fn shows_everything(world: &World, dead: &[OwnedRecord]) {
    for record in dead {
        let place = format!("{}:{}", record.partition, record.offset);
        let raw = Command::new(bin())
            .arg("-c")
            .arg(world.config("cli"))
            .args(["dlq", "show", &place, "--raw"])
            .output()
            .unwrap();
        assert_eq!(raw.stdout, record.value.clone().unwrap_or_default());
        let shown = json(world, &["show", &place]);
        assert_eq!(shown["schema"], "swapstream.dlq-record/v1");
        assert_eq!(shown["value"].is_null(), record.value.is_none());
        assert_eq!(
            shown["headers"].as_array().unwrap().len(),
            record.headers.len()
        );
        assert_eq!(shown["headers"][6]["value"], json!({"hex": "00ff0a"}));
        assert_eq!(shown["headers"][1]["value"], Value::Null);
        assert_eq!(shown["dead_letter"]["attempt"], 1);
        let human = world.run(&["dlq", "show", &place]).ok().stdout;
        for part in [
            "null = null",
            "trace = 2",
            "bytes = \\x00\\xff\\n",
            "pending",
        ] {
            assert!(human.contains(part), "{part:?} in {human}");
        }
    }
    let none = world.run(&["dlq", "show", "0:99"]);
    assert_eq!(none.code, 1);
    assert!(
        none.stderr.contains("no record at offset 99"),
        "{}",
        none.stderr
    );
}

/// A dead letter as a worker writes it, of the input at `offset` of partition 0.
fn letter(world: &World, offset: usize, more: &[(&str, &str)]) -> Vec<Header> {
    let mut headers = vec![text("trace", "1")];
    let own = [
        ("topic", world.input()),
        ("partition", "0".to_owned()),
        ("offset", offset.to_string()),
        ("stage", "infer".to_owned()),
        ("class", "runtime_error".to_owned()),
        ("attempt", "1".to_owned()),
    ];
    headers.extend(own.map(|(name, value)| text(&format!("{ERRORS}{name}"), &value)));
    for (name, value) in more {
        let name = format!("{ERRORS}{name}");
        headers.retain(|header| header.key != name);
        headers.push(text(&name, value));
    }
    headers
}

fn start_redrive(world: &World) -> Process {
    let mut command = Command::new(bin());
    command.arg("-c").arg(world.config("cli"));
    Process::spawn(command.args(["dlq", "redrive", "--output", "json"]))
}

/// Rivals and deaths: at the end each was sent once.
fn each_is_redriven_once(broker: &'static Broker) -> TestResult {
    const COUNT: usize = 6_000;
    let world = World::new(broker, 2);
    let keys: Vec<String> = (0..COUNT).map(|number| format!("{number:05}")).collect();
    world.produce_to(
        &world.dead_letters(),
        keys.iter().enumerate().map(|(number, key)| {
            let headers = letter(&world, number, &[]);
            (
                (number % 2) as i32,
                Some(key.as_bytes()),
                Some(&b"event"[..]),
                headers,
            )
        }),
    );
    let start = || start_redrive(&world);
    let mut tail = world.tail(&world.input());
    // Killed after it has sent something, with something left.
    let mut killed = start();
    tail.until(1, PATIENCE);
    killed.kill9();
    tail.settle();
    let after_death = tail.records.len();
    assert!(after_death < COUNT, "it was done before it was killed");
    // A rival takes over in the middle; the first one ends by itself.
    let mut first = start();
    tail.until(after_death + 1, PATIENCE);
    let mut second = start();
    let first_ended = first.wait_exit(PATIENCE);
    let second_ended = second.wait_exit(PATIENCE);
    assert!(second_ended.success(), "{:?}", second.stderr_lines());
    let said = first.stderr_lines().join("\n");
    if !first_ended.success() {
        assert!(said.contains("has started and taken over"), "{said}");
    }
    eprintln!("sent before the death: {after_death}; the rival's victim: {first_ended}, {said}");
    tail.until(COUNT, PATIENCE);
    tail.settle();
    let mut sent: Vec<&[u8]> = tail
        .records
        .iter()
        .map(|r| r.key.as_deref().unwrap())
        .collect();
    // In the order of each dead-letter partition.
    for partition in 0..2 {
        let keys: Vec<usize> = sent
            .iter()
            .map(|key| str::from_utf8(key).unwrap().parse().unwrap())
            .filter(|number: &usize| number % 2 == partition)
            .collect();
        assert!(keys.is_sorted(), "partition {partition}");
    }
    sent.sort_unstable();
    let wanted: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    assert_eq!(sent.len(), COUNT);
    assert_eq!(sent, wanted, "each once");
    let list = json(&world, &["list"]);
    assert_eq!(
        (&list["dead_letters"], &list["redriven"]),
        (&json!(COUNT), &json!(COUNT))
    );
    Ok(())
}

/// A mark behind a transaction that is still open is seen by nobody: it is waited for.
fn what_an_open_transaction_hides(broker: &'static Broker) -> TestResult {
    const COUNT: usize = 10;
    let world = World::new(broker, 1);
    world.produce_to(
        &world.dead_letters(),
        (0..COUNT).map(|number| {
            let headers = letter(&world, number, &[]);
            (0, Some(&b"k"[..]), Some(&b"event"[..]), headers)
        }),
    );
    let mut found = Vec::new();
    for _ in 0..2 {
        let worker = world.open_transaction(&world.dead_letters());
        let mut redrive = start_redrive(&world);
        let waits = "an open transaction of another producer holds readers";
        redrive.wait_for_line(waits, PATIENCE);
        assert!(redrive.is_running());
        worker.abort()?;
        let ended = redrive.wait_exit(PATIENCE);
        assert!(ended.success(), "{:?}", redrive.stderr_lines());
        let report: RedriveReport = serde_json::from_str(&redrive.stdout_lines().join(""))?;
        found.push((report.redriven, report.already_redriven));
    }
    let count = COUNT as u64;
    assert_eq!(found, [(count, 0), (0, count)]);
    assert_eq!(at_input(&world).len(), COUNT);
    Ok(())
}

fn redrive_leaves_what_it_must(broker: &'static Broker) -> TestResult {
    let world = World::new(broker, 1);
    let other = format!("{}-other", world.name);
    world.create_topic(&other, 1, &[("max.message.bytes", "2000")]);
    let missing = format!("{}-missing", world.name);
    let large = vec![b'x'; 5_000];
    let letters: Vec<(&[u8], Vec<Header>)> = vec![
        (b"plain", letter(&world, 0, &[])),
        (b"cut", letter(&world, 1, &[("truncated", "true")])),
        (b"often", letter(&world, 2, &[("attempt", "3")])),
        (b"elsewhere", letter(&world, 3, &[("topic", &other)])),
        (&large, letter(&world, 4, &[("class", "too_large")])),
        (b"lost", letter(&world, 5, &[("topic", &missing)])),
        (b"foreign", vec![text("x", "1")]),
    ];
    let records = letters.iter();
    world.produce_to(
        &world.dead_letters(),
        records.map(|(value, headers)| (0, Some(&b"k"[..]), Some(*value), headers.clone())),
    );
    let counts = |report: &Value| {
        [
            "dead_letters",
            "redriven",
            "truncated",
            "max_attempts",
            "other_source",
            "too_large",
            "over_limit",
            "already_redriven",
        ]
        .map(|name| report[name].as_u64().unwrap())
    };
    let list = json(&world, &["list"]);
    assert_eq!(
        (&list["dead_letters"], &list["other_records"]),
        (&json!(6), &json!(1))
    );
    // Two come from topics that are no input of the stream.
    let dry = json(&world, &["redrive", "--dry-run"]);
    assert_eq!(counts(&dry), [6, 2, 1, 1, 2, 0, 0, 0]);
    let limited = json(&world, &["redrive", "--limit", "1"]);
    assert_eq!(counts(&limited), [6, 1, 1, 1, 2, 0, 1, 0]);
    let place = json(
        &world,
        &["redrive", "--record", "0:2", "--max-attempts", "4"],
    );
    assert_eq!(counts(&place), [1, 1, 0, 0, 0, 0, 0, 0]);
    // A topic that is named takes all that it has room for.
    let named = json(&world, &["redrive", "--to", &other, "--timestamps", "now"]);
    assert_eq!(counts(&named), [6, 2, 1, 0, 0, 1, 0, 2]);
    let sent: Vec<_> = world.tail_of(&other, 1).read_to_end();
    let values: Vec<_> = sent.iter().map(|r| r.value.as_deref().unwrap()).collect();
    assert_eq!(values, [&b"elsewhere"[..], b"lost"]);
    let input: Vec<_> = at_input(&world)
        .into_iter()
        .map(|r| r.value.unwrap())
        .collect();
    assert_eq!(input, [&b"plain"[..], b"often"]);
    // Without a stream any topic may be a source, and one that is missing is named.
    let more = [(&b"again"[..], letter(&world, 6, &[("topic", &missing)]))];
    world.produce_to(
        &world.dead_letters(),
        more.iter()
            .map(|(value, headers)| (0, None, Some(*value), headers.clone())),
    );
    let topic = world.dead_letters();
    let by_topic = ["dlq", "redrive", "--topic", &topic, "--since", "1h"];
    let mut command = Command::new(bin());
    let failed = command
        .args(by_topic)
        .env(
            "SWAPSTREAM__KAFKA__BOOTSTRAP_SERVERS",
            &world.kafka.bootstrap_servers,
        )
        .current_dir(world.path("."))
        .output()?;
    let said = String::from_utf8(failed.stderr)?;
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains(&missing) && said.contains("--to"), "{said}");
    // Wrong usage.
    for args in [
        vec!["dlq", "redrive", "--to", &topic],
        vec!["dlq", "redrive", "--max-attempts", "0"],
        vec!["dlq", "list", "--stage", "nowhere"],
        vec!["dlq", "list", "--stream", "nobody"],
        vec!["dlq", "show", "7"],
    ] {
        assert_eq!(world.run(&args).code, 2, "{args:?}");
    }
    let gone = world.run(&["dlq", "list", "--topic", &missing]);
    assert!(
        gone.code == 1 && gone.stderr.contains("does not exist"),
        "{}",
        gone.stderr
    );
    Ok(())
}
