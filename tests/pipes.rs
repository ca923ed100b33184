//! The one integration test: the real programs against real servers.
//!
//! | module | what it proves |
//! |---|---|
//! | [`copy`] | what arrives is what was there, from any datastore to any other |
//! | [`damage`] | a damaged stream is never taken for a whole one |
//! | [`format`] | old streams stay readable, and the documentation's example is one |

mod copy;
mod damage;
mod format;
mod support;
