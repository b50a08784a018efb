//! Weight matrices, rearranged once into panels for the instruction set they will meet.

use super::panel::{Format, Of, Storage, for_quantized};
use super::quantize::Forms;
use super::{Ahead, strip_panels};
use crate::compute::{Compute, Isa};
use crate::elements::{BLOCK, ElementType, block};
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::memory::{AlignedVec, Arena, MappedPart};
use crate::threads::DisjointMut;

/// Bytes that are packed without a pause.
const AT_ONCE_BYTES: usize = 4 << 20;

/// A matrix as stored in a file: `rows` (the product's `n`) of `columns` (its `k`), row after row.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    pub element_type: ElementType,
    pub rows: usize,
    pub columns: usize,
    pub bytes: &'a [u8],
}

/// Why matrices can't be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatmulError {
    #[error("nothing to pack: at least one matrix with a row and a column is needed")]
    Empty,
    #[error(
        "stacked matrices must agree: {first} with {first_columns} columns, then {other} with {other_columns}"
    )]
    Mixed { first: ElementType, first_columns: usize, other: ElementType, other_columns: usize },
    #[error("{rows} rows of {columns} elements of {element_type} do not take {bytes} bytes")]
    Bytes { rows: usize, columns: usize, element_type: ElementType, bytes: usize },
}

/// One or more matrices with the same columns, stacked and packed.
pub struct PackedWeights {
    shape: Shape,
    data: Data,
    next: Option<Ahead>,
}

enum Data {
    Own(AlignedVec<u8>),
    Mapped(MappedPart),
}

impl Data {
    fn bytes(&self) -> &[u8] {
        match self {
            Data::Own(bytes) => bytes,
            Data::Mapped(bytes) => bytes,
        }
    }
}

/// What follows from the parts' types and sizes.
#[derive(Clone, Copy)]
struct Shape {
    element_type: ElementType,
    rows: usize,
    columns: usize,
    panel_columns: usize,
    panel_bytes: usize,
    storage: Storage,
}

impl Shape {
    /// With the bytes that a row has in the parts.
    fn of(compute: &Compute, parts: &[Weights<'_>]) -> Result<(Shape, usize), MatmulError> {
        let (element_type, columns, row_bytes) = check(parts)?;
        let lanes = match compute.isa() {
            Isa::Avx512 | Isa::Avx512Bf16 => 16,
            Isa::Portable | Isa::Avx2 => 8,
        };
        let (storage, panel_columns, panel_bytes) = match Format::of(element_type) {
            None if (element_type, compute.isa()) == (ElementType::BF16, Isa::Avx512Bf16) => {
                (Storage::Pairs, 2 * lanes, 2 * lanes * row_bytes.next_multiple_of(4))
            }
            // Two vectors of columns.
            None => (Storage::Float(element_type), 2 * lanes, 2 * lanes * row_bytes),
            Some(format) => {
                let supers = columns / BLOCK / format.per_super;
                (Storage::Quantized(format), lanes, supers * format.super_bytes(lanes))
            }
        };
        let rows = parts.iter().map(|part| part.rows).sum();
        Ok((Shape { element_type, rows, columns, panel_columns, panel_bytes, storage }, row_bytes))
    }

    /// Of all panels.
    fn bytes(&self) -> usize {
        self.rows.div_ceil(self.panel_columns) * self.panel_bytes
    }
}

impl PackedWeights {
    /// Packs the rows of `parts`, one part after the other, on all threads, into the next room of `arena`. `between` is
    /// called each time some megabytes are packed, so that what was read can be given back meanwhile.
    ///
    /// # Errors
    /// Parts that are empty, differ in type or columns, or have other bytes than their shape says.
    pub fn pack(
        compute: &Compute,
        parts: &[Weights<'_>],
        arena: &mut Arena,
        between: &mut dyn FnMut(),
    ) -> Result<PackedWeights, MatmulError> {
        let (shape, row_bytes) = Shape::of(compute, parts)?;
        let Shape { element_type, rows, columns, panel_columns, panel_bytes, storage } = shape;
        let mut data = arena.zeroed(shape.bytes());
        let panels = DisjointMut::new(&mut data);
        let store = |panel: usize| {
            // SAFETY: each panel is written by one task.
            let bytes = unsafe { panels.slice(panel * panel_bytes, panel_bytes) };
            let first = panel * panel_columns;
            let count = panel_columns.min(rows - first);
            match storage {
                Storage::Float(_) => {
                    let rows = (first..first + count).map(|index| row(parts, index, row_bytes));
                    match row_bytes / columns {
                        2 => store_floats::<2>(bytes, panel_columns, rows),
                        _ => store_floats::<4>(bytes, panel_columns, rows),
                    }
                }
                Storage::Pairs => {
                    let rows = (first..first + count).map(|index| row(parts, index, row_bytes));
                    store_pairs(bytes, panel_columns, rows);
                }
                Storage::Quantized(_) => {
                    for column in 0..count {
                        let row = row(parts, first + column, row_bytes);
                        let place = Column { panel: bytes, n: panel_columns, column };
                        for_quantized!(element_type, store_blocks(compute.isa(), row, columns, place));
                    }
                }
            }
        };
        let (count, at_once) = (rows.div_ceil(panel_columns), (AT_ONCE_BYTES / panel_bytes).max(1));
        for first in (0..count).step_by(at_once) {
            compute.pool().for_each(at_once.min(count - first), |panel| store(first + panel));
            between();
        }
        Ok(PackedWeights { shape, data: Data::Own(data), next: None })
    }

    /// What [`PackedWeights::pack`] made of the same parts on the same instruction set: `packed` is asked for so many bytes
    /// of it. `None` where it has none of that length.
    ///
    /// # Errors
    /// As for packing.
    pub fn mapped(
        compute: &Compute,
        parts: &[Weights<'_>],
        packed: impl FnOnce(usize) -> Option<MappedPart>,
    ) -> Result<Option<PackedWeights>, MatmulError> {
        let (shape, _) = Shape::of(compute, parts)?;
        let part = packed(shape.bytes()).filter(|part| part.len() == shape.bytes());
        Ok(part.map(|part| PackedWeights { shape, data: Data::Mapped(part), next: None }))
    }

    /// The packed form, which depends on parts and instruction set alone.
    pub fn as_bytes(&self) -> &[u8] {
        self.data.bytes()
    }

    /// Output columns of a product with it: the rows of all parts.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Elements that each row of activations must have.
    pub fn columns(&self) -> usize {
        self.shape.columns
    }

    pub fn element_type(&self) -> ElementType {
        self.shape.element_type
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// Says that `next` is what a product with few rows comes to after this one: its weights are then asked for early.
    pub fn followed_by(&mut self, compute: &Compute, next: &PackedWeights) {
        let panels = next.shape.rows.div_ceil(next.shape.panel_columns);
        let strip = strip_panels(next, panels, compute.pool().threads());
        self.next = Some(Ahead {
            address: next.data.bytes().as_ptr().addr(),
            strips: panels.div_ceil(strip),
            strip_bytes: strip * next.shape.panel_bytes,
            bytes: next.data.bytes().len(),
        });
    }

    /// Row `index` of the matrix as numbers, `[columns]`: those of the file.
    ///
    /// # Panics
    /// When there is no such row, or `out` has another length.
    pub fn read_row(&self, index: usize, out: &mut [f32]) {
        assert!(
            index < self.shape.rows && out.len() == self.shape.columns,
            "a row of {} elements",
            self.shape.columns
        );
        let (n, column) = (self.shape.panel_columns, index % self.shape.panel_columns);
        let panel = self.panel(index / n);
        match self.shape.storage {
            Storage::Quantized(format) => {
                for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                    format.load(panel, n, column, block).numbers(self.shape.element_type, out);
                }
            }
            Storage::Float(_) if self.shape.element_type == ElementType::F32 => {
                let column = panel.as_chunks::<4>().0.iter().skip(column).step_by(n);
                out.iter_mut().zip(column).for_each(|(out, x)| *out = f32::from_le_bytes(*x));
            }
            Storage::Float(_) => {
                let column = panel.as_chunks::<2>().0.iter().skip(column).step_by(n);
                out.iter_mut().zip(column).for_each(|(out, x)| *out = self.shape.element_type.widen(*x));
            }
            Storage::Pairs => {
                let column = panel.as_chunks::<4>().0.iter().skip(column).step_by(n);
                for (out, pair) in out.chunks_mut(2).zip(column) {
                    let pair = pair.as_chunks::<2>().0;
                    out.iter_mut().zip(pair).for_each(|(out, x)| *out = self.shape.element_type.widen(*x));
                }
            }
        }
    }

    /// The form of activations that a product with it reads.
    pub fn reads(&self) -> Forms {
        match self.shape.storage {
            Storage::Float(_) => Forms::default(),
            Storage::Pairs => Forms { pairs: true, ..Forms::default() },
            Storage::Quantized(_) => Forms { codes: true, ..Forms::default() },
        }
    }

    pub(super) fn next(&self) -> Option<Ahead> {
        self.next
    }

    pub(super) fn storage(&self) -> Storage {
        self.shape.storage
    }

    pub(super) fn panel_columns(&self) -> usize {
        self.shape.panel_columns
    }

    pub(super) fn panel_bytes(&self) -> usize {
        self.shape.panel_bytes
    }

    pub(super) fn panel(&self, index: usize) -> &[u8] {
        &self.data.bytes()[index * self.shape.panel_bytes..][..self.shape.panel_bytes]
    }
}

/// Type, columns and bytes of a row that all parts share.
fn check(parts: &[Weights<'_>]) -> Result<(ElementType, usize, usize), MatmulError> {
    let first = *parts.first().ok_or(MatmulError::Empty)?;
    let (element_type, columns) = (first.element_type, first.columns);
    let bytes_error = |part: &Weights<'_>| MatmulError::Bytes {
        rows: part.rows,
        columns: part.columns,
        element_type,
        bytes: part.bytes.len(),
    };
    let row_bytes = element_type.row_bytes(columns).ok_or_else(|| bytes_error(&first))?;
    for part in parts {
        if (part.element_type, part.columns) != (element_type, columns) {
            return Err(MatmulError::Mixed {
                first: element_type,
                first_columns: columns,
                other: part.element_type,
                other_columns: part.columns,
            });
        }
        if part.rows == 0 || columns == 0 {
            return Err(MatmulError::Empty);
        }
        if part.rows.checked_mul(row_bytes) != Some(part.bytes.len()) {
            return Err(bytes_error(part));
        }
    }
    Ok((element_type, columns, row_bytes))
}

/// Row `index` of all parts' rows.
fn row<'a>(parts: &[Weights<'a>], mut index: usize, row_bytes: usize) -> &'a [u8] {
    for part in parts {
        if index < part.rows {
            return &part.bytes[index * row_bytes..][..row_bytes];
        }
        index -= part.rows;
    }
    unreachable!("panels have no more columns than the parts have rows")
}

/// Where a row of the matrix goes.
struct Column<'a> {
    panel: &'a mut [u8],
    /// Columns of the panel.
    n: usize,
    column: usize,
}

fn store_blocks<const T: usize>(isa: Isa, row: &[u8], columns: usize, place: Column<'_>) {
    dispatch(isa, StoreBlocks::<T> { row, blocks: columns / BLOCK, place });
}

/// A row's blocks, read and laid out by code made for their type.
struct StoreBlocks<'a, const T: usize> {
    row: &'a [u8],
    blocks: usize,
    place: Column<'a>,
}

impl<const T: usize> Kernel for StoreBlocks<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Column { panel, n, column } = self.place;
        for index in 0..self.blocks {
            Of::<T>::FORMAT.store(panel, n, column, index, &block(ElementType::ALL[T], self.row, index));
        }
    }
}

/// A float panel is `[k, n]`, of elements of `B` bytes; `rows` are its columns in use.
fn store_floats<'a, const B: usize>(panel: &mut [u8], n: usize, rows: impl Iterator<Item = &'a [u8]>) {
    let rows: Vec<&[[u8; B]]> = rows.map(|row| row.as_chunks::<B>().0).collect();
    for (i, step) in panel.as_chunks_mut::<B>().0.chunks_exact_mut(n).enumerate() {
        for (place, row) in step.iter_mut().zip(&rows) {
            *place = row[i];
        }
    }
}

/// A panel of pairs is `[k/2, n, 2]`, of elements of two bytes; `rows` are its columns in use. An odd `k` ends with zeros.
fn store_pairs<'a>(panel: &mut [u8], n: usize, rows: impl Iterator<Item = &'a [u8]>) {
    let rows: Vec<(&[[u8; 4]], &[u8])> = rows.map(|row| row.as_chunks::<4>()).collect();
    for (i, step) in panel.as_chunks_mut::<4>().0.chunks_exact_mut(n).enumerate() {
        for (place, (pairs, last)) in step.iter_mut().zip(&rows) {
            match pairs.get(i) {
                Some(pair) => *place = *pair,
                None => place[..last.len()].copy_from_slice(last),
            }
        }
    }
}
