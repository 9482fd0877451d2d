//! Probes a port that rejected a connection for its protocol, so that the error can name it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The smallest message that a TLS server responds to: a ClientHello of TLS 1.2 with two suites and
/// no extensions. No session follows, so its random bytes are zero.
const CLIENT_HELLO: [u8; 52] = {
    let mut hello = [0; 52];
    let start = [0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3];
    let end = [0, 0, 4, 0xc0, 0x2f, 0xc0, 0x2b, 1, 0];
    let mut i = 0;
    while i < start.len() {
        hello[i] = start[i];
        i += 1;
    }
    i = 0;
    while i < end.len() {
        hello[hello.len() - end.len() + i] = end[i];
        i += 1;
    }
    hello
};

/// Returns whether the peer speaks TLS: it responds to the ClientHello with a TLS record, be it an
/// alert.
pub(super) async fn speaks_tls(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<bool> {
    io.write_all(&CLIENT_HELLO).await?;
    let mut start = [0; 2];
    io.read_exact(&mut start).await?;
    Ok(matches!(start, [0x15 | 0x16, 3]))
}
