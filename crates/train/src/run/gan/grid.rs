//! Samples side by side as one PNG file.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};

use crate::error::{Result, TrainError};
use crate::model::Array;

/// Small pictures are enlarged by a whole number, to about so many pixels on a side.
const SIDE_PIXELS: usize = 32;
/// Between two pictures.
const GAP_PIXELS: usize = 2;
const GAP_VALUE: u8 = 128;

/// Height, width and channels of samples that are pictures.
pub(super) fn picture(shape: &[usize]) -> Option<[usize; 3]> {
    match *shape {
        [height, width] => Some([height, width, 1]),
        [height, width, channels @ (1 | 3 | 4)] => Some([height, width, channels]),
        _ => None,
    }
}

/// A grid as a file, with its height and width.
pub(super) struct Grid {
    pub png: Vec<u8>,
    pub size: [usize; 2],
}

/// The samples by rows, `columns` in each, where `bounds` are black and white.
///
/// # Errors
/// When samples are no pictures, or the picture can't be encoded.
pub(super) fn grid(samples: &Array, columns: usize, [low, high]: [f32; 2]) -> Result<Grid> {
    let failed = |problem: String| TrainError::data("the grid of samples", problem);
    let shape = &samples.shape[1..];
    let [height, width, channels] =
        picture(shape).ok_or_else(|| failed(format!("samples of the shape {shape:?} are no pictures")))?;
    let larger = (SIDE_PIXELS / height.max(width)).max(1);
    let rows = samples.samples().div_ceil(columns);
    let along = |count: usize, side: usize| count * (side * larger + GAP_PIXELS) + GAP_PIXELS;
    let size = [along(rows, height), along(columns, width)];
    let mut pixels = vec![GAP_VALUE; size[0] * size[1] * channels];
    if channels == 4 {
        pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = u8::MAX);
    }
    let span = if high > low { high - low } else { 1.0 };
    for (number, sample) in samples.values.chunks_exact(height * width * channels).enumerate() {
        let (top, left) = (along(number / columns, height), along(number % columns, width));
        for (y, x) in (0..height * larger).flat_map(|y| (0..width * larger).map(move |x| (y, x))) {
            let from = (y / larger * width + x / larger) * channels;
            let to = ((top + y) * size[1] + left + x) * channels;
            for channel in 0..channels {
                let share = (sample[from + channel] - low) / span;
                pixels[to + channel] = (share.clamp(0.0, 1.0) * 255.0).round() as u8;
            }
        }
    }
    let (across, down) = (size[1] as u32, size[0] as u32);
    let image = match channels {
        1 => image::GrayImage::from_raw(across, down, pixels).map(DynamicImage::from),
        3 => image::RgbImage::from_raw(across, down, pixels).map(DynamicImage::from),
        _ => image::RgbaImage::from_raw(across, down, pixels).map(DynamicImage::from),
    };
    let image = image.ok_or_else(|| failed(format!("{across} by {down} pixels are too many")))?;
    let mut png = vec![];
    image
        .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
        .map_err(|error| failed(error.to_string()))?;
    Ok(Grid { png, size })
}

#[test]
fn pictures_stand_side_by_side() {
    let samples = Array::new([3, 2, 2, 1], (0..12).map(|i| i as f32 / 11.0).collect()).unwrap();
    let Grid { png, size } = grid(&samples, 2, [0.0, 1.0]).unwrap();
    let image = image::load_from_memory(&png).unwrap().into_luma8();
    assert_eq!((size, image.dimensions()), ([70, 70], (70, 70)));
    let at = |x, y| image.get_pixel(x, y).0[0];
    assert_eq!((at(0, 0), at(2, 2), at(33, 33), at(34, 34), at(36, 2)), (128, 0, 70, 128, 93));
    // The last place is free.
    assert_eq!((at(2, 36), at(50, 50)), (185, 128));
}
