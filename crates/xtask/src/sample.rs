//! A snapshot stream that no server has to be asked for.

use std::io::{self, BufWriter, Write as _};

use anyhow::Result;
use spice_record::{ExpiryPrecision, SnapshotWriter};
use testdata::Sample;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many relationships
    #[arg(long, default_value_t = 100_000)]
    relationships: u64,
    /// Other seeds draw other relationships
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only what MySQL also keeps: full seconds, characters of latin1
    #[arg(long)]
    portable: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let sample = match args.portable {
        true => Sample::portable(args.relationships),
        false => Sample::rich(args.relationships),
    };
    let sample = Sample {
        seed: args.seed,
        ..sample
    };
    let output = BufWriter::with_capacity(1 << 18, io::stdout().lock());
    let mut stream = SnapshotWriter::create(output, sample.header(), ExpiryPrecision::default())?;
    for relationship in sample.iter() {
        stream.write(&relationship)?;
    }
    let (_, mut output) = stream.finish()?;
    Ok(output.flush()?)
}
