//! `SCRAM` (RFC 5802) without channel binding, the broker's side.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Mac, SimpleHmac};
use sha2::Digest;
use sha2::digest::Output;
use sha2::digest::core_api::BlockSizeUser;
use uuid::Uuid;

use super::AuthError;

/// Iterations, the minimum that Kafka allows.
const ITERATIONS: u32 = 4096;
/// Channel binding of a client without one: `n,,` in base64.
const CHANNEL_BINDING: &str = "biws";

/// A hash for SCRAM.
pub(super) trait Hash: Digest + BlockSizeUser + Clone + Sync {}
impl<T: Digest + BlockSizeUser + Clone + Sync> Hash for T {}

/// Stored credential of a user.
#[derive(Clone)]
pub(super) struct ScramCredential<D: Hash> {
    salt: String,
    stored: Output<D>,
    server: Output<D>,
}

impl<D: Hash> ScramCredential<D> {
    pub fn of(password: &str) -> Self {
        Self::salted(password, Uuid::new_v4().as_bytes())
    }

    fn salted(password: &str, salt: &[u8]) -> Self {
        let mut salted = Output::<D>::default();
        // Fails only for keys without a length.
        let _ = pbkdf2::pbkdf2::<SimpleHmac<D>>(password.as_bytes(), salt, ITERATIONS, &mut salted);
        let client = hmac::<D>(&salted, b"Client Key");
        Self { salt: STANDARD.encode(salt), stored: D::digest(client), server: hmac::<D>(&salted, b"Server Key") }
    }
}

fn hmac<D: Hash>(key: &[u8], message: &[u8]) -> Output<D> {
    // Keys may have any length.
    SimpleHmac::<D>::new_from_slice(key).map(|m| m.chain_update(message).finalize().into_bytes()).unwrap_or_default()
}

/// An exchange that waits for the client's proof.
pub(super) struct ScramExchange<D: Hash> {
    pub user: String,
    keys: ScramCredential<D>,
    nonce: String,
    /// The first two messages, as both sides sign them.
    auth_message: String,
}

impl<D: Hash> fmt::Debug for ScramExchange<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge of {}", self.user)
    }
}

impl<D: Hash> ScramExchange<D> {
    /// Handles the client's first message; returns the server's.
    pub fn new(
        message: &[u8],
        keys: impl FnOnce(&str) -> Option<ScramCredential<D>>,
    ) -> Result<(Self, String), AuthError> {
        Self::with_nonce(message, &Uuid::new_v4().simple().to_string(), keys)
    }

    fn with_nonce(
        message: &[u8],
        server_nonce: &str,
        keys: impl FnOnce(&str) -> Option<ScramCredential<D>>,
    ) -> Result<(Self, String), AuthError> {
        let malformed = || AuthError::new("SCRAM: the client's first message can't be read");
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let bare = text.strip_prefix("n,,").ok_or_else(|| AuthError::new("SCRAM: channel binding is not supported"))?;
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|f| f.strip_prefix("n=")).ok_or_else(malformed)?;
        let client_nonce = fields.next().and_then(|f| f.strip_prefix("r=")).ok_or_else(malformed)?;
        let user = user.replace("=2C", ",").replace("=3D", "=");
        let keys = keys(&user).ok_or_else(AuthError::credentials)?;
        let nonce = format!("{client_nonce}{server_nonce}");
        let first = format!("r={nonce},s={},i={ITERATIONS}", keys.salt);
        let auth_message = format!("{bare},{first}");
        Ok((Self { user, keys, nonce, auth_message }, first))
    }

    /// Checks the client's final message; returns the server's.
    pub fn check(&self, message: &[u8]) -> Result<String, AuthError> {
        let malformed = || AuthError::new("SCRAM: the client's final message can't be read");
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let (without_proof, proof) = text.split_once(",p=").ok_or_else(malformed)?;
        if without_proof != format!("c={CHANNEL_BINDING},r={}", self.nonce) {
            return Err(malformed());
        }
        let proof = STANDARD.decode(proof).map_err(|_| malformed())?;
        let auth_message = format!("{},{without_proof}", self.auth_message);
        let signature = hmac::<D>(&self.keys.stored, auth_message.as_bytes());
        let client: Vec<u8> = proof.iter().zip(&signature).map(|(p, s)| p ^ s).collect();
        if proof.len() != signature.len() || D::digest(client) != self.keys.stored {
            return Err(AuthError::credentials());
        }
        Ok(format!("v={}", STANDARD.encode(hmac::<D>(&self.keys.server, auth_message.as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sha2::Sha256;

    use super::*;

    /// Example exchange of RFC 7677, section 3.
    fn example() -> (ScramExchange<Sha256>, String) {
        let keys =
            |user: &str| (user == "user").then(|| ScramCredential::salted("pencil", &STANDARD.decode(SALT).unwrap()));
        ScramExchange::with_nonce(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", keys).unwrap()
    }
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const WITHOUT_PROOF: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    #[test]
    fn scram_matches_the_rfc_example() {
        let (challenge, first) = example();
        assert_eq!(first, format!("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s={SALT},i=4096"));
        let proof = format!("{WITHOUT_PROOF},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(challenge.check(proof.as_bytes()).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn invalid_proofs_are_rejected() {
        let (challenge, _) = example();
        for proof in
            ["", "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVU=", "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndQ=="]
        {
            assert!(challenge.check(format!("{WITHOUT_PROOF},p={proof}").as_bytes()).is_err(), "{proof:?}");
        }
        let other = "c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert!(challenge.check(other.as_bytes()).is_err(), "another nonce");
        for first in ["", "n,,n=nobody,r=x", "y,,n=user,r=x", "p=tls-unique,,n=user,r=x", "n,,r=x"] {
            let keys = |user: &str| (user == "user").then(|| ScramCredential::<Sha256>::of("pencil"));
            assert!(ScramExchange::new(first.as_bytes(), keys).is_err(), "{first:?}");
        }
    }
}
