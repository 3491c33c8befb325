//! Integration tests: the real binary between real clients and real PostgreSQL and Redis servers.
//!
//! Needs PostgreSQL's server programs, `psql`, `pgbench` and `redis-server`, and for `drivers` Python
//! and Node.js. A missing one fails the tests: a check that did not run is not a check that passed.
//! Nothing here sleeps blindly; everything waits for a condition with a deadline.
#![cfg(feature = "serve")]
#![expect(clippy::disallowed_methods, reason = "tests measure and wait in real time")]

// Declared `cfg(test)` so that the lints which allow `unwrap` in tests know these for tests.
#[cfg(test)]
mod fake;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod pg;
#[cfg(test)]
mod pki;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod redis_bounds;
#[cfg(test)]
mod redis_conversations;
#[cfg(test)]
mod redis_drivers;
#[cfg(test)]
mod redis_fixture;
#[cfg(test)]
mod redis_frames;
#[cfg(test)]
mod redis_leaving;
mod redis_login;
#[cfg(test)]
mod redis_matrix;
#[cfg(test)]
mod redis_rules;
#[cfg(test)]
mod redis_sentinel;
#[cfg(test)]
mod redis_shapes;
#[cfg(test)]
mod redis_standing;
#[cfg(test)]
mod redis_table;
#[cfg(test)]
mod redis_tenants;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod client_tls;
#[cfg(test)]
mod complaints;
#[cfg(test)]
mod config;
mod copying;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod drivers;
#[cfg(test)]
mod encodings;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod masks;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod redis_tls;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod side_doors;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod standing;
#[cfg(test)]
mod terminated;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod transparency;
#[cfg(test)]
mod upstream_list;
#[cfg(test)]
mod upstream_tls;
