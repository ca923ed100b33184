//! Streams that a test writes line by line, with the checksums that our programs give them.

use std::path::Path;

use serde_json::{Value, json};
use spice_record::record::{Position, StreamEnd, StreamKind, Trailer};
use spice_record::{Change, ChangeSealer, Header, Record};

/// The lines of a stream. Of changes, header, lines and trailer get their checksums, as if they had
/// been written so; any other line, and one that is none of this format, stays as it is.
pub fn lines<'a>(records: impl IntoIterator<Item = &'a Value>) -> String {
    Lines::default().add(records)
}

/// A position, as in its file.
pub fn position(source: &str, target: &str) -> Value {
    let mut position = Position {
        source_revision: source.to_owned(),
        target_revision: Some(target.to_owned()),
        ..Position::default()
    };
    position.checksum = Some(position.compute_checksum().unwrap());
    json!({ "position": position })
}

/// Changes a position file as if it had been written so.
pub fn change_position(path: &Path, change: impl FnOnce(&mut Position)) {
    let text = std::fs::read_to_string(path).unwrap();
    let Record::Position(mut position) = serde_json::from_str(&text).unwrap() else {
        panic!("no position: {text}");
    };
    change(&mut position);
    position.checksum = Some(position.compute_checksum().unwrap());
    let text = serde_json::to_string(&Record::Position(position)).unwrap();
    std::fs::write(path, text + "\n").unwrap();
}

/// The same for a stream that comes bit by bit.
#[derive(Default)]
pub struct Lines(Option<ChangeSealer>);

impl Lines {
    /// The next lines.
    pub fn add<'a>(&mut self, records: impl IntoIterator<Item = &'a Value>) -> String {
        let sealed = records.into_iter().map(|record| self.sealed(record));
        sealed.map(|record| format!("{record}\n")).collect()
    }

    fn sealed(&mut self, record: &Value) -> Value {
        if let Some(header) = record.get("header") {
            let Ok(header) = serde_json::from_value::<Header>(header.clone()) else {
                return record.clone();
            };
            if header.stream != StreamKind::Changes {
                return json!({ "header": header.sealed() });
            }
            // The second header of a spool begins a segment.
            let header = match &mut self.0 {
                Some(sealer) => sealer.next_segment(header),
                None => {
                    let (sealer, header) = ChangeSealer::begin(header);
                    self.0 = Some(sealer);
                    header
                }
            };
            return json!({ "header": header });
        }
        let Some(sealer) = &mut self.0 else {
            return record.clone();
        };
        if let Some(trailer) = record.get("trailer") {
            let mut whole = serde_json::to_value(sealer.trailer(StreamEnd::Until)).unwrap();
            // The values of the test count.
            for (name, value) in trailer.as_object().unwrap() {
                whole["trailer"][name] = value.clone();
            }
            let changed = serde_json::from_value::<Trailer>(whole["trailer"].clone());
            return changed.map_or(whole, |trailer| json!({ "trailer": trailer.sealed() }));
        }
        match serde_json::from_value::<Record>(record.clone()).map(Change::try_from) {
            Ok(Ok(change)) => serde_json::to_value(sealer.seal(change)).unwrap(),
            _ => record.clone(),
        }
    }
}
