//! Writes ONNX files that are large, so that loading them takes time and memory.

/// A message of protobuf.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    #[expect(clippy::needless_pass_by_value, reason = "built in place")]
    fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }
}

const FLOAT: u64 = 1;

fn tensor(name: &str, seed: usize, rows: usize, columns: usize) -> Message {
    // Small and different from each other (xorshift), so that nothing is folded away.
    let mut state = 0x9e37_79b9_u32 ^ (seed as u32 + 1);
    let mut raw = Vec::with_capacity(rows * columns * 4);
    for _ in 0..rows * columns {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let value = (f64::from(state) / f64::from(u32::MAX) - 0.5) * 1e-3;
        raw.extend((value as f32).to_le_bytes());
    }
    Message::default()
        .number(1, rows as u64)
        .number(1, columns as u64)
        .number(2, FLOAT)
        .bytes(8, name.as_bytes())
        .bytes(9, &raw)
}

fn value(name: &str, columns: u64) -> Message {
    let batch = Message::default().bytes(2, b"N");
    let axis = Message::default().number(1, columns);
    let shape = Message::default().message(1, batch).message(1, axis);
    let kind = Message::default().number(1, FLOAT).message(2, shape);
    let kind = Message::default().message(1, kind);
    Message::default()
        .bytes(1, name.as_bytes())
        .message(2, kind)
}

fn node(inputs: &[&str], output: &str, operator: &str) -> Message {
    let message = inputs
        .iter()
        .fold(Message::default(), |m, input| m.bytes(1, input.as_bytes()));
    message
        .bytes(2, output.as_bytes())
        .bytes(4, operator.as_bytes())
}

/// A dense net with the inputs and outputs of the first model of the flights, and so many square
/// layers of `width`: 4 × width² bytes each.
pub fn dense(layers: usize, width: usize) -> Vec<u8> {
    let mut graph = Message::default().bytes(2, b"dense");
    let mut from = "features".to_owned();
    for layer in 0..=layers + 1 {
        let (rows, columns) = match layer {
            0 => (6, width),
            last if last == layers + 1 => (width, 1),
            _ => (width, width),
        };
        let (weights, to) = (format!("w{layer}"), format!("h{layer}"));
        graph = graph.message(5, tensor(&weights, layer, rows, columns));
        graph = graph.message(1, node(&[&from, &weights], &to, "MatMul"));
        from = to;
    }
    graph = graph.message(1, node(&[&from], "late_probability", "Sigmoid"));
    graph = graph
        .message(11, value("features", 6))
        .message(12, value("late_probability", 1));
    let opset = Message::default().bytes(1, b"").number(2, 17);
    let model = Message::default().number(1, 8).message(7, graph);
    model.message(8, opset).0
}
