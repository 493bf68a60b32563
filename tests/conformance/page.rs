//! `docs/what-runs.md`, and the table in the README, from the conformance table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use swapstream::runtime::graph::runs_operator;

use crate::suite::{PACKAGE, Table};

/// The generated part of the README stands between these.
const BEGIN: &str = "<!-- what runs: generated -->";
const END: &str = "<!-- what runs: end -->";

/// A domain, and operators of it.
type Named = (&'static str, &'static [&'static str]);

/// Kinds of models, and the operators that they are made of besides arithmetic and reshaping.
const KINDS: [(&str, &[Named]); 9] = [
    (
        "tree ensembles: LightGBM, XGBoost, CatBoost, scikit-learn's forests and boosting",
        &[(
            "ai.onnx.ml",
            &[
                "TreeEnsemble",
                "TreeEnsembleClassifier",
                "TreeEnsembleRegressor",
                "ZipMap",
            ],
        )],
    ),
    (
        "linear and logistic regression, support vector machines",
        &[(
            "ai.onnx.ml",
            &[
                "LinearClassifier",
                "LinearRegressor",
                "Normalizer",
                "SVMClassifier",
                "SVMRegressor",
            ],
        )],
    ),
    (
        "pipelines: scalers, imputers, encoders, string features and labels",
        &[(
            "ai.onnx.ml",
            &[
                "ArrayFeatureExtractor",
                "Binarizer",
                "CastMap",
                "CategoryMapper",
                "DictVectorizer",
                "FeatureVectorizer",
                "Imputer",
                "LabelEncoder",
                "OneHotEncoder",
                "Scaler",
            ],
        )],
    ),
    (
        "text: normalised strings, counted and weighted n-grams",
        &[(
            "ai.onnx",
            &[
                "RegexFullMatch",
                "StringConcat",
                "StringNormalizer",
                "StringSplit",
                "TfIdfVectorizer",
            ],
        )],
    ),
    (
        "dense nets, embeddings",
        &[(
            "ai.onnx",
            &[
                "BatchNormalization",
                "Dropout",
                "Gather",
                "Gemm",
                "MatMul",
                "Relu",
                "Sigmoid",
                "Softmax",
                "Tanh",
            ],
        )],
    ),
    (
        "convolutional nets",
        &[(
            "ai.onnx",
            &[
                "AveragePool",
                "Conv",
                "ConvTranspose",
                "GlobalAveragePool",
                "MaxPool",
                "Resize",
                "Upsample",
            ],
        )],
    ),
    (
        "recurrent nets and loops",
        &[("ai.onnx", &["GRU", "If", "LSTM", "Loop", "RNN", "Scan"])],
    ),
    (
        "transformers",
        &[(
            "ai.onnx",
            &[
                "Attention",
                "Einsum",
                "Gelu",
                "LayerNormalization",
                "RMSNormalization",
                "RotaryEmbedding",
                "SwiGLU",
            ],
        )],
    ),
    (
        "quantised nets",
        &[(
            "ai.onnx",
            &[
                "ConvInteger",
                "DequantizeLinear",
                "DynamicQuantizeLinear",
                "MatMulInteger",
                "QLinearConv",
                "QLinearMatMul",
                "QuantizeLinear",
            ],
        )],
    ),
];

/// All operators there are, from `operators.json`.
#[derive(serde::Deserialize)]
struct Specification {
    onnx: String,
    domains: BTreeMap<String, Domain>,
}

#[derive(serde::Deserialize)]
struct Domain {
    opset: u64,
    operators: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn specification() -> Specification {
    let path = root().join("tests/conformance/operators.json");
    let text = std::fs::read_to_string(path).expect("the list of operators is committed");
    serde_json::from_str(&text).expect("the list of operators can be read")
}

/// Where the page lies.
pub fn path() -> PathBuf {
    root().join("docs/what-runs.md")
}

/// One line a domain.
pub fn summary(table: &Table) -> String {
    let mut text = String::from(
        "| domain | operators that run | official tests that pass | refused | wrong |\n\
         |---|---|---|---|---|\n",
    );
    for (domain, operators) in specification().domains {
        let all = operators.operators.len();
        let run = operators.operators.iter();
        let run = run.filter(|name| runs_operator(&domain, name)).count();
        let Some(verdicts) = table.get(&domain) else {
            continue;
        };
        let (pass, tests) = (verdicts.pass.len(), verdicts.len());
        let (refused, wrong) = (
            verdicts.unsupported.len(),
            verdicts.wrong.len() + verdicts.panic.len(),
        );
        _ = writeln!(
            text,
            "| `{domain}` | {run} of {all} | {pass} of {tests} | {refused} | {wrong} |"
        );
    }
    text
}

/// One line a kind of model, then one a domain: what the README shows.
pub fn kinds(table: &Table) -> String {
    let mut text = String::from("| model | operators that run | refused |\n|---|---|---|\n");
    for (kind, needs) in KINDS {
        let all: Vec<(&str, &str)> = needs
            .iter()
            .flat_map(|(domain, names)| names.iter().map(move |name| (*domain, *name)))
            .collect();
        let refused: Vec<String> = all
            .iter()
            .filter(|(domain, name)| !runs_operator(domain, name))
            .map(|(_, name)| format!("`{name}`"))
            .collect();
        let run = match (all.len(), refused.len()) {
            (_, 0) => "all".to_owned(),
            (all, refused) => format!("{} of {all}", all - refused),
        };
        _ = writeln!(text, "| {kind} | {run} | {} |", refused.join(", "));
    }
    _ = write!(text, "\n{}", summary(table));
    text
}

/// The whole page.
pub fn page(table: &Table) -> String {
    let specification = specification();
    let mut text = format!(
        "# What runs\n\n\
         Written by `cargo run --release --example conformance`; do not edit. The tests are the \
         node tests of the package `{PACKAGE}`, run through the same parser, operators and plans \
         as a model that serves. A test passes when it is right as shipped, or right with the \
         inputs after the first (of at most 1,024 elements) as initialisers, and wrong in \
         neither, at the suite's own tolerance. Where onnx {} corrected what a test expects, its \
         version holds: those are in `tests/conformance/corrected`. That release has the same \
         tests of `ai.onnx.ml`. Operators are those of the same release (opsets {}), deprecated \
         ones included.\n\n\
         What is refused is refused when the model is loaded, naming the operator, and can be run \
         with ONNX Runtime (`runtime = \"onnxruntime\"` in the manifest).\n\n{}",
        specification.onnx,
        opsets(&specification),
        summary(table),
    );
    for (domain, operators) in &specification.domains {
        let (run, refused): (Vec<_>, Vec<_>) = operators
            .operators
            .iter()
            .partition(|name| runs_operator(domain, name));
        _ = write!(text, "\n## `{domain}`\n");
        paragraph(&mut text, "Operators that run", &run);
        paragraph(&mut text, "Operators that are refused", &refused);
        let Some(verdicts) = table.get(domain) else {
            continue;
        };
        let failing: Vec<_> = verdicts.unsupported.iter().collect();
        paragraph(&mut text, "Tests that are refused", &failing);
        paragraph(
            &mut text,
            "Wrong",
            &verdicts.wrong.iter().collect::<Vec<_>>(),
        );
        paragraph(
            &mut text,
            "Panics",
            &verdicts.panic.iter().collect::<Vec<_>>(),
        );
    }
    text
}

fn opsets(specification: &Specification) -> String {
    let opset = |(domain, found): (&String, &Domain)| format!("{domain} {}", found.opset);
    let opsets: Vec<_> = specification.domains.iter().map(opset).collect();
    opsets.join(", ")
}

fn paragraph(text: &mut String, title: &str, names: &[&String]) {
    if names.is_empty() {
        return;
    }
    let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    _ = write!(
        text,
        "\n**{title}** ({}): {}\n",
        names.len(),
        list.join(", ")
    );
}

/// The README: where it lies, as it is, and with its tables renewed.
pub fn readme(table: &Table) -> (PathBuf, String, String) {
    let path = root().join("README.md");
    let text = std::fs::read_to_string(&path).expect("the README can be read");
    let (before, rest) = text.split_once(BEGIN).expect("the README has the tables");
    let (_, after) = rest.split_once(END).expect("the README's tables end");
    let renewed = format!("{before}{BEGIN}\n\n{}\n{END}{after}", kinds(table));
    (path, text, renewed)
}
