//! Which JSON value fits which element type and row shape.

use super::{STRICT, contract, decode, feature, field, refused, two_floats};
use crate::codec::Values;
use crate::model::{ElementType, InputSource, Separator};

#[test]
fn types_are_not_guessed() {
    use ElementType::{Bool, Double, Float, Int8, Int64, String, Uint64};
    let check = |element, value: &str, class: &str| {
        let c = contract(vec![field("f", element, &[], STRICT)]);
        let event = format!("{{\"f\":{value}}}");
        match class {
            "" => drop(decode(&c, &event).unwrap()),
            class => drop(refused(&c, event, &format!("features/{class}"))),
        }
    };
    for (element, value, class) in [
        (Float, "1", ""),
        (Float, "true", "wrong_type"),
        (Float, "\"1\"", "wrong_type"),
        (Float, "{}", "wrong_type"),
        (Float, "3.5e38", "out_of_range"),
        (Float, "3.4e38", ""),
        (Float, "1e-60", ""),
        (Double, "1e308", ""),
        (Double, "18446744073709551616", ""),
        (Int8, "-128", ""),
        (Int8, "128", "out_of_range"),
        (Int8, "3.0", ""),
        (Int8, "-0", ""),
        (Int8, "3.5", "wrong_type"),
        (Int8, "1e2", ""),
        (Int8, "1e3", "out_of_range"),
        (Int64, "9223372036854775807", ""),
        (Int64, "9223372036854775808", "out_of_range"),
        (Int64, "9007199254740993.0", "out_of_range"),
        (Int64, "9007199254740991.0", ""),
        (Int64, "true", "wrong_type"),
        (Uint64, "18446744073709551615", ""),
        (Uint64, "18446744073709551616", "out_of_range"),
        (Uint64, "-1", "out_of_range"),
        (Uint64, "-1.0", "out_of_range"),
        (Bool, "false", ""),
        (Bool, "1", "wrong_type"),
        (Bool, "\"true\"", "wrong_type"),
        (String, "\"\"", ""),
        (String, "1", "wrong_type"),
    ] {
        check(element, value, class);
    }
}

#[test]
fn numbers_are_read_from_a_string_where_the_manifest_says_so() {
    let mut input = field("f", ElementType::Float, &[1, 3], STRICT);
    let own = feature("f", STRICT);
    let comma = Separator::new(',').unwrap();
    input.source = InputSource::Separated(own, comma);
    let c = contract(vec![input]);
    for text in ["1,2.5,-3e1", "1,2.5,-3e1,", " 1 , +2.5,-30."] {
        let batch = decode(&c, &format!("{{\"f\":\"{text}\"}}")).unwrap();
        assert_eq!(
            batch.columns[0].values,
            Values::Float(vec![1.0, 2.5, -30.0])
        );
    }
    for (value, class) in [
        ("\"1,2\"", "wrong_shape"),
        ("\"1,2,3,4\"", "wrong_shape"),
        ("\"\"", "wrong_type"),
        ("\"1,,3\"", "wrong_type"),
        ("\"1,2,3,,\"", "wrong_type"),
        ("\"1,2,NaN\"", "wrong_type"),
        ("\"1,2,inf\"", "wrong_type"),
        ("\"1,2,1e39\"", "out_of_range"),
        ("\"1,2,1e999\"", "out_of_range"),
        ("[1,2,3]", "wrong_type"),
        ("7", "wrong_type"),
        ("null", "null_feature"),
    ] {
        let event = format!("{{\"f\":{value}}}");
        refused(&c, event, &format!("features/{class}"));
    }
}

#[test]
fn shapes_are_nested_or_flat_and_nothing_else() {
    let check = |shape: &[usize], value: &str, class: &str| {
        let c = contract(vec![field("f", ElementType::Float, shape, STRICT)]);
        let event = format!("{{\"f\":{value}}}");
        match class {
            "" => drop(decode(&c, &event).unwrap()),
            class => drop(refused(&c, event, &format!("features/{class}"))),
        }
    };
    let bad = "wrong_shape";
    for (shape, value, class) in [
        (&[][..], "1", ""),
        (&[], "[1]", ""),
        (&[], "[]", bad),
        (&[], "[1,2]", bad),
        (&[], "[[1]]", bad),
        (&[1], "1", ""),
        (&[1], "[1]", ""),
        (&[1], "[[1]]", bad),
        (&[2], "[1,2]", ""),
        (&[2], "[1]", bad),
        (&[2], "[1,2,3]", bad),
        (&[2], "1", bad),
        (&[2], "[[1,2]]", bad),
        (&[2], "[[1],[2]]", bad),
        (&[2], "{}", "wrong_type"),
        (&[2], "[1,\"x\"]", "wrong_type"),
        (&[2], "[1,{\"a\":[1]}]", "wrong_type"),
        (&[2, 2], "[[1,2],[3,4]]", ""),
        (&[2, 2], "[1,2,3,4]", ""),
        (&[2, 2], "[1,2,[3,4]]", bad),
        (&[2, 2], "[[1,2],3,4]", bad),
        (&[2, 2], "[[1,2],[3]]", bad),
        (&[2, 2], "[[1,2]]", bad),
        (&[2, 2], "[[1,2],[3,4],[5,6]]", bad),
        (&[2, 2], "[[[1,2],[3,4]]]", bad),
        (&[2, 2], "[]", bad),
        (&[1, 1], "[[1]]", ""),
        (&[1, 1], "[1]", ""),
        (&[1, 1], "1", bad),
        (&[2, 0], "[[],[]]", ""),
        (&[2, 0], "[]", ""),
        (&[2, 0], "[1]", bad),
    ] {
        check(shape, value, class);
    }
    refused(&two_floats(), r#"{"a":[1],"b":2}"#, "features/wrong_shape");
}
