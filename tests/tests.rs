//! The one integration test: the real programs against real servers.
//!
//! | module | what it proves |
//! |---|---|
//! | [`api`] | our messages are those of the real server |
//! | [`apply`] | the changes of a stream are on the target, and the position is never ahead of it |
//! | [`check`] | equal servers give the same answers, and what makes them differ is named |
//! | [`cli`] | every way to connect and to fail has its message and exit code, and no key shows |
//! | [`compare`] | every difference between two servers is found, none invented, and repaired by the same pipe |
//! | [`conflict`] | a target that holds or refuses something keeps it, and every relationship is accounted for |
//! | [`convert`] | what zed writes is converted, and what is converted zed takes |
//! | [`copy`] | what arrives is what was there, from any datastore to any other |
//! | [`attack`] | inputs made to harm: every program refuses them, in little memory and few words |
//! | [`cutover`] | a source that is written moves with a second of write downtime, and back |
//! | [`damage`] | a damaged stream is never accepted as complete |
//! | [`deep`] | contexts nested to the limit are moved, followed and compared; deeper ones are refused by name |
//! | [`docs`] | each command of the documentation works as it is written, and its links and tables are right |
//! | [`expiry`] | a touch that changes an expiry takes effect, whatever the server acknowledges |
//! | [`faults`] | connections, servers, programs and disks that fail: nothing is lost, or the exit code is not 0 |
//! | [`format`] | old streams stay readable, and the documentation's example is one |
//! | [`hostile`] | a server that lies, hangs or breaks the rules gets an error, in time, and little memory |
//! | [`install`] | what is installed is complete and runs where nothing else is; man pages render, completions complete |
//! | [`kafka`] | changes go through a Kafka topic whose broker and both ends are killed |
//! | [`map`] | a renamed or redacted stream loads, is followed and compared, and means the same |
//! | [`migrate`] | `spice-migrate`, as an operator runs it |
//! | [`preflight`] | what would make a migration fail is named before anything is written |
//! | [`recipes`] | `scripts/{copy,follow,cutover,repair}`, as an operator runs them |
//! | [`schema`] | schemas of every form of comment and syntax are moved, and known again |
//! | [`servers`] | `tests/servers/spicedb` finds the server to start |
//! | [`spanner`] | Spanner is copied from and to and followed to, and never followed |
//! | [`watch`] | a live source is followed without a gap, or not at all |
#![allow(
    clippy::unwrap_used,
    reason = "what is not as expected fails the test, in its helpers, too"
)]

mod api;
mod apply;
mod attack;
mod check;
mod cli;
mod compare;
mod conflict;
mod convert;
mod copy;
mod cutover;
mod damage;
mod deep;
mod docs;
mod expiry;
mod faults;
mod format;
mod hostile;
mod install;
mod kafka;
mod map;
mod migrate;
mod preflight;
mod recipes;
mod schema;
mod servers;
mod spanner;
mod support;
mod watch;
