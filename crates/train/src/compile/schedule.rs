//! The order in which groups run: what they read before them, and, of those that may run, the one that was described
//! first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::fuse::Groups;
use super::nodes::Nodes;
use super::places::Places;
use crate::graph::Id;

/// The groups in the order of running; empty ones left out.
pub(super) fn order(nodes: &Nodes<'_>, groups: &Groups, places: &Places) -> Vec<usize> {
    let count = groups.groups.len();
    let mut after: Vec<Vec<usize>> = vec![vec![]; count];
    let mut waits = vec![0; count];
    let edge = |from: usize, to: usize, after: &mut Vec<Vec<usize>>, waits: &mut Vec<usize>| {
        if from != to {
            after[from].push(to);
            waits[to] += 1;
        }
    };
    for (index, readers) in nodes.readers.iter().enumerate() {
        let from = groups.group_of[index];
        for reader in readers {
            let to = groups.group_of[reader.index()];
            if from != usize::MAX {
                edge(from, to, &mut after, &mut waits);
            }
        }
    }
    // Whoever writes a variable runs after all that read it.
    for (index, place) in places.of.iter().enumerate() {
        let (Some(place), true) = (place, groups.group_of[index] != usize::MAX) else { continue };
        if places.storages[place.storage].fixed.is_none() {
            continue;
        }
        let leaf = places.of.iter().position(|of| of.as_ref() == Some(place));
        for reader in leaf.map_or(&[][..], |leaf| &nodes.readers[leaf]) {
            edge(groups.group_of[reader.index()], groups.group_of[index], &mut after, &mut waits);
        }
    }
    let key = |group: usize| groups.groups[group].members.last().copied().unwrap_or(Id(0));
    let mut ready: BinaryHeap<Reverse<(Id, usize)>> = (0..count)
        .filter(|&group| waits[group] == 0 && !groups.groups[group].members.is_empty())
        .map(|group| Reverse((key(group), group)))
        .collect();
    let mut order = Vec::new();
    while let Some(Reverse((_, group))) = ready.pop() {
        order.push(group);
        for &next in &after[group] {
            waits[next] -= 1;
            if waits[next] == 0 {
                ready.push(Reverse((key(next), next)));
            }
        }
    }
    let members = groups.groups.iter().filter(|group| !group.members.is_empty()).count();
    assert_eq!(order.len(), members, "operations wait for each other");
    order
}
