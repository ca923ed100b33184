//! How far one stream is read, and the revision at which it ends.

use authzed::zedtoken::Revision;

/// How far one stream is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until<'a> {
    /// Without an end.
    None,
    /// To the checkpoint that sees a revision.
    Sees(&'a Revision, &'a str),
    /// To a revision that is a number: what is above it is left for the next stream.
    Number(&'a Revision, &'a str),
}

impl<'a> Until<'a> {
    /// To a revision at which nothing is in flight any more.
    pub(crate) fn at(revision: &'a Revision, token: &'a str) -> Self {
        match revision {
            Revision::Integer(_) => Self::Number(revision, token),
            _ => Self::Sees(revision, token),
        }
    }

    /// Whether everything was delivered at this checkpoint.
    pub(crate) fn is_reached_by(&self, checkpoint: &Revision) -> bool {
        match self {
            Self::None => false,
            Self::Sees(last, _) | Self::Number(last, _) => checkpoint.sees(last) == Some(true),
        }
    }
}
