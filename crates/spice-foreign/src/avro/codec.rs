//! How a block is packed: the codecs of the Avro specification.
//!
//! zed writes snappy, and reads null, deflate, snappy and zstandard. The others come from tools that pack Avro
//! files again.

use std::io::{self, Read, Write as _};

use flate2::write::DeflateEncoder;
use flate2::{Crc, Decompress, FlushDecompress, Status};
use lzma_rust2::XzReader;

use super::MAX_BLOCK_BYTES;

/// How a block is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Null,
    /// Deflate, without a checksum.
    Deflate,
    /// Snappy, with a CRC-32 of what was packed.
    #[default]
    Snappy,
    /// Zstandard.
    Zstandard,
    /// bzip2. It is read only.
    Bzip2,
    /// xz. It is read only.
    Xz,
}

/// The window of zstandard that is read at most, 16 MiB: as of a stream.
const WINDOW_LOG_MAX: u32 = 24;
const ZSTD_LEVEL: i32 = 3;
/// Snappy's longest copy makes 64 bytes of 3.
const SNAPPY_RATIO: usize = 22;
/// The dictionary of xz that is read at most, in KiB.
const XZ_MEMORY_KIB: u32 = 64 << 10;
const CRC_BYTES: usize = 4;

impl Codec {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Null,
        Self::Deflate,
        Self::Snappy,
        Self::Zstandard,
        Self::Bzip2,
        Self::Xz,
    ];

    /// Its name in a file's metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Deflate => "deflate",
            Self::Snappy => "snappy",
            Self::Zstandard => "zstandard",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }

    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name().as_bytes() == name)
    }

    pub(super) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Whether a block that was altered is noticed, whatever was altered in it.
    #[must_use]
    pub fn has_checksum(self) -> bool {
        // Those of zstandard and xz are optional.
        matches!(self, Self::Snappy | Self::Bzip2)
    }

    pub(crate) fn pack(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Null => Ok(bytes.to_vec()),
            Self::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Snappy => {
                let mut packed = snap::raw::Encoder::new().compress_vec(bytes)?;
                packed.extend_from_slice(&crc(bytes));
                Ok(packed)
            }
            Self::Zstandard => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Bzip2 | Self::Xz => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{} is not written", self.name()),
            )),
        }
    }

    /// Replaces `out` by what was packed. `packed` holds anything afterwards.
    ///
    /// # Errors
    ///
    /// What is wrong, for the message: other bytes, also behind the end of the packed ones, or too many.
    pub(super) fn unpack(self, packed: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        let rest = match self {
            Self::Null => {
                std::mem::swap(packed, out);
                return Ok(());
            }
            Self::Snappy => return unsnap(packed, out),
            Self::Deflate => inflate(packed, out)?,
            Self::Zstandard if packed.is_empty() => return Err("no zstandard in it".to_owned()),
            // It ends where the last of its frames does.
            Self::Zstandard => {
                let decoder = zstd::stream::read::Decoder::with_buffer(packed.as_slice());
                let mut decoder = decoder.map_err(|error| error.to_string())?;
                let limited = decoder.window_log_max(WINDOW_LOG_MAX);
                limited.map_err(|error| error.to_string())?;
                self.read(&mut decoder, out)?;
                decoder.finish()
            }
            Self::Bzip2 => {
                let mut decoder = bzip2::bufread::BzDecoder::new(packed.as_slice());
                self.read(&mut decoder, out)?;
                decoder.into_inner()
            }
            Self::Xz => {
                let mut decoder = XzReader::new_mem_limit(packed.as_slice(), false, XZ_MEMORY_KIB);
                self.read(&mut decoder, out)?;
                decoder.into_inner()
            }
        };
        match rest.len() {
            0 => Ok(()),
            rest => Err(format!(
                "{rest} bytes behind the end of its {}",
                self.name()
            )),
        }
    }

    fn read(self, decoder: &mut impl Read, out: &mut Vec<u8>) -> Result<(), String> {
        let read = decoder.take(MAX_BLOCK_BYTES + 1).read_to_end(out);
        read.map_err(|error| format!("damaged {}: {error}", self.name()))?;
        match out.len() as u64 > MAX_BLOCK_BYTES {
            true => Err(too_large()),
            false => Ok(()),
        }
    }
}

fn too_large() -> String {
    format!("more than {} MiB unpacked", MAX_BLOCK_BYTES >> 20)
}

/// Returns what follows the end. The decoder that reads takes an input which ends too early for complete.
fn inflate<'a>(packed: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], String> {
    const ROOM: usize = 64 << 10;
    let mut decoder = Decompress::new(false);
    let mut rest = packed;
    loop {
        let (before, length) = (decoder.total_in(), out.len());
        out.reserve(ROOM);
        let status = decoder.decompress_vec(rest, out, FlushDecompress::None);
        let status = status.map_err(|error| format!("damaged deflate: {error}"))?;
        let read = usize::try_from(decoder.total_in() - before).unwrap_or(usize::MAX);
        rest = rest.get(read..).unwrap_or_default();
        if out.len() as u64 > MAX_BLOCK_BYTES {
            return Err(too_large());
        }
        match status {
            Status::StreamEnd => return Ok(rest),
            _ if read == 0 && out.len() == length => {
                return Err("damaged deflate: it ends too early".to_owned());
            }
            _ => {}
        }
    }
}

fn unsnap(packed: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let damaged = |error: snap::Error| format!("damaged snappy: {error}");
    let length = packed.len().checked_sub(CRC_BYTES);
    let length = length.ok_or("damaged snappy: no checksum")?;
    let (packed, expected) = packed.split_at(length);
    let length = snap::raw::decompress_len(packed).map_err(damaged)?;
    if length as u64 > MAX_BLOCK_BYTES {
        return Err(too_large());
    }
    if length > packed.len().saturating_mul(SNAPPY_RATIO) {
        return Err(format!("damaged snappy: it claims {length} bytes"));
    }
    out.resize(length, 0);
    let mut decoder = snap::raw::Decoder::new();
    let found = decoder.decompress(packed, out).map_err(damaged)?;
    out.truncate(found);
    match crc(out) == *expected {
        true => Ok(()),
        false => Err("altered: it does not have its checksum".to_owned()),
    }
}

/// CRC-32 as in zlib, big endian.
fn crc(bytes: &[u8]) -> [u8; CRC_BYTES] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
