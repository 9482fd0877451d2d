//! Certificates for tests, and the TLS configuration of the embedded broker.
//!
//! Its cryptography is RustCrypto's, which the client uses only on CPUs without support for the
//! other: an error in one is not hidden by the same error in the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ailurus_broker::TlsServer;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// A P-256 key for rcgen.
struct Key {
    key: SigningKey,
    public: Vec<u8>,
}

impl Key {
    fn new() -> Self {
        let key = SigningKey::random(&mut p256::elliptic_curve::rand_core::OsRng);
        let public = key.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Self { key, public }
    }

    fn pem(&self) -> String {
        self.key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
    }
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.key.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, Key>,
    own: Issued,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SERIAL.fetch_add(1, Ordering::Relaxed).into());
    params
}

fn issued(cert: &Certificate, key: &Key) -> Issued {
    Issued { cert: cert.pem(), key: key.pem() }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = Key::new();
        let mut params = params(name, &["localhost"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = issued(&params.self_signed(&key).unwrap(), &key);
        Self { issuer: Issuer::new(params, key), own }
    }

    /// Returns its own certificate.
    pub fn own(&self) -> &Issued {
        &self.own
    }

    /// Issues a certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for_years(names, 2000, 2900)
    }

    /// Issues a certificate that is valid from January 1 of one year to January 1 of another.
    pub fn issue_for_years(&self, names: &[&str], from: i32, until: i32) -> Issued {
        let key = Key::new();
        let mut params = params("test", names);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        issued(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }
}

impl Issued {
    /// Returns the configuration of a broker with this certificate.
    pub fn server(&self) -> TlsServer {
        self.server_of(rustls::ALL_VERSIONS, None)
    }

    /// Returns the configuration of a broker with these TLS versions, which requires client
    /// certificates of `clients` if set.
    pub fn server_of(&self, versions: &[&'static SupportedProtocolVersion], clients: Option<&Authority>) -> TlsServer {
        let provider = Arc::new(rustls_rustcrypto::provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.own.cert.as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}

/// Writes a file into a directory of the test.
pub fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}
