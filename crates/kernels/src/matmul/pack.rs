//! Weight matrices, rearranged once into panels for the instruction set they will meet.

use super::panel::{Format, Storage};
use crate::compute::{Compute, Isa};
use crate::elements::{BLOCK, ElementType, block};
use crate::memory::AlignedVec;
use crate::threads::DisjointMut;

/// Output columns of a panel of floats.
pub(super) const FLOAT_COLUMNS: usize = 16;

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
    element_type: ElementType,
    rows: usize,
    columns: usize,
    panel_columns: usize,
    panel_bytes: usize,
    storage: Storage,
    data: AlignedVec<u8>,
}

impl PackedWeights {
    /// Packs the rows of `parts`, one part after the other, on all threads.
    ///
    /// # Errors
    /// Parts that are empty, differ in type or columns, or have other bytes than their shape says.
    pub fn pack(compute: &Compute, parts: &[Weights<'_>]) -> Result<PackedWeights, MatmulError> {
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

        let (storage, panel_columns, panel_bytes) = match Format::of(element_type) {
            None => (Storage::Float(element_type), FLOAT_COLUMNS, FLOAT_COLUMNS * row_bytes),
            Some(format) => {
                let n = if compute.isa() == Isa::Avx512 { 16 } else { 8 };
                let supers = columns / BLOCK / format.per_super;
                (Storage::Quantized(format), n, supers * format.super_bytes(n))
            }
        };
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        let panels = rows.div_ceil(panel_columns);
        let mut packed = PackedWeights {
            element_type,
            rows,
            columns,
            panel_columns,
            panel_bytes,
            storage,
            data: AlignedVec::zeroed(panels * panel_bytes),
        };
        let data = DisjointMut::new(&mut packed.data);
        compute.pool().for_each(panels, |panel| {
            // SAFETY: each panel is written by one task.
            let bytes = unsafe { data.slice(panel * panel_bytes, panel_bytes) };
            for column in 0..panel_columns.min(rows - panel * panel_columns) {
                let row = row(parts, panel * panel_columns + column, row_bytes);
                match storage {
                    Storage::Float(_) => store_floats(bytes, column, row, row_bytes / columns),
                    Storage::Quantized(format) => {
                        for index in 0..columns / BLOCK {
                            format.store(
                                bytes,
                                panel_columns,
                                column,
                                index,
                                &block(element_type, row, index),
                            );
                        }
                    }
                }
            }
        });
        Ok(packed)
    }

    /// Output columns of a product with it: the rows of all parts.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements that each row of activations must have.
    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(super) fn storage(&self) -> Storage {
        self.storage
    }

    pub(super) fn panel_columns(&self) -> usize {
        self.panel_columns
    }

    pub(super) fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }

    pub(super) fn panel(&self, index: usize) -> &[u8] {
        &self.data[index * self.panel_bytes..][..self.panel_bytes]
    }
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

/// A float panel is `[k, FLOAT_COLUMNS]`.
fn store_floats(panel: &mut [u8], column: usize, row: &[u8], element_bytes: usize) {
    let steps = panel.chunks_exact_mut(FLOAT_COLUMNS * element_bytes);
    for (step, value) in steps.zip(row.chunks_exact(element_bytes)) {
        step[column * element_bytes..][..element_bytes].copy_from_slice(value);
    }
}
