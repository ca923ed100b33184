//! Values of flags: sizes, durations, zedtokens.

use std::time::Duration;

/// Takes a zedtoken as it is, unless it plainly is none: an empty variable, or another text.
///
/// # Errors
///
/// What was wrong with it, for the usage message.
pub fn parse_zedtoken(text: &str) -> Result<String, String> {
    use authzed::zedtoken::{DecodeError, decode};

    match decode(text) {
        // A server may be newer than this program.
        Err(DecodeError::NoRevision) if !text.is_empty() => Ok(text.to_owned()),
        Err(_) => Err("expected a zedtoken, as spice-revision prints it".to_owned()),
        Ok(_) => Ok(text.to_owned()),
    }
}

/// Parses a size such as `64MiB`, `500k` or a number of bytes.
///
/// # Errors
///
/// What was wrong with it, for the usage message.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        _ => None,
    };
    digits
        .parse::<u64>()
        .ok()
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .filter(|size| (1..=MAX_SIZE).contains(size))
        .ok_or_else(|| format!("expected a size such as 256MiB, at most 1048576GiB, got {text:?}"))
}

/// No flag means more than this: 1 PiB, 10 years. Larger numbers would only overflow somewhere.
const MAX_SIZE: u64 = 1 << 50;
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Parses a duration such as `35s`, `500ms` or `1m30s`.
///
/// # Errors
///
/// What was wrong with it, for the usage message.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("expected a duration such as 35s or 1m30s, got {text:?}"))?;
    let duration: Duration = parsed
        .try_into()
        .map_err(|_| format!("a duration cannot be negative: {text:?}"))?;
    match duration <= MAX_DURATION {
        true => Ok(duration),
        false => Err(format!("a duration is at most 87600h (10 years): {text:?}")),
    }
}

/// Parses a duration that is not zero.
///
/// # Errors
///
/// As [`parse_duration`].
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it cannot be zero".to_owned()),
        timeout => Ok(timeout),
    }
}

/// The longest id of an object that SpiceDB accepts.
const MAX_ID_BYTES: usize = 1024;

/// Takes what the id of an object can begin with. A server refuses anything else with a regular expression,
/// and no relationship has it.
///
/// # Errors
///
/// Which characters an id can have, for the usage message.
pub fn parse_id_prefix(text: &str) -> Result<String, String> {
    let is_of_ids = |byte: u8| byte.is_ascii_alphanumeric() || b"/_|-=+".contains(&byte);
    if text.is_empty() {
        return Err("an empty prefix leaves nothing out: do not give it".to_owned());
    }
    if text.len() > MAX_ID_BYTES {
        return Err(format!("an id has at most {MAX_ID_BYTES} characters"));
    }
    match text.bytes().all(is_of_ids) {
        true => Ok(text.to_owned()),
        false => Err("an id has letters of ASCII, digits and / _ | - = + only".to_owned()),
    }
}

/// Whether a text could be a zedtoken that a server gave: base64 of either alphabet, and nothing else that
/// could reach a terminal. What it means only its server knows.
#[must_use]
pub fn looks_like_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.:~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn sizes_and_durations_are_bounded() {
        for (text, bytes) in [
            ("1", 1),
            ("64MiB", 64 << 20),
            ("500k", 500 << 10),
            ("2gb", 2 << 30),
            ("1048576GiB", 1 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "1TiB",
            "1048577GiB",
            "18446744073709551615",
            "99999999999999999999g",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for (text, seconds) in [("0s", 0), ("1m30s", 90), ("87600h", 87_600 * 3_600)] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        // The longest one, doubled, still leads to an instant.
        assert!(Instant::now().checked_add(2 * MAX_DURATION).is_some());
        for text in [
            "",
            "5",
            "-5s",
            "87601h",
            "600000000000s",
            "9223372036854775807s",
            "99999999999999999999s",
            "9223372036854775807h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_timeout("0s").is_err());
        assert!(parse_timeout("1ns").is_ok());
    }

    #[test]
    fn zedtoken_of_a_newer_server_is_taken_and_other_texts_are_not() {
        for token in ["GgoKATcSBTEyMzQ1", "GgMKATc=", "GgA="] {
            assert_eq!(parse_zedtoken(token).as_deref(), Ok(token));
        }
        for text in ["", "$rev", "7", "a token"] {
            assert!(parse_zedtoken(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn prefix_of_an_id_has_the_characters_of_ids() {
        let long = "x".repeat(MAX_ID_BYTES);
        for text in ["acme-", "-", "a/b_c|d-e=f+G9", &long] {
            assert_eq!(parse_id_prefix(text).as_deref(), Ok(text));
        }
        let longer = "x".repeat(MAX_ID_BYTES + 1);
        for text in [
            "", "%", "a%", "*", "a b", "a:b", "a.b", "a@b", "\u{e4}", "a\n", &longer,
        ] {
            assert!(parse_id_prefix(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn token_is_base64_and_nothing_else() {
        for token in ["GhUKEzE3NjQwMDAwMDAwMDAwMDAwMDA=", "a", "a-b_c.d"] {
            assert!(looks_like_token(token), "{token}");
        }
        for text in ["", "a b", "a\u{1b}[2J", "a\nb", "\u{202e}", "ä"] {
            assert!(!looks_like_token(text), "{text:?}");
        }
    }
}
