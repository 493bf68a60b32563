//! Writes small ONNX files: the few fields of the protobuf that the tests need.

/// `field` with a varint.
pub fn number(field: u32, value: u64) -> Vec<u8> {
    let mut bytes = varint(u64::from(field) << 3);
    bytes.extend(varint(value));
    bytes
}

/// `field` with bytes: a string or a message.
pub fn bytes(field: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let mut out = varint(u64::from(field) << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// `NodeProto`.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for name in inputs {
        out.extend(bytes(1, name));
    }
    for name in outputs {
        out.extend(bytes(2, name));
    }
    out.extend(bytes(4, op));
    for a in attributes {
        out.extend(bytes(5, a));
    }
    out
}

/// `AttributeProto` that is a graph.
pub fn graph_attribute(name: &str, graph: &[u8]) -> Vec<u8> {
    [bytes(1, name), bytes(6, graph), number(20, 5)].concat()
}

/// `AttributeProto` that is a tensor.
pub fn tensor_attribute(name: &str, tensor: &[u8]) -> Vec<u8> {
    [bytes(1, name), bytes(5, tensor), number(20, 4)].concat()
}

/// `AttributeProto` that is an integer.
pub fn int_attribute(name: &str, value: u64) -> Vec<u8> {
    [bytes(1, name), number(3, value), number(20, 2)].concat()
}

/// `TensorProto`; `data_type` 1 is float, 7 int64, 9 bool.
pub fn tensor(name: &str, data_type: u64, dims: &[i64], raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for axis in dims {
        out.extend(number(1, axis.cast_unsigned()));
    }
    out.extend(number(2, data_type));
    out.extend(bytes(8, name));
    out.extend(bytes(9, raw));
    out
}

/// An int64 vector.
pub fn int64s(name: &str, values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    tensor(name, 7, &[values.len() as i64], &raw)
}

/// `ValueInfoProto` of floats; axis 0 is `n`.
pub fn floats(name: &str, row: &[u64]) -> Vec<u8> {
    let mut shape = bytes(1, bytes(2, "n"));
    for axis in row {
        shape.extend(bytes(1, number(1, *axis)));
    }
    let tensor = [number(1, 1), bytes(2, shape)].concat();
    [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
}

/// `GraphProto`.
pub fn graph(
    nodes: &[Vec<u8>],
    initialisers: &[Vec<u8>],
    inputs: &[Vec<u8>],
    outputs: &[Vec<u8>],
) -> Vec<u8> {
    let mut out = Vec::new();
    for n in nodes {
        out.extend(bytes(1, n));
    }
    out.extend(bytes(2, "g"));
    for t in initialisers {
        out.extend(bytes(5, t));
    }
    for v in inputs {
        out.extend(bytes(11, v));
    }
    for v in outputs {
        out.extend(bytes(12, v));
    }
    out
}

/// `ModelProto` of opset 17.
pub fn model(graph: &[u8]) -> Vec<u8> {
    let opset = number(2, 17);
    [number(1, 8), bytes(7, graph), bytes(8, opset)].concat()
}

/// A model of `nodes` from `x` [n, 4] to `y`.
pub fn simple(nodes: &[Vec<u8>], initialisers: &[Vec<u8>]) -> Vec<u8> {
    model(&graph(
        nodes,
        initialisers,
        &[floats("x", &[4])],
        &[floats("y", &[4])],
    ))
}
