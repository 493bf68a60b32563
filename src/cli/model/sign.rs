//! Signs a manifest's exact bytes with a minisign key.

use std::path::Path;

use blake2::Blake2b;
use blake2::digest::Digest as _;
use blake2::digest::consts::U32;
use ct_codecs::{Base64, Decoder as _, Encoder as _};
use minisign::{SecretKey, SecretKeyBox};

use super::{Failure, terminal};
use crate::registry::Bundle;

/// Where the key's password is looked for before it is asked for.
const PASSWORD: &str = "SWAPSTREAM_SIGN_PASSWORD";

/// The same version with a signature of the key in `path`.
pub(super) fn sign(bundle: Bundle, path: &Path) -> Result<Bundle, Failure> {
    let key = secret_key(path)?;
    let manifest = bundle.manifest();
    let comment = format!(
        "{} {} {}",
        manifest.model, manifest.version, manifest.artifact.digest
    );
    let signed = minisign::sign(None, &key, bundle.raw(), Some(&comment), None)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    Ok(bundle.signed(signed.into_string().into_bytes()))
}

fn secret_key(path: &Path) -> Result<SecretKey, Failure> {
    let fail =
        |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    let text = with_checksum(&text).unwrap_or(text);
    let boxed = || SecretKeyBox::from_string(&text).map_err(|error| fail(&error));
    if let Ok(key) = boxed()?.into_unencrypted_secret_key() {
        return Ok(key);
    }
    let password = std::env::var(PASSWORD).ok();
    if password.is_none() && !terminal::is_watched() {
        let why = format!("the key has a password; set {PASSWORD}, or run this on a terminal");
        return Err(fail(&why));
    }
    boxed()?
        .into_secret_key(password)
        .map_err(|error| fail(&error))
}

/// `minisign -G -W` leaves the checksum of a key without a password empty, and the crate takes such
/// a key for a damaged one: this puts the checksum in. `None`: it is not such a key.
fn with_checksum(text: &str) -> Option<String> {
    const KEY_BYTES: usize = 158;
    const CHECKSUM_BYTES: usize = 32;
    let mut lines = text.lines();
    let comment = lines.next()?;
    let mut key = Base64::decode_to_vec(lines.next()?.trim(), None).ok()?;
    // Algorithms of signature, key derivation and checksum; salt and limits; key id, key, checksum.
    let no_password = key.get(2..4)? == [0, 0];
    let start = KEY_BYTES - CHECKSUM_BYTES;
    if key.len() != KEY_BYTES || !no_password || key.get(start..)?.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut hash = Blake2b::<U32>::new();
    hash.update(key.get(..2)?);
    hash.update(key.get(54..start)?);
    key.get_mut(start..)?.copy_from_slice(&hash.finalize());
    let key = Base64::encode_to_string(&key).ok()?;
    Some(format!("{comment}\n{key}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_minisign_without_a_password_is_read() {
        // As `minisign -G -W` of minisign 0.11 wrote it, for this test alone.
        let text = "untrusted comment: minisign encrypted secret key\n\
                    RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/gpe5gE+CXjR7OEuVH8/KJOSjJb0pbP3/D7kHZn4uJSVgsEoDch4U3jqjRIqmlXvzjCi875FOssZgD+suc49wl0wk8DSTASdAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.sec");
        std::fs::write(&path, text).unwrap();
        let key = secret_key(&path).unwrap();
        minisign::sign(None, &key, &b"x"[..], None, None).unwrap();
        assert!(with_checksum("x\nnot base64").is_none());
        assert!(with_checksum(&key.to_box(None).unwrap().to_string()).is_none());
    }

    #[test]
    fn a_key_that_is_none_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.sec");
        let told = || match secret_key(&path) {
            Err(Failure::Failed(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(told().contains("key.sec: No such file"));
        std::fs::write(&path, "untrusted comment: x\nAAAA\n").unwrap();
        assert!(told().contains("key.sec"));
    }
}
