//! The feature contract: a manifest's inputs and outputs held against the model's signature, so
//! that decoding and encoding need no further look-up.

use std::collections::BTreeSet;

use super::manifest::{FeatureSpec, InputSpec, MissingSpec, NamedPolicy, OutputSpec, PolicySpec};
use super::{ElementType, Signature, TensorSpec};

/// How events fill a model's inputs, and which outputs a prediction carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// One for each ONNX input, in the graph's order.
    pub inputs: Vec<InputContract>,
    /// The outputs to emit, in the prediction's order.
    pub outputs: Vec<OutputContract>,
}

/// How one ONNX input is filled.
#[derive(Debug, Clone, PartialEq)]
pub struct InputContract {
    /// The ONNX input: name, element type, row shape.
    pub spec: TensorSpec,
    /// Where its row comes from.
    pub source: InputSource,
}

/// Where an input's row comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum InputSource {
    /// One event field holds the whole row: a scalar, a flat or a nested array.
    Field(Feature),
    /// One scalar field for each column; as many as the row is long. For an input that is a map,
    /// the fields inside the object of its name; what an object lacks is 0, as in a sparse vector.
    Features(Vec<Feature>),
    /// One event field holds the whole row as a string: numbers with the separator between them.
    Separated(Feature, Separator),
}

/// What stands between numbers in a string: an ASCII character that no number contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Separator(u8);

impl Separator {
    /// The character, where it can be one.
    pub fn new(character: char) -> Option<Self> {
        let byte = u8::try_from(character).ok().filter(u8::is_ascii)?;
        let of_number = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        (!of_number).then_some(Self(byte))
    }

    /// The character.
    pub fn byte(self) -> u8 {
        self.0
    }
}

/// One event field that is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// The event field: a key of the event, or else a path of keys with dots between them. An exact
    /// key wins over the path.
    pub name: String,
    /// What happens when it is absent or null.
    pub missing: Missing,
}

/// What happens when a field is absent or null.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// The field is not in the event.
    pub absent: MissingPolicy,
    /// The field is null.
    pub null: MissingPolicy,
}

/// What stands in for a missing value.
#[derive(Debug, Clone, PartialEq)]
pub enum MissingPolicy {
    /// Nothing: the event is a dead letter.
    Reject,
    /// NaN; float inputs only.
    Nan,
    /// This number, in every element; 0 or 1 in a boolean input.
    Value(f64),
    /// This text, in every element; text inputs only.
    Text(String),
}

/// One output of the prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputContract {
    /// Index into [`Signature::outputs`].
    pub index: usize,
    /// Its name in the prediction.
    pub name: String,
    /// Element type and row shape.
    pub spec: TensorSpec,
}

/// Why a manifest does not fit a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// The manifest names an input that the model lacks.
    #[error("the manifest names input {name:?}, the model has {known}")]
    UnknownInput {
        /// The name in the manifest.
        name: String,
        /// What the model has.
        known: String,
    },
    /// The manifest names an output that the model lacks.
    #[error("the manifest names output {name:?}, the model has {known}")]
    UnknownOutput {
        /// The name in the manifest.
        name: String,
        /// What the model has.
        known: String,
    },
    /// The same name twice.
    #[error("{what} {name:?} is named twice in the manifest")]
    Twice {
        /// Input, output or feature.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The number of features is not the row's length.
    #[error("input {input:?} takes {takes} values a row, the manifest lists {lists} features")]
    Width {
        /// The ONNX input.
        input: String,
        /// The row's length.
        takes: usize,
        /// The number of features.
        lists: usize,
    },
    /// A separator where there is none to have.
    #[error("input {input:?}: {separator:?} cannot separate its values: {why}")]
    Separator {
        /// The ONNX input.
        input: String,
        /// The character.
        separator: char,
        /// What is wrong.
        why: &'static str,
    },
    /// A policy that the element type cannot hold.
    #[error(
        "input {input:?}, feature {feature:?}: {policy} cannot stand in for a missing {element}"
    )]
    Policy {
        /// The ONNX input.
        input: String,
        /// The event field.
        feature: String,
        /// The policy.
        policy: String,
        /// The input's element type.
        element: ElementType,
    },
    /// A model without inputs or outputs scores nothing.
    #[error("the model has no {0}")]
    Empty(&'static str),
}

impl Contract {
    /// Holds the manifest's `inputs` and `outputs` against `signature`.
    pub fn resolve(
        inputs: &[InputSpec],
        outputs: &[OutputSpec],
        signature: &Signature,
    ) -> Result<Self, ContractError> {
        if signature.inputs.is_empty() {
            return Err(ContractError::Empty("inputs"));
        }
        if signature.outputs.is_empty() {
            return Err(ContractError::Empty("outputs"));
        }
        all_known(inputs, signature)?;
        Ok(Self {
            inputs: signature
                .inputs
                .iter()
                .map(|spec| resolve_input(spec, inputs.iter().find(|i| i.name == spec.name)))
                .collect::<Result<_, _>>()?,
            outputs: resolve_outputs(outputs, signature)?,
        })
    }

    /// Every event field that the contract reads.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().flat_map(|input| {
            let features = match &input.source {
                InputSource::Field(feature) | InputSource::Separated(feature, _) => {
                    std::slice::from_ref(feature)
                }
                InputSource::Features(features) => features,
            };
            features.iter().map(|feature| feature.name.as_str())
        })
    }
}

fn names(specs: &[TensorSpec]) -> String {
    specs
        .iter()
        .map(|spec| format!("{:?}", spec.name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn all_known(inputs: &[InputSpec], signature: &Signature) -> Result<(), ContractError> {
    let mut seen = BTreeSet::new();
    for input in inputs {
        if !signature.inputs.iter().any(|spec| spec.name == input.name) {
            return Err(ContractError::UnknownInput {
                name: input.name.clone(),
                known: names(&signature.inputs),
            });
        }
        if !seen.insert(&input.name) {
            return Err(ContractError::Twice {
                what: "input",
                name: input.name.clone(),
            });
        }
    }
    Ok(())
}

fn resolve_input(
    spec: &TensorSpec,
    manifest: Option<&InputSpec>,
) -> Result<InputContract, ContractError> {
    let (features, base) = match manifest {
        Some(input) => (input.features.as_slice(), input.missing.clone()),
        None => (&[][..], MissingSpec::default()),
    };
    let source = if let Some(separator) = manifest.and_then(|input| input.separator) {
        let wrong = |why| ContractError::Separator {
            input: spec.name.clone(),
            separator,
            why,
        };
        if !features.is_empty() {
            return Err(wrong(
                "its features are listed, each with a field of its own",
            ));
        }
        if spec.classes.is_some() || !spec.element.is_float() {
            return Err(wrong(
                "only tensors of float or double are read from strings",
            ));
        }
        let separator = Separator::new(separator)
            .ok_or_else(|| wrong("use an ASCII character that no number contains"))?;
        let feature = feature(spec, &spec.name, &base, &MissingSpec::default())?;
        InputSource::Separated(feature, separator)
    } else if let (Some(keys), []) = (&spec.classes, features) {
        let zero = MissingSpec {
            absent: base.absent.or(Some(PolicySpec::Constant(0.0))),
            null: base.null,
        };
        let entry = |key: &String| {
            let name = format!("{}.{key}", spec.name);
            feature(spec, &name, &zero, &MissingSpec::default())
        };
        InputSource::Features(keys.iter().map(entry).collect::<Result<_, _>>()?)
    } else if features.is_empty() {
        InputSource::Field(feature(spec, &spec.name, &base, &MissingSpec::default())?)
    } else {
        if features.len() != spec.row_len() {
            return Err(ContractError::Width {
                input: spec.name.clone(),
                takes: spec.row_len(),
                lists: features.len(),
            });
        }
        let resolve = |listed: &FeatureSpec| match listed {
            FeatureSpec::Name(name) => feature(spec, name, &base, &MissingSpec::default()),
            FeatureSpec::Detailed { name, missing } => feature(spec, name, &base, missing),
        };
        InputSource::Features(features.iter().map(resolve).collect::<Result<_, _>>()?)
    };
    Ok(InputContract {
        spec: spec.clone(),
        source,
    })
}

fn feature(
    spec: &TensorSpec,
    name: &str,
    base: &MissingSpec,
    own: &MissingSpec,
) -> Result<Feature, ContractError> {
    let reject = PolicySpec::Named(NamedPolicy::Reject);
    let nan = PolicySpec::Named(NamedPolicy::Nan);
    let default_null = if spec.element.is_float() {
        &nan
    } else {
        &reject
    };
    let absent = own.absent.as_ref().or(base.absent.as_ref());
    let null = own.null.as_ref().or(base.null.as_ref());
    Ok(Feature {
        name: name.to_owned(),
        missing: Missing {
            absent: policy(spec, name, absent.unwrap_or(&reject))?,
            null: policy(spec, name, null.unwrap_or(default_null))?,
        },
    })
}

fn policy(
    spec: &TensorSpec,
    feature: &str,
    policy: &PolicySpec,
) -> Result<MissingPolicy, ContractError> {
    let error = |policy: String| ContractError::Policy {
        input: spec.name.clone(),
        feature: feature.to_owned(),
        policy,
        element: spec.element,
    };
    match policy {
        PolicySpec::Named(NamedPolicy::Reject) => Ok(MissingPolicy::Reject),
        PolicySpec::Named(NamedPolicy::Nan) if spec.element.is_float() => Ok(MissingPolicy::Nan),
        PolicySpec::Named(NamedPolicy::Nan) => Err(error("NaN".to_owned())),
        PolicySpec::Constant(value) if holds(spec.element, *value) => {
            Ok(MissingPolicy::Value(*value))
        }
        PolicySpec::Text(text) if spec.element == ElementType::String => {
            Ok(MissingPolicy::Text(text.text.clone()))
        }
        PolicySpec::Text(text) => Err(error(format!("{:?}", text.text))),
        PolicySpec::Constant(value) => Err(error(value.to_string())),
    }
}

/// Whether `element` can hold `value` without changing it (floats: up to rounding).
fn holds(element: ElementType, value: f64) -> bool {
    let whole = |min: f64, max: f64| value.fract() == 0.0 && value >= min && value <= max;
    match element {
        ElementType::Float => value.is_finite() && (value as f32).is_finite(),
        ElementType::Double => value.is_finite(),
        ElementType::Int8 => whole(-128.0, 127.0),
        ElementType::Int16 => whole(-32_768.0, 32_767.0),
        ElementType::Int32 => whole(f64::from(i32::MIN), f64::from(i32::MAX)),
        // Above 2^53 a double no longer names one integer.
        ElementType::Int64 => whole(-9_007_199_254_740_992.0, 9_007_199_254_740_992.0),
        ElementType::Uint8 => whole(0.0, 255.0),
        ElementType::Uint16 => whole(0.0, 65_535.0),
        ElementType::Uint32 => whole(0.0, f64::from(u32::MAX)),
        ElementType::Uint64 => whole(0.0, 9_007_199_254_740_992.0),
        ElementType::Bool => value == 0.0 || value == 1.0,
        ElementType::String => false,
    }
}

fn resolve_outputs(
    outputs: &[OutputSpec],
    signature: &Signature,
) -> Result<Vec<OutputContract>, ContractError> {
    let resolved: Vec<OutputContract> = if outputs.is_empty() {
        signature
            .outputs
            .iter()
            .enumerate()
            .map(|(index, spec)| OutputContract {
                index,
                name: spec.name.clone(),
                spec: spec.clone(),
            })
            .collect()
    } else {
        outputs
            .iter()
            .map(|output| resolve_output(output, signature))
            .collect::<Result<_, _>>()?
    };
    let mut seen = BTreeSet::new();
    for output in &resolved {
        if !seen.insert(&output.name) {
            return Err(ContractError::Twice {
                what: "output",
                name: output.name.clone(),
            });
        }
    }
    Ok(resolved)
}

fn resolve_output(
    output: &OutputSpec,
    signature: &Signature,
) -> Result<OutputContract, ContractError> {
    let (index, spec) = signature
        .outputs
        .iter()
        .enumerate()
        .find(|(_, spec)| spec.name == output.name)
        .ok_or_else(|| ContractError::UnknownOutput {
            name: output.name.clone(),
            known: names(&signature.outputs),
        })?;
    let name = output.rename.clone().unwrap_or_else(|| output.name.clone());
    Ok(OutputContract {
        index,
        name,
        spec: spec.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, element: ElementType, row_shape: &[usize]) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            element,
            row_shape: row_shape.to_vec(),
            classes: None,
        }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![
                spec("x", ElementType::Float, &[2]),
                spec("n", ElementType::Int64, &[]),
            ],
            outputs: vec![
                spec("p", ElementType::Float, &[1]),
                spec("l", ElementType::Int64, &[]),
            ],
        }
    }

    fn input(name: &str, features: &[&str], missing: MissingSpec) -> InputSpec {
        InputSpec {
            name: name.to_owned(),
            features: features
                .iter()
                .map(|f| FeatureSpec::Name((*f).to_owned()))
                .collect(),
            missing,
            separator: None,
        }
    }

    #[test]
    fn an_empty_manifest_takes_each_input_by_its_name() {
        let contract = Contract::resolve(&[], &[], &signature()).unwrap();
        assert_eq!(contract.fields().collect::<Vec<_>>(), ["x", "n"]);
        let null = |i: usize| match &contract.inputs[i].source {
            InputSource::Field(feature) => feature.missing.null.clone(),
            InputSource::Features(_) | InputSource::Separated(..) => panic!("not a field"),
        };
        assert_eq!(null(0), MissingPolicy::Nan);
        assert_eq!(null(1), MissingPolicy::Reject);
        assert_eq!(contract.outputs.len(), 2);
    }

    #[test]
    fn a_map_is_read_from_an_object_of_its_name() {
        let mut signature = signature();
        signature.inputs[0].classes = Some(vec!["red".to_owned(), "0".to_owned()]);
        let contract = Contract::resolve(&[], &[], &signature).unwrap();
        assert_eq!(contract.fields().collect::<Vec<_>>(), ["x.red", "x.0", "n"]);
        let InputSource::Features(features) = &contract.inputs[0].source else {
            panic!("not features");
        };
        assert_eq!(features[0].missing.absent, MissingPolicy::Value(0.0));
        let listed = [input("x", &["a", "b"], MissingSpec::default())];
        let contract = Contract::resolve(&listed, &[], &signature).unwrap();
        assert_eq!(contract.fields().collect::<Vec<_>>(), ["a", "b", "n"]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |inputs: &[InputSpec], outputs: &[OutputSpec], part: &str| {
            let error = Contract::resolve(inputs, outputs, &signature())
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        };
        let none = MissingSpec::default;
        check(&[input("y", &[], none())], &[], "\"y\"");
        check(
            &[input("x", &["a"], none())],
            &[],
            "takes 2 values a row, the manifest lists 1",
        );
        check(
            &[input("x", &[], none()), input("x", &[], none())],
            &[],
            "named twice",
        );
        let nan = MissingSpec {
            absent: None,
            null: Some(PolicySpec::Named(NamedPolicy::Nan)),
        };
        check(
            &[input("n", &[], nan)],
            &[],
            "NaN cannot stand in for a missing int64",
        );
        let half = MissingSpec {
            absent: Some(PolicySpec::Constant(0.5)),
            null: None,
        };
        check(&[input("n", &[], half)], &[], "0.5 cannot stand in");
        let text = MissingSpec {
            absent: Some(PolicySpec::Text(crate::model::TextConstant {
                text: "none".to_owned(),
            })),
            null: None,
        };
        check(&[input("n", &[], text)], &[], "\"none\" cannot stand in");
        let separated = |name: &str, features: &[&str], separator: char| InputSpec {
            separator: Some(separator),
            ..input(name, features, MissingSpec::default())
        };
        check(&[separated("n", &[], ',')], &[], "only tensors of float");
        check(&[separated("x", &["a", "b"], ',')], &[], "are listed");
        check(&[separated("x", &[], 'e')], &[], "no number contains");
        let output = |name: &str, rename: Option<&str>| OutputSpec {
            name: name.to_owned(),
            rename: rename.map(str::to_owned),
        };
        check(&[], &[output("q", None)], "\"q\"");
        check(
            &[],
            &[output("p", Some("l")), output("l", None)],
            "named twice",
        );
    }
}
