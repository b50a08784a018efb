//! Tensors as callers hold them: a shape, and elements in row-major order in one of the runtime's types.

use formats::onnx::ElementType;
use rten::Value;

/// The runtime's own element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    Float,
    Int32,
    Int8,
    Uint8,
}

impl Storage {
    /// What holds elements that a model declares as `element`.
    pub fn of(element: ElementType) -> Storage {
        match element {
            ElementType::Float | ElementType::Float16 | ElementType::Double => Storage::Float,
            ElementType::Int32 | ElementType::Int64 | ElementType::Bool => Storage::Int32,
            ElementType::Int8 => Storage::Int8,
            ElementType::Uint8 => Storage::Uint8,
        }
    }
}

/// Elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    Float(Vec<f32>),
    Int32(Vec<i32>),
    Int8(Vec<i8>),
    Uint8(Vec<u8>),
}

impl Elements {
    pub fn new(storage: Storage) -> Elements {
        match storage {
            Storage::Float => Elements::Float(Vec::new()),
            Storage::Int32 => Elements::Int32(Vec::new()),
            Storage::Int8 => Elements::Int8(Vec::new()),
            Storage::Uint8 => Elements::Uint8(Vec::new()),
        }
    }

    pub fn storage(&self) -> Storage {
        match self {
            Elements::Float(_) => Storage::Float,
            Elements::Int32(_) => Storage::Int32,
            Elements::Int8(_) => Storage::Int8,
            Elements::Uint8(_) => Storage::Uint8,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Elements::Float(values) => values.len(),
            Elements::Int32(values) => values.len(),
            Elements::Int8(values) => values.len(),
            Elements::Uint8(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends elements of the same type; others are no elements of this.
    pub(super) fn append(&mut self, more: &Elements) {
        match (self, more) {
            (Elements::Float(values), Elements::Float(more)) => values.extend_from_slice(more),
            (Elements::Int32(values), Elements::Int32(more)) => values.extend_from_slice(more),
            (Elements::Int8(values), Elements::Int8(more)) => values.extend_from_slice(more),
            (Elements::Uint8(values), Elements::Uint8(more)) => values.extend_from_slice(more),
            (values, more) => debug_assert_eq!(values.storage(), more.storage()),
        }
    }

    pub(super) fn part(&self, range: std::ops::Range<usize>) -> Elements {
        match self {
            Elements::Float(values) => Elements::Float(values[range].to_vec()),
            Elements::Int32(values) => Elements::Int32(values[range].to_vec()),
            Elements::Int8(values) => Elements::Int8(values[range].to_vec()),
            Elements::Uint8(values) => Elements::Uint8(values[range].to_vec()),
        }
    }
}

/// A shape, outermost dimension first, and as many elements as it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub elements: Elements,
}

impl Tensor {
    pub fn float(shape: &[usize], values: Vec<f32>) -> Tensor {
        Tensor { shape: shape.to_vec(), elements: Elements::Float(values) }
    }

    pub fn int32(shape: &[usize], values: Vec<i32>) -> Tensor {
        Tensor { shape: shape.to_vec(), elements: Elements::Int32(values) }
    }

    /// Elements that `shape` asks for; `None` where they can't be counted.
    pub fn elements_of(shape: &[usize]) -> Option<usize> {
        shape.iter().try_fold(1usize, |product, length| product.checked_mul(*length))
    }

    /// `None` where shape and elements don't agree.
    pub(super) fn into_value(self) -> Option<Value> {
        let shape = &self.shape;
        match self.elements {
            Elements::Float(values) => Value::from_shape(shape, values).ok(),
            Elements::Int32(values) => Value::from_shape(shape, values).ok(),
            Elements::Int8(values) => Value::from_shape(shape, values).ok(),
            Elements::Uint8(values) => Value::from_shape(shape, values).ok(),
        }
    }

    /// `None` where it is no tensor.
    pub(super) fn from_value(value: Value) -> Option<Tensor> {
        use rten_tensor::Layout;
        macro_rules! tensor {
            ($tensor:ident, $kind:ident) => {
                Some(Tensor {
                    shape: $tensor.shape().to_vec(),
                    elements: Elements::$kind($tensor.into_data()),
                })
            };
        }
        match value {
            Value::FloatTensor(tensor) => tensor!(tensor, Float),
            Value::Int32Tensor(tensor) => tensor!(tensor, Int32),
            Value::Int8Tensor(tensor) => tensor!(tensor, Int8),
            Value::UInt8Tensor(tensor) => tensor!(tensor, Uint8),
            _ => None,
        }
    }
}
