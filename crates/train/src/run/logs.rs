//! What a fit writes as it goes: `history.csv`, and event files for TensorBoard.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::checkpoint::Figures;
use crate::error::{Result, TrainError};
use crate::files::write_whole;

pub(super) const HISTORY: &str = "history.csv";
/// The folder that TensorBoard is given, with a folder for training and one for validation, as Keras has it.
pub(super) const BOARD: &str = "logs";

pub(super) struct Logs {
    folder: PathBuf,
    /// Epochs that the event files have.
    written: usize,
    training: Board,
    validation: Option<Board>,
}

impl Logs {
    /// Goes on after `epochs` epochs.
    pub fn new(folder: &Path, epochs: usize) -> Result<Logs> {
        let training = Board::new(&folder.join(BOARD).join("train"), epochs)?;
        Ok(Logs { folder: folder.to_path_buf(), written: epochs, training, validation: None })
    }

    /// Writes the epochs of `history` that weren't yet.
    pub fn epoch(&mut self, history: &[Figures]) -> Result<()> {
        for (epoch, figures) in history.iter().enumerate().skip(self.written) {
            let (validation, training): (Figures, Figures) =
                figures.iter().cloned().partition(|(name, _)| name.starts_with("val_"));
            self.training.add(epoch, &training)?;
            if validation.is_empty() {
                continue;
            }
            let board = match &mut self.validation {
                Some(board) => board,
                none => none.insert(Board::new(&self.folder.join(BOARD).join("validation"), self.written)?),
            };
            let names = validation.into_iter().map(|(name, value)| (name["val_".len()..].to_owned(), value));
            board.add(epoch, &names.collect())?;
        }
        self.written = history.len();
        write_whole(&self.folder.join(HISTORY), |file| {
            let names = history.first().into_iter().flatten().map(|(name, _)| name.as_str());
            let header: Vec<&str> = ["epoch"].into_iter().chain(names).collect();
            writeln!(file, "{}", header.join(","))?;
            for (epoch, figures) in history.iter().enumerate() {
                let values: Vec<String> = figures.iter().map(|(_, value)| value.to_string()).collect();
                writeln!(file, "{},{}", epoch + 1, values.join(","))?;
            }
            Ok(())
        })
    }
}

impl Logs {
    /// A picture of samples after `epoch` epochs, a PNG file of this height and width.
    pub fn picture(&mut self, epoch: usize, png: &[u8], [height, width]: [usize; 2]) -> Result<()> {
        let mut image = vec![];
        // Height, width, and how many channels the file has: 3 stand for color.
        for (number, value) in [(1u8, height), (2, width), (3, 3)] {
            image.push(number << 3);
            image.extend(varint(value as u64));
        }
        image.extend(bytes(4, png));
        let mut value = bytes(1, b"samples");
        value.extend(bytes(4, &image));
        self.training.summary(epoch - 1, &bytes(1, &value))
    }
}

/// An event file of TensorBoard.
///
/// Source: TensorFlow's record format (length, its masked crc32c, data, its masked crc32c) around its `Event` message.
struct Board {
    path: PathBuf,
    file: File,
}

impl Board {
    fn new(folder: &Path, epochs: usize) -> Result<Board> {
        let time = now();
        let path =
            folder.join(format!("events.out.tfevents.{}.{epochs}.{}", time as u64, std::process::id()));
        let created = std::fs::create_dir_all(folder).and_then(|()| File::create(&path));
        let file = created.map_err(|error| TrainError::file(&path, "written", &error))?;
        let mut board = Board { path, file };
        let mut event = double(1, time);
        event.extend(bytes(3, b"brain.Event:2"));
        board.write(&event)?;
        Ok(board)
    }

    fn add(&mut self, epoch: usize, figures: &Figures) -> Result<()> {
        let mut summary = vec![];
        for (name, value) in figures {
            let mut scalar = bytes(1, format!("epoch_{name}").as_bytes());
            scalar.push(2 << 3 | 5);
            scalar.extend((*value as f32).to_le_bytes());
            summary.extend(bytes(1, &scalar));
        }
        self.summary(epoch, &summary)
    }

    fn summary(&mut self, epoch: usize, summary: &[u8]) -> Result<()> {
        let mut event = double(1, now());
        event.push(2 << 3);
        event.extend(varint(epoch as u64));
        event.extend(bytes(5, summary));
        self.write(&event)
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked(event).to_le_bytes());
        self.file.write_all(&record).map_err(|error| TrainError::file(&self.path, "written", &error))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A checksum that stays one when it is itself checked.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Field `number` of a message, with a length.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(varint(content.len() as u64));
    field.extend(content);
    field
}

fn double(number: u8, value: f64) -> Vec<u8> {
    let mut field = vec![number << 3 | 1];
    field.extend(value.to_le_bytes());
    field
}
