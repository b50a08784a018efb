//! Data sets in chunks, found by a B-tree, perhaps deflated and with the bytes of their elements apart.

use std::io::Read;

use super::bytes::{Bytes, UNDEFINED};
use super::{limit, malformed};
use crate::error::FormatError;

const LEVELS_MAX: u8 = 16;
/// Nodes of a B-tree, however they are linked.
const NODES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Deflate,
    Shuffle,
}

#[derive(Clone, Debug)]
pub(super) struct Chunked {
    pub address: u64,
    /// Of a chunk; the last is the bytes of an element.
    pub sizes: Vec<usize>,
    /// In the order in which they were applied.
    pub filters: Vec<Filter>,
}

/// A chunk in the file.
struct Chunk {
    address: u64,
    bytes: u64,
    /// A bit for each filter that was left out.
    left_out: u32,
    /// Where its first element stands.
    start: Vec<u64>,
}

impl Chunked {
    /// The bytes of a data set of this shape; what no chunk has is 0.
    pub fn data(
        &self,
        file: &Bytes<'_>,
        shape: &[usize],
        element: usize,
        bytes: usize,
    ) -> Result<Vec<u8>, FormatError> {
        let (Some((&last, sizes)), rank) = (self.sizes.split_last(), shape.len()) else {
            return Err(malformed("a chunk has no sizes"));
        };
        if last != element || sizes.len() != rank || sizes.contains(&0) {
            return Err(malformed(format!(
                "chunks of {:?} don't go with a data set of {shape:?} and {element} bytes",
                self.sizes
            )));
        }
        let chunk_bytes = sizes.iter().try_fold(element, |bytes, &size| bytes.checked_mul(size));
        let chunk_bytes = chunk_bytes.unwrap_or(usize::MAX);
        // A chunk may reach beyond a small data set, but not far.
        limit("a chunk, in bytes", chunk_bytes as u64, (64 << 20).max(2 * bytes as u64))?;
        let mut data = vec![0; bytes];
        let mut left = NODES_MAX;
        let mut nodes = if self.address == UNDEFINED { vec![] } else { vec![(self.address, LEVELS_MAX)] };
        while let Some((address, below)) = nodes.pop() {
            left = left.checked_sub(1).ok_or_else(|| malformed("the B-tree of chunks has no end"))?;
            let (level, chunks) = self.node(file, address)?;
            if level >= below {
                return Err(malformed("the levels of a B-tree of chunks don't fall"));
            }
            for chunk in chunks {
                if level > 0 {
                    nodes.push((chunk.address, level));
                } else {
                    let values = self.chunk(file, &chunk, element, chunk_bytes)?;
                    place(&mut data, shape, &values, sizes, &chunk.start, element);
                }
            }
        }
        Ok(data)
    }

    fn node(&self, file: &Bytes<'_>, address: u64) -> Result<(u8, Vec<Chunk>), FormatError> {
        let mut cursor = file.cursor(address, "a B-tree of chunks")?;
        cursor.expect(b"TREE\x01")?;
        let level = cursor.u8()?;
        let count = cursor.u16()?;
        // its neighbours
        cursor.take(16)?;
        let mut chunks = vec![];
        for _ in 0..count {
            let (bytes, left_out) = (u64::from(cursor.u32()?), cursor.u32()?);
            let start = (0..self.sizes.len()).map(|_| cursor.u64()).collect::<Result<_, _>>()?;
            chunks.push(Chunk { bytes, left_out, start, address: cursor.u64()? });
        }
        Ok((level, chunks))
    }

    fn chunk(
        &self,
        file: &Bytes<'_>,
        chunk: &Chunk,
        element: usize,
        bytes: usize,
    ) -> Result<Vec<u8>, FormatError> {
        let mut values = file.at(chunk.address, chunk.bytes, "a chunk")?.to_vec();
        for (number, filter) in self.filters.iter().enumerate().rev() {
            if chunk.left_out >> number & 1 == 1 {
                continue;
            }
            values = match filter {
                Filter::Deflate => inflated(&values, bytes)?,
                Filter::Shuffle => together(&values, element),
            };
        }
        if values.len() != bytes {
            return Err(malformed(format!("a chunk has {} bytes, not {bytes}", values.len())));
        }
        Ok(values)
    }
}

fn inflated(values: &[u8], bytes: usize) -> Result<Vec<u8>, FormatError> {
    let mut result = vec![];
    flate2::read::ZlibDecoder::new(values)
        .take(bytes as u64 + 1)
        .read_to_end(&mut result)
        .map_err(|error| malformed(format!("a chunk can't be inflated: {error}")))?;
    Ok(result)
}

/// Elements out of their first bytes, then their second bytes, and so on.
fn together(values: &[u8], element: usize) -> Vec<u8> {
    let count = values.len() / element;
    let mut result = values.to_vec();
    for i in 0..count {
        for byte in 0..element {
            result[i * element + byte] = values[byte * count + i];
        }
    }
    result
}

/// Copies a chunk to its place, as far as it lies within the data set, a row at a time.
fn place(data: &mut [u8], shape: &[usize], chunk: &[u8], sizes: &[usize], start: &[u64], element: usize) {
    let rank = shape.len();
    if rank == 0 {
        data.copy_from_slice(&chunk[..data.len()]);
        return;
    }
    let row = sizes[rank - 1];
    let mut at = vec![0usize; rank];
    for values in chunk.chunks_exact(row * element) {
        let mut inside = true;
        let mut index = 0usize;
        for axis in 0..rank {
            let place = usize::try_from(start[axis]).ok().and_then(|start| start.checked_add(at[axis]));
            match place {
                Some(place) if place < shape[axis] => index = index * shape[axis] + place,
                _ => {
                    inside = false;
                    break;
                }
            }
        }
        if inside {
            let count = row.min(shape[rank - 1] - start[rank - 1] as usize) * element;
            data[index * element..][..count].copy_from_slice(&values[..count]);
        }
        for axis in (0..rank - 1).rev() {
            at[axis] += 1;
            if at[axis] < sizes[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
}
