//! Compatibility levels and modes.

/// A compatibility level: the earlier versions that a new schema must be compatible with, and the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// The new schema reads what earlier ones wrote.
    pub backward: bool,
    /// Earlier schemas read what the new one writes.
    pub forward: bool,
    /// Every earlier version counts, not only the latest.
    pub transitive: bool,
}

impl Level {
    pub const DEFAULT: Self = Self { backward: true, forward: false, transitive: false };

    const NAMES: [(&str, Self); 7] = [
        ("NONE", Self { backward: false, forward: false, transitive: false }),
        ("BACKWARD", Self::DEFAULT),
        ("BACKWARD_TRANSITIVE", Self { backward: true, forward: false, transitive: true }),
        ("FORWARD", Self { backward: false, forward: true, transitive: false }),
        ("FORWARD_TRANSITIVE", Self { backward: false, forward: true, transitive: true }),
        ("FULL", Self { backward: true, forward: true, transitive: false }),
        ("FULL_TRANSITIVE", Self { backward: true, forward: true, transitive: true }),
    ];

    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, level)| *level)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, level)| *level == self).map_or("NONE", |(name, _)| name)
    }
}

/// A mode: the writes that a subject allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    ReadWrite,
    ReadOnly,
    /// Schemas are registered with the ids and versions that they had elsewhere, without compatibility checks.
    Import,
}

impl Mode {
    const NAMES: [(&str, Self); 3] =
        [("READWRITE", Self::ReadWrite), ("READONLY", Self::ReadOnly), ("IMPORT", Self::Import)];

    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, mode)| *mode)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (name, level) in Level::NAMES {
            assert_eq!((Level::parse(&name.to_lowercase()), level.name()), (Some(level), name));
        }
        for (name, mode) in Mode::NAMES {
            assert_eq!((Mode::parse(name), mode.name()), (Some(mode), name));
        }
        assert_eq!((Level::parse("SOME"), Mode::parse("SOME")), (None, None));
    }
}
