//! Properties: rows survive JSON bit for bit, no bytes break the decoder, and it agrees with the
//! reference.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value};

use super::{contract, empty_batch, feature, field, reference};
use crate::codec::{Decoder, Stage, Values};
use crate::model::{
    Contract, ElementType, InputContract, InputSource, Missing, MissingPolicy, Separator,
};
use crate::with_values;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "a longer name"];

fn element() -> impl Strategy<Value = ElementType> {
    use ElementType as E;
    select(vec![
        E::Float,
        E::Double,
        E::Int8,
        E::Int16,
        E::Int32,
        E::Int64,
        E::Uint8,
        E::Uint16,
        E::Uint32,
        E::Uint64,
        E::Bool,
        E::String,
    ])
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    let shapes: [&[usize]; 8] = [&[], &[1], &[3], &[2, 2], &[1, 1], &[2, 0], &[0], &[2, 1, 2]];
    select(shapes.map(<[usize]>::to_vec).to_vec())
}

fn policy(element: ElementType) -> impl Strategy<Value = MissingPolicy> {
    let mut choices = vec![MissingPolicy::Reject];
    if element.is_float() {
        choices.extend([MissingPolicy::Nan, MissingPolicy::Value(-2.5)]);
    }
    choices.push(match element {
        ElementType::String => MissingPolicy::Text("none".to_owned()),
        _ => MissingPolicy::Value(1.0),
    });
    select(choices)
}

fn missing(element: ElementType) -> impl Strategy<Value = Missing> {
    (policy(element), policy(element)).prop_map(|(absent, null)| Missing { absent, null })
}

fn input() -> impl Strategy<Value = InputContract> {
    (element(), shape(), 0..5).prop_flat_map(|(element, shape, source)| {
        let len: usize = shape.iter().product();
        let names = vec((select(&NAMES[..]), missing(element)), len);
        let own = (select(&NAMES[..]), missing(element));
        (own, names).prop_map(move |((name, missing), names)| {
            let mut input = field(name, element, &shape, missing.clone());
            if source == 0 && element.is_float() {
                let comma = Separator::new(',').unwrap();
                input.source = InputSource::Separated(feature(name, missing), comma);
            } else if source < 3 && !names.is_empty() {
                let names = names
                    .iter()
                    .map(|(name, missing)| feature(name, missing.clone()));
                input.source = InputSource::Features(names.collect());
            }
            input
        })
    })
}

fn any_contract() -> impl Strategy<Value = Contract> {
    vec(input(), 1..4).prop_map(contract)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => (-3_i64..300).prop_map(Value::from),
        2 => (-3_i32..300).prop_map(|x| Value::from(f64::from(x))),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        2 => any::<f64>().prop_map(Value::from),
        2 => any::<f32>().prop_map(Value::from),
        2 => any::<bool>().prop_map(Value::from),
        2 => ".{0,6}".prop_map(Value::from),
        1 => "-?[0-9.]{1,3}(,-?[0-9]{1,2}(e[0-9])?){0,4},?".prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let numbers = || (-2_i64..100).prop_map(Value::from);
    prop_oneof![
        6 => scalar(),
        2 => vec(numbers(), 0..5).prop_map(Value::from),
        1 => vec(vec(numbers(), 0..3).prop_map(Value::from), 0..3).prop_map(Value::from),
        2 => scalar().prop_recursive(3, 12, 4, |inner| prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((select(&NAMES[..]), inner), 0..3).prop_map(object),
        ]),
    ]
}

fn object(fields: Vec<(&str, Value)>) -> Value {
    let fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Value::Object(fields.collect())
}

fn event() -> impl Strategy<Value = Value> {
    let names = [&NAMES[..], &["z"][..]].concat();
    vec((select(names), value()), 0..9).prop_map(object)
}

/// An event that fits the contract often: mostly one number for each field.
fn plain_event() -> impl Strategy<Value = Value> {
    let number = (0_i64..100).prop_map(Value::from);
    let values = vec(prop_oneof![5 => number, 1 => value()], NAMES.len());
    values.prop_map(|values| object(NAMES.into_iter().zip(values).collect()))
}

/// A cell as text: a number of many kinds, null, or what is neither.
fn cell() -> impl Strategy<Value = String> {
    prop_oneof![
        40 => "-?[0-9]{1,4}(\\.[0-9]{1,5})?",
        10 => any::<f32>().prop_map(|x| Value::from(x).to_string()),
        6 => any::<f64>().prop_map(|x| Value::from(x).to_string()),
        6 => Just("null".to_owned()),
        1 => "-?[0-9]{0,20}\\.?[0-9]{0,20}(e-?[0-9]{1,2})?",
        1 => select(vec!["\"1\"", "true", "[1]", "nulL", "null ", "1 ", "\"a,b\"", ""]).prop_map(str::to_owned),
    ]
}

/// Values by their bits: NaN equals NaN, and −0 is not 0.
fn bits<'a>(values: impl Iterator<Item = &'a Values>) -> String {
    format!("{:?}", values.collect::<Vec<_>>())
}

fn decoded(contract: &Contract, include: &[String], event: &[u8]) -> Result<String, Stage> {
    let mut decoder = Decoder::new(contract, include);
    let mut batch = empty_batch(contract);
    match decoder.decode(Some(event), &mut batch, &mut Vec::new()) {
        Ok(()) => Ok(bits(batch.columns.iter().map(|column| &column.values))),
        Err(error) => Err(error.stage),
    }
}

/// Any values that JSON can carry: what is not finite is NaN, written as null.
fn column(element: ElementType, len: usize) -> BoxedStrategy<Values> {
    use ElementType as E;
    macro_rules! any_of {
        ($variant:ident, $type:ty) => {
            vec(any::<$type>(), len).prop_map(Values::$variant).boxed()
        };
    }
    let float = |bits| Some(f32::from_bits(bits)).filter(|x| x.is_finite());
    let double = |bits| Some(f64::from_bits(bits)).filter(|x| x.is_finite());
    match element {
        E::Float => vec(
            any::<u32>().prop_map(move |bits| float(bits).unwrap_or(f32::NAN)),
            len,
        )
        .prop_map(Values::Float)
        .boxed(),
        E::Double => vec(
            any::<u64>().prop_map(move |bits| double(bits).unwrap_or(f64::NAN)),
            len,
        )
        .prop_map(Values::Double)
        .boxed(),
        E::Int8 => any_of!(Int8, i8),
        E::Int16 => any_of!(Int16, i16),
        E::Int32 => any_of!(Int32, i32),
        E::Int64 => any_of!(Int64, i64),
        E::Uint8 => any_of!(Uint8, u8),
        E::Uint16 => any_of!(Uint16, u16),
        E::Uint32 => any_of!(Uint32, u32),
        E::Uint64 => any_of!(Uint64, u64),
        E::Bool => any_of!(Bool, bool),
        E::String => vec(".{0,5}", len).prop_map(Values::String).boxed(),
    }
}

fn as_json(values: &Values, shape: &[usize], flat: bool) -> Value {
    let all = with_values!(values, v => serde_json::to_value(v)).unwrap();
    let all = all.as_array().unwrap();
    if flat {
        Value::from(all.clone())
    } else {
        nest(all, shape)
    }
}

fn nest(all: &[Value], shape: &[usize]) -> Value {
    let Some((len, inner)) = shape.split_first() else {
        return all[0].clone();
    };
    let step: usize = inner.iter().product();
    (0..*len)
        .map(|i| nest(&all[i * step..(i + 1) * step], inner))
        .collect()
}

/// Inputs by type and shape, and rows of values, each flat or nested.
type Rows = (Vec<(ElementType, Vec<usize>)>, Vec<Vec<(Values, bool)>>);

fn rows() -> impl Strategy<Value = Rows> {
    (vec((element(), shape()), 1..5), 0_usize..4).prop_flat_map(|(specs, rows)| {
        let row: Vec<_> = specs
            .iter()
            .map(|(element, shape)| (column(*element, shape.iter().product()), any::<bool>()))
            .collect();
        (Just(specs), vec(row, rows))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn rows_survive_json_bit_for_bit((specs, rows) in rows()) {
        let inputs = specs.iter().enumerate().map(|(i, (element, shape))| {
            let null = if element.is_float() { MissingPolicy::Nan } else { MissingPolicy::Reject };
            let missing = Missing { absent: MissingPolicy::Reject, null };
            field(&format!("input {i}"), *element, shape, missing)
        });
        let contract = contract(inputs.collect());
        let mut decoder = Decoder::new(&contract, &[]);
        let mut expected = empty_batch(&contract);
        let mut batch = empty_batch(&contract);
        for row in &rows {
            let mut event = Map::new();
            for (i, ((values, flat), (_, shape))) in row.iter().zip(&specs).enumerate() {
                event.insert(format!("input {i}"), as_json(values, shape, *flat));
                expected.columns[i].values.extend_from(values, 0..values.len());
            }
            let text = Value::Object(event).to_string();
            decoder.decode(Some(text.as_bytes()), &mut batch, &mut Vec::new()).unwrap();
        }
        prop_assert_eq!(batch.rows, rows.len());
        prop_assert_eq!(
            bits(batch.columns.iter().map(|c| &c.values)),
            bits(expected.columns.iter().map(|c| &c.values))
        );
    }

    #[test]
    fn agrees_with_the_reference(
        contract in any_contract(),
        event in prop_oneof![event(), plain_event()],
        pretty in any::<bool>(),
        include in vec(select(&NAMES[..]).prop_map(str::to_owned), 0..3),
    ) {
        let text = if pretty { format!("{event:#}") } else { event.to_string() };
        let expected = reference::decode(&contract, &text).map(|row| bits(row.iter()));
        let actual = decoded(&contract, &include, text.as_bytes());
        prop_assert_eq!(actual, expected.ok_or(Stage::Features), "{} {:?}", text, contract);
    }

    #[test]
    fn the_fast_pass_reads_as_the_slow_one(
        contract in any_contract(),
        events in vec(prop_oneof![event(), plain_event()], 1..4),
        pretty in any::<bool>(),
        include in vec(select(&NAMES[..]).prop_map(str::to_owned), 0..3),
        edits in vec((any::<Index>(), select(&b"0123456789-+.eE,:\"\\[]{} \nnull\x01"[..])), 0..3),
    ) {
        let mut fast = Decoder::new(&contract, &include);
        let mut slow = Decoder::new(&contract, &include);
        // Never tried again.
        slow.scratch.passed_over = (0, u32::MAX);
        let mut batches = [empty_batch(&contract), empty_batch(&contract)];
        let mut included = [Vec::new(), Vec::new()];
        for event in events {
            let text = if pretty { format!("{event:#}") } else { event.to_string() };
            let mut bytes = text.into_bytes();
            for (at, byte) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let of_fast = fast.decode(Some(&bytes), &mut batches[0], &mut included[0]);
            let of_slow = slow.decode(Some(&bytes), &mut batches[1], &mut included[1]);
            prop_assert_eq!(of_fast, of_slow, "{}", String::from_utf8_lossy(&bytes));
            prop_assert_eq!(&included[0], &included[1]);
            let [fast, slow] = batches
                .each_ref()
                .map(|batch| bits(batch.columns.iter().map(|column| &column.values)));
            prop_assert_eq!(fast, slow, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn cells_in_a_row_are_read_as_by_the_slow_pass(
        policies in vec(missing(ElementType::Float), 8),
        space in select(vec!["", " "]),
        events in vec(vec(cell(), 8..11), 1..5),
        swaps in vec((any::<Index>(), any::<Index>()), 0..2),
        include in vec(Just("field 3".to_owned()), 0..2),
    ) {
        let names: Vec<String> = (0..8).map(|number| format!("field {number}")).collect();
        let mut input = field("x", ElementType::Float, &[8], policies[0].clone());
        let features = names.iter().zip(&policies);
        let features = features.map(|(name, missing)| feature(name, missing.clone()));
        input.source = InputSource::Features(features.collect());
        let contract = contract(vec![input]);
        let [mut fast, mut slow] = [(); 2].map(|()| Decoder::new(&contract, &include));
        slow.scratch.passed_over = (0, u32::MAX);
        for cells in events {
            // More cells than fields: some are doubled.
            let mut fields: Vec<String> = cells
                .iter()
                .enumerate()
                .map(|(at, value)| format!("\"field {}\":{space}{value}", at % 8))
                .collect();
            for (one, other) in &swaps {
                let (one, other) = (one.index(fields.len()), other.index(fields.len()));
                fields.swap(one, other);
            }
            let text = format!("{{{}}}", fields.join(&format!(",{space}")));
            let [fast, slow] = [&mut fast, &mut slow].map(|decoder| {
                let (mut batch, mut included) = (empty_batch(&contract), Vec::new());
                let result = decoder.decode(Some(text.as_bytes()), &mut batch, &mut included);
                (result, bits(batch.columns.iter().map(|column| &column.values)), included)
            });
            prop_assert_eq!(fast, slow, "{}", text);
        }
    }

    #[test]
    fn no_bytes_break_it_and_errors_leave_the_batch(
        contract in any_contract(),
        event in plain_event(),
        edits in vec((any::<Index>(), any::<u8>(), any::<bool>()), 0..4),
        noise in prop::option::weighted(0.3, vec(any::<u8>(), 0..64)),
    ) {
        let mut bytes = noise.unwrap_or_else(|| event.to_string().into_bytes());
        for (at, byte, cut) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
        }
        let mut decoder = Decoder::new(&contract, &["a".to_owned()]);
        let (mut batch, mut include) = (empty_batch(&contract), b"x".to_vec());
        match decoder.decode(Some(&bytes), &mut batch, &mut include) {
            Ok(()) => {
                prop_assert_eq!(batch.rows, 1);
                prop_assert!(serde_json::from_slice::<Map<_, _>>(&include[1..]).is_ok());
                prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok());
            }
            Err(error) => {
                prop_assert_eq!(&batch, &empty_batch(&contract));
                prop_assert_eq!(&include[..], b"x");
                prop_assert!(error.message.chars().count() <= 300);
                if error.class == "invalid_json" {
                    prop_assert!(serde_json::from_slice::<Value>(&bytes).is_err());
                }
            }
        }
        // What it left behind does not show in the next event.
        let event = event.to_string();
        batch.clear();
        let again = decoder
            .decode(Some(event.as_bytes()), &mut batch, &mut include)
            .map(|()| bits(batch.columns.iter().map(|column| &column.values)))
            .map_err(|error| error.stage);
        prop_assert_eq!(again, decoded(&contract, &[], event.as_bytes()));
    }
}
