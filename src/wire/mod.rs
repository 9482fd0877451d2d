//! Bytes on a socket.
