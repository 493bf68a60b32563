//! What the demo plays on: the embedded broker or a real one, the topics, the configuration, and
//! the two versions in the registry.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::flights::{FIRST, SECOND};
use super::{DemoError, DemoOptions};
use crate::config::{Config, Streams};
use crate::kafka::{Admin, EmbeddedBroker, KafkaSettings};
use crate::model::{Manifest, ModelName};
use crate::registry::{
    Attribution, Bundle, KafkaLogs, RegistryError, RegistryTopic, append_event, deploy_event,
    publish, read_catalog, rfc3339,
};

/// Partitions of the input, output and dead-letter topics.
pub(super) const PARTITIONS: i32 = 4;
/// How long a real broker may take to answer for the first time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request to it may take then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Client properties for the embedded broker: it lets a fetch that finds nothing wait for its full
/// time, and a rebalance for almost a session time-out.
const EMBEDDED_CLIENT: &str = r#"[kafka.client]
"fetch.wait.max.ms" = "2"
"session.timeout.ms" = "3000"
"heartbeat.interval.ms" = "300"
"#;
/// The stream's name.
const STREAM: &str = "flights";

/// Names of the topics that the demo itself writes to or reads.
#[derive(Debug, Clone)]
pub(super) struct StreamTopics {
    pub(super) input: String,
    pub(super) output: String,
    pub(super) dead_letters: String,
    /// The registry's log of deployment events.
    pub(super) deployments: String,
}

/// Broker, topics, configuration and models.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) config: Config,
    pub(super) topics: StreamTopics,
    /// The version that serves first.
    pub(super) first: Manifest,
    /// The version that takes over.
    pub(super) second: Manifest,
    /// What the summary calls the broker.
    pub(super) broker: String,
    group_id: String,
    /// Held for as long as the demo runs.
    embedded: Option<EmbeddedBroker>,
}

impl Stage {
    /// Starts the embedded broker with its topics; on a given one they are still to be created.
    pub(super) fn build(options: &DemoOptions) -> Result<Self, DemoError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let short = id.get(..8).unwrap_or(&id);
        // On an embedded broker there is nobody to keep apart from.
        let prefix = match &options.bootstrap_servers {
            None => String::new(),
            Some(_) => format!("swapstream-demo-{short}-"),
        };
        let topics = StreamTopics {
            input: format!("{prefix}flights"),
            output: format!("{prefix}flights-predictions"),
            dead_letters: format!("{prefix}flights-dlq"),
            deployments: format!("{prefix}model-deployments"),
        };
        let (mut first, mut second) = (FIRST.manifest()?, SECOND.manifest()?);
        if options.bootstrap_servers.is_some() {
            // A publication's transactional id holds the model's name, and is the cluster's.
            let model = ModelName::new(&format!("{}-{short}", first.model))
                .map_err(|error| DemoError::Sample(error.to_string()))?;
            first.model = model.clone();
            second.model = model;
        }
        let group_id = format!("swapstream-demo-{short}");
        let text = |address: &str| {
            config_text(address, &prefix, &group_id, &topics, &first.model, options)
        };
        let (mut config, embedded) = if let Some(address) = &options.bootstrap_servers {
            (parse(&text(address), options)?, None)
        } else {
            // The broker wants the names first and gives its address then.
            let draft = parse(&text("localhost:1"), options)?;
            let broker = EmbeddedBroker::start(&all_topics(&draft, &topics))?;
            (
                parse(&text(broker.bootstrap_servers()), options)?,
                Some(broker),
            )
        };
        if let Some(listen) = options.http {
            config.http.listen = listen;
        }
        config.registry.check_topics = embedded.is_none();
        let broker = options
            .bootstrap_servers
            .clone()
            .unwrap_or_else(|| "embedded".to_owned());
        Ok(Self {
            config,
            topics,
            first,
            second,
            broker,
            group_id,
            embedded,
        })
    }

    /// Whether the broker is the stand-in inside this process.
    pub(super) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// How to reach Kafka.
    pub(super) fn kafka(&self) -> &KafkaSettings {
        &self.config.kafka
    }

    /// Whether anybody is there: says it sooner and more clearly than creating topics would.
    pub(super) fn look_up_broker(&self) -> Result<(), DemoError> {
        let asked = Admin::new(self.kafka())?.partitions(&self.topics.input, CONNECT_TIMEOUT);
        asked.map(drop).map_err(|cause| DemoError::NoBroker {
            address: self.kafka().bootstrap_servers.clone(),
            cause,
        })
    }

    /// Creates the stream's topics on a real broker; `publish` creates the registry's.
    pub(super) fn create_topics(&self) -> Result<(), DemoError> {
        if self.is_embedded() {
            return Ok(());
        }
        let admin = Admin::new(self.kafka())?;
        let StreamTopics {
            input,
            output,
            dead_letters,
            ..
        } = &self.topics;
        for topic in [input, output, dead_letters] {
            admin.create_topic(topic, PARTITIONS, &[], REQUEST_TIMEOUT)?;
        }
        Ok(())
    }

    /// Publishes both versions, as `model publish` does.
    pub(super) fn publish(&self) -> Result<(), DemoError> {
        for (files, manifest) in [(&FIRST, &self.first), (&SECOND, &self.second)] {
            let bundle = Bundle::new(manifest, Some(files.onnx.to_vec()), None)
                .map_err(RegistryError::from)?;
            publish(self.kafka(), &self.config.registry, &bundle, &mut |_| {})?;
        }
        Ok(())
    }

    /// Deploys a version, as `model deploy` does. Gives the revision.
    pub(super) fn deploy(&self, manifest: &Manifest, reason: &str) -> Result<i64, DemoError> {
        let registry = &self.config.registry;
        let catalog = read_catalog(&KafkaLogs::new(self.kafka().clone(), registry.clone()))?;
        let who = Attribution {
            by: Some("swapstream demo".to_owned()),
            reason: Some(reason.to_owned()),
            at: rfc3339(SystemTime::now()),
        };
        let event = deploy_event(&catalog, &manifest.model, &manifest.version, None, who)?;
        Ok(append_event(self.kafka(), registry, event)?.revision)
    }

    /// Every topic of the demo.
    pub(super) fn topic_names(&self) -> Vec<String> {
        all_topics(&self.config, &self.topics)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    /// Deletes what the demo created on a real broker.
    pub(super) fn clean_up(&self) -> Result<(), DemoError> {
        let names = self.topic_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let admin = Admin::new(self.kafka())?;
        admin.delete_topics(&names, REQUEST_TIMEOUT)?;
        // Its offsets went with the topics, so a group that stays for a while does no harm.
        if let Err(error) = admin.delete_group(&self.group_id, REQUEST_TIMEOUT) {
            tracing::debug!("{error}");
        }
        Ok(())
    }
}

fn all_topics(config: &Config, topics: &StreamTopics) -> Vec<(String, i32)> {
    let StreamTopics {
        input,
        output,
        dead_letters,
        ..
    } = topics;
    let stream = [input, output, dead_letters].map(|name| (name.clone(), PARTITIONS));
    let registry = RegistryTopic::ALL.map(|topic| (topic.name(&config.registry).to_owned(), 1));
    stream.into_iter().chain(registry).collect()
}

fn parse(text: &str, options: &DemoOptions) -> Result<Config, DemoError> {
    let env = options.client_environment.iter().cloned();
    Config::parse(Some((Path::new("demo.toml"), text)), env, Streams::Required)
        .map_err(|errors| DemoError::Configuration(errors.to_string()))
}

/// The configuration, as a file of a user's would have it.
fn config_text(
    address: &str,
    prefix: &str,
    group_id: &str,
    topics: &StreamTopics,
    model: &ModelName,
    options: &DemoOptions,
) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let StreamTopics {
        input,
        output,
        dead_letters,
        deployments,
    } = topics;
    let client = match options.bootstrap_servers {
        None => EMBEDDED_CLIENT,
        Some(_) => "",
    };
    format!(
        r#"shutdown_timeout = "20s"
[kafka]
bootstrap_servers = {address}
{client}[registry]
versions_topic = "{prefix}model-versions"
artifacts_topic = "{prefix}model-artifacts"
deployments_topic = {deployments}
status_topic = "{prefix}model-status"
[streams.{STREAM}]
group_id = "{group_id}"
input_topics = [{input}]
output_topic = {output}
dead_letter_topic = {dead_letters}
model = {model}
include = ["flight_id"]
"#,
        address = quoted(address),
        input = quoted(input),
        output = quoted(output),
        dead_letters = quoted(dead_letters),
        deployments = quoted(deployments),
        model = quoted(model.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid() {
        let options = DemoOptions {
            bootstrap_servers: Some("a:1".into()),
            ..Default::default()
        };
        let topics = StreamTopics {
            input: "p-in".into(),
            output: "p-out".into(),
            dead_letters: "p-dlq".into(),
            deployments: "p-model-deployments".into(),
        };
        let model = ModelName::new("late-arrival").unwrap();
        let text = config_text("a:1", "p-", "group", &topics, &model, &options);
        let config = parse(&text, &options).unwrap();
        assert_eq!(config.registry.status_topic, "p-model-status");
        assert_eq!(config.streams[0].group_id, "group");
        let names: Vec<_> = all_topics(&config, &topics)
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(names.len(), 7);
        assert!(names.iter().all(|name| name.starts_with("p-")));
    }
}
