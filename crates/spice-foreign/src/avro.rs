//! Avro object container files (Avro 1.12): a magic, metadata, and blocks of packed objects.
//!
//! The format has no end marker and, but for the codecs, no checksum. So everything that it does have is
//! checked: the synchronization marker behind each block, that a block is unpacked to its last byte, and that
//! no block claims to be empty or larger than [`MAX_BLOCK_BYTES`].

mod codec;
mod value;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _, Write};

use spice_record::ReadError;
use spice_record::digest::digest_text;
use spice_record::foreign::AVRO_MAGIC;

pub use self::codec::Codec;
use self::value::decode_long;
pub(crate) use self::value::{Fields, put_bytes, put_long};
use crate::read_error;

/// The largest block, packed or unpacked, of which one of each is held. zed writes 100 relationships in each:
/// 320 KiB for one, where SpiceDB takes contexts of 25,000 bytes by default.
pub const MAX_BLOCK_BYTES: u64 = 32 << 20;
/// The most metadata: schema, zedtoken and what others add.
const MAX_METADATA_BYTES: usize = 1 << 20;
const SYNC_BYTES: usize = 16;
/// What a writer gathers before it packs it.
const BLOCK_BYTES: usize = 64 << 10;

const SCHEMA_KEY: &str = "avro.schema";
const CODEC_KEY: &str = "avro.codec";

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// How many objects are in it.
    pub(crate) objects: u64,
}

/// Reads a container file block by block.
pub(crate) struct ContainerReader<R> {
    input: Counted<R>,
    metadata: BTreeMap<String, Vec<u8>>,
    codec: Codec,
    sync: [u8; SYNC_BYTES],
    packed: Vec<u8>,
    /// Of the block read last, unpacked.
    block: Vec<u8>,
    blocks: u64,
}

impl<R: BufRead> ContainerReader<R> {
    /// Reads magic and metadata.
    pub(crate) fn open(input: R, name: String) -> Result<Self, ReadError> {
        let mut input = Counted {
            input,
            name,
            offset: 0,
        };
        let mut magic = [0; AVRO_MAGIC.len()];
        input.exact(&mut magic, "in its first bytes")?;
        if magic != AVRO_MAGIC {
            return Err(input.fault("no Avro container file: it does not begin with Obj and 1"));
        }
        let metadata = metadata(&mut input)?;
        let mut sync = [0; SYNC_BYTES];
        input.exact(&mut sync, "before its first block")?;
        let codec = match metadata.get(CODEC_KEY) {
            None => Codec::Null,
            Some(name) => Codec::named(name).ok_or_else(|| {
                let name = String::from_utf8_lossy(name);
                input.fault(format!("unknown codec {name:?}, beside {}", Codec::names()))
            })?,
        };
        Ok(Self {
            input,
            metadata,
            codec,
            sync,
            packed: Vec::new(),
            block: Vec::new(),
            blocks: 0,
        })
    }

    /// The schema's JSON.
    pub(crate) fn schema(&self) -> &[u8] {
        self.metadata.get(SCHEMA_KEY).map_or(b"", Vec::as_slice)
    }

    /// The metadata beside schema and codec.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.metadata.iter();
        all.filter(|(key, _)| ![SCHEMA_KEY, CODEC_KEY].contains(&key.as_str()))
            .map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// How many blocks were read.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// What was read last, unpacked.
    pub(crate) fn block(&self) -> &[u8] {
        &self.block
    }

    /// An error about the block read last.
    pub(crate) fn fault(&self, message: impl std::fmt::Display) -> ReadError {
        self.input.fault(match self.blocks {
            0 => message.to_string(),
            blocks => format!("block {blocks}: {message}"),
        })
    }

    /// The error of an input that ends too early.
    pub(crate) fn cut(&self, message: impl Into<String>) -> ReadError {
        self.input.cut(message)
    }

    /// Reads and unpacks a block; `None` at the end of the input. One without objects is for the caller to judge.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block>, ReadError> {
        if self.input.is_at_end()? {
            return Ok(None);
        }
        self.blocks += 1;
        let objects = self.length("count")?;
        let bytes = self.length("size")?;
        if bytes > MAX_BLOCK_BYTES {
            let most = MAX_BLOCK_BYTES >> 20;
            return Err(self.fault(format!("{bytes} bytes: more than {most} MiB are not read")));
        }
        self.packed.clear();
        self.input.take_into(bytes, &mut self.packed)?;
        if (self.packed.len() as u64) < bytes {
            let (blocks, found) = (self.blocks, self.packed.len());
            return Err(self.cut(format!(
                "it ends in block {blocks}, after {found} of {bytes} bytes"
            )));
        }
        let mut sync = [0; SYNC_BYTES];
        let blocks = self.blocks;
        self.input
            .exact(&mut sync, format_args!("behind block {blocks}"))?;
        if sync != self.sync {
            return Err(self.fault("the marker behind it is not that of the file"));
        }
        let unpacked = self.codec.unpack(&mut self.packed, &mut self.block);
        unpacked.map_err(|message| self.fault(message))?;
        Ok(Some(Block { objects }))
    }

    /// A number of a block that cannot be negative.
    fn length(&mut self, what: &str) -> Result<u64, ReadError> {
        let blocks = self.blocks;
        let number = self
            .input
            .long(format_args!("in the {what} of block {blocks}"))?;
        u64::try_from(number).map_err(|_| self.fault(format!("its {what} is {number}")))
    }
}

/// A map of bytes, in pieces: each begins with its number of entries.
fn metadata<R: BufRead>(input: &mut Counted<R>) -> Result<BTreeMap<String, Vec<u8>>, ReadError> {
    const PLACE: &str = "in its metadata";
    let mut found = BTreeMap::new();
    let mut room = MAX_METADATA_BYTES;
    loop {
        let mut entries = input.long(PLACE)?;
        if entries == 0 {
            return Ok(found);
        }
        // A negative number is followed by the size of the piece.
        if entries < 0 {
            entries = entries.saturating_neg();
            input.long(PLACE)?;
        }
        for _ in 0..entries {
            let mut bytes = || {
                let length = input.long(PLACE)?;
                let length = usize::try_from(length).ok().filter(|length| *length < room);
                let length = length.ok_or_else(|| input.fault("more than 1 MiB of metadata"))?;
                room -= length.max(1);
                let mut bytes = Vec::new();
                input.take_into(length as u64, &mut bytes)?;
                match bytes.len() == length {
                    true => Ok(bytes),
                    false => Err(input.cut(format!("it ends {PLACE}"))),
                }
            };
            let (key, value) = (bytes()?, bytes()?);
            let key = String::from_utf8(key);
            let key = key.map_err(|_| input.fault("a key of the metadata is not UTF-8"))?;
            if found.contains_key(&key) {
                return Err(input.fault(format!("the metadata hold {key:?} twice")));
            }
            found.insert(key, value);
        }
    }
}

/// An input, and how much of it was read.
struct Counted<R> {
    input: R,
    name: String,
    offset: u64,
}

impl<R: BufRead> Counted<R> {
    fn fault(&self, message: impl std::fmt::Display) -> ReadError {
        ReadError::Stream {
            name: self.name.clone(),
            message: format!("{message} (at byte {})", self.offset),
        }
    }

    fn cut(&self, message: impl Into<String>) -> ReadError {
        ReadError::Cut {
            name: self.name.clone(),
            message: message.into(),
        }
    }

    fn is_at_end(&mut self) -> Result<bool, ReadError> {
        loop {
            match self.input.fill_buf() {
                Ok(available) => return Ok(available.is_empty()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(&self.name, error)),
            }
        }
    }

    /// Appends so many bytes, or as many as there are.
    fn take_into(&mut self, bytes: u64, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let read = self.input.by_ref().take(bytes).read_to_end(out);
        let read = read.map_err(|error| read_error(&self.name, error))?;
        self.offset += read as u64;
        Ok(())
    }

    fn exact(&mut self, out: &mut [u8], place: impl std::fmt::Display) -> Result<(), ReadError> {
        let mut bytes = Vec::with_capacity(out.len());
        self.take_into(out.len() as u64, &mut bytes)?;
        if bytes.len() < out.len() {
            return Err(self.cut(format!("it ends {place}")));
        }
        out.copy_from_slice(&bytes);
        Ok(())
    }

    fn long(&mut self, place: impl std::fmt::Display) -> Result<i64, ReadError> {
        let decoded = decode_long(|| {
            let mut byte = [0];
            self.exact(&mut byte, &place).map(|()| byte[0])
        })?;
        decoded.ok_or_else(|| self.fault(format!("a number of more than 64 bits {place}")))
    }
}

/// Writes a container file.
pub(crate) struct ContainerWriter<W> {
    out: W,
    codec: Codec,
    sync: [u8; SYNC_BYTES],
    block: Vec<u8>,
    objects: i64,
}

impl<W: Write> ContainerWriter<W> {
    /// Writes magic and metadata. The same metadata give the same file.
    pub(crate) fn create(
        mut out: W,
        codec: Codec,
        schema: &str,
        metadata: &[(&str, &str)],
    ) -> io::Result<Self> {
        let own = [(CODEC_KEY, codec.name()), (SCHEMA_KEY, schema)];
        let mut bytes = AVRO_MAGIC.to_vec();
        put_long(
            &mut bytes,
            i64::try_from(own.len() + metadata.len()).unwrap_or(0),
        );
        let mut all = String::new();
        for (key, value) in own.iter().chain(metadata) {
            put_bytes(&mut bytes, key.as_bytes());
            put_bytes(&mut bytes, value.as_bytes());
            all.extend([*key, "\0", *value, "\0"]);
        }
        put_long(&mut bytes, 0);
        let sync = digest_text(&all).0.to_le_bytes();
        bytes.extend_from_slice(&sync);
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            codec,
            sync,
            block: Vec::new(),
            objects: 0,
        })
    }

    /// Adds one object.
    pub(crate) fn put(&mut self, object: &[u8]) -> io::Result<()> {
        self.block.extend_from_slice(object);
        self.objects += 1;
        match self.block.len() >= BLOCK_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let packed = self.codec.pack(&self.block)?;
        let mut bytes = Vec::with_capacity(packed.len() + 2 * SYNC_BYTES + SYNC_BYTES);
        put_long(&mut bytes, self.objects);
        put_bytes(&mut bytes, &packed);
        bytes.extend_from_slice(&self.sync);
        self.block.clear();
        self.objects = 0;
        self.out.write_all(&bytes)
    }

    /// Writes what was gathered as a block. Returns how many bytes were written, for tests of an output in memory.
    #[cfg(test)]
    pub(crate) fn flushed(&mut self) -> io::Result<usize>
    where
        W: AsRef<[u8]>,
    {
        if self.objects > 0 {
            self.flush()?;
        }
        Ok(self.out.as_ref().len())
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    /// Writes a block of no objects that holds `end`, flushes, and gives back the output.
    pub(crate) fn finish(mut self, end: &[u8]) -> io::Result<W> {
        if self.objects > 0 {
            self.flush()?;
        }
        self.block.extend_from_slice(end);
        self.flush()?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests;
