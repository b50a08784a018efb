//! Metadata values, borrowed from the file. Arrays stay encoded and are decoded while they are walked over.

use super::cursor::Cursor;
use super::malformed;
use crate::error::FormatError;

/// Elements that one array may have; vocabularies and merges have up to about a million.
pub const ARRAY_ELEMENTS_MAX: u64 = 1 << 24;
/// Arrays within arrays; published files have none.
pub const ARRAY_DEPTH_MAX: usize = 4;

/// The type of a value. Source: the GGUF specification, `gguf_metadata_value_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    fn from_id(id: u32) -> Option<ValueType> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
            .into_iter()
            .find(|ty| *ty as u32 == id)
    }

    /// Bytes that a value of this type takes at least.
    fn bytes_min(self) -> usize {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => 1,
            U16 | I16 => 2,
            U32 | I32 | F32 => 4,
            U64 | I64 | F64 | String => 8,
            Array => 12,
        }
    }
}

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The value of any integer type.
    pub fn integer(&self) -> Option<i128> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::I8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::I16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::I32(n) => Some(n.into()),
            Value::U64(n) => Some(n.into()),
            Value::I64(n) => Some(n.into()),
            _ => None,
        }
    }

    /// The value of either float type.
    pub fn float(&self) -> Option<f32> {
        match *self {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&'a str> {
        match *self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match *self {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn array(&self) -> Option<Array<'a>> {
        match *self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// For messages: short, whatever the file holds.
    pub fn describe(&self) -> String {
        match self {
            Value::String(text) => {
                let short: String = text.chars().take(40).collect();
                format!("the text {short:?}")
            }
            Value::Array(array) => format!("an array of {} {:?}", array.count, array.element_type),
            Value::Bool(value) => value.to_string(),
            Value::F32(x) => x.to_string(),
            Value::F64(x) => x.to_string(),
            number => number.integer().unwrap_or_default().to_string(),
        }
    }
}

/// An array in the file, checked to be well formed to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    element_type: ValueType,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn element_type(&self) -> ValueType {
        self.element_type
    }

    /// The elements as in the file, for whoever copies them.
    pub fn encoded(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.bytes);
        let element_type = self.element_type;
        // Reading the file has walked over all elements already, so none of them fails here.
        (0..self.count).map_while(move |_| read(&mut cursor, element_type, "an element", 0).ok())
    }
}

/// Reads a type and a value of it.
pub(super) fn read_typed<'a>(cursor: &mut Cursor<'a>, key: &str) -> Result<Value<'a>, FormatError> {
    let value_type = read_type(cursor, key)?;
    read(cursor, value_type, key, 0)
}

fn read_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, FormatError> {
    let id = cursor.u32(key)?;
    ValueType::from_id(id).ok_or_else(|| malformed(format!("{key} has the unknown value type {id}")))
}

fn read<'a>(
    cursor: &mut Cursor<'a>,
    value_type: ValueType,
    key: &str,
    depth: usize,
) -> Result<Value<'a>, FormatError> {
    Ok(match value_type {
        ValueType::U8 => Value::U8(cursor.u8(key)?),
        ValueType::I8 => Value::I8(cursor.u8(key)? as i8),
        ValueType::U16 => Value::U16(cursor.u16(key)?),
        ValueType::I16 => Value::I16(cursor.u16(key)? as i16),
        ValueType::U32 => Value::U32(cursor.u32(key)?),
        ValueType::I32 => Value::I32(cursor.u32(key)? as i32),
        ValueType::F32 => Value::F32(f32::from_bits(cursor.u32(key)?)),
        ValueType::U64 => Value::U64(cursor.u64(key)?),
        ValueType::I64 => Value::I64(cursor.u64(key)? as i64),
        ValueType::F64 => Value::F64(f64::from_bits(cursor.u64(key)?)),
        ValueType::Bool => match cursor.u8(key)? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return Err(malformed(format!("{key} is a boolean of value {other}; expected 0 or 1"))),
        },
        ValueType::String => Value::String(cursor.string(key)?),
        ValueType::Array => Value::Array(read_array(cursor, key, depth + 1)?),
    })
}

fn read_array<'a>(cursor: &mut Cursor<'a>, key: &str, depth: usize) -> Result<Array<'a>, FormatError> {
    if depth > ARRAY_DEPTH_MAX {
        return Err(FormatError::TooLarge {
            format: "GGUF",
            what: format!("the nesting of arrays in {key}"),
            found: depth as u64,
            limit: ARRAY_DEPTH_MAX as u64,
        });
    }
    let element_type = read_type(cursor, key)?;
    let count = cursor.count(key, ARRAY_ELEMENTS_MAX, element_type.bytes_min())?;
    let start = cursor.position();
    match element_type {
        ValueType::String | ValueType::Array | ValueType::Bool => {
            for _ in 0..count {
                read(cursor, element_type, key, depth)?;
            }
        }
        // `count` has checked that they fit, so the product does not overflow.
        fixed => drop(cursor.take(count * fixed.bytes_min(), key)?),
    }
    Ok(Array { element_type, count, bytes: cursor.since(start) })
}
