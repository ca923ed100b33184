//! Reads the input: a snapshot, of which a sample is kept, or a stream of checks, which is read in
//! batches while they are asked.

use fastrand::Rng;
use spice_cli::{CommandError, Exit, stdio};
use spice_record::checks::{Answer, Check, CheckReader};
use spice_record::record::StreamKind;
use spice_record::{Header, Integrity, Record, RecordReader, SnapshotReader};
use tokio::sync::{mpsc, oneshot};

use crate::sample::Sample;

/// How many relationships are asked about by default.
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
    /// The next ones; `None` when there are no more, and the stream has proven to be complete.
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
                while let Some(batch) = next_batch(&mut checks).transpose() {
                    let failed = batch.is_err();
                    if batches.blocking_send(batch).is_err() || failed {
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

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read, Write as _};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use clap::Parser as _;
    use spice_record::CheckWriter;
    use spice_record::checks::{Fault, Question};

    use super::*;

    fn begin_of(stream: &str) -> Result<Begun, CommandError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(stream.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let args = crate::Check::parse_from(["spice-check", path]);
        begin(&args, &mut Rng::with_seed(1))
    }

    fn check(number: usize) -> Check {
        let object = |object_type: &str, id: String| {
            Some(authzed::v1::ObjectReference {
                object_type: object_type.to_owned(),
                object_id: id,
            })
        };
        Check {
            request: Question(authzed::v1::CheckBulkPermissionsRequestItem {
                resource: object("document", number.to_string()),
                permission: "view".to_owned(),
                subject: Some(authzed::v1::SubjectReference {
                    object: object("user", "eve".to_owned()),
                    optional_relation: String::new(),
                }),
                context: None,
            }),
            answer: Answer::Error(Fault {
                code: 9,
                message: "no".to_owned(),
                reason: None,
            }),
            other_server: None,
            inconclusive: false,
        }
    }

    fn checks(count: usize) -> String {
        let header = Header::new(StreamKind::Checks, "test", "2026-11-24T00:00:00Z");
        let mut writer = CheckWriter::create(Vec::new(), header).unwrap();
        for number in 0..count {
            writer.write(check(number)).unwrap();
        }
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    /// Reads all batches; how many checks came.
    fn read_all(stream: &str) -> Result<usize, CommandError> {
        let Begun::Checks(mut reader) = begin_of(stream)? else {
            panic!("not a stream of checks");
        };
        let mut count = 0;
        while let Some(batch) = next_batch(&mut reader)? {
            count += batch.len();
        }
        Ok(count)
    }

    #[test]
    fn snapshot_whose_trailer_proves_nothing_is_refused() {
        let sound = testdata::snapshot(20);
        assert!(matches!(begin_of(&sound), Ok(Begun::Sample(..))));
        for (fault, stream) in testdata::faulty_trailers(&sound) {
            let failure = begin_of(&stream).err().expect(fault);
            assert_eq!(failure.exit, Exit::BadData, "{fault}");
        }
    }

    #[test]
    fn checks_whose_trailer_proves_nothing_are_refused() {
        let sound = checks(450);
        assert_eq!(read_all(&sound).unwrap(), 450);
        for (fault, stream) in testdata::faulty_trailers(&sound) {
            let failure = read_all(&stream).expect_err(fault);
            assert_eq!(failure.exit, Exit::BadData, "{fault}");
        }
    }

    /// Counts the bytes that were taken of an input.
    struct Counted<R>(R, Arc<AtomicUsize>);

    impl<R: Read> Read for Counted<R> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(into)?;
            self.1.fetch_add(count, Ordering::Relaxed);
            Ok(count)
        }
    }

    #[test]
    fn checks_are_read_one_batch_at_a_time() {
        let stream = checks(20 * BATCH);
        let line = stream.len() / (20 * BATCH);
        let read = Arc::new(AtomicUsize::new(0));
        let input = Counted(std::io::Cursor::new(stream.into_bytes()), Arc::clone(&read));
        let input: Box<dyn std::io::BufRead + Send> = Box::new(BufReader::new(input));
        let mut records = RecordReader::new(input, "test");
        let Some(Record::Header(header)) = records.next_record().unwrap() else {
            panic!("no header");
        };
        let mut reader = CheckReader::after(records, header).unwrap();
        for number in 1..=5 {
            let batch = next_batch(&mut reader).unwrap().unwrap();
            assert_eq!(batch.len(), BATCH);
            let read = read.load(Ordering::Relaxed);
            let most = number * BATCH * (line + 8) + (16 << 10);
            assert!(read <= most, "batch {number}: {read} bytes of {most}");
        }
    }

    #[test]
    fn batch_is_bounded_by_bytes() {
        let header = Header::new(StreamKind::Checks, "test", "2026-11-24T00:00:00Z");
        let mut writer = CheckWriter::create(Vec::new(), header).unwrap();
        for number in 0..20 {
            let mut large = check(number);
            large.answer = Answer::Error(Fault {
                code: 9,
                message: "x".repeat(BATCH_BYTES / 4),
                reason: None,
            });
            writer.write(large).unwrap();
        }
        let stream = String::from_utf8(writer.finish().unwrap()).unwrap();
        let Begun::Checks(mut reader) = begin_of(&stream).unwrap() else {
            panic!("not a stream of checks");
        };
        assert_eq!(next_batch(&mut reader).unwrap().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn reader_waits_for_the_batches_to_be_taken() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(checks(20 * BATCH).as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let args = crate::Check::parse_from(["spice-check", path]);
        let input = read(&args, Rng::with_seed(1)).await.unwrap();
        let Input::Checks(_, mut batches) = input else {
            panic!("not a stream of checks");
        };
        assert_eq!(batches.0.max_capacity(), 1, "one batch is read ahead");
        let mut count = 0;
        while let Some(batch) = batches.next().await.unwrap() {
            count += batch.len();
        }
        assert_eq!(count, 20 * BATCH);
    }
}
