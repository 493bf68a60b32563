//! Each class of error, policies and included fields; types and properties have their own files.

mod paths;
mod properties;
mod reference;
mod types;

use super::Decoder;
use crate::codec::{Columns, RowError, Values};
use crate::model::{
    Contract, ElementType, Feature, InputContract, InputSource, Missing, MissingPolicy, TensorSpec,
};

const STRICT: Missing = Missing {
    absent: MissingPolicy::Reject,
    null: MissingPolicy::Reject,
};

fn feature(name: &str, missing: Missing) -> Feature {
    Feature {
        name: name.to_owned(),
        missing,
    }
}

fn field(name: &str, element: ElementType, shape: &[usize], missing: Missing) -> InputContract {
    InputContract {
        spec: TensorSpec {
            name: name.to_owned(),
            element,
            row_shape: shape.to_vec(),
            classes: None,
        },
        source: InputSource::Field(feature(name, missing)),
    }
}

pub(super) fn features(names: &[&str], element: ElementType, missing: Missing) -> InputContract {
    let listed = names.iter().map(|name| feature(name, missing.clone()));
    let listed = listed.collect();
    let mut input = field("x", element, &[names.len()], missing);
    input.source = InputSource::Features(listed);
    input
}

pub(super) fn contract(inputs: Vec<InputContract>) -> Contract {
    Contract {
        inputs,
        outputs: Vec::new(),
    }
}

fn empty_batch(contract: &Contract) -> Columns {
    Columns::new(contract.inputs.iter().map(|input| &input.spec))
}

/// Decodes one event into an empty batch and holds that nothing is left behind on an error.
fn decode_with(
    contract: &Contract,
    include: &[&str],
    event: Option<&[u8]>,
) -> Result<(Columns, String), RowError> {
    let include: Vec<String> = include.iter().map(|name| (*name).to_owned()).collect();
    let mut decoder = Decoder::new(contract, &include);
    let mut batch = empty_batch(contract);
    let mut included = b"before".to_vec();
    let result = decoder.decode(event, &mut batch, &mut included);
    if let Err(error) = result {
        assert_eq!(batch, empty_batch(contract));
        assert_eq!(included, b"before");
        assert!(error.message.chars().count() <= 300, "{error}");
        return Err(error);
    }
    assert_eq!(batch.rows, 1);
    let included = String::from_utf8(included).unwrap();
    Ok((batch, included.strip_prefix("before").unwrap().to_owned()))
}

fn decode(contract: &Contract, event: &str) -> Result<Columns, RowError> {
    decode_with(contract, &[], Some(event.as_bytes())).map(|(batch, _)| batch)
}

#[track_caller]
fn refused(contract: &Contract, event: impl AsRef<[u8]>, class: &str) -> String {
    let error = decode_with(contract, &[], Some(event.as_ref())).unwrap_err();
    assert_eq!(format!("{}/{}", error.stage, error.class), class, "{error}");
    error.message
}

fn two_floats() -> Contract {
    contract(vec![features(&["a", "b"], ElementType::Float, STRICT)])
}

#[test]
fn a_row_is_filled_in_contract_order() {
    let contract = contract(vec![
        features(&["a", "b"], ElementType::Float, STRICT),
        field("n", ElementType::Int64, &[], STRICT),
        field("s", ElementType::String, &[1], STRICT),
        field("t", ElementType::Bool, &[2, 1], STRICT),
    ]);
    let event = r#" {"t":[[true],[false]],"s":"x\u00e9","z":{"b":[1,{}]},
        "\u0062":2,"n":9007199254740993,"a":-0.0} "#;
    let batch = decode(&contract, event).unwrap();
    assert_eq!(
        format!("{:?}", batch.columns[0].values),
        "Float([-0.0, 2.0])"
    );
    assert_eq!(
        batch.columns[1].values,
        Values::Int64(vec![9_007_199_254_740_993])
    );
    assert_eq!(
        batch.columns[2].values,
        Values::String(vec!["xé".to_owned()])
    );
    assert_eq!(batch.columns[3].values, Values::Bool(vec![true, false]));
}

#[test]
fn rows_are_appended_and_a_failed_one_leaves_no_trace() {
    let contract = two_floats();
    let mut decoder = Decoder::new(&contract, &["id".to_owned()]);
    let (mut batch, mut include) = (empty_batch(&contract), Vec::new());
    let mut decode = |event: &str| decoder.decode(Some(event.as_bytes()), &mut batch, &mut include);
    decode(r#"{"a":1,"b":2,"id":"x"}"#).unwrap();
    decode(r#"{"b":2,"id":"y","a":"no"}"#).unwrap_err();
    decode(r#"{"b":4}"#).unwrap_err();
    decode(r#"{"b":4,"a":3}"#).unwrap();
    assert_eq!(batch.rows, 2);
    assert_eq!(
        batch.columns[0].values,
        Values::Float(vec![1.0, 2.0, 3.0, 4.0])
    );
    assert_eq!(String::from_utf8(include).unwrap(), r#"{"id":"x"}{}"#);
}

#[test]
fn what_is_no_event_is_refused_in_stage_decode() {
    let c = two_floats();
    let error = decode_with(&c, &[], None).unwrap_err();
    assert_eq!(error.class, "tombstone");
    refused(&c, "", "decode/empty");
    refused(&c, " \r\n\t", "decode/empty");
    let message = refused(&c, b"{\"a\":1,\"b\":\xff}", "decode/invalid_utf8");
    assert!(message.contains("byte 11"), "{message}");
    let message = refused(&c, "{\"a\":1,\n\"b\" 2}", "decode/invalid_json");
    assert!(message.contains("line 2 column 5"), "{message}");
    for bad in [
        "hello",
        "{",
        "{\"a\":1,\"b\":2",
        "{\"a\":1,\"b\":2}}",
        "{\"a\":1,\"b\":2} x",
        "[1,2",
        "{\"a\":1,}",
        "{\"a\":NaN,\"b\":1}",
        "{\"a\":1,\"b\":2,\"c\":Infinity}",
        "{\"a\":-Infinity,\"b\":1}",
        "{\"a\":1e999,\"b\":1}",
        "{\"a\":01,\"b\":1}",
        "{'a':1}",
        "{a:1}",
        "\u{feff}{\"a\":1,\"b\":2}",
        "{\"a\":\"\\ud800\",\"b\":1}",
        "{\"a\":1,\"b\":2,\"c\":\"\n\"}",
        "nul",
        "{\"a\":\"x\",\"b\":2",
    ] {
        refused(&c, bad, "decode/invalid_json");
    }
    for scalar in ["null", "true", "[{\"a\":1,\"b\":2}]", "\"x\"", " 1.5 "] {
        refused(&c, scalar, "decode/not_an_object");
    }
    assert!(refused(&c, "null", "decode/not_an_object").contains("null"));
}

#[test]
fn deep_nesting_is_refused_wherever_it_is_and_without_recursion() {
    let c = two_floats();
    let event = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!("{{\"z\":{open}{close},\"a\":1,\"b\":2,\"s\":\"[[{{\\\"\"}}")
    };
    decode(&c, &event(63)).unwrap();
    refused(&c, event(64), "decode/too_deep");
    refused(&c, event(100_000), "decode/too_deep");
    refused(&c, "[".repeat(100_000), "decode/too_deep");
    refused(&c, "{\"a\":".repeat(100_000), "decode/too_deep");
    // Many brackets, none deep; and brackets in strings only.
    let flat = format!("{{\"z\":[{}0],\"a\":1,\"b\":2}}", "[],{},".repeat(1000));
    decode(&c, &flat).unwrap();
    let text = format!("{{\"z\":\"{}\",\"a\":1,\"b\":2}}", "[\\\"{".repeat(1000));
    decode(&c, &text).unwrap();
}

#[test]
fn duplicates_count_only_among_fields_that_are_read() {
    let c = two_floats();
    decode(&c, r#"{"a":1,"z":1,"b":2,"z":2}"#).unwrap();
    let message = refused(&c, r#"{"a":1,"b":2,"\u0061":1}"#, "decode/duplicate_key");
    assert!(message.contains("\"a\""), "{message}");
    // The broken event wins over the broken feature.
    refused(&c, r#"{"a":"x","b":2,"b":3}"#, "decode/duplicate_key");
    let twice = r#"{"id":1,"a":1,"b":2,"id":1}"#;
    decode(&c, twice).unwrap();
    let error = decode_with(&c, &["id"], Some(twice.as_bytes())).unwrap_err();
    assert_eq!(error.class, "duplicate_key");
}

#[test]
fn missing_and_null_follow_the_policy() {
    let c = two_floats();
    let message = refused(&c, r#"{"a":1}"#, "features/missing_feature");
    assert_eq!(message, "feature \"b\" is not in the event");
    refused(&c, r#"{"a":1,"b":null}"#, "features/null_feature");
    let missing = |absent, null| Missing { absent, null };
    let filled = contract(vec![
        field(
            "v",
            ElementType::Float,
            &[2, 2],
            missing(MissingPolicy::Value(1.5), MissingPolicy::Nan),
        ),
        field(
            "i",
            ElementType::Uint8,
            &[],
            missing(MissingPolicy::Value(7.0), MissingPolicy::Value(9.0)),
        ),
        field(
            "t",
            ElementType::Bool,
            &[1],
            missing(MissingPolicy::Value(1.0), MissingPolicy::Reject),
        ),
    ]);
    let text = |text: &str| MissingPolicy::Text(text.to_owned());
    let texts = missing(text("none"), text(""));
    let texts = contract(vec![field("s", ElementType::String, &[2], texts)]);
    for (event, wanted) in [
        ("{}", ["none", "none"]),
        (r#"{"s":null}"#, ["", ""]),
        (r#"{"s":["a",null]}"#, ["a", ""]),
    ] {
        let batch = decode(&texts, event).unwrap();
        let wanted = Values::String(wanted.map(str::to_owned).to_vec());
        assert_eq!(batch.columns[0].values, wanted, "{event}");
    }
    let values = |event: &str| {
        let batch = decode(&filled, event).unwrap();
        let values: Vec<_> = batch
            .columns
            .iter()
            .map(|column| format!("{:?}", column.values))
            .collect();
        values.join(" ")
    };
    assert_eq!(
        values("{}"),
        "Float([1.5, 1.5, 1.5, 1.5]) Uint8([7]) Bool([true])"
    );
    assert_eq!(
        values(r#"{"v":null,"i":null,"t":[false]}"#),
        "Float([NaN, NaN, NaN, NaN]) Uint8([9]) Bool([false])"
    );
    assert_eq!(
        values(r#"{"v":[[1,null],[3,4]],"i":[null]}"#),
        "Float([1.0, NaN, 3.0, 4.0]) Uint8([9]) Bool([true])"
    );
    refused(&filled, r#"{"t":[null]}"#, "features/null_feature");
}

#[test]
fn one_field_may_fill_many_places() {
    let c = contract(vec![
        features(&["a", "b", "a"], ElementType::Float, STRICT),
        field("a", ElementType::Int64, &[], STRICT),
    ]);
    refused(&c, r#"{"a":[3],"b":2}"#, "features/wrong_shape");
    let event = br#"{"a": 3.0 ,"b":2}"#;
    let (batch, included) = decode_with(&c, &["b", "a", "b"], Some(event)).unwrap();
    assert_eq!(batch.columns[0].values, Values::Float(vec![3.0, 2.0, 3.0]));
    assert_eq!(batch.columns[1].values, Values::Int64(vec![3]));
    assert_eq!(included, r#"{"b":2,"a":3.0}"#);
    refused(&c, r#"{"a":3.5,"b":2}"#, "features/wrong_type");
    let message = refused(&c, "{\"b\":2,\n \"a\":1e999}", "decode/invalid_json");
    assert_eq!(
        message,
        "number out of range in the value at line 2 column 6"
    );
}

#[test]
fn included_fields_keep_their_text_and_lose_white_space() {
    let c = two_floats();
    let include = ["k\"\n", "id", "absent", "o"];
    let event = r#"{"o" : { "x y" : [ 1 , "a \" b" , 1.50E+3 ] } ,"a":1,
        "id":"\u0041 b","b":2,"k\"\n": null}"#;
    let (_, included) = decode_with(&c, &include, Some(event.as_bytes())).unwrap();
    assert_eq!(
        included,
        r#"{"k\"\n":null,"id":"\u0041 b","o":{"x y":[1,"a \" b",1.50E+3]}}"#
    );
    let (_, included) = decode_with(&c, &["id"], Some(br#"{"a":1,"b":2}"#)).unwrap();
    assert_eq!(included, "{}");
    // What is copied must be readable in the prediction.
    for value in ["\"\\ud800\"", "[{\"\\udc00\":1}]", "1e999"] {
        let event = format!("{{\"a\":1,\"b\":2,\"id\":{value}}}");
        let error = decode_with(&c, &["id"], Some(event.as_bytes())).unwrap_err();
        assert_eq!(error.class, "invalid_json", "{value}");
        decode(&c, &event).unwrap();
    }
}

#[test]
fn a_large_event_is_one_row_or_one_error() {
    let c = two_floats();
    let text = "x".repeat(5 << 20);
    decode(&c, &format!("{{\"a\":1,\"z\":\"{text}\",\"b\":2}}")).unwrap();
    refused(
        &c,
        format!("{{\"a\":\"{text}\",\"b\":2}}"),
        "features/wrong_type",
    );
    refused(&c, format!("{{\"{text}\":0}}"), "features/missing_feature");
    let numbers = vec!["1"; 1 << 20].join(",");
    refused(
        &c,
        format!("{{\"a\":[{numbers}],\"b\":2}}"),
        "features/wrong_shape",
    );
    let long = "n".repeat(5000);
    let c = contract(vec![field(&long, ElementType::Float, &[], STRICT)]);
    let message = refused(&c, "{}", "features/missing_feature");
    assert!(message.ends_with("is not in the event"), "{message}");
}

#[test]
fn a_batch_of_another_contract_is_refused_untouched() {
    let mut decoder = Decoder::new(&two_floats(), &[]);
    let other = contract(vec![field("a", ElementType::Int8, &[2], STRICT)]);
    let mut batch = empty_batch(&other);
    let error = decoder
        .decode(Some(br#"{"a":1,"b":2}"#), &mut batch, &mut Vec::new())
        .unwrap_err();
    assert_eq!((error.class, batch), ("internal", empty_batch(&other)));
}

#[test]
fn many_fields_are_all_found() {
    let names: Vec<String> = (0..500).map(|i| format!("feature_{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let c = contract(vec![features(&names, ElementType::Double, STRICT)]);
    let fields: Vec<_> = names
        .iter()
        .rev()
        .enumerate()
        .map(|(i, name)| format!("{name:?}:{i}"))
        .collect();
    let batch = decode(&c, &format!("{{{},\"feature_500\":0}}", fields.join(","))).unwrap();
    let expected: Vec<f64> = (0..500).rev().map(f64::from).collect();
    assert_eq!(batch.columns[0].values, Values::Double(expected));
}

#[test]
fn flat_events_take_the_fast_pass() {
    let missing = Missing {
        absent: MissingPolicy::Nan,
        null: MissingPolicy::Nan,
    };
    let mut inputs = vec![features(&["a", "b", "c"], ElementType::Float, missing)];
    inputs.push(field("v", ElementType::Double, &[3], STRICT));
    let contract = contract(inputs);
    let mut decoder = Decoder::new(&contract, &["id".to_owned()]);
    let (mut batch, mut included) = (empty_batch(&contract), Vec::new());
    for event in [
        r#"{"id":"x-1","a":1,"b":null,"v":[1.5,-2,3e2],"unread":{"k":[true,"s"]}}"#,
        "{ \"a\" : 0.1,\n\"v\" : [ 1 , 2 , 3 ] , \"id\" : null }",
    ] {
        let text = decoder.decode(Some(event.as_bytes()), &mut batch, &mut included);
        assert_eq!(text, Ok(()), "{event}");
        assert_eq!(decoder.scratch.passed_over, (0, 0), "{event}");
    }
    assert_eq!(included, br#"{"id":"x-1"}{"id":null}"#);
    // What it gives up on is passed over for a while, then tried again.
    let escaped = r#"{"v":[1,2,3],"id":"\u0041"}"#.as_bytes();
    for passed_over in [(1, 1), (1, 0), (3, 3), (3, 2), (3, 1), (3, 0), (7, 7)] {
        let read = decoder.decode(Some(escaped), &mut batch, &mut included);
        assert_eq!(read, Ok(()));
        assert_eq!(decoder.scratch.passed_over, passed_over);
    }
    assert_eq!(batch.rows, 9);
}
