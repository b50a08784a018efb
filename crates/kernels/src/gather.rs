//! Rows of a table by their number, and the sum of rows back into a table.

use crate::compute::Compute;
use crate::workspace::{View, Workspace};

/// Floats that are moved without waking the other threads.
const SERIAL: usize = 64 * 1024;

/// Takes rows out of a table or adds them into one. Numbers of rows are f32; what is no row's number gives a row of NaN,
/// and is added nowhere.
pub struct Rows {
    table: usize,
    rows: usize,
    width: usize,
    indices: usize,
    count: usize,
    values: usize,
    adds: bool,
    needed: usize,
}

impl Rows {
    /// `values[i] = table[indices[i]]` for the contiguous `table` `[rows, width]`, `indices` `[count]` and `values`
    /// `[count, width]`, given by offsets.
    ///
    /// # Panics
    /// When places overlap.
    pub fn take(
        [rows, width]: [usize; 2],
        count: usize,
        table: usize,
        indices: usize,
        values: usize,
    ) -> Rows {
        Rows::new([rows, width], count, table, indices, values, false)
    }

    /// `table = 0; table[indices[i]] += values[i]`, in the order of `i`.
    ///
    /// # Panics
    /// When places overlap.
    pub fn add([rows, width]: [usize; 2], count: usize, table: usize, indices: usize, values: usize) -> Rows {
        Rows::new([rows, width], count, table, indices, values, true)
    }

    fn new(
        [rows, width]: [usize; 2],
        count: usize,
        table: usize,
        indices: usize,
        values: usize,
        adds: bool,
    ) -> Rows {
        let places = [
            View::contiguous(table, &[rows * width]),
            View::contiguous(indices, &[count]),
            View::contiguous(values, &[count * width]),
        ];
        let written = if adds { 0 } else { 2 };
        let apart = (0..3).all(|i| i == written || places[i].is_apart(&places[written]));
        assert!(apart, "rows are written over what is read");
        let needed = places.iter().map(|place| place.range().end).max().unwrap_or(0);
        Rows { table, rows, width, indices, count, values, adds, needed }
    }

    fn row_of(&self, index: f32) -> Option<usize> {
        (index >= 0.0 && index < self.rows as f32).then_some(index as usize)
    }

    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        let memory = workspace.memory(self.needed, compute.pool());
        let width = self.width;
        let threads = if self.count * width <= SERIAL { 1 } else { compute.pool().threads() };
        let part = |worker: usize| {
            // SAFETY: `new` found the places inside the workspace and the one that is written apart from the others; each
            // worker writes rows of its own share.
            unsafe {
                let indices = std::slice::from_raw_parts(memory.at(self.indices).cast_const(), self.count);
                if self.adds {
                    let share = self.rows.div_ceil(threads);
                    let mine = (worker * share).min(self.rows)..((worker + 1) * share).min(self.rows);
                    let table = std::slice::from_raw_parts_mut(
                        memory.at(self.table + mine.start * width),
                        mine.len() * width,
                    );
                    table.fill(0.0);
                    for (i, &index) in indices.iter().enumerate() {
                        let Some(row) = self.row_of(index).filter(|row| mine.contains(row)) else { continue };
                        let from = std::slice::from_raw_parts(
                            memory.at(self.values + i * width).cast_const(),
                            width,
                        );
                        let to = &mut table[(row - mine.start) * width..][..width];
                        to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
                    }
                } else {
                    let share = self.count.div_ceil(threads);
                    let mine = (worker * share).min(self.count)..((worker + 1) * share).min(self.count);
                    for i in mine {
                        let to = std::slice::from_raw_parts_mut(memory.at(self.values + i * width), width);
                        match self.row_of(indices[i]) {
                            Some(row) => to.copy_from_slice(std::slice::from_raw_parts(
                                memory.at(self.table + row * width).cast_const(),
                                width,
                            )),
                            None => to.fill(f32::NAN),
                        }
                    }
                }
            }
        };
        if threads == 1 { part(0) } else { compute.pool().run(part) }
    }
}
