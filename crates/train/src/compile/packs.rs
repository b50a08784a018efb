//! Operands that are packed once for several products, of which some take only a part of the steps.

use std::collections::{BTreeMap, HashSet};

use kernels::gemm::Precision;

use super::drafts::Draft;
use super::places::overlap;

/// Leaves out the packing of what is a part of something else that is packed.
pub(super) fn share(drafts: &mut Vec<Draft>) {
    let mut of_storages: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Draft::Pack { from, .. } = draft {
            of_storages.entry(from.storage).or_default().push(index);
        }
    }
    let mut gone = HashSet::new();
    for packs in of_storages.into_values() {
        for &piece in &packs {
            for &whole in &packs {
                let both_stand = !gone.contains(&piece) && !gone.contains(&whole);
                let Some(part) = both_stand.then(|| part(drafts, whole, piece)).flatten() else { continue };
                take_part(drafts, whole, piece, part);
                // All is packed where the first of them was.
                if piece < whole {
                    drafts.swap(piece, whole);
                }
                gone.insert(piece.max(whole));
            }
        }
    }
    let mut index = 0..;
    drafts.retain(|_| index.next().is_some_and(|index| !gone.contains(&index)));
}

/// The first of the steps of `whole` that `piece` packs, and how many `whole` does.
fn part(drafts: &[Draft], whole: usize, piece: usize) -> Option<(usize, usize)> {
    let Draft::Pack { precision, from: all, .. } = &drafts[whole] else { return None };
    let Draft::Pack { precision: other, from: some, to } = &drafts[piece] else { return None };
    let (&[steps, columns], &[taken, same_columns]) = (&all.view.shape[..], &some.view.shape[..]) else {
        return None;
    };
    let stride = usize::try_from(all.view.strides[0]).ok().filter(|&stride| stride > 0)?;
    let distance = some.view.offset.checked_sub(all.view.offset)?;
    let first = distance / stride;
    let is_part = precision == other
        && all.view.strides == some.view.strides
        && columns == same_columns
        && distance.is_multiple_of(stride)
        && taken < steps
        && first + taken <= steps;
    let cuts_pairs = !first.is_multiple_of(2) || !taken.is_multiple_of(2);
    if !is_part || *precision == Precision::Bfloat16 && cuts_pairs {
        return None;
    }
    let between = &drafts[piece.min(whole) + 1..piece.max(whole)];
    let is_written = between.iter().flat_map(Draft::writes).any(|place| overlap(place, all));
    let reads_it = |draft: &Draft| draft.reads().iter().any(|place| place.storage == to.storage);
    let only_products = drafts.iter().all(|draft| matches!(draft, Draft::Gemm { .. }) || !reads_it(draft));
    (!is_written && only_products).then_some((first, steps))
}

/// Has products with what `piece` packs take `part` of what `whole` does.
fn take_part(drafts: &mut [Draft], whole: usize, piece: usize, part: (usize, usize)) {
    let packed = |index: usize| match &drafts[index] {
        Draft::Pack { to, .. } => Some(to.clone()),
        _ => None,
    };
    let (Some(of_all), Some(of_some)) = (packed(whole), packed(piece)) else { return };
    for draft in drafts {
        match draft {
            Draft::Gemm { b, part: steps, .. } if *b == of_some => (*b, *steps) = (of_all.clone(), part),
            _ => {}
        }
    }
}
