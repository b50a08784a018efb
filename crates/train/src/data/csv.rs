//! CSV files with a line of names at the top.

use std::io::Read;
use std::path::Path;

use super::chosen::{Chosen, no_column};
use super::{BLOCK_VALUES, Column, Columns, Each, Places, Values, Wanted};
use crate::error::{Result, TrainError};

/// Reads the columns of the file.
///
/// # Errors
/// When a row has another number of values than the first line, or a value that should be a number isn't; the error says
/// the line.
pub(super) fn read(path: &Path, delimiter: char, wanted: &Wanted, each: Each<'_>) -> Result<()> {
    let file = path.display().to_string();
    let delimiter = u8::try_from(delimiter)
        .map_err(|_| TrainError::data("[data]", format!("delimiter is one byte; received {delimiter:?}")))?;
    let plain = open(path).map_err(|error| TrainError::file(path, "read", &error))?;
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(plain);
    let broken = |error: csv::Error| said(path, &error);
    let header: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_owned).collect();
    let chosen = chosen(&file, &header, wanted)?;
    let mut block = chosen.block(path, &header);
    let mut is_first = true;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(broken)? {
        chosen.add(path, &header, &record, &mut block)?;
        if block.samples.saturating_mul(header.len()) >= BLOCK_VALUES {
            each(std::mem::replace(&mut block, chosen.block(path, &header)))?;
            is_first = false;
        }
    }
    if is_first || block.samples > 0 { each(block) } else { Ok(()) }
}

fn chosen(file: &str, header: &[String], wanted: &Wanted) -> Result<Chosen> {
    Chosen::new(wanted, header.len(), |name| {
        let found = header.iter().position(|other| other == name);
        found.ok_or_else(|| no_column(format!("{file}, line 1"), name, header))
    })
}

impl Chosen {
    /// No rows yet. A target is numbers, if each of its values is one, and otherwise names of classes.
    fn block(&self, path: &Path, header: &[String]) -> Columns {
        let of_x =
            |columns: &Vec<usize>| Column { shape: vec![columns.len()], values: Values::Numbers(vec![]) };
        let of_y = |columns: &Vec<usize>| {
            let names = columns.iter().map(|&column| header[column].clone()).collect();
            let shape = if columns.len() == 1 { vec![] } else { vec![columns.len()] };
            Column { shape, values: Values::Texts { texts: vec![], columns: names } }
        };
        Columns {
            x: self.x.iter().map(of_x).collect(),
            y: self.y.iter().map(of_y).collect(),
            weights: self.weights.map(|_| vec![]),
            samples: 0,
            places: Places::Rows(path.to_path_buf(), vec![]),
        }
    }

    fn add(
        &self,
        path: &Path,
        header: &[String],
        record: &csv::StringRecord,
        to: &mut Columns,
    ) -> Result<()> {
        let start = record.position().map_or(0, csv::Position::byte);
        let wrong = |problem: String| {
            TrainError::data(format!("{}, line {}", path.display(), line_at(path, start)), problem)
        };
        let number = |column: usize| {
            let text = record.get(column).unwrap_or_default();
            text.parse::<f32>().map_err(|_| {
                wrong(format!("column {} has {text:?}, and a number was expected", header[column]))
            })
        };
        for (columns, to) in self.x.iter().zip(&mut to.x) {
            let Values::Numbers(values) = &mut to.values else { continue };
            for &column in columns {
                values.push(number(column)?);
            }
        }
        for (columns, to) in self.y.iter().zip(&mut to.y) {
            let Values::Texts { texts, .. } = &mut to.values else { continue };
            for &column in columns {
                match record.get(column).unwrap_or_default() {
                    "" => return Err(wrong(format!("column {} has no value", header[column]))),
                    text => texts.push(text.to_owned()),
                }
            }
        }
        if let (Some(column), Some(weights)) = (self.weights, &mut to.weights) {
            weights.push(number(column)?);
        }
        if let Places::Rows(_, starts) = &mut to.places {
            starts.push(start);
        }
        to.samples += 1;
        Ok(())
    }
}

fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let opened = crate::files::open(path)?;
    Ok(match path.extension() {
        Some(ending) if ending == "gz" => Box::new(flate2::read::MultiGzDecoder::new(opened)),
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
