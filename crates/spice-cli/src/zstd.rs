//! zstd: how it begins, the level, window and checksum of output, and the decoder with its errors.

use std::io::{self, BufRead, Read, Write};

use ::zstd::stream::read::Decoder as ZstdDecoder;

/// Compresses what is written to it.
pub(crate) type Encoder<W> = ::zstd::stream::write::Encoder<'static, W>;

/// The largest window of compressed input, 16 MiB: memory that the input asks for. `zstd -19` uses 8 MiB.
const WINDOW_LOG_MAX: u32 = 24;
pub(crate) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The levels of `--zstd`. From 20 on the default window is one that our own readers refuse.
pub const LEVELS: std::ops::RangeInclusive<i64> = 1..=19;
/// The level of `--zstd` without a number.
pub const DEFAULT_LEVEL: &str = "3";

/// Compresses with a level of [`LEVELS`], and a checksum.
pub(crate) fn encoder<W: Write>(out: W, level: i32) -> io::Result<Encoder<W>> {
    let mut encoder = Encoder::new(out, level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// Decompresses. Reports "invalid data" where the decoder reports "other": damage is not a failing
/// disk.
pub(crate) struct Decoder<R: BufRead>(ZstdDecoder<'static, R>);

impl<R: BufRead> Decoder<R> {
    pub(crate) fn new(input: R) -> io::Result<Self> {
        let mut decoder = ZstdDecoder::with_buffer(input)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Ok(Self(decoder))
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Other => io::Error::new(io::ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}
