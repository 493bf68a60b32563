//! From bytes to the ONNX protobuf: says precisely what is wrong with a file that is none.

use tract_onnx::pb;
use tract_onnx::prelude::Framework;

use super::maps::Maps;
use super::summary::OnnxSummary;
use super::{LoadError, brief, panics};

/// What a file may hold at most. A file beyond a limit is refused, naming the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Bytes of the file.
    pub max_bytes: usize,
    /// Nodes of the graph and its subgraphs.
    pub max_nodes: usize,
    /// Bytes of the weights.
    pub max_initialiser_bytes: usize,
    /// Values of one input tensor of the plan: rows of the plan times values of a row.
    pub max_input_values: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            max_bytes: 512 << 20,
            max_nodes: 100_000,
            max_initialiser_bytes: 512 << 20,
            max_input_values: 16 << 20,
        }
    }
}

/// A file that is ONNX; whether this build can run it is another question.
#[derive(Debug)]
pub(super) struct OnnxFile {
    /// Without the maps at its edges.
    pub(super) proto: pb::ModelProto,
    pub(super) maps: Maps,
    /// Of the file as it came.
    pub(super) summary: OnnxSummary,
}

/// What the file says about itself, `metadata_props` included; nothing is compiled.
pub fn metadata(bytes: &[u8]) -> Result<OnnxSummary, LoadError> {
    read(bytes, &LoadLimits::default()).map(|(_, summary)| summary)
}

/// Reads `bytes`, holds them against `limits`, and cuts the maps off the graph.
pub(super) fn parse(bytes: &[u8], limits: &LoadLimits) -> Result<OnnxFile, LoadError> {
    let (mut proto, summary) = read(bytes, limits)?;
    let maps = match &mut proto.graph {
        Some(graph) => Maps::cut(graph)?,
        None => Maps::default(),
    };
    Ok(OnnxFile {
        proto,
        maps,
        summary,
    })
}

fn read(bytes: &[u8], limits: &LoadLimits) -> Result<(pb::ModelProto, OnnxSummary), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::new("the file is empty"));
    }
    if bytes.len() > limits.max_bytes {
        return Err(LoadError::new(format!(
            "the file has {} bytes, at most {} are allowed",
            bytes.len(),
            limits.max_bytes
        )));
    }
    check_framing(bytes)?;
    let decoded = panics::catch(|| tract_onnx::onnx().proto_model_for_read(&mut &*bytes));
    let proto = match decoded {
        Ok(Ok(mut proto)) => {
            proto.graph.iter_mut().for_each(forget_inner_symbols);
            proto
        }
        Ok(Err(error)) => {
            let error = brief(&error);
            return Err(LoadError::new(format!("the ONNX file is damaged: {error}")));
        }
        Err(panic) => return Err(LoadError::new(format!("the ONNX file is damaged: {panic}"))),
    };
    if proto.ir_version < 1 {
        return Err(LoadError::new("not an ONNX file: it has no ir_version"));
    }
    let Some(graph) = &proto.graph else {
        return Err(LoadError::new("the ONNX file has no graph"));
    };
    if graph.node.is_empty() {
        return Err(LoadError::new("the graph of the ONNX file has no nodes"));
    }
    if proto.opset_import.is_empty() {
        return Err(LoadError::new(
            "the ONNX file imports no operator set (opset_import); it may be cut off",
        ));
    }
    let summary = OnnxSummary::of(&proto, graph)?;
    summary.check(limits)?;
    Ok((proto, summary))
}

/// Takes the symbols off the inputs of subgraphs: a name like `batch` there would contradict the
/// batch that a plan is made for. What they are follows from the outer graph.
fn forget_inner_symbols(graph: &mut pb::GraphProto) {
    use pb::tensor_shape_proto::dimension::Value;
    use pb::type_proto::Value::TensorType;
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    for inner in
        attributes.flat_map(|attribute| attribute.g.iter_mut().chain(&mut attribute.graphs))
    {
        for r#type in inner
            .input
            .iter_mut()
            .filter_map(|input| input.r#type.as_mut())
        {
            let Some(TensorType(tensor)) = &mut r#type.value else {
                continue;
            };
            for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
                if matches!(dim.value, Some(Value::DimParam(_))) {
                    dim.value = None;
                }
            }
        }
        forget_inner_symbols(inner);
    }
}

/// Name and wire type of each field of `ModelProto`.
fn known_field(number: u64) -> Option<(&'static str, u64)> {
    Some(match number {
        1 => ("ir_version", VARINT),
        2 => ("producer_name", BYTES),
        3 => ("producer_version", BYTES),
        4 => ("domain", BYTES),
        5 => ("model_version", VARINT),
        6 => ("doc_string", BYTES),
        7 => ("graph", BYTES),
        8 => ("opset_import", BYTES),
        14 => ("metadata_props", BYTES),
        20 => ("training_info", BYTES),
        25 => ("functions", BYTES),
        26 => ("configuration", BYTES),
        _ => return None,
    })
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// Walks the outermost fields only. The protobuf reader's own errors do not tell a file that was
/// cut off from one that never was ONNX.
fn check_framing(bytes: &[u8]) -> Result<(), LoadError> {
    let not_onnx = |at: usize| {
        LoadError::new(match at {
            0 => "not an ONNX file".to_owned(),
            _ => format!("the ONNX file is damaged at byte {at}"),
        })
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = bytes.len() - rest.len();
        let key = varint(&mut rest).ok_or_else(|| not_onnx(start))?;
        let (number, wire) = (key >> 3, key & 7);
        let name = match known_field(number) {
            Some((name, expected)) if wire == expected => name,
            // Later versions of the format may add fields, but none comes first.
            None if start > 0 => "(unknown)",
            _ => return Err(not_onnx(start)),
        };
        let takes = match wire {
            VARINT => match varint(&mut rest) {
                Some(_) => 0,
                None => 1,
            },
            FIXED_64 => 8,
            BYTES => varint(&mut rest).ok_or_else(|| not_onnx(start))?,
            FIXED_32 => 4,
            _ => return Err(not_onnx(start)),
        };
        let left = rest.len();
        rest = usize::try_from(takes)
            .ok()
            .and_then(|takes| rest.get(takes..))
            .ok_or_else(|| {
                LoadError::new(format!(
                    "the ONNX file is cut off: field {name} at byte {start} takes {takes} bytes, \
                     {left} are left"
                ))
            })?;
    }
    Ok(())
}

/// Takes a protobuf varint off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        metadata(bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_onnx_is_told_from_what_is_cut_off() {
        assert_eq!(refusal(b""), "the file is empty");
        assert_eq!(refusal(b"{\"a\": 1}"), "not an ONNX file");
        assert_eq!(refusal(b"PK\x03\x04 a zip file"), "not an ONNX file");
        assert_eq!(refusal(b"\x80\x04\x95 a pickle"), "not an ONNX file");
        assert_eq!(refusal(b"\x08\x08"), "the ONNX file has no graph");
        assert_eq!(
            refusal(b"\x08\x08\x3a\x10abc"),
            "the ONNX file is cut off: field graph at byte 2 takes 16 bytes, 3 are left"
        );
        assert!(refusal(b"\x3a\x00").contains("no ir_version"));
        assert!(refusal(b"\x08\x08\x3a\x00").contains("no nodes"));
        assert!(refusal(b"\x08\x08\x3a\x02\xff\xff").contains("damaged"));
    }

    #[test]
    fn a_file_over_the_limit_is_not_even_read() {
        let limits = LoadLimits {
            max_bytes: 3,
            ..LoadLimits::default()
        };
        let error = parse(b"\x08\x08\x3a\x00", &limits).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file has 4 bytes, at most 3 are allowed"
        );
    }
}
