//! Writes ONNX files: the few messages of its protobuf that generated models need.

/// A message in the making.
#[derive(Debug, Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn part(self, field: u64, part: &Self) -> Self {
        self.bytes(field, &part.0)
    }
}

const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// One attribute of a node.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Int(i64),
    Text(&'a str),
    Floats(&'a [f32]),
    Ints(&'a [i64]),
    Texts(&'a [&'a str]),
}

/// A graph in the making.
#[derive(Debug, Default)]
pub struct Graph {
    message: Message,
    nodes: usize,
}

impl Graph {
    fn add(&mut self, field: u64, part: &Message) {
        self.message = std::mem::take(&mut self.message).part(field, part);
    }

    /// A node with one output of the node's own name.
    pub fn node(
        &mut self,
        (domain, operator): (&str, &str),
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Value<'_>)],
    ) {
        let mut node = Message::default();
        for input in inputs {
            node = node.text(1, input);
        }
        let name = format!("{operator}_{}", self.nodes);
        self.nodes += 1;
        node = node.text(2, output).text(3, &name).text(4, operator);
        for (name, value) in attributes {
            node = node.part(5, &attribute(name, *value));
        }
        self.add(1, &node.text(7, domain));
    }

    /// A constant of floats.
    pub fn floats(&mut self, name: &str, shape: &[i64], values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add(5, &tensor(name, shape, FLOAT, &raw));
    }

    /// A constant of integers.
    pub fn ints(&mut self, name: &str, shape: &[i64], values: &[i64]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add(5, &tensor(name, shape, INT64, &raw));
    }

    /// An input of floats, after the batch axis of this shape.
    pub fn input(&mut self, name: &str, row: &[i64]) {
        self.add(11, &value_info(name, row));
    }

    /// An output of floats, after the batch axis of this shape.
    pub fn output(&mut self, name: &str, row: &[i64]) {
        self.add(12, &value_info(name, row));
    }

    /// The finished file.
    pub fn model(self, opsets: &[(&str, i64)]) -> Vec<u8> {
        let graph = self.message.text(2, "graph");
        let mut model = Message::default()
            .int(1, 8)
            .text(2, "swapstream benches/end_to_end");
        for (domain, version) in opsets {
            model = model.part(8, &Message::default().text(1, domain).int(2, *version));
        }
        model.part(7, &graph).0
    }
}

fn tensor(name: &str, shape: &[i64], kind: i64, raw: &[u8]) -> Message {
    let dims = shape.iter().fold(Message::default(), |m, d| m.int(1, *d));
    dims.int(2, kind).text(8, name).bytes(9, raw)
}

fn value_info(name: &str, row: &[i64]) -> Message {
    let batch = Message::default().text(2, "batch");
    let mut shape = Message::default().part(1, &batch);
    for dim in row {
        shape = shape.part(1, &Message::default().int(1, *dim));
    }
    let tensor = Message::default().int(1, FLOAT).part(2, &shape);
    let kind = Message::default().part(1, &tensor);
    Message::default().text(1, name).part(2, &kind)
}

fn attribute(name: &str, value: Value<'_>) -> Message {
    let message = Message::default().text(1, name);
    match value {
        Value::Int(v) => message.int(3, v).int(20, 2),
        Value::Text(v) => message.text(4, v).int(20, 3),
        Value::Floats(v) => {
            let raw: Vec<u8> = v.iter().flat_map(|v| v.to_le_bytes()).collect();
            message.bytes(7, &raw).int(20, 6)
        }
        Value::Ints(v) => {
            let mut packed = Message::default();
            for v in v {
                packed.varint(*v as u64);
            }
            message.part(8, &packed).int(20, 7)
        }
        Value::Texts(v) => v.iter().fold(message, |m, v| m.text(9, v)).int(20, 8),
    }
}
