//! PostgreSQL frontend/backend protocol, version 3 (PostgreSQL documentation, chapter
//! "Frontend/Backend Protocol").

pub mod encoding;
pub mod error;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod message;
pub mod startup;
