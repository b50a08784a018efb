//! Numbers of JSON as elements of tensors.

use engine::onnx::ElementType;

use super::json::{JsonError, Reader};

/// Largest number that `float16` has.
const FLOAT16_MAX: f32 = 65504.0;

impl Reader<'_> {
    /// A number as a float; also `NaN`, `Infinity` and `-Infinity`, which Python's JSON and both protocols' servers write.
    pub(super) fn float(&mut self, element: ElementType) -> Result<f32, JsonError> {
        let token = self.token();
        let is_number = match token {
            [b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..] => true,
            b"NaN" => return Ok(f32::NAN),
            b"Infinity" => return Ok(f32::INFINITY),
            b"-Infinity" => return Ok(f32::NEG_INFINITY),
            _ => false,
        };
        let text = std::str::from_utf8(token).ok().filter(|_| is_number);
        let value = text.and_then(|text| text.parse::<f32>().ok());
        let limit = if element == ElementType::Float16 { FLOAT16_MAX } else { f32::MAX };
        match value {
            Some(value) if value.abs() <= limit => Ok(value),
            Some(_) => {
                self.back(token.len());
                Err(self.expected(&format!(
                    "a number of at most {limit:e}, which is all that is computed with here"
                )))
            }
            None => {
                self.back(token.len());
                Err(self.expected("a number"))
            }
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn integer(&mut self, min: i32, max: i32) -> Result<i32, JsonError> {
        let token = self.token();
        if let [b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..] = token
            && let Some(value) = std::str::from_utf8(token).ok().and_then(|text| text.parse::<i64>().ok())
            && let Ok(value) = i32::try_from(value)
            && (min..=max).contains(&value)
        {
            return Ok(value);
        }
        self.back(token.len());
        Err(self.expected(&format!("a whole number from {min} to {max}")))
    }

    /// `true`, `false`, 1 or 0.
    pub(super) fn boolean(&mut self) -> Result<i32, JsonError> {
        let token = self.token();
        match token {
            b"true" | b"1" => Ok(1),
            b"false" | b"0" => Ok(0),
            _ => {
                self.back(token.len());
                Err(self.expected("true or false"))
            }
        }
    }
}
