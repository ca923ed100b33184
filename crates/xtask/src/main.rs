//! Generates what is checked in but not written by hand, and checks what is:
//! `cargo run -p xtask -- <what>`.
//!
//! Each task is a module with a `run`; nothing here is part of an installation.

mod changes;
mod messages;
mod pictures;
mod prose;
mod protos;
mod sample;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::pages;

/// Generates what is checked in but not written by hand, and checks what is
#[derive(Debug, Parser)]
#[command(name = "xtask")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The Rust code and the descriptors of crates/authzed/proto
    Protos(protos::Args),
    /// Man pages and shell completions, from the programs' own definitions
    Pages(pages::Args),
    /// The page of every message of the programs, docs/messages.md
    Messages(messages::Args),
    /// The pictures of the documentation, into docs/pictures
    Pictures(pictures::Args),
    /// The rules of docs/style.md: width of lines, refused words
    Prose(prose::Args),
    /// A snapshot stream of drawn relationships, to stdout
    Sample(sample::Args),
    /// A change stream over the sample, to stdout
    Changes(changes::Args),
}

fn main() -> Result<()> {
    match Args::parse().what {
        What::Protos(args) => protos::run(&args),
        What::Pages(args) => pages::run(&args),
        What::Messages(args) => messages::run(&args),
        What::Pictures(args) => pictures::run(&args),
        What::Prose(args) => prose::run(&args),
        What::Sample(args) => sample::run(&args),
        What::Changes(args) => changes::run(&args),
    }
}
