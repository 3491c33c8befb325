//! Sockets in, sockets out: listeners, the driver of each connection, and the composition root.

mod cancel;
mod clock;
mod drive;
#[cfg(test)]
mod drive_tests;
mod effects;
mod end;
mod leg;
mod listener;
mod seat;
mod shared;
mod shutdown;
#[cfg(test)]
mod toy;
mod uid;
mod upstream;
