//! Swapstream scores Kafka streams with ONNX models that are replaced while the stream runs.
//!
//! ```text
//!             events in                                             predictions out
//!  input topic ───▶ poll ─▶ decode ─▶ infer ─▶ encode ─▶ produce ──▶ output topic
//!                   (one worker thread runs the whole line,  ├───▶ dead-letter topic
//!                    batch by batch)                         └───▶ committed offsets
//!                                        ▲
//!                                        │ one Arc per batch
//!                                 serving snapshot
//!                                        │ swap
//!  model-versions ────┐                  │
//!  model-deployments ─┴▶ watcher ─▶ fetch ─▶ verify ─▶ compile ─▶ check ─▶ activate ─▶ model-status
//!  model-artifacts ─────────────────────┘
//! ```
//!
//! Imports run downwards only, and a test holds it:
//! `cli → demo → app → config → {stream, registry, http, dlq} → serving → scorer → runtime → codec → model → record`;
//! [`kafka`] is used by app, stream, registry, dlq, demo and cli, [`telemetry`] and `failpoints` (where
//! tests interrupt) from anywhere.

pub mod app;
pub mod cli;
pub mod codec;
pub mod config;
pub mod demo;
pub mod dlq;
mod failpoints;
pub mod http;
pub mod kafka;
pub mod model;
pub mod record;
pub mod registry;
pub mod runtime;
pub mod scorer;
pub mod serving;
pub mod stream;
pub mod telemetry;
