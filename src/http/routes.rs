//! The routes: what each path answers. GET and HEAD only, bodies of requests are never read.

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::{Endpoints, Report};
use crate::serving::ServingSnapshot;

/// `schema` of `/livez` and `/readyz`.
pub const HEALTH_SCHEMA: &str = "swapstream.health/v1";
/// `schema` of `/models`.
pub const MODELS_SCHEMA: &str = "swapstream.models/v1";

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = concat!(
    "swapstream ",
    env!("CARGO_PKG_VERSION"),
    "\n\n\
     /metrics  for Prometheus\n\
     /livez    200 while the process works\n\
     /readyz   200 while every stream takes records\n\
     /models   what serves each model\n"
);

pub(super) fn router(endpoints: Endpoints) -> Router {
    Router::new()
        .route(
            "/",
            get(async || answer(StatusCode::OK, TEXT, INDEX.to_owned())),
        )
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/models", get(models))
        .fallback(not_found)
        .with_state(endpoints)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

async fn metrics(State(endpoints): State<Endpoints>) -> Response {
    match endpoints.metrics.render() {
        Ok(text) => answer(StatusCode::OK, EXPOSITION, text),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            let text = format!("cannot write the metrics: {error}\n");
            answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
        }
    }
}

async fn live(State(endpoints): State<Endpoints>) -> Response {
    health("live", &endpoints.health.live())
}

async fn ready(State(endpoints): State<Endpoints>) -> Response {
    health("ready", &endpoints.health.ready())
}

fn health(what: &str, report: &Report) -> Response {
    let status = if report.is_ok() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({"schema": HEALTH_SCHEMA, what: report.is_ok(), "reasons": report.reasons});
    answer(status, JSON, format!("{body}\n"))
}

async fn models(State(endpoints): State<Endpoints>) -> Response {
    let body = json!({"schema": MODELS_SCHEMA, "models": (endpoints.models)()});
    answer(StatusCode::OK, JSON, format!("{body}\n"))
}

async fn not_found(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(100).collect();
    let text = format!("nothing is at {path}\n\n{INDEX}");
    answer(StatusCode::NOT_FOUND, TEXT, text)
}

/// The entries of `/models` as far as a snapshot knows them.
pub fn serving_models(snapshot: &ServingSnapshot) -> Value {
    let entry = |(name, state): (&crate::model::ModelName, &crate::serving::ModelState)| {
        let serving = state.serving.as_ref().map(|serving| {
            json!({
                "version": serving.version.as_str(),
                "digest": serving.digest.to_string(),
                "revision": serving.revision,
                "runtime": serving.compiled.info().runtime,
                "batch_invariant": serving.compiled.info().batch_invariant,
            })
        });
        json!({
            "model": name.as_str(),
            "serving": serving,
            "settled_revision": state.settled_revision,
        })
    };
    snapshot.iter().map(entry).collect()
}
