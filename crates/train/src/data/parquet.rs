//! Parquet files: columns of numbers, booleans and texts, and lists of numbers that are as long in each row. One row group
//! is read at a time.

use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{AsBytes, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::chosen::no_column;
use super::{Column, Columns, DIMENSIONS_MAX, Each, Places, VALUES_MAX, Values, Wanted};
use crate::error::{Result, TrainError};

/// Rows that are decoded at once.
const ROWS: usize = 4096;
/// What columns of a row group may take decoded, in bytes.
const GROUP_BYTES_MAX: i64 = 8 << 30;

/// Reads the columns of the file, a block for each row group.
///
/// # Errors
/// When it isn't Parquet or is damaged, a column isn't there or has a type that isn't read, or a row has no value or a
/// list of another length; the error says the row group, the column and the row.
pub(super) fn read(path: &Path, wanted: &Wanted, each: Each<'_>) -> Result<()> {
    let file = path.display().to_string();
    let opened = crate::files::open(path).map_err(|error| TrainError::file(path, "read", &error))?;
    let broken =
        |error: ParquetError| TrainError::data(&file, format!("it can't be read as Parquet: {error}"));
    let reader = guarded(&file, || SerializedFileReader::new(opened).map_err(broken))?;
    let metadata = reader.metadata();
    let chosen = Chosen::new(&file, metadata.file_metadata().schema_descr(), wanted)?;
    check_sizes(&file, metadata)?;
    let mut is_empty = true;
    for group in 0..metadata.num_row_groups() {
        let place = format!("{file}, row group {group}");
        let block = guarded(&place, || {
            let opened =
                reader.get_row_group(group).map_err(|error| TrainError::data(&place, error.to_string()))?;
            chosen.block(&file, &place, &*opened)
        })?;
        is_empty &= block.samples == 0;
        if block.samples > 0 {
            each(block)?;
        }
    }
    if is_empty { Err(TrainError::data(file, "there are no samples")) } else { Ok(()) }
}

/// What `read` yields. The library has assertions that a damaged file may not hold; they are errors of the file.
fn guarded<T>(place: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(TrainError::data(place, "it is damaged")))
}

/// Whether what the file says of itself can be.
fn check_sizes(file: &str, metadata: &ParquetMetaData) -> Result<()> {
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let place = format!("{file}, row group {number}");
        let rows = group.num_rows();
        if usize::try_from(rows).is_err() || rows as usize > VALUES_MAX {
            return Err(TrainError::data(place, format!("it says that it has {rows} rows")));
        }
        let bytes = group.columns().iter().map(|column| column.uncompressed_size().max(0));
        if bytes.clone().any(|bytes| bytes > GROUP_BYTES_MAX) {
            let problem = format!("a column of it has more than {GROUP_BYTES_MAX} bytes");
            return Err(TrainError::data(place, problem));
        }
    }
    Ok(())
}

/// Numbers of the columns that are read.
struct Chosen {
    x: Vec<Vec<usize>>,
    y: Vec<Vec<usize>>,
    weights: Option<usize>,
    names: Vec<String>,
}

impl Chosen {
    fn new(file: &str, schema: &SchemaDescriptor, wanted: &Wanted) -> Result<Chosen> {
        let name = |leaf: usize| schema.column(leaf).path().parts().first().cloned().unwrap_or_default();
        let names: Vec<String> = (0..schema.num_columns()).map(name).collect();
        let columns = super::chosen::Chosen::new(wanted, names.len(), |wanted| {
            let leaves: Vec<usize> = (0..names.len()).filter(|&leaf| names[leaf] == *wanted).collect();
            match leaves[..] {
                [leaf] => Ok(leaf),
                [] => Err(no_column(file, wanted, &names)),
                _ => Err(TrainError::data(
                    file,
                    format!("column {wanted} has columns within, which aren't read"),
                )),
            }
        })?;
        let super::chosen::Chosen { x, y, weights } = columns;
        Ok(Chosen { x, y, weights, names })
    }

    fn block(&self, file: &str, place: &str, group: &dyn RowGroupReader) -> Result<Columns> {
        let samples = group.metadata().num_rows() as usize;
        let leaf = |leaf: usize| -> Result<Column> {
            let place = format!("{place}, column {}", self.names[leaf]);
            let reader =
                group.get_column_reader(leaf).map_err(|error| TrainError::data(&place, error.to_string()))?;
            Leaf::new(&place, group.metadata().column(leaf).column_descr(), samples)?.read(reader)
        };
        let several = |leaves: &Vec<usize>| match leaves[..] {
            [one] => leaf(one),
            _ => self.side_by_side(place, leaves, samples, &leaf),
        };
        // A single column of an input is one value of each sample.
        let input = |leaves: &Vec<usize>| {
            let mut column = several(leaves)?;
            if column.shape.is_empty() {
                column.shape = vec![1];
            }
            Ok(column)
        };
        let weights = self.weights.map(leaf).transpose()?.map(|column| match column {
            Column { shape, values: Values::Numbers(values) } if shape.is_empty() => Ok(values),
            _ => Err(TrainError::data(place, "weights are one number a row")),
        });
        Ok(Columns {
            x: self.x.iter().map(input).collect::<Result<_>>()?,
            y: self.y.iter().map(several).collect::<Result<_>>()?,
            weights: weights.transpose()?,
            samples,
            places: Places::Groups(file.to_owned(), vec![samples]),
        })
    }

    /// Columns of a number each, as one of several.
    fn side_by_side(
        &self,
        place: &str,
        leaves: &[usize],
        samples: usize,
        leaf: &dyn Fn(usize) -> Result<Column>,
    ) -> Result<Column> {
        let mut values = vec![0.0; samples.saturating_mul(leaves.len())];
        for (at, &number) in leaves.iter().enumerate() {
            match leaf(number)? {
                Column { shape, values: Values::Numbers(column) } if shape.is_empty() => {
                    let to = values.iter_mut().skip(at).step_by(leaves.len());
                    to.zip(column).for_each(|(to, value)| *to = value);
                }
                _ => {
                    let problem = "where several columns are read together, each is a number a row";
                    return Err(TrainError::data(format!("{place}, column {}", self.names[number]), problem));
                }
            }
        }
        Ok(Column { shape: vec![leaves.len()], values: Values::Numbers(values) })
    }
}

/// A column of a row group while it is read.
struct Leaf<'a> {
    place: &'a str,
    rows: usize,
    /// How often a value of a row with all its lists is defined.
    defined: i16,
    depth: i16,
    kind: Kind,
    repeats: Vec<i16>,
}

/// What a value of a column is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Number,
    Unsigned,
    Half,
    Text,
}

/// The kind of values of a column, if it is read.
fn kind(column: &ColumnDescriptor) -> Option<Kind> {
    let logical = column.logical_type_ref();
    match (column.physical_type(), logical, column.converted_type()) {
        (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16), _) => Some(Kind::Half),
        (Physical::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum), _)
        | (Physical::BYTE_ARRAY, None, ConvertedType::UTF8 | ConvertedType::ENUM) => Some(Kind::Text),
        (
            Physical::INT32 | Physical::INT64,
            _,
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64,
        ) => Some(Kind::Unsigned),
        (
            Physical::INT32 | Physical::INT64,
            _,
            ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64,
        ) if matches!(logical, None | Some(LogicalType::Integer(_))) => Some(Kind::Number),
        (Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE, ..) => Some(Kind::Number),
        _ => None,
    }
}

impl<'a> Leaf<'a> {
    fn new(place: &'a str, descriptor: &ColumnDescriptor, rows: usize) -> Result<Leaf<'a>> {
        let Some(kind) = kind(descriptor) else {
            let logical =
                descriptor.logical_type_ref().map_or(String::new(), |logical| format!(" ({logical:?})"));
            let problem = format!(
                "its values are {}{logical}; numbers, booleans and texts are read",
                descriptor.physical_type()
            );
            return Err(TrainError::data(place, problem));
        };
        let (defined, depth) = (descriptor.max_def_level(), descriptor.max_rep_level());
        if depth as usize >= DIMENSIONS_MAX {
            return Err(TrainError::data(place, format!("its lists are {depth} deep")));
        }
        Ok(Leaf { place, rows, defined, depth, kind, repeats: vec![] })
    }

    fn read(mut self, reader: ColumnReader) -> Result<Column> {
        let (mut numbers, mut texts) = (vec![], vec![]);
        let (kind, place) = (self.kind, self.place);
        let number = |values: &mut Vec<f32>, x: f32| values.push(x);
        match reader {
            ColumnReader::BoolColumnReader(r) => self.all(r, |x| number(&mut numbers, f32::from(*x)))?,
            ColumnReader::Int32ColumnReader(r) if kind == Kind::Unsigned => {
                self.all(r, |x| number(&mut numbers, *x as u32 as f32))?;
            }
            ColumnReader::Int32ColumnReader(r) => self.all(r, |x| number(&mut numbers, *x as f32))?,
            ColumnReader::Int64ColumnReader(r) if kind == Kind::Unsigned => {
                self.all(r, |x| number(&mut numbers, *x as u64 as f32))?;
            }
            ColumnReader::Int64ColumnReader(r) => self.all(r, |x| number(&mut numbers, *x as f32))?,
            ColumnReader::FloatColumnReader(r) => self.all(r, |x| number(&mut numbers, *x))?,
            ColumnReader::DoubleColumnReader(r) => self.all(r, |x| number(&mut numbers, *x as f32))?,
            ColumnReader::FixedLenByteArrayColumnReader(r) => self.all(r, |x| {
                let bytes = x.as_bytes();
                let bits = [bytes.first(), bytes.get(1)].map(|byte| byte.copied().unwrap_or_default());
                number(&mut numbers, half::f16::from_le_bytes(bits).to_f32());
            })?,
            ColumnReader::ByteArrayColumnReader(r) => {
                self.all(r, |x| texts.push(String::from_utf8_lossy(x.as_bytes()).into_owned()))?;
            }
            ColumnReader::Int96ColumnReader(_) => {
                return Err(TrainError::data(place, "its values are INT96, which isn't read"));
            }
        }
        let shape = self.shape()?;
        match (kind, shape.is_empty()) {
            (Kind::Text, true) => Ok(Column { shape, values: Values::Names(texts) }),
            (Kind::Text, false) => Err(TrainError::data(place, "it has lists of texts, which aren't read")),
            _ => Ok(Column { shape, values: Values::Numbers(numbers) }),
        }
    }

    /// Hands all values to `take`, and keeps where lists begin.
    fn all<T: DataType>(
        &mut self,
        mut reader: ColumnReaderImpl<T>,
        mut take: impl FnMut(&T::T),
    ) -> Result<()> {
        let wrong = |problem: String| TrainError::data(self.place, problem);
        let (mut rows, mut count) = (0, 0usize);
        let (mut definitions, mut repeats, mut values) = (vec![], vec![], vec![]);
        while rows < self.rows {
            definitions.clear();
            repeats.clear();
            values.clear();
            let rows_wanted = ROWS.min(self.rows - rows);
            let (records, _, levels) = reader
                .read_records(rows_wanted, Some(&mut definitions), Some(&mut repeats), &mut values)
                .map_err(|error| wrong(error.to_string()))?;
            if records == 0 {
                return Err(wrong(format!("it ends after {rows} of {} rows", self.rows)));
            }
            if self.defined > 0
                && let Some(at) = definitions.iter().position(|&level| level < self.defined)
            {
                let row = rows + repeats.iter().take(at + 1).skip(1).filter(|&&level| level == 0).count();
                let row = if self.depth == 0 { rows + at } else { row };
                return Err(wrong(format!("row {row} has no value")));
            }
            count += levels.max(values.len());
            if count > VALUES_MAX {
                return Err(wrong(format!("it has more than {VALUES_MAX} values")));
            }
            values.iter().for_each(&mut take);
            if self.depth > 0 {
                self.repeats.extend_from_slice(&repeats);
            }
            rows += records;
        }
        Ok(())
    }

    /// The shape of a row, which is every row's.
    fn shape(&self) -> Result<Vec<usize>> {
        if self.depth == 0 {
            return Ok(vec![]);
        }
        let first =
            self.repeats.iter().skip(1).position(|&level| level == 0).map_or(self.repeats.len(), |at| at + 1);
        let beginnings =
            |limit: i16| self.repeats[..first].iter().filter(|&&level| level <= limit).count().max(1);
        let shape: Vec<usize> =
            (1..=self.depth).map(|depth| beginnings(depth) / beginnings(depth - 1)).collect();
        let len: usize = shape.iter().product();
        let expected = |at: usize| {
            let mut inner = 1;
            let mut level = self.depth;
            for &size in shape.iter().rev() {
                inner *= size;
                if !at.is_multiple_of(inner) {
                    break;
                }
                level -= 1;
            }
            level
        };
        let is_right = |(at, &level): (usize, &i16)| level == expected(at);
        match self.repeats.iter().enumerate().position(|value| !is_right(value)) {
            None if self.repeats.len().is_multiple_of(len.max(1)) => Ok(shape),
            at => {
                let row = at.unwrap_or(self.repeats.len()) / len.max(1);
                let problem = format!("the lists of row {row} haven't the shape {shape:?} of the first");
                Err(TrainError::data(self.place, problem))
            }
        }
    }
}

#[cfg(test)]
mod tests;
