//! What the tests use of xtask: the man pages and completions, as `make install` writes them, and where the
//! code of the programs is.

pub mod pages;
pub mod sources;
