//! One entry of the deployment log: its JSON form, and how it is read without trusting it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Digest, ModelName, Version};

/// Value of `schema` in a deployment event.
pub const DEPLOYMENT_SCHEMA: &str = "swapstream.deployment/v1";

/// What an event does to its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A version is to serve.
    Deploy,
    /// A version that served before is to serve again.
    Rollback,
    /// Nothing is to serve.
    Undeploy,
}

impl Action {
    /// The action's name in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Undeploy => "undeploy",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Deploy, Self::Rollback, Self::Undeploy]
            .into_iter()
            .find(|action| action.as_str() == text)
    }
}

/// One entry of the deployment log. Unknown fields are ignored, so that older instances read
/// newer events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentEvent {
    /// Always `swapstream.deployment/v1`.
    pub schema: String,
    /// What it does.
    pub action: Action,
    /// The model; also the record's key.
    pub model: ModelName,
    /// The version that is to serve; none in an `undeploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Digest of that version; one that differs from the manifest's is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The event is void unless this is the revision of the model's last effective event (−1:
    /// there is none). Always there in a `rollback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<i64>,
    /// When it was written, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a record is no event that this build can follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No build can follow it.
    #[error("unreadable deployment event: {0}")]
    Unreadable(String),
    /// A schema of a later build.
    #[error("deployment event has schema {0:?}, this build reads {DEPLOYMENT_SCHEMA:?}")]
    UnknownSchema(String),
    /// An action of a later build.
    #[error("deployment event has action {0:?}, which this build does not know")]
    UnknownAction(String),
}

impl DeploymentEvent {
    /// Reads the value of a record whose key names `key`.
    pub fn parse(key: &ModelName, value: Option<&[u8]>) -> Result<Self, EventError> {
        let unreadable = |text: String| EventError::Unreadable(text);
        let bytes = value.ok_or_else(|| unreadable("it has no value".to_owned()))?;
        let json: Value =
            serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        let text = |field: &str| {
            json.get(field)
                .and_then(Value::as_str)
                .map(|text| text.chars().take(200).collect::<String>())
                .ok_or_else(|| unreadable(format!("field {field:?} is missing or no text")))
        };
        let schema = text("schema")?;
        if schema != DEPLOYMENT_SCHEMA {
            return Err(EventError::UnknownSchema(schema));
        }
        let action = text("action")?;
        if Action::parse(&action).is_none() {
            return Err(EventError::UnknownAction(action));
        }
        let event: Self =
            serde_json::from_value(json).map_err(|error| unreadable(error.to_string()))?;
        if event.model != *key {
            return Err(unreadable(format!(
                "its key names model {key}, its value model {}",
                event.model
            )));
        }
        if event.action != Action::Undeploy && event.version.is_none() {
            let action = event.action.as_str();
            return Err(unreadable(format!("a {action} needs a version")));
        }
        Ok(event)
    }

    /// The value of its record.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DeploymentEvent, EventError> {
        DeploymentEvent::parse(&ModelName::new("fraud").unwrap(), Some(text.as_bytes()))
    }

    #[test]
    fn the_event_of_the_design_reads_and_keeps_its_form() {
        let digest = Digest::of(b"x");
        let text = format!(
            r#"{{"schema":"swapstream.deployment/v1","action":"deploy","model":"fraud","version":"7","digest":"{digest}","if_revision":41,"at":"2026-01-01T00:00:00Z","by":"ann","reason":"better"}}"#
        );
        let event = parse(&text).unwrap();
        assert_eq!(event.if_revision, Some(41));
        assert_eq!(String::from_utf8(event.to_json().unwrap()).unwrap(), text);
    }

    #[test]
    fn what_is_unknown_is_told_from_what_is_broken() {
        let with = |rest: &str| {
            parse(&format!(
                r#"{{"schema":"swapstream.deployment/v1","model":"fraud",{rest}}}"#
            ))
        };
        assert!(with(r#""action":"undeploy","later":[1]"#).is_ok());
        assert!(matches!(
            with(r#""action":"canary","version":"1""#),
            Err(EventError::UnknownAction(a)) if a == "canary"
        ));
        assert!(matches!(
            parse(r#"{"schema":"swapstream.deployment/v2","action":"deploy"}"#),
            Err(EventError::UnknownSchema(_))
        ));
        for broken in [
            r#""action":"deploy""#,
            r#""action":"deploy","version":"a/b""#,
            r#""action":"deploy","version":"1","digest":"md5""#,
            r#""action":"deploy","version":"1","if_revision":"x""#,
            r#""action":7"#,
        ] {
            assert!(
                matches!(with(broken), Err(EventError::Unreadable(_))),
                "{broken}"
            );
        }
        assert!(matches!(parse("[]"), Err(EventError::Unreadable(_))));
        assert!(matches!(parse("{"), Err(EventError::Unreadable(_))));
        let other = r#"{"schema":"swapstream.deployment/v1","model":"x","action":"undeploy"}"#;
        assert!(matches!(parse(other), Err(EventError::Unreadable(_))));
        let key = ModelName::new("fraud").unwrap();
        assert!(DeploymentEvent::parse(&key, None).is_err());
    }
}
