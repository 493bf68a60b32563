//! What an ONNX file says about itself: tensors, operators, weights, metadata.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tract_onnx::pb;

use super::{LoadError, LoadLimits, values};
use crate::model::ElementType;

/// A read-only view of an ONNX file, for people and for the checks at load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OnnxSummary {
    /// Version of the file format.
    pub ir_version: i64,
    /// The exporting program and its version.
    pub producer: String,
    /// Operator sets: domain (the default domain as `ai.onnx`) and version.
    pub opsets: BTreeMap<String, i64>,
    /// Graph inputs that are no initialisers.
    pub inputs: Vec<OnnxValue>,
    /// Graph outputs.
    pub outputs: Vec<OnnxValue>,
    /// Operators of the graph and its subgraphs, sorted.
    pub operators: Vec<OperatorCount>,
    /// Bytes of the weights.
    pub initialiser_bytes: usize,
    /// The exporter's or the publisher's own keys.
    pub metadata_props: BTreeMap<String, String>,
}

/// An operator and how often it occurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperatorCount {
    /// The domain, the default one as `ai.onnx`.
    pub domain: String,
    /// The operator.
    pub op_type: String,
    /// Number of nodes.
    pub count: usize,
}

impl fmt::Display for OperatorCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.domain, self.op_type)
    }
}

/// A graph input or output as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OnnxValue {
    /// The name in the graph.
    pub name: String,
    /// Element type in ONNX's own words, lower-case; `None`: not a tensor (a sequence, a map).
    pub element: Option<String>,
    /// The declared axes, the batch included; `None`: not declared.
    pub shape: Option<Vec<OnnxDim>>,
}

impl OnnxValue {
    /// The element type, if Swapstream knows it.
    pub fn element_type(&self) -> Option<ElementType> {
        Some(match self.element.as_deref()? {
            "float" => ElementType::Float,
            "double" => ElementType::Double,
            "int8" => ElementType::Int8,
            "int16" => ElementType::Int16,
            "int32" => ElementType::Int32,
            "int64" => ElementType::Int64,
            "uint8" => ElementType::Uint8,
            "uint16" => ElementType::Uint16,
            "uint32" => ElementType::Uint32,
            "uint64" => ElementType::Uint64,
            "bool" => ElementType::Bool,
            "string" => ElementType::String,
            _ => return None,
        })
    }
}

/// One declared axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OnnxDim {
    /// A length.
    Fixed(usize),
    /// A name that stands for any length.
    Symbol(String),
    /// Any length, without a name.
    Unknown,
}

impl fmt::Display for OnnxDim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Symbol(name) => write!(f, "{name:?}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl OnnxSummary {
    pub(super) fn of(proto: &pb::ModelProto, graph: &pb::GraphProto) -> Result<Self, LoadError> {
        let mut found = Found::default();
        found.graph(graph)?;
        let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let mut computed = constants.clone();
        computed.extend(graph.input.iter().map(|value| value.name.as_str()));
        computed.extend(
            graph
                .node
                .iter()
                .flat_map(|n| &n.output)
                .map(String::as_str),
        );
        if let Some(output) = graph
            .output
            .iter()
            .find(|o| !computed.contains(o.name.as_str()))
        {
            return Err(LoadError::new(format!(
                "output {:?} is computed by no node of the graph",
                output.name
            )));
        }
        let inputs = graph.input.iter();
        Ok(Self {
            ir_version: proto.ir_version,
            producer: format!("{} {}", proto.producer_name, proto.producer_version)
                .trim()
                .to_owned(),
            opsets: proto
                .opset_import
                .iter()
                .map(|set| (domain(&set.domain).to_owned(), set.version))
                .collect(),
            inputs: inputs
                .filter(|value| !constants.contains(value.name.as_str()))
                .map(value)
                .collect(),
            outputs: graph.output.iter().map(value).collect(),
            operators: found
                .operators
                .into_iter()
                .map(|((domain, op_type), count)| OperatorCount {
                    domain: domain.to_owned(),
                    op_type: op_type.to_owned(),
                    count,
                })
                .collect(),
            initialiser_bytes: found.initialiser_bytes,
            metadata_props: proto
                .metadata_props
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.clone()))
                .collect(),
        })
    }

    pub(super) fn check(&self, limits: &LoadLimits) -> Result<(), LoadError> {
        let nodes: usize = self.operators.iter().map(|op| op.count).sum();
        let (weights, most) = (self.initialiser_bytes, limits.max_initialiser_bytes);
        if nodes > limits.max_nodes {
            return Err(LoadError::new(format!(
                "the graph has {nodes} nodes, at most {} are allowed",
                limits.max_nodes
            )));
        }
        if weights > most {
            return Err(LoadError::new(format!(
                "the initialisers take {weights} bytes, at most {most} are allowed"
            )));
        }
        Ok(())
    }
}

fn domain(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}

fn value(info: &pb::ValueInfoProto) -> OnnxValue {
    let tensor = info
        .r#type
        .as_ref()
        .and_then(|r#type| r#type.value.as_ref())
        .map(|pb::type_proto::Value::TensorType(tensor)| tensor);
    OnnxValue {
        name: info.name.clone(),
        element: tensor.map(|tensor| element(tensor.elem_type)),
        shape: tensor
            .and_then(|tensor| tensor.shape.as_ref())
            .map(|shape| shape.dim.iter().map(dim).collect()),
    }
}

fn element(number: i32) -> String {
    match pb::tensor_proto::DataType::try_from(number) {
        Ok(known) => known.as_str_name().to_lowercase(),
        Err(_) => format!("type number {number}"),
    }
}

fn dim(dim: &pb::tensor_shape_proto::Dimension) -> OnnxDim {
    use pb::tensor_shape_proto::dimension::Value;
    match &dim.value {
        // Exporters write 0 or -1 for an axis whose length they do not know.
        Some(Value::DimValue(length)) => usize::try_from(*length)
            .ok()
            .filter(|length| *length > 0)
            .map_or(OnnxDim::Unknown, OnnxDim::Fixed),
        Some(Value::DimParam(name)) if !name.is_empty() => OnnxDim::Symbol(name.clone()),
        _ => OnnxDim::Unknown,
    }
}

/// What a walk over the graph and its subgraphs gathers.
#[derive(Default)]
struct Found<'a> {
    operators: BTreeMap<(&'a str, &'a str), usize>,
    initialiser_bytes: usize,
}

impl<'a> Found<'a> {
    fn graph(&mut self, graph: &'a pb::GraphProto) -> Result<(), LoadError> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| &values.name);
            return Err(LoadError::new(format!(
                "initialiser {name:?} is sparse; only dense ones are supported"
            )));
        }
        for tensor in &graph.initializer {
            self.tensor(tensor, &tensor.name)?;
        }
        for node in &graph.node {
            let operator = (domain(&node.domain), node.op_type.as_str());
            *self.operators.entry(operator).or_default() += 1;
            for attribute in &node.attribute {
                for tensor in attribute.t.iter().chain(&attribute.tensors) {
                    self.tensor(tensor, &node.name)?;
                }
                for graph in attribute.g.iter().chain(&attribute.graphs) {
                    self.graph(graph)?;
                }
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &pb::TensorProto, name: &str) -> Result<(), LoadError> {
        let external = pb::tensor_proto::DataLocation::External as i32;
        if tensor.data_location == Some(external) {
            let file = tensor.external_data.iter().find(|e| e.key == "location");
            let file = file.map_or("another file", |entry| entry.value.as_str());
            return Err(LoadError::new(format!(
                "the weights {name:?} lie outside the ONNX file, in {file:?}; export the model as \
                 one file"
            )));
        }
        self.initialiser_bytes += values::check(tensor, name)?;
        Ok(())
    }
}
