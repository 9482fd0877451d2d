//! Explains TLS errors, with what an operator has to do.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError};

use super::{ClientAuth, HandshakeFailure};
use crate::config::BrokerAddr;
use crate::error::{Error, ErrorKind};
use crate::timestamp::Timestamp;

pub(super) fn handshake(addr: &BrokerAddr, e: &io::Error, client_auth: &ClientAuth) -> HandshakeFailure {
    let (why, is_not_tls) = match tls_error(e) {
        Some(TlsError::InvalidMessage(e)) => (format!("the peer does not speak TLS: {e:?}"), true),
        Some(e) => (tls_failure(e, client_auth), false),
        None if is_end(e) && client_auth.was_requested() => (silent_refusal(client_auth), false),
        None if is_end(e) => (
            "the connection was closed at the first bytes of TLS: a proxy does that when its broker is down".into(),
            true,
        ),
        None => (format!("the TLS handshake failed: {e}"), false),
    };
    HandshakeFailure { error: Error::new(ErrorKind::Connect, format!("{addr}: {why}")), is_not_tls }
}

/// Explains an error after the client's handshake is complete.
pub(super) fn stream(e: io::Error, client_auth: &ClientAuth, has_received: bool) -> io::Error {
    if let Some(e) = tls_error(&e) {
        return io::Error::new(io::ErrorKind::InvalidData, tls_failure(e, client_auth));
    }
    // In TLS 1.3 a broker that rejects the client certificate may close the connection before the
    // alert is read.
    if !has_received && is_end(&e) && client_auth.was_requested() {
        return io::Error::new(io::ErrorKind::PermissionDenied, silent_refusal(client_auth));
    }
    e
}

fn tls_error(e: &io::Error) -> Option<&TlsError> {
    e.get_ref()?.downcast_ref()
}

fn is_end(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(e.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected)
}

fn tls_failure(e: &TlsError, client_auth: &ClientAuth) -> String {
    match e {
        TlsError::InvalidCertificate(e) => certificate_failure(e, client_auth),
        TlsError::AlertReceived(alert) => alert_failure(*alert, client_auth),
        TlsError::PeerIncompatible(e) => {
            format!(
                "the broker and this client have no TLS version or cipher in common ({e:?}): TLS 1.2 with ECDHE or 1.3 is needed"
            )
        }
        e => format!("the TLS connection failed: {e}"),
    }
}

fn certificate_failure(e: &CertificateError, client_auth: &ClientAuth) -> String {
    match e {
        CertificateError::UnknownIssuer => match &client_auth.ca_file {
            Some(file) => format!(
                "unknown CA: the broker's certificate is signed by none of the authorities in {}, TlsConfig::ca_file",
                file.display()
            ),
            None => "unknown CA: the broker's certificate is signed by no authority that the system trusts: name a file with the \
                     broker's authority in TlsConfig::ca_file"
                .into(),
        },
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the broker's certificate, or one it is signed with, has expired: it was valid until {}, and this machine's clock says \
             {}; renew it on the broker",
            format_time(not_after),
            format_time(time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the broker's certificate is not valid yet: it is from {} on, and this machine's clock says {}",
            format_time(not_before),
            format_time(time)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let mut names = String::new();
            for (i, name) in presented.iter().enumerate() {
                let name = name.trim_start_matches("DnsName(").trim_start_matches("IpAddress(").trim_end_matches(')');
                _ = write!(names, "{}{}", if i == 0 { "" } else { ", " }, name.trim_matches('"'));
            }
            let names = if names.is_empty() { "no name at all (it has no subjectAltName)".into() } else { names };
            format!(
                "host name mismatch: the broker's certificate is not for {}, but for {names}: reach the broker by such a name, or \
                 set TlsConfig::server_name to one of them",
                expected.to_str()
            )
        }
        e if format!("{e:?}").contains("CaUsedAsEndEntity") => "the broker shows an authority's own certificate (CA:TRUE) in place \
             of one of its own: have one signed by that authority"
            .into(),
        e => format!("the broker's certificate can't be accepted: {e}"),
    }
}

fn alert_failure(alert: Alert, client_auth: &ClientAuth) -> String {
    let is_about_client = matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
    ) || (alert == Alert::HandshakeFailure && client_auth.was_requested());
    match &client_auth.cert_file {
        _ if !is_about_client => format!("the broker ended TLS with the alert {alert:?}"),
        None => format!("{CERTIFICATE_REQUIRED} (alert {alert:?})"),
        Some(file) => {
            let why = match alert {
                Alert::UnknownCA => "it does not trust the authority that signed it",
                Alert::CertificateExpired => "it has expired",
                Alert::CertificateRevoked => "it was revoked",
                _ => "its log may say why",
            };
            let file = file.display();
            format!("the broker refused the client certificate, {file}, TlsConfig::cert_file: {why} (alert {alert:?})")
        }
    }
}

/// Explains that the broker requested a client certificate and closed the connection without an
/// alert.
fn silent_refusal(client_auth: &ClientAuth) -> String {
    match &client_auth.cert_file {
        None => format!("{CERTIFICATE_REQUIRED} (it requested one and closed the connection)"),
        Some(file) => format!(
            "the broker refused the client certificate, {}, TlsConfig::cert_file: it closed the connection when it had seen it; \
             its log may say why",
            file.display()
        ),
    }
}

const CERTIFICATE_REQUIRED: &str = "the broker wants a client certificate, and none is set: name one and its key in TlsConfig::cert_file and \
     TlsConfig::key_file";

fn format_time(time: &UnixTime) -> String {
    let since_1970 = Duration::from_secs(time.as_secs());
    Timestamp::UNIX_EPOCH.saturating_add(since_1970).to_string()
}
