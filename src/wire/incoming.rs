//! The frames that come in, on their way to a `Messenger`: it reserves memory for a whole frame as soon as it has seen its
//! length, so the length is kept back until enough of the frame is there to be worth that.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::stream::PREFIX;

/// Length that is believed of a peer that has sent nothing yet.
const BELIEVED: usize = 1 << 20;
/// Of a longer frame, one part in so many has to be there before its length is believed.
const PART: usize = 4;
/// Bytes that a buffer is ready to take in one read.
const STEP: usize = 64 << 10;

/// A frame that is longer than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) size: usize,
    pub(super) limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer has {} bytes, more than the {} that are allowed", self.size, self.limit)
    }
}
impl std::error::Error for TooLarge {}

/// The frame that is being read.
#[derive(Debug)]
pub(super) struct Incoming {
    limit: usize,
    /// Length that is believed at once: twice that of the longest frame that came whole, so that usual answers are not copied.
    believed: usize,
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are here, and those that were handed on.
    have: usize,
    given: usize,
    len: usize,
    /// What is here of a frame whose length is not believed, and how much of it was handed on.
    gathered: Vec<u8>,
    at: usize,
    /// Bytes of the frame that are not here.
    left: usize,
    /// Whether no frame has begun yet.
    is_first: bool,
}

impl Incoming {
    pub(super) fn new(limit: usize) -> Self {
        let (prefix, gathered) = ([0; PREFIX], Vec::new());
        Self { limit, believed: BELIEVED, prefix, have: 0, given: 0, len: 0, gathered, at: 0, left: 0, is_first: true }
    }

    /// Hands on what comes; nothing at the end of `io`.
    pub(super) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.given == PREFIX && self.at == self.gathered.len() && self.left == 0 {
            (self.have, self.given) = (0, 0);
            self.believed = self.believed.max(self.len.saturating_mul(2));
        }
        while self.have < PREFIX {
            let n = ready!(poll_some(io, cx, &mut self.prefix[self.have..]))?;
            if n == 0 {
                return Poll::Ready(Ok(()));
            }
            self.have += n;
            if self.have == PREFIX {
                self.begin()?;
            }
        }
        if self.given == 0 && self.len > self.believed {
            while self.gathered.len() < self.len / PART {
                if ready!(self.poll_gather(io, cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        if self.given < PREFIX {
            let n = buf.remaining().min(PREFIX - self.given);
            buf.put_slice(&self.prefix[self.given..self.given + n]);
            self.given += n;
        } else if self.at < self.gathered.len() {
            let n = buf.remaining().min(self.gathered.len() - self.at);
            buf.put_slice(&self.gathered[self.at..self.at + n]);
            self.at += n;
            if self.at == self.gathered.len() {
                (self.gathered, self.at) = (Vec::new(), 0);
            }
        } else if buf.remaining() <= self.left {
            let before = buf.filled().len();
            ready!(Pin::new(io).poll_read(cx, buf))?;
            self.left -= buf.filled().len() - before;
        } else {
            let n = ready!(poll_some(io, cx, buf.initialize_unfilled_to(self.left)))?;
            buf.advance(n);
            self.left -= n;
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at the length of a frame.
    fn begin(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_first) {
            judge(self.prefix)?;
        }
        let size = i32::from_be_bytes(self.prefix);
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        self.len = usize::try_from(size).map_err(|_| invalid(format!("the broker sent a frame of {size} bytes")))?;
        if self.len > self.limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, TooLarge { size: self.len, limit: self.limit }));
        }
        self.left = self.len;
        Ok(())
    }

    fn poll_gather<R: AsyncRead + Unpin>(&mut self, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let from = self.gathered.len();
        self.gathered.resize(from + STEP.min(self.left), 0);
        let outcome = poll_some(io, cx, &mut self.gathered[from..]);
        let n = if let Poll::Ready(Ok(n)) = outcome { n } else { 0 };
        self.gathered.truncate(from + n);
        self.left -= n;
        outcome
    }
}

fn poll_some<R: AsyncRead + Unpin>(io: &mut R, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(into);
    ready!(Pin::new(io).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

/// Whether the first bytes of the first answer can be a length prefix.
fn judge(first: [u8; PREFIX]) -> io::Result<()> {
    let what = match &first {
        [0x15 | 0x16, 3, ..] => "TLS: this port expects TLS, and the connection is plaintext",
        b"HTTP" => "HTTP: a web server listens on this port, not a broker",
        b"SSH-" => "SSH: this is not a broker's port",
        [a, ..] if *a >= 0x10 => "bytes that are no answer of a Kafka broker",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the other side answered with {what}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: usize = 500;

    /// What a `Messenger` reads through it.
    struct Reading<R>(Incoming, R);

    impl<R: AsyncRead + Unpin> AsyncRead for Reading<R> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Self(incoming, io) = &mut *self;
            incoming.poll_read(io, cx, buf)
        }
    }

    fn frame(len: usize) -> Vec<u8> {
        let body = (0..len).map(|i| (i * 7) as u8);
        u32::try_from(len).unwrap().to_be_bytes().into_iter().chain(body).collect()
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_in_whatever_pieces_they_come_and_are_read(
            lens in vec(0..=LIMIT, 1..8),
            believed in 0..=LIMIT,
            pipe in 1_usize..100,
            take in 1_usize..700,
        ) {
            let sent: Vec<u8> = lens.iter().flat_map(|len| frame(*len)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(async {
                let (mut theirs, ours) = tokio::io::duplex(pipe);
                let mut reading = Reading(Incoming { believed, ..Incoming::new(LIMIT) }, ours);
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
                    theirs.write_all(&sent).await.unwrap();
                    drop(theirs);
                };
                tokio::join!(reader, writer).0
            });
            prop_assert_eq!(read, sent);
        }
    }

    #[tokio::test]
    async fn the_length_of_a_long_frame_is_kept_back_until_a_part_of_it_is_there() {
        let (mut theirs, ours) = tokio::io::duplex(1 << 16);
        let mut reading = Reading(Incoming { believed: 100, ..Incoming::new(LIMIT) }, ours);
        let whole = frame(400);
        theirs.write_all(&whole[..PREFIX + 99]).await.unwrap();
        let mut prefix = [0; PREFIX];
        assert!(futures_util::poll!(Box::pin(reading.read_exact(&mut prefix))).is_pending());
        theirs.write_all(&whole[PREFIX + 99..]).await.unwrap();
        reading.read_exact(&mut prefix).await.unwrap();
        assert!(reading.0.gathered.len() >= 100, "{:?}", reading.0);
        let mut body = vec![0; 400];
        reading.read_exact(&mut body).await.unwrap();
        assert_eq!(body, whole[PREFIX..]);

        // Another one of its size is no news.
        theirs.write_all(&whole[..PREFIX]).await.unwrap();
        reading.read_exact(&mut prefix).await.unwrap();
        assert_eq!((reading.0.believed, reading.0.gathered.capacity()), (800, 0));
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_or_below_0_is_an_error_at_once() {
        for (prefix, text) in [
            (501_u32, "the answer has 501 bytes, more than the 500 that are allowed"),
            (u32::MAX, "the broker sent a frame of -1 bytes"),
        ] {
            let (mut theirs, ours) = tokio::io::duplex(1 << 16);
            let mut reading = Reading(Incoming::new(LIMIT), ours);
            theirs.write_all(&[frame(3), prefix.to_be_bytes().to_vec()].concat()).await.unwrap();
            reading.read_exact(&mut [0; PREFIX + 3]).await.unwrap();
            let e = reading.read(&mut [0; PREFIX]).await.unwrap_err();
            assert_eq!(e.to_string(), text);
        }
    }
}
