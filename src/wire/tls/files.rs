//! Reads certificates and keys from files.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::config::TlsConfig;
use crate::error::{Error, ErrorKind, Result};

const CA: &str = "TlsConfig::ca_file";
const CERT: &str = "TlsConfig::cert_file";
const KEY: &str = "TlsConfig::key_file";

/// The files that the settings name, with their contents, also to notice changes.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    ca: Option<PemFile>,
    cert: Option<PemFile>,
    key: Option<PemFile>,
}

#[derive(PartialEq, Eq)]
struct PemFile {
    setting: &'static str,
    path: PathBuf,
    pem: Vec<u8>,
}

impl Files {
    pub(super) fn read(config: &TlsConfig) -> Result<Self> {
        Ok(Self {
            ca: PemFile::read(CA, config.ca_file.as_deref())?,
            cert: PemFile::read(CERT, config.cert_file.as_deref())?,
            key: PemFile::read(KEY, config.key_file.as_deref())?,
        })
    }

    pub(super) fn roots(&self) -> Result<RootCertStore> {
        let Some(file) = &self.ca else { return system_roots() };
        let mut roots = RootCertStore::empty();
        for cert in file.certificates()? {
            roots.add(cert).map_err(|e| file.error(format_args!("a certificate can't be used: {e}")))?;
        }
        Ok(roots)
    }

    /// Completes a configuration with the client certificate and its key, if they are set.
    pub(super) fn client_config(&self, builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> Result<ClientConfig> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(builder.with_no_client_auth()) };
        builder.with_client_auth_cert(cert.certificates()?, key.private_key()?).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                let cert = cert.path.display();
                key.error(format_args!("it is not the key of the first certificate in {CERT}, {cert}"))
            }
            e => key.error(format_args!("the key can't be used: {e}")),
        })
    }
}

impl PemFile {
    fn read(setting: &'static str, path: Option<&Path>) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let mut file = Self { setting, path: path.to_owned(), pem: Vec::new() };
        file.pem = std::fs::read(path).map_err(|e| file.error(format_args!("it can't be read: {e}")))?;
        Ok(Some(file))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.pem).collect();
        let certs = certs.map_err(|e| self.error(format_args!("it is no well-formed PEM: {e}")))?;
        if certs.is_empty() {
            return Err(self.error("there is no certificate in it, as PEM"));
        }
        Ok(certs)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        let is_encrypted = || self.pem.windows(9).any(|bytes| bytes == b"ENCRYPTED");
        PrivateKeyDer::from_pem_slice(&self.pem).map_err(|e| {
            // An error may name the kind of the content, never quote it.
            self.error(match e {
                pem::Error::NoItemsFound if is_encrypted() => {
                    "the key is encrypted: write it without a password (openssl pkcs8 -topk8 -nocrypt -in KEY), readable by this \
                     user alone"
                }
                pem::Error::NoItemsFound => "there is no private key in it, as PEM",
                _ => "it is no well-formed PEM",
            })
        })
    }

    fn error(&self, why: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Config, format!("{} is {}: {why}", self.setting, self.path.display()))
    }
}

fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, errors = ?found.errors, "the system's certificates");
    if roots.is_empty() {
        let why: String = found.errors.iter().map(|e| format!(" ({e})")).collect();
        let what = format!(
            "the system has no certificates of authorities{why}: name a file with the authority of the brokers in {CA}, or \
             install the system's (Debian's package ca-certificates), or name theirs in SSL_CERT_FILE"
        );
        return Err(Error::new(ErrorKind::Config, what));
    }
    Ok(roots)
}
