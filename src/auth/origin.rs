//! Where clients come from, as coarse as what one of them can own.

use std::net::{IpAddr, Ipv6Addr};

/// Whom an address is counted as: itself, or of IPv6 its /64, the smallest network that is handed
/// out; whoever has one address of it can make up the others. Clients of Unix sockets are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner(Option<IpAddr>);

impl Owner {
    /// The owner of an address; `None` is a Unix socket of this machine.
    pub(crate) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
            }
        }))
    }
}
