//! A job's events: one JSON object a line, only ever added to. A reader keeps its place as the bytes that it has read.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Result, StoreError};

/// Bytes read at once; no event is longer.
const EVENTS_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a line without its end: with that, and the end of the line before, it is read at once.
const LINE_BYTES_MAX: usize = EVENTS_BYTES_MAX as usize - 2;
/// Characters that are left of a text of an event that is too long for a line.
const TEXT_CHARS_MAX: usize = 4000;
/// The most that is looked through for the end of the last whole line.
const TAIL_BYTES_MAX: u64 = EVENTS_BYTES_MAX;

/// For adding to. One process at a time has it: whoever holds the job's lock.
pub struct Events {
    file: File,
    path: std::path::PathBuf,
}

impl Events {
    /// Half a line of a process that was killed is cut off.
    ///
    /// # Errors
    /// The disk.
    pub fn open(path: &Path) -> Result<Events> {
        let open = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
            let length = file.metadata()?.len();
            let begin = length.saturating_sub(TAIL_BYTES_MAX);
            let mut tail = Vec::new();
            file.seek(SeekFrom::Start(begin))?;
            Read::by_ref(&mut file).take(TAIL_BYTES_MAX).read_to_end(&mut tail)?;
            let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            file.set_len(begin + whole as u64)?;
            Ok(file)
        };
        let file = open().map_err(StoreError::io("opening", path))?;
        Ok(Events { file, path: path.to_path_buf() })
    }

    /// One that no reader could take at once is shortened, and says so (`"shortened": true`).
    ///
    /// # Errors
    /// The disk.
    pub fn add(&mut self, event: &Value) -> Result<()> {
        let mut line = event.to_string();
        if line.len() > LINE_BYTES_MAX {
            line = shortened(event).to_string();
        }
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(StoreError::io("writing", &self.path))
    }
}

/// An event's members with their long texts cut, the shortest first, as many as fit into a line.
fn shortened(event: &Value) -> Value {
    let cut = |value: &Value| match value {
        Value::String(text) if text.chars().nth(TEXT_CHARS_MAX).is_some() => {
            Value::String(text.chars().take(TEXT_CHARS_MAX).collect::<String>() + " ...")
        }
        other => other.clone(),
    };
    let members = event.as_object().into_iter().flatten();
    let mut members: Vec<(usize, Value, &String)> = members
        .map(|(name, value)| {
            let (key, value) = (Value::from(name.as_str()), cut(value));
            // With the colon and the comma.
            (key.to_string().len() + value.to_string().len() + 2, value, name)
        })
        .collect();
    members.sort_by_key(|(bytes, ..)| *bytes);
    let mut short = Map::from_iter([("shortened".to_owned(), Value::Bool(true))]);
    let mut room = LINE_BYTES_MAX - r#"{"shortened":true}"#.len();
    for (bytes, value, name) in members {
        let Some(left) = room.checked_sub(bytes) else { break };
        room = left;
        short.insert(name.clone(), value);
    }
    Value::Object(short)
}

/// For reading, while another process may be adding.
pub struct EventFile<'a>(pub &'a Path);

impl EventFile<'_> {
    /// The whole events after the first `offset` bytes, as far as they fit into one read, each with the offset after it.
    /// None where there is no more so far, or where nothing ends at `offset`.
    ///
    /// # Errors
    /// The disk.
    pub fn after(&self, offset: u64) -> Result<Vec<(u64, String)>> {
        let mut file = match File::open(self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(StoreError::io("reading", self.0))?,
        };
        let mut read = || {
            // The byte before is to be a line's end, or somebody made the offset up.
            let begin = offset.saturating_sub(1);
            file.seek(SeekFrom::Start(begin))?;
            let mut bytes = Vec::new();
            Read::by_ref(&mut file).take(EVENTS_BYTES_MAX).read_to_end(&mut bytes)?;
            if offset == 0 {
                return Ok(bytes);
            }
            Ok(if bytes.first() == Some(&b'\n') { bytes.split_off(1) } else { Vec::new() })
        };
        let bytes = read().map_err(StoreError::io("reading", self.0))?;
        let mut at = offset;
        let mut events = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            at += line.len() as u64;
            events.push((at, String::from_utf8_lossy(line).trim_end().to_owned()));
        }
        Ok(events)
    }
}

#[test]
fn events_are_read_from_any_of_their_ends_and_half_lines_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let texts = |offset: u64| -> Vec<String> {
        EventFile(&path).after(offset).unwrap().into_iter().map(|(_, text)| text).collect()
    };
    assert!(texts(0).is_empty());
    Events::open(&path).unwrap().add(&serde_json::json!({ "a": 1 })).unwrap();
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half").unwrap();
    assert_eq!(texts(0), [r#"{"a":1}"#]);
    Events::open(&path).unwrap().add(&serde_json::json!({ "b": 2 })).unwrap();
    assert_eq!(texts(0), [r#"{"a":1}"#, r#"{"b":2}"#]);
    let offset = EventFile(&path).after(0).unwrap()[0].0;
    assert_eq!((texts(offset), texts(3), texts(1000)), (vec![r#"{"b":2}"#.to_owned()], vec![], vec![]));
}

#[test]
fn a_long_event_is_shortened_until_it_can_be_read() {
    use serde_json::json;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut events = Events::open(&path).unwrap();
    events.add(&json!({ "event": "running" })).unwrap();
    let mut read_back = |event: Value| -> Value {
        let offset = std::fs::metadata(&path).unwrap().len();
        events.add(&event).unwrap();
        let read = EventFile(&path).after(offset).unwrap();
        assert_eq!(read.len(), 1, "it is read at once");
        serde_json::from_str(&read[0].1).unwrap()
    };
    let of_bytes = |bytes: usize| json!({ "event": "x".repeat(bytes - r#"{"event":""}"#.len()) });
    let fits = of_bytes(LINE_BYTES_MAX);
    assert!(read_back(fits.clone()) == fits);
    let mut check = |event: Value, expected: Value| {
        let read = read_back(event);
        assert!(read == expected, "{:.200}", read.to_string());
    };
    let cut = |text: &str| text.repeat(TEXT_CHARS_MAX) + " ...";
    check(of_bytes(LINE_BYTES_MAX + 1), json!({ "event": cut("x"), "shortened": true }));
    let (numbers, text) = (vec![1.5; 100_000], "\u{1}".repeat(300_000));
    check(
        json!({ "event": "epoch", "numbers": numbers, "epoch": 3, "text": text }),
        json!({ "event": "epoch", "epoch": 3, "text": cut("\u{1}"), "shortened": true }),
    );
    let many: Map<String, Value> = (0..100_000).map(|i| (format!("{i:06}"), Value::from(1))).collect();
    let left = read_back(Value::Object(many)).to_string();
    assert!(left.len() > LINE_BYTES_MAX - 20 && left.contains("shortened"), "{} bytes", left.len());
}
