//! How many clients the process can serve with the file descriptors it may have.
//!
//! Descriptors are counted before, not run into: what is configured is lowered to what fits, and a
//! part is kept back. So the admin port, the audit trail and the catalogs get theirs when every
//! place for clients is taken.

use std::sync::Arc;

use anyhow::bail;
use tracing::warn;

use super::admission::Admissions;
use crate::config::Limits;

/// Clients at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    clients: usize,
    logins: usize,
    logins_per_address: usize,
}

impl Capacity {
    /// What is configured, or what fits: raises the limit of descriptors as far as the system lets
    /// it. Called when everything but the clients' sockets is open.
    ///
    /// # Errors
    /// Not even one client would fit.
    pub(super) fn of(limits: &Limits) -> anyhow::Result<Self> {
        let wanted = Self {
            clients: limits.clients,
            logins: limits.logins,
            logins_per_address: limits.logins_per_address,
        };
        let kept = open_descriptors().saturating_add(KEPT);
        let needed = wanted.descriptors().saturating_add(kept);
        let allowed = match rlimit::increase_nofile_limit(u64::try_from(needed).unwrap_or(u64::MAX))
        {
            Ok(allowed) => usize::try_from(allowed).unwrap_or(usize::MAX),
            Err(error) => {
                warn!(%error, "the limit of file descriptors could not be read");
                return Ok(wanted);
            }
        };
        let Some(fitting) = wanted.within(allowed.saturating_sub(kept)) else {
            bail!(
                "{allowed} file descriptors are too few: {kept} are needed beside the clients'; \
                 raise `ulimit -n` (LimitNOFILE)"
            );
        };
        if fitting != wanted {
            warn!(
                descriptors = allowed,
                clients = fitting.clients,
                logins = fitting.logins,
                "too few file descriptors for `limits.clients` and `limits.logins`, which are \
                 lowered; raise `ulimit -n` (LimitNOFILE)"
            );
        }
        Ok(fitting)
    }

    /// The places.
    pub(super) fn admissions(self) -> Arc<Admissions> {
        Admissions::new(self.clients, self.logins, self.logins_per_address)
    }

    fn descriptors(self) -> usize {
        let clients = self.clients.saturating_mul(PER_CLIENT);
        clients.saturating_add(self.logins.saturating_mul(PER_LOGIN))
    }

    /// The same with fewer places, so that they need no more than these; logins get up to a quarter.
    fn within(self, descriptors: usize) -> Option<Self> {
        if self.descriptors() <= descriptors {
            return Some(self);
        }
        let logins = self.logins.min((descriptors / 4 / PER_LOGIN).max(1));
        let rest = descriptors.checked_sub(logins.checked_mul(PER_LOGIN)?)?;
        let clients = self.clients.min(rest / PER_CLIENT);
        // One address keeps its share of what there is, at least one.
        let logins_per_address = match self.logins_per_address.checked_mul(logins) {
            Some(share) if logins < self.logins => (share / self.logins).max(1),
            _ => self.logins_per_address,
        };
        (clients > 0).then_some(Self { clients, logins, logins_per_address })
    }
}

/// What is open now.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(OPEN_GUESSED, Iterator::count)
}

/// A client's socket and its server's.
const PER_CLIENT: usize = 2;

/// The same, and one while a server's name is looked up.
const PER_LOGIN: usize = 3;

/// For the admin port, catalogs, password and rule files, and the audit file's rotation.
const KEPT: usize = 32;

/// Open without clients, where the system does not tell.
const OPEN_GUESSED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lowered_to_what_fits() {
        let wanted = Capacity { clients: 10_000, logins: 1000, logins_per_address: 500 };
        assert_eq!(wanted.within(23_000), Some(wanted));
        for descriptors in [5, 6, 7, 12, 13, 100, 1024, 4096, 22_999] {
            let fitting = wanted.within(descriptors).unwrap();
            assert!(fitting.descriptors() <= descriptors, "{descriptors}: {fitting:?}");
            assert!(fitting.clients > 0 && fitting.logins > 0 && fitting.logins_per_address > 0);
            assert!(fitting.descriptors() + PER_LOGIN + PER_CLIENT > descriptors, "{fitting:?}");
        }
        assert_eq!(wanted.within(4), None);
        // Few logins leave the rest to clients.
        let few = Capacity { logins: 10, logins_per_address: 10, ..wanted };
        assert_eq!(few.within(1030).map(|one| (one.clients, one.logins)), Some((500, 10)));
    }
}
