//! Generates what is checked in but not written by hand: `cargo run -p xtask -- <what>`.
//!
//! Each kind of output is a module with a `run`; nothing here is part of an installation.

mod pages;
mod protos;
mod sample;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Generates what is checked in but not written by hand
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
    /// A snapshot stream of drawn relationships, to stdout
    Sample(sample::Args),
}

fn main() -> Result<()> {
    match Args::parse().what {
        What::Protos(args) => protos::run(&args),
        What::Pages(args) => pages::run(&args),
        What::Sample(args) => sample::run(&args),
    }
}
