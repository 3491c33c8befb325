//! Sessions of Redis and its relatives.

pub mod reshape;
