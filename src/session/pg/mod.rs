//! PostgreSQL protocol 3 sessions.
