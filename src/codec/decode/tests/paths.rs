//! Fields inside objects: the paths to them, and what wins over them.

use super::*;

fn age() -> Contract {
    contract(vec![features(
        &["customer.age", "n"],
        ElementType::Float,
        STRICT,
    )])
}

fn values(contract: &Contract, event: &str) -> String {
    format!("{:?}", decode(contract, event).unwrap().columns[0].values)
}

#[test]
fn a_path_leads_into_objects() {
    let contract = age();
    let event = r#"{"other":{"age":9},"customer":{"name":{"age":8},"a\u0067e": 1.5 },"n":2}"#;
    assert_eq!(values(&contract, event), "Float([1.5, 2.0])");
    let deep = super::contract(vec![features(
        &["a.b.c", "a.b.d"],
        ElementType::Int64,
        STRICT,
    )]);
    let deep = |event: &str| values(&deep, event);
    assert_eq!(deep(r#"{"a":{"b":{"c":1,"d":2}}}"#), "Int64([1, 2])");
    assert_eq!(deep(r#"{"a":{"b.c":1,"b":{"d":2}}}"#), "Int64([1, 2])");
}

#[test]
fn an_exact_key_wins_over_the_path_wherever_it_stands() {
    let contract = age();
    for event in [
        r#"{"customer.age":1,"customer":{"age":"old"},"n":2}"#,
        r#"{"customer":{"age":7},"n":2,"customer.age":1}"#,
        r#"{"customer":"Bob","n":2,"customer.age":1}"#,
    ] {
        assert_eq!(values(&contract, event), "Float([1.0, 2.0])");
    }
    let deep = super::contract(vec![features(&["a.b.c", "n"], ElementType::Float, STRICT)]);
    let event = r#"{"a":{"b":{"c":7},"b.c":1},"n":2}"#;
    assert_eq!(values(&deep, event), "Float([1.0, 2.0])");
}

#[test]
fn what_no_path_leads_to_is_absent() {
    let contract = age();
    for event in [
        r#"{"customer":{},"n":1}"#,
        r#"{"customer":null,"n":1}"#,
        r#"{"customer":[{"age":1}],"n":1}"#,
        r#"{"age":1,"n":1}"#,
    ] {
        let message = refused(&contract, event, "features/missing_feature");
        assert_eq!(message, "feature \"customer.age\" is not in the event");
    }
}

#[test]
fn errors_on_a_path_are_those_of_a_plain_field() {
    let contract = age();
    let check = |event: &str, class: &str| refused(&contract, event, class);
    check(r#"{"customer":{"age":"x"},"n":1}"#, "features/wrong_type");
    check(
        r#"{"customer":{"age":null},"n":1}"#,
        "features/null_feature",
    );
    let twice = check(
        r#"{"customer":{"age":1,"age":1},"n":1}"#,
        "decode/duplicate_key",
    );
    assert_eq!(twice, "field \"customer.age\" is in the event twice");
    let twice = check(
        r#"{"customer":{"age":1},"customer":{},"n":1}"#,
        "decode/duplicate_key",
    );
    assert_eq!(twice, "field \"customer\" is in the event twice");
    check(
        r#"{"customer":{"age":1,"\ud800":1},"n":1}"#,
        "decode/invalid_json",
    );
    check(r#"{"customer":{"age":1,},"n":1}"#, "decode/invalid_json");
}

#[test]
fn a_field_may_be_read_whole_and_in_parts() {
    let contract = contract(vec![field("customer.age", ElementType::Int64, &[], STRICT)]);
    let event = br#"{"customer": {"age": 3, "id": "x"}}"#;
    let include = ["customer.id", "customer", "customer.none"];
    let (batch, included) = decode_with(&contract, &include, Some(event)).unwrap();
    assert_eq!(batch.columns[0].values, Values::Int64(vec![3]));
    let expected = r#"{"customer.id":"x","customer":{"age":3,"id":"x"}}"#;
    assert_eq!(included, expected);
}
