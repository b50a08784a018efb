//! Offsets for storages: those that aren't alive together may share memory, and results take the place of operands
//! that nothing needs any more.

use std::ops::Range;

use super::drafts::Draft;
use super::places::{Place, Storage};

/// Lets results take the place of operands that are read for the last time.
pub(super) fn reuse_in_place(drafts: &mut [Draft], storages: &mut [Storage]) {
    let mut last_read = vec![0; storages.len()];
    let mut writes = vec![0; storages.len()];
    for (index, draft) in drafts.iter().enumerate() {
        draft.reads().iter().for_each(|place| last_read[place.storage] = index);
        draft.writes().iter().for_each(|place| writes[place.storage] += 1);
    }
    let mut instead: Vec<usize> = (0..storages.len()).collect();
    for index in 0..drafts.len() {
        rename(&mut drafts[index], &instead);
        let draft = &drafts[index];
        let candidates: Vec<&Place> = match draft {
            Draft::Fused { inputs, outputs, steps, .. } => {
                let row = |step: usize| steps[step].row;
                let rows = outputs.iter().map(|(step, _)| row(*step)).collect::<Vec<_>>();
                inputs.iter().filter(|(_, row)| rows.contains(row)).map(|(place, _)| place).collect()
            }
            Draft::Gemm { init: Some(init), .. } => vec![init],
            _ => continue,
        };
        let mut renamed = Vec::new();
        for to in draft.writes() {
            let storage = &storages[to.storage];
            let is_fresh = storage.fixed.is_none()
                && !storage.from_start
                && !storage.to_end
                && writes[to.storage] == 1
                && to.view.is_contiguous()
                && to.view.elements() == storage.len;
            if !is_fresh {
                continue;
            }
            let fits = |from: &&&Place| {
                let source = &storages[from.storage];
                let readers = draft.reads().into_iter().filter(|place| place.storage == from.storage);
                from.view == to.view
                    && source.fixed.is_none()
                    && !source.to_end
                    && source.len == storage.len
                    && last_read[from.storage] == index
                    && readers.clone().all(|place| place.view == from.view)
                    && (readers.count() == 1 || matches!(draft, Draft::Fused { .. }))
                    && !renamed.iter().any(|(_, taken)| *taken == from.storage)
                    && row_of(draft, from, false) == row_of(draft, to, true)
            };
            if let Some(from) = candidates.iter().find(fits) {
                renamed.push((to.storage, from.storage));
            }
        }
        for (old, new) in renamed {
            instead[old] = new;
            last_read[new] = last_read[old].max(last_read[new]);
            writes[new] += writes[old];
        }
        rename(&mut drafts[index], &instead);
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

fn rename(draft: &mut Draft, instead: &[usize]) {
    let change = |place: &mut Place| {
        while instead[place.storage] != place.storage {
            place.storage = instead[place.storage];
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
