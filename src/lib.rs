//! Portcullis: a governance proxy between applications and their databases.
//!
//! A pure core and a thin shell. Modules in layer order; `tests/architecture.rs` executes the
//! table of `docs/ARCHITECTURE.md`.
//!
//! `Frame → Statement → Facts → Decision → Plan → (bytes, Event)`

// Layer 0: words no protocol owns.
pub mod facts;
pub mod name;
pub mod obligation;
// Layer 1: rules, masks and wire formats.
pub mod mask;
pub mod policy;
pub mod wire;
// Layer 2: understanding statements; the audit record.
pub mod analysis;
pub mod event;
// Layer 3: one state machine per protocol.
pub mod session;
// Layer 4: everything that touches the world.
#[cfg(feature = "serve")]
pub mod admin;
#[cfg(feature = "serve")]
pub mod audit;
#[cfg(feature = "serve")]
pub mod auth;
#[cfg(feature = "serve")]
pub mod cli;
#[cfg(feature = "serve")]
pub mod config;
#[cfg(feature = "serve")]
pub mod metrics;
#[cfg(feature = "serve")]
pub mod proxy;
#[cfg(feature = "serve")]
pub mod reload;
#[cfg(feature = "serve")]
pub mod tls;
