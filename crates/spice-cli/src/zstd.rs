//! zstd: recognised in input, and the level, window and checksum of output.

use std::io::{self, BufRead, BufReader, Read, Write};

use ::zstd::stream::read::Decoder;

use crate::stdio::BUFFER_BYTES;

/// Packs what is written to it.
pub(crate) type Encoder<W> = ::zstd::stream::write::Encoder<'static, W>;

/// The largest window of compressed input, 16 MiB: memory that the input asks for. `zstd -19` uses 8 MiB.
const WINDOW_LOG_MAX: u32 = 24;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The levels of `--zstd`. From 20 on the default window is one that our own readers refuse.
pub const LEVELS: std::ops::RangeInclusive<i64> = 1..=19;
/// The level of `--zstd` without a number.
pub const DEFAULT_LEVEL: &str = "3";

/// Packs with a level of [`LEVELS`], and a checksum.
pub(crate) fn encoder<W: Write>(out: W, level: i32) -> io::Result<Encoder<W>> {
    let mut encoder = Encoder::new(out, level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// Unpacks input that is zstd, and passes on any other.
pub(crate) fn unpacked(mut input: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
    input
        .by_ref()
        .take(ZSTD_MAGIC.len() as u64)
        .read_to_end(&mut start)?;
    let packed = start == ZSTD_MAGIC;
    let complete = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(start).chain(input));
    if packed {
        let mut decoder = Decoder::with_buffer(complete)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let decoder = Unpack(decoder);
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)));
    }
    Ok(Box::new(complete))
}

/// Reports "invalid data" where the decoder reports "other": damage is not a failing disk.
struct Unpack<R: BufRead>(Decoder<'static, R>);

impl<R: BufRead> Read for Unpack<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Other => io::Error::new(io::ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}
