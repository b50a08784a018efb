//! Choosing the few that matter out of a vocabulary, without sorting it.

use std::cmp::Ordering;

/// A token that may be chosen, and its unnormalised probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    pub weight: f32,
}

/// How many more candidates are put in order at a time when a filter asks for the best until a sum is reached.
const ORDERED_FIRST: usize = 64;

/// Heaviest first, and the lower id among equals: a total order, whatever the selection does in between.
pub(super) fn heavier(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// The `k` heaviest of all weights, in order. `out` is cleared first and holds at most `2k` on the way.
pub(super) fn top_k(weights: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let k = k.min(weights.len());
    if k == 0 {
        return;
    }
    // Whatever is not above the k-th best so far can't enter: equals have higher ids.
    let mut threshold = f32::NEG_INFINITY;
    for (id, &weight) in weights.iter().enumerate() {
        if weight > threshold || out.len() < k {
            out.push(Candidate { id: id as u32, weight });
            if out.len() == 2 * k {
                out.select_nth_unstable_by(k - 1, heavier);
                out.truncate(k);
                threshold = out[k - 1].weight;
            }
        }
    }
    out.sort_unstable_by(heavier);
    out.truncate(k);
}

/// Keeps the first candidates in `order` whose weights reach `share` of the total; at least one. They end up in
/// that order.
pub(super) fn keep_share(
    candidates: &mut Vec<Candidate>,
    total: f64,
    share: f64,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
) {
    let wanted = total * share;
    let mut sum = 0.0;
    let mut ordered = 0;
    while ordered < candidates.len() {
        let rest = &mut candidates[ordered..];
        let count = ORDERED_FIRST.max(ordered).min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by(count, &order);
        }
        rest[..count].sort_unstable_by(&order);
        for index in ordered..ordered + count {
            sum += f64::from(candidates[index].weight);
            if sum >= wanted {
                candidates.truncate(index + 1);
                return;
            }
        }
        ordered += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(weights: &[f32]) -> Vec<Candidate> {
        let mut all: Vec<Candidate> =
            weights.iter().enumerate().map(|(id, &weight)| Candidate { id: id as u32, weight }).collect();
        all.sort_by(heavier);
        all
    }

    proptest! {
        #[test]
        fn top_k_is_the_head_of_the_sorted_list(
            weights in prop::collection::vec(prop_oneof![0.0f32..1.0, Just(0.5), Just(0.0)], 1..300),
            k in 0usize..40,
        ) {
            let mut out = Vec::new();
            top_k(&weights, k, &mut out);
            let mut expected = sorted(&weights);
            expected.truncate(k);
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn keep_share_is_the_shortest_head_that_reaches_it(
            weights in prop::collection::vec(0.0f32..1.0, 1..400),
            share in 0.0f64..1.0,
        ) {
            let mut found = sorted(&weights);
            found.sort_by_key(|candidate| candidate.id);
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            keep_share(&mut found, total, share, heavier);
            let mut sum = 0.0;
            let mut expected = sorted(&weights);
            let reached = expected.iter().position(|candidate| {
                sum += f64::from(candidate.weight);
                sum >= total * share
            });
            expected.truncate(reached.map_or(weights.len(), |index| index + 1));
            prop_assert_eq!(found, expected);
        }
    }
}
