//! The produce request, encoded here so that its batches are not copied: the socket takes them from
//! their own buffers.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

/// Bytes to insert into a frame, at this place of the messenger's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Insert {
    pub(crate) at: usize,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct TopicBatches {
    pub(crate) topic: Arc<str>,
    pub(crate) batches: Vec<(i32, Bytes)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Produce {
    pub(crate) transactional_id: Option<Arc<str>>,
    pub(crate) acks: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) topics: Vec<TopicBatches>,
}

impl Produce {
    /// First version with compact lengths and tagged fields.
    pub(super) const FLEXIBLE: i16 = 9;

    /// Appends all but the batches, and returns where to insert those.
    pub(super) fn encode(&self, out: &mut Vec<u8>, version: i16) -> Vec<Insert> {
        let mut out = RequestWriter { out, flexible: version >= Self::FLEXIBLE };
        let mut inserts = Vec::with_capacity(self.topics.iter().map(|t| t.batches.len()).sum());
        out.string(self.transactional_id.as_deref());
        out.out.put_i16(self.acks);
        out.out.put_i32(self.timeout_ms);
        out.length(self.topics.len());
        for topic in &self.topics {
            out.string(Some(&topic.topic));
            out.length(topic.batches.len());
            for (partition, batch) in &topic.batches {
                out.out.put_i32(*partition);
                out.length(batch.len());
                inserts.push(Insert { at: out.out.len(), bytes: batch.clone() });
                out.tags();
            }
            out.tags();
        }
        out.tags();
        inserts
    }
}

struct RequestWriter<'a> {
    out: &'a mut Vec<u8>,
    flexible: bool,
}

impl RequestWriter<'_> {
    /// Writes the length of an array or of bytes.
    fn length(&mut self, n: usize) {
        if self.flexible { self.varint(n + 1) } else { self.out.put_i32(n as i32) }
    }

    fn string(&mut self, s: Option<&str>) {
        match (s, self.flexible) {
            (None, true) => self.varint(0),
            (None, false) => self.out.put_i16(-1),
            (Some(s), true) => self.varint(s.len() + 1),
            (Some(s), false) => self.out.put_i16(s.len() as i16),
        }
        self.out.put_slice(s.unwrap_or_default().as_bytes());
    }

    fn tags(&mut self) {
        if self.flexible {
            self.varint(0);
        }
    }

    fn varint(&mut self, mut n: usize) {
        while n >= 0x80 {
            self.out.put_u8(n as u8 | 0x80);
            n >>= 7;
        }
        self.out.put_u8(n as u8);
    }
}
