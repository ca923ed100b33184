//! The places that settings come from, as messages name them.

use std::fmt;

/// One of the places that settings come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Flags,
    Environment,
    Context(String),
    ZedContext(String),
}

impl Source {
    /// A setting there, by the name of its flag: the beginning of a message about it.
    pub(crate) fn name(&self, key: &str) -> String {
        match self {
            Self::Flags => format!("--{key}"),
            Self::Environment => format!("SPICE_{}", key.replace('-', "_").to_uppercase()),
            Self::Context(_) | Self::ZedContext(_) => format!("{self}: {key}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags => f.write_str("the flags"),
            Self::Environment => f.write_str("the environment"),
            Self::Context(name) => write!(f, "--context {name}"),
            Self::ZedContext(name) => write!(f, "--zed-context {name:?}"),
        }
    }
}
