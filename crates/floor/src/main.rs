//! `floor`: raw clients for the benchmarks.
//!
//! Each does nothing but the calls: what is sent was read, encoded and divided before the clock starts,
//! what is received is thrown away, nothing is retried but a call whose connection came of age before it was sent. So
//! its time is the floor of the program that does the same work: no program can take less from this server over this
//! network.

#![forbid(unsafe_code)]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use authzed::v1::{
    Consistency, ExportBulkRelationshipsRequest, Relationship, RelationshipUpdate,
    WriteRelationshipsRequest,
};
use authzed::{Client, EncodedRelationships, Error, Kind, RelationshipsEncoder};
use clap::Parser as _;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use spice_cli::connection::ConnectionArgs;
use spice_cli::stdio;
use spice_record::relationship::Update;
use spice_record::{Change, ChangeReader, Integrity, Record, RecordReader, SnapshotReader};

/// Bytes of one message of an import, as spice-import has them.
const MESSAGE_BYTES: usize = 256 << 10;

#[derive(Debug, clap::Parser)]
#[command(name = "floor")]
struct Args {
    #[command(subcommand)]
    work: Work,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Work {
    /// Receive all relationships, and throw them away
    Drain {
        /// Relationships in a message of the server
        #[arg(long, default_value_t = 1_000)]
        page: u32,
    },
    /// Import a snapshot stream that was encoded before
    Load {
        file: PathBuf,
        /// Relationships in a transaction
        #[arg(long, default_value_t = NonZeroUsize::MIN)]
        rows: NonZeroUsize,
        /// Transactions in flight
        #[arg(long, default_value_t = NonZeroUsize::MIN)]
        in_flight: NonZeroUsize,
    },
    /// Write a change stream, whose updates are of different relationships, that was decoded before
    Write {
        file: PathBuf,
        /// Updates in a call
        #[arg(long, default_value_t = NonZeroUsize::MIN)]
        updates: NonZeroUsize,
        /// Calls in flight
        #[arg(long, default_value_t = NonZeroUsize::MIN)]
        in_flight: NonZeroUsize,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let failed = |error: spice_cli::CommandError| anyhow::anyhow!("{}", error.message());
    let connection = args.connection.resolve().await.map_err(failed)?;
    let client = spice_client::connect(&connection).await.map_err(failed)?;
    let (count, seconds) = match args.work {
        Work::Drain { page } => drain(&client, page).await?,
        Work::Load {
            file,
            rows,
            in_flight,
        } => load(&client, &file, rows.get(), in_flight.get()).await?,
        Work::Write {
            file,
            updates,
            in_flight,
        } => write(&client, &file, updates.get(), in_flight.get()).await?,
    };
    let line = serde_json::json!({"count": count, "seconds": seconds});
    stdio::print_line(&line.to_string()).map_err(failed)?;
    Ok(())
}

async fn drain(client: &Client, page: u32) -> Result<(usize, f64)> {
    let head = client.head().await?;
    let began = Instant::now();
    let mut responses = client.export(ExportBulkRelationshipsRequest {
        consistency: Some(Consistency::at_exact(&head)),
        optional_limit: page,
        ..ExportBulkRelationshipsRequest::default()
    });
    let mut count = 0;
    while let Some(response) = responses.message().await? {
        count += response.relationships.len();
    }
    Ok((count, began.elapsed().as_secs_f64()))
}

async fn load(client: &Client, file: &Path, rows: usize, in_flight: usize) -> Result<(usize, f64)> {
    let transactions = encoded(file, rows)?;
    let count = transactions
        .iter()
        .flatten()
        .map(EncodedRelationships::len)
        .sum();
    let began = Instant::now();
    let calls = futures::stream::iter(transactions);
    let calls = calls.map(|messages| import(client, messages));
    let loaded: u64 = calls
        .buffer_unordered(in_flight)
        .try_fold(0, |all, loaded| async move { Ok(all + loaded) })
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    if loaded != count as u64 {
        bail!("{count} relationships sent, {loaded} loaded");
    }
    Ok((count, seconds))
}

/// One transaction. A server ends each connection after 30 s.
async fn import(client: &Client, messages: Vec<EncodedRelationships>) -> Result<u64, Error> {
    loop {
        let loaded = client.import(futures::stream::iter(messages.clone()));
        match loaded.await {
            Err(error) if error.kind() == Kind::Unreachable => {}
            result => return result,
        }
    }
}

/// The messages of each transaction.
fn encoded(file: &Path, rows: usize) -> Result<Vec<Vec<EncodedRelationships>>> {
    let (input, name) =
        stdio::open(file).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    let mut stream = SnapshotReader::open(RecordReader::new(input, name), Integrity::Verified)?;
    let mut relationships: Vec<Relationship> = Vec::new();
    while let Some(relationship) = stream.next_relationship()? {
        relationships.push(relationship);
    }
    let messages = |rows: &[Relationship]| {
        let (mut encoder, mut messages) = (RelationshipsEncoder::default(), Vec::new());
        for relationship in rows {
            encoder.push(relationship);
            if encoder.byte_len() >= MESSAGE_BYTES {
                messages.push(encoder.take());
            }
        }
        messages.push(encoder.take());
        messages.retain(|message| !message.is_empty());
        messages
    };
    Ok(relationships.chunks(rows).map(messages).collect())
}

async fn write(
    client: &Client,
    file: &Path,
    size: usize,
    in_flight: usize,
) -> Result<(usize, f64)> {
    let updates = decoded(file)?;
    let request = |updates: &[RelationshipUpdate]| WriteRelationshipsRequest {
        updates: updates.to_vec(),
        ..WriteRelationshipsRequest::default()
    };
    let requests: Vec<_> = updates.chunks(size).map(request).collect();
    let began = Instant::now();
    let calls = futures::stream::iter(requests).map(|request| client.write_relationships(request));
    calls
        .buffer_unordered(in_flight)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok((updates.len(), began.elapsed().as_secs_f64()))
}

fn decoded(file: &Path) -> Result<Vec<RelationshipUpdate>> {
    let (input, name) =
        stdio::open(file).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    let mut records = RecordReader::new(input, name);
    let Some(Record::Header(header)) = records.next_record()? else {
        bail!("no header");
    };
    let mut stream = ChangeReader::after(records, &header, Integrity::Verified)?;
    let mut updates = Vec::new();
    while let Some(change) = stream.next_change()? {
        if let Change::Transaction(change) = change {
            updates.extend(change.updates.into_iter().map(|Update(update)| update));
        }
    }
    Ok(updates)
}
