//! A pool of buffers for decompressed batches. An allocator would allocate them on one thread and
//! free them on another, and cache some for each thread that decompresses.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use crate::lock::Lock;

/// Maximum size of the free buffers: the fetched batches of a partition, or a few of usual size.
const MAX_POOLED_BYTES: usize = 4 << 20;
/// Capacity below which buffers are left to the allocator.
const MIN_BUFFER_BYTES: usize = 64 << 10;

/// Free buffers. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool(Arc<Lock<FreeBuffers>>);

#[derive(Debug, Default)]
struct FreeBuffers {
    buffers: Vec<Vec<u8>>,
    capacity: usize,
}

impl FreeBuffers {
    fn remove(&mut self, i: usize) -> Vec<u8> {
        let buffer = self.buffers.swap_remove(i);
        self.capacity -= buffer.capacity();
        buffer
    }
}

impl BufferPool {
    /// Returns an empty buffer with room for `size` bytes, and for no more than twice as many.
    pub(in crate::record) fn take(&self, size: usize) -> Vec<u8> {
        let mut free = self.0.lock();
        let fits = |b: &Vec<u8>| (size..=size.saturating_mul(2)).contains(&b.capacity());
        if let Some(i) = free.buffers.iter().position(fits) {
            return free.remove(i);
        }
        // The size of batches has changed: drop a buffer to make room for one of the new size.
        let dropped = if size >= MIN_BUFFER_BYTES && !free.buffers.is_empty() { free.remove(0) } else { Vec::new() };
        drop(free);
        drop(dropped);
        Vec::with_capacity(size)
    }

    /// Makes `Bytes` of a buffer, which returns to the pool when the last slice of them is dropped.
    pub(in crate::record) fn share(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < MIN_BUFFER_BYTES {
            return buffer.into();
        }
        Bytes::from_owner(PooledBuffer { buffer, pool: self.clone() })
    }
}

struct PooledBuffer {
    buffer: Vec<u8>,
    pool: BufferPool,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        let mut free = self.pool.0.lock();
        if free.capacity + buffer.capacity() <= MAX_POOLED_BYTES {
            free.capacity += buffer.capacity();
            free.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;

    #[test]
    fn a_buffer_returns_with_its_last_slice() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(SIZE);
        buffer.extend([1, 2, 3]);
        let at = buffer.as_ptr();
        let bytes = pool.share(buffer);
        let last = bytes.slice(2..);
        drop(bytes);
        let other = pool.take(SIZE);
        assert_ne!(other.as_ptr(), at, "it is still in use");
        assert_eq!(last[..], [3]);
        drop(last);
        let again = pool.take(SIZE / 2);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn the_pool_is_bounded_and_adapts_to_the_size() {
        let pool = BufferPool::default();
        let shared: Vec<_> = (0..20).map(|_| pool.share(pool.take(SIZE))).collect();
        drop(shared);
        assert_eq!(pool.0.lock().capacity, MAX_POOLED_BYTES);
        assert!(pool.take(SIZE / 4).capacity() < SIZE, "a large buffer would hold little");
        assert_eq!(pool.0.lock().capacity, MAX_POOLED_BYTES - SIZE, "one of them was dropped");
        drop(pool.share(pool.take(MIN_BUFFER_BYTES / 2)));
        assert_eq!(pool.0.lock().capacity, MAX_POOLED_BYTES - SIZE);
    }
}
