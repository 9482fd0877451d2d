//! Random responses with a valid structure.

use fastrand::Rng;

use super::{Field, FieldKind};

pub(in crate::wire) fn sample(fields: &[Field], version: i16, flexible: bool, rng: &mut Rng) -> Vec<u8> {
    let mut writer = SampleWriter { out: Vec::new(), version, flexible, rng };
    writer.structure(fields);
    writer.out
}

struct SampleWriter<'a> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    rng: &'a mut Rng,
}

impl SampleWriter<'_> {
    fn random_bytes(&mut self, n: usize) {
        // Small numbers and -1 are special more often than others.
        let kind = self.rng.u8(..4);
        for i in 0..n {
            let last = i + 1 == n;
            self.out.push(match kind {
                0 => 0,
                1 => u8::from(last) * self.rng.u8(..4),
                2 => 0xff,
                _ => self.rng.u8(..),
            });
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn length(&mut self, n: usize, short: bool) {
        if self.flexible {
            self.varint(n + 1);
        } else if short {
            self.out.extend((n as u16).to_be_bytes());
        } else {
            self.out.extend((n as u32).to_be_bytes());
        }
    }

    fn text(&mut self, short: bool) {
        let n = self.rng.usize(..6);
        self.length(n, short);
        for _ in 0..n {
            self.out.push(self.rng.u8(b'a'..=b'c'));
        }
    }

    fn array(&mut self, of: &[Field]) {
        let n = self.rng.usize(..4);
        self.length(n, false);
        for _ in 0..n {
            self.element(of);
        }
    }

    fn element(&mut self, of: &[Field]) {
        match of {
            [Field { kind: FieldKind::Fixed(_) | FieldKind::Str, .. }] => self.fields(of),
            _ => self.structure(of),
        }
    }

    fn structure(&mut self, fields: &[Field]) {
        self.fields(fields);
        if !self.flexible {
            return;
        }
        let version = self.version;
        let current = fields.iter().filter(|f| (f.since..=f.until).contains(&version));
        let all = current.filter(|f| matches!(f.kind, FieldKind::Tagged(..) | FieldKind::TaggedArray(..)));
        let chosen: Vec<_> = all.filter(|_| self.rng.bool()).collect();
        self.varint(chosen.len());
        for field in chosen {
            let before = std::mem::take(&mut self.out);
            let tag = match field.kind {
                FieldKind::Tagged(tag, of) => {
                    self.element(of);
                    tag
                }
                FieldKind::TaggedArray(tag, of) => {
                    self.array(of);
                    tag
                }
                _ => continue,
            };
            let value = std::mem::replace(&mut self.out, before);
            self.varint(tag);
            self.varint(value.len());
            self.out.extend(value);
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        let version = self.version;
        for f in fields.iter().filter(|f| (f.since..=f.until).contains(&version)) {
            match f.kind {
                FieldKind::Fixed(n) => self.random_bytes(n),
                FieldKind::Str => self.text(true),
                FieldKind::Bytes => self.text(false),
                FieldKind::Array(of) => self.array(of),
                FieldKind::Struct(of) => self.structure(of),
                FieldKind::Nullable(of) => {
                    if self.rng.bool() {
                        self.out.push(1);
                        self.structure(of);
                    } else {
                        self.out.push(0xff);
                    }
                }
                FieldKind::Tagged(..) | FieldKind::TaggedArray(..) => {}
            }
        }
    }
}
