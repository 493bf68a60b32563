//! Predictions and error lines: golden texts, and that they read back the same.

mod dead_letters;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::{Contract, Digest, ElementType, ModelName, OutputContract, TensorSpec, Version};
use crate::record::Origin;

const ORIGIN: Origin<'_> = Origin {
    topic: "events",
    partition: 3,
    offset: 991,
    timestamp: Some(1_732_000_000_000),
};

fn output(index: usize, name: &str, row_shape: &[usize], element: ElementType) -> OutputContract {
    OutputContract {
        index,
        name: name.to_owned(),
        spec: TensorSpec {
            name: name.to_owned(),
            element,
            row_shape: row_shape.to_vec(),
            classes: None,
        },
    }
}

fn model() -> (ModelName, Version) {
    (ModelName::new("fraud").unwrap(), Version::new("7").unwrap())
}

/// An encoder of the outputs that are given with their values, two rows each.
fn encoder(
    outputs: Vec<(OutputContract, Values)>,
    non_finite: NonFiniteOutputs,
) -> (PredictionEncoder, Columns) {
    let (model, version) = model();
    let mut columns = Vec::new();
    let mut contracts = Vec::new();
    for (contract, values) in outputs {
        let row_len = contract.spec.row_len();
        columns.push((contract.index, Column { row_len, values }));
        contracts.push(contract);
    }
    columns.sort_by_key(|(index, _)| *index);
    let contract = Contract {
        inputs: Vec::new(),
        outputs: contracts,
    };
    let encoder = PredictionEncoder::new(
        Some(&model),
        Some(&version),
        &Digest::of(b"abc"),
        Some(42),
        &contract,
        non_finite,
    );
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    (encoder, Columns { rows: 2, columns })
}

fn encode(encoder: &PredictionEncoder, outputs: &Columns, row: usize) -> Result<String, RowError> {
    let mut out = b"before".to_vec();
    let result = encoder.encode(outputs, row, InputRef::Record(ORIGIN), None, &mut out);
    let text = String::from_utf8(out).unwrap();
    let text = text.strip_prefix("before").unwrap();
    match result {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => {
            assert_eq!(text, "");
            Err(error)
        }
    }
}

/// The text of output `o`, the only one.
fn value_text(values: Values, shape: &[usize]) -> String {
    let outputs = vec![(output(0, "o", shape, values.element()), values)];
    let (encoder, outputs) = encoder(outputs, NonFiniteOutputs::Null);
    let text = encode(&encoder, &outputs, 0).unwrap();
    let (_, rest) = text.split_once(r#""outputs":{"o":"#).unwrap();
    rest.split_once(r#"},"input""#).unwrap().0.to_owned()
}

#[test]
fn a_prediction_is_written_as_the_design_shows_it() {
    let (encoder, outputs) = encoder(
        vec![
            (
                output(1, "label", &[1], ElementType::Int64),
                Values::Int64(vec![0, 1]),
            ),
            (
                output(0, "probabilities", &[2], ElementType::Float),
                Values::Float(vec![0.5, 0.5, 0.1, 0.9]),
            ),
        ],
        NonFiniteOutputs::Reject,
    );
    let mut out = Vec::new();
    let include = Some(&br#"{"transaction_id":"x"}"#[..]);
    encoder
        .encode(&outputs, 1, InputRef::Record(ORIGIN), include, &mut out)
        .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"schema":"swapstream.prediction/v1","model":"fraud","version":"7","#,
            r#""digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","#,
            r#""revision":42,"outputs":{"label":1,"probabilities":[0.1,0.9]},"#,
            r#""input":{"topic":"events","partition":3,"offset":991,"timestamp":1732000000000},"#,
            r#""include":{"transaction_id":"x"}}"#
        )
    );
    let prediction: Prediction = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&prediction).unwrap(), text);
    assert!(matches!(
        prediction.input,
        PredictionInput::Record(RecordInput { offset: 991, .. })
    ));
}

#[test]
fn score_has_lines_and_no_version() {
    let contract = Contract {
        inputs: Vec::new(),
        outputs: vec![output(0, "a \"b\"", &[], ElementType::Bool)],
    };
    let digest = Digest::of(b"abc");
    let encoder = PredictionEncoder::new(
        None,
        None,
        &digest,
        None,
        &contract,
        NonFiniteOutputs::Reject,
    );
    let mut outputs = Columns::new(contract.outputs.iter().map(|output| &output.spec));
    outputs.columns[0].values = Values::Bool(vec![true]);
    let mut out = Vec::new();
    encoder
        .encode(&outputs, 0, InputRef::Line(7), Some(b""), &mut out)
        .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"schema":"swapstream.prediction/v1","model":null,"version":null,"digest":"{digest}","revision":null,"outputs":{{"a \"b\"":true}},"input":{{"line":7}}}}"#
        )
    );
    let prediction: Prediction = serde_json::from_str(&text).unwrap();
    assert_eq!(
        prediction.input,
        PredictionInput::Line(LineInput { line: 7 })
    );
}

#[test]
fn an_error_line_is_golden_and_reads_back() {
    let error = RowError::new(Stage::Features, "wrong_type", "feature \"a\"");
    let text = encode_error(3, &error);
    assert_eq!(
        text,
        r#"{"schema":"swapstream.error/v1","input":{"line":3},"stage":"features","class":"wrong_type","message":"feature \"a\""}"#
    );
    let line: ErrorLine = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&line).unwrap(), text);
}

#[test]
fn shapes_and_types_are_written_as_promised() {
    let floats = |n: u8| Values::Float((0..n).map(f32::from).collect());
    assert_eq!(value_text(floats(2), &[]), "0.0");
    assert_eq!(value_text(floats(2), &[1]), "0.0");
    assert_eq!(value_text(floats(2), &[1, 1]), "[[0.0]]");
    assert_eq!(value_text(floats(8), &[2, 2]), "[[0.0,1.0],[2.0,3.0]]");
    assert_eq!(value_text(floats(0), &[2, 0]), "[[],[]]");
    assert_eq!(value_text(floats(0), &[0]), "[]");
    assert_eq!(
        value_text(Values::Int64(vec![i64::MIN]), &[]),
        "-9223372036854775808"
    );
    assert_eq!(
        value_text(Values::Uint64(vec![u64::MAX]), &[]),
        "18446744073709551615"
    );
    assert_eq!(value_text(Values::Int8(vec![-1, 2]), &[2]), "[-1,2]");
    assert_eq!(
        value_text(Values::Bool(vec![true, false]), &[2]),
        "[true,false]"
    );
    assert_eq!(
        value_text(Values::String(vec!["a\"\n".to_owned()]), &[]),
        r#""a\"\n""#
    );
    assert_eq!(
        value_text(Values::Float(vec![0.1, -0.0]), &[2]),
        "[0.1,-0.0]"
    );
    assert_eq!(
        value_text(Values::Double(vec![0.1, 5e-324]), &[2]),
        "[0.1,5e-324]"
    );
    assert_eq!(
        value_text(Values::Float(vec![f32::NAN, f32::INFINITY]), &[2]),
        "[null,null]"
    );
    assert_eq!(
        value_text(Values::Double(vec![f64::NEG_INFINITY]), &[]),
        "null"
    );
}

#[test]
fn a_map_is_an_object_in_class_order() {
    let mut contract = output(0, "p", &[3], ElementType::Float);
    contract.spec.classes = Some(["10", "9", "say \"a\""].map(str::to_owned).to_vec());
    let values = Values::Float(
        vec![0.0; 3]
            .into_iter()
            .chain([0.5, 0.25, f32::NAN])
            .collect(),
    );
    let (encoder, outputs) = encoder(vec![(contract, values)], NonFiniteOutputs::Null);
    let text = encode(&encoder, &outputs, 1).unwrap();
    let expected = r#""outputs":{"p":{"10":0.5,"9":0.25,"say \"a\"":null}},"#;
    assert!(text.contains(expected), "{text}");
}

#[test]
fn non_finite_outputs_are_refused_by_name() {
    for values in [
        Values::Float(vec![1.0, f32::NAN]),
        Values::Double(vec![1.0, f64::INFINITY]),
    ] {
        let outputs = vec![(output(0, "p", &[], values.element()), values)];
        let (encoder, outputs) = encoder(outputs, NonFiniteOutputs::default());
        encode(&encoder, &outputs, 0).unwrap();
        let error = encode(&encoder, &outputs, 1).unwrap_err();
        assert_eq!(
            (error.stage, error.class),
            (Stage::Infer, "non_finite_output")
        );
        assert!(error.message.contains("\"p\""), "{error}");
    }
}

#[test]
fn outputs_that_are_not_there_are_an_error_and_no_panic() {
    let values = Values::Float(vec![1.0, 2.0]);
    let outputs = vec![(output(0, "p", &[], ElementType::Float), values)];
    let (encoder, mut outputs) = encoder(outputs, NonFiniteOutputs::Reject);
    assert_eq!(
        encode(&encoder, &outputs, 2).unwrap_err().class,
        "output_mismatch"
    );
    outputs.columns[0].row_len = 2;
    assert_eq!(
        encode(&encoder, &outputs, 0).unwrap_err().class,
        "output_mismatch"
    );
    outputs.columns.clear();
    assert_eq!(
        encode(&encoder, &outputs, 0).unwrap_err().stage,
        Stage::Encode
    );
}

#[test]
fn long_messages_are_cut() {
    let error = RowError::new(Stage::Decode, "x", "ä".repeat(301));
    assert_eq!(error.message.chars().count(), 300);
    assert!(error.message.ends_with("ä…"));
    assert_eq!(
        RowError::new(Stage::Decode, "x", "ä".repeat(300)).message,
        "ä".repeat(300)
    );
}

#[test]
fn schemas_name_every_field() {
    let schemas = schemas();
    assert_eq!(schemas.len(), 2);
    for (name, schema) in schemas {
        let properties = schema.get("properties").unwrap().as_object().unwrap();
        assert!(properties.contains_key("schema"), "{name}");
        assert!(properties.contains_key("input"), "{name}");
    }
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

proptest! {
    #[test]
    fn floats_read_back_to_the_same_bits(bits in any::<u32>(), wide in any::<u64>()) {
        for bits in [bits, bits & 0x807f_ffff, 0x15ae_43fd, 0x95ae_43fd, 0x8000_0000, 1] {
            let value = f32::from_bits(bits);
            if value.is_finite() {
                let text = value_text(Values::Float(vec![value]), &[]);
                prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits);
                prop_assert_eq!((read(&text).as_f64().unwrap() as f32).to_bits(), bits, "{}", text);
            }
        }
        for bits in [wide, wide & 0x800f_ffff_ffff_ffff, 1 << 63] {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let text = value_text(Values::Double(vec![value]), &[]);
                prop_assert_eq!(read(&text).as_f64().unwrap().to_bits(), bits);
            }
        }
    }

    #[test]
    fn texts_read_back(text in any::<String>(), topic in any::<String>()) {
        let read_back = read(&value_text(Values::String(vec![text.clone()]), &[]));
        prop_assert_eq!(read_back.as_str(), Some(text.as_str()));
        let error = RowError::new(Stage::Infer, "x", text);
        let line: ErrorLine = serde_json::from_str(&encode_error(1, &error)).unwrap();
        prop_assert_eq!(line.message, error.message);
        let origin = Origin { topic: &topic, ..ORIGIN };
        let (encoder, outputs) = encoder(Vec::new(), NonFiniteOutputs::Reject);
        let mut out = Vec::new();
        encoder.encode(&outputs, 0, InputRef::Record(origin), None, &mut out).unwrap();
        prop_assert_eq!(&read(str::from_utf8(&out).unwrap())["input"]["topic"], topic.as_str());
    }
}
