//! The folder in which zed keeps its contexts, with an encrypted file (RFC 7518, section 4.8).

use std::num::NonZeroU32;
use std::path::Path;

use aes_kw::{KeyInit as _, KwAes128};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::{aead, pbkdf2};
use serde_json::{Value, json};

const ALGORITHM: &str = "PBES2-HS256+A128KW";

/// Writes these contexts to `.zed` in a home folder, encrypted with a password.
pub fn write_contexts(home: &Path, password: &str, contexts: &[Value]) {
    let secrets = json!({ "Tokens": contexts }).to_string();
    let item = json!({
        "Key": "zed secrets",
        "Data": BASE64_STANDARD.encode(secrets),
        "Label": "",
        "Description": "",
        "KeychainNotTrustApplication": false,
        "KeychainNotSynchronizable": false,
    });
    let folder = home.join(".zed/keyring.jwt");
    std::fs::create_dir_all(&folder).expect("a new folder");
    let text = encrypt(item.to_string().as_bytes(), password);
    std::fs::write(folder.join("zed secrets"), text).expect("a new file");
    let current = contexts.first().map(|context| &context["Name"]);
    let config = json!({ "Version": "v1", "CurrentToken": current });
    std::fs::write(home.join(".zed/config.json"), config.to_string()).expect("a new file");
}

/// A constant salt, key and nonce are good enough for a test.
fn encrypt(content: &[u8], password: &str) -> String {
    let (salt, key, nonce) = ([1; 12], [2; 32], [3; 12]);
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({"alg": ALGORITHM, "enc": "A256GCM", "p2c": 8192, "p2s": encode(&salt)});
    let header = encode(header.to_string().as_bytes());

    let mut password_key = [0; 16];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        NonZeroU32::new(8192).expect("not 0"),
        &[ALGORITHM.as_bytes(), &[0], &salt].concat(),
        password.as_bytes(),
        &mut password_key,
    );
    let mut wrapped = [0; 40];
    KwAes128::new(&password_key.into())
        .wrap_key(&key, &mut wrapped)
        .expect("a key can be wrapped");

    let sealing = aead::UnboundKey::new(&aead::AES_256_GCM, &key).expect("32 bytes");
    let mut ciphertext = content.to_vec();
    let tag = aead::LessSafeKey::new(sealing)
        .seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(&header),
            &mut ciphertext,
        )
        .expect("a short text can be encrypted");
    let parts = [
        header,
        encode(&wrapped),
        encode(&nonce),
        encode(&ciphertext),
        encode(tag.as_ref()),
    ];
    parts.join(".")
}
