//! What the tests use of xtask: the man pages and completions, as `make install` writes them.

pub mod pages;
