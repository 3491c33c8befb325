//! PostgreSQL frontend/backend protocol, version 3 (PostgreSQL documentation, chapter
//! "Frontend/Backend Protocol").

pub mod error;
pub mod frame;
pub mod message;
pub mod startup;
