//! Models split into several GGUF files, `NAME-00001-of-00003.gguf` and so on. Source: llama.cpp's `gguf-split`.

use std::path::{Path, PathBuf};

use super::{Gguf, malformed};
use crate::error::FormatError;

/// Files that one model may be split into.
const PARTS_MAX: usize = 1024;
const PART_DIGITS: usize = 5;

/// The paths of all parts of the model that `path` is a part of, in order; `path` alone where its name is not a
/// part's.
///
/// # Errors
/// When the name is a part's but its numbers make no sense.
pub fn part_paths(path: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let names = path.file_name().and_then(|name| part_names(name.to_str()?).transpose()).transpose()?;
    Ok(match names {
        Some(names) => names.iter().map(|name| path.with_file_name(name)).collect(),
        None => vec![path.to_owned()],
    })
}

/// The same for names alone; `None` where `name` is not a part's.
///
/// # Errors
/// As for [`part_paths`].
pub fn part_names(name: &str) -> Result<Option<Vec<String>>, FormatError> {
    let Some((prefix, number, count)) = parse_name(name) else { return Ok(None) };
    if number == 0 || number > count || count > PARTS_MAX {
        return Err(FormatError::Invalid {
            what: format!("the name of {name}"),
            found: format!("part {number} of {count}"),
            expected: format!("a part of at most {PARTS_MAX}, counted from 1"),
        });
    }
    Ok(Some((1..=count).map(|number| format!("{prefix}-{number:05}-of-{count:05}.gguf")).collect()))
}

/// What the file at `path`, or the model that it is a part of, is called.
pub fn model_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match parse_name(&name) {
        Some((prefix, _, _)) => prefix.to_owned(),
        None => name.strip_suffix(".gguf").unwrap_or(&name).to_owned(),
    }
}

/// `NAME-00002-of-00003.gguf` as `(NAME, 2, 3)`.
fn parse_name(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let parse = |digits: &str| {
        let right = digits.len() == PART_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        if right { digits.parse().ok() } else { None }
    };
    Some((prefix, parse(number)?, parse(count)?))
}

/// Checks that `parts` are all the parts of one model, in order.
///
/// # Errors
/// When `split.no`, `split.count` or `split.tensors.count` of a part say otherwise, or when one file that says it is
/// a part was opened alone.
pub fn check_parts(parts: &[Gguf<'_>]) -> Result<(), FormatError> {
    for (index, part) in parts.iter().enumerate() {
        let count = part.size("split.count")?;
        let number = part.size("split.no")?;
        match (count, number) {
            (None | Some(0 | 1), _) if parts.len() == 1 => return Ok(()),
            (Some(count), Some(number)) if count == parts.len() && number == index => {}
            (Some(count), _) if parts.len() == 1 => {
                return Err(malformed(format!(
                    "it is one of {count} parts (split.count); name them NAME-00001-of-{count:05}.gguf and so on, and \
                     keep them together"
                )));
            }
            _ => {
                return Err(malformed(format!(
                    "by its name it is part {} of {}, and its metadata says split.no {number:?} (from 0) of \
                     split.count {count:?}",
                    index + 1,
                    parts.len()
                )));
            }
        }
    }
    let tensors: usize = parts.iter().map(|part| part.tensors().len()).sum();
    match parts.first().map(|first| first.size("split.tensors.count")).transpose()?.flatten() {
        Some(announced) if announced != tensors => Err(malformed(format!(
            "the parts have {tensors} tensors, and split.tensors.count says {announced}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Value, Writer, read};
    use super::*;

    #[test]
    fn a_part_names_all_parts() {
        let check = |path: &str, expected: &[&str]| {
            let paths = part_paths(Path::new(path)).unwrap();
            assert_eq!(paths, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        };
        check("dir/a-b-00002-of-00002.gguf", &["dir/a-b-00001-of-00002.gguf", "dir/a-b-00002-of-00002.gguf"]);
        check("dir/model.gguf", &["dir/model.gguf"]);
        check("dir/model-1-of-2.gguf", &["dir/model-1-of-2.gguf"]);
        check("dir/model-+0001-of-00002.gguf", &["dir/model-+0001-of-00002.gguf"]);
    }

    #[test]
    fn impossible_part_numbers_are_refused() {
        for name in ["m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-00001-of-99999.gguf"] {
            assert!(part_paths(Path::new(name)).unwrap_err().to_string().contains("part"), "{name}");
        }
    }

    #[test]
    fn parts_must_fit_together() {
        let part = |no: u16, count: u16, tensors: i32| {
            let mut writer = Writer::default();
            writer.value("split.no", Value::U16(no)).value("split.count", Value::U16(count));
            writer.value("split.tensors.count", Value::I32(tensors)).finish()
        };
        let check = |files: &[Vec<u8>], expected: Result<(), &str>| {
            let parts: Vec<_> = files.iter().map(|file| read(file).unwrap()).collect();
            match (check_parts(&parts), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        };
        check(&[part(0, 2, 0), part(1, 2, 0)], Ok(()));
        check(&[part(0, 1, 0)], Ok(()));
        check(&[part(1, 2, 0), part(0, 2, 0)], Err("split.no Some(1)"));
        check(&[part(0, 3, 0), part(1, 3, 0)], Err("split.count Some(3)"));
        check(&[part(0, 2, 5), part(1, 2, 5)], Err("split.tensors.count says 5"));
        check(&[part(0, 2, 0)], Err("keep them together"));
    }
}
