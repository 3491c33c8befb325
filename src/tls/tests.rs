use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm,
};
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256, Sha384};

use super::*;
use crate::tls::certificate::{end_point, names, out_of_date};

fn pem(text: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
}

/// A certificate that signs itself, by this algorithm.
fn signed_by(algorithm: &'static SignatureAlgorithm) -> CertificateDer<'static> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

/// The first bytes of an end point, hex, and how long it is.
fn begins(certificate: &CertificateDer<'_>) -> (String, usize) {
    let hash = end_point(certificate).unwrap();
    let begin = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    (begin, hash.len())
}

/// The expected values are those of `openssl dgst` over the same certificates.
#[test]
fn an_end_point_is_hashed_as_the_certificate_was_signed() {
    for (text, begin, len) in [
        (include_str!("fixtures/rsa-sha1.pem"), "8b0ed5c5ff90165a", 32),
        (include_str!("fixtures/rsa-sha256.pem"), "3d737afec1304ce4", 32),
        (include_str!("fixtures/rsa-sha512.pem"), "e73e54c3a4bcfd04", 64),
        (include_str!("fixtures/rsa-pss-sha384.pem"), "16888ab2f6f81616", 48),
    ] {
        assert_eq!(begins(&pem(text)), (begin.to_owned(), len));
    }
    let small = signed_by(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(end_point(&small).unwrap(), Sha256::digest(&small).to_vec());
    let large = signed_by(&rcgen::PKCS_ECDSA_P384_SHA384);
    assert_eq!(end_point(&large).unwrap(), Sha384::digest(&large).to_vec());
}

#[test]
fn where_no_hash_is_defined_there_is_no_end_point() {
    assert_eq!(end_point(&signed_by(&rcgen::PKCS_ED25519)), None);
    assert_eq!(end_point(&CertificateDer::from(b"no certificate".to_vec())), None);
}

#[test]
fn names_come_with_their_kind_and_a_second_common_name_makes_both_void() {
    let both = names(&pem(include_str!("fixtures/two-names.pem")));
    assert_eq!(both.common_name, None);
    let expected = ["dns:db.example", "ip:10.0.0.7", "email:a@b.example", "uri:spiffe://x/y"];
    assert_eq!(both.alternative_names, expected);
    assert_eq!(both.fingerprint.len(), 64);
    let one = names(&pem(include_str!("fixtures/rsa-sha1.pem")));
    assert_eq!(one.common_name.as_deref(), Some("rsa-sha1"));
    assert_eq!(one.alternative_names, Vec::<String>::new());
}

#[test]
fn a_name_with_a_control_character_is_none() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "admin\0.example");
    let made = params.self_signed(&key).unwrap();
    assert_eq!(names(made.der()).common_name, None);
}

#[test]
fn a_certificate_out_of_its_time_says_so() {
    let key = KeyPair::generate().unwrap();
    let between = |from, to| {
        let mut params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        out_of_date(params.self_signed(&key).unwrap().der()).unwrap_or_default()
    };
    assert_eq!(between(2020, 4000), "");
    assert!(between(2020, 2021).starts_with("the certificate has expired on"));
    assert!(between(3999, 4000).starts_with("the certificate is not valid before"));
}

/// An authority and a certificate it signed.
struct Pki {
    authority: CertificateDer<'static>,
    server: CertificateDer<'static>,
}

fn pki() -> Pki {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["db.example".to_owned(), "10.0.0.7".to_owned()];
    let server = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    Pki { authority: authority.der().clone(), server: server.der().clone() }
}

#[test]
fn a_chain_is_verified_whatever_the_name_and_a_stranger_is_not_trusted() {
    let (pki, stranger) = (pki(), pki());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.authority).unwrap();
    let verifier = verify::Lenient::new(Some(roots), provider());
    let verify = |certificate: &CertificateDer<'_>| {
        let name = ServerName::try_from("other.example").unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_900_000_000));
        verifier.verify_server_cert(certificate, &[], &name, &[], now)
    };
    assert!(verify(&pki.server).is_ok());
    assert!(verify(&stranger.server).is_err());
    assert!(verify(&stranger.authority).is_err());
}

fn write_pair(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(folder.join("server.crt"), made.cert.pem()).unwrap();
    fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn files_that_change_are_put_in_force_and_broken_ones_leave_what_was() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path());
    let watched = Watched::first(ClientLeg {
        certificate: folder.path().join("server.crt"),
        key: folder.path().join("server.key"),
        clients: ClientCertificates::Unasked,
        min_version: Version::Tls12,
        alpn: Alpn::Agreed,
    })
    .unwrap();
    let current = watched.current();
    let first = current.load_full();
    assert_eq!(watched.look(), Look::Same);
    fs::write(folder.path().join("server.key"), "broken").unwrap();
    assert_eq!(watched.look(), Look::Unsettled);
    let Look::Refused(problem) = watched.look() else { panic!("accepted") };
    assert_eq!(problem.part, Part::Key);
    assert_eq!(watched.look(), Look::Same, "known, not told again");
    assert!(Arc::ptr_eq(&first, &current.load_full()));
    fs::remove_file(folder.path().join("server.key")).unwrap();
    // Not yet told, and repaired before it had to be.
    assert_eq!(watched.look(), Look::Unsettled);
    write_pair(folder.path());
    assert_eq!(watched.look(), Look::Swapped);
    assert!(!Arc::ptr_eq(&first, &current.load_full()));
}
