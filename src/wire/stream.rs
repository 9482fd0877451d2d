//! The stream below a `Messenger`: what it does not do itself.
//!
//! - A frame's length and body leave in one vectored write, not in two packets; what belongs into the body but was not copied
//!   there (the batches of a produce request) goes with them.
//! - Reads are buffered; a large body is read straight into its place.
//! - [`Control::kill`] ends reader and writer at once, also a write that goes on in a task of its own because the request it
//!   belongs to was dropped; [`Control::gone`] tells when the socket is closed.
//! - The end of an idle connection is noticed when it happens, not at the next request.
//! - The first bytes of the first answer tell a broker from something else that listens there, and the memory for an answer
//!   grows with what has come of it, whatever its length says: see [`Incoming`].

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::incoming::{Incoming, TooLarge};
use super::produce::Insert;

/// A frame's length prefix.
pub(super) const PREFIX: usize = 4;
const READ_BUFFER: usize = 16 << 10;
/// Where a request's correlation id stands in its frame.
const CORRELATION: Range<usize> = 4..8;
/// Pieces of a frame that one write takes.
const PIECES: usize = 16;

/// Shared between a stream and whoever owns the connection.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Why the connection ended; the first reason stays.
    reason: OnceLock<String>,
    /// What lies behind it, where somebody knows.
    cause: OnceLock<String>,
    /// Cancelled when the connection is of no use any more.
    ended: CancellationToken,
    /// Cancelled when the socket is closed.
    gone: CancellationToken,
    /// Whether a request of the connection's users has been answered.
    answered: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// The correlation ids of the last frame that was made, and of the last that is on the wire.
    given: AtomicI32,
    written: AtomicI32,
    /// What goes into frames to come, by their correlation ids and in their order.
    inserts: Mutex<VecDeque<(i32, Vec<Insert>)>>,
}

impl Control {
    /// A frame is made that begins with `start`; has this put into it when it is written.
    pub(super) fn give(&self, start: &[u8], inserts: Vec<Insert>) {
        let Some(id) = correlation(start) else { return };
        self.given.store(id, Ordering::Release);
        if !inserts.is_empty() {
            self.inserts.lock().unwrap_or_else(PoisonError::into_inner).push_back((id, inserts));
        }
    }

    fn inserts(&self, id: Option<i32>) -> Vec<Insert> {
        let mut inserts = self.inserts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inserts.iter().position(|(of, _)| Some(*of) == id);
        at.and_then(|at| inserts.remove(at)).map(|(_, inserts)| inserts).unwrap_or_default()
    }

    /// The last frame that was made.
    pub(super) fn given(&self) -> i32 {
        self.given.load(Ordering::Acquire)
    }

    /// Whether a frame is on the wire.
    pub(super) fn is_written(&self, frame: i32) -> bool {
        self.written.load(Ordering::Acquire).wrapping_sub(frame) >= 0
    }

    /// Says what lies behind the end of the connection, whichever reason was noted first.
    pub(super) fn explain(&self, cause: String) {
        _ = self.cause.set(cause);
    }

    /// Ends reads and writes, those under way too.
    pub(super) fn kill(&self, reason: impl Into<String>) {
        _ = self.reason.set(reason.into());
        self.ended.cancel();
        self.inserts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.reader.wake();
        self.writer.wake();
    }

    pub(super) fn set_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Whether it is of no use any more, as the token tells, too, but not without a lock.
    pub(super) fn is_over(&self) -> bool {
        self.reason.get().is_some()
    }

    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.cause.get().or(self.reason.get()).map(String::as_str)
    }

    /// Fails if the connection has ended; `side` is woken when it does.
    fn watch(&self, side: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        side.register(cx.waker());
        if self.is_over() { Err(self.aborted()) } else { Ok(()) }
    }

    fn aborted(&self) -> io::Error {
        let reason = self.reason().unwrap_or("the connection was closed").to_owned();
        io::Error::new(io::ErrorKind::ConnectionAborted, reason)
    }
}

fn correlation(frame: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(CORRELATION)?.try_into().ok()?))
}

/// What the writer expects next.
#[derive(Debug)]
enum Frame {
    /// A length prefix, `have` bytes of which are here.
    Prefix {
        have: usize,
        prefix: [u8; PREFIX],
    },
    Body(Body),
}

impl Frame {
    const NEXT: Self = Self::Prefix { have: 0, prefix: [0; PREFIX] };
}

/// A frame on its way.
#[derive(Debug)]
struct Body {
    prefix: [u8; PREFIX],
    /// So many bytes of the prefix are on the wire,
    sent: usize,
    /// so many of the body,
    at: usize,
    /// which has so many without what is inserted.
    len: usize,
    /// The frame's correlation id.
    id: Option<i32>,
    inserts: VecDeque<Insert>,
}

impl Body {
    /// The body begins with `start`.
    fn new(prefix: [u8; PREFIX], start: &[u8], control: &Control) -> Self {
        let len = u32::from_be_bytes(prefix) as usize;
        let id = correlation(&start[..start.len().min(len)]);
        let mut inserts = VecDeque::from(control.inserts(id));
        inserts.retain(|i| !i.bytes.is_empty());
        let inserted: usize = inserts.iter().map(|i| i.bytes.len()).sum();
        Self { prefix: ((len + inserted) as u32).to_be_bytes(), sent: 0, at: 0, len, id, inserts }
    }

    fn is_done(&self) -> bool {
        self.sent == PREFIX && self.at == self.len && self.inserts.is_empty()
    }

    /// The next pieces; the rest of the body begins with `buf`.
    fn pieces<'a>(&'a self, buf: &'a [u8], pieces: &mut [io::IoSlice<'a>; PIECES]) -> usize {
        let mut count = 0;
        let mut add = |bytes: &'a [u8]| {
            let room = count < PIECES;
            if room && !bytes.is_empty() {
                pieces[count] = io::IoSlice::new(bytes);
                count += 1;
            }
            room
        };
        let mut at = self.at;
        let mut rest = &buf[..buf.len().min(self.len - at)];
        add(&self.prefix[self.sent..]);
        for insert in self.inserts.iter().take_while(|i| i.at <= self.at + buf.len()) {
            let (before, behind) = rest.split_at(insert.at - at);
            if !add(before) || !add(&insert.bytes) {
                return count;
            }
            (at, rest) = (insert.at, behind);
        }
        add(rest);
        count
    }

    /// So many bytes of the pieces are on the wire; tells how many of those were the messenger's.
    fn advance(&mut self, mut n: usize) -> usize {
        let of_prefix = n.min(PREFIX - self.sent);
        self.sent += of_prefix;
        n -= of_prefix;
        let before = self.at;
        while let Some(insert) = self.inserts.front_mut() {
            let plain = n.min(insert.at - self.at);
            self.at += plain;
            n -= plain;
            if self.at < insert.at {
                break;
            }
            let of_insert = n.min(insert.bytes.len());
            insert.bytes.advance(of_insert);
            n -= of_insert;
            if !insert.bytes.is_empty() {
                break;
            }
            self.inserts.pop_front();
        }
        self.at += n;
        self.at - before
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Stream<S> {
    io: BufReader<S>,
    control: Arc<Control>,
    frame: Frame,
    /// The correlation id of the frame before it.
    last: i32,
    incoming: Incoming,
    _gone: DropGuard,
}

impl<S: AsyncRead + AsyncWrite> Stream<S> {
    /// Answers may have up to `limit` bytes.
    pub(super) fn new(io: S, control: Arc<Control>, limit: usize) -> Self {
        let _gone = control.gone.clone().drop_guard();
        let io = BufReader::with_capacity(READ_BUFFER, io);
        Self { io, control, frame: Frame::NEXT, last: 0, incoming: Incoming::new(limit), _gone }
    }
}

#[cfg(test)]
impl<S: AsyncRead> Stream<S> {
    pub(super) fn get_ref(&self) -> &S {
        self.io.get_ref()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.control.watch(&this.control.reader, cx)?;
        let before = buf.filled().len();
        let outcome = ready!(this.incoming.poll_read(&mut this.io, cx, buf));
        match &outcome {
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => {
                this.control.kill("the broker closed the connection");
            }
            // Whoever asked learns of it first, and ends the connection.
            Err(e) if too_large(e).is_some() => {}
            Err(e) => this.control.kill(e.to_string()),
            Ok(()) => {}
        }
        Poll::Ready(outcome)
    }
}

/// Whether it is that a frame is longer than is allowed.
pub(super) fn too_large(e: &io::Error) -> Option<&TooLarge> {
    e.get_ref()?.downcast_ref()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Writes of the frame at hand, whose body goes on with `buf`; gives how many bytes of that are done.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        while let Frame::Body(body) = &mut self.frame {
            let mut pieces = [io::IoSlice::new(&[]); PIECES];
            let count = body.pieces(buf, &mut pieces);
            let written = Pin::new(&mut self.io).poll_write_vectored(cx, &pieces[..count]);
            let n = ready!(written)?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let (done, whole, id) = (body.advance(n), body.is_done(), body.id);
            if whole {
                self.last = id.unwrap_or(self.last);
                self.frame = Frame::NEXT;
            }
            if done > 0 {
                return Poll::Ready(Ok(done));
            }
        }
        Poll::Ready(Ok(0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.control.watch(&this.control.writer, cx)?;
        loop {
            match &mut this.frame {
                Frame::Prefix { have: PREFIX, prefix } => {
                    this.frame = Frame::Body(Body::new(*prefix, buf, &this.control));
                }
                Frame::Prefix { have, prefix } => {
                    let n = buf.len().min(PREFIX - *have);
                    prefix[*have..*have + n].copy_from_slice(&buf[..n]);
                    *have += n;
                    return Poll::Ready(Ok(n));
                }
                Frame::Body(_) => match ready!(this.poll_body(cx, buf))? {
                    0 => {} // what stood behind the frame before
                    n => return Poll::Ready(Ok(n)),
                },
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.control.watch(&this.control.writer, cx)?;
        // What is inserted at the very end is still to go.
        if matches!(&this.frame, Frame::Body(body) if body.at == body.len) {
            ready!(this.poll_body(cx, &[]))?;
        }
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if matches!(this.frame, Frame::Prefix { have: 0, .. }) {
            this.control.written.store(this.last, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
