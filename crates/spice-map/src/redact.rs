//! Ids, and strings in caveat contexts, replaced by a keyed hash.
//!
//! HMAC-SHA256, of which 160 bits are kept: 32 characters of base32, which SpiceDB accepts in an id. Without
//! the key nobody can find out whether a guess is right, so the key is what has to be kept secret.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;

use authzed::JsonObject;
use prost_types::Value;
use prost_types::value::Kind;
use ring::hmac;
use spice_cli::quote::quoted;
use spice_cli::{CommandError, files};
use spice_schema::tree::ParameterType;

/// A shorter key could be found by trying.
const MIN_KEY_BYTES: usize = 16;
/// Of 16 random bytes, or 16 random hexadecimal digits, fewer are distinct once in a million.
const MIN_DISTINCT_BYTES: usize = 5;
/// What of a hash is kept.
const KEPT_BYTES: usize = 20;
/// What of a hash names a key.
const KEY_NAME_BYTES: usize = 5;

/// Parameters of caveats by their names.
pub(crate) type Parameters = HashMap<String, ParameterType>;

pub(crate) struct Redactor(hmac::Key);

impl Redactor {
    /// # Errors
    ///
    /// Exit 2 where others can read the file, it is no regular file, or too short.
    pub(crate) fn from_file(path: &Path) -> Result<Self, CommandError> {
        let shown = path.display();
        let refuse = |why: String| CommandError::usage(format!("--key-file {shown}: {why}"));
        let key = files::read_secret(path).map_err(|error| {
            let failure = refuse(error.to_string());
            let hint = match error.kind() {
                // It writes over no file, should one be there by then.
                ErrorKind::NotFound => Some(format!(
                    "a new key, which gives other pseudonyms: (umask 077; set -C; head -c 32 /dev/urandom > {})",
                    quoted(path)
                )),
                ErrorKind::PermissionDenied => files::secret_remedy(path),
                _ => None,
            };
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
        if key.len() < MIN_KEY_BYTES {
            let bytes = key.len();
            let short = refuse(format!("{bytes} bytes, expected at least {MIN_KEY_BYTES}"));
            return Err(short.hint(
                "is it the right file? The pseudonyms of a key cannot be made without it: put a new one into \
                 a file of another name",
            ));
        }
        if key.iter().collect::<HashSet<_>>().len() < MIN_DISTINCT_BYTES {
            let guessable = refuse("its bytes are almost all the same: a key is random".to_owned());
            return Err(guessable.hint("is it the right file?"));
        }
        Ok(Self::new(&key))
    }

    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// What an id of a type becomes. Equal ids of two types become different ones.
    pub(crate) fn id(&self, object_type: &str, id: &str) -> String {
        base32(&self.hash(&["id", object_type, id])[..KEPT_BYTES])
    }

    /// Names the key without revealing it: two streams can be compared if it was the same.
    pub(crate) fn key_name(&self) -> String {
        base32(&self.hash(&["key"])[..KEY_NAME_BYTES])
    }

    fn text(&self, text: &str) -> String {
        base32(&self.hash(&["context", text])[..KEPT_BYTES])
    }

    fn hash(&self, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }

    /// Redacts each string of a context, keys of maps included. A parameter is left out if one of its strings
    /// has to be something else: a time, an address, a number. Of an unknown caveat that is each that holds a
    /// string. Names of parameters, numbers and truth values stay.
    pub(crate) fn context(&self, context: &mut JsonObject, parameters: Option<&Parameters>) {
        context.fields.retain(|name, value| {
            let kind = parameters.and_then(|parameters| parameters.get(name));
            self.value(value, kind)
        });
    }

    /// Whether the value could be redacted. A context has at most 100 levels, and so has this.
    fn value(&self, value: &mut Value, kind: Option<&ParameterType>) -> bool {
        let inner = kind.and_then(|kind| match &*kind.name {
            "list" | "map" => kind.arguments.first(),
            "any" => Some(kind),
            _ => None,
        });
        match &mut value.kind {
            Some(Kind::StringValue(text)) => {
                let is_free = kind.is_some_and(|kind| matches!(&*kind.name, "string" | "any"));
                if is_free {
                    *text = self.text(text);
                }
                is_free
            }
            Some(Kind::ListValue(list)) => {
                list.values.iter_mut().all(|value| self.value(value, inner))
            }
            Some(Kind::StructValue(object)) => {
                let fields = std::mem::take(&mut object.fields);
                // A key is a string as well.
                let is_free = inner.is_some() || fields.is_empty();
                let fields = fields.into_iter().map(|(key, mut value)| {
                    let is_redacted = is_free && self.value(&mut value, inner);
                    is_redacted.then(|| (self.text(&key), value))
                });
                let redacted: Option<_> = fields.collect();
                let is_redacted = redacted.is_some();
                object.fields = redacted.unwrap_or_default();
                is_redacted
            }
            _ => true,
        }
    }
}

/// RFC 4648, in lower case, without padding: no group is incomplete.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::with_capacity(bytes.len() * 8 / 5);
    for group in bytes.chunks(5) {
        let bits = group
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for digit in (0..8).rev() {
            out.push(char::from(DIGITS[(bits >> (5 * digit) & 31) as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use spice_cli::Exit;
    use spice_schema::Schema;

    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"fooba"), "mzxw6ytb");
        assert_eq!(base32(&[0xff; 5]), "77777777");
        assert_eq!(base32(&[0; 20]), "a".repeat(32));
    }

    /// The pseudonyms are an interface: two runs, years apart, have to agree.
    #[test]
    fn pseudonyms_are_hmac_sha256_of_lengths_and_parts() {
        let key = b"0123456789abcdef";
        let mut message = Vec::new();
        for part in ["id", "user", "ann"] {
            message.extend((part.len() as u64).to_le_bytes());
            message.extend(part.bytes());
        }
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message);
        let redactor = Redactor::new(key);
        assert_eq!(redactor.id("user", "ann"), base32(&tag.as_ref()[..20]));
    }

    #[test]
    fn pseudonyms_depend_on_key_type_and_id() {
        let (one, other) = (Redactor::new(&[1; 16]), Redactor::new(&[2; 16]));
        let found = one.id("user", "ann");
        assert_eq!(found, one.id("user", "ann"));
        assert_eq!(found.len(), 32);
        for different in [
            other.id("user", "ann"),
            one.id("user", "anna"),
            one.id("group", "ann"),
            one.id("usera", "nn"),
            one.text("ann"),
        ] {
            assert_ne!(found, different);
        }
        assert_ne!(one.key_name(), other.key_name());
        assert_eq!(one.key_name().len(), 8);
    }

    #[test]
    fn key_must_be_private_and_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let attempt = |bytes: &[u8], mode: u32| {
            std::fs::write(&path, bytes).unwrap();
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).unwrap();
            Redactor::from_file(&path).map(|_| ())
        };
        const GOOD: &[u8; 16] = b"0123456789abcdef";
        assert!(attempt(GOOD, 0o600).is_ok());
        assert!(attempt(GOOD, 0o400).is_ok());
        for (bytes, mode) in [
            (&GOOD[..15], 0o600),
            (GOOD, 0o640),
            (GOOD, 0o604),
            (&[7; 16], 0o600),
            (b"\x07a\x07b\x07a\x07b\x07a\x07b\x07a\x07b", 0o600),
        ] {
            let failure = attempt(bytes, mode).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{mode:o}");
            assert!(!failure.message().contains('\u{7}'), "{failure:?}");
        }
        assert!(Redactor::from_file(folder.path()).is_err());
    }

    /// It may be the key, damaged or of another length.
    #[test]
    fn hint_overwrites_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my key");
        let hint = |path: &Path| {
            Redactor::from_file(path)
                .map(|_| ())
                .unwrap_err()
                .hint_text()
        };
        let missing = hint(&path);
        let (_, command) = missing.split_once(": ").unwrap();
        let run = || {
            let mut shell = std::process::Command::new("sh");
            shell
                .args(["-c", command])
                .stderr(std::process::Stdio::null());
            shell.status().unwrap().success()
        };
        assert!(run(), "{command}");
        assert!(Redactor::from_file(&path).is_ok());
        let made = std::fs::read(&path).unwrap();
        assert!(!run(), "a file is there");
        assert_eq!(std::fs::read(&path).unwrap(), made);
        std::fs::write(&path, [7; 15]).unwrap();
        let short = hint(&path);
        assert!(
            !short.contains('>') && short.contains("another name"),
            "{short}"
        );
    }

    fn object(json: &str) -> JsonObject {
        let object: spice_record::relationship::StructJson = serde_json::from_str(json).unwrap();
        object.0
    }

    #[test]
    fn strings_of_contexts_are_redacted_where_their_type_takes_any() {
        let schema = Schema::parse(
            "caveat c(name string, all list<string>, tags map<any>, from ipaddress, at timestamp, \
             level int, more any) { true }",
        );
        let schema = schema.unwrap();
        let parameters = schema.caveats()[0].parameters.iter();
        let parameters: Parameters = parameters
            .map(|one| (one.name.text.clone(), one.kind.clone()))
            .collect();
        let redactor = Redactor::new(&[3; 16]);
        let mut context = object(
            r#"{"name":"ann","all":["ann","bob"],"tags":{"k":{"l":["ann"]}},"from":"10.0.0.1",
                "at":"2026-01-01T00:00:00Z","level":3,"more":[1,{"x":"ann"}],"unknown":"ann"}"#,
        );
        redactor.context(&mut context, Some(&parameters));
        let [ann, bob, k, l, x] = ["ann", "bob", "k", "l", "x"].map(|text| redactor.text(text));
        let expected = format!(
            r#"{{"name":"{ann}","all":["{ann}","{bob}"],"tags":{{"{k}":{{"{l}":["{ann}"]}}}},"level":3,
                "more":[1,{{"{x}":"{ann}"}}]}}"#
        );
        assert_eq!(context, object(&expected));
        let mut context = object(r#"{"name":"ann","level":3,"ids":{"ann":1},"none":{},"all":[1]}"#);
        redactor.context(&mut context, None);
        assert_eq!(context, object(r#"{"level":3,"none":{},"all":[1]}"#));
    }
}
