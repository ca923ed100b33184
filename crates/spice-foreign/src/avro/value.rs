//! Avro's numbers, bytes and texts.

/// Decodes a number: seven bits a byte, least significant first, the sign in the lowest bit. `Ok(None)` for one of
/// more than 64 bits.
pub(super) fn decode_long<E>(mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<i64>, E> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Ok(None);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            let half = i64::try_from(number >> 1).unwrap_or(i64::MAX);
            return Ok(Some(if number & 1 == 0 { half } else { !half }));
        }
    }
    Ok(None)
}

/// Appends a number.
pub(crate) fn put_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = (number << 1 ^ number >> 63).cast_unsigned();
    while rest > 0x7f {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends bytes, or a text, with their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(bytes);
}

/// What is left of a block.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// # Errors
    ///
    /// What is wrong, for the message; so for the others.
    pub(crate) fn long(&mut self) -> Result<i64, String> {
        let rest = &mut self.0;
        let decoded = decode_long(|| {
            let (first, after) = rest.split_first().ok_or("it ends within a number")?;
            *rest = after;
            Ok::<u8, &str>(*first)
        })?;
        decoded.ok_or_else(|| "a number of more than 64 bits".to_owned())
    }

    pub(crate) fn bytes(&mut self, what: &str, most: usize) -> Result<&'a [u8], String> {
        let length = self.long()?;
        let found = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length));
        let (bytes, rest) =
            found.ok_or_else(|| format!("{what} of {length} bytes: not so many are left"))?;
        if bytes.len() > most {
            return Err(format!("{what} of {length} bytes: at most {most} are read"));
        }
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, what: &str, most: usize) -> Result<&'a str, String> {
        let bytes = self.bytes(what, most)?;
        std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
    }
}
