//! How the bytes of a tensor fall into planes: numbers of a kind, which are coded together.

use kernels::elements::ElementType;

/// What a chunk's bytes are: records of one form, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Nothing is known of them.
    Bytes,
    /// Floats of 16 bits, `F16` or `BF16`.
    Words16,
    /// Floats of 32 bits.
    Words32,
    /// Blocks of a quantised type.
    Blocks(ElementType),
}

/// A part of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Bytes alike, in one plane.
    Bytes { at: usize, width: usize },
    /// A float of 16 bits: two planes, the upper first.
    Word16 { at: usize },
    /// A float of 32 bits: four planes, the uppermost first.
    Word32 { at: usize },
}

const fn bytes(at: usize, width: usize) -> Field {
    Field::Bytes { at, width }
}

const fn half(at: usize) -> Field {
    Field::Word16 { at }
}

/// Every layout with its number in the format. Those that are here don't change any more.
const NUMBERS: [(u8, Layout); 15] = [
    (0, Layout::Bytes),
    (1, Layout::Words16),
    (2, Layout::Words32),
    (16, Layout::Blocks(ElementType::Q4_0)),
    (17, Layout::Blocks(ElementType::Q4_1)),
    (18, Layout::Blocks(ElementType::Q5_0)),
    (19, Layout::Blocks(ElementType::Q5_1)),
    (20, Layout::Blocks(ElementType::Q8_0)),
    (21, Layout::Blocks(ElementType::Q2_K)),
    (22, Layout::Blocks(ElementType::Q3_K)),
    (23, Layout::Blocks(ElementType::Q4_K)),
    (24, Layout::Blocks(ElementType::Q5_K)),
    (25, Layout::Blocks(ElementType::Q6_K)),
    (26, Layout::Blocks(ElementType::IQ4_NL)),
    (27, Layout::Blocks(ElementType::IQ4_XS)),
];

impl Layout {
    /// That of tensors of a type.
    pub fn of(element_type: ElementType) -> Layout {
        match element_type {
            ElementType::F32 => Layout::Words32,
            ElementType::F16 | ElementType::BF16 => Layout::Words16,
            quantised => Layout::Blocks(quantised),
        }
    }

    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Layout> {
        NUMBERS.into_iter().map(|(_, layout)| layout)
    }

    pub(super) fn number(self) -> u8 {
        NUMBERS.iter().find(|(_, layout)| *layout == self).map_or(0, |(number, _)| *number)
    }

    pub(super) fn from_number(number: u8) -> Option<Layout> {
        NUMBERS.iter().find(|(known, _)| *known == number).map(|(_, layout)| *layout)
    }

    /// Bytes of a record.
    pub fn stride(self) -> usize {
        match self {
            Layout::Bytes => 1,
            Layout::Words16 => 2,
            Layout::Words32 => 4,
            Layout::Blocks(element_type) => element_type.block_bytes(),
        }
    }

    /// The record's parts, in order and without gaps.
    ///
    /// Source of the blocks: `ggml-common.h` of ggml. `F32`, `F16` and `BF16` are no blocks and have words.
    pub(super) fn fields(self) -> &'static [Field] {
        use ElementType::*;
        match self {
            Layout::Bytes => const { &[bytes(0, 1)] },
            Layout::Words16 | Layout::Blocks(F16 | BF16) => const { &[half(0)] },
            Layout::Words32 | Layout::Blocks(F32) => const { &[Field::Word32 { at: 0 }] },
            Layout::Blocks(Q4_0 | IQ4_NL) => const { &[half(0), bytes(2, 16)] },
            Layout::Blocks(Q4_1) => const { &[half(0), half(2), bytes(4, 16)] },
            Layout::Blocks(Q5_0) => const { &[half(0), bytes(2, 4), bytes(6, 16)] },
            Layout::Blocks(Q5_1) => const { &[half(0), half(2), bytes(4, 4), bytes(8, 16)] },
            Layout::Blocks(Q8_0) => const { &[half(0), bytes(2, 32)] },
            Layout::Blocks(Q2_K) => const { &[bytes(0, 16), bytes(16, 64), half(80), half(82)] },
            Layout::Blocks(Q3_K) => const { &[bytes(0, 32), bytes(32, 64), bytes(96, 12), half(108)] },
            Layout::Blocks(Q4_K) => const { &[half(0), half(2), bytes(4, 12), bytes(16, 128)] },
            Layout::Blocks(Q5_K) => {
                const { &[half(0), half(2), bytes(4, 12), bytes(16, 32), bytes(48, 128)] }
            }
            Layout::Blocks(Q6_K) => const { &[bytes(0, 128), bytes(128, 64), bytes(192, 16), half(208)] },
            Layout::Blocks(IQ4_XS) => const { &[half(0), bytes(2, 2), bytes(4, 4), bytes(8, 128)] },
        }
    }
}

impl Field {
    /// Where it begins in a record, and its bytes.
    pub(super) fn place(self) -> (usize, usize) {
        match self {
            Field::Bytes { at, width } => (at, width),
            Field::Word16 { at } => (at, 2),
            Field::Word32 { at } => (at, 4),
        }
    }

    pub(super) fn planes(self) -> usize {
        match self {
            Field::Bytes { .. } => 1,
            Field::Word16 { .. } => 2,
            Field::Word32 { .. } => 4,
        }
    }
}

#[test]
fn fields_cover_each_record_without_gaps() {
    for layout in Layout::all() {
        let mut end = 0;
        for field in layout.fields() {
            let (at, width) = field.place();
            assert_eq!(at, end, "{layout:?}");
            end += width;
        }
        assert_eq!(end, layout.stride(), "{layout:?}");
        assert_eq!(Layout::from_number(layout.number()), Some(layout));
    }
    assert!(ElementType::ALL.into_iter().all(|ty| Layout::all().any(|layout| layout == Layout::of(ty))));
}
