//! The addresses at which artifacts may lie outside of the registry's topics: what they lead to, and
//! how they are shown, since an address may carry a secret. Pure.

use std::path::PathBuf;

/// The cargo feature that reads what does not lie on this machine.
pub(super) const FEATURE: &str = "object-store";

/// Most characters of an address that are shown.
const MOST_SHOWN: usize = 200;

/// What stands for a part of an address that may be a secret.
const MASK: &str = "***";

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// To a file of this machine, or of what is mounted on it.
    File(PathBuf),
    /// To another machine.
    Remote(Remote),
}

/// A place on another machine.
#[derive(Clone, PartialEq, Eq)]
pub enum Remote {
    /// `http://…` or `https://…`, as it was given.
    Http(String),
    /// An object in an S3-compatible store.
    S3 {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
    },
}

/// Without what may be a secret.
impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(uri) => write!(f, "Http({:?})", shown(uri)),
            Self::S3 { bucket, key } => write!(f, "S3({bucket:?}, {key:?})"),
        }
    }
}

/// Reads an address; why it leads nowhere.
pub fn locate(uri: &str) -> Result<Location, String> {
    locate_with(uri, cfg!(feature = "object-store"))
}

/// The same in a build that reads what lies on other machines, or does not.
fn locate_with(uri: &str, elsewhere: bool) -> Result<Location, String> {
    let shown = shown(uri);
    let wrong = |why: &str| Err(format!("the artifact lies at {shown:?}, {why}"));
    let (scheme, rest) = uri.split_once(':').unwrap_or_default();
    let remote = match scheme.to_ascii_lowercase().as_str() {
        "file" => {
            return file_path(rest)
                .map(Location::File)
                .ok_or_else(|| format!("{shown:?} is no file: expected file:///absolute/path"));
        }
        "http" | "https" => http(uri, rest),
        "s3" => s3(rest),
        _ => {
            return wrong(
                "which is no address that can be read: expected file:///…, https://…, http://… or \
                 s3://bucket/key",
            );
        }
    };
    match remote {
        Err(why) => wrong(why),
        Ok(_) if !elsewhere => wrong(&format!(
            "and this build was made without the cargo feature {FEATURE:?}"
        )),
        Ok(remote) => Ok(Location::Remote(remote)),
    }
}

/// An address for logs and messages: without a user, a password and what a query says.
pub fn shown(uri: &str) -> String {
    let masked = match uri.split_once("://") {
        Some((scheme, rest)) if !scheme.eq_ignore_ascii_case("file") => {
            let rest = rest.split('#').next().unwrap_or_default();
            let (path, query) = match rest.split_once('?') {
                Some((path, _)) => (path, format!("?{MASK}")),
                None => (rest, String::new()),
            };
            let (authority, path) = path.split_at(path.find('/').unwrap_or(path.len()));
            let authority = match authority.rsplit_once('@') {
                Some((_, host)) => format!("{MASK}@{host}"),
                None => authority.to_owned(),
            };
            format!("{scheme}://{authority}{path}{query}")
        }
        _ => uri.to_owned(),
    };
    masked.chars().take(MOST_SHOWN).collect()
}

/// Whether an address names a user or a password.
pub fn names_a_user(uri: &str) -> bool {
    let authority = uri.split_once("://").map(|(_, rest)| rest);
    let authority = authority.and_then(|rest| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|authority| authority.contains('@'))
}

/// `///a/b`, `//localhost/a/b` or `/a/b`, with `%xx` for what an address may not hold.
fn file_path(rest: &str) -> Option<PathBuf> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    if !path.starts_with('/') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut left = path.bytes();
    while let Some(byte) = left.next() {
        bytes.push(if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            u8::try_from(digit(left.next())? * 16 + digit(left.next())?).ok()?
        } else {
            byte
        });
    }
    if bytes.contains(&0) {
        return None;
    }
    Some(PathBuf::from(String::from_utf8(bytes).ok()?))
}

fn http(uri: &str, rest: &str) -> Result<Remote, &'static str> {
    let authority = rest
        .strip_prefix("//")
        .and_then(|rest| rest.split(['/', '?', '#']).next());
    if authority.is_none_or(str::is_empty) {
        return Err("which names no host");
    }
    if names_a_user(uri) {
        return Err(
            "which holds a user or a password: everybody who reads the registry would have them",
        );
    }
    if uri.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("which holds spaces: write them as %20");
    }
    Ok(Remote::Http(uri.to_owned()))
}

/// A key is taken as it stands: `%` and `?` are part of it.
fn s3(rest: &str) -> Result<Remote, &'static str> {
    let (bucket, key) = rest
        .strip_prefix("//")
        .and_then(|rest| rest.split_once('/'))
        .ok_or("which is no object: expected s3://bucket/key")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !(3..=255).contains(&bucket.len()) || !bucket.chars().all(legal) {
        return Err("which names no bucket: expected s3://bucket/key");
    }
    let odd = |part: &str| matches!(part, "" | "." | "..");
    if key.split('/').any(odd) || key.contains(char::is_control) {
        return Err("whose key has an empty part, \".\", \"..\" or a control character");
    }
    Ok(Remote::S3 {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        let file = |path: &str| Ok(Location::File(PathBuf::from(path)));
        assert_eq!(
            locate("file:///models/a%20b.onnx"),
            file("/models/a b.onnx")
        );
        assert_eq!(locate("FILE://localhost/m.onnx"), file("/m.onnx"));
        assert_eq!(locate("file:/m.onnx"), file("/m.onnx"));
        for (uri, part) in [
            ("ftp://host/m.onnx", "no address that can be read"),
            ("m.onnx", "no address that can be read"),
            ("", "no address that can be read"),
            ("file:m.onnx", "expected file:///"),
            ("file://host/m.onnx", "expected file:///"),
            ("file:///a%zz", "expected file:///"),
            ("file:///a%00b", "expected file:///"),
            ("file:///a%c3", "expected file:///"),
            ("https:m.onnx", "names no host"),
            ("https:///m.onnx", "names no host"),
            ("https://ann:x1y2@host/m.onnx", "a user or a password"),
            ("https://host/a b", "%20"),
            ("s3:bucket/key", "expected s3://bucket/key"),
            ("s3://bucket", "expected s3://bucket/key"),
            ("s3://b%/key", "names no bucket"),
            ("s3://bucket/", "an empty part"),
            ("s3://bucket/a//b", "an empty part"),
            ("s3://bucket/a/../b", "an empty part"),
        ] {
            let why = locate(uri).unwrap_err();
            assert!(why.contains(part), "{uri}: {why}");
            assert!(!why.contains("x1y2"), "{why}");
        }
    }

    #[test]
    fn other_machines_need_the_feature() {
        for (uri, remote) in [
            (
                "https://host:8443/m.onnx?sig=x1y2",
                Remote::Http("https://host:8443/m.onnx?sig=x1y2".to_owned()),
            ),
            (
                "s3://models/a/b%20c?.onnx",
                Remote::S3 {
                    bucket: "models".to_owned(),
                    key: "a/b%20c?.onnx".to_owned(),
                },
            ),
        ] {
            let found = locate_with(uri, true);
            assert!(!format!("{found:?}").contains("x1y2"));
            assert_eq!(found, Ok(Location::Remote(remote)));
            let why = locate_with(uri, false).unwrap_err();
            assert!(why.contains("cargo feature \"object-store\""), "{why}");
            assert!(!why.contains("x1y2"), "{why}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (uri, safe) in [
            ("https://h/a?X-Amz-Signature=s#f", "https://h/a?***"),
            ("https://u:p@h/a@b", "https://***@h/a@b"),
            ("https://u:p@h?q", "https://***@h?***"),
            ("s3://bucket/key", "s3://bucket/key"),
            ("file:///a@b?c", "file:///a@b?c"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(shown(uri), safe);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_query_is_shown(text in "\\PC{0,60}", scheme in "(https?|s3|gs)") {
            drop(locate(&text));
            let uri = format!("{scheme}://ann:x1y2z3@host/{text}?x1y2z3");
            prop_assert!(!shown(&uri).contains("x1y2z3"), "{}", shown(&uri));
            if let Err(why) = locate(&uri) {
                prop_assert!(!why.contains("x1y2z3") || scheme == "s3", "{why}");
            }
        }
    }
}
