//! JSON lines: an object a line.

use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::{BLOCK_VALUES, Column, Columns, Each, Places, Values, Wanted};
use crate::definition::nearest;
use crate::error::{Result, TrainError};

/// Bytes of a line.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// Reads the keys of each line: a number, arrays of numbers, or the name of a class.
///
/// # Errors
/// When a line is no object, lacks a key, or has another shape than the first; the error says the line.
pub(super) fn read(path: &Path, wanted: &Wanted, each: Each<'_>) -> Result<()> {
    let file = path.display().to_string();
    let failed = |error: std::io::Error| TrainError::file(path, "read", &error);
    let mut lines = std::io::BufReader::new(crate::files::open(path).map_err(failed)?);
    let Some(x) = &wanted.x else {
        return Err(TrainError::data("[data]", "JSON lines need `x`, the key or keys of the input"));
    };
    let weights: Vec<Vec<String>> = wanted.weights.iter().map(|name| vec![name.clone()]).collect();
    let groups: Vec<&Vec<String>> = x.iter().chain(&wanted.y).chain(&weights).collect();
    let mut columns: Vec<Option<Column>> = groups.iter().map(|_| None).collect();
    let mut numbers = vec![];
    let mut text = String::new();
    let (mut values_len, mut is_empty) = (0, true);
    for number in 1.. {
        text.clear();
        let place = || format!("{file}, line {number}");
        let limited = &mut (&mut lines).take(LINE_BYTES_MAX);
        let read = limited.read_line(&mut text).map_err(failed)?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_BYTES_MAX {
            return Err(TrainError::data(place(), format!("the line has {LINE_BYTES_MAX} bytes or more")));
        }
        if text.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| TrainError::data(place(), error.to_string()))?;
        for (names, column) in groups.iter().zip(&mut columns) {
            values_len +=
                add(&object, names, column).map_err(|problem| TrainError::data(place(), problem))?;
        }
        numbers.push(number);
        is_empty = false;
        if values_len >= BLOCK_VALUES {
            values_len = 0;
            each(block(&file, x.len(), &mut columns, std::mem::take(&mut numbers), !weights.is_empty())?)?;
        }
    }
    if is_empty {
        return Err(TrainError::data(file, "there are no samples"));
    }
    match numbers.is_empty() {
        true => Ok(()),
        false => each(block(&file, x.len(), &mut columns, numbers, !weights.is_empty())?),
    }
}

/// Takes what lines have had so far out of `columns`, which keep their shapes.
fn block(
    file: &str,
    inputs: usize,
    columns: &mut [Option<Column>],
    numbers: Vec<u64>,
    weighted: bool,
) -> Result<Columns> {
    let taken = columns.iter_mut().flatten().map(|column| {
        let none = if matches!(column.values, Values::Numbers(_)) {
            Values::Numbers(vec![])
        } else {
            Values::Names(vec![])
        };
        Column { shape: column.shape.clone(), values: std::mem::replace(&mut column.values, none) }
    });
    let mut taken: Vec<Column> = taken.collect();
    let weights = match weighted {
        false => None,
        true => match taken.pop().map(|column| column.values) {
            Some(Values::Numbers(values)) if values.len() == numbers.len() => Some(values),
            _ => return Err(TrainError::data(file, "weights are one number a line")),
        },
    };
    let y = taken.split_off(inputs);
    Ok(Columns {
        x: taken,
        y,
        weights,
        samples: numbers.len(),
        places: Places::Lines(file.to_owned(), numbers),
    })
}

/// Adds a line's values of a group of keys; how many.
fn add(
    object: &Map<String, Value>,
    names: &[String],
    column: &mut Option<Column>,
) -> std::result::Result<usize, String> {
    let mut values = vec![];
    let mut shape = vec![];
    for name in names {
        let value = object.get(name).ok_or_else(|| {
            let tip = nearest(name, object.keys().map(String::as_str));
            format!("there is no key {name}{tip}")
        })?;
        if let (Value::String(class), 1) = (value, names.len()) {
            return match column.get_or_insert(Column { shape: vec![], values: Values::Names(vec![]) }) {
                Column { values: Values::Names(classes), .. } => {
                    classes.push(class.clone());
                    Ok(1)
                }
                _ => Err(format!("key {name} has a text, and a number in lines before")),
            };
        }
        shape = flatten(value, &mut values, 0).map_err(|problem| format!("key {name}: {problem}"))?;
        if names.len() > 1 && !shape.is_empty() {
            return Err(format!(
                "key {name} has an array; where several keys are the input, each is a number"
            ));
        }
    }
    if names.len() > 1 {
        shape = vec![names.len()];
    }
    let first = Column { shape: shape.clone(), values: Values::Numbers(vec![]) };
    match column.get_or_insert(first) {
        Column { shape: expected, .. } if *expected != shape => {
            Err(format!("{} has the shape {shape:?}, and {expected:?} in lines before", names.join(", ")))
        }
        Column { values: Values::Numbers(all), .. } => {
            all.extend_from_slice(&values);
            Ok(values.len())
        }
        _ => Err(format!("{} has a number, and a text in lines before", names.join(", "))),
    }
}

/// Appends the numbers of nested arrays; their shape.
fn flatten(value: &Value, to: &mut Vec<f32>, depth: usize) -> std::result::Result<Vec<usize>, String> {
    match value {
        Value::Number(number) => {
            to.push(number.as_f64().unwrap_or(f64::NAN) as f32);
            Ok(vec![])
        }
        Value::Bool(yes) => {
            to.push(f32::from(*yes));
            Ok(vec![])
        }
        Value::Array(parts) if depth < super::DIMENSIONS_MAX => {
            let mut inner: Option<Vec<usize>> = None;
            for part in parts {
                let shape = flatten(part, to, depth + 1)?;
                match &inner {
                    Some(expected) if *expected != shape => {
                        return Err(format!("its arrays have the shapes {expected:?} and {shape:?}"));
                    }
                    _ => inner = Some(shape),
                }
            }
            Ok([vec![parts.len()], inner.unwrap_or_default()].concat())
        }
        other => Err(format!("a number or arrays of numbers were expected; received {other}")),
    }
}
