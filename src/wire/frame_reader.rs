//! Reads frames for a `Messenger`, which reserves memory for a whole frame when it sees the length.
//! So the length of a long frame is withheld until a part of the frame has arrived.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

pub(super) const PREFIX_BYTES: usize = 4;
/// Length of a first frame that is trusted at once.
const INITIAL_TRUSTED_BYTES: usize = 1 << 20;
/// One part in so many of a longer frame has to arrive before its length is trusted.
const TRUST_DIVISOR: usize = 4;
/// Maximum size of one read into the buffer of withheld bytes.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameTooLarge {
    pub(super) size: usize,
    pub(super) limit: usize,
}

impl fmt::Display for FrameTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response has {} bytes, more than the {} that are allowed", self.size, self.limit)
    }
}
impl std::error::Error for FrameTooLarge {}

#[derive(Debug)]
pub(super) struct FrameReader {
    limit: usize,
    /// Length that is trusted at once: twice that of the longest complete frame, so that usual
    /// responses are not copied.
    trusted: usize,
    prefix: [u8; PREFIX_BYTES],
    /// Number of bytes of the prefix that were read, and that were delivered.
    prefix_read: usize,
    prefix_delivered: usize,
    len: usize,
    /// Bytes of a frame that were read before its length was delivered, and the number of those
    /// that were delivered.
    withheld: Vec<u8>,
    withheld_delivered: usize,
    /// Number of bytes of the frame that are not read yet.
    unread: usize,
    is_first: bool,
}

impl FrameReader {
    pub(super) fn new(limit: usize) -> Self {
        let (prefix, withheld) = ([0; PREFIX_BYTES], Vec::new());
        Self {
            limit,
            trusted: INITIAL_TRUSTED_BYTES,
            prefix,
            prefix_read: 0,
            prefix_delivered: 0,
            len: 0,
            withheld,
            withheld_delivered: 0,
            unread: 0,
            is_first: true,
        }
    }

    /// Reads the next bytes into `buf`; nothing at the end of `io`.
    pub(super) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.prefix_delivered == PREFIX_BYTES && self.withheld_delivered == self.withheld.len() && self.unread == 0 {
            (self.prefix_read, self.prefix_delivered) = (0, 0);
            self.trusted = self.trusted.max(self.len.saturating_mul(2));
        }
        while self.prefix_read < PREFIX_BYTES {
            let n = ready!(poll_read_into(io, cx, &mut self.prefix[self.prefix_read..]))?;
            if n == 0 {
                return Poll::Ready(Ok(()));
            }
            self.prefix_read += n;
            if self.prefix_read == PREFIX_BYTES {
                self.parse_prefix()?;
            }
        }
        if self.prefix_delivered == 0 && self.len > self.trusted {
            while self.withheld.len() < self.len / TRUST_DIVISOR {
                if ready!(self.poll_withheld(io, cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        if self.prefix_delivered < PREFIX_BYTES {
            let n = buf.remaining().min(PREFIX_BYTES - self.prefix_delivered);
            buf.put_slice(&self.prefix[self.prefix_delivered..self.prefix_delivered + n]);
            self.prefix_delivered += n;
        } else if self.withheld_delivered < self.withheld.len() {
            let n = buf.remaining().min(self.withheld.len() - self.withheld_delivered);
            buf.put_slice(&self.withheld[self.withheld_delivered..self.withheld_delivered + n]);
            self.withheld_delivered += n;
            if self.withheld_delivered == self.withheld.len() {
                (self.withheld, self.withheld_delivered) = (Vec::new(), 0);
            }
        } else if buf.remaining() <= self.unread {
            let before = buf.filled().len();
            ready!(Pin::new(io).poll_read(cx, buf))?;
            self.unread -= buf.filled().len() - before;
        } else {
            let n = ready!(poll_read_into(io, cx, buf.initialize_unfilled_to(self.unread)))?;
            buf.advance(n);
            self.unread -= n;
        }
        Poll::Ready(Ok(()))
    }

    /// Parses and checks the length of a frame.
    fn parse_prefix(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_first) {
            check_response_prefix(self.prefix)?;
        }
        let size = i32::from_be_bytes(self.prefix);
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        self.len = usize::try_from(size).map_err(|_| invalid(format!("the broker sent a frame of {size} bytes")))?;
        if self.len > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                FrameTooLarge { size: self.len, limit: self.limit },
            ));
        }
        self.unread = self.len;
        Ok(())
    }

    fn poll_withheld<R: AsyncRead + Unpin>(&mut self, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let from = self.withheld.len();
        self.withheld.resize(from + READ_BYTES.min(self.unread), 0);
        let outcome = poll_read_into(io, cx, &mut self.withheld[from..]);
        let n = if let Poll::Ready(Ok(n)) = outcome { n } else { 0 };
        self.withheld.truncate(from + n);
        self.unread -= n;
        outcome
    }
}

fn poll_read_into<R: AsyncRead + Unpin>(io: &mut R, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(into);
    ready!(Pin::new(io).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

/// Checks that the first bytes of the first response can be a length prefix.
fn check_response_prefix(first: [u8; PREFIX_BYTES]) -> io::Result<()> {
    let what = match &first {
        [0x15 | 0x16, 3, ..] => "TLS: this port expects TLS, and the connection is plaintext",
        b"HTTP" => "HTTP: a web server listens on this port, not a broker",
        b"SSH-" => "SSH: this is not a broker's port",
        [a, ..] if *a >= 0x10 => "bytes that are no response of a Kafka broker",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the peer responded with {what}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: usize = 500;

    /// A stream as a `Messenger` reads it.
    struct Reading<R>(FrameReader, R);

    impl<R: AsyncRead + Unpin> AsyncRead for Reading<R> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Self(reader, io) = &mut *self;
            reader.poll_read(io, cx, buf)
        }
    }

    fn frame(len: usize) -> Vec<u8> {
        let body = (0..len).map(|i| (i * 7) as u8);
        u32::try_from(len).unwrap().to_be_bytes().into_iter().chain(body).collect()
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_in_any_pieces(
            lens in vec(0..=LIMIT, 1..8),
            trusted in 0..=LIMIT,
            pipe in 1_usize..100,
            take in 1_usize..700,
        ) {
            let sent: Vec<u8> = lens.iter().flat_map(|len| frame(*len)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(async {
                let (mut peer, socket) = tokio::io::duplex(pipe);
                let mut reading = Reading(FrameReader { trusted, ..FrameReader::new(LIMIT) }, socket);
                let reader = async {
                    let mut read = Vec::new();
                    let mut buf = vec![0; take];
                    loop {
                        match reading.read(&mut buf).await.unwrap() {
                            0 => break read,
                            n => read.extend_from_slice(&buf[..n]),
                        }
                    }
                };
                let writer = async {
                    peer.write_all(&sent).await.unwrap();
                    drop(peer);
                };
                tokio::join!(reader, writer).0
            });
            prop_assert_eq!(read, sent);
        }
    }

    #[tokio::test]
    async fn a_long_length_is_withheld_until_a_part_arrives() {
        let (mut peer, socket) = tokio::io::duplex(1 << 16);
        let mut reading = Reading(FrameReader { trusted: 100, ..FrameReader::new(LIMIT) }, socket);
        let whole = frame(400);
        peer.write_all(&whole[..PREFIX_BYTES + 99]).await.unwrap();
        let mut prefix = [0; PREFIX_BYTES];
        assert!(futures_util::poll!(Box::pin(reading.read_exact(&mut prefix))).is_pending());
        peer.write_all(&whole[PREFIX_BYTES + 99..]).await.unwrap();
        reading.read_exact(&mut prefix).await.unwrap();
        assert!(reading.0.withheld.len() >= 100, "{:?}", reading.0);
        let mut body = vec![0; 400];
        reading.read_exact(&mut body).await.unwrap();
        assert_eq!(body, whole[PREFIX_BYTES..]);

        // The length of another frame of this size is trusted.
        peer.write_all(&whole[..PREFIX_BYTES]).await.unwrap();
        reading.read_exact(&mut prefix).await.unwrap();
        assert_eq!((reading.0.trusted, reading.0.withheld.capacity()), (800, 0));
    }

    #[tokio::test]
    async fn invalid_lengths_are_errors_at_once() {
        for (prefix, text) in [
            (501_u32, "the response has 501 bytes, more than the 500 that are allowed"),
            (u32::MAX, "the broker sent a frame of -1 bytes"),
        ] {
            let (mut peer, socket) = tokio::io::duplex(1 << 16);
            let mut reading = Reading(FrameReader::new(LIMIT), socket);
            peer.write_all(&[frame(3), prefix.to_be_bytes().to_vec()].concat()).await.unwrap();
            reading.read_exact(&mut [0; PREFIX_BYTES + 3]).await.unwrap();
            let e = reading.read(&mut [0; PREFIX_BYTES]).await.unwrap_err();
            assert_eq!(e.to_string(), text);
        }
    }
}
