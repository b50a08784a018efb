//! Arrays inside arrays as the elements of one tensor, and the shape that they have.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::onnx::{ElementType, Elements, Storage};

use super::json::{JsonError, Reader};

/// Arrays inside each other: the runtime's own limit is far above.
const DIMENSIONS_MAX: usize = 16;
const MIXED: &str = "numbers and arrays stand beside each other";

/// Appends the next value, a number or arrays of numbers as deep as may be, and returns its shape. Bytes may be written
/// as `{"b64": "..."}`, which counts as an array of them.
///
/// # Errors
/// Where arrays of the same depth have different lengths, or a number isn't one of `element`.
pub fn append(
    reader: &mut Reader,
    element: ElementType,
    elements: &mut Elements,
) -> Result<Vec<usize>, JsonError> {
    match elements {
        Elements::Float(values) => nested(reader, values, |reader| reader.float(element), None),
        Elements::Int32(values) if element == ElementType::Bool => {
            nested(reader, values, |reader| reader.boolean(), None)
        }
        Elements::Int32(values) => nested(reader, values, |reader| reader.integer(i32::MIN, i32::MAX), None),
        Elements::Int8(values) => {
            nested(reader, values, |reader| reader.integer(-128, 127).map(|v| v as i8), None)
        }
        Elements::Uint8(values) => {
            let read = |reader: &mut Reader| reader.integer(0, 255).map(|value| value as u8);
            nested(reader, values, read, Some(|byte| byte))
        }
    }
}

/// Elements of `element`, none yet.
pub fn empty(element: ElementType) -> Elements {
    Elements::new(Storage::of(element))
}

/// `from_byte` is there where bytes may come as base64.
fn nested<T>(
    reader: &mut Reader,
    values: &mut Vec<T>,
    mut read: impl FnMut(&mut Reader) -> Result<T, JsonError>,
    from_byte: Option<fn(u8) -> T>,
) -> Result<Vec<usize>, JsonError> {
    // Of the arrays that are open, outermost first, the items so far; and the length of the last one of each depth.
    let mut open: Vec<usize> = Vec::with_capacity(4);
    let mut lengths: Vec<Option<usize>> = Vec::with_capacity(4);
    let mut depth_of_numbers: Option<usize> = None;
    loop {
        match reader.peek() {
            Some(b'[') => {
                reader.take(b'[');
                if open.len() == DIMENSIONS_MAX {
                    return Err(reader.error(format!("a tensor has more than {DIMENSIONS_MAX} dimensions")));
                }
                if depth_of_numbers == Some(open.len()) {
                    return Err(reader.error(MIXED.to_owned()));
                }
                open.push(0);
                if lengths.len() < open.len() {
                    lengths.push(None);
                }
                if !reader.take(b']') {
                    continue;
                }
                close(reader, &mut open, &mut lengths)?;
            }
            Some(b'{') => {
                let from_byte = from_byte.ok_or_else(|| reader.expected("a number"))?;
                let bytes = base64(reader)?;
                open.push(bytes.len());
                if lengths.len() < open.len() {
                    lengths.push(None);
                }
                if *depth_of_numbers.get_or_insert(open.len()) != open.len() || lengths.len() != open.len() {
                    return Err(reader.error(MIXED.to_owned()));
                }
                values.extend(bytes.into_iter().map(from_byte));
                close(reader, &mut open, &mut lengths)?;
            }
            _ => {
                if *depth_of_numbers.get_or_insert(open.len()) != open.len() || lengths.len() != open.len() {
                    return Err(reader.error(MIXED.to_owned()));
                }
                values.push(read(reader)?);
            }
        }
        // A value has ended; so do the arrays that it is the last item of.
        loop {
            let Some(items) = open.last_mut() else {
                return Ok(lengths.into_iter().map(Option::unwrap_or_default).collect());
            };
            *items += 1;
            if reader.take(b',') {
                break;
            }
            reader.demand(b']', "a comma or the end of the array")?;
            close(reader, &mut open, &mut lengths)?;
        }
    }
}

/// Ends the innermost array, which must be as long as those beside it.
fn close(reader: &Reader, open: &mut Vec<usize>, lengths: &mut [Option<usize>]) -> Result<(), JsonError> {
    let Some(found) = open.pop() else { return Ok(()) };
    let depth = open.len();
    let expected = *lengths[depth].get_or_insert(found);
    if expected == found {
        return Ok(());
    }
    let problem = format!("arrays beside each other have {expected} and {found} items");
    Err(reader.error(problem))
}

fn base64(reader: &mut Reader) -> Result<Vec<u8>, JsonError> {
    let before = reader.clone();
    let mut bytes = None;
    reader.object(|reader, key| {
        if key != "b64" {
            return Err(before.expected("a number, or {\"b64\": \"...\"}"));
        }
        let text = reader.string()?;
        bytes = Some(
            BASE64_STANDARD
                .decode(text.as_bytes())
                .map_err(|error| before.error(format!("\"b64\" is not base64: {error}")))?,
        );
        Ok(())
    })?;
    bytes.ok_or_else(|| before.expected("a number, or {\"b64\": \"...\"}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(element: ElementType, json: &str, expected: &str) {
        let mut elements = empty(element);
        let outcome = append(&mut Reader::new(json.as_bytes()), element, &mut elements);
        let outcome = outcome.map_or_else(|error| error.problem, |shape| format!("{shape:?} {elements:?}"));
        assert_eq!(outcome, expected, "{json}");
    }

    #[test]
    fn the_shape_is_that_of_the_arrays() {
        let float = ElementType::Float;
        check(float, "[[1, 2.5], [ -3e2,4 ],[0,1e-3]]", "[3, 2] Float([1.0, 2.5, -300.0, 4.0, 0.0, 0.001])");
        check(float, "7", "[] Float([7.0])");
        check(float, "[]", "[0] Float([])");
        check(float, "[[],[]]", "[2, 0] Float([])");
        check(float, "[[[1]]]", "[1, 1, 1] Float([1.0])");
        check(float, "[NaN, -Infinity]", "[2] Float([NaN, -inf])");
        check(ElementType::Bool, "[true, 0]", "[2] Int32([1, 0])");
        check(ElementType::Uint8, "[[0, 255]]", "[1, 2] Uint8([0, 255])");
        check(
            ElementType::Uint8,
            r#"[{"b64": "AQL/"}, {"b64": "AAAA"}]"#,
            "[2, 3] Uint8([1, 2, 255, 0, 0, 0])",
        );
        check(ElementType::Uint8, r#"{"b64": "AQI="}"#, "[2] Uint8([1, 2])");
    }

    #[test]
    fn uneven_arrays_and_other_values_are_refused() {
        let float = ElementType::Float;
        check(float, "[[1, 2], [3]]", "arrays beside each other have 2 and 1 items");
        check(float, "[1, [2]]", MIXED);
        check(float, "[[1], 2]", MIXED);
        check(float, "[[], 2]", MIXED);
        check(float, "[1, \"2\"]", "expected a number, received \"\\\"2\\\"]\"");
        check(float, "[1, nan]", "expected a number, received \"nan]\"");
        check(float, "[1,]", "expected a number, received \"]\"");
        check(float, "[1", "expected a comma or the end of the array, received the end");
        check(float, "[{\"b64\": \"\"}]", "expected a number, received \"{\\\"b64\\\": \\\"\\\"}]\"");
        let beyond = "expected a number of at most 3.4028235e38, which is all that is computed with here, received \"1e39\"";
        check(float, "1e39", beyond);
        check(
            ElementType::Int64,
            "4294967296",
            "expected a whole number from -2147483648 to 2147483647, received \"4294967296\"",
        );
        check(ElementType::Int8, "[128]", "expected a whole number from -128 to 127, received \"128]\"");
        check(
            ElementType::Int32,
            "1.5",
            "expected a whole number from -2147483648 to 2147483647, received \"1.5\"",
        );
        check(float, &"[".repeat(99), "a tensor has more than 16 dimensions");
    }
}
