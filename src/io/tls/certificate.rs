//! The keys of both ends: a relay shows a certificate of its own making, and who connects knows its key from the ledger.
//!
//! Nothing of the certificate counts but its key, so it is as short as X.509 permits (RFC 5280, RFC 8410), and no authority is asked.

use crate::crypto::identity::{SigningKey, VerifyingKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, Signer, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig, SignatureAlgorithm,
    SignatureScheme,
};
use std::sync::Arc;

/// What both ends say that they speak: a connection that looks like others of its port passes where those do.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// `AlgorithmIdentifier` of Ed25519 (RFC 8410 §3).
const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// How a relay answers: with its node key.
pub(super) fn server_config(key: SigningKey) -> Result<ServerConfig, Error> {
    let certificate = CertificateDer::from(certificate(&key));
    let shown = CertifiedKey::new(vec![certificate], Arc::new(NodeKey(Arc::new(key))));
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Nobody comes back by a ticket: each handshake shows the key.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// How a relay with this key is recognised.
pub(super) fn client_config(key: VerifyingKey) -> Result<ClientConfig, Error> {
    let (provider, expected) = (provider(), public_key(&key));
    let pinned = Arc::new(Pinned { expected, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth();
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A node key, for the signature of a handshake. What TLS signs begins with 64 spaces (RFC 8446 §4.4.3), as no domain string of ours does.
#[derive(Clone)]
struct NodeKey(Arc<SigningKey>);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a node key")
    }
}

impl rustls::sign::SigningKey for NodeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).0.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Accepts one key, whatever else the certificate around it says.
#[derive(Debug)]
struct Pinned {
    expected: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let is_it = shown.as_ref() == self.expected;
        is_it.then(ServerCertVerified::assertion).ok_or(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Version 3, number 1, nobody's name, valid always.
fn certificate(key: &SigningKey) -> Vec<u8> {
    let from = der(GENERALIZED_TIME, &[b"19700101000000Z"]);
    // "no well-defined expiration date" (RFC 5280 §4.1.2.5)
    let until = der(GENERALIZED_TIME, &[b"99991231235959Z"]);
    let nobody = der(SEQUENCE, &[]);
    let body = der(
        SEQUENCE,
        &[
            &der(VERSION, &[&der(INTEGER, &[&[2]])]),
            &der(INTEGER, &[&[1]]),
            &ED25519,
            &nobody,
            &der(SEQUENCE, &[&from, &until]),
            &nobody,
            &public_key(&key.verifying_key()),
        ],
    );
    let signature = key.sign(&body).0;
    der(SEQUENCE, &[&body, &ED25519, &der(BIT_STRING, &[&[0], &signature])])
}

/// `SubjectPublicKeyInfo` (RFC 8410 §4).
fn public_key(key: &VerifyingKey) -> Vec<u8> {
    der(SEQUENCE, &[&ED25519, &der(BIT_STRING, &[&[0], &key.0])])
}

/// A value of at most 255 bytes (X.690 §8.1, §10.1).
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = u8::try_from(content.len()).expect("a certificate of ours has 200 bytes");
    let header = if len < 128 { vec![tag, len] } else { vec![tag, 0x81, len] };
    [header, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(config_key: u8, shown: &[u8]) -> Result<(), Error> {
        let expected = public_key(&SigningKey::from_seed(&[config_key; 32]).verifying_key());
        let pinned = Pinned { expected, provider: provider() };
        let name = ServerName::IpAddress(std::net::IpAddr::from([192, 0, 2, 1]).into());
        pinned.verify_server_cert(&CertificateDer::from(shown), &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn a_certificate_shows_its_key_and_no_other_is_taken() {
        let shown = certificate(&SigningKey::from_seed(&[1; 32]));
        assert_eq!(verify(1, &shown), Ok(()));
        assert_eq!(verify(2, &shown), Err(CertificateError::ApplicationVerificationFailure.into()));
        for cut in 0..shown.len() {
            assert!(verify(1, &shown[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn openssl_reads_it() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, certificate(&SigningKey::from_seed(&[1; 32]))).unwrap();
        let Ok(said) = std::process::Command::new("openssl")
            .args(["x509", "-inform", "DER", "-noout", "-text", "-in"])
            .arg(path.path())
            .output()
        else {
            return;
        };
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("ED25519") && text.contains("Version: 3"), "{said:?}");
    }
}
