//! The product of a few rows with one strip of columns, held in registers.

use crate::lanes::{Lanes, WIDTH_MAX};

/// A strip of columns and the rows to multiply with it.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Element `(row, i)` is at `a + row * a_row + i * a_step`.
    pub a: *const f32,
    pub a_row: usize,
    pub a_step: usize,
    /// `[k, width]`, packed.
    pub b: *const f32,
    pub k: usize,
    /// What the sums begin with, `[rows, columns]`; null for zeros.
    pub init: *const f32,
    pub init_row: usize,
    pub c: *mut f32,
    pub c_row: usize,
    /// Columns of the strip that exist.
    pub columns: usize,
}

/// How many rows are taken at once when `left` are left and registers hold `rows_max`.
#[inline(always)]
pub(super) fn rows_at_once(left: usize, rows_max: usize) -> usize {
    match left.min(rows_max) {
        // Eight twice are faster than twelve and four.
        12.. if left == 16 => 8,
        12.. => 12,
        8.. => 8,
        6.. => 6,
        4.. => 4,
        few => few,
    }
}

/// Multiplies `rows` rows with the strip, which is `vectors` (1 or 2) vectors wide.
///
/// # Safety
/// The tile's pointers reach as many rows, columns and steps as it says.
#[inline(always)]
pub(super) unsafe fn rows<L: Lanes>(lanes: L, tile: Tile, rows: usize, vectors: usize) {
    let mut row = 0;
    while row < rows {
        let count = rows_at_once(rows - row, L::ROWS_MAX);
        let at = Tile {
            // SAFETY: `row` is below `rows`, so all stay inside what the caller promises.
            a: unsafe { tile.a.add(row * tile.a_row) },
            // SAFETY: as above; a null pointer stays null.
            init: if tile.init.is_null() { tile.init } else { unsafe { tile.init.add(row * tile.init_row) } },
            // SAFETY: as above.
            c: unsafe { tile.c.add(row * tile.c_row) },
            ..tile
        };
        // SAFETY: `count` rows are left.
        unsafe { some_rows(lanes, at, count, vectors) };
        row += count;
    }
}

/// Multiplies `count` rows, one of the numbers of [`rows_at_once`].
///
/// # Safety
/// As [`rows`].
#[inline(always)]
pub(super) unsafe fn some_rows<L: Lanes>(lanes: L, tile: Tile, count: usize, vectors: usize) {
    macro_rules! sized {
        ($rows:literal) => {
            match (vectors, tile.a_row) {
                (2, 1) => multiply::<L, $rows, 2, true>(lanes, tile),
                (2, _) => multiply::<L, $rows, 2, false>(lanes, tile),
                (_, 1) => multiply::<L, $rows, 1, true>(lanes, tile),
                _ => multiply::<L, $rows, 1, false>(lanes, tile),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match count {
            12 if L::ROWS_MAX >= 12 => sized!(12),
            8 if L::ROWS_MAX >= 8 => sized!(8),
            6 if L::ROWS_MAX >= 6 => sized!(6),
            4 if L::ROWS_MAX >= 4 => sized!(4),
            3 if L::ROWS_MAX >= 3 => sized!(3),
            2 => sized!(2),
            _ => sized!(1),
        }
    }
}

/// # Safety
/// As [`rows`], for `R` rows; `UNIT` says that `a_row` is 1.
#[inline(always)]
unsafe fn multiply<L: Lanes, const R: usize, const V: usize, const UNIT: bool>(lanes: L, tile: Tile) {
    let mut sums = [[lanes.splat(0.0); V]; R];
    let whole = tile.columns == V * L::WIDTH;
    if !tile.init.is_null() {
        for r in 0..R {
            // SAFETY: a row of the tile.
            let from = unsafe { tile.init.add(r * tile.init_row) };
            let mut edge = [0.0f32; 2 * WIDTH_MAX];
            let from = if whole {
                from
            } else {
                // SAFETY: `columns` values are there, and fit.
                unsafe { std::ptr::copy_nonoverlapping(from, edge.as_mut_ptr(), tile.columns) };
                edge.as_ptr()
            };
            for v in 0..V {
                // SAFETY: whole strips have that many values, and the edge's copy too.
                sums[r][v] = unsafe { lanes.load(from.add(v * L::WIDTH)) };
            }
        }
    }
    let row_step = if UNIT { 1 } else { tile.a_row };
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.k {
        // SAFETY: the caller's promise: `k` steps of both operands.
        unsafe {
            let mut columns = [lanes.splat(0.0); V];
            for v in 0..V {
                columns[v] = lanes.load(b.add(v * L::WIDTH));
            }
            // Three rows a base, so that an address is a base and at most twice the row's step.
            for base in 0..R.div_ceil(3) {
                let rows = a.add(base * 3 * row_step);
                for r in base * 3..(base * 3 + 3).min(R) {
                    let value = lanes.splat(*rows.add((r - base * 3) * row_step));
                    for v in 0..V {
                        sums[r][v] = lanes.fma(value, columns[v], sums[r][v]);
                    }
                }
            }
            a = a.add(tile.a_step);
            b = b.add(V * L::WIDTH);
        }
    }
    for r in 0..R {
        // SAFETY: a row of the tile.
        let to = unsafe { tile.c.add(r * tile.c_row) };
        if whole {
            for v in 0..V {
                // SAFETY: the strip is whole.
                unsafe { lanes.store(to.add(v * L::WIDTH), sums[r][v]) };
            }
        } else {
            let mut edge = [0.0f32; 2 * WIDTH_MAX];
            for v in 0..V {
                lanes.write(&mut edge[v * L::WIDTH..], sums[r][v]);
            }
            // SAFETY: `columns` places are there.
            unsafe { std::ptr::copy_nonoverlapping(edge.as_ptr(), to, tile.columns) };
        }
    }
}
