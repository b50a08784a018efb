//! Offsets for storages: those that aren't alive together may share memory, and results take the place of operands
//! that nothing needs any more.

use std::ops::Range;

use kernels::workspace::View;

use super::drafts::Draft;
use super::places::{Place, Storage, overlap};

/// Lets results take the place of operands that are read for the last time, be they parts of a storage.
pub(super) fn reuse_in_place(drafts: &mut [Draft], storages: &[Storage]) {
    let mut planned = Planned {
        storages,
        writes: vec![0; storages.len()],
        touches: vec![vec![]; storages.len()],
        instead: vec![None; storages.len()],
    };
    for (index, draft) in drafts.iter().enumerate() {
        for place in draft.reads().into_iter().chain(draft.writes()) {
            planned.touches[place.storage].push((index, place.view.clone()));
        }
        draft.writes().iter().for_each(|place| planned.writes[place.storage] += 1);
    }
    for (index, draft) in drafts.iter_mut().enumerate() {
        rename(draft, &planned.instead);
        let mut taken: Vec<(usize, Place)> = Vec::new();
        for to in draft.writes() {
            let fits = |from: &&&Place| {
                !taken.iter().any(|(_, other)| overlap(other, from))
                    && planned.may_take(index, draft, from, to)
            };
            if planned.is_fresh(to)
                && let Some(from) = candidates(draft).iter().find(fits)
            {
                taken.push((to.storage, (*from).clone()));
            }
        }
        for (old, from) in taken {
            planned.take(old, from);
        }
        rename(draft, &planned.instead);
    }
}

/// Operands whose place a result may take.
fn candidates(draft: &Draft) -> Vec<&Place> {
    match draft {
        Draft::Fused { inputs, outputs, steps, .. } => {
            let rows: Vec<bool> = outputs.iter().map(|(step, _)| steps[*step].row).collect();
            inputs.iter().filter(|(_, row)| rows.contains(row)).map(|(place, _)| place).collect()
        }
        Draft::Gemm { init: Some(init), .. } => vec![init],
        _ => vec![],
    }
}

/// What is known of storages while results take places.
struct Planned<'a> {
    storages: &'a [Storage],
    /// How many operations write to each.
    writes: Vec<usize>,
    /// Which operations touch which parts of each.
    touches: Vec<Vec<(usize, View)>>,
    instead: Vec<Option<Moved>>,
}

/// Where a storage that takes the place of a part of another one is: from `by` on in `storage`.
#[derive(Clone, Copy)]
struct Moved {
    storage: usize,
    by: usize,
}

impl Planned<'_> {
    /// Whether a result is all that its storage is for.
    fn is_fresh(&self, to: &Place) -> bool {
        let storage = &self.storages[to.storage];
        storage.fixed.is_none()
            && !storage.from_start
            && !storage.to_end
            && self.writes[to.storage] == 1
            && to.view.is_contiguous()
            && to.view.elements() == storage.len
    }

    /// Whether operation `index` may write to `from` what it would write to `to`.
    fn may_take(&self, index: usize, draft: &Draft, from: &Place, to: &Place) -> bool {
        let source = &self.storages[from.storage];
        let last = |storage: usize| self.touches[storage].iter().map(|(index, _)| index).max();
        // A small part should not keep the whole alive.
        let lives_no_longer =
            source.len == self.storages[to.storage].len || last(to.storage) <= last(from.storage);
        let readers = draft.reads().into_iter().filter(|place| overlap(place, from));
        let is_read_in_step = readers.clone().all(|place| place.view == from.view)
            && (readers.count() == 1 || matches!(draft, Draft::Fused { .. }));
        let is_touched_later = |(other, view): &(usize, View)| *other > index && !view.is_apart(&from.view);
        from.view.shape == to.view.shape
            && from.view.strides == to.view.strides
            && source.fixed.is_none()
            && !source.to_end
            && lives_no_longer
            && is_read_in_step
            && !draft.writes().into_iter().any(|place| overlap(place, from))
            && row_of(draft, from, false) == row_of(draft, to, true)
            && !self.touches[from.storage].iter().any(is_touched_later)
    }

    /// Puts storage `old` where `from` is.
    fn take(&mut self, old: usize, from: Place) {
        let Place { storage, view } = from;
        self.instead[old] = Some(Moved { storage, by: view.offset });
        for (index, mut touched) in std::mem::take(&mut self.touches[old]) {
            touched.offset += view.offset;
            self.touches[storage].push((index, touched));
        }
        self.writes[storage] += self.writes[old];
    }
}

/// Whether a fused pass has one value a row there.
fn row_of(draft: &Draft, place: &Place, written: bool) -> Option<bool> {
    let Draft::Fused { inputs, outputs, steps, .. } = draft else { return None };
    if written {
        return outputs.iter().find(|(_, to)| to == place).map(|(step, _)| steps[*step].row);
    }
    inputs.iter().find(|(from, _)| from == place).map(|(_, row)| *row)
}

fn rename(draft: &mut Draft, instead: &[Option<Moved>]) {
    let change = |place: &mut Place| {
        while let Some(Moved { storage, by }) = instead[place.storage] {
            place.storage = storage;
            place.view.offset += by;
        }
    };
    match draft {
        Draft::Fused { inputs, outputs, .. } => {
            inputs.iter_mut().for_each(|(place, _)| change(place));
            outputs.iter_mut().for_each(|(_, place)| change(place));
        }
        Draft::Pack { from, to, .. } => [from, to].into_iter().for_each(change),
        Draft::Gemm { a, b, init, c, .. } => [a, b, c].into_iter().chain(init).for_each(change),
        Draft::Reduce { from, to, working, .. } => [from, to, working].into_iter().for_each(change),
        Draft::Convolution { read, to, working, .. } => {
            read.iter_mut().chain([to]).chain(working).for_each(change);
        }
        Draft::Pool { read, to, .. } => read.iter_mut().chain([to]).for_each(change),
        Draft::Rows { table, indices, values, .. } => [table, indices, values].into_iter().for_each(change),
    }
}

/// An offset for each storage from `start` on, and the end of all. Offsets are multiples of a cache line. What a run of
/// operations touches lives as long as the run: some rows are through with it while others aren't there yet.
pub(super) fn offsets(
    drafts: &[Draft],
    storages: &[Storage],
    start: usize,
    runs: &[Range<usize>],
) -> (Vec<usize>, usize) {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; storages.len()];
    for (storage, life) in storages.iter().zip(&mut lives) {
        if storage.from_start {
            *life = Some((0, 0));
        }
    }
    for (index, draft) in drafts.iter().enumerate() {
        for place in draft.reads().into_iter().chain(draft.writes()) {
            let life = lives[place.storage].get_or_insert((index, index));
            life.1 = index;
        }
    }
    for run in runs {
        for life in lives.iter_mut().flatten() {
            if life.0 < run.end && run.start <= life.1 {
                *life = (life.0.min(run.start), life.1.max(run.end - 1));
            }
        }
    }
    for (storage, life) in storages.iter().zip(&mut lives) {
        if let (true, Some(life)) = (storage.to_end, life) {
            life.1 = drafts.len();
        }
    }
    let mut offsets: Vec<usize> = storages.iter().map(|storage| storage.fixed.unwrap_or(start)).collect();
    let mut waiting: Vec<usize> =
        (0..storages.len()).filter(|&i| storages[i].fixed.is_none() && lives[i].is_some()).collect();
    waiting.sort_by_key(|&i| std::cmp::Reverse(storages[i].len));
    let mut placed: Vec<usize> = Vec::new();
    let mut end = start;
    for &index in &waiting {
        let Some(life) = lives[index] else { continue };
        let len = storages[index].len.next_multiple_of(kernels::workspace::LINE);
        let overlaps =
            |&&other: &&usize| lives[other].is_some_and(|other| other.0 <= life.1 && life.0 <= other.1);
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(overlaps)
            .map(|&other| (offsets[other], offsets[other] + storages[other].len))
            .collect();
        taken.sort_unstable();
        let mut at = start;
        for (from, to) in taken {
            if at + len <= from {
                break;
            }
            at = at.max(to.next_multiple_of(kernels::workspace::LINE));
        }
        offsets[index] = at;
        end = end.max(at + len);
        placed.push(index);
    }
    (offsets, end)
}
