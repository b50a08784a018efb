//! CSV files with a line of names at the top.

use std::io::Read;
use std::path::Path;

use super::{Column, Columns, Places, VALUES_MAX, Values, Wanted};
use crate::definition::nearest;
use crate::error::{Result, TrainError};

/// Reads the columns of the file.
///
/// # Errors
/// When a row has another number of values than the first line, or a value that should be a number isn't; the error says
/// the line.
pub(super) fn read(path: &Path, delimiter: char, wanted: &Wanted) -> Result<Columns> {
    let file = path.display().to_string();
    let delimiter = u8::try_from(delimiter)
        .map_err(|_| TrainError::data("[data]", format!("delimiter is one byte; received {delimiter:?}")))?;
    let plain = open(path).map_err(|error| TrainError::file(path, "read", &error))?;
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(plain);
    let broken = |error: csv::Error| said(path, &error);
    let header: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_owned).collect();
    let chosen = Chosen::new(&file, &header, wanted)?;
    let mut x: Vec<Vec<f32>> = vec![vec![]; chosen.x.len()];
    let mut y: Vec<Vec<String>> = vec![vec![]; chosen.y.len()];
    let mut weights = vec![];
    let mut starts = vec![];
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(broken)? {
        let start = record.position().map_or(0, csv::Position::byte);
        let number = |column: usize| {
            let text = record.get(column).unwrap_or_default();
            text.parse::<f32>().map_err(|_| {
                let name = &header[column];
                let problem = format!("column {name} has {text:?}, and a number was expected");
                TrainError::data(format!("{file}, line {}", line_at(path, start)), problem)
            })
        };
        for (columns, values) in chosen.x.iter().zip(&mut x) {
            for &column in columns {
                values.push(number(column)?);
            }
        }
        for (columns, values) in chosen.y.iter().zip(&mut y) {
            values.extend(columns.iter().map(|&column| record.get(column).unwrap_or_default().to_owned()));
        }
        if let Some(column) = chosen.weights {
            weights.push(number(column)?);
        }
        starts.push(start);
        if starts.len().saturating_mul(header.len()) > VALUES_MAX {
            return Err(TrainError::data(file, format!("it has more than {VALUES_MAX} values")));
        }
    }
    let x = x
        .into_iter()
        .zip(&chosen.x)
        .map(|(values, columns)| Column { shape: vec![columns.len()], values: Values::Numbers(values) });
    let x = x.collect();
    let samples = starts.len();
    let places = Places::Rows(path.to_path_buf(), starts);
    let mut targets = vec![];
    for (texts, columns) in y.into_iter().zip(&chosen.y) {
        targets.push(target(&places, texts, columns, &header)?);
    }
    let weights = chosen.weights.map(|_| weights);
    Ok(Columns { x, y: targets, weights, samples, places })
}

/// A column is numbers, if each of its values is one, and otherwise names of classes.
fn target(places: &Places, texts: Vec<String>, columns: &[usize], header: &[String]) -> Result<Column> {
    let place = |at: usize| places.of(at / columns.len().max(1));
    let column = |at: usize| &header[columns[at % columns.len().max(1)]];
    if let Some(at) = texts.iter().position(|text| text.is_empty()) {
        return Err(TrainError::data(place(at), format!("column {} has no value", column(at))));
    }
    let numbers: Vec<Option<f32>> = texts.iter().map(|text| text.parse().ok()).collect();
    match numbers.iter().position(Option::is_none) {
        None => {
            let values = Values::Numbers(numbers.into_iter().flatten().collect());
            Ok(Column { shape: if columns.len() == 1 { vec![] } else { vec![columns.len()] }, values })
        }
        Some(_) if columns.len() == 1 => Ok(Column { shape: vec![], values: Values::Names(texts) }),
        Some(at) => {
            let problem = format!("column {} has {:?}, and a number was expected", column(at), texts[at]);
            Err(TrainError::data(place(at), problem))
        }
    }
}

struct Chosen {
    x: Vec<Vec<usize>>,
    y: Vec<Vec<usize>>,
    weights: Option<usize>,
}

impl Chosen {
    fn new(file: &str, header: &[String], wanted: &Wanted) -> Result<Chosen> {
        let column = |name: &String| {
            header.iter().position(|other| other == name).ok_or_else(|| {
                let tip = nearest(name, header.iter().map(String::as_str));
                let shown: Vec<&str> = header.iter().take(30).map(String::as_str).collect();
                let more = if header.len() > shown.len() { ", ..." } else { "" };
                let problem =
                    format!("there is no column {name}{tip}; there are: {}{more}", shown.join(", "));
                TrainError::data(format!("{file}, line 1"), problem)
            })
        };
        let all = |groups: &[Vec<String>]| -> Result<Vec<Vec<usize>>> {
            groups.iter().map(|names| names.iter().map(column).collect()).collect()
        };
        let y = all(&wanted.y)?;
        let weights = wanted.weights.as_ref().map(column).transpose()?;
        let x = match &wanted.x {
            Some(x) => all(x)?,
            None => {
                let taken = |column: &usize| y.iter().flatten().chain(&weights).any(|other| other == column);
                vec![(0..header.len()).filter(|column| !taken(column)).collect()]
            }
        };
        Ok(Chosen { x, y, weights })
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let opened = std::fs::File::open(path)?;
    Ok(match path.extension() {
        Some(ending) if ending == "gz" => Box::new(flate2::read::GzDecoder::new(opened)),
        _ => Box::new(opened),
    })
}

/// The line of the row that begins at `start`, from 1. Empty lines before it count there as part of it, and the library
/// doesn't count them; so the file is gone through again, where something is wrong.
pub(super) fn line_at(path: &Path, start: u64) -> u64 {
    let Ok(opened) = open(path) else { return 0 };
    let mut line = 1;
    for (at, byte) in std::io::BufReader::new(opened).bytes().enumerate() {
        match byte {
            Ok(b'\n') => line += 1,
            Ok(b'\r') => {}
            Ok(_) if (at as u64) < start => {}
            _ => break,
        }
    }
    line
}

/// The library's error with the file and the line.
fn said(path: &Path, error: &csv::Error) -> TrainError {
    let file = path.display();
    let place = |position: &Option<csv::Position>| {
        format!("{file}, line {}", position.as_ref().map_or(0, |position| line_at(path, position.byte())))
    };
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => TrainError::data(
            place(pos),
            format!("the row has {len} values, and the first line names {expected_len} columns"),
        ),
        csv::ErrorKind::Utf8 { pos, .. } => TrainError::data(place(pos), "it isn't UTF-8"),
        _ => TrainError::data(file.to_string(), error.to_string()),
    }
}
