//! Rows survive being encoded, cut and decoded.

use spice_client::scripted::{expiring, relationship};

use super::{CHUNK_RELATIONSHIPS, Chunk, ChunkBuilder, MESSAGE_BYTES, Row};

fn row(line: u64) -> Row {
    Row {
        line,
        relationship: relationship(&format!("row{line:05}")),
    }
}

/// Enough rows for several messages.
fn rows(count: u64) -> Vec<Row> {
    (1..=count).map(row).collect()
}

fn lines(chunk: &Chunk) -> Vec<u64> {
    let rows = chunk.rows().expect("decoded");
    for row in &rows {
        assert_eq!(
            row.relationship,
            relationship(&format!("row{:05}", row.line))
        );
    }
    rows.iter().map(|row| row.line).collect()
}

#[test]
fn rows_come_back_with_their_lines() {
    let chunk = Chunk::from_rows(&rows(20_000));
    assert!(chunk.messages.len() > 2, "{}", chunk.messages.len());
    assert_eq!((chunk.len(), chunk.lines()), (20_000, (1, 20_000)));
    assert_eq!(lines(&chunk), Vec::from_iter(1..=20_000));
    assert!(!chunk.expires);
}

#[test]
fn no_rows_are_no_chunk() {
    assert!(ChunkBuilder::default().take().is_none());
    let chunk = Chunk::from_rows(&[]);
    assert_eq!((chunk.len(), chunk.lines()), (0, (0, 0)));
}

#[test]
fn a_builder_begins_again_after_each_chunk() {
    let mut builder = ChunkBuilder::default();
    builder.push(7, &row(7).relationship);
    assert_eq!(builder.take().map(|chunk| chunk.lines()), Some((7, 7)));
    assert!(builder.take().is_none());
    builder.push(8, &row(8).relationship);
    assert_eq!(builder.take().map(|chunk| chunk.lines()), Some((8, 8)));
}

#[test]
fn a_chunk_is_full_by_rows_or_by_bytes() {
    let mut builder = ChunkBuilder::default();
    let small = row(1).relationship;
    let rows = CHUNK_RELATIONSHIPS as u64;
    for line in 1..rows {
        builder.push(line, &small);
    }
    assert!(!builder.is_full());
    builder.push(rows, &small);
    assert!(builder.is_full());
    let mut large = small.clone();
    large.relation = "r".repeat(1 << 20);
    let mut builder = ChunkBuilder::default();
    for line in 1..=6 {
        assert!(!builder.is_full(), "{line}");
        builder.push(line, &large);
    }
    assert!(builder.is_full());
}

#[test]
fn no_message_is_far_above_its_bound() {
    let chunk = Chunk::from_rows(&rows(20_000));
    for message in &chunk.messages {
        let relationships = message.decode().expect("decoded");
        let bytes: usize = relationships.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes <= MESSAGE_BYTES, "{bytes} bytes");
    }
}

#[test]
fn an_expiry_marks_its_chunk() {
    let row = Row {
        line: 1,
        relationship: expiring("a", 1),
    };
    assert!(Chunk::from_rows(&[row]).expires);
}

#[test]
fn only_counts_of_complete_messages_are_known() {
    let chunk = Chunk::from_rows(&rows(20_000));
    let first = chunk.messages[0].len() as u64;
    let second = chunk.messages[1].len() as u64;
    assert_eq!(chunk.messages_holding(first), Some(1));
    assert_eq!(chunk.messages_holding(first + second), Some(2));
    assert_eq!(chunk.messages_holding(20_000), Some(chunk.messages.len()));
    for lost in [first - 1, first + 1, 19_999, 20_001] {
        assert_eq!(chunk.messages_holding(lost), None, "{lost}");
    }
}

#[test]
fn a_chunk_is_split_between_messages() {
    let chunk = Chunk::from_rows(&rows(20_000));
    let first = chunk.messages[0].len() as u64;
    let (done, rest) = chunk.split_at_message(1);
    assert_eq!(lines(&done), Vec::from_iter(1..=first));
    assert_eq!(lines(&rest), Vec::from_iter(first + 1..=20_000));
}
