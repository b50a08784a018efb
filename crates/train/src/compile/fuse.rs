//! Which elementwise nodes and row reductions make one pass over memory.
//!
//! Every operation begins as a group of its own; a step's group and its producers' merge where no other group would
//! have to run both after the one and before the other.

use std::collections::BTreeSet;

use kernels::fused::ROW_MAX;

use super::nodes::{Kind, Nodes};
use crate::graph::Id;

/// Steps and inputs of a pass, at most: its values must fit in registers of the fused kernels.
pub(super) const SIZE_MAX: usize = 32;

pub(super) struct Group {
    /// Nodes in rising order.
    pub members: Vec<Id>,
    /// What a fused pass runs over; none for other operations.
    pub space: Option<Vec<usize>>,
}

pub(super) struct Groups {
    pub groups: Vec<Group>,
    /// The group that computes each node; `usize::MAX` for leaves, views and nodes that nothing needs.
    pub group_of: Vec<usize>,
}

impl Groups {
    pub(super) fn new(nodes: &Nodes<'_>) -> Groups {
        let mut groups = Groups { groups: vec![], group_of: vec![usize::MAX; nodes.kinds.len()] };
        for (index, kind) in nodes.kinds.iter().enumerate() {
            let id = Id(index as u32);
            let space = match kind {
                Kind::Dead | Kind::Leaf | Kind::Alias | Kind::Inlined => continue,
                Kind::Step => Some(nodes.graph.shape(id).to_vec()),
                Kind::RowStep(_) => Some(nodes.graph.shape(nodes.graph.node(id).inputs[0]).to_vec()),
                _ => None,
            };
            groups.group_of[index] = groups.groups.len();
            groups.groups.push(Group { members: vec![id], space });
        }
        for index in 0..nodes.kinds.len() {
            let id = Id(index as u32);
            if !nodes.is_step(id) {
                continue;
            }
            for input in nodes.operands(id).into_iter().rev() {
                if let Some((producer, _)) = nodes.step_behind(input) {
                    groups.merge_if_legal(nodes, index, producer.index());
                }
            }
        }
        groups
    }

    /// The space of two spaces' common pass: equal, or rows of 1 within rows.
    fn common_space(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
        if a == b {
            return Some(a.to_vec());
        }
        let (Some((last_a, lead_a)), Some((last_b, lead_b))) = (a.split_last(), b.split_last()) else {
            return None;
        };
        let row = *last_a.max(last_b);
        let by_rows = lead_a == lead_b && (*last_a == 1 || *last_b == 1) && row <= ROW_MAX;
        by_rows.then(|| [lead_a, &[row]].concat())
    }

    fn merge_if_legal(&mut self, nodes: &Nodes<'_>, step: usize, producer: usize) {
        let (a, b) = (self.group_of[producer], self.group_of[step]);
        if a == b {
            return;
        }
        let (Some(space_a), Some(space_b)) = (&self.groups[a].space, &self.groups[b].space) else { return };
        let Some(space) = Groups::common_space(space_a, space_b) else { return };
        if !self.is_small(nodes, a, b) || !self.fits(nodes, a, b, &space) {
            return;
        }
        // The producer's group never depends on the reader's: groups don't wait for each other.
        if self.reaches_around(nodes, a, b, step) {
            return;
        }
        let moved = std::mem::take(&mut self.groups[a].members);
        moved.iter().for_each(|id| self.group_of[id.index()] = b);
        self.groups[a].space = None;
        let group = &mut self.groups[b];
        group.members.extend(moved);
        group.members.sort_unstable();
        group.space = Some(space);
    }

    fn is_small(&self, nodes: &Nodes<'_>, a: usize, b: usize) -> bool {
        let members = self.groups[a].members.iter().chain(&self.groups[b].members);
        let mut outside = BTreeSet::new();
        let mut count = 0;
        for &id in members {
            count += 1;
            for input in nodes.operands(id) {
                let group = self.group_of[nodes.base(input).index()];
                if group != a && group != b {
                    outside.insert(input);
                }
            }
        }
        count + outside.len() <= SIZE_MAX
    }

    /// Whether all that members of one read of the other is read element by element or row by row, in the common space.
    fn fits(&self, nodes: &Nodes<'_>, a: usize, b: usize, space: &[usize]) -> bool {
        let inside = |id: Id| [a, b].contains(&self.group_of[id.index()]);
        let members = self.groups[a].members.iter().chain(&self.groups[b].members);
        members.copied().all(|id| {
            // A row of 1 reduced to itself doesn't occur; a reduction's operand has the whole space.
            let whole = !matches!(nodes.kinds[id.index()], Kind::RowStep(_))
                || nodes.graph.shape(nodes.graph.node(id).inputs[0]) == space;
            whole
                && nodes.operands(id).into_iter().all(|input| {
                    !inside(nodes.base(input))
                        || nodes
                            .step_behind(input)
                            .is_some_and(|(_, by_rows)| !by_rows || nodes.graph.shape(input) == space)
                })
        })
    }

    /// Whether `to` depends on `from` through a third group, while no step after `last` has been merged: ways through what
    /// comes after it only lead farther.
    fn reaches_around(&self, nodes: &Nodes<'_>, from: usize, to: usize, last: usize) -> bool {
        let mut seen = vec![false; self.groups.len()];
        seen[from] = true;
        let mut open = vec![from];
        while let Some(group) = open.pop() {
            let readers = self.groups[group].members.iter().flat_map(|member| &nodes.readers[member.index()]);
            for reader in readers.filter(|reader| reader.index() <= last) {
                let next = self.group_of[reader.index()];
                if next == to && group != from {
                    return true;
                }
                if next != to && !seen[next] {
                    seen[next] = true;
                    open.push(next);
                }
            }
        }
        false
    }
}
