//! Wire formats: peek, slice, bounds-checked reading, queues. No I/O, no policy.

pub mod error;
pub mod pg;
pub mod proxy_header;
pub mod queue;
pub mod reader;
pub mod resp;
