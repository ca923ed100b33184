//! The thread that reads a stream, or follows a spool, and checks it.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use authzed::v1::{RelationshipUpdate, relationship_update::Operation};
use spice_pipe::budget::{self, Receiver, Sender};
use spice_pipe::spool::{Followed, Follower, Spool};
use spice_pipe::{Exit, Failure, stdio};
use spice_record::record::{Place, Position, SchemaChange, StreamKind, Transaction};
use spice_record::relationship::Update;
use spice_record::{DigestSum, Header, ReadError, Record, RecordReader, Trailer};

use crate::position::check_start;

/// What may be read ahead: the backlog that can be coalesced.
const AHEAD_BYTES: usize = 16 << 20;
/// What a revision takes in memory beyond its text, however small it is: without this, the peak of
/// 400,000 revisions of one update was twice that of 5,000 of a thousand (measured, 100 and 51 MiB).
const STEP_BYTES: usize = 512;
/// Updates without revisions are handed on in groups.
const GROUP: usize = 1_000;
/// How long a follower sleeps at the end of a spool.
const NAP: Duration = Duration::from_millis(5);
/// How long no writer may be seen before that is taken for its end, and how often it is said.
const WRITER_GONE: Duration = Duration::from_secs(5);
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What the thread hands on.
#[derive(Debug)]
pub(crate) enum Step {
    /// Once, first; `None` for a stream without a header.
    Header(Option<Box<Header>>),
    Transaction(Box<Transaction>, Place),
    /// Updates that have no revision.
    Updates(Vec<RelationshipUpdate>),
    Schema(Box<SchemaChange>, Place),
    Checkpoint(String, Place),
    /// The stream ended as it should, after everything through this revision.
    End(Option<String>),
    /// The stream was cut: what came before is good.
    Cut(Failure),
    /// It is damaged, or not what it should be.
    Failed(Failure),
}

/// What to read.
pub(crate) struct Input {
    pub(crate) file: PathBuf,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) position: Option<Position>,
    pub(crate) unsealed: bool,
    /// Whether an end of the stream is waited for: then a dead writer matters.
    pub(crate) until: bool,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Input {
    pub(crate) fn start(self) -> Receiver<Step> {
        let (sender, receiver) = budget::channel(AHEAD_BYTES);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let send = |step, bytes: usize| {
                let bytes = bytes.saturating_add(STEP_BYTES);
                runtime.block_on(sender_send(&sender, step, bytes))
            };
            let ended = match &self.spool {
                Some(spool) => self.follow(&Spool::new(spool), &send),
                None => self.read(&send),
            };
            if let Err(failure) = ended {
                send(Step::Failed(failure), 1);
            }
        });
        receiver
    }

    fn read(&self, send: &dyn Fn(Step, usize) -> bool) -> Result<(), Failure> {
        let (input, name) = stdio::open(&self.file)?;
        let mut records = RecordReader::new(input, name);
        let first = match records.next_record() {
            Ok(Some(first)) => first,
            Ok(None) => {
                let empty = records.stream_fault("empty input: the producer wrote nothing");
                return Err(empty.into());
            }
            Err(error) => return Err(error.into()),
        };
        match first {
            Record::Header(header) => {
                records.check_format(&header)?;
                let kind = header.stream;
                if kind == StreamKind::Changes {
                    let start = check_start(self.position.as_ref(), &header);
                    start.map_err(|message| records.fault(message))?;
                } else if self.position.is_some() {
                    return Err(Failure::usage(format!(
                        "--position: a stream of {kind} has no revisions to stand at"
                    )));
                }
                if !send(Step::Header(Some(header.clone())), 1) {
                    return Ok(());
                }
                match kind {
                    StreamKind::Changes => changes(&mut records, &header, send),
                    _ => updates(&mut records, Some(&header), None, send),
                }
            }
            first if self.unsealed => {
                if !send(Step::Header(None), 1) {
                    return Ok(());
                }
                match &first {
                    Record::Relationship(_) | Record::Update(_) => {
                        updates(&mut records, None, Some(first), send)
                    }
                    _ => Err(records
                        .fault("without a header only relationships and updates can be applied")
                        .into()),
                }
            }
            other => {
                let kind = other.kind();
                Err(Failure::from(records.fault(format!("expected a header, got a {kind}"))).hint(
                    "a stream made by hand needs --unsealed; nothing proves then that it is whole",
                ))
            }
        }
    }

    fn follow(&self, spool: &Spool, send: &dyn Fn(Step, usize) -> bool) -> Result<(), Failure> {
        let mut watch = Neighbour::new(spool, self.until);
        let mut follower = loop {
            match Follower::open(spool)? {
                Some(follower) => break follower,
                None if self.stop.load(Ordering::Relaxed) => return Ok(()),
                None => watch.look("there is no spool yet", None)?,
            }
            std::thread::sleep(NAP * 10);
        };
        let header = follower.header().clone();
        if self.position.is_none() && follower.segment() > 0 {
            let path = spool.path().display();
            return Err(Failure::new(
                Exit::BadData,
                format!(
                    "gap: the beginning of the spool {path} was pruned, and no position says that it was \
                     applied"
                ),
            )
            .hint("give the --position FILE that it was applied with; or begin at a new copy"));
        }
        if let Some(position) = &self.position {
            let start = position.source_revision.as_str();
            if !follower.seek(start, position.spool)? {
                let path = spool.path().display();
                return Err(Failure::new(
                    Exit::BadData,
                    format!("the spool {path} does not hold the position's revision {start}"),
                )
                .hint(
                    "it is another spool than that of the position, or it lost its end with the power: a \
                     capture from that revision has to be begun anew (spice-watch --since-file POSITION \
                     --spool NEW)",
                ));
            }
        }
        if !send(Step::Header(Some(Box::new(header.clone()))), 1) {
            return Ok(());
        }
        // What it ends at, if nothing new comes.
        let mut last = match &self.position {
            Some(position) => Some(position.source_revision.clone()),
            None => header.revision.clone(),
        };
        loop {
            let (record, place, bytes) = match follower.next()? {
                Followed::Record(record, place, bytes) => (record, place, bytes),
                Followed::CaughtUp if self.stop.load(Ordering::Relaxed) => return Ok(()),
                Followed::CaughtUp => {
                    std::thread::sleep(NAP);
                    watch.look("nobody appends to the spool", last.as_deref())?;
                    continue;
                }
            };
            watch.seen();
            let step = match *record {
                Record::Transaction(change) => {
                    last = Some(change.revision.clone());
                    Step::Transaction(change, place)
                }
                Record::Schema(change) => {
                    last = Some(change.revision.clone());
                    Step::Schema(change, place)
                }
                Record::Checkpoint(checkpoint) => {
                    last = Some(checkpoint.revision.clone());
                    Step::Checkpoint(checkpoint.revision, place)
                }
                other => {
                    let message = format!("a spool holds no {} here", other.kind());
                    return Err(Failure::new(Exit::BadData, message));
                }
            };
            if !send(step, bytes) {
                return Ok(());
            }
        }
    }
}

async fn sender_send(sender: &Sender<Step>, step: Step, bytes: usize) -> bool {
    sender.send(step, bytes).await
}

/// Whether the writer of a spool is still at work, when there is nothing to read.
struct Neighbour<'a> {
    spool: &'a Spool,
    until: bool,
    alone_since: Option<Instant>,
    said: Option<Instant>,
    looked: Instant,
}

impl<'a> Neighbour<'a> {
    fn new(spool: &'a Spool, until: bool) -> Self {
        Self {
            spool,
            until,
            alone_since: None,
            said: None,
            looked: Instant::now(),
        }
    }

    fn seen(&mut self) {
        self.alone_since = None;
    }

    /// Exit 4 where the writer's last word was that; 75 where it is gone and an end is waited for.
    fn look(&mut self, what: &str, last: Option<&str>) -> Result<(), Failure> {
        if self.looked.elapsed() < Duration::from_millis(200) {
            return Ok(());
        }
        self.looked = Instant::now();
        if self.spool.writer_lives() {
            self.alone_since = None;
            return Ok(());
        }
        let path = self.spool.path().display();
        let alone = *self.alone_since.get_or_insert_with(Instant::now);
        // A writer that has just ended may have written more than was read.
        if alone.elapsed() > Duration::from_millis(500)
            && let Some(word) = self.spool.lost()
        {
            return Err(Failure::new(
                Exit::HistoryLost,
                format!("the capture into {path} ended: {}", word.trim()),
            )
            .hint(
                "take a new snapshot: what is on the target lacks the changes after that revision",
            ));
        }
        if alone.elapsed() < WRITER_GONE {
            return Ok(());
        }
        let where_ = match last {
            Some(revision) => format!("it ends at revision {revision}"),
            None => "nothing is in it".to_owned(),
        };
        if self.until {
            return Err(Failure::new(
                Exit::TryAgain,
                format!("{what} {path}, and {where_}, before --until"),
            )
            .hint("run spice-watch --spool again, then the same command"));
        }
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!("{what} {path}: is spice-watch running? {where_}");
        }
        Ok(())
    }
}

/// A change stream, from stdin or a file.
fn changes<R: BufRead>(
    records: &mut RecordReader<R>,
    header: &Header,
    send: &dyn Fn(Step, usize) -> bool,
) -> Result<(), Failure> {
    loop {
        let begin = records.offset();
        let record = match records.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => {
                let fault = records.stream_fault("cut: the changes end without a trailer");
                send(Step::Cut(cut(fault)), 1);
                return Ok(());
            }
            Err(fault @ ReadError::Torn { .. }) => {
                send(Step::Cut(cut(fault)), 1);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = usize::try_from(records.offset() - begin).unwrap_or(usize::MAX);
        let place = Place::default();
        let step = match record {
            Record::Transaction(change) => Step::Transaction(change, place),
            Record::Schema(change) => Step::Schema(change, place),
            Record::Checkpoint(checkpoint) => Step::Checkpoint(checkpoint.revision, place),
            Record::Trailer(trailer) => {
                check_header(records, &trailer, header)?;
                if let Some(after) = records.next_record()? {
                    let kind = after.kind();
                    return Err(records.fault(format!("{kind} after the trailer")).into());
                }
                send(Step::End(trailer.revision), 1);
                return Ok(());
            }
            other => {
                let kind = other.kind();
                return Err(records
                    .fault(format!("a change stream holds no {kind}"))
                    .into());
            }
        };
        if !send(step, bytes) {
            return Ok(());
        }
    }
}

/// A snapshot, or updates: relationships to be touched, and updates to be done.
fn updates<R: BufRead>(
    records: &mut RecordReader<R>,
    header: Option<&Header>,
    mut first: Option<Record>,
    send: &dyn Fn(Step, usize) -> bool,
) -> Result<(), Failure> {
    let mut sum = DigestSum::default();
    let mut count = 0;
    let mut group = Vec::with_capacity(GROUP);
    let mut begin = records.offset();
    loop {
        let record = match first.take() {
            Some(first) => Some(first),
            None => records.next_record()?,
        };
        let update = match record {
            Some(Record::Relationship(relationship)) => {
                sum.add(&relationship);
                RelationshipUpdate {
                    operation: Operation::Touch.into(),
                    relationship: Some(relationship),
                }
            }
            Some(Record::Update(update)) => {
                count += 1;
                let Update(update) = *update;
                update
            }
            Some(Record::Trailer(trailer)) => {
                check_counts(records, &trailer, &sum, count)?;
                if let Some(header) = header {
                    check_header(records, &trailer, header)?;
                }
                if let Some(after) = records.next_record()? {
                    let kind = after.kind();
                    return Err(records.fault(format!("{kind} after the trailer")).into());
                }
                if send(Step::Updates(group), 1) {
                    send(Step::End(None), 1);
                }
                return Ok(());
            }
            Some(other) => {
                let kind = other.kind();
                return Err(records
                    .fault(format!(
                        "expected a relationship or an update, got a {kind}"
                    ))
                    .into());
            }
            None if header.is_none() => {
                if send(Step::Updates(group), 1) {
                    send(Step::End(None), 1);
                }
                return Ok(());
            }
            None => {
                let came = sum.relationships() + count;
                return Err(records
                    .stream_fault(format!(
                        "cut: the input ends after {came} records without a trailer"
                    ))
                    .into());
            }
        };
        group.push(update);
        if group.len() >= GROUP {
            let bytes = usize::try_from(records.offset() - begin).unwrap_or(usize::MAX);
            begin = records.offset();
            if !send(Step::Updates(std::mem::take(&mut group)), bytes) {
                return Ok(());
            }
        }
    }
}

fn check_counts<R: BufRead>(
    records: &RecordReader<R>,
    trailer: &Trailer,
    sum: &DigestSum,
    updates: u64,
) -> Result<(), ReadError> {
    let (promised, came) = (trailer.relationships.unwrap_or(0), sum.relationships());
    if promised != came || trailer.updates.unwrap_or(0) != updates {
        return Err(records.fault(format!(
            "the trailer promises {promised} relationships and {} updates; {came} and {updates} came",
            trailer.updates.unwrap_or(0),
        )));
    }
    if let (Some(digest), Some(precision)) = (trailer.digest, trailer.expiry_precision)
        && digest != sum.digest(precision)
    {
        return Err(records.fault("relationships altered: they do not have the trailer's digest"));
    }
    Ok(())
}

fn check_header<R: BufRead>(
    records: &RecordReader<R>,
    trailer: &Trailer,
    header: &Header,
) -> Result<(), ReadError> {
    if trailer.header.is_some_and(|sum| sum != header.checksum()) {
        return Err(records.fault("header altered: its checksum is not the trailer's"));
    }
    Ok(())
}

/// A producer that died: everything whole that it wrote is applied, and the same command goes on.
fn cut(fault: ReadError) -> Failure {
    Failure::from(fault).with_exit(Exit::TryAgain).hint(
        "what came before is on the target and the position is saved: run the same command again, with \
         spice-watch --since-file POSITION",
    )
}

/// Whether to read from stdin while nobody writes to it.
pub(crate) fn waits_for_a_person(file: &Path, spool: Option<&Path>) -> bool {
    spool.is_none() && file == Path::new("-") && stdio::stdin_is_terminal()
}
