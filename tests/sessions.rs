//! Session scripts: what two peers say, what a session makes of it, without sockets.
//!
//! Each script in `tests/sessions/*.txt` holds scenarios (`=== title`). A scenario is a list of
//! steps, one a line, run in order:
//!
//! - `C>` / `S>`: the client / the server sends this message; lines in a row arrive together.
//! - `S<` / `C<`: the server / the client must have received this message next. Nothing may be left
//!   over when the next bytes arrive, so "not one byte reached the server" needs no line.
//!   `Refused CODE "message"`, `Fatal CODE "message"` and `Warning "message"` stand for what the
//!   proxy says itself, whatever the hint and the request id.
//! - `event`: the next audit event; all words given must be among those of the event. A step with
//!   one such line must list all its events.
//! - `effect`: the next request to the shell; `answer`: the shell's answer.
//! - `rules FILE`, `reload FILE`, `catalog none`, `config …`, `login USER`, `end CAUSE`,
//!   `time SECONDS`, `phase`, `wants`, `stale`, `violation`, `only whole`.
//!
//! `let NAME = text` before the scenarios makes `{NAME}` stand for a text in the rest of the file.
//!
//! Every scenario runs with the bytes delivered whole, one at a time and in sevens, with much room
//! for events and with little: what comes out must be the same.

#[cfg(test)]
#[path = "sessions/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "sessions/notation.rs"]
mod notation;
#[cfg(test)]
#[path = "sessions/runner.rs"]
mod runner;
