//! The official ONNX backend node tests: finds them, runs them through the runtime, judges them.
//! Shared by `examples/conformance.rs`, which writes the table, and `tests/conformance.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use swapstream::runtime::graph::{GraphError, PlainTensor, PlainValues, read_tensor, run_graph};

/// The package that ships the tests as data; newer ones hold them as code.
pub const PACKAGE: &str = "onnx==1.16.2";

/// How to get the package where no `onnx` is installed.
pub const HOW_TO_GET: &str = "the ONNX tests are not here: pip install --no-deps --target \
    target/onnx onnx==1.16.2 (or name a folder that holds them by ONNX_NODE_TESTS)";

/// The suite's own tolerance: `load_model_tests` in `onnx/backend/test/loader`.
const RTOL: f64 = 1e-3;
const ATOL: f64 = 1e-7;

/// The folder of the node tests: `given`, the variable `ONNX_NODE_TESTS`, or a package in
/// `target/onnx`.
pub fn find(given: Option<PathBuf>) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let candidates = given
        .into_iter()
        .chain(std::env::var_os("ONNX_NODE_TESTS").map(PathBuf::from))
        .chain([root.join("target/onnx")]);
    candidates
        .flat_map(|folder| {
            [
                folder.join("onnx/backend/test/data/node"),
                folder.join("backend/test/data/node"),
                folder,
            ]
        })
        .find(|folder| folder.join("test_abs/model.onnx").is_file())
}

/// The tests' names, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| folder.join(name).join("model.onnx").is_file())
        .collect();
    names.sort();
    names
}

/// The operator domain that a test belongs to in the table.
pub fn domain(name: &str) -> &'static str {
    if name.starts_with("test_ai_onnx_ml_") {
        "ai.onnx.ml"
    } else {
        "ai.onnx"
    }
}

/// How a test ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Right as shipped, or right with small inputs after the first as initialisers; wrong in
    /// neither.
    Pass,
    /// Refused, or an error, both ways.
    Unsupported(String),
    /// An answer that is not the expected one.
    Wrong(String),
    /// A panic, caught or not.
    Panic(String),
}

/// Runs one test both ways.
pub fn run(folder: &Path, name: &str) -> Verdict {
    let folder = Folders {
        shipped: folder.join(name),
        corrected: corrected().join(name),
    };
    let model = folder.read("model.onnx").expect("the model can be read");
    let mut refusal = None;
    let mut right = false;
    for fold in [false, true] {
        match run_sets(&folder, &model, fold) {
            Ok(()) => right = true,
            Err(Verdict::Unsupported(why)) => refusal = refusal.or(Some(why)),
            Err(verdict) => return verdict,
        }
    }
    match refusal {
        Some(why) if !right => Verdict::Unsupported(why),
        _ => Verdict::Pass,
    }
}

/// What newer releases of the suite corrected; `generate.py` wrote it.
pub fn corrected() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/corrected")
}

/// A test's files: corrected ones hold over those of the package.
struct Folders {
    shipped: PathBuf,
    corrected: PathBuf,
}

impl Folders {
    fn read(&self, file: &str) -> Option<Vec<u8>> {
        let read = |folder: &Path| std::fs::read(folder.join(file)).ok();
        read(&self.corrected).or_else(|| read(&self.shipped))
    }

    fn tensors(&self, set: usize, kind: &str) -> Vec<Vec<u8>> {
        (0..)
            .map_while(|index| self.read(&format!("test_data_set_{set}/{kind}_{index}.pb")))
            .collect()
    }
}

fn run_sets(folder: &Folders, model: &[u8], fold: bool) -> Result<(), Verdict> {
    for set in 0.. {
        let expected = folder.tensors(set, "output");
        if expected.is_empty() {
            break;
        }
        let verdict = |error: GraphError| match error {
            GraphError::Refused(why) => Verdict::Unsupported(why),
            GraphError::Panicked(why) => Verdict::Panic(why),
        };
        let expected: Result<Vec<_>, _> = expected.iter().map(|b| read_tensor(b)).collect();
        let computed = run_graph(model, &folder.tensors(set, "input"), fold).map_err(verdict)?;
        let expected = expected.map_err(verdict)?;
        if computed.len() != expected.len() {
            let (got, wanted) = (computed.len(), expected.len());
            return Err(Verdict::Wrong(format!("{got} outputs instead of {wanted}")));
        }
        for (computed, expected) in computed.iter().zip(&expected) {
            same(computed, expected).map_err(Verdict::Wrong)?;
        }
    }
    Ok(())
}

fn same(got: &PlainTensor, wanted: &PlainTensor) -> Result<(), String> {
    if (&got.element, &got.shape) != (&wanted.element, &wanted.shape) {
        let (a, b) = (&got.shape, &wanted.shape);
        return Err(format!(
            "{}{a:?} instead of {}{b:?}",
            got.element, wanted.element
        ));
    }
    let (PlainValues::Numbers(a), PlainValues::Numbers(b)) = (&got.values, &wanted.values) else {
        let same = got.values == wanted.values;
        return if same {
            Ok(())
        } else {
            Err("another value".to_owned())
        };
    };
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ATOL + RTOL * b.abs()
    };
    match a.iter().zip(b).find(|(a, b)| !close(**a, **b)) {
        None if a.len() == b.len() => Ok(()),
        None => Err("another number of values".to_owned()),
        Some((a, b)) => Err(format!("{a} instead of {b}")),
    }
}

/// The table: domain, then verdict, then names.
pub type Table = BTreeMap<String, Verdicts>;

/// The names of one domain, each list sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdicts {
    /// Right.
    pub pass: Vec<String>,
    /// Refused.
    pub unsupported: Vec<String>,
    /// Wrong.
    pub wrong: Vec<String>,
    /// Panicked.
    pub panic: Vec<String>,
}

impl Verdicts {
    /// How many tests there are.
    pub fn len(&self) -> usize {
        self.pass.len() + self.unsupported.len() + self.wrong.len() + self.panic.len()
    }

    /// Drops the names that are not `wanted`.
    pub fn keep(&mut self, wanted: impl Fn(&String) -> bool) {
        for list in [
            &mut self.pass,
            &mut self.unsupported,
            &mut self.wrong,
            &mut self.panic,
        ] {
            list.retain(&wanted);
        }
    }

    /// Notes a verdict.
    pub fn note(&mut self, name: &str, verdict: &Verdict) {
        let list = match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Unsupported(_) => &mut self.unsupported,
            Verdict::Wrong(_) => &mut self.wrong,
            Verdict::Panic(_) => &mut self.panic,
        };
        list.push(name.to_owned());
    }
}

/// Where the table lies.
pub fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/results.json")
}

/// The committed table.
pub fn read_table() -> Table {
    let text = std::fs::read_to_string(table_path()).expect("the table is committed");
    serde_json::from_str(&text).expect("the table can be read")
}
