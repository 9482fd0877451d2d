//! The stream below a `Messenger`: what it does not do itself.
//!
//! - A frame's length and body leave in one vectored write, not in two packets.
//! - Reads are buffered; a large body is read straight into its place.
//! - [`Control::kill`] ends reader and writer at once, also a write that goes on in a task of its own because the request it
//!   belongs to was dropped; [`Control::gone`] tells when the socket is closed.
//! - The end of an idle connection is noticed when it happens, not at the next request.
//! - The first bytes of the first answer tell a broker from something else that listens there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A frame's length prefix.
const PREFIX: usize = 4;
const READ_BUFFER: usize = 16 << 10;

/// Shared between a stream and whoever owns the connection.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Why the connection ended; the first reason stays.
    reason: OnceLock<String>,
    /// Cancelled when the connection is of no use any more.
    ended: CancellationToken,
    /// Cancelled when the socket is closed.
    gone: CancellationToken,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Control {
    /// Ends reads and writes, those under way too.
    pub(super) fn kill(&self, reason: impl Into<String>) {
        _ = self.reason.set(reason.into());
        self.ended.cancel();
        self.reader.wake();
        self.writer.wake();
    }

    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    fn aborted(&self) -> io::Error {
        let reason = self.reason().unwrap_or("the connection was closed").to_owned();
        io::Error::new(io::ErrorKind::ConnectionAborted, reason)
    }
}

/// What the writer expects next.
#[derive(Debug)]
enum Frame {
    /// A length prefix, `have` bytes of which are here.
    Prefix { have: usize },
    /// `body` bytes that belong to a frame; of its prefix `sent` bytes are on the wire.
    Body { sent: usize, body: usize },
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Stream<S> {
    io: BufReader<S>,
    control: Arc<Control>,
    prefix: [u8; PREFIX],
    frame: Frame,
    /// The first bytes read, until there are enough to judge them.
    first: Option<Vec<u8>>,
    _gone: DropGuard,
}

impl<S: AsyncRead + AsyncWrite> Stream<S> {
    pub(super) fn new(io: S, control: Arc<Control>) -> Self {
        let _gone = control.gone.clone().drop_guard();
        let io = BufReader::with_capacity(READ_BUFFER, io);
        let frame = Frame::Prefix { have: 0 };
        Self { io, control, prefix: [0; PREFIX], frame, first: Some(Vec::new()), _gone }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.control.reader.register(cx.waker());
        if this.control.ended.is_cancelled() {
            return Poll::Ready(Err(this.control.aborted()));
        }
        let before = buf.filled().len();
        let outcome = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        let outcome = outcome.and_then(|()| {
            let new = &buf.filled()[before..];
            if new.is_empty() && buf.remaining() > 0 {
                this.control.kill("the broker closed the connection");
            }
            judge(&mut this.first, new)
        });
        if let Err(e) = &outcome {
            this.control.kill(e.to_string());
        }
        Poll::Ready(outcome)
    }
}

/// Whether the first bytes of an answer can be a length prefix.
fn judge(first: &mut Option<Vec<u8>>, new: &[u8]) -> io::Result<()> {
    let Some(have) = first else { return Ok(()) };
    have.extend(new.iter().take(PREFIX - have.len()));
    if have.len() < PREFIX {
        return Ok(());
    }
    let what = match have.as_slice() {
        [0x15 | 0x16, 3, ..] => "TLS: this port expects TLS, and the connection is plaintext",
        [b'H', b'T', b'T', b'P'] => "HTTP: a web server listens on this port, not a broker",
        [b'S', b'S', b'H', b'-'] => "SSH: this is not a broker's port",
        [a, ..] if *a >= 0x10 => "bytes that are no answer of a Kafka broker",
        _ => {
            *first = None;
            return Ok(());
        }
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the other side answered with {what}")))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.control.writer.register(cx.waker());
        if this.control.ended.is_cancelled() {
            return Poll::Ready(Err(this.control.aborted()));
        }
        loop {
            match &mut this.frame {
                Frame::Prefix { have } => {
                    let n = buf.len().min(PREFIX - *have);
                    this.prefix[*have..*have + n].copy_from_slice(&buf[..n]);
                    *have += n;
                    if *have == PREFIX {
                        let body = u32::from_be_bytes(this.prefix) as usize;
                        this.frame = Frame::Body { sent: 0, body };
                    }
                    return Poll::Ready(Ok(n));
                }
                Frame::Body { sent, body } => {
                    let part = &buf[..buf.len().min(*body)];
                    let slices = [io::IoSlice::new(&this.prefix[*sent..]), io::IoSlice::new(part)];
                    let slices = if *sent < PREFIX { &slices[..] } else { &slices[1..] };
                    let n = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
                    if n == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    let of_prefix = n.min(PREFIX - *sent);
                    *sent += of_prefix;
                    let of_body = n - of_prefix;
                    *body -= of_body;
                    if *body == 0 {
                        this.frame = Frame::Prefix { have: 0 };
                    }
                    if of_body > 0 {
                        return Poll::Ready(Ok(of_body));
                    }
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
