//! Whose versions are served: minisign signatures over a manifest's exact bytes, held against the
//! keys that are trusted. Name, version, digest and contract stand in the manifest, so that a
//! signature covers them all. Pure.

use std::fmt;

use minisign_verify::{Error, PublicKey, Signature};

use crate::record::Header;

/// Header of a manifest's record with the detached signature, as minisign writes it to a file.
pub const SIGNATURE_HEADER: &str = "minisign";

/// The largest signature that is read; minisign's own are below 400 bytes.
const SIGNATURE_MAX_BYTES: usize = 8 * 1024;

/// A public key as minisign prints it: one line of base64.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustedKey {
    text: String,
    key: PublicKey,
}

impl TrustedKey {
    /// Reads the line of base64.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = PublicKey::from_base64(text.trim()).map_err(|_| {
            let start: String = text.chars().take(60).collect();
            format!("{start:?} is no minisign public key: expected its line of base64, RW…")
        })?;
        Ok(Self {
            text: text.trim().to_owned(),
            key,
        })
    }

    /// The line of base64.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is asked of a signature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Whether a version without a signature of a trusted key is refused.
    pub required: bool,
    /// Any of these keys will do: while keys are changed, there are two.
    pub keys: Vec<TrustedKey>,
}

/// What a signature was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Unsigned,
    /// A trusted key made it, over these bytes.
    Trusted {
        /// The key.
        key: String,
        /// The comment that the signature covers.
        comment: String,
    },
    /// It proves nothing; why.
    Untrusted(String),
}

impl Standing {
    /// In a word, for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Trusted { .. } => "trusted",
            Self::Untrusted(_) => "untrusted",
        }
    }
}

impl Trust {
    /// Looks at the signature of a manifest.
    pub fn look(&self, manifest: &[u8], signature: Option<&[u8]>) -> Standing {
        let Some(signature) = signature else {
            return Standing::Unsigned;
        };
        let untrusted = |why: &str| Standing::Untrusted(why.to_owned());
        if signature.len() > SIGNATURE_MAX_BYTES {
            return untrusted("the signature is too large to be one of minisign's");
        }
        let decoded = std::str::from_utf8(signature)
            .ok()
            .and_then(|text| Signature::decode(text).ok());
        let Some(signature) = decoded else {
            return untrusted("the signature cannot be read");
        };
        let mut why = "a key made the signature that is not among registry.trusted_keys";
        for trusted in &self.keys {
            match trusted.key.verify(manifest, &signature, false) {
                Ok(()) => {
                    return Standing::Trusted {
                        key: trusted.text.clone(),
                        comment: signature.trusted_comment().to_owned(),
                    };
                }
                Err(Error::UnexpectedKeyId) => {}
                Err(Error::UnexpectedAlgorithm) => {
                    why = "the signature is of minisign's legacy kind; sign again without -l";
                }
                Err(_) => why = "the signature does not fit the manifest: one of them was altered",
            }
        }
        untrusted(why)
    }

    /// Whether a manifest with this signature may serve; why not.
    pub fn admit(&self, manifest: &[u8], signature: Option<&[u8]>) -> Result<(), String> {
        if !self.required {
            return Ok(());
        }
        match self.look(manifest, signature) {
            Standing::Trusted { .. } => Ok(()),
            Standing::Unsigned => {
                Err("it is not signed, and registry.require_signature is set".to_owned())
            }
            Standing::Untrusted(why) => Err(why),
        }
    }
}

/// The header that holds `signature`.
pub(super) fn signature_header(signature: Vec<u8>) -> Header {
    Header {
        key: SIGNATURE_HEADER.to_owned(),
        value: Some(signature),
    }
}

/// The signature among the headers of a manifest's record.
pub(super) fn signature_of(headers: &[Header]) -> Option<Vec<u8>> {
    // The last of several headers of one name counts, as in Kafka's own clients.
    let header = headers
        .iter()
        .rfind(|header| header.key == SIGNATURE_HEADER)?;
    // A header without a value is no signature, which is not the same as none.
    Some(header.value.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use minisign::KeyPair;
    use proptest::prelude::*;

    use super::*;

    fn sign(pair: &KeyPair, bytes: &[u8]) -> Vec<u8> {
        let comment = Some("fraud 7");
        let signed = minisign::sign(None, &pair.sk, bytes, comment, None).unwrap();
        signed.into_string().into_bytes()
    }

    fn trust(pairs: &[&KeyPair]) -> Trust {
        let keys = pairs
            .iter()
            .map(|p| TrustedKey::parse(&p.pk.to_base64()).unwrap());
        Trust {
            required: true,
            keys: keys.collect(),
        }
    }

    #[test]
    fn only_an_unaltered_manifest_signed_by_a_trusted_key_is_admitted() {
        let [old, new, other] = [(); 3].map(|()| KeyPair::generate_unencrypted_keypair().unwrap());
        let manifest = br#"{"model":"fraud","version":"7"}"#;
        let by_old = sign(&old, manifest);
        let both = trust(&[&old, &new]);
        for (trust, signature) in [(&both, &by_old), (&both, &sign(&new, manifest))] {
            assert_eq!(trust.admit(manifest, Some(signature)), Ok(()));
        }
        let refused = |trust: &Trust, manifest: &[u8], signature: Option<&[u8]>| {
            trust.admit(manifest, signature).unwrap_err()
        };
        // Rotation: once the old key is taken out, its signatures are void.
        let why = refused(&trust(&[&new]), manifest, Some(&by_old));
        assert!(why.contains("not among"), "{why}");
        let why = refused(&both, manifest, Some(&sign(&other, manifest)));
        assert!(why.contains("not among"), "{why}");
        let altered = br#"{"model":"fraud","version":"8"}"#;
        let why = refused(&both, altered, Some(&by_old));
        assert!(why.contains("altered"), "{why}");
        assert!(refused(&both, manifest, None).contains("not signed"));
        assert!(refused(&both, manifest, Some(b"")).contains("cannot be read"));
        assert!(refused(&both, manifest, Some(&[b'x'; 9000])).contains("too large"));
        let mut comment = String::from_utf8(by_old.clone()).unwrap();
        comment = comment.replace("fraud 7", "fraud 8");
        assert!(refused(&both, manifest, Some(comment.as_bytes())).contains("altered"));
        let open = Trust {
            required: false,
            ..both.clone()
        };
        assert_eq!(open.admit(manifest, None), Ok(()));
        assert!(matches!(
            open.look(manifest, Some(&by_old)),
            Standing::Trusted { comment, .. } if comment == "fraud 7"
        ));
        assert!(TrustedKey::parse("RWno").is_err());
    }

    proptest! {
        #[test]
        fn no_flipped_bit_and_no_noise_passes(at in any::<prop::sample::Index>(), bit in 0..8_u32, noise in prop::collection::vec(any::<u8>(), 0..400)) {
            let pair = KeyPair::generate_unencrypted_keypair().unwrap();
            let trust = trust(&[&pair]);
            let manifest = b"some manifest".to_vec();
            let signature = sign(&pair, &manifest);
            let mut altered = manifest.clone();
            let at_manifest = at.index(altered.len());
            altered[at_manifest] ^= 1 << bit;
            prop_assert!(trust.admit(&altered, Some(&signature)).is_err());
            prop_assert!(trust.admit(&manifest, Some(&noise)).is_err());
        }
    }
}
