//! Times as text.

/// Whether a text has the form of an RFC 3339 time: date, `T`, time of day, up to nine digits of a
/// second, and `Z` or an offset. Proto3 JSON knows no other. Parsers of dates take more.
#[must_use]
pub fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let has_form = |bytes: &[u8], form: &[u8]| {
        bytes.len() == form.len()
            && bytes.iter().zip(form).all(|(byte, form)| match form {
                b'd' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't'),
                b'+' => matches!(byte, b'+' | b'-'),
                other => byte == other,
            })
    };
    let (Some(base), Some(mut rest)) = (bytes.get(..19), bytes.get(19..)) else {
        return false;
    };
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return false;
        }
        rest = &fraction[digits..];
    }
    // Leap seconds are none of a protobuf timestamp.
    has_form(base, b"dddd-dd-ddTdd:dd:dd")
        && &base[17..] != b"60"
        && (matches!(rest, b"Z" | b"z") || has_form(rest, b"+dd:dd"))
}

#[cfg(test)]
mod tests {
    use super::is_rfc3339;

    #[test]
    fn only_rfc3339_is_a_time() {
        for good in [
            "2027-01-01T00:00:00Z",
            "2027-01-01t00:00:00z",
            "2027-01-01T00:00:00.1Z",
            "2027-01-01T00:00:00.123456789+01:00",
            "2027-01-01T00:00:00-23:59",
        ] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "2027-01-01",
            "2027-01-01T00:00:00",
            "2027-01-01 00:00:00Z",
            "2027-01-01T00:00Z",
            "2027-01-01T00:00:00.Z",
            "2027-01-01T00:00:00.1234567890Z",
            "2027-01-01T00:00:00,5Z",
            "2027-01-01T00:00:60Z",
            "2027-01-01T00:00:00+0100",
            "2027-01-01T00:00:00+01",
            "2027-01-01T00:00:00Z[UTC]",
            "+02027-01-01T00:00:00Z",
            "2027-01-01T00:00:00ZZ",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
