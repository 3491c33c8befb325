//! Certificates of the client leg.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong, and with which of the two files.
#[derive(Debug)]
pub(super) struct TlsProblem {
    /// The key's file, else the certificate's.
    pub(super) in_key: bool,
    /// Message.
    pub(super) message: String,
    /// The way out.
    pub(super) help: &'static str,
}

/// Reads a certificate chain and its key.
///
/// # Errors
/// A file cannot be read or holds something else, or the key is not the certificate's.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsProblem> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| TlsProblem {
            in_key: false,
            message: format!("certificate `{}`: {error}", certificate.display()),
            help: "it must be readable by this user and hold the certificate chain as PEM",
        })?;
    if chain.is_empty() {
        return Err(TlsProblem {
            in_key: false,
            message: format!("`{}` holds no certificate", certificate.display()),
            help: "it must hold the certificate chain as PEM, the server's first",
        });
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsProblem {
        in_key: true,
        message: format!("key `{}`: {error}", key.display()),
        help: "it must be readable by this user and hold the private key as PEM, unencrypted",
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map(Arc::new)
        .map_err(|error| TlsProblem {
            in_key: true,
            message: match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("key `{}` is not the key of the certificate", key.display())
                }
                other => format!("certificate and key cannot be used: {other}"),
            },
            help: "give the key that was made for this certificate",
        })
}
