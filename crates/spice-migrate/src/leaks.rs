//! What others have written to the source behind the fence, as the spool has it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom};

use spice_record::record::is_applied_from;
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
    let target = session.state()?.target.datastore_id.unwrap_or_default();
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
        let records = records(&spool, segment, offset).map_err(failed)?;
        let found = by_others(records, markers, &target).map_err(failed)?;
        count += shown(&found);
    }
    Ok(count)
}

/// How many changes of others a stream of changes after the first marker holds. The first one is shown.
pub(crate) fn count_in(session: &Session, changes: &[u8], markers: &[&str]) -> Outcome<usize> {
    let target = session.state()?.target.datastore_id.unwrap_or_default();
    let found = by_others(RecordReader::new(changes, "spice-watch"), markers, &target);
    let found = found.map_err(|error| {
        CommandError::new(Exit::Failed, error).hint(format!("run: {}", session.words.same()))
    })?;
    Ok(shown(&found))
}

/// Shows the first of these changes; returns how many they are.
fn shown(found: &[String]) -> usize {
    if let Some(first) = found.first() {
        tracing::info!("after the fence: {}", escape(first));
    }
    found.len()
}

/// The records of a segment from an offset on.
fn records(
    spool: &Spool,
    segment: u64,
    offset: u64,
) -> Result<RecordReader<BufReader<File>>, String> {
    let open = || -> io::Result<File> {
        let mut file = File::open(spool.segment(segment))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    };
    let file = open().map_err(|error| error.to_string())?;
    let name = spool.segment(segment).display().to_string();
    Ok(RecordReader::new(BufReader::new(file), name))
}

/// The changes in records without what spice-watch itself adds at a marker, states of relationships that
/// collided, and without what `reverse` has brought from the target.
fn by_others(
    mut records: RecordReader<impl BufRead>,
    markers: &[&str],
    target: &str,
) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
        let is_change = match &record {
            Record::Transaction(change) => {
                let is_reversed = !target.is_empty()
                    && is_applied_from(target, change.metadata.iter().map(|one| &one.0));
                !is_reversed && !markers.contains(&change.revision.as_str())
            }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Spool, by_others, records};

    #[test]
    fn what_reverse_brought_back_is_no_leak() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let transaction = |revision: &str, metadata: serde_json::Value| json!({"transaction": {"revision": revision, "updates": [], "metadata": metadata}});
        let applied = |source: &str| json!({"spicePipes": {"source": source, "revision": "r"}});
        let lines = [
            transaction("marker", json!([])),
            transaction("reversed", json!([applied("new-id")])),
            transaction("third", json!([applied("other-id")])),
            transaction("mixed", json!([applied("new-id"), {"user": "eve"}])),
            transaction("late", json!([])),
        ];
        std::fs::write(&path, lines.map(|line| format!("{line}\n")).concat()).unwrap();
        let leaked = |target: &str| {
            let found = by_others(
                records(&Spool::new(&path), 0, 0).unwrap(),
                &["marker"],
                target,
            )
            .unwrap();
            let revisions = ["reversed", "third", "mixed", "late"];
            let is_found = |revision: &&str| found.iter().any(|line| line.contains(*revision));
            revisions.into_iter().filter(is_found).collect::<Vec<_>>()
        };
        assert_eq!(leaked("new-id"), ["third", "mixed", "late"]);
        // A target without a datastore id proves nothing.
        assert_eq!(leaked(""), ["reversed", "third", "mixed", "late"]);
    }
}
