//! Certificates and keys as files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong, and with which of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whose file.
    pub part: Part,
    /// Message.
    pub message: String,
    /// The way out.
    pub help: &'static str,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Our certificate chain.
    Certificate,
    /// Our key.
    Key,
    /// The authorities that sign the peer's certificates.
    Authorities,
}

/// Reads a file whole.
///
/// # Errors
/// It cannot be read, or is longer than any certificate store.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// [`read`], with the problem worded.
pub(super) fn read_part(part: Part, path: &Path) -> Result<Vec<u8>, Problem> {
    read(path).map_err(|error| part.problem(path, &error))
}

/// A certificate chain.
///
/// # Errors
/// The file holds none, or something else.
pub(super) fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let part = Part::Certificate;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| part.problem(path, &error))?;
    if chain.is_empty() {
        return Err(part.holds_none(path));
    }
    Ok(chain)
}

/// A private key.
///
/// # Errors
/// The file holds none, or an encrypted one.
pub(super) fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| Part::Key.problem(path, &error))
}

/// Trust anchors.
///
/// # Errors
/// The file holds none, or one that cannot be used.
pub(super) fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, Problem> {
    let part = Part::Authorities;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| part.problem(path, &error))?;
        roots.add(certificate).map_err(|error| part.problem(path, &error))?;
    }
    if roots.is_empty() {
        return Err(part.holds_none(path));
    }
    Ok(roots)
}

/// Why the TLS library takes the certificate and the key not together.
pub(super) fn mismatch(key: &Path, error: &rustls::Error) -> Problem {
    let message = match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("key `{}` is not the key of the certificate", key.display())
        }
        other => format!("certificate and key cannot be used: {other}"),
    };
    let help = "give the key that was made for this certificate";
    Problem { part: Part::Key, message, help }
}

impl Part {
    fn problem(self, path: &Path, error: &impl std::fmt::Display) -> Problem {
        let message = format!("{} `{}`: {error}", self.name(), path.display());
        Problem { part: self, message, help: self.help() }
    }

    fn holds_none(self, path: &Path) -> Problem {
        let message = format!("`{}` holds no certificate", path.display());
        Problem { part: self, message, help: self.help() }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Authorities => "authorities",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Certificate => {
                "it must be readable by this user and hold the certificate chain as PEM, the \
                 server's own first"
            }
            Self::Key => {
                "it must be readable by this user and hold the private key as PEM, unencrypted"
            }
            Self::Authorities => {
                "it must be readable by this user and hold the authorities' certificates as PEM"
            }
        }
    }
}

/// Longest file: the authorities of a whole system are some 250 KiB.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
