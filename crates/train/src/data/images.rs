//! Folders of images: a folder for each class, or images alone, which are their own targets.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;

use super::{BLOCK_VALUES, Column, Columns, Each, Places, Values};
use crate::error::{Result, TrainError};

/// Pixels on a side of an image that is read.
const SIDE_MAX: u32 = 1 << 14;
/// Bytes that decoding one image may take.
const DECODED_BYTES_MAX: u64 = 1 << 30;

/// Reads PNG and JPEG images as `size` (height, width, channels), resized where they aren't, with values from 0 to 255 as
/// Keras has them.
///
/// # Errors
/// When a file isn't an image, or there is none.
pub(super) fn read(folder: &Path, size: &[usize], each: Each<'_>) -> Result<()> {
    let name = folder.display().to_string();
    let &[height, width, channels @ (1 | 3 | 4)] = size else {
        let problem =
            format!("images need an input [height, width, 1, 3 or 4 channels]; the model's is {size:?}");
        return Err(TrainError::data(name, problem));
    };
    let mut files = vec![];
    let mut classes = vec![];
    let folders: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    let by_class = !folders.is_empty();
    for class in if by_class { folders } else { vec![folder.to_path_buf()] } {
        let label = class.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for path in entries(&class)?.into_iter().filter(|path| is_image(path)) {
            files.push(path);
            classes.push(label.clone());
        }
    }
    if files.is_empty() {
        return Err(TrainError::data(
            name,
            "there are no .png, .jpg or .jpeg files, in folders named by their class",
        ));
    }
    let count = (BLOCK_VALUES / (height * width * channels).max(1)).max(1);
    for (files, classes) in files.chunks(count).zip(classes.chunks(count)) {
        let mut values = vec![];
        for path in files {
            values.extend(pixels(path, height as u32, width as u32, channels)?);
        }
        let y = Column { shape: vec![], values: Values::Names(classes.to_vec()) };
        each(Columns {
            x: vec![Column { shape: size.to_vec(), values: Values::Numbers(values) }],
            y: if by_class { vec![y] } else { vec![] },
            weights: None,
            samples: files.len(),
            places: Places::Files(files.to_vec()),
        })?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| TrainError::file(folder, "read", &error);
    let mut paths = vec![];
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg"))
}

fn pixels(path: &Path, height: u32, width: u32, channels: usize) -> Result<Vec<f32>> {
    let place = path.display().to_string();
    let mut reader = crate::files::open(path)
        .and_then(|file| image::ImageReader::new(BufReader::new(file)).with_guessed_format())
        .map_err(|error| TrainError::file(path, "read", &error))?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits);
    let mut image = reader.decode().map_err(|error| TrainError::data(place, error.to_string()))?;
    if (image.height(), image.width()) != (height, width) {
        image = image.resize_exact(width, height, FilterType::Triangle);
    }
    let bytes = match channels {
        1 => image.into_luma8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        _ => image.into_rgba8().into_raw(),
    };
    Ok(bytes.into_iter().map(f32::from).collect())
}
