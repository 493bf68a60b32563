//! The configuration as an operator meets it: every kind of mistake with its place, overrides,
//! masked secrets, the example and the documentation.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use swapstream::codec::Stage;
use swapstream::config::{self, Config, ConfigSource, KEYS, Presence, Streams};
use swapstream::kafka::RESERVED_PROPERTIES;
use swapstream::stream::{ErrorPolicy, StartFrom};
use swapstream::telemetry::LogFormat;

const GOOD: &str = r#"
[kafka]
bootstrap_servers = "localhost:9092"
[streams.flights]
input_topics = ["flights"]
output_topic = "flights-predictions"
dead_letter_topic = "flights-dlq"
model = "late-arrival"
"#;

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Config::parse(Some((Path::new("s.toml"), text)), env, Streams::Required)
        .map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

fn parse(text: &str) -> Result<Config, Vec<String>> {
    parse_with(text, &[])
}

/// Parses the good configuration with `line` added to its stream.
fn stream_line(line: &str) -> Result<Config, Vec<String>> {
    parse(&format!("{GOOD}{line}\n"))
}

/// The one mistake that `line` in the stream is.
#[track_caller]
fn stream_error(line: &str) -> String {
    let errors = stream_line(line).err().unwrap_or_default();
    assert_eq!(errors.len(), 1, "{line}: {errors:#?}");
    errors.concat()
}

#[test]
fn what_is_not_set_has_its_default() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(config.kafka.memory, 128 << 20);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(
        config.registry,
        swapstream::registry::RegistrySettings::default()
    );
    let stream = &config.streams[0];
    assert_eq!(
        (stream.name.as_str(), stream.group_id.as_str()),
        ("flights", "swapstream-flights")
    );
    assert_eq!((stream.workers, stream.max_batch_size), (None, 1024));
    assert_eq!(stream.max_queue_delay, Duration::ZERO);
    assert_eq!(stream.commit_interval, Duration::from_secs(1));
    assert_eq!(stream.policy(Stage::Infer), ErrorPolicy::DeadLetter);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let text = r#"instance_id = "a/b"
[kafka]
bootstrap_server = "localhost:9092"
[kafka.client]
"group.id" = "x"
[streams.flights]
input_topics = ["flights", "flights"]
output_topic = "flights"
model = 7
workers = 0
commit_interval = "5 parsecs"
[http]
listen = "localhost"
[limits]
kafka_memory = "1KiB"
[metrics]
"#;
    let env = [
        ("SWAPSTREAM__LOG__FORMAT", "xml"),
        ("SWAPSTREAM__LOG__LEVEL", "inof"),
    ];
    let errors = parse_with(text, &env).unwrap_err();
    let expected = [
        "s.toml:1:15: instance_id: \"a/b\" is not a valid name",
        "s.toml:2:2: kafka.bootstrap_servers: is missing",
        "s.toml:3:1: kafka.bootstrap_server: unknown key; did you mean \"bootstrap_servers\"?",
        "s.toml:5:1: kafka.client.group.id: may not be set: set streams.<name>.group_id",
        "s.toml:6:10: streams.flights.dead_letter_topic: is missing",
        "s.toml:7:28: streams.flights.input_topics: \"flights\" is listed twice",
        "s.toml:8:16: streams.flights.output_topic: \"flights\" is an input topic of this stream",
        "s.toml:9:9: streams.flights.model: expected a string, found the integer 7",
        "s.toml:10:11: streams.flights.workers: must be 1 to 1024, found 0",
        "s.toml:11:19: streams.flights.commit_interval: expected a duration with a unit",
        "s.toml:13:10: http.listen: \"localhost\" is not allowed: expected an IP address and a port",
        "s.toml:15:16: limits.kafka_memory: must be 16MiB to 64GiB, found \"1KiB\"",
        "s.toml:16:2: metrics: unknown key; allowed here are instance_id,",
        "SWAPSTREAM__LOG__FORMAT: log.format: \"xml\" is not allowed: expected \"text\" or \"json\"",
        "SWAPSTREAM__LOG__LEVEL: log.level: \"inof\" is no log level",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(
            error.starts_with(expected),
            "{error}\nshould start with\n{expected}"
        );
    }
}

#[test]
fn syntax_errors_have_their_line() {
    let errors = parse("[kafka]\nbootstrap_servers = \n[kafka\n").unwrap_err();
    assert!(errors[0].starts_with("s.toml:2:"), "{errors:?}");
    assert!(
        errors.iter().any(|e| e.starts_with("s.toml:3:")),
        "{errors:?}"
    );
    let errors = parse("[kafka]\na = 1\na = 2\n").unwrap_err();
    assert!(
        errors[0].starts_with("s.toml:3:1: this is no TOML: duplicate key"),
        "{errors:?}"
    );
}

#[test]
fn columns_count_characters() {
    let errors = parse_with("[log]\nlevel = 'ä'; x\n", &[]).unwrap_err();
    assert!(errors[0].starts_with("s.toml:2:12"), "{errors:?}");
}

#[test]
fn keys_are_suggested_where_they_belong() {
    let cases = [
        ("worker = 1", "did you mean \"workers\"?"),
        ("max_batchsize = 1", "did you mean \"max_batch_size\"?"),
        ("Include = []", "did you mean \"include\"?"),
        ("listen = \"x\"", "listen belongs to [http]"),
        (
            "shutdown_timeout = \"1s\"",
            "shutdown_timeout belongs to the top of the file",
        ),
        (
            "on_error = { decod = \"skip\" }",
            "did you mean \"decode\"?",
        ),
    ];
    for (line, expected) in cases {
        let error = stream_error(line);
        assert!(
            error.starts_with("s.toml:9:") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn values_out_of_range_or_of_another_type_say_what_is_allowed() {
    let cases = [
        ("max_batch_size = 0", "must be 1 to 65536, found 0"),
        ("max_batch_size = 65537", "must be 1 to 65536"),
        ("max_batch_size = -1", "found -1"),
        (
            "max_batch_size = 1.5",
            "expected an integer, found a number with a fraction",
        ),
        (
            "max_batch_size = \"many\"",
            "expected an integer, found the string \"many\"",
        ),
        (
            "workers = 99999999999999999999999999999999999999999",
            "must be 1 to 1024",
        ),
        (
            "commit_interval = \"49ms\"",
            "must be 50ms to 10m, found \"49ms\"",
        ),
        ("commit_interval = 1", "such as \"100ms\""),
        ("commit_interval = \"1\"", "expected a duration with a unit"),
        (
            "max_queue_delay = \"-1s\"",
            "expected a duration with a unit",
        ),
        (
            "processing_guarantee = \"maybe\"",
            "expected \"at_least_once\" or \"exactly_once\"",
        ),
        (
            "static_membership = \"yes\"",
            "expected true or false, found the string \"yes\"",
        ),
        ("static_membership = true", "needs instance_id"),
        (
            "group_protocol = \"eager\"",
            "expected \"classic\" or \"consumer\"",
        ),
        ("start_from = \"yesterday\"", "a time in UTC"),
        (
            "on_data_loss = \"ignore\"",
            "expected \"fail\" or \"earliest\" or \"latest\"",
        ),
        (
            "non_finite_outputs = \"zero\"",
            "expected \"reject\" or \"null\"",
        ),
        (
            "on_error = { infer = \"drop\" }",
            "expected \"dead_letter\" or \"skip\" or \"fail\"",
        ),
        (
            "on_error = \"skip\"",
            "expected a section of keys, found the string",
        ),
        ("include = \"a\"", "expected a list of strings"),
        ("include = [1]", "expected a string, found the integer 1"),
        ("include = [\"\"]", "must not be empty"),
        ("group_id = \" \"", "must not be empty"),
    ];
    for (line, expected) in cases {
        let error = stream_error(line);
        assert!(
            error.starts_with("s.toml:9:") && error.contains(expected),
            "{line}: {error}"
        );
    }
}

#[test]
fn exactly_once_has_its_own_rules() {
    let guarantee = "processing_guarantee = \"exactly_once\"";
    let config = stream_line(guarantee).unwrap();
    let interval = |config: &Config| config.streams[0].commit_interval;
    assert_eq!(interval(&config), Duration::from_millis(100));
    let config = stream_line(&format!("{guarantee}\ncommit_interval = \"2s\"")).unwrap();
    assert_eq!(interval(&config), Duration::from_secs(2));
    let error = stream_error(&format!("{guarantee}\nmax_batch_time = \"10s\""));
    assert!(
        error.contains("must stay below transaction.timeout.ms, which is 10s"),
        "{error}"
    );
    let client = |lines: &str| {
        let text = GOOD.replace("[streams", &format!("[kafka.client]\n{lines}\n[streams"));
        parse(&(text + guarantee)).unwrap_err()
    };
    let errors = client("\"linger.ms\" = 5\n\"queue.buffering.max.ms\" = 6");
    assert!(
        errors[0].contains("is another name of \"linger.ms\""),
        "{errors:?}"
    );
    let errors = client("\"request.required.acks\" = 1");
    assert!(errors[0].contains("every replica in sync"), "{errors:?}");
    let errors = client("\"transaction.timeout.ms\" = 600000");
    assert!(
        errors[0].contains("must stay below max.poll.interval.ms"),
        "{errors:?}"
    );
    let errors = client("\"transaction.timeout.ms\" = \"soon\"");
    assert!(
        errors[0].contains("expected a number of milliseconds"),
        "{errors:?}"
    );
    let consumer = GOOD.replace(
        "[streams",
        "[kafka.client]\n\"session.timeout.ms\" = 6000\n[streams",
    );
    let errors = parse(&(consumer + "group_protocol = \"consumer\"")).unwrap_err();
    assert!(errors[0].contains("the broker sets it"), "{errors:?}");
    // Two streams with transactions in one group would share their ids.
    let second = "\n[streams.second]\ngroup_id = \"swapstream-flights\"\ninput_topics = [\"x\"]\n\
                  output_topic = \"y\"\ndead_letter_topic = \"z\"\nmodel = \"m\"\n";
    let errors = parse(&format!("{GOOD}{guarantee}{second}{guarantee}")).unwrap_err();
    assert!(
        errors[0].contains("give each stream its own group_id"),
        "{errors:?}"
    );
}

#[test]
fn rules_between_keys_hold() {
    let error = stream_error("commit_interval = \"5m\"");
    assert!(
        error.contains("are 5m 1s together and must stay below max.poll.interval.ms"),
        "{error}"
    );
    assert!(
        error.starts_with("s.toml:9:19: streams.flights.commit_interval"),
        "{error}"
    );
    let short_poll = GOOD.replace(
        "[streams",
        "[kafka.client]\n\"max.poll.interval.ms\" = 2000\n[streams",
    );
    let errors = parse(&short_poll).unwrap_err();
    assert!(
        errors[0].contains("2s together") && errors[0].contains("which is 2s"),
        "{errors:?}"
    );
    for (from, to, expected) in [
        (
            "\"flights-dlq\"",
            "\"flights\"",
            "is an input topic of this stream",
        ),
        (
            "\"flights-dlq\"",
            "\"flights-predictions\"",
            "is the output topic of this stream",
        ),
        (
            "\"flights-dlq\"",
            "\"model-status\"",
            "is a topic of the registry",
        ),
        (
            "[\"flights\"]",
            "[\"model-versions\"]",
            "is registry.versions_topic",
        ),
        ("[\"flights\"]", "[]", "must name at least one topic"),
        ("[\"flights\"]", "[\"a b\"]", "is no topic name"),
        ("late-arrival", "late/arrival", "is not a valid name"),
        ("localhost:9092", "localhost:http", "is no broker"),
        ("localhost:9092", "", "is no broker"),
    ] {
        let errors = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains(expected), "{errors:?}");
    }
    let errors = stream_line("[registry]\nstatus_topic = \"model-versions\"").unwrap_err();
    assert!(
        errors[0].contains("is versions_topic already"),
        "{errors:?}"
    );
}

#[test]
fn streams_do_not_share_a_group_on_one_topic() {
    let second = |group: &str, input: &str| {
        format!(
            "{GOOD}[streams.other]\ngroup_id = \"{group}\"\ninput_topics = [\"{input}\"]\n\
             output_topic = \"o\"\ndead_letter_topic = \"d\"\nmodel = \"m\"\n"
        )
    };
    let errors = parse(&second("swapstream-flights", "flights")).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("s.toml:10:12: streams.other.group_id: stream \"flights\""));
    assert!(parse(&second("own", "flights")).is_ok());
    assert!(parse(&second("swapstream-flights", "others")).is_ok());
}

#[test]
fn every_reserved_property_is_refused_with_its_reason() {
    for (property, reason) in RESERVED_PROPERTIES {
        let text = GOOD.replace(
            "[streams",
            &format!("[kafka.client]\n\"{property}\" = 1\n[streams"),
        );
        let errors = parse(&text).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0].contains(reason) && errors[0].contains(property),
            "{errors:?}"
        );
    }
}

#[test]
fn variables_override_the_file() {
    let env = [
        ("SWAPSTREAM__INSTANCE_ID", "i-1"),
        ("SWAPSTREAM__KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2"),
        ("SWAPSTREAM__KAFKA__CLIENT__SECURITY_PROTOCOL", "SSL"),
        ("SWAPSTREAM__KAFKA__CLIENT__LOG_LEVEL", "7"),
        ("SWAPSTREAM__STREAMS__FLIGHTS__WORKERS", "3"),
        ("SWAPSTREAM__STREAMS__FLIGHTS__INPUT_TOPICS", "a, b"),
        ("SWAPSTREAM__STREAMS__FLIGHTS__ON_ERROR__DECODE", "skip"),
        (
            "SWAPSTREAM__STREAMS__FLIGHTS__START_FROM",
            "2026-01-31T08:00:00Z",
        ),
        ("SWAPSTREAM__LOG__FORMAT", "json"),
        ("SWAPSTREAM_TEST_KAFKA", "not ours"),
        ("PATH", "/bin"),
    ];
    let config = parse_with(GOOD, &env).unwrap();
    assert_eq!(config.instance_id.as_deref(), Some("i-1"));
    assert_eq!(config.kafka.bootstrap_servers, "a:1,b:2");
    assert_eq!(config.kafka.client["security.protocol"], "SSL");
    assert_eq!(config.kafka.client["log_level"], "7");
    let stream = &config.streams[0];
    assert_eq!((stream.workers, stream.input_topics.len()), (Some(3), 2));
    assert_eq!(stream.policy(Stage::Decode), ErrorPolicy::Skip);
    assert!(matches!(stream.start_from, StartFrom::Time(_)));
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn a_stream_is_found_by_the_name_that_a_variable_can_spell() {
    let text = GOOD.replace("streams.flights", "streams.Late-Flights");
    let env = [("SWAPSTREAM__STREAMS__LATE_FLIGHTS__WORKERS", "3")];
    let config = parse_with(&text, &env).unwrap();
    assert_eq!(config.streams.len(), 1);
    assert_eq!(config.streams[0].workers, Some(3));
}

#[test]
fn the_environment_alone_is_enough() {
    let variable = |name: &str, value: &str| (format!("SWAPSTREAM__{name}"), value.to_owned());
    let kafka = [variable("KAFKA__BOOTSTRAP_SERVERS", "localhost:9092")];
    assert!(Config::parse(None, kafka.clone(), Streams::Optional).is_ok());
    let error = Config::parse(None, kafka.clone(), Streams::Required).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("environment: streams: no stream is configured"),
        "{error}"
    );
    let stream = [
        variable("STREAMS__S__INPUT_TOPICS", "a"),
        variable("STREAMS__S__OUTPUT_TOPIC", "b"),
        variable("STREAMS__S__DEAD_LETTER_TOPIC", "c"),
        variable("STREAMS__S__MODEL", "m"),
    ];
    let both = kafka.into_iter().chain(stream);
    assert_eq!(
        Config::parse(None, both, Streams::Required)
            .unwrap()
            .streams
            .len(),
        1
    );
}

#[test]
fn mistakes_in_variables_name_the_variable() {
    let cases = [
        (
            "SWAPSTREAM__STREAMS__FLIGHTS__WORKERS",
            "two",
            "expected an integer, found \"two\"",
        ),
        (
            "SWAPSTREAM__STREAMS__FLIGHTS__WORKER",
            "2",
            "did you mean \"workers\"?",
        ),
        (
            "SWAPSTREAM__KAFKA",
            "x",
            "expected a section of keys, found \"x\"",
        ),
        (
            "SWAPSTREAM__",
            "x",
            "expected a name such as SWAPSTREAM__SECTION__KEY",
        ),
        ("SWAPSTREAM__HTTP____LISTEN", "x", "expected a name such as"),
        (
            "SWAPSTREAM__KAFKA__BOOTSTRAP_SERVERS__X",
            "x",
            "is set by s.toml:3:21 and has no keys",
        ),
        ("SWAPSTREAM__KAFKA__CLIENT__GROUP_ID", "x", "may not be set"),
    ];
    for (name, value, expected) in cases {
        let errors = parse_with(GOOD, &[(name, value)]).unwrap_err();
        let about = errors
            .iter()
            .find(|error| error.starts_with(&format!("{name}: ")));
        assert!(
            about.is_some_and(|error| error.contains(expected)),
            "{errors:#?}"
        );
    }
}

#[test]
fn secrets_come_from_files_and_are_masked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "hunter2\n").unwrap();
    let file = path.to_str().unwrap();
    let text = format!(
        "{GOOD}[kafka.client]\nsasl.username = \"me\"\n\"sasl.password\" = \"hunter2\"\n\
         \"plugin.x\" = {{ file = {file:?} }}\n\"ssl.keystore.password\" = \"hunter2\"\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.kafka.client["plugin.x"], "hunter2");
    assert_eq!(config.kafka.client["sasl.username"], "me");
    for shown in [
        config.render(),
        format!("{config:?}"),
        format!("{config:#?}"),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.contains("\"sasl.password\" = \"***\"") && shown.contains("\"me\""),
            "{shown}"
        );
    }
    let env = [("SWAPSTREAM__KAFKA__CLIENT__SASL_PASSWORD__FILE", file)];
    let config = parse_with(&text.replace("\"hunter2\"", "\"other\""), &env).unwrap();
    assert_eq!(config.kafka.client["sasl.password"], "hunter2");
    let missing = [(
        "SWAPSTREAM__KAFKA__CLIENT__SASL_PASSWORD__FILE",
        "/nowhere/secret",
    )];
    let errors = parse_with(GOOD, &missing).unwrap_err();
    assert!(
        errors[0].contains("cannot read the file \"/nowhere/secret\""),
        "{errors:?}"
    );
    std::fs::write(&path, "\n").unwrap();
    assert!(parse(&text).unwrap_err()[0].contains("is empty"));
}

#[test]
fn a_wrong_secret_is_not_repeated() {
    let errors = stream_line("[kafka.client]\n\"sasl.password\" = [\"hunter2\"]").unwrap_err();
    assert!(
        errors[0].starts_with("s.toml:10:19") && !errors[0].contains("hunter2"),
        "{errors:?}"
    );
}

#[test]
fn the_effective_configuration_reads_as_itself() {
    let rich = format!(
        "instance_id = \"i\"\n{GOOD}workers = 2\ninclude = [\"a\\\"b\"]\nstart_from = 2026-01-31T08:00:00Z\n\
         on_error = {{ infer = \"fail\", decode = \"skip\" }}\nnon_finite_outputs = \"null\"\n\
         [streams.\"a.b\"]\ninput_topics = [\"x\"]\noutput_topic = \"y\"\n\
         dead_letter_topic = \"z\"\nmodel = \"m\"\ncommit_interval = \"90s\"\n"
    );
    for text in [GOOD, &rich] {
        let config = parse(text).unwrap();
        let rendered = config.render();
        let again = parse(&rendered).unwrap_or_else(|errors| panic!("{rendered}\n{errors:#?}"));
        assert_eq!(again.render(), rendered);
    }
}

#[test]
fn the_example_is_valid_and_its_defaults_are_the_defaults() {
    let example = config::example();
    let plain = parse(&example).unwrap_or_else(|errors| panic!("{errors:#?}\n{example}"));
    // The same with every default written out.
    let defaults: BTreeSet<&str> = KEYS
        .iter()
        .filter(|doc| doc.presence == Presence::Default)
        .map(|doc| doc.key)
        .collect();
    let uncomment = |line: &str| {
        let written = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split_once(" = ").map(|(key, _)| key);
            key.is_some_and(|key| defaults.contains(key))
        });
        format!("{}\n", written.unwrap_or(line))
    };
    let written: String = example.lines().map(uncomment).collect();
    assert_eq!(
        written.matches("\n# ").count() + defaults.len(),
        example.matches("\n# ").count()
    );
    assert_eq!(parse(&written).unwrap().render(), plain.render());
    for doc in KEYS {
        assert!(example.contains(&format!("{} = ", doc.key)), "{}", doc.key);
    }
}

#[test]
fn files_are_found_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.toml");
    let error = Config::load(Some(&path), []).unwrap_err().to_string();
    assert!(error.contains("other.toml: cannot be read: "), "{error}");
    std::fs::write(&path, GOOD).unwrap();
    let (_, source) = Config::load(Some(&path), []).unwrap();
    assert_eq!(source, ConfigSource::File(path));
    // Tests run in the package's directory, which has no swapstream.toml.
    let env = [(
        "SWAPSTREAM__KAFKA__BOOTSTRAP_SERVERS".to_owned(),
        "a:1".to_owned(),
    )];
    let (_, source) = Config::load_for_model_commands(None, env).unwrap();
    assert_eq!(source, ConfigSource::Environment);
}

/// Compares the generated part of a document; `SWAPSTREAM_BLESS=1` rewrites it.
#[test]
fn the_documentation_lists_the_keys_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- keys: generated -->\n", "<!-- keys: end -->");
    let (head, rest) = text.split_once(begin).unwrap();
    let (listed, tail) = rest.split_once(end).unwrap();
    let generated = format!("\n{}\n", config::markdown());
    if std::env::var_os("SWAPSTREAM_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{begin}{generated}{end}{tail}")).unwrap();
    } else {
        assert_eq!(
            listed, generated,
            "SWAPSTREAM_BLESS=1 cargo test --test config rewrites it"
        );
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "[\\[\\]a-z.=\" \n{}0-9_#]{0,200}") {
        // Whatever it says: it says so without a panic.
        drop(parse(&text));
        drop(parse(&format!("{GOOD}{text}")));
    }

    #[test]
    fn no_variable_breaks_the_reader(name in "[A-Z_]{0,30}", value in "\\PC{0,40}") {
        let name = format!("SWAPSTREAM__{name}");
        drop(parse_with(GOOD, &[(name.as_str(), value.as_str())]));
    }

    #[test]
    fn durations_read_as_they_are_written(milliseconds in 50_u64..200_000) {
        let text = config::duration(Duration::from_millis(milliseconds));
        let config = stream_line(&format!("commit_interval = \"{text}\"")).unwrap();
        let read = config.streams[0].commit_interval;
        prop_assert_eq!(read, Duration::from_millis(milliseconds));
    }
}
