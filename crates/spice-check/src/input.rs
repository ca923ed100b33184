//! What is asked about: a snapshot, of which a sample is kept, or a stream of checks, which is read on
//! while it is asked.

use fastrand::Rng;
use spice_cli::{CommandError, Exit, stdio};
use spice_record::checks::{Answer, Check, CheckReader};
use spice_record::record::StreamKind;
use spice_record::{Header, Integrity, Record, RecordReader, SnapshotReader};
use tokio::sync::{mpsc, oneshot};

use crate::sample::Sample;

/// How many relationships are asked about, unless told.
const SAMPLE: usize = 1_000;
/// Checks that are read, asked and written together, at most: a call's worth. So an input of any length
/// takes the memory of a few of these, and one that is shorter and damaged is not asked at all.
const BATCH: usize = 200;
/// And how many bytes of requests.
const BATCH_BYTES: usize = 1 << 20;

/// What the input is.
pub(crate) enum Input {
    Sample(Sample, Option<String>),
    Checks(Box<Header>, Batches),
}

/// Checks as they are read.
pub(crate) struct Batches(mpsc::Receiver<Result<Vec<Check>, CommandError>>);

impl Batches {
    /// The next ones; `None` when there are no more, and the stream has proven to be whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Check>>, CommandError> {
        match self.0.recv().await {
            // The last batch is empty: a reader that died has sent none.
            Some(Ok(batch)) if batch.is_empty() => Ok(None),
            Some(batch) => batch.map(Some),
            None => Err(CommandError::new(
                Exit::Failed,
                "the reading thread has ended",
            )),
        }
    }
}

/// Opens the input, and reads as much of it as has to be known first.
pub(crate) async fn read(args: &crate::Check, mut rng: Rng) -> Result<Input, CommandError> {
    let (args, (sender, begun)) = (args.clone(), oneshot::channel());
    tokio::task::spawn_blocking(move || {
        let (batches, receiver) = mpsc::channel(1);
        match begin(&args, &mut rng) {
            Ok(Begun::Sample(sample, revision)) => {
                drop(sender.send(Ok(Input::Sample(sample, revision))));
            }
            Ok(Begun::Checks(mut checks)) => {
                let header = Box::new(checks.header().clone());
                drop(sender.send(Ok(Input::Checks(header, Batches(receiver)))));
                while let Some(goes_on) = next_batch(&mut checks).transpose() {
                    let failed = goes_on.is_err();
                    if batches.blocking_send(goes_on).is_err() || failed {
                        return;
                    }
                }
                drop(batches.blocking_send(Ok(Vec::new())));
            }
            Err(failure) => drop(sender.send(Err(failure))),
        }
    });
    begun
        .await
        .map_err(|error| CommandError::new(Exit::Failed, error.to_string()))?
}

type Reader = CheckReader<Box<dyn std::io::BufRead + Send>>;

enum Begun {
    Sample(Sample, Option<String>),
    Checks(Box<Reader>),
}

fn next_batch(checks: &mut Reader) -> Result<Option<Vec<Check>>, CommandError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let Some(check) = checks.next_check()? else {
            break;
        };
        bytes += prost::Message::encoded_len(&check.request.0);
        bytes += answer_bytes(&check.answer) + check.other_server.as_ref().map_or(0, answer_bytes);
        batch.push(check);
    }
    Ok(Some(batch).filter(|batch| !batch.is_empty()))
}

/// The message of an error can be long, and so can the names of missing context.
fn answer_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Error(fault) => fault.message.len(),
        Answer::Item(item) => item.partial_caveat_info.as_ref().map_or(0, |missing| {
            let names = missing.missing_required_context.iter();
            names.map(|name| name.len() + 32).sum()
        }),
    }
}

fn begin(args: &crate::Check, rng: &mut Rng) -> Result<Begun, CommandError> {
    let (input, name) = stdio::open(&args.file)?;
    let mut records = RecordReader::new(input, name);
    let header = match records.next_record()? {
        Some(Record::Header(header)) => header,
        Some(other) => return Err(records.unexpected("a header", &other).into()),
        None => {
            let fault = records.stream_fault("empty input: the producer wrote nothing");
            return Err(fault.into());
        }
    };
    match header.stream {
        StreamKind::Snapshot if args.record => Err(CommandError::usage(
            "--record takes a stream of checks, and this one is a snapshot",
        )),
        StreamKind::Checks if args.sample.is_some() || args.seed.is_some() => {
            Err(CommandError::usage(
                "--sample and --seed are for a snapshot: this is a stream of checks, all of which are asked",
            ))
        }
        StreamKind::Checks => {
            let checks = CheckReader::after(records, header)?;
            Ok(Begun::Checks(Box::new(checks)))
        }
        _ => {
            let revision = header.revision.clone();
            let mut stream = SnapshotReader::after(records, header, Integrity::Verified)?;
            let sample = Sample::draw(&mut stream, args.sample.unwrap_or(SAMPLE), rng)?;
            Ok(Begun::Sample(sample, revision))
        }
    }
}
