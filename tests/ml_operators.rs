//! Models with operators of `ai.onnx.ml` from the event to the prediction
//! (`tests/fixtures/make_models.py`): strings in and out, maps in and out, known categories, and
//! rows whose bits do not depend on their batch.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use swapstream::codec::{Columns, InputRef, NonFiniteOutputs, Values};
use swapstream::model::{Checks, Contract, Digest, GoldenRow, RuntimeKind, TensorSpec};
use swapstream::runtime::{CompiledModel, LoadLimits, inspect, load};
use swapstream::scorer::{Scorer, Tag, golden};

fn fixture(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.onnx"));
    std::fs::read(file).unwrap()
}

fn model(name: &str) -> Arc<dyn CompiledModel> {
    load(&fixture(name), RuntimeKind::Tract, LoadLimits::default()).unwrap()
}

/// The outputs for each event, or the error's class and message.
fn score(name: &str, events: &[Value]) -> Vec<Result<Value, String>> {
    let model = model(name);
    let contract = Contract::resolve(&[], &[], model.signature()).unwrap();
    let digest = Digest::of(&[]);
    let tag = Tag {
        model: None,
        version: None,
        digest: &digest,
        revision: None,
    };
    let mut scorer = Scorer::new(model, &contract, tag, &[], NonFiniteOutputs::Null).unwrap();
    for event in events {
        scorer.push(Some(event.to_string().as_bytes()));
    }
    scorer.run();
    let one = |row: usize| {
        let mut text = Vec::new();
        match scorer.encode(row, InputRef::Line(1), &mut text) {
            Ok(()) => {
                let prediction: Value = serde_json::from_slice(&text).unwrap();
                Ok(prediction["outputs"].clone())
            }
            Err(error) => Err(format!("{}: {}", error.stage, error.message)),
        }
    };
    (0..events.len()).map(one).collect()
}

#[test]
fn words_are_counted_and_strings_normalised() {
    let event = |words: [&str; 5], name: &str| json!({"words": words, "name": name});
    let got = score(
        "text",
        &[
            event(["free", "now", "x", "hello", "hello"], "ÄÖ"),
            event(["", "", "", "", ""], "ß"),
            event(["free", "y", "now", "now", "hello"], "Ab"),
        ],
    );
    // What ONNX Runtime 1.32 gives.
    let expected = [(3.323_682_8, "äö"), (0.125, "ß"), (1.059_128_5, "ab")];
    for (got, (y, lower)) in got.iter().zip(expected) {
        close(got.as_ref().unwrap(), &json!({"y": y, "lower": lower}));
    }
}

/// Both strategies, on two trees: sums of 1, 2 or 3, and 10, 20 or 30.
#[test]
fn trees_exported_by_hummingbird_run() {
    let rows = [
        [0.0, 1.0, -1.0],
        [0.0, 1.5, 0.0],
        [1.0, 0.0, -2.0],
        [3.0, 0.0, 0.0],
        [-1.0, 2.0, 5.0],
    ];
    let events = rows.map(|row| json!({"x": row}));
    for name in ["hummingbird_gemm", "hummingbird_traversal"] {
        assert!(model(name).info().batch_invariant, "{name}");
        let got = score(name, &events);
        for (got, y) in got.iter().zip([11.0, 22.0, 13.0, 33.0, 22.0]) {
            close(got.as_ref().unwrap(), &json!({"y": y}));
        }
    }
}

/// Holds that `got` is `wanted`, numbers up to a small difference.
#[track_caller]
fn close(got: &Value, wanted: &Value) {
    match (got, wanted) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-6, "{a} is not {b}");
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| close(a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            let keys =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(a), keys(b));
            a.values().zip(b.values()).for_each(|(a, b)| close(a, b));
        }
        (a, b) => assert_eq!(a, b),
    }
}

fn signature(name: &str) -> String {
    let model = model(name);
    let show = |specs: &[TensorSpec]| {
        let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
        specs.join("; ")
    };
    let signature = model.signature();
    assert!(model.info().batch_invariant, "{name}");
    format!("{} → {}", show(&signature.inputs), show(&signature.outputs))
}

fn customer(age: Option<f64>, income: f64, country: &str, visits: i64) -> Value {
    json!({"age": age, "income": income, "country": country, "visits": visits})
}

#[test]
fn signatures_show_strings_and_maps() {
    assert_eq!(
        signature("pipeline"),
        "age: float[batch, 1]; income: float[batch, 1]; country: string[batch, 1]; \
         visits: int64[batch, 1] → label: string[batch]; probabilities: float[batch, 2] by {no, yes}"
    );
    assert_eq!(
        signature("bag_of_words"),
        "words: float[batch, 3] by {free, hello, e.g.} → y: float[batch, 1]"
    );
    assert_eq!(
        signature("string_labels"),
        "x: float[batch, 2] → label: string[batch]; scores: float[batch, 2]"
    );
    for name in ["classes", "means", "encoders", "support_vectors"] {
        signature(name);
    }
}

// The expected numbers are computed by hand, and ONNX Runtime 1.32 gives them as well.
#[test]
fn a_pipeline_goes_from_strings_to_a_map() {
    let outputs = score(
        "pipeline",
        &[
            customer(None, 2.0, "SE", 2),
            customer(Some(42.0), 1.0, "DE", 9),
        ],
    );
    let wanted =
        |no: f64, yes: f64| json!({"label": "yes", "probabilities": {"no": no, "yes": yes}});
    close(
        outputs[0].as_ref().unwrap(),
        &wanted(0.377_540_7, 0.622_459_3),
    );
    close(outputs[1].as_ref().unwrap(), &wanted(0.360_312, 0.639_688));
}

#[test]
fn only_the_event_with_an_unknown_category_fails() {
    let events: Vec<Value> = (0..40)
        .map(|i| customer(Some(30.0), 1.0, if i == 17 { "FR" } else { "SE" }, 1))
        .collect();
    let outputs = score("pipeline", &events);
    for (row, output) in outputs.iter().enumerate() {
        match output {
            Ok(_) => assert_ne!(row, 17),
            Err(error) => {
                assert_eq!(row, 17);
                assert!(error.contains("a category is unknown"), "{error}");
            }
        }
    }
}

#[test]
fn golden_rows_hold_maps() {
    let model = model("pipeline");
    let contract = Contract::resolve(&[], &[], model.signature()).unwrap();
    let check = |yes: f64| {
        let outputs = json!({"probabilities": {"no": 0.377_540_7, "yes": yes}});
        let row = GoldenRow {
            input: customer(None, 2.0, "SE", 2),
            outputs: outputs.as_object().unwrap().clone(),
        };
        let checks = Checks {
            golden: vec![row],
            ..Checks::default()
        };
        golden::check(&model, &contract, &checks)
    };
    assert_eq!(check(0.622_459_3), Ok(()));
    let error = check(0.7).unwrap_err().to_string();
    assert!(error.contains("probabilities.yes"), "{error}");
}

#[test]
fn categories_become_numbers_names_and_columns() {
    let outputs = score(
        "encoders",
        &[
            json!({"color": "red", "x": [1, 0, 0.2]}),
            json!({"color": "green", "x": [0.6, 7, 0.5]}),
        ],
    );
    let wanted = json!({"number": 3, "name": "warm", "y": [0.0, 1.0, 1.0, 0.0]});
    close(outputs[0].as_ref().unwrap(), &wanted);
    let wanted = json!({"number": -1, "name": "?", "y": [0.0, 1.0, 0.6, 7.0]});
    close(outputs[1].as_ref().unwrap(), &wanted);
}

// The expected numbers are ONNX Runtime's, 1.32.
#[test]
fn support_vectors_vote_and_their_probabilities_are_coupled() {
    let outputs = score(
        "support_vectors",
        &[json!({"x": [0.1, 0.2]}), json!({"x": [0.5, 3]})],
    );
    let wanted = json!({
        "label": 4, "probabilities": [0.710_847_3, 0.139_347_76, 0.149_804_89], "y": 1.115
    });
    close(outputs[0].as_ref().unwrap(), &wanted);
    let wanted = json!({
        "label": 6, "probabilities": [0.206_889_6, 0.203_105_05, 0.590_005_4], "y": -10.125
    });
    close(outputs[1].as_ref().unwrap(), &wanted);
}

#[test]
fn a_map_goes_in_as_an_object_or_as_its_paths() {
    let outputs = score(
        "bag_of_words",
        &[
            json!({"words": {"free": 2, "e.g.": 4, "other": 9}}),
            json!({"words.hello": 1}),
            json!({}),
        ],
    );
    let y = |row: usize| outputs[row].as_ref().unwrap()["y"].as_f64().unwrap();
    assert_eq!([y(0), y(1), y(2)], [6.25, -0.75, 0.25]);
}

#[test]
fn sums_along_a_row_are_right() {
    let outputs = score("means", &[json!({"x": [0, 1, 2, 3, 4, 5, 6, 7, 8]})]);
    let wanted = json!({"y": [204.0, 4.0, 14.282_857]});
    close(outputs[0].as_ref().unwrap(), &wanted);
}

#[test]
fn what_cannot_be_run_is_named() {
    let refusal = |name: &str| {
        let error = load(&fixture(name), RuntimeKind::Tract, LoadLimits::default()).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        refusal("maps_in_between"),
        "operator SequenceAt reads the maps of a ZipMap; only outputs of the model may be maps"
    );
    assert_eq!(
        refusal("ml_name_in_the_default_domain"),
        "operator ai.onnx.Scaler is not supported by this build"
    );
}

#[test]
fn an_inspection_shows_the_classes() {
    let inspection = inspect(&fixture("pipeline")).unwrap();
    let runs = inspection.runs.unwrap();
    // Made-up rows hold no known country, and are timed all the same.
    assert_eq!(runs.timings.len(), 5);
    let outputs = serde_json::to_value(&runs.signature.outputs).unwrap();
    assert_eq!(outputs[1]["classes"], json!(["no", "yes"]));
    assert_eq!(outputs[0].get("classes"), None);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(24)
    })]

    /// 200 rows alone, and in batches of 2 to 100 rows at random positions.
    #[test]
    fn a_row_gives_the_same_bits_in_any_batch(
        seed in any::<u32>(),
        order in Just((0..200usize).collect::<Vec<_>>()).prop_shuffle(),
        sizes in prop::collection::vec(2..=100usize, 100),
        name in prop::sample::select(
            vec!["pipeline", "encoders", "support_vectors", "classes", "means", "string_labels"],
        ),
    ) {
        let model = model(name);
        let number = |i: usize| (i as f32 * 0.7 + seed as f32).sin() * 3.0;
        let mut all = Columns::new(&model.signature().inputs);
        for (at, column) in all.columns.iter_mut().enumerate() {
            let places = (0..200 * column.row_len).map(|i| i + at * 977);
            match &mut column.values {
                Values::Float(values) => values.extend(places.map(number)),
                Values::Int64(values) => values.extend(places.map(|i| number(i) as i64)),
                Values::String(values) => values.extend(
                    places.map(|i| if number(i) > 0.0 { "DE" } else { "SE" }.to_owned()),
                ),
                other => unreachable!("{other:?}"),
            }
        }
        all.rows = 200;
        let mut runner = model.runner().unwrap();
        let mut run = |rows: &[usize]| {
            let mut inputs = Columns::new(&model.signature().inputs);
            for row in rows {
                inputs.append(&all.row(*row));
            }
            let mut outputs = Columns::new(&model.signature().outputs);
            runner.run(&inputs, &mut outputs).unwrap();
            outputs
        };
        // No output here is NaN or −0, so that equality is that of bits.
        let alone: Vec<Columns> = (0..200).map(|row| run(&[row])).collect();
        let mut rest = order.as_slice();
        for size in sizes {
            let (now, later) = rest.split_at(size.min(rest.len()));
            if now.is_empty() {
                break;
            }
            let together = run(now);
            for (at, row) in now.iter().enumerate() {
                prop_assert_eq!(&together.row(at), &alone[*row]);
            }
            rest = later;
        }
    }
}
