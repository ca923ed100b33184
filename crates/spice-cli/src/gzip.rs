//! gzip: how it begins, the levels of output, and the decoder with its errors.

use std::io::{self, BufRead, Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Compresses what is written to it.
pub(crate) type Encoder<W> = GzEncoder<W>;

pub(crate) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The levels of `--gzip`.
pub const LEVELS: std::ops::RangeInclusive<i64> = 1..=9;
/// The level of `--gzip` without a number.
pub const DEFAULT_LEVEL: &str = "6";

/// Compresses with a level of [`LEVELS`]. gzip always has a checksum.
pub(crate) fn encoder<W: Write>(out: W, level: u32) -> Encoder<W> {
    GzEncoder::new(out, Compression::new(level))
}

/// Decompresses all members of the input up to its end, so that nothing may follow the last one.
///
/// The decoder reports damage as "invalid input". This reports it as "invalid data", as for zstd.
pub(crate) struct Decoder<R>(MultiGzDecoder<R>);

impl<R: BufRead> Decoder<R> {
    pub(crate) fn new(input: R) -> Self {
        Self(MultiGzDecoder::new(input))
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => io::Error::new(io::ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}
