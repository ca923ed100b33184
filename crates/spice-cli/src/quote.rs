//! Words as a shell reads them back.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// Quotes a word for sh and bash, so that a printed command can be pasted and does this and nothing else.
/// A word with control characters or invalid UTF-8 gets the `$'...'` of bash.
#[must_use]
pub fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./:=,+%@-".contains(byte);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.as_bytes().iter().all(plain) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => {
            let mut out = String::from("$'");
            for byte in word.as_bytes() {
                match byte {
                    b'\'' | b'\\' => {
                        out.push('\\');
                        out.push(char::from(*byte));
                    }
                    b' '..=b'~' => out.push(char::from(*byte)),
                    _ => {
                        let _ = write!(out, "\\x{byte:02x}");
                    }
                }
            }
            out.push('\'');
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::Command;

    use super::quoted;

    #[test]
    fn bash_reads_back_the_same_bytes() {
        for word in [
            &b"plain-1.0"[..],
            b"",
            b"it's $(touch pwned) \"here\"; `touch pwned` *",
            b"-x",
            b"a\nb\x1b[2J\\n'",
            b"\xff\xfe caf\xc3\xa9",
        ] {
            let command = format!("printf %s {}", quoted(OsStr::from_bytes(word)));
            let output = Command::new("bash").args(["-c", &command]).output();
            assert_eq!(output.unwrap().stdout, word, "{command}");
        }
    }
}
