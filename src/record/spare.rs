//! Buffers of decompressed batches, kept for the next ones: an allocator would give them out on one thread and take them back on
//! another, and keep some of them for each thread that opens batches.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes of free buffers that are kept: the fetched batches of a partition, or a few of usual size.
const KEPT: usize = 4 << 20;
/// Smaller buffers are left to the allocator.
const SMALLEST: usize = 64 << 10;

/// Buffers that are free. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    /// Their capacities.
    size: usize,
}

impl Kept {
    fn remove(&mut self, i: usize) -> Vec<u8> {
        let buffer = self.buffers.swap_remove(i);
        self.size -= buffer.capacity();
        buffer
    }
}

impl Spare {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer with room for so many bytes, and not for more than twice as many.
    pub(super) fn take(&self, size: usize) -> Vec<u8> {
        let mut kept = self.lock();
        let fits = |b: &Vec<u8>| (size..=size.saturating_mul(2)).contains(&b.capacity());
        if let Some(i) = kept.buffers.iter().position(fits) {
            return kept.remove(i);
        }
        // Batches have become larger or smaller: what is kept makes way for theirs.
        let other = if size >= SMALLEST && !kept.buffers.is_empty() { kept.remove(0) } else { Vec::new() };
        drop(kept);
        drop(other);
        Vec::with_capacity(size)
    }

    /// What is in a buffer, which comes back when the last slice of it is dropped.
    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < SMALLEST {
            return buffer.into();
        }
        Bytes::from_owner(Lent { buffer, spare: self.clone() })
    }
}

struct Lent {
    buffer: Vec<u8>,
    spare: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        let mut kept = self.spare.lock();
        if kept.size + buffer.capacity() <= KEPT {
            kept.size += buffer.capacity();
            kept.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice() {
        let spare = Spare::default();
        let mut buffer = spare.take(SIZE);
        buffer.extend([1, 2, 3]);
        let at = buffer.as_ptr();
        let bytes = spare.lend(buffer);
        let last = bytes.slice(2..);
        drop(bytes);
        let other = spare.take(SIZE);
        assert_ne!(other.as_ptr(), at, "it is still in use");
        assert_eq!(last[..], [3]);
        drop(last);
        let again = spare.take(SIZE / 2);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_the_size_that_is_asked_for() {
        let spare = Spare::default();
        let lent: Vec<_> = (0..20).map(|_| spare.lend(spare.take(SIZE))).collect();
        drop(lent);
        assert_eq!(spare.lock().size, KEPT);
        assert!(spare.take(SIZE / 4).capacity() < SIZE, "a large one would be held for little");
        assert_eq!(spare.lock().size, KEPT - SIZE, "and one of them has made way");
        drop(spare.lend(spare.take(SMALLEST / 2)));
        assert_eq!(spare.lock().size, KEPT - SIZE);
    }
}
