//! Asks a port that refused what it really speaks, so that the error can say so.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The least that a server of TLS answers: a ClientHello of TLS 1.2 with two suites and no extensions. It is no secret and leads
/// to no session, so its random bytes are none.
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

/// Whether the other side speaks TLS: whatever it thinks of the ClientHello, it says so in a record of TLS.
pub(super) async fn answers_tls(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<bool> {
    io.write_all(&CLIENT_HELLO).await?;
    let mut start = [0; 2];
    io.read_exact(&mut start).await?;
    Ok(matches!(start, [0x15 | 0x16, 3]))
}
