//! Writes GGUF files, version 3: for tests and fuzzing seeds, and for whoever makes a model smaller.

use kernels::elements::ElementType;

use super::header::type_id;
use super::value::{Value, ValueType};

/// Collects metadata and tensors in memory; of large files, what tensors are alone ([`Writer::announce`]), so that whoever
/// makes their bytes writes them after the header. Nothing is checked, so that tests can write malformed files too.
#[derive(Clone, Debug)]
pub struct Writer {
    alignment: usize,
    metadata: Vec<u8>,
    metadata_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    /// Bytes of the tensors so far, and of what lies between them.
    data_bytes: usize,
    /// Of tensors that are not announced alone.
    data: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new(32)
    }
}

impl Writer {
    /// An empty file whose tensors begin at multiples of `alignment`; write `general.alignment` where it is not 32.
    pub fn new(alignment: usize) -> Writer {
        Writer {
            alignment,
            metadata: Vec::new(),
            metadata_count: 0,
            tensors: Vec::new(),
            tensor_count: 0,
            data_bytes: 0,
            data: Vec::new(),
        }
    }

    /// Adds a value of any type but an array.
    pub fn value(&mut self, key: &str, value: Value<'_>) -> &mut Writer {
        self.key(key, value.value_type());
        encode(&mut self.metadata, value);
        self
    }

    pub fn text(&mut self, key: &str, text: &str) -> &mut Writer {
        self.value(key, Value::String(text))
    }

    /// Adds a value of any type, as it was read.
    pub fn copy(&mut self, key: &str, value: Value<'_>) -> &mut Writer {
        match value {
            Value::Array(array) => {
                self.encoded_array(key, array.element_type(), array.len() as u64, array.encoded())
            }
            value => self.value(key, value),
        }
    }

    /// Adds an array of values that are all of `element_type` and no arrays.
    pub fn array<'v>(
        &mut self,
        key: &str,
        element_type: ValueType,
        values: impl IntoIterator<Item = Value<'v>>,
    ) -> &mut Writer {
        let mut encoded = Vec::new();
        let count = values.into_iter().map(|value| encode(&mut encoded, value)).count();
        self.encoded_array(key, element_type, count as u64, &encoded)
    }

    pub fn texts(&mut self, key: &str, texts: &[&str]) -> &mut Writer {
        self.array(key, ValueType::String, texts.iter().map(|text| Value::String(text)))
    }

    /// Adds an array whose elements are encoded already.
    pub fn encoded_array(
        &mut self,
        key: &str,
        element_type: ValueType,
        count: u64,
        elements: &[u8],
    ) -> &mut Writer {
        self.key(key, ValueType::Array);
        self.metadata.extend((element_type as u32).to_le_bytes());
        self.metadata.extend(count.to_le_bytes());
        self.metadata.extend(elements);
        self
    }

    /// Adds a tensor; `shape` has the outermost dimension first.
    pub fn tensor(
        &mut self,
        name: &str,
        element_type: ElementType,
        shape: &[usize],
        bytes: &[u8],
    ) -> &mut Writer {
        let start = self.announce(name, element_type, shape, bytes.len());
        self.data.resize(start, 0);
        self.data.extend(bytes);
        self
    }

    /// Says that a tensor of `bytes` bytes is there, and gives the place of its first among the tensors' bytes, which
    /// follow [`Writer::header`]; zeros lie between them.
    pub fn announce(
        &mut self,
        name: &str,
        element_type: ElementType,
        shape: &[usize],
        bytes: usize,
    ) -> usize {
        let start = self.data_bytes.next_multiple_of(self.alignment);
        put_text(&mut self.tensors, name);
        self.tensors.extend((shape.len() as u32).to_le_bytes());
        for dimension in shape.iter().rev() {
            self.tensors.extend((*dimension as u64).to_le_bytes());
        }
        self.tensors.extend(type_id(element_type).to_le_bytes());
        self.tensors.extend((start as u64).to_le_bytes());
        self.tensor_count += 1;
        self.data_bytes = start + bytes;
        start
    }

    /// All that comes before the tensors' bytes.
    pub fn header(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.metadata_count.to_le_bytes());
        file.extend(&self.metadata);
        file.extend(&self.tensors);
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file
    }

    /// The file, of tensors with their bytes.
    pub fn finish(&self) -> Vec<u8> {
        let mut file = self.header();
        file.extend(&self.data);
        file
    }

    fn key(&mut self, key: &str, value_type: ValueType) {
        put_text(&mut self.metadata, key);
        self.metadata.extend((value_type as u32).to_le_bytes());
        self.metadata_count += 1;
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn encode(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::U8(n) => out.push(n),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::Bool(value) => out.push(value.into()),
        Value::String(text) => put_text(out, text),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Array(_) => panic!("arrays are written with Writer::array"),
    }
}
