//! Chooses the cryptography for this CPU.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

#[cfg(feature = "tls-ring")]
pub(super) fn for_this_cpu() -> Arc<CryptoProvider> {
    tracing::debug!(provider = "ring", "cryptography of TLS");
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns graviola if the CPU supports it (it panics on others), else RustCrypto, which runs on
/// all.
#[cfg(not(feature = "tls-ring"))]
pub(super) fn for_this_cpu() -> Arc<CryptoProvider> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if graviola::util::is_cpu_supported() {
        tracing::debug!(provider = "graviola", "cryptography of TLS");
        return Arc::new(rustls_graviola::default_provider());
    }
    tracing::debug!(provider = "rustcrypto", "cryptography of TLS");
    Arc::new(rust_crypto())
}

/// Returns RustCrypto without its ChaCha20 suites of TLS 1.2: they panic, in builds with overflow
/// checks, on a record that is shorter than a tag.
#[cfg(not(feature = "tls-ring"))]
fn rust_crypto() -> CryptoProvider {
    use rustls::CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 as ECDSA, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 as RSA,
    };
    let mut provider = rustls_rustcrypto::provider();
    provider.cipher_suites.retain(|s| !matches!(s.suite(), ECDSA | RSA));
    provider
}
