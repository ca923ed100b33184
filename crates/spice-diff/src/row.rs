//! What the two readers, the join and the temporary files exchange.

/// From which stream something comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

/// A relationship, ready to be compared.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) side: Side,
    /// The digest of its identity: all of it but caveat and expiry.
    pub(crate) key: u128,
    /// The relationship, encoded.
    pub(crate) message: Box<[u8]>,
}
