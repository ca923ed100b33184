//! How strictly a stream is checked.

/// What a reader demands of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Integrity {
    /// Header and trailer, and each count, checksum and digest must be right.
    #[default]
    Verified,
    /// Header and trailer, but records may be missing: the stream was filtered on purpose.
    Partial,
    /// Neither header nor trailer is needed: the stream was made by hand. Each checksum that is there must
    /// be right. Totals are not checked.
    Unchecked,
}

impl Integrity {
    /// What `--partial` and `--no-trailer` ask for.
    #[must_use]
    pub fn of_flags(partial: bool, no_trailer: bool) -> Self {
        match (partial, no_trailer) {
            (true, _) => Self::Partial,
            (_, true) => Self::Unchecked,
            _ => Self::Verified,
        }
    }
}
