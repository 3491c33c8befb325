//! TLS on both legs: certificates as files, as configurations of the TLS library, and as names.
//!
//! [`ClientLeg`] and [`ServerLeg`] are what the configuration says, with file names. Building one
//! gives an [`Acceptor`] or a [`Connector`], which a [`Watched`] replaces as a whole when the files'
//! content changes: a handshake works with the one it began with, sessions notice nothing.
//! Deliberately absent: session resumption and early data (a resumed session would outlive the
//! authority that admitted it, early data can be replayed), and any protocol below TLS 1.2.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::session::Alpn;

mod accept;
mod certificate;
mod connect;
mod files;
#[cfg(test)]
mod tests;
mod verify;
mod watched;

pub use accept::{Acceptor, ClientCertificates, ClientLeg, Version};
pub use connect::{Authorities, Connector, ServerLeg, UpstreamTls, Verification, https};
pub use files::{Part, Problem};
pub use watched::{Look, LookAt, Source, Watched};

/// The application protocol of PostgreSQL, as registered for ALPN.
pub const ALPN: &[u8] = b"postgresql";

/// What a leg offers by ALPN.
fn offered(alpn: Alpn) -> Vec<Vec<u8>> {
    match alpn {
        Alpn::Agreed => vec![ALPN.to_vec()],
        Alpn::Unspoken => Vec::new(),
    }
}

/// The one provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a certificate file says of itself that makes it useless now, such as its end.
pub fn out_of_date(certificate: &Path) -> Option<String> {
    let bytes = files::read(certificate).ok()?;
    let chain = files::chain(certificate, &bytes).ok()?;
    certificate::out_of_date(chain.first()?)
}
