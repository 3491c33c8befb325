//! The servers of a list: in which order they are tried, and what is known of them.
//!
//! A client logs in once, relayed to one server: whether that one suits cannot be found out with
//! its login. So roles are asked for beforehand, with the catalog's login, and a session is sent to
//! a server whose role is known. A server that was not reached goes to the end of the order for a
//! while, so that a dead one at the head does not slow every session down.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::config::{ServerAddress, TargetServer};

/// The list.
#[derive(Debug)]
pub(crate) struct Hosts {
    hosts: Vec<Host>,
    target: TargetServer,
    /// Wakes whoever asks for roles, out of turn.
    wanted: Notify,
    /// Moves on with every answer about a role.
    answers: watch::Sender<u64>,
}

#[derive(Debug)]
struct Host {
    address: ServerAddress,
    /// Until then it is tried last, microseconds of the monotonic clock.
    last_until_us: AtomicU64,
    role: AtomicU8,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Not known, or not reached.
    Unknown,
    /// Not in recovery, and sessions write by default.
    Primary,
    /// Not in recovery, but sessions read only by default.
    PrimaryReadOnly,
    /// In recovery.
    Standby,
}

impl Hosts {
    /// Nothing is known yet.
    pub(crate) fn new(servers: &[ServerAddress], target: TargetServer) -> Self {
        let host = |address: &ServerAddress| Host {
            address: address.clone(),
            last_until_us: AtomicU64::new(0),
            role: AtomicU8::new(Role::Unknown.code()),
        };
        let hosts = servers.iter().map(host).collect();
        Self { hosts, target, wanted: Notify::new(), answers: watch::Sender::new(0) }
    }

    /// Where a server is.
    pub(crate) fn address(&self, server: usize) -> Option<&ServerAddress> {
        self.hosts.get(server).map(|host| &host.address)
    }

    /// Whether roles decide.
    pub(crate) fn has_roles(&self) -> bool {
        self.target != TargetServer::Any
    }

    /// The servers whose roles must be asked for.
    pub(crate) fn to_be_asked(&self) -> std::ops::Range<usize> {
        if self.has_roles() { 0..self.hosts.len() } else { 0..0 }
    }

    /// The servers that suit, in the order in which to try them.
    pub(crate) fn in_order(&self, now_us: u64) -> Vec<usize> {
        let suits = |(server, host): (usize, &Host)| {
            let rank = self.target.rank(host.role())?;
            let failed = host.last_until_us.load(Ordering::Relaxed) > now_us;
            Some((rank, failed, server))
        };
        let mut order: Vec<_> = self.hosts.iter().enumerate().filter_map(suits).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, server)| server).collect()
    }

    /// The same, as soon as there is one.
    pub(crate) async fn found(&self, now_us: u64) -> Vec<usize> {
        let mut answers = self.answers.subscribe();
        self.wanted.notify_waiters();
        loop {
            let order = self.in_order(now_us);
            // The sender lives as long as we do.
            if !order.is_empty() || answers.changed().await.is_err() {
                return order;
            }
        }
    }

    /// Completes when somebody wants roles to be asked for now.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A server was reached.
    pub(crate) fn reached(&self, server: usize) {
        if let Some(host) = self.hosts.get(server) {
            host.last_until_us.store(0, Ordering::Relaxed);
        }
    }

    /// A server was not reached: what was known of it is void.
    pub(crate) fn failed(&self, server: usize, now_us: u64) {
        if let Some(host) = self.hosts.get(server) {
            let pause_us = u64::try_from(FAILURE_REMEMBERED.as_micros()).unwrap_or(u64::MAX);
            host.last_until_us.store(now_us.saturating_add(pause_us), Ordering::Relaxed);
            host.role.store(Role::Unknown.code(), Ordering::Relaxed);
        }
    }

    /// What a server is now; gives what it was.
    pub(crate) fn is_now(&self, server: usize, role: Role) -> Role {
        let before = self
            .hosts
            .get(server)
            .map_or(Role::Unknown, |host| Role::of(host.role.swap(role.code(), Ordering::Relaxed)));
        self.answers.send_modify(|answers| *answers = answers.wrapping_add(1));
        before
    }

    /// Why no server was reached.
    pub(crate) fn worded(&self, failures: &[(usize, io::Error)]) -> io::Error {
        let [first, ..] = failures else {
            let message = "no server of the list has the role that `target_session_attrs` asks for";
            return io::Error::new(io::ErrorKind::NotFound, message);
        };
        let worded = failures.iter().map(|(server, error)| match self.address(*server) {
            Some(address) => format!("{address}: {error}"),
            None => error.to_string(),
        });
        io::Error::new(first.1.kind(), worded.collect::<Vec<_>>().join("; "))
    }
}

impl Host {
    fn role(&self) -> Role {
        Role::of(self.role.load(Ordering::Relaxed))
    }
}

impl Role {
    fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Primary => 1,
            Self::PrimaryReadOnly => 2,
            Self::Standby => 3,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            1 => Self::Primary,
            2 => Self::PrimaryReadOnly,
            3 => Self::Standby,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not known",
            Self::Primary => "primary",
            Self::PrimaryReadOnly => "primary, read-only by default",
            Self::Standby => "standby",
        })
    }
}

impl TargetServer {
    /// Whether a server of this role suits, and how well: the lowest first.
    fn rank(self, role: Role) -> Option<u8> {
        let suits = match (self, role) {
            (Self::Any, _) => true,
            (Self::PreferStandby, Role::Standby) => true,
            // Any other is better than none.
            (Self::PreferStandby, _) => return Some(1),
            (_, Role::Unknown) => false,
            (Self::ReadWrite, role) => role == Role::Primary,
            (Self::ReadOnly, role) => role != Role::Primary,
            (Self::Primary, role) => role != Role::Standby,
            (Self::Standby, role) => role == Role::Standby,
        };
        suits.then_some(0)
    }
}

/// How long a server that was not reached is tried after all others.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(target: TargetServer, roles: [Role; 3]) -> Hosts {
        let server = |port| ServerAddress { host: "db".to_owned(), port };
        let hosts = Hosts::new(&[1, 2, 3].map(server), target);
        for (server, role) in roles.into_iter().enumerate() {
            hosts.is_now(server, role);
        }
        hosts
    }

    #[test]
    fn servers_suit_by_their_roles() {
        let roles = [Role::Standby, Role::Primary, Role::Unknown];
        let order = |target, roles| hosts(target, roles).in_order(0);
        assert_eq!(order(TargetServer::Any, roles), [0, 1, 2]);
        assert_eq!(order(TargetServer::Primary, roles), [1]);
        assert_eq!(order(TargetServer::ReadWrite, roles), [1]);
        assert_eq!(order(TargetServer::Standby, roles), [0]);
        assert_eq!(order(TargetServer::ReadOnly, roles), [0]);
        let read_only = [Role::Primary, Role::PrimaryReadOnly, Role::Standby];
        assert_eq!(order(TargetServer::Primary, read_only), [0, 1]);
        assert_eq!(order(TargetServer::ReadWrite, read_only), [0]);
        assert_eq!(order(TargetServer::ReadOnly, read_only), [1, 2]);
        assert_eq!(order(TargetServer::PreferStandby, read_only), [2, 0, 1]);
        let none = [Role::Unknown; 3];
        assert_eq!(order(TargetServer::Primary, none), Vec::<usize>::new());
        assert_eq!(order(TargetServer::PreferStandby, none), [0, 1, 2]);
    }

    #[test]
    fn a_server_that_failed_is_tried_last_for_a_while() {
        let hosts = hosts(TargetServer::Any, [Role::Unknown; 3]);
        hosts.failed(0, 1_000);
        assert_eq!(hosts.in_order(2_000), [1, 2, 0]);
        assert_eq!(hosts.in_order(1_000 + 10_000_000), [0, 1, 2]);
        hosts.failed(1, 2_000);
        hosts.failed(2, 2_000);
        assert_eq!(hosts.in_order(3_000), [0, 1, 2], "a list of failures is tried all the same");
        hosts.failed(0, 2_000);
        hosts.reached(2);
        assert_eq!(hosts.in_order(3_000), [2, 0, 1]);
    }

    #[test]
    fn a_failure_voids_the_role() {
        let hosts = hosts(TargetServer::Primary, [Role::Primary, Role::Standby, Role::Standby]);
        assert_eq!(hosts.in_order(0), [0]);
        hosts.failed(0, 0);
        assert!(hosts.in_order(0).is_empty());
        assert_eq!(hosts.is_now(1, Role::Primary), Role::Standby);
        assert_eq!(hosts.in_order(0), [1]);
    }
}
