//! Rows on disk, cut into parts by the digest of their keys.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use spice_cli::{CommandError, Exit};
use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

use crate::row::{Row, Side};

/// A table is cut into 2^5 parts.
pub(crate) const PART_BITS: u32 = 5;
const PARTS: usize = 1 << PART_BITS;
/// What is packed at a time; each part has one such buffer.
const BLOCK_BYTES: usize = 128 << 10;
const LEVEL: i32 = 1;

/// Where temporary files are made.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A file without a name: it is gone with the process, whatever ends that.
    fn file(&self) -> Result<File, CommandError> {
        tempfile::tempfile_in(&self.0).map_err(|error| self.failed("make", &error))
    }

    fn failed(&self, what: &str, error: &io::Error) -> CommandError {
        let message = format!(
            "cannot {what} a temporary file in {}: {error}",
            self.0.display()
        );
        CommandError::new(Exit::Failed, message)
            .hint("--temp-dir FOLDER takes another folder, --max-memory SIZE needs fewer files")
    }
}

pub(crate) struct Spill {
    folder: Folder,
    depth: u32,
    parts: Vec<Part>,
    packer: Option<Compressor<'static>>,
}

#[derive(Default)]
struct Part {
    buffer: Vec<u8>,
    file: Option<File>,
}

impl Spill {
    pub(crate) fn new(folder: Folder, depth: u32) -> Self {
        Self {
            folder,
            depth,
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            packer: None,
        }
    }

    pub(crate) fn put(&mut self, row: &Row) -> Result<(), CommandError> {
        let bits = row.key >> (self.depth * PART_BITS);
        let part = usize::try_from(bits % PARTS as u128).unwrap_or(0);
        let buffer = &mut self.parts[part].buffer;
        buffer.push(row.side as u8);
        buffer.extend_from_slice(&row.key.to_le_bytes());
        let length = u32::try_from(row.message.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_le_bytes());
        buffer.extend_from_slice(&row.message);
        if buffer.len() >= BLOCK_BYTES {
            self.pack(part)?;
        }
        Ok(())
    }

    /// Writes a part's buffer as a frame of its own: frames behind each other are one stream.
    fn pack(&mut self, part: usize) -> Result<(), CommandError> {
        let failed = |error: &io::Error| self.folder.failed("write", error);
        let packer = match &mut self.packer {
            Some(packer) => packer,
            None => {
                let packer = Compressor::new(LEVEL).map_err(|error| failed(&error))?;
                self.packer.insert(packer)
            }
        };
        let part = &mut self.parts[part];
        let packed = packer
            .compress(&part.buffer)
            .map_err(|error| failed(&error))?;
        // A relationship of 4 MiB must not leave so much room in each part.
        part.buffer.clear();
        part.buffer.shrink_to(2 * BLOCK_BYTES);
        let file = match &mut part.file {
            Some(file) => file,
            None => part.file.insert(self.folder.file()?),
        };
        file.write_all(&packed).map_err(|error| failed(&error))
    }

    /// The parts, one after the other; a part's file is gone when the next one is asked for.
    pub(crate) fn into_parts(
        mut self,
    ) -> Result<impl Iterator<Item = Result<Rows, CommandError>>, CommandError> {
        for part in 0..PARTS {
            if !self.parts[part].buffer.is_empty() {
                self.pack(part)?;
            }
            // Parts are cut again one by one: the others must not hold memory meanwhile.
            self.parts[part].buffer = Vec::new();
        }
        let files = self.parts.into_iter().filter_map(|part| part.file);
        Ok(files.map(move |file| Rows::open(file, self.folder.clone())))
    }
}

/// The rows of one part.
pub(crate) struct Rows {
    input: BufReader<Decoder<'static, BufReader<File>>>,
    folder: Folder,
}

impl Rows {
    fn open(mut file: File, folder: Folder) -> Result<Self, CommandError> {
        let input = file
            .rewind()
            .and_then(|()| Decoder::new(file))
            .map_err(|error| folder.failed("read", &error))?;
        Ok(Self {
            input: BufReader::with_capacity(BLOCK_BYTES, input),
            folder,
        })
    }

    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, CommandError> {
        self.read()
            .map_err(|error| self.folder.failed("read", &error))
    }

    fn read(&mut self) -> io::Result<Option<Row>> {
        let mut side = [0];
        if self.input.read(&mut side)? == 0 {
            return Ok(None);
        }
        let (mut key, mut length) = ([0; 16], [0; 4]);
        self.input.read_exact(&mut key)?;
        self.input.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_le_bytes(length) as usize];
        self.input.read_exact(&mut message)?;
        Ok(Some(Row {
            side: if side == [0] { Side::A } else { Side::B },
            key: u128::from_le_bytes(key),
            message: message.into_boxed_slice(),
        }))
    }
}
