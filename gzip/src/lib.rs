//! A gzip encoder for batches of similar records, such as JSON events: about the size of zlib's
//! level 5 at less CPU time (RFC 1951, RFC 1952).
//!
//! It has one level, and needs all of the data in memory. Any gzip decoder reads its output.
//!
//! ```
//! let mut out = Vec::new();
//! ailurus_gzip::compress(b"compressed, compressed, compressed", &mut out);
//!
//! let mut plain = String::new();
//! std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&out[..]), &mut plain)?;
//! assert_eq!(plain, "compressed, compressed, compressed");
//! # Ok::<(), std::io::Error>(())
//! ```

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod huffman;
mod matcher;

use std::cell::RefCell;

use flate2::Crc;
use matcher::Matcher;

/// Header of a member: no time, no name, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses `data` and appends it to `out` as one gzip member.
///
/// Each thread that calls it keeps about 400 KiB of tables for its next call.
///
/// See the [crate](self) for an example.
pub fn compress(data: &[u8], out: &mut Vec<u8>) {
    thread_local! {
        static MATCHER: RefCell<Matcher> = RefCell::new(Matcher::new());
    }
    out.extend(HEADER);
    MATCHER.with_borrow_mut(|matcher| matcher.deflate(data, out));
    let mut crc = Crc::new();
    crc.update(data);
    out.extend(crc.sum().to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes()); // modulo 2^32, as RFC 1952 has it
}

#[cfg(test)]
mod tests;
