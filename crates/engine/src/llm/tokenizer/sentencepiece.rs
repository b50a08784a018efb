//! SentencePiece segmentation from a vocabulary with scores, as GGUF files carry it.
//!
//! Sources: Kudo and Richardson 2018 (SentencePiece); Sennrich et al. 2016 (BPE); Kudo 2018 (unigram).
//! The rules were checked against the `sentencepiece` package, see `fixtures/tokenizer`.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use ahash::AHashMap;

/// What a unigram model charges for a character that no piece covers, below its worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Neighbours are joined, best score first.
    Bpe,
    /// The segmentation with the best sum of scores.
    Unigram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    UserDefined,
    /// A step of BPE that is no token: it is taken apart again.
    Unused,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    id: u32,
    score: f64,
    kind: PieceKind,
}

/// Text to ids. Control tokens are no pieces, so text can't spell them.
#[derive(Debug)]
pub(super) struct SentencePiece {
    algorithm: Algorithm,
    pieces: AHashMap<Box<str>, Piece>,
    /// Longest piece.
    piece_bytes_max: usize,
    score_min: f64,
    score_max: f64,
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
    add_space_prefix: bool,
    remove_extra_whitespaces: bool,
}

impl SentencePiece {
    pub fn new(algorithm: Algorithm, unknown: Option<u32>) -> SentencePiece {
        SentencePiece {
            algorithm,
            pieces: AHashMap::new(),
            piece_bytes_max: 0,
            score_min: 0.0,
            score_max: 0.0,
            bytes: Box::new([None; 256]),
            unknown,
            add_space_prefix: true,
            remove_extra_whitespaces: false,
        }
    }

    /// Whether a text gets a space in front, and whether runs of spaces count as one.
    pub fn with_spaces(mut self, add_prefix: bool, remove_extra: bool) -> SentencePiece {
        self.add_space_prefix = add_prefix;
        self.remove_extra_whitespaces = remove_extra;
        self
    }

    pub fn add_piece(&mut self, text: &str, id: u32, score: f32, kind: PieceKind) {
        if text.is_empty() {
            return;
        }
        let score = if score.is_finite() { f64::from(score) } else { f64::from(f32::MIN) };
        if kind == PieceKind::Normal {
            self.score_min = self.score_min.min(score);
            self.score_max = self.score_max.max(score);
        }
        self.piece_bytes_max = self.piece_bytes_max.max(text.len());
        self.pieces.insert(text.into(), Piece { id, score, kind });
    }

    pub fn add_byte(&mut self, byte: u8, id: u32) {
        self.bytes[byte as usize] = Some(id);
    }

    /// Ids of a stretch of text between control and user-defined tokens. A character that the vocabulary
    /// can't spell becomes the unknown token (one for a run of them), or nothing where there is none.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let text = self.normalise(text);
        let mut out = Output { ids: Vec::with_capacity(text.len() / 3 + 1), after_unknown: false };
        match self.algorithm {
            Algorithm::Bpe => self.encode_bpe(&text, &mut out),
            Algorithm::Unigram => self.encode_unigram(&text, &mut out),
        }
        out.ids
    }

    fn normalise(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 3);
        let text = if self.remove_extra_whitespaces { text.trim_matches(' ') } else { text };
        if self.add_space_prefix && !text.is_empty() {
            out.push('▁');
        }
        let mut after_space = false;
        for character in text.chars() {
            let space = character == ' ';
            if !(space && after_space && self.remove_extra_whitespaces) {
                out.push(if space { '▁' } else { character });
            }
            after_space = space;
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches('▁').len());
        }
        out
    }

    /// Joins neighbouring symbols, best score first and leftmost among equals, until no two form a piece.
    fn encode_bpe<'t>(&self, text: &'t str, out: &mut Output) {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, character))| Symbol {
                start,
                len: character.len_utf8(),
                previous: index.wrapping_sub(1),
                next: index + 1,
            })
            .collect();
        let count = symbols.len();
        let mut queue = BinaryHeap::new();
        // Joined texts that are no tokens, and the length of their left half.
        let mut apart: AHashMap<&'t str, usize> = AHashMap::new();
        let mut offer = |symbols: &[Symbol], left: usize, queue: &mut BinaryHeap<Join>| {
            let right = symbols[left].next;
            if right >= count {
                return;
            }
            let len = symbols[left].len + symbols[right].len;
            let joined = &text[symbols[left].start..symbols[left].start + len];
            if let Some(piece) = self.piece(joined) {
                if piece.kind == PieceKind::Unused {
                    apart.insert(joined, symbols[left].len);
                }
                queue.push(Join { score: piece.score, left: Reverse(left), right, len });
            }
        };
        for left in 0..count {
            offer(&symbols, left, &mut queue);
        }
        while let Some(join) = queue.pop() {
            let Reverse(left) = join.left;
            let right = join.right;
            // Out of date: one of the two was joined to another since.
            let (left_len, right_len) = (symbols[left].len, symbols[right].len);
            if left_len == 0 || right_len == 0 || left_len + right_len != join.len {
                continue;
            }
            symbols[left].len = join.len;
            symbols[left].next = symbols[right].next;
            symbols[right].len = 0;
            let after = symbols[left].next;
            if after < count {
                symbols[after].previous = left;
            }
            let previous = symbols[left].previous;
            if previous < count {
                offer(&symbols, previous, &mut queue);
            }
            offer(&symbols, left, &mut queue);
        }
        let mut index = 0;
        while index < count {
            let symbol = symbols[index];
            self.emit(&text[symbol.start..symbol.start + symbol.len], &apart, out);
            index = symbol.next;
        }
    }

    /// The best path over all segmentations (Viterbi), one node a byte offset.
    fn encode_unigram(&self, text: &str, out: &mut Output) {
        let mut best = vec![Node { score: f64::NEG_INFINITY, start: 0 }; text.len() + 1];
        best[0].score = 0.0;
        for (start, character) in text.char_indices() {
            let base = best[start].score;
            let single = start + character.len_utf8();
            let mut covered = false;
            let stop = text.len().min(start + self.piece_bytes_max);
            for end in (single..=stop).filter(|&end| text.is_char_boundary(end)) {
                let Some(piece) = self.piece(&text[start..end]) else { continue };
                let score = match piece.kind {
                    PieceKind::Normal => piece.score,
                    PieceKind::UserDefined => (end - start) as f64 * self.score_max - 0.1,
                    PieceKind::Unused => continue,
                };
                covered |= end == single;
                best[end].offer(base + score, start);
            }
            if !covered {
                best[single].offer(base + self.score_min - UNKNOWN_PENALTY, start);
            }
        }
        let mut ends = Vec::new();
        let mut end = text.len();
        while end > 0 {
            ends.push(end);
            end = best[end].start;
        }
        let none = AHashMap::new();
        let mut start = 0;
        for end in ends.into_iter().rev() {
            self.emit(&text[start..end], &none, out);
            start = end;
        }
    }

    fn piece(&self, text: &str) -> Option<Piece> {
        if text.len() > self.piece_bytes_max { None } else { self.pieces.get(text).copied() }
    }

    fn emit<'t>(&self, text: &'t str, apart: &AHashMap<&'t str, usize>, out: &mut Output) {
        // A stack of our own: how deep pieces nest is up to the file.
        let mut stack = vec![text];
        while let Some(text) = stack.pop() {
            match self.piece(text) {
                Some(piece) if piece.kind != PieceKind::Unused => out.push(piece.id),
                _ => match apart.get(text) {
                    Some(&left) => stack.extend([&text[left..], &text[..left]]),
                    None => self.emit_unknown(text, out),
                },
            }
        }
    }

    fn emit_unknown(&self, text: &str, out: &mut Output) {
        if text.bytes().all(|byte| self.bytes[byte as usize].is_some()) {
            for byte in text.bytes() {
                self.bytes[byte as usize].into_iter().for_each(|id| out.push(id));
            }
        } else if let Some(unknown) = self.unknown
            && !out.after_unknown
        {
            out.ids.push(unknown);
            out.after_unknown = true;
        }
    }
}

struct Output {
    ids: Vec<u32>,
    after_unknown: bool,
}

impl Output {
    fn push(&mut self, id: u32) {
        self.ids.push(id);
        self.after_unknown = false;
    }
}

/// A stretch of the text; `len` 0 once joined to its left neighbour. `previous` and `next` are indices, out of
/// range at the ends.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: usize,
    len: usize,
    previous: usize,
    next: usize,
}

#[derive(Debug)]
struct Join {
    score: f64,
    left: Reverse<usize>,
    right: usize,
    len: usize,
}

impl Ord for Join {
    fn cmp(&self, other: &Join) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| self.left.cmp(&other.left))
    }
}

impl PartialOrd for Join {
    fn partial_cmp(&self, other: &Join) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Join {
    fn eq(&self, other: &Join) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Join {}

/// The best way to reach an offset: the sum of scores, and where its last piece starts.
#[derive(Clone, Copy, Debug)]
struct Node {
    score: f64,
    start: usize,
}

impl Node {
    fn offer(&mut self, score: f64, start: usize) {
        if score > self.score {
            *self = Node { score, start };
        }
    }
}
