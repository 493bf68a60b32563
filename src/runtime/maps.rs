//! Maps at the edges of a graph. tract has neither sequences nor maps, so the nodes that make or
//! take them are cut out before it sees the graph: `ZipMap` (scores become a map from class to
//! score), `DictVectorizer` and `CastMap` (a map becomes a row). What is left is a tensor, and the
//! keys are kept beside it.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::type_proto::{Tensor as TensorType, Value};
use tract_onnx::pb::{
    self, GraphProto, NodeProto, TensorShapeProto, TypeProto, tensor_shape_proto,
};

use super::LoadError;
use super::summary::{OnnxDim, OnnxValue};

/// The keys of the inputs and outputs that are maps, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Maps {
    pub(super) inputs: BTreeMap<String, Vec<String>>,
    pub(super) outputs: BTreeMap<String, Vec<String>>,
}

/// The operators that are cut out.
pub(super) const OPERATORS: [&str; 3] = ["CastMap", "DictVectorizer", "ZipMap"];

const DOMAIN: &str = "ai.onnx.ml";

/// The most elements that `CastMap` may spread a map over.
const MOST_KEYS: i64 = 1 << 20;

impl Maps {
    /// Cuts the maps off `graph`.
    pub(super) fn cut(graph: &mut GraphProto) -> Result<Self, LoadError> {
        let mut maps = Self::default();
        maps.cut_outputs(graph)?;
        maps.cut_inputs(graph)?;
        Ok(maps)
    }

    fn cut_outputs(&mut self, graph: &mut GraphProto) -> Result<(), LoadError> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // In a valid graph a node stands behind those that it reads from.
        for node in &mut graph.node {
            if is(node, "ZipMap") {
                let keys = keys(node, "classlabels_strings", "classlabels_int64s")?;
                let output = node.output.first().cloned().unwrap_or_default();
                become_identity(node);
                found.insert(output, keys);
            } else if let Some(keys) = node.input.iter().find_map(|name| found.get(name)) {
                if node.op_type != "Identity" {
                    return Err(LoadError::new(format!(
                        "operator {} reads the maps of a ZipMap; only outputs of the model may be \
                         maps",
                        node.op_type
                    )));
                }
                let keys = keys.clone();
                found.extend(node.output.iter().map(|name| (name.clone(), keys.clone())));
            }
        }
        for output in &mut graph.output {
            if let Some(keys) = found.remove(&output.name) {
                // What is left is a tensor; its type and shape are computed.
                output.r#type = None;
                self.outputs.insert(output.name.clone(), keys);
            }
        }
        Ok(())
    }

    fn cut_inputs(&mut self, graph: &mut GraphProto) -> Result<(), LoadError> {
        let mapped = |value: &pb::ValueInfoProto| {
            value
                .r#type
                .as_ref()
                .is_none_or(|r#type| r#type.value.is_none())
        };
        let names: BTreeSet<String> = graph
            .input
            .iter()
            .filter(|value| mapped(value))
            .map(|value| value.name.clone())
            .collect();
        for node in &mut graph.node {
            let Some(name) = node
                .input
                .first()
                .filter(|name| names.contains(*name))
                .cloned()
            else {
                continue;
            };
            let keys = if is(node, "DictVectorizer") {
                keys(node, "string_vocabulary", "int64_vocabulary")?
            } else if is(node, "CastMap") {
                positions(node)?
            } else {
                continue;
            };
            if self.inputs.get(&name).is_some_and(|before| *before != keys) {
                return Err(LoadError::new(format!(
                    "input {name:?} is a map that two nodes read with different keys"
                )));
            }
            become_identity(node);
            if let Some(value) = graph.input.iter_mut().find(|value| value.name == name) {
                value.r#type = Some(rows_of_floats(keys.len()));
            }
            self.inputs.insert(name, keys);
        }
        Ok(())
    }

    /// `declared` with the inputs that are maps as what they were made into.
    pub(super) fn declared_inputs(&self, declared: &[OnnxValue]) -> Vec<OnnxValue> {
        let value = |value: &OnnxValue| match self.inputs.get(&value.name) {
            None => value.clone(),
            Some(keys) => OnnxValue {
                name: value.name.clone(),
                element: Some("float".to_owned()),
                shape: Some(vec![OnnxDim::Unknown, OnnxDim::Fixed(keys.len())]),
            },
        };
        declared.iter().map(value).collect()
    }
}

fn is(node: &NodeProto, op_type: &str) -> bool {
    node.domain == DOMAIN && node.op_type == op_type
}

/// The node hands on its first input.
fn become_identity(node: &mut NodeProto) {
    "Identity".clone_into(&mut node.op_type);
    node.domain.clear();
    node.attribute.clear();
}

fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    attribute.map_or(&[], |attribute| attribute.ints.as_slice())
}

/// The keys that a node lists, integers as text.
fn keys(node: &NodeProto, strings: &str, integers: &str) -> Result<Vec<String>, LoadError> {
    let attribute = node.attribute.iter().find(|a| a.name == strings);
    let texts = attribute.map_or(&[][..], |attribute| &attribute.strings);
    let keys: Vec<String> = if texts.is_empty() {
        ints(node, integers)
            .iter()
            .map(ToString::to_string)
            .collect()
    } else {
        let texts = texts.iter().map(|text| String::from_utf8(text.clone()));
        texts
            .collect::<Result<_, _>>()
            .map_err(|_| LoadError::new(format!("a key of {} is not UTF-8", node.op_type)))?
    };
    let mut seen = BTreeSet::new();
    if let Some(twice) = keys.iter().find(|key| !seen.insert(key.as_str())) {
        return Err(LoadError::new(format!(
            "{} lists the key {twice:?} twice",
            node.op_type
        )));
    }
    if keys.is_empty() {
        return Err(LoadError::new(format!("{} lists no keys", node.op_type)));
    }
    Ok(keys)
}

/// The keys of `CastMap`: positions, where the map is a sparse vector of a known length.
fn positions(node: &NodeProto) -> Result<Vec<String>, LoadError> {
    let text = |name: &str, default: &'static str| {
        let attribute = node.attribute.iter().find(|a| a.name == name);
        let text = attribute.map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned());
        text.unwrap_or_else(|| default.to_owned())
    };
    let length = node
        .attribute
        .iter()
        .find(|a| a.name == "max_map")
        .map_or(1, |a| a.i);
    let (form, to) = (text("map_form", "DENSE"), text("cast_to", "TO_FLOAT"));
    if form != "SPARSE" || to != "TO_FLOAT" || !(1..=MOST_KEYS).contains(&length) {
        return Err(LoadError::new(format!(
            "CastMap with map_form {form}, cast_to {to} and max_map {length} is not supported; \
             SPARSE, TO_FLOAT and at most {MOST_KEYS} are"
        )));
    }
    Ok((0..length).map(|position| position.to_string()).collect())
}

fn rows_of_floats(width: usize) -> TypeProto {
    use tensor_shape_proto::{Dimension, dimension};
    let dim = |value| Dimension {
        value,
        ..Dimension::default()
    };
    let width = Some(dimension::Value::DimValue(width as i64));
    TypeProto {
        value: Some(Value::TensorType(TensorType {
            elem_type: pb::tensor_proto::DataType::Float as i32,
            shape: Some(TensorShapeProto {
                dim: vec![dim(None), dim(width)],
            }),
        })),
        ..TypeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use pb::{AttributeProto, ValueInfoProto};

    use super::*;

    fn node(op_type: &str, domain: &str, input: &str, output: &str) -> NodeProto {
        NodeProto {
            op_type: op_type.to_owned(),
            domain: domain.to_owned(),
            input: vec![input.to_owned()],
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    fn with_ints(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
        node.attribute.push(AttributeProto {
            name: name.to_owned(),
            ints: ints.to_vec(),
            ..AttributeProto::default()
        });
        node
    }

    fn graph(nodes: Vec<NodeProto>) -> GraphProto {
        let value = |name: &str| ValueInfoProto {
            name: name.to_owned(),
            ..ValueInfoProto::default()
        };
        GraphProto {
            node: nodes,
            input: vec![value("x")],
            output: vec![value("y")],
            ..GraphProto::default()
        }
    }

    fn zip_map(keys: &[i64], output: &str) -> NodeProto {
        with_ints(
            node("ZipMap", DOMAIN, "p", output),
            "classlabels_int64s",
            keys,
        )
    }

    #[test]
    fn a_zip_map_becomes_its_input_and_keeps_its_keys() {
        let mut direct = graph(vec![zip_map(&[5, 7], "y")]);
        let maps = Maps::cut(&mut direct).unwrap();
        assert_eq!(maps.outputs["y"], ["5", "7"]);
        assert_eq!(direct.node[0], node("Identity", "", "p", "y"));
        let mut behind = graph(vec![zip_map(&[5, 7], "z"), node("Identity", "", "z", "y")]);
        assert_eq!(Maps::cut(&mut behind).unwrap(), maps);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let error = |nodes| Maps::cut(&mut graph(nodes)).unwrap_err().to_string();
        let read = error(vec![zip_map(&[5], "z"), node("SequenceAt", "", "z", "y")]);
        assert!(read.contains("SequenceAt reads the maps"), "{read}");
        let twice = error(vec![zip_map(&[5, 5], "y")]);
        assert_eq!(twice, "ZipMap lists the key \"5\" twice");
        assert_eq!(error(vec![zip_map(&[], "y")]), "ZipMap lists no keys");
        let dense = error(vec![node("CastMap", DOMAIN, "x", "y")]);
        assert!(dense.contains("map_form DENSE"), "{dense}");
    }

    #[test]
    fn a_map_that_goes_in_becomes_a_row_of_its_keys() {
        let vectorizer = node("DictVectorizer", DOMAIN, "x", "y");
        let mut graph = graph(vec![with_ints(vectorizer, "int64_vocabulary", &[3, 9])]);
        let maps = Maps::cut(&mut graph).unwrap();
        assert_eq!(maps.inputs["x"], ["3", "9"]);
        assert_eq!(graph.node[0].op_type, "Identity");
        assert_eq!(graph.input[0].r#type, Some(rows_of_floats(2)));
    }
}
