//! What a certificate says: its names, its channel binding, its time.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::FromDer as _;
use x509_parser::signature_algorithm::SignatureAlgorithm;

use crate::name::hex;
use crate::session::PeerCertificate;

/// The names in a certificate that was verified.
///
/// A common name counts only if there is exactly one: which of several is meant would be a guess.
/// Names that are not plain text are left out, and so is everything of a certificate that cannot be
/// read, except its fingerprint.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> PeerCertificate {
    let fingerprint = hex(&Sha256::digest(certificate));
    let Some(parsed) = parse(certificate) else {
        return PeerCertificate { fingerprint, ..PeerCertificate::default() };
    };
    let mut common_names = parsed.subject().iter_common_name();
    let common_name = match (common_names.next(), common_names.next()) {
        (Some(only), None) => only.as_str().ok().and_then(plain),
        (_, _) => None,
    };
    let alternative_names = match parsed.subject_alternative_name() {
        Ok(Some(extension)) => {
            extension.value.general_names.iter().filter_map(alternative_name).collect()
        }
        Ok(None) | Err(_) => Vec::new(),
    };
    PeerCertificate { common_name, alternative_names, fingerprint }
}

/// Channel binding data `tls-server-end-point` of a server's certificate: its hash by the hash
/// algorithm of its signature, or by SHA-256 if that one is MD5 or SHA-1 (RFC 5929, section 4.1).
/// Signatures without a single hash, such as Ed25519's, have none.
pub(crate) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = parse(certificate)?;
    let algorithm = &parsed.signature_algorithm;
    let hash = match SignatureAlgorithm::try_from(algorithm) {
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => {
            hash_of(HASHES, parameters.hash_algorithm_oid())
        }
        Ok(_) | Err(_) => hash_of(SIGNATURES, &algorithm.algorithm),
    }?;
    Some(match hash {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// Why the certificate is not valid now, if so.
pub(super) fn out_of_date(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = parse(certificate)?;
    let validity = parsed.validity();
    if validity.is_valid() {
        return None;
    }
    let now = x509_parser::time::ASN1Time::now();
    Some(if now < validity.not_before {
        format!("the certificate is not valid before {}", validity.not_before)
    } else {
        format!("the certificate has expired on {}", validity.not_after)
    })
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    rest.is_empty().then_some(parsed)
}

fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => plain(name).map(|name| format!("dns:{name}")),
        GeneralName::RFC822Name(name) => plain(name).map(|name| format!("email:{name}")),
        GeneralName::URI(name) => plain(name).map(|name| format!("uri:{name}")),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| format!("ip:{address}")),
        GeneralName::OtherName(_, _)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(_, _) => None,
    }
}

/// A name with a control character could be shown, or compared, as another one.
fn plain(name: &str) -> Option<String> {
    let fits = !name.is_empty() && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[derive(Clone, Copy)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

fn hash_of(table: &[(Oid<'static>, Hash)], wanted: &Oid<'_>) -> Option<Hash> {
    table.iter().find(|(oid, _)| oid == wanted).map(|(_, hash)| *hash)
}

/// Signature algorithms with the hash their channel binding uses.
const SIGNATURES: &[(Oid<'static>, Hash)] = &[
    // RSA with MD5, SHA-1: replaced by SHA-256.
    (oid!(1.2.840.113549.1.1.4), Hash::Sha256),
    (oid!(1.2.840.113549.1.1.5), Hash::Sha256),
    (oid!(1.2.840.113549.1.1.14), Hash::Sha224),
    (oid!(1.2.840.113549.1.1.11), Hash::Sha256),
    (oid!(1.2.840.113549.1.1.12), Hash::Sha384),
    (oid!(1.2.840.113549.1.1.13), Hash::Sha512),
    // ECDSA with SHA-1, then the SHA-2 family.
    (oid!(1.2.840.10045.4.1), Hash::Sha256),
    (oid!(1.2.840.10045.4.3.1), Hash::Sha224),
    (oid!(1.2.840.10045.4.3.2), Hash::Sha256),
    (oid!(1.2.840.10045.4.3.3), Hash::Sha384),
    (oid!(1.2.840.10045.4.3.4), Hash::Sha512),
    // DSA with SHA-1, SHA-224, SHA-256.
    (oid!(1.2.840.10040.4.3), Hash::Sha256),
    (oid!(2.16.840.1.101.3.4.3.1), Hash::Sha224),
    (oid!(2.16.840.1.101.3.4.3.2), Hash::Sha256),
];

/// Hash algorithms by themselves, as RSASSA-PSS names them.
const HASHES: &[(Oid<'static>, Hash)] = &[
    (oid!(1.2.840.113549.2.5), Hash::Sha256),
    (oid!(1.3.14.3.2.26), Hash::Sha256),
    (oid!(2.16.840.1.101.3.4.2.4), Hash::Sha224),
    (oid!(2.16.840.1.101.3.4.2.1), Hash::Sha256),
    (oid!(2.16.840.1.101.3.4.2.2), Hash::Sha384),
    (oid!(2.16.840.1.101.3.4.2.3), Hash::Sha512),
];
