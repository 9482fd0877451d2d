//! Reads certificates and keys from files.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsConfig;
use crate::error::{Error, ErrorKind, Result};

const CA: &str = "tls ca file (REDPANDA_TLS_CA_FILE)";
const CERT: &str = "tls cert file (REDPANDA_TLS_CERT_FILE)";
const KEY: &str = "tls key file (REDPANDA_TLS_KEY_FILE)";

/// Contents of the files, also to notice changes.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Files {
    pub(super) fn read(config: &TlsConfig) -> Result<Self> {
        Ok(Self {
            ca: read(CA, config.ca_file.as_deref())?,
            cert: read(CERT, config.cert_file.as_deref())?,
            key: read(KEY, config.key_file.as_deref())?,
        })
    }

    pub(super) fn roots(&self, config: &TlsConfig) -> Result<RootCertStore> {
        let Some(ca) = &self.ca else { return system_roots() };
        let mut roots = RootCertStore::empty();
        for cert in certificates(CA, &config.ca_file, ca)? {
            roots
                .add(cert)
                .map_err(|e| file_error(CA, &config.ca_file, format_args!("a certificate can't be used: {e}")))?;
        }
        Ok(roots)
    }

    /// Returns the client certificate, with intermediate ones, and its key; none if it is not set.
    pub(super) fn client_certificate(
        &self,
        config: &TlsConfig,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        let chain = certificates(CERT, &config.cert_file, cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| match e {
            // An error may name the kind of the content, never quote it.
            pem::Error::NoItemsFound if contains(key, b"ENCRYPTED") => file_error(
                KEY,
                &config.key_file,
                "the key is encrypted: write it without a password (openssl pkcs8 -topk8 -nocrypt -in KEY), readable by this \
                 user alone",
            ),
            pem::Error::NoItemsFound => file_error(KEY, &config.key_file, "there is no private key in it, as PEM"),
            _ => file_error(KEY, &config.key_file, "it is no well-formed PEM"),
        })?;
        Ok(Some((chain, key)))
    }
}

pub(super) fn key_error(config: &TlsConfig, e: &rustls::Error) -> Error {
    match e {
        rustls::Error::InconsistentKeys(_) => {
            let other = config.cert_file.as_deref().unwrap_or(Path::new("")).display();
            file_error(
                KEY,
                &config.key_file,
                format_args!("it is not the key of the first certificate in {CERT}, {other}"),
            )
        }
        e => file_error(KEY, &config.key_file, format_args!("the key can't be used: {e}")),
    }
}

fn read(setting: &str, file: Option<&Path>) -> Result<Option<Vec<u8>>> {
    let Some(path) = file else { return Ok(None) };
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) => Err(file_error(setting, &file, format_args!("it can't be read: {e}"))),
    }
}

fn certificates(setting: &str, file: &Option<PathBuf>, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certs {
        Ok(certs) if certs.is_empty() => Err(file_error(setting, file, "there is no certificate in it, as PEM")),
        Ok(certs) => Ok(certs),
        Err(e) => Err(file_error(setting, file, format_args!("it is no well-formed PEM: {e}"))),
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

fn file_error(setting: &str, file: &Option<impl AsRef<Path>>, why: impl fmt::Display) -> Error {
    let path = file.as_ref().map_or(Path::new(""), AsRef::as_ref).display();
    Error::new(ErrorKind::Config, format!("{setting} is {path}: {why}"))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}
