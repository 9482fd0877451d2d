//! The stream below a `Messenger`, with what the messenger lacks.
//!
//! - The length and body of a frame are written in one vectored write, not as two packets. The
//!   batches of a produce request are not copied to the messenger's buffer; the stream inserts them
//!   as it writes the frame.
//! - Reads are buffered; a large body is read straight into its buffer.
//! - [`StreamControl::kill`] aborts reader and writer at once, also a write that the messenger
//!   continues in a task of its own because its request was dropped.
//!   [`StreamControl::socket_closed`] reports when the socket is closed.
//! - The end of an idle connection is noticed when it happens, not at the next request.
//! - The first bytes of the first response identify a peer that is no broker, and the memory for a
//!   response grows with the bytes received, whatever length it claims: see [`FrameReader`].

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame_reader::{FrameReader, FrameTooLarge, PREFIX_BYTES};
use super::produce::Insert;
use crate::lock::Lock;

const READ_BUFFER_BYTES: usize = 16 << 10;
/// Place of the correlation id in a request's frame.
const CORRELATION_ID: Range<usize> = 4..8;
const MAX_SLICES: usize = 16;

/// State shared by a stream and the owner of its connection.
#[derive(Debug, Default)]
pub(super) struct StreamControl {
    /// First reason given to [`kill`](Self::kill).
    reason: OnceLock<String>,
    /// Cause behind the reason, if known.
    cause: OnceLock<String>,
    /// Cancelled when the connection can't be used any more.
    killed: CancellationToken,
    socket_closed: CancellationToken,
    /// True once a request after the handshake has had a response.
    has_responded: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// Correlation ids of the last frame that was encoded, and of the last that was written.
    last_registered: AtomicI32,
    last_written: AtomicI32,
    /// Inserts of frames that are not written yet, by correlation id, in order.
    inserts: Lock<VecDeque<(i32, Vec<Insert>)>>,
}

impl StreamControl {
    /// Registers an encoded frame, which begins with `start`, and the bytes to insert as it is
    /// written.
    pub(super) fn register_frame(&self, start: &[u8], inserts: Vec<Insert>) {
        let Some(id) = correlation_id(start) else { return };
        self.last_registered.store(id, Ordering::Release);
        if !inserts.is_empty() {
            self.inserts.lock().push_back((id, inserts));
        }
    }

    fn take_inserts(&self, id: Option<i32>) -> Vec<Insert> {
        let mut inserts = self.inserts.lock();
        let at = inserts.iter().position(|(of, _)| Some(*of) == id);
        at.and_then(|at| inserts.remove(at)).map(|(_, inserts)| inserts).unwrap_or_default()
    }

    pub(super) fn last_registered(&self) -> i32 {
        self.last_registered.load(Ordering::Acquire)
    }

    /// Returns whether a frame was written to the socket. Frames are written in the order of their
    /// correlation ids.
    pub(super) fn is_written(&self, id: i32) -> bool {
        self.last_written.load(Ordering::Acquire).wrapping_sub(id) >= 0
    }

    /// Sets the cause that errors report in place of the reason.
    pub(super) fn set_cause(&self, cause: String) {
        _ = self.cause.set(cause);
    }

    /// Aborts reads and writes, pending ones too.
    pub(super) fn kill(&self, reason: impl Into<String>) {
        _ = self.reason.set(reason.into());
        self.killed.cancel();
        self.inserts.lock().clear();
        self.reader.wake();
        self.writer.wake();
    }

    pub(super) fn set_responded(&self) {
        self.has_responded.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_responded(&self) -> bool {
        self.has_responded.load(Ordering::Relaxed)
    }

    pub(super) fn killed(&self) -> &CancellationToken {
        &self.killed
    }

    /// Returns whether the connection was killed, without the lock of the token.
    pub(super) fn is_killed(&self) -> bool {
        self.reason.get().is_some()
    }

    pub(super) fn socket_closed(&self) -> &CancellationToken {
        &self.socket_closed
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.cause.get().or(self.reason.get()).map(String::as_str)
    }

    /// Fails if the connection was killed; wakes `side` when it is.
    fn check_alive(&self, side: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        // Registered before the check: a kill after the check finds the waker.
        side.register(cx.waker());
        if self.is_killed() { Err(self.aborted()) } else { Ok(()) }
    }

    fn aborted(&self) -> io::Error {
        let reason = self.reason().unwrap_or("the connection was closed").to_owned();
        io::Error::new(io::ErrorKind::ConnectionAborted, reason)
    }
}

fn correlation_id(frame: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(CORRELATION_ID)?.try_into().ok()?))
}

/// The write side's position in the messenger's output.
#[derive(Debug)]
enum WriteState {
    /// In a length prefix, `have` bytes of which are known.
    Prefix {
        have: usize,
        prefix: [u8; PREFIX_BYTES],
    },
    Body(OutgoingFrame),
}

impl WriteState {
    const NEXT: Self = Self::Prefix { have: 0, prefix: [0; PREFIX_BYTES] };
}

#[derive(Debug)]
struct OutgoingFrame {
    prefix: [u8; PREFIX_BYTES],
    prefix_written: usize,
    /// Number of bytes of the body that are written, and its length, both without inserts.
    body_written: usize,
    body_len: usize,
    correlation_id: Option<i32>,
    /// Inserts that are not written yet, in order.
    inserts: VecDeque<Insert>,
}

impl OutgoingFrame {
    /// Starts a frame whose body begins with `start`.
    fn new(prefix: [u8; PREFIX_BYTES], start: &[u8], control: &StreamControl) -> Self {
        let len = u32::from_be_bytes(prefix) as usize;
        let correlation_id = correlation_id(&start[..start.len().min(len)]);
        let mut inserts = VecDeque::from(control.take_inserts(correlation_id));
        inserts.retain(|i| !i.bytes.is_empty());
        let inserted: usize = inserts.iter().map(|i| i.bytes.len()).sum();
        Self {
            prefix: ((len + inserted) as u32).to_be_bytes(),
            prefix_written: 0,
            body_written: 0,
            body_len: len,
            correlation_id,
            inserts,
        }
    }

    fn is_done(&self) -> bool {
        self.prefix_written == PREFIX_BYTES && self.body_written == self.body_len && self.inserts.is_empty()
    }

    /// Fills `slices` with the next bytes to write, where `buf` begins the rest of the body;
    /// returns their number.
    fn next_slices<'a>(&'a self, buf: &'a [u8], slices: &mut [io::IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut count = 0;
        let mut add = |bytes: &'a [u8]| {
            let room = count < MAX_SLICES;
            if room && !bytes.is_empty() {
                slices[count] = io::IoSlice::new(bytes);
                count += 1;
            }
            room
        };
        let mut at = self.body_written;
        let mut rest = &buf[..buf.len().min(self.body_len - at)];
        add(&self.prefix[self.prefix_written..]);
        for insert in self.inserts.iter().take_while(|i| i.at <= self.body_written + buf.len()) {
            let (before, after) = rest.split_at(insert.at - at);
            if !add(before) || !add(&insert.bytes) {
                return count;
            }
            (at, rest) = (insert.at, after);
        }
        add(rest);
        count
    }

    /// Advances by `n` written bytes; returns how many of those were the messenger's.
    fn advance(&mut self, mut n: usize) -> usize {
        let of_prefix = n.min(PREFIX_BYTES - self.prefix_written);
        self.prefix_written += of_prefix;
        n -= of_prefix;
        let before = self.body_written;
        while let Some(insert) = self.inserts.front_mut() {
            let plain = n.min(insert.at - self.body_written);
            self.body_written += plain;
            n -= plain;
            if self.body_written < insert.at {
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
        self.body_written += n;
        self.body_written - before
    }
}

/// A messenger's stream: see the [module](self).
#[derive(Debug)]
pub(super) struct MessengerStream<S> {
    io: BufReader<S>,
    control: Arc<StreamControl>,
    write_state: WriteState,
    /// Correlation id of the last whole frame that the socket has taken.
    last_id: i32,
    reader: FrameReader,
    _socket_closed: DropGuard,
}

impl<S: AsyncRead + AsyncWrite> MessengerStream<S> {
    /// Wraps a connected stream; `limit` is the maximum size of a response.
    pub(super) fn new(io: S, control: Arc<StreamControl>, limit: usize) -> Self {
        let _socket_closed = control.socket_closed.clone().drop_guard();
        let io = BufReader::with_capacity(READ_BUFFER_BYTES, io);
        let reader = FrameReader::new(limit);
        Self { io, control, write_state: WriteState::NEXT, last_id: 0, reader, _socket_closed }
    }
}

#[cfg(test)]
impl<S: AsyncRead> MessengerStream<S> {
    pub(super) fn get_ref(&self) -> &S {
        self.io.get_ref()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MessengerStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.control.check_alive(&this.control.reader, cx)?;
        let before = buf.filled().len();
        let outcome = ready!(this.reader.poll_read(&mut this.io, cx, buf));
        match &outcome {
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => {
                this.control.kill("the broker closed the connection");
            }
            // Not killed here: the request that gets this error reports it, then kills the
            // connection.
            Err(e) if frame_too_large(e).is_some() => {}
            Err(e) => this.control.kill(e.to_string()),
            Ok(()) => {}
        }
        Poll::Ready(outcome)
    }
}

pub(super) fn frame_too_large(e: &io::Error) -> Option<&FrameTooLarge> {
    e.get_ref()?.downcast_ref()
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessengerStream<S> {
    /// Writes some of the current frame, whose body continues with `buf`; returns how many bytes of
    /// `buf` are written.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        while let WriteState::Body(frame) = &mut self.write_state {
            let mut slices = [io::IoSlice::new(&[]); MAX_SLICES];
            let count = frame.next_slices(buf, &mut slices);
            let written = Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]);
            let n = ready!(written)?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let consumed = frame.advance(n);
            if frame.is_done() {
                self.last_id = frame.correlation_id.unwrap_or(self.last_id);
                self.write_state = WriteState::NEXT;
            }
            if consumed > 0 {
                return Poll::Ready(Ok(consumed));
            }
        }
        Poll::Ready(Ok(0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MessengerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.control.check_alive(&this.control.writer, cx)?;
        loop {
            match &mut this.write_state {
                WriteState::Prefix { have: PREFIX_BYTES, prefix } => {
                    this.write_state = WriteState::Body(OutgoingFrame::new(*prefix, buf, &this.control));
                }
                WriteState::Prefix { have, prefix } => {
                    let n = buf.len().min(PREFIX_BYTES - *have);
                    prefix[*have..*have + n].copy_from_slice(&buf[..n]);
                    *have += n;
                    return Poll::Ready(Ok(n));
                }
                WriteState::Body(_) => match ready!(this.poll_body(cx, buf))? {
                    0 => {} // that ended the previous frame
                    n => return Poll::Ready(Ok(n)),
                },
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.control.check_alive(&this.control.writer, cx)?;
        // Inserts behind the last byte of the body are still to be written.
        if matches!(&this.write_state, WriteState::Body(frame) if frame.body_written == frame.body_len) {
            ready!(this.poll_body(cx, &[]))?;
        }
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if matches!(this.write_state, WriteState::Prefix { have: 0, .. }) {
            this.control.last_written.store(this.last_id, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
