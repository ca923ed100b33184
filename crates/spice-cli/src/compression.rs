//! Compression of streams: recognised in input, chosen by `--zstd` or `--gzip` for output.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::stdio::BUFFER_BYTES;
use crate::{gzip, zstd};

/// How output is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// With zstd, at a level of [`zstd::LEVELS`].
    Zstd(i32),
    /// With gzip, at a level of [`gzip::LEVELS`].
    Gzip(u32),
}

/// The flags of a program that writes a stream to a file or to stdout.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CompressionArgs {
    /// Compress with zstd, at a level from 1 to 19.
    #[arg(
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = zstd::DEFAULT_LEVEL,
        value_parser = clap::value_parser!(i32).range(zstd::LEVELS)
    )]
    zstd: Option<i32>,
    /// Compress with gzip, at a level from 1 to 9.
    #[arg(
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = gzip::DEFAULT_LEVEL,
        value_parser = clap::value_parser!(u32).range(gzip::LEVELS),
        conflicts_with = "zstd"
    )]
    gzip: Option<u32>,
}

impl CompressionArgs {
    /// What the flags choose.
    #[must_use]
    pub fn chosen(&self) -> Option<Compression> {
        let zstd = self.zstd.map(Compression::Zstd);
        zstd.or(self.gzip.map(Compression::Gzip))
    }
}

/// Output, compressed or not.
pub(crate) enum Writer<W: Write> {
    Plain(W),
    Zstd(Box<zstd::Encoder<W>>),
    Gzip(Box<gzip::Encoder<W>>),
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W, compression: Option<Compression>) -> io::Result<Self> {
        Ok(match compression {
            None => Self::Plain(out),
            Some(Compression::Zstd(level)) => Self::Zstd(Box::new(zstd::encoder(out, level)?)),
            Some(Compression::Gzip(level)) => Self::Gzip(Box::new(gzip::encoder(out, level))),
        })
    }

    /// Ends the compressed data.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(bytes),
            Self::Zstd(writer) => writer.write(bytes),
            Self::Gzip(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(writer) => writer.flush(),
            Self::Zstd(writer) => writer.flush(),
            Self::Gzip(writer) => writer.flush(),
        }
    }
}

/// Decompresses input that is zstd or gzip, and passes on any other.
pub(crate) fn decompressed(mut input: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut start = Vec::with_capacity(zstd::MAGIC.len());
    input
        .by_ref()
        .take(zstd::MAGIC.len() as u64)
        .read_to_end(&mut start)?;
    let (is_zstd, is_gzip) = (start == zstd::MAGIC, start.starts_with(&gzip::MAGIC));
    let complete = BufReader::with_capacity(BUFFER_BYTES, Rejoined { start, input });
    let decoder: Box<dyn Read + Send> = if is_zstd {
        Box::new(zstd::Decoder::new(complete)?)
    } else if is_gzip {
        Box::new(gzip::Decoder::new(complete))
    } else {
        return Ok(Box::new(complete));
    };
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
}

/// An input and its first bytes, which were read already. The first read also returns what follows them: a
/// reader recognizes other formats by more than four bytes.
struct Rejoined {
    start: Vec<u8>,
    input: Box<dyn Read + Send>,
}

impl Read for Rejoined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let known = self.start.len().min(buffer.len());
        buffer[..known].copy_from_slice(&self.start[..known]);
        let rest = &mut buffer[known..];
        loop {
            match self.input.read(rest) {
                Err(error) if known > 0 && error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    let read = read?;
                    self.start.drain(..known);
                    return Ok(known + read);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, ErrorKind};

    use super::*;

    const TEXT: &[u8] = b"{\"header\":{}}\n{\"relationship\":{}}\n{\"trailer\":{}}\n";
    const CHOICES: [Option<Compression>; 3] =
        [None, Some(Compression::Zstd(3)), Some(Compression::Gzip(6))];

    fn compressed(text: &[u8], compression: Option<Compression>) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), compression).unwrap();
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        compressed(text, Some(Compression::Gzip(6)))
    }

    fn read(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        decompressed(Box::new(Cursor::new(input.to_vec())))?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn input_is_what_was_written() {
        for compression in CHOICES {
            for text in [TEXT, b"", b"{", &TEXT.repeat(20_000)] {
                let found = read(&compressed(text, compression)).unwrap();
                assert!(found == text, "{compression:?}, {} bytes", text.len());
            }
        }
    }

    #[test]
    fn what_is_flushed_can_be_read() {
        for compression in CHOICES {
            let mut written = Vec::new();
            let mut writer = Writer::new(&mut written, compression).unwrap();
            writer.write_all(TEXT).unwrap();
            writer.flush().unwrap();
            // Without its end, as a reader of a pipe sees it.
            std::mem::forget(writer);
            let mut text = vec![0; TEXT.len()];
            let mut input = decompressed(Box::new(Cursor::new(written))).unwrap();
            input.read_exact(&mut text).unwrap();
            assert_eq!(text, TEXT);
        }
    }

    #[test]
    fn members_of_gzip_are_one_input() {
        let (first, second) = TEXT.split_at(20);
        let members = [gzip(first), gzip(b""), gzip(second)].concat();
        assert_eq!(read(&members).unwrap(), TEXT);
    }

    /// Damage, by the two kinds that readers report as damaged input.
    fn assert_damaged(input: &[u8], what: &str) {
        let kind = read(input).map_err(|error| error.kind());
        let damage = [ErrorKind::UnexpectedEof, ErrorKind::InvalidData];
        assert!(kind.is_err_and(|kind| damage.contains(&kind)), "{what}");
    }

    #[test]
    fn cut_gzip_is_damaged_wherever_it_is_cut() {
        let whole = gzip(TEXT);
        for end in gzip::MAGIC.len()..whole.len() {
            assert_damaged(&whole[..end], &format!("cut at {end}"));
            let second = [&whole[..], &whole[..end]].concat();
            assert_damaged(&second, &format!("second member cut at {end}"));
        }
    }

    #[test]
    fn flipped_bit_of_gzip_is_damage_or_changes_nothing() {
        let whole = gzip(TEXT);
        for place in gzip::MAGIC.len()..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[place] ^= 1 << bit;
                match read(&damaged) {
                    // Some bits have no meaning, such as the time in the header.
                    Ok(text) => assert!(text == TEXT, "byte {place}, bit {bit}"),
                    Err(_) => assert_damaged(&damaged, &format!("byte {place}, bit {bit}")),
                }
            }
        }
    }

    #[test]
    fn what_follows_gzip_is_refused() {
        for rest in [&b"\0"[..], b"\n", TEXT, &[0; 512]] {
            assert_damaged(&[&gzip(TEXT)[..], rest].concat(), &format!("{rest:?}"));
        }
    }

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        compression: CompressionArgs,
    }

    #[test]
    fn levels_are_bounded_and_one_form_is_chosen() {
        use clap::Parser as _;
        let chosen = |flags: &[&str]| {
            let flags = Flags::try_parse_from(["test"].iter().chain(flags)).ok();
            flags.map(|flags| flags.compression.chosen())
        };
        assert_eq!(chosen(&[]), Some(None));
        assert_eq!(chosen(&["--zstd"]), Some(Some(Compression::Zstd(3))));
        assert_eq!(chosen(&["--gzip"]), Some(Some(Compression::Gzip(6))));
        assert_eq!(chosen(&["--gzip=9"]), Some(Some(Compression::Gzip(9))));
        for flags in [
            &["--gzip=0"][..],
            &["--gzip=10"],
            &["--zstd=20"],
            &["--gzip", "--zstd"],
        ] {
            assert_eq!(chosen(flags), None, "{flags:?}");
        }
    }

    #[test]
    fn beginning_of_an_input_comes_in_one_piece() {
        for text in ["", "a", "abcd", "relationships: |-\n"] {
            let mut input = decompressed(Box::new(text.as_bytes())).unwrap();
            assert_eq!(input.fill_buf().unwrap(), text.as_bytes());
            let mut read = String::new();
            input.read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
        for compression in CHOICES {
            let input = compressed(b"relationships", compression);
            let mut input = decompressed(Box::new(Cursor::new(input))).unwrap();
            assert_eq!(input.fill_buf().unwrap(), b"relationships");
        }
    }
}
