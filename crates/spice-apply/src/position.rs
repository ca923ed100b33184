//! Where an apply stands, and whether a stream goes on there.

use authzed::zedtoken;
use spice_pipe::connection::datastore_id;
use spice_pipe::position::PositionFile;
use spice_pipe::{Exit, Failure};
use spice_record::Header;
use spice_record::record::Position;

/// Whether a stream starts where a position stands, or earlier: then nothing is missing between them.
///
/// # Errors
///
/// What is wrong, for the message.
pub(crate) fn check_start(position: Option<&Position>, header: &Header) -> Result<(), String> {
    let (Some(position), Some(start)) = (position, &header.revision) else {
        return Ok(());
    };
    // The very first start stays good: on PostgreSQL a revision whose transaction began before it does
    // not see everything that it sees.
    if *start == position.source_revision || position.start.as_ref() == Some(start) {
        return Ok(());
    }
    let sees = match (
        zedtoken::decode(&position.source_revision),
        zedtoken::decode(start),
    ) {
        (Ok(stands), Ok(start)) if stands == start => Some(true),
        (Ok(stands), Ok(start)) => stands.revision.sees(&start.revision),
        _ => None,
    };
    if sees == Some(true) {
        return Ok(());
    }
    Err(format!(
        "gap: the stream begins after revision {start}, the position stands at {}: what lies between \
         them would be missing; begin with spice-watch --since-file POSITION",
        position.source_revision
    ))
}

/// Refuses a position that belongs to another source, target or filter: no server would.
///
/// # Errors
///
/// Exit 2.
pub(crate) fn check_belongs(
    file: &PositionFile,
    position: &Position,
    header: &Header,
    target: &str,
) -> Result<(), Failure> {
    let path = file.path().display();
    let source = header.revision.as_deref().and_then(datastore_id);
    let differs = |what: &str, stood: &Option<String>, is: &Option<String>| {
        let known = stood.is_some() && is.is_some() && stood != is;
        known.then(|| {
            let name = |id: &Option<String>| id.clone().unwrap_or_default();
            Failure::new(
                Exit::Usage,
                format!(
                    "the position {path} belongs to another {what} ({}) than this ({})",
                    name(stood),
                    name(is)
                ),
            )
            .hint("check --context and the stream; a new migration takes a new --position file")
        })
    };
    let target = datastore_id(target);
    if let Some(failure) = differs("source", &position.source, &source)
        .or_else(|| differs("target", &position.target, &target))
    {
        return Err(failure);
    }
    if position.filter != header.filter {
        return Err(Failure::usage(format!(
            "the position {path} was reached with another --type filter than this stream's"
        )));
    }
    Ok(())
}
