//! The ONNX loader: whatever the bytes are, an answer or an error, no crash.
//!
//! Small limits keep a run short. What takes endless memory or time is for the probe to contain:
//! libFuzzer runs with `-ignore_ooms=1 -ignore_timeouts=1`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swapstream::codec::Columns;
use swapstream::runtime::{CompileOptions, LoadLimits, compile, metadata};

fuzz_target!(|bytes: &[u8]| {
    // Most mutations are no ONNX; the loader is tried on those that are.
    if metadata(bytes).is_err() {
        return;
    }
    let limits = LoadLimits {
        max_bytes: 1 << 20,
        max_nodes: 200,
        max_initialiser_bytes: 1 << 20,
        max_input_values: 1 << 16,
    };
    let options = CompileOptions {
        limits,
        ..CompileOptions::default()
    };
    let Ok(model) = compile(bytes, &options) else {
        return;
    };
    let signature = model.signature();
    let mut inputs = Columns::new(&signature.inputs);
    for column in &mut inputs.columns {
        let row_len = column.row_len;
        swapstream::with_values!(&mut column.values, v => v.resize_with(row_len, Default::default));
    }
    inputs.rows = 1;
    let mut outputs = Columns::new(&signature.outputs);
    let mut runner = model.runner().expect("a compiled model has a runner");
    if runner.run(&inputs, &mut outputs).is_ok() {
        assert_eq!(outputs.rows, 1);
    }
});
