//! Small ONNX files, written field by field: an encoder that shares no code with the importer.

/// A model with the input `x`.
#[derive(Clone)]
pub struct Model {
    input: Vec<i64>,
    nodes: Vec<Vec<u8>>,
    initializers: Vec<Vec<u8>>,
}

/// The value of an attribute.
pub enum Attribute<'a> {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(&'a [i64]),
}

impl Model {
    /// A model without nodes whose input has shape `input`.
    pub fn new(input: &[i64]) -> Self {
        Self { input: input.to_vec(), nodes: vec![], initializers: vec![] }
    }

    /// Adds a node whose output has its name.
    #[must_use]
    pub fn node(
        mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> Self {
        let mut node = Vec::new();
        inputs.iter().for_each(|input| field(&mut node, 1, input.as_bytes()));
        field(&mut node, 2, name.as_bytes());
        field(&mut node, 3, name.as_bytes());
        field(&mut node, 4, operator.as_bytes());
        for (name, value) in attributes {
            let mut attribute = Vec::new();
            field(&mut attribute, 1, name.as_bytes());
            match value {
                Attribute::Int(i) => {
                    number(&mut attribute, 3, *i);
                    number(&mut attribute, 20, 2);
                }
                Attribute::Ints(ints) => {
                    ints.iter().for_each(|&i| number(&mut attribute, 8, i));
                    number(&mut attribute, 20, 7);
                }
            }
            field(&mut node, 5, &attribute);
        }
        self.nodes.push(node);
        self
    }

    /// Adds a float initializer.
    ///
    /// # Panics
    /// If the number of values is not that of the dimensions.
    #[must_use]
    pub fn weights(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        assert_eq!(dims.iter().product::<i64>() as usize, values.len(), "{name}");
        let mut tensor = Vec::new();
        dims.iter().for_each(|&d| number(&mut tensor, 1, d));
        number(&mut tensor, 2, 1);
        field(&mut tensor, 8, name.as_bytes());
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        field(&mut tensor, 9, &raw);
        self.initializers.push(tensor);
        self
    }

    /// The file, with one output.
    pub fn to_bytes(&self, output: &str, dims: &[i64]) -> Vec<u8> {
        self.to_bytes_of(&[("x", &self.input)], &[(output, dims)])
    }

    /// The file with these inputs and outputs; a dimension of 0 is called `size`.
    pub fn to_bytes_of(&self, inputs: &[(&str, &[i64])], outputs: &[(&str, &[i64])]) -> Vec<u8> {
        let mut graph = Vec::new();
        self.nodes.iter().for_each(|node| field(&mut graph, 1, node));
        field(&mut graph, 2, b"graph");
        self.initializers.iter().for_each(|tensor| field(&mut graph, 5, tensor));
        inputs.iter().for_each(|(name, dims)| field(&mut graph, 11, &value(name, dims)));
        outputs.iter().for_each(|(name, dims)| field(&mut graph, 12, &value(name, dims)));
        let mut opset = Vec::new();
        number(&mut opset, 2, 17);
        let mut model = Vec::new();
        number(&mut model, 1, 8);
        field(&mut model, 7, &graph);
        field(&mut model, 8, &opset);
        model
    }
}

/// A perceptron `inputs → hidden → outputs` with ReLU, its first layer `first` and its second `second`,
/// each weights in rows per output, then biases.
pub fn perceptron(sizes: [usize; 3], first: (&[f32], &[f32]), second: (&[f32], &[f32])) -> Vec<u8> {
    let [inputs, hidden, outputs] = sizes.map(|s| s as i64);
    let transposed = [("transB", Attribute::Int(1))];
    Model::new(&[1, inputs])
        .weights("w1", &[hidden, inputs], first.0)
        .weights("b1", &[hidden], first.1)
        .weights("w2", &[outputs, hidden], second.0)
        .weights("b2", &[outputs], second.1)
        .node("Gemm", "first", &["x", "w1", "b1"], &transposed)
        .node("Relu", "relu", &["first"], &[])
        .node("Gemm", "second", &["relu", "w2", "b2"], &transposed)
        .to_bytes("second", &[1, outputs])
}

fn value(name: &str, dims: &[i64]) -> Vec<u8> {
    let mut shape = Vec::new();
    for &dim in dims {
        let mut dimension = Vec::new();
        match dim {
            0 => field(&mut dimension, 2, b"size"),
            _ => number(&mut dimension, 1, dim),
        }
        field(&mut shape, 1, &dimension);
    }
    let mut tensor = Vec::new();
    number(&mut tensor, 1, 1);
    field(&mut tensor, 2, &shape);
    let mut kind = Vec::new();
    field(&mut kind, 1, &tensor);
    let mut value = Vec::new();
    field(&mut value, 1, name.as_bytes());
    field(&mut value, 2, &kind);
    value
}

fn field(bytes: &mut Vec<u8>, tag: u64, content: &[u8]) {
    varint(bytes, tag << 3 | 2);
    varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

fn number(bytes: &mut Vec<u8>, tag: u64, value: i64) {
    varint(bytes, tag << 3);
    varint(bytes, value as u64);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
