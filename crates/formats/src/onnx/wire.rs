//! Protobuf as fields in their order (protobuf.dev/programming-guides/encoding): a rewrite changes the fields that it
//! knows, and everything else in somebody's file comes out as it went in.

use prost::bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint};

use crate::error::FormatError;

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Wire {
    Varint(u64),
    Fixed64(u64),
    Bytes(Bytes),
    Fixed32(u32),
}

/// The fields of a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message(pub Vec<(u32, Wire)>);

impl Message {
    /// Reads the fields; parts of `bytes` are shared, not copied.
    ///
    /// # Errors
    /// When a length reaches beyond the message, or a field is of a kind that protobuf 3 doesn't write.
    pub fn parse(mut bytes: Bytes) -> Result<Message, FormatError> {
        let wrong =
            |problem: &str| FormatError::Malformed { format: super::FORMAT, problem: problem.to_owned() };
        let mut fields = vec![];
        while bytes.has_remaining() {
            let key = decode_varint(&mut bytes).map_err(|error| wrong(&error.to_string()))?;
            let number = u32::try_from(key >> 3).map_err(|_| wrong("a field has no number"))?;
            let value = match key & 7 {
                0 => Wire::Varint(decode_varint(&mut bytes).map_err(|error| wrong(&error.to_string()))?),
                1 if bytes.remaining() >= 8 => Wire::Fixed64(bytes.get_u64_le()),
                2 => {
                    let len = decode_varint(&mut bytes).map_err(|error| wrong(&error.to_string()))?;
                    let len = usize::try_from(len).ok().filter(|len| *len <= bytes.remaining());
                    Wire::Bytes(
                        bytes.split_to(len.ok_or_else(|| wrong("a field is longer than its message"))?),
                    )
                }
                5 if bytes.remaining() >= 4 => Wire::Fixed32(bytes.get_u32_le()),
                _ => return Err(wrong("a field is cut, or of no kind that there is")),
            };
            fields.push((number, value));
        }
        Ok(Message(fields))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, value) in &self.0 {
            let key = |kind: u64| (u64::from(*number) << 3) | kind;
            match value {
                Wire::Varint(value) => {
                    encode_varint(key(0), &mut out);
                    encode_varint(*value, &mut out);
                }
                Wire::Fixed64(value) => {
                    encode_varint(key(1), &mut out);
                    out.extend(value.to_le_bytes());
                }
                Wire::Bytes(value) => {
                    encode_varint(key(2), &mut out);
                    encode_varint(value.len() as u64, &mut out);
                    out.extend_from_slice(value);
                }
                Wire::Fixed32(value) => {
                    encode_varint(key(5), &mut out);
                    out.extend(value.to_le_bytes());
                }
            }
        }
        out
    }

    /// Every message or string with this number.
    pub fn all(&self, number: u32) -> impl Iterator<Item = &Bytes> {
        self.0.iter().filter_map(move |field| match field {
            (found, Wire::Bytes(bytes)) if *found == number => Some(bytes),
            _ => None,
        })
    }

    pub fn bytes(&self, number: u32) -> Option<&Bytes> {
        self.all(number).last()
    }

    pub fn strings(&self, number: u32) -> Vec<String> {
        self.all(number).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    pub fn string(&self, number: u32) -> String {
        self.strings(number).pop().unwrap_or_default()
    }

    /// The numbers with this number, packed or not.
    pub fn ints(&self, number: u32) -> Vec<i64> {
        let mut ints = vec![];
        for (_, value) in self.0.iter().filter(|(found, _)| *found == number) {
            match value {
                Wire::Varint(value) => ints.push(*value as i64),
                Wire::Bytes(packed) => {
                    let mut packed = packed.clone();
                    while let Some(value) = Some(&mut packed).filter(|packed| packed.has_remaining()) {
                        match decode_varint(value) {
                            Ok(value) => ints.push(value as i64),
                            Err(_) => break,
                        }
                    }
                }
                _ => {}
            }
        }
        ints
    }

    pub fn int(&self, number: u32) -> Option<i64> {
        self.ints(number).pop()
    }

    /// The same for floats.
    pub fn floats(&self, number: u32) -> Vec<f32> {
        let mut floats = vec![];
        for (_, value) in self.0.iter().filter(|(found, _)| *found == number) {
            match value {
                Wire::Fixed32(bits) => floats.push(f32::from_bits(*bits)),
                Wire::Bytes(packed) => {
                    floats.extend(packed.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)))
                }
                _ => {}
            }
        }
        floats
    }

    pub fn push_bytes(&mut self, number: u32, bytes: impl Into<Bytes>) {
        self.0.push((number, Wire::Bytes(bytes.into())));
    }

    pub fn push_string(&mut self, number: u32, text: &str) {
        self.push_bytes(number, text.as_bytes().to_vec());
    }

    pub fn push_int(&mut self, number: u32, value: i64) {
        self.0.push((number, Wire::Varint(value as u64)));
    }

    /// Takes every field with this number out.
    pub fn remove(&mut self, number: u32) {
        self.0.retain(|(found, _)| *found != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_out_as_it_went_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/onnx");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "onnx") {
                let bytes = std::fs::read(&path).unwrap();
                let message = Message::parse(bytes.clone().into()).unwrap();
                assert_eq!(message.encode(), bytes, "{}", path.display());
                seen += 1;
            }
        }
        assert!(seen > 0, "there are ONNX files in fixtures/onnx");
    }

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        for bytes in [&[0x0a, 0x05, 1][..], &[0x09, 1, 2], &[0x0d, 1], &[0x0b], &[0xff; 11]] {
            assert!(Message::parse(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
