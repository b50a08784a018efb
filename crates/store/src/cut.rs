//! Where a file is cut into chunks: at the borders of its tensors, and within large ones and whatever else there is
//! where the contents say so, so that what is inserted somewhere leaves the other chunks as they were.

use std::collections::BTreeMap;
use std::ops::Range;

use fastcdc::v2020::FastCDC;
use formats::{gguf, safetensors};

use crate::codec::Layout;

/// Tensors and gaps smaller than this are joined with small neighbours: a chunk has its price.
const SMALL_BYTES: usize = 64 << 10;
/// A tensor up to this size is one chunk.
const WHOLE_BYTES_MAX: usize = 4 << 20;
/// Of chunks that the contents cut.
const CUT_BYTES_MIN: usize = 512 << 10;
const CUT_BYTES_AVERAGE: usize = 2 << 20;
/// No chunk that is cut here is longer.
pub const CHUNK_BYTES_MAX: usize = 8 << 20;

/// What becomes one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// In the file.
    pub range: Range<usize>,
    /// What it holds; `None` where nothing says so.
    pub layout: Option<Layout>,
    /// The tensor that it is a part of, and its place among the parts.
    pub tensor: Option<(String, usize)>,
}

/// Lengths of the chunks that a tensor of the parent was cut into, by its name.
pub type Cuts = BTreeMap<String, Vec<usize>>;

/// A tensor in the file.
struct Tensor {
    name: String,
    range: Range<usize>,
    layout: Layout,
}

/// Pieces that cover the file `name` without gaps. A tensor of the length that `parent` has is cut as there, so that
/// each piece has one to be compared with.
pub fn cut(name: &str, bytes: &[u8], parent: &Cuts) -> Vec<Piece> {
    let mut cutter = Cutter { bytes, pieces: Vec::new(), joined: 0..0 };
    let mut end = 0;
    for tensor in tensors(name, bytes) {
        cutter.other(end..tensor.range.start);
        end = tensor.range.end;
        cutter.tensor(&tensor, parent.get(&tensor.name));
    }
    cutter.other(end..bytes.len());
    cutter.flush();
    cutter.pieces
}

/// Tensors by place; none where the file is of another format or can't be read: it is kept all the same.
fn tensors(name: &str, bytes: &[u8]) -> Vec<Tensor> {
    let mut found = Vec::new();
    if name.ends_with(".gguf") {
        let gguf = gguf::read(bytes);
        for tensor in gguf.iter().flat_map(|gguf| gguf.tensors()) {
            let layout = Layout::of(tensor.element_type);
            found.push(Tensor { name: tensor.name.to_owned(), range: tensor.bytes.clone(), layout });
        }
    } else if name.ends_with(".safetensors") {
        for tensor in safetensors::read(bytes).unwrap_or_default() {
            let layout = tensor.element_type.map_or(Layout::Bytes, Layout::of);
            found.push(Tensor { name: tensor.name.into_owned(), range: tensor.bytes, layout });
        }
    }
    found.retain(|tensor| !tensor.range.is_empty());
    found.sort_by_key(|tensor| tensor.range.start);
    found
}

struct Cutter<'a> {
    bytes: &'a [u8],
    pieces: Vec<Piece>,
    /// Small neighbours that are no piece yet.
    joined: Range<usize>,
}

impl Cutter<'_> {
    fn flush(&mut self) {
        let range = std::mem::take(&mut self.joined);
        if !range.is_empty() {
            self.pieces.push(Piece { range, layout: None, tensor: None });
        }
    }

    /// Joins a small one with those before it; `false` where it isn't small.
    fn join(&mut self, range: &Range<usize>) -> bool {
        if range.len() >= SMALL_BYTES {
            self.flush();
            return false;
        }
        if self.joined.is_empty() {
            self.joined = range.clone();
        } else {
            self.joined.end = range.end;
        }
        if self.joined.len() >= CUT_BYTES_MIN {
            self.flush();
        }
        true
    }

    fn tensor(&mut self, tensor: &Tensor, parent: Option<&Vec<usize>>) {
        let Tensor { name, range, layout } = tensor;
        if self.join(range) {
            return;
        }
        let same = parent.filter(|lengths| lengths.iter().sum::<usize>() == range.len());
        let lengths = match same {
            Some(lengths) => lengths.clone(),
            None if range.len() <= WHOLE_BYTES_MAX => vec![range.len()],
            None => by_content(&self.bytes[range.clone()], layout.stride()),
        };
        let mut start = range.start;
        for (index, length) in lengths.into_iter().enumerate() {
            let tensor = Some((name.clone(), index));
            self.pieces.push(Piece { range: start..start + length, layout: Some(*layout), tensor });
            start += length;
        }
    }

    fn other(&mut self, range: Range<usize>) {
        if range.is_empty() || self.join(&range) {
            return;
        }
        let mut start = range.start;
        for length in by_content(&self.bytes[range], 1) {
            self.pieces.push(Piece { range: start..start + length, layout: None, tensor: None });
            start += length;
        }
    }
}

/// Lengths of pieces, all but the last of whole records.
fn by_content(bytes: &[u8], stride: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut start = 0;
    for chunk in FastCDC::new(bytes, CUT_BYTES_MIN, CUT_BYTES_AVERAGE, CHUNK_BYTES_MAX) {
        let end = chunk.offset + chunk.length;
        let end = if end == bytes.len() { end } else { end - end % stride };
        lengths.push(end - start);
        start = end;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, mut state: u64) -> Vec<u8> {
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count).map(|_| byte()).collect()
    }

    fn safetensors(tensors: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for (name, bytes) in tensors {
            let (start, end) = (data.len(), data.len() + bytes.len());
            let shape = bytes.len() / 4;
            entries.push(format!(
                r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{start},{end}]}}"#
            ));
            data.extend_from_slice(bytes);
        }
        let header = format!("{{{}}}", entries.join(","));
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    fn covered(pieces: &[Piece], bytes: usize) {
        let mut end = 0;
        for piece in pieces {
            assert!(
                piece.range.start == end && !piece.range.is_empty() && piece.range.len() <= CHUNK_BYTES_MAX
            );
            end = piece.range.end;
        }
        assert_eq!(end, bytes);
    }

    #[test]
    fn tensors_are_pieces_and_small_ones_are_joined() {
        let (large, small) = (noise(200_000, 1), noise(100, 2));
        let file = safetensors(&[("a", &large), ("b", &small), ("c", &small), ("d", &large)]);
        let pieces = cut("x.safetensors", &file, &Cuts::new());
        covered(&pieces, file.len());
        let names: Vec<_> =
            pieces.iter().map(|piece| piece.tensor.as_ref().map(|(name, _)| &**name)).collect();
        assert_eq!(names, [None, Some("a"), None, Some("d")], "header, a, b and c, d");
        assert_eq!(pieces[1].layout, Some(Layout::Words32));
    }

    #[test]
    fn what_is_inserted_changes_the_chunks_around_it_alone() {
        let bytes = noise(40 << 20, 3);
        let mut longer = bytes.clone();
        longer.splice(20 << 20..20 << 20, noise(1000, 4));
        let (before, after) = (cut("x", &bytes, &Cuts::new()), cut("x", &longer, &Cuts::new()));
        covered(&before, bytes.len());
        covered(&after, longer.len());
        let known: std::collections::BTreeSet<&[u8]> =
            before.iter().map(|piece| &bytes[piece.range.clone()]).collect();
        let new = after.iter().filter(|piece| !known.contains(&longer[piece.range.clone()])).count();
        assert!(before.len() >= 10 && new <= 2, "{new} of {} are new", after.len());
    }

    #[test]
    fn a_child_is_cut_as_its_parent() {
        let parent = noise(30 << 20, 5);
        let file = safetensors(&[("a", &parent)]);
        let cuts_of = |pieces: &[Piece]| -> Cuts {
            let lengths = pieces.iter().filter(|piece| piece.tensor.is_some()).map(|piece| piece.range.len());
            Cuts::from([("a".to_owned(), lengths.collect())])
        };
        let known = cuts_of(&cut("x.safetensors", &file, &Cuts::new()));
        let child = safetensors(&[("a", &noise(30 << 20, 6))]);
        assert_ne!(cuts_of(&cut("x.safetensors", &child, &Cuts::new())), known);
        assert_eq!(cuts_of(&cut("x.safetensors", &child, &known)), known);
    }
}
