//! The runtime on small ONNX files (`tests/fixtures/make_models.py`): what is refused and why,
//! what comes out, and that a row's bits do not depend on its batch.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use swapstream::codec::{Columns, Values};
use swapstream::model::{ElementType, RuntimeKind, Signature, TensorSpec};
use swapstream::runtime::{
    CompileOptions, CompiledInfo, CompiledModel, INSPECTION_SCHEMA, LoadLimits, OnnxDim, RunError,
    compile, inspect, load, metadata,
};

fn fixture(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.onnx"));
    std::fs::read(file).unwrap()
}

fn model(name: &str) -> Arc<dyn CompiledModel> {
    load(&fixture(name), RuntimeKind::Tract, LoadLimits::default()).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    load(bytes, RuntimeKind::Tract, LoadLimits::default())
        .unwrap_err()
        .to_string()
}

fn batch(specs: &[TensorSpec], rows: usize, values: Vec<Values>) -> Columns {
    let mut columns = Columns::new(specs);
    for (column, values) in columns.columns.iter_mut().zip(values) {
        assert_eq!(values.len(), rows * column.row_len);
        column.values = values;
    }
    columns.rows = rows;
    columns
}

fn run(model: &dyn CompiledModel, rows: usize, values: Vec<Values>) -> Result<Columns, RunError> {
    let inputs = batch(&model.signature().inputs, rows, values);
    let mut outputs = Columns::new(&model.signature().outputs);
    model.runner().unwrap().run(&inputs, &mut outputs)?;
    Ok(outputs)
}

fn floats(columns: &Columns, index: usize) -> &[f32] {
    match &columns.columns[index].values {
        Values::Float(values) => values,
        other => unreachable!("not floats: {other:?}"),
    }
}

/// Name, signature, rows of the main plan, whether rows are independent.
const WHAT_RUNS: [(&str, &str, usize, bool); 13] = [
    ("mlp", "x: float[batch, 8] → p: float[batch, 1]", 32, true),
    (
        "matmul",
        "x: float[batch, 4] → y: float[batch, 3]",
        32,
        true,
    ),
    (
        "embedding",
        "ids: int64[batch, 3] → y: float[batch, 2]",
        32,
        true,
    ),
    (
        "bool_output",
        "x: float[batch, 3] → y: bool[batch, 3]",
        32,
        true,
    ),
    (
        "two_inputs",
        "a: float[batch, 2]; n: int64[batch] → y: float[batch, 3]; m: int64[batch]",
        32,
        true,
    ),
    (
        "fixed_batch",
        "x: float[batch, 3] → y: float[batch, 2]",
        4,
        true,
    ),
    (
        "conv",
        "x: float[batch, 1, 6, 6] → y: float[batch, 2, 4, 4]",
        32,
        true,
    ),
    (
        "shape_output",
        "x: float[batch, 5] → y: int64[batch]",
        32,
        true,
    ),
    ("nan", "x: float[batch, 2] → y: float[batch, 2]", 32, true),
    (
        "string_identity",
        "s: string[batch] → t: string[batch]",
        32,
        true,
    ),
    (
        "gru",
        "x: float[batch, 4, 2] → y: float[batch, 3]",
        32,
        true,
    ),
    ("scan", "x: float[batch, 2] → y: float[batch, 3]", 32, true),
    (
        "mixing",
        "x: float[batch, 2] → y: float[batch, 2]",
        32,
        false,
    ),
];

#[test]
fn signatures_leave_the_batch_axis_out() {
    for (name, signature, plan_rows, batch_invariant) in WHAT_RUNS {
        let model = model(name);
        let show = |specs: &[TensorSpec]| {
            let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
            specs.join("; ")
        };
        let Signature { inputs, outputs } = model.signature();
        assert_eq!(format!("{} → {}", show(inputs), show(outputs)), signature);
        // How many plans there are depends on the time that one takes.
        let largest = model.info().plan_rows;
        assert!(largest == plan_rows || (plan_rows == 32 && batch_invariant && largest == 512));
        let info = CompiledInfo {
            runtime: "tract",
            batch_invariant,
            plan_rows: largest,
            plans: model.info().plans,
            plan_bytes: model.info().plan_bytes,
        };
        assert_eq!(*model.info(), info, "{name}");
        assert!((1..=5).contains(&info.plans), "{name}: {info:?}");
    }
}

#[test]
fn a_plan_of_one_row_is_always_invariant() {
    for name in ["classes", "mlp", "gru"] {
        let options = CompileOptions {
            plan_rows: Some(1),
            ..CompileOptions::default()
        };
        let model = compile(&fixture(name), &options).unwrap();
        assert_eq!(model.info().plan_rows, 1);
        assert!(model.info().batch_invariant, "{name}");
    }
}

#[test]
fn no_batch_leaves_anything_behind() {
    for (name, width) in [("gru", 8), ("scan", 2), ("mlp", 8)] {
        let model = model(name);
        let specs = &model.signature().inputs;
        let rows = |rows: usize, seed: f32| {
            let values = (0..rows * width).map(|i| (i as f32 + seed).sin()).collect();
            batch(specs, rows, vec![Values::Float(values)])
        };
        let mut runner = model.runner().unwrap();
        let mut outputs = Columns::new(&model.signature().outputs);
        for (size, seed) in [(1, 0.0), (70, 1.0), (3, 2.0), (1, 3.0)] {
            runner.run(&rows(size, seed), &mut outputs).unwrap();
            let mut fresh = Columns::new(&model.signature().outputs);
            let mut runner = model.runner().unwrap();
            runner.run(&rows(size, seed), &mut fresh).unwrap();
            assert_eq!(outputs, fresh, "{name}");
        }
    }
    // Squared distances from (0, 0), (1, 0) and (0, 2).
    let scan = run(
        &*model("scan"),
        2,
        vec![Values::Float(vec![1.0, 2.0, 3.0, 0.0])],
    )
    .unwrap();
    assert_eq!(floats(&scan, 0), [5.0, 4.0, 1.0, 9.0, 4.0, 13.0]);
}

#[test]
fn what_cannot_serve_is_refused_by_name() {
    for (name, expected) in [
        (
            "scalar_input",
            "input \"x\" is a single value without a batch axis; axis 0 must be the batch",
        ),
        (
            "mean_output",
            "output \"y\" is a single value without a batch axis; axis 0 must be the batch",
        ),
        (
            "sum_output",
            "axis 0 of output \"y\" is 1 for a batch of 32 rows; it must be the batch",
        ),
        (
            "pairs_output",
            "axis 1 of output \"y\" changes with the batch; only axis 0 may",
        ),
        (
            "symbolic_axis",
            "axis 1 of input \"x\" has no fixed length (\"time\"); only axis 0, the batch, may vary",
        ),
        (
            "folded_batch",
            "axis 0 of output \"y\" is 16 for a batch of 32 rows; it must be the batch",
        ),
        (
            "batches_differ",
            "axis 0 is the batch, but it is 4 in input \"x\" and 5 in input \"b\"",
        ),
        (
            "unknown_operator",
            "operator ai.onnx.Unique is not supported by this build",
        ),
        (
            "foreign_domain",
            "operator com.example.Relu is not supported by this build",
        ),
        (
            "float16",
            "input \"x\" has the element type float16, which is not supported",
        ),
        (
            "sequence_output",
            "output \"y\" is not a tensor (a sequence, a map or untyped), which is not supported",
        ),
        (
            "external_weights",
            "the weights \"w\" lie outside the ONNX file, in \"weights.bin\"; export the model as \
             one file",
        ),
    ] {
        assert_eq!(refusal(&fixture(name)), expected, "{name}");
    }
    let error = refusal(&fixture("divides_by_input"));
    assert!(error.starts_with("fails on a batch of zeros: "), "{error}");
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let whole = fixture("mlp");
    assert_eq!(refusal(b""), "the file is empty");
    assert_eq!(refusal(b"not a model"), "not an ONNX file");
    assert!(
        refusal(&whole[..whole.len() / 2]).starts_with("the ONNX file is cut off: field graph")
    );
    for length in 0..whole.len() {
        // Cut behind the last field that is needed, between two fields, a file is whole.
        if let Err(error) = metadata(&whole[..length]) {
            assert!(!error.to_string().is_empty());
        } else {
            assert!(length > whole.len() - 80, "{length}");
        }
    }
}

#[test]
fn limits_are_named() {
    let with = |limits: LoadLimits| {
        load(&fixture("mlp"), RuntimeKind::Tract, limits)
            .unwrap_err()
            .to_string()
    };
    let limits = LoadLimits::default();
    assert_eq!(
        with(LoadLimits {
            max_nodes: 3,
            ..limits
        }),
        "the graph has 4 nodes, at most 3 are allowed"
    );
    assert_eq!(
        with(LoadLimits {
            max_initialiser_bytes: 100,
            ..limits
        }),
        "the initialisers take 1324 bytes, at most 100 are allowed"
    );
    assert_eq!(
        with(LoadLimits {
            max_input_values: 255,
            ..limits
        }),
        "input x: float[batch, 8] with a batch of 32 has more than 255 values"
    );
}

#[test]
fn the_file_says_what_it_is() {
    let summary = metadata(&fixture("mlp")).unwrap();
    assert_eq!(summary.producer, "make_models");
    assert_eq!(summary.opsets["ai.onnx"], 17);
    assert_eq!(
        summary.metadata_props["swapstream.manifest"],
        "{\"model\":\"fraud\"}"
    );
    let operators: Vec<(String, usize)> = summary
        .operators
        .iter()
        .map(|op| (op.to_string(), op.count))
        .collect();
    let counted = |name: &str, count| (format!("ai.onnx.{name}"), count);
    assert_eq!(
        operators,
        [
            counted("Gemm", 2),
            counted("Relu", 1),
            counted("Sigmoid", 1)
        ]
    );
    let batch = OnnxDim::Symbol("batch".to_owned());
    assert_eq!(
        summary.inputs[0].shape,
        Some(vec![batch, OnnxDim::Fixed(8)])
    );
    // An initialiser among the graph's inputs is no input.
    let inputs = metadata(&fixture("matmul")).unwrap().inputs;
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0].shape.as_ref().unwrap()[0], OnnxDim::Unknown);
    assert_eq!(inputs[0].element_type(), Some(ElementType::Float));
}

#[test]
fn outputs_are_right_in_every_element_type() {
    let two = run(
        &*model("two_inputs"),
        2,
        vec![
            Values::Float(vec![1.0, 2.0, 3.0, 4.0]),
            Values::Int64(vec![5, -6]),
        ],
    )
    .unwrap();
    assert_eq!(two.rows, 2);
    assert_eq!(floats(&two, 0), [1.0, 2.0, 5.0, 3.0, 4.0, -6.0]);
    assert_eq!(two.columns[1].values, Values::Int64(vec![10, -12]));

    let above = run(
        &*model("bool_output"),
        1,
        vec![Values::Float(vec![0.5, -0.5, 0.0])],
    );
    let above = above.unwrap();
    assert_eq!(
        above.columns[0].values,
        Values::Bool(vec![true, false, false])
    );

    let width = run(
        &*model("shape_output"),
        2,
        vec![Values::Float(vec![0.0; 10])],
    )
    .unwrap();
    assert_eq!(width.columns[0].values, Values::Int64(vec![5, 5]));

    let words: Vec<String> = (0..40).map(|i| format!("word {i}")).collect();
    let same = run(
        &*model("string_identity"),
        40,
        vec![Values::String(words.clone())],
    )
    .unwrap();
    assert_eq!(same.columns[0].values, Values::String(words));

    let nan = run(&*model("nan"), 1, vec![Values::Float(vec![1.0, 2.0])]).unwrap();
    assert!(floats(&nan, 0).iter().all(|x| x.is_nan()));
}

#[test]
fn trees_give_labels_and_scores() {
    // Feature 0, 0.5 or less and more.
    let both = run(
        &*model("trees"),
        2,
        vec![Values::Float(vec![0.5, 9.0, 0.75, 9.0])],
    )
    .unwrap();
    assert_eq!(floats(&both, 0), [1.0, 2.0]);
    assert_eq!(both.columns[1].values, Values::Int64(vec![0, 1]));

    let nan = f32::NAN;
    let strings = vec![Values::Float(vec![9.0, 0.25, 9.0, 0.5, 9.0, nan])];
    let strings = run(&*model("tree_strings"), 3, strings).unwrap();
    let labels = ["no", "yes", "no"].map(str::to_owned);
    assert_eq!(strings.columns[0].values, Values::String(labels.to_vec()));
    let likely = 0.731_058_6;
    let scores = [1.0 - likely, likely];
    let expected = [
        scores[1], scores[0], scores[0], scores[1], scores[1], scores[0],
    ];
    for (found, expected) in floats(&strings, 1).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    let doubles = vec![Values::Double(vec![
        9.0,
        0.1_f64.next_down(),
        9.0,
        0.1,
        9.0,
        f64::NAN,
    ])];
    let doubles = run(&*model("tree_doubles"), 3, doubles).unwrap();
    assert_eq!(floats(&doubles, 0), [1.1, 1.2, 1.2]);

    let set = vec![Values::Float(vec![3.0, 0.5, 2.0, 0.5, 1.0, -0.5, nan, nan])];
    let set = run(&*model("tree_set"), 4, set).unwrap();
    assert_eq!(
        floats(&set, 0),
        [1.0, 10.0, 0.0, 12.0, 21.0, 0.0, 20.0, 2.0]
    );
}

#[test]
fn a_runner_survives_what_the_model_does() {
    let model = model("embedding");
    let specs = &model.signature().inputs;
    let good = batch(specs, 1, vec![Values::Int64(vec![0, 4, 2])]);
    let bad = batch(specs, 1, vec![Values::Int64(vec![0, 99, 2])]);
    let mut runner = model.runner().unwrap();
    let mut outputs = Columns::new(&model.signature().outputs);
    runner.run(&good, &mut outputs).unwrap();
    let before = outputs.clone();
    for _ in 0..3 {
        runner.run(&bad, &mut outputs).unwrap_err();
        assert_eq!(outputs.rows, 0);
        runner.run(&good, &mut outputs).unwrap();
        assert_eq!(outputs, before);
    }
    // A column that does not hold what it says is an error as well, not a panic.
    let mut short = good.clone();
    short.rows = 2;
    let error = runner.run(&short, &mut outputs).unwrap_err();
    assert!(error.to_string().contains("too few values"), "{error}");
    let mut wrong = good.clone();
    wrong.columns[0].values = Values::Float(vec![0.0; 3]);
    runner.run(&wrong, &mut outputs).unwrap_err();
    runner.run(&good, &mut outputs).unwrap();
    assert_eq!(outputs, before);
}

#[test]
fn runners_work_side_by_side() {
    let model = model("mlp");
    let values: Vec<f32> = (0..8 * 50).map(|i| (i as f32).sin()).collect();
    let alone = run(&*model, 50, vec![Values::Float(values.clone())]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let again = run(&*model, 50, vec![Values::Float(values.clone())]).unwrap();
                    assert_eq!(again, alone);
                }
            });
        }
    });
}

#[test]
fn an_inspection_says_whether_and_how_fast_it_runs() {
    let inspection = inspect(&fixture("mlp")).unwrap();
    assert_eq!(inspection.schema, INSPECTION_SCHEMA);
    assert_eq!(inspection.refused, None);
    let runs = inspection.runs.unwrap();
    let rows: Vec<usize> = runs.timings.iter().map(|timing| timing.rows).collect();
    assert_eq!(rows, [1, 8, 32, 128, 512]);
    assert!(runs.timings.iter().all(|timing| timing.median_us > 0.0));
    assert!(runs.batch_invariant);

    // No runtime runs this one.
    let refused = inspect(&fixture("foreign_domain")).unwrap();
    assert!(refused.refused.unwrap().contains("is not supported"));
    assert_eq!(refused.runs, None);
    inspect(b"not a model").unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(32)
    })]

    /// 200 rows alone, and in batches of 2 to 100 rows at random positions.
    #[test]
    fn a_row_gives_the_same_bits_in_any_batch(
        seed in any::<u32>(),
        order in Just((0..200usize).collect::<Vec<_>>()).prop_shuffle(),
        sizes in prop::collection::vec(2..=100usize, 100),
        name in prop::sample::select(vec![
            "mlp", "matmul", "conv", "fixed_batch", "gru", "scan", "trees", "tree_set"
        ]),
    ) {
        let model = model(name);
        let specs = &model.signature().inputs;
        let width = specs[0].row_len();
        let row = |i: usize| -> Vec<f32> {
            (0..width).map(|j| ((i * width + j) as f32 * 0.7 + seed as f32).sin() * 3.0).collect()
        };
        let mut runner = model.runner().unwrap();
        let mut outputs = Columns::new(&model.signature().outputs);
        let mut bits = |rows: &[usize]| -> Vec<Vec<u32>> {
            let values = rows.iter().flat_map(|i| row(*i)).collect();
            let inputs = batch(specs, rows.len(), vec![Values::Float(values)]);
            runner.run(&inputs, &mut outputs).unwrap();
            assert_eq!(outputs.rows, rows.len());
            let len = outputs.columns[0].row_len;
            let values = floats(&outputs, 0);
            values.chunks(len).map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
        };
        let alone: Vec<Vec<u32>> = (0..200).flat_map(|i| bits(&[i])).collect();
        let mut rest = order.as_slice();
        for size in sizes {
            let (now, later) = rest.split_at(size.min(rest.len()));
            if now.is_empty() {
                break;
            }
            for (row, bits) in now.iter().zip(bits(now)) {
                prop_assert_eq!(&bits, &alone[*row]);
            }
            rest = later;
        }
    }

    /// Whatever is done to a file's bytes, it is loaded or refused.
    #[test]
    fn damaged_files_do_no_harm(
        name in prop::sample::select(vec![
            "matmul", "embedding", "two_inputs", "conv", "trees", "tree_set", "tree_doubles"
        ]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = fixture(name);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Err(error) = load(&bytes, RuntimeKind::Tract, LoadLimits::default()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(load(&bytes, RuntimeKind::Tract, LoadLimits::default()).is_err());
    }
}
