//! The file of zed's keyring: a JSON Web Encryption (RFC 7516) whose key is derived from a password
//! (RFC 7518, section 4.8).

use std::num::NonZeroU32;

use aes_kw::{KeyInit as _, KwAes128};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::{aead, pbkdf2};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The only algorithms that zed's keyring uses.
const ALGORITHM: &str = "PBES2-HS256+A128KW";
const ENCRYPTION: &str = "A256GCM";
/// The most rounds of key derivation, which the file asks for. zed's own library writes 8,192 and reads no
/// more than this.
const MAX_ROUNDS: u32 = 1_300_000;

/// Why it cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It was encrypted with another password.
    Password,
    /// It is not what it should be. Continues a sentence that begins with its path.
    Form(&'static str),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    enc: String,
    p2s: String,
    p2c: u32,
    zip: Option<IgnoredAny>,
    crit: Option<IgnoredAny>,
}

/// Decrypts it.
pub(super) fn decrypt(text: &str, password: &SecretString) -> Result<Vec<u8>, Problem> {
    let form = || Problem::Form("is not an encrypted file of a keyring");
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| form());
    let parts: Vec<&str> = text.trim().split('.').collect();
    let [protected, wrapped, nonce, ciphertext, tag] = parts[..] else {
        return Err(form());
    };
    let header: Header = serde_json::from_slice(&decode(protected)?).map_err(|_| form())?;
    let is_known = header.alg == ALGORITHM && header.enc == ENCRYPTION;
    if !is_known || header.zip.is_some() || header.crit.is_some() {
        return Err(Problem::Form("is encrypted in another way than by zed"));
    }
    let rounds = NonZeroU32::new(header.p2c).filter(|rounds| rounds.get() <= MAX_ROUNDS);
    let rounds = rounds.ok_or(Problem::Form("asks for too many rounds of key derivation"))?;

    let salt = [ALGORITHM.as_bytes(), &[0], &decode(&header.p2s)?].concat();
    let mut password_key = [0; 16];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        &salt,
        password.expose_secret().as_bytes(),
        &mut password_key,
    );
    let wrapped: [u8; 40] = decode(wrapped)?.try_into().map_err(|_| form())?;
    let mut key = [0; 32];
    KwAes128::new(&password_key.into())
        .unwrap_key(&wrapped, &mut key)
        .map_err(|_| Problem::Password)?;

    let damaged = |_| Problem::Form("is damaged");
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, &key).map_err(damaged)?;
    let nonce = aead::Nonce::try_assume_unique_for_key(&decode(nonce)?).map_err(damaged)?;
    let mut content = [decode(ciphertext)?, decode(tag)?].concat();
    let length = aead::LessSafeKey::new(key)
        .open_in_place(nonce, aead::Aad::from(protected), &mut content)
        .map_err(damaged)?
        .len();
    content.truncate(length);
    Ok(content)
}
