//! A change stream that no server has to be asked for: the sample's relationships change.

use std::io::{self, BufWriter, Write as _};

use anyhow::Result;
use authzed::v1::RelationshipUpdate;
use authzed::v1::relationship_update::Operation;
use spice_record::record::{Checkpoint, StreamEnd, StreamKind, Transaction};
use spice_record::relationship::Update;
use spice_record::{Change, ChangeWriter, Header};
use testdata::{SCHEMA, Sample};

/// After so many transactions there is a checkpoint, as spice-watch writes them in a backlog.
const CHECKPOINT_EVERY: u64 = 100;
const DATASTORE: &str = "5a3b1e00";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many transactions
    #[arg(long, default_value_t = 100_000)]
    transactions: u64,
    /// How many updates in each
    #[arg(long, default_value_t = 1)]
    updates: u64,
    /// Of four updates one touches a relationship of `xtask sample --portable` and one deletes one: it has
    /// so many, at least half as many as there are updates. The others are new
    #[arg(long, default_value_t = 100_000)]
    relationships: u64,
    /// Other seeds give other new relationships
    #[arg(long, default_value_t = 2)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let all = args.transactions * args.updates;
    anyhow::ensure!(
        args.relationships * 2 >= all,
        "--relationships: at least half of the {all} updates"
    );
    let mut old = Sample::portable(args.relationships).iter();
    let mut new = Sample {
        seed: args.seed,
        ..Sample::portable(all)
    }
    .iter();
    let mut updates = (0..all).filter_map(|index| {
        let (operation, relationship) = match index % 4 {
            0 => (Operation::Touch, old.next()?),
            1 => (Operation::Delete, old.next()?),
            _ => (Operation::Touch, new.next()?),
        };
        Some(Update(RelationshipUpdate {
            operation: operation.into(),
            relationship: Some(relationship),
        }))
    });
    let output = BufWriter::with_capacity(1 << 18, io::stdout().lock());
    let header = Header {
        schema: Some(SCHEMA.to_owned()),
        revision: Some(token(1)),
        ..Header::new(
            StreamKind::Changes,
            "sample",
            jiff::Timestamp::UNIX_EPOCH.to_string(),
        )
    };
    let mut stream = ChangeWriter::create(output, header)?;
    let end = args.transactions + 1;
    for revision in 2..=end {
        let count = usize::try_from(args.updates)?;
        stream.write(Change::Transaction(Box::new(Transaction {
            revision: token(revision),
            updates: updates.by_ref().take(count).collect(),
            ..Transaction::default()
        })))?;
        if revision % CHECKPOINT_EVERY == 0 || revision == end {
            stream.write(Change::Checkpoint(Box::new(Checkpoint {
                revision: token(revision),
                ..Checkpoint::default()
            })))?;
        }
    }
    Ok(stream.finish(StreamEnd::Until)?.flush()?)
}

/// The zedtoken of a revision that can be compared and settles at once.
fn token(revision: u64) -> String {
    testserver::token_of(&format!("{revision}.0000000000"), DATASTORE)
}
