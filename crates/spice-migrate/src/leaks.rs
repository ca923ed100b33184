//! What others have written to the source behind the fence, as the spool has it.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};

use spice_record::{Record, RecordReader};

use crate::phase::SpoolEnd;
use crate::session::Session;
use crate::suite::{CommandError, Exit, Outcome, Spool, escape};

/// Of each change so much is shown.
const SHOWN: usize = 300;

/// How many changes of others came after everything through the first marker was captured. The first one
/// of each file is shown.
pub(crate) fn count(session: &Session, drained: SpoolEnd, markers: &[&str]) -> Outcome<usize> {
    let spool = session.spool();
    let failed = |error: String| {
        let message = format!("cannot read {}: {error}", spool.path().display());
        CommandError::new(Exit::Failed, message).hint(format!("run: {}", session.words.same()))
    };
    let segments = spool
        .segments()
        .map_err(|error| failed(error.to_string()))?;
    if !segments.contains(&drained.segment) {
        tracing::info!(
            "the spool has no segment {}, where everything before the fence ends",
            drained.segment
        );
        return Ok(1);
    }
    let mut count = 0;
    for segment in segments
        .into_iter()
        .filter(|number| *number >= drained.segment)
    {
        let offset = if segment == drained.segment {
            drained.offset
        } else {
            0
        };
        let found = by_others(&spool, segment, offset, markers).map_err(failed)?;
        if let Some(first) = found.first() {
            tracing::info!("after the fence: {}", escape(first));
        }
        count += found.len();
    }
    Ok(count)
}

/// The changes in a segment without what spice-watch itself adds at a marker: states of relationships that
/// collided.
fn by_others(
    spool: &Spool,
    segment: u64,
    offset: u64,
    markers: &[&str],
) -> Result<Vec<String>, String> {
    let open = || -> io::Result<File> {
        let mut file = File::open(spool.segment(segment))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    };
    let file = open().map_err(|error| error.to_string())?;
    let name = spool.segment(segment).display().to_string();
    let mut records = RecordReader::new(BufReader::new(file), name);
    let mut found = Vec::new();
    while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
        let is_change = match &record {
            Record::Transaction(change) => !markers.contains(&change.revision.as_str()),
            Record::Schema(change) => !markers.contains(&change.revision.as_str()),
            _ => false,
        };
        if is_change {
            let text = serde_json::to_string(&record).map_err(|error| error.to_string())?;
            found.push(text.chars().take(SHOWN).collect());
        }
    }
    Ok(found)
}

/// Where the spool ends now.
pub(crate) fn end(session: &Session) -> Outcome<SpoolEnd> {
    let end = session.spool().end().map(|end| SpoolEnd {
        segment: end.segment,
        offset: end.offset,
    });
    end.ok_or_else(|| {
        CommandError::new(
            Exit::Failed,
            format!("{} is gone", session.spool_file().display()),
        )
        .hint(format!("run: {}", session.words.same()))
    })
}
