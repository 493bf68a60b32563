//! Dead letters: what they keep, what they tell, and that they fit.

use proptest::prelude::*;

use super::{ORIGIN, model};
use crate::codec::*;
use crate::model::Digest;
use crate::record::{Header, Origin};

fn texts(headers: &[Header]) -> Vec<String> {
    headers
        .iter()
        .map(|header| {
            let value = header.value.as_deref().map(String::from_utf8_lossy);
            format!("{}={}", header.key, value.unwrap_or("null".into()))
        })
        .collect()
}

fn dead_letter(headers: &[Header], value: Option<&[u8]>) -> DeadLetter {
    let (model, version) = model();
    let error = RowError::new(Stage::Decode, "empty", "the value is empty");
    DeadLetter::new(ORIGIN, &error, Some((&model, &version)), value, headers)
}

#[test]
fn a_dead_letter_keeps_the_input_and_tells_why() {
    let null = Header {
        key: "n".to_owned(),
        value: None,
    };
    let input = [Header::text("a", 1), null, Header::text("a", 2)];
    let letter = dead_letter(&input, Some(b"raw"));
    assert_eq!(letter.value.as_deref(), Some(&b"raw"[..]));
    let errors = [
        "topic=events",
        "partition=3",
        "offset=991",
        "timestamp=1732000000000",
        "stage=decode",
        "class=empty",
        "message=the value is empty",
        "model=fraud",
        "version=7",
        "attempt=1",
    ]
    .map(|text| format!("{ERROR_PREFIX}{text}"));
    let expected = [
        &["a=1", "n=null", "a=2"].map(str::to_owned)[..],
        &errors[..],
    ]
    .concat();
    assert_eq!(texts(&letter.headers), expected);

    let again = dead_letter(&letter.headers, Some(b"raw"));
    let last = format!("{ERROR_PREFIX}attempt=2");
    assert_eq!(again.headers.len(), letter.headers.len());
    assert_eq!(texts(&again.headers).last(), Some(&last));
    assert_eq!(dead_letter(&[], None).value, None);
    let error = RowError::new(Stage::Decode, "tombstone", "");
    let origin = Origin {
        timestamp: None,
        ..ORIGIN
    };
    let bare = DeadLetter::new(origin, &error, None, None, &[]);
    assert_eq!(bare.headers.len(), 7);
}

#[test]
fn a_dead_letter_that_is_too_large_is_cut_to_the_limit() {
    let value = vec![b'x'; 5 << 20];
    let mut letter = dead_letter(&[Header::text("a", 1)], Some(&value));
    let whole = letter.clone();
    letter.fit(None, 10 << 20).unwrap();
    assert_eq!(letter, whole);
    letter.fit(Some(b"key"), 1 << 20).unwrap();
    let size = record_size(Some(b"key"), letter.value.as_deref(), &letter.headers);
    assert_eq!(size, 1 << 20);
    let headers = texts(&letter.headers);
    assert!(headers.contains(&"a=1".to_owned()));
    let digest = Digest::of(&value).to_string().replace("sha256:", "");
    for expected in [
        "truncated=true",
        "original_bytes=5242880",
        &format!("sha256={digest}"),
    ] {
        assert!(
            headers.contains(&format!("{ERROR_PREFIX}{expected}")),
            "{expected}"
        );
    }

    let mut letter = dead_letter(&[Header::text("a", "y".repeat(2 << 20))], Some(b"v"));
    letter.fit(None, 1 << 20).unwrap();
    assert_eq!(letter.value.as_deref(), Some(&b"v"[..]));
    assert!(
        letter
            .headers
            .iter()
            .all(|header| is_error_header(&header.key))
    );
    let error = letter.fit(Some(&[0; 2000]), 1000).unwrap_err();
    assert_eq!(
        (error.stage, error.class),
        (Stage::Produce, "dead_letter_too_large")
    );
    assert_eq!(cut(b"abc", 2), b"ab");
    assert_eq!(cut(b"abc", 9), b"abc");
}

#[test]
fn tags_and_error_headers_do_not_pass_through() {
    let (model, version) = model();
    let own = model_headers(&model, &version, &Digest::of(b"abc"));
    assert!(own.iter().all(|header| !passes_through(&header.key)));
    assert!(!passes_through("__swapstream.errors.stage"));
    assert!(passes_through("traceparent"));
}

proptest! {
    #[test]
    fn a_fitted_dead_letter_fits_or_says_no(
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..3000)),
        header in proptest::collection::vec(any::<u8>(), 0..3000),
        limit in 0_usize..4000,
    ) {
        let input = [Header { key: "h".to_owned(), value: Some(header) }];
        let mut letter = dead_letter(&input, value.as_deref());
        if letter.fit(Some(b"k"), limit).is_ok() {
            prop_assert!(record_size(Some(b"k"), letter.value.as_deref(), &letter.headers) <= limit);
            prop_assert_eq!(letter.value.is_some(), value.is_some());
            let kept = letter.value.unwrap_or_default();
            prop_assert!(value.unwrap_or_default().starts_with(&kept));
        }
    }
}
