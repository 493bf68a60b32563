//! The event decoder: no crash, and a record that fails leaves no trace in the batch.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use swapstream::codec::{Columns, Decoder};
use swapstream::model::{
    Contract, ElementType, Feature, InputContract, InputSource, Missing, MissingPolicy, TensorSpec,
};

static CONTRACTS: LazyLock<Vec<Contract>> = LazyLock::new(|| {
    let missing = |absent, null| Missing { absent, null };
    let reject = || missing(MissingPolicy::Reject, MissingPolicy::Reject);
    let lenient = || missing(MissingPolicy::Nan, MissingPolicy::Nan);
    let feature = |name: &str, missing: Missing| Feature {
        name: name.to_owned(),
        missing,
    };
    let input = |name: &str, element, row_shape: &[usize], source| InputContract {
        spec: TensorSpec {
            name: name.to_owned(),
            element,
            row_shape: row_shape.to_vec(),
            classes: None,
        },
        source,
    };
    let listed = |missing: Missing| {
        InputSource::Features(
            ["a", "b", "c.d"]
                .map(|name| feature(name, missing.clone()))
                .to_vec(),
        )
    };
    let field = |name: &str| InputSource::Field(feature(name, reject()));
    let contract = |inputs| Contract {
        inputs,
        outputs: Vec::new(),
    };
    let types = [
        ElementType::Float,
        ElementType::Double,
        ElementType::Int8,
        ElementType::Uint64,
        ElementType::Int64,
        ElementType::Bool,
        ElementType::String,
    ];
    let mut contracts = vec![
        contract(vec![input("x", ElementType::Float, &[3], listed(reject()))]),
        contract(vec![input(
            "x",
            ElementType::Double,
            &[3],
            listed(lenient()),
        )]),
    ];
    for element in types {
        contracts.push(contract(vec![
            input("a", element, &[], field("a")),
            input("b", element, &[2, 2], field("b")),
        ]));
    }
    // A map: one value a class.
    let mut map = input("b", ElementType::Float, &[2], field("b"));
    map.spec.classes = Some(vec!["x".to_owned(), "1".to_owned()]);
    contracts.push(contract(vec![map]));
    contracts
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, event)) = bytes.split_first() else {
        return;
    };
    let contract = &CONTRACTS[usize::from(first) % CONTRACTS.len()];
    let mut decoder = Decoder::new(contract, &["id".to_owned(), "a".to_owned()]);
    let empty = || Columns::new(contract.inputs.iter().map(|input| &input.spec));
    let mut batch = empty();
    let mut included = Vec::new();
    match decoder.decode(Some(event), &mut batch, &mut included) {
        Err(_) => {
            assert_eq!(batch, empty());
            assert!(included.is_empty());
            return;
        }
        Ok(()) => assert_eq!(batch.rows, 1),
    }
    for (column, input) in batch.columns.iter().zip(&contract.inputs) {
        let len = swapstream::with_values!(&column.values, v => v.len());
        assert_eq!(len, input.spec.row_len());
    }
    // What is accepted is JSON by serde_json's measure as well, and decodes the same again. Raw:
    // a field that nobody reads may hold a number beyond all ranges or half a surrogate pair.
    serde_json::from_slice::<&serde_json::value::RawValue>(event).expect("accepted, but not JSON");
    decoder
        .decode(Some(event), &mut batch, &mut included)
        .expect("accepted once");
    assert_eq!(batch.rows, 2);
});
