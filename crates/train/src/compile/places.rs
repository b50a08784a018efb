//! Which storage holds each node, and where within it: parts of a concatenation are computed in place, and new values
//! of variables where the old ones are.

use std::cmp::Reverse;

use kernels::workspace::View;

use super::fuse::Groups;
use super::nodes::{Kind, Nodes};
use super::views::reshaped;
use crate::graph::{Id, Op};

/// A piece of memory that lives from its first write to its last read.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub len: usize,
    /// A variable's offset in the workspace.
    pub fixed: Option<usize>,
    /// Alive before the first operation.
    pub from_start: bool,
    /// Alive after the last one.
    pub to_end: bool,
}

/// A view of a storage; its offset counts from the storage's beginning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub storage: usize,
    pub view: View,
}

/// Whether some of both is the same.
pub(super) fn overlap(place: &Place, other: &Place) -> bool {
    place.storage == other.storage && !place.view.is_apart(&other.view)
}

pub(super) struct Places {
    pub storages: Vec<Storage>,
    /// Of nodes with memory of their own; views have none.
    pub of: Vec<Option<Place>>,
}

impl Places {
    pub(super) fn new(
        nodes: &Nodes<'_>,
        groups: &Groups,
        variables: &[usize],
        updates: &[(usize, Id)],
    ) -> Places {
        let mut places = Places { storages: vec![], of: vec![None; nodes.kinds.len()] };
        places.leaves(nodes, variables);
        for &(variable, id) in updates {
            places.update_in_place(nodes, groups, variable, id, updates);
        }
        for (id, axis) in concatenations(nodes) {
            if places.of[id.index()].is_none() {
                places.of[id.index()] = places.in_line(nodes, id, axis);
            }
            places.own(nodes, id);
            places.parts(nodes, id, axis);
        }
        for index in 0..nodes.kinds.len() {
            let id = Id(index as u32);
            let has_memory = match nodes.kinds[index] {
                Kind::Copy | Kind::Own | Kind::ProductFrom { .. } => true,
                Kind::Step | Kind::RowStep(_) => {
                    nodes.wanted[index] || places.is_read_outside(nodes, groups, id)
                }
                _ => false,
            };
            if has_memory {
                places.own(nodes, id);
            }
        }
        places
    }

    pub(super) fn storage(&mut self, len: usize) -> usize {
        self.storages.push(Storage { len, fixed: None, from_start: false, to_end: false });
        self.storages.len() - 1
    }

    /// A new storage for a contiguous tensor.
    pub(super) fn temporary(&mut self, shape: &[usize]) -> Place {
        let storage = self.storage(shape.iter().product());
        Place { storage, view: View::contiguous(0, shape) }
    }

    fn leaves(&mut self, nodes: &Nodes<'_>, variables: &[usize]) {
        for (index, kind) in nodes.kinds.iter().enumerate() {
            if *kind != Kind::Leaf {
                continue;
            }
            let node = nodes.graph.node(Id(index as u32));
            let place = self.temporary(&node.shape);
            let storage = &mut self.storages[place.storage];
            storage.from_start = true;
            match node.op {
                Op::Variable(number) => storage.fixed = Some(variables[number]),
                Op::Constant(_) => storage.to_end = true,
                _ => {}
            }
            self.of[index] = Some(place);
        }
    }

    fn own(&mut self, nodes: &Nodes<'_>, id: Id) {
        if self.of[id.index()].is_none() {
            self.of[id.index()] = Some(self.temporary(nodes.graph.shape(id)));
        }
    }

    /// Whether a step's result is read by more than its own pass, or by it in another way than element by element.
    fn is_read_outside(&self, nodes: &Nodes<'_>, groups: &Groups, id: Id) -> bool {
        let group = groups.group_of[id.index()];
        nodes.readers[id.index()].iter().any(|reader| groups.group_of[reader.index()] != group)
    }

    /// Gives the variable's memory to its new value, if the pass that computes it reads the old one at the same places
    /// only. That all other readers run before is the schedule's part.
    fn update_in_place(
        &mut self,
        nodes: &Nodes<'_>,
        groups: &Groups,
        variable: usize,
        id: Id,
        updates: &[(usize, Id)],
    ) {
        let index = id.index();
        let leaf = (0..nodes.kinds.len()).map(|i| Id(i as u32)).find(|&leaf| {
            nodes.kinds[leaf.index()] == Kind::Leaf && nodes.graph.node(leaf).op == Op::Variable(variable)
        });
        let Some(leaf) = leaf else { return };
        if !nodes.is_step(id) || self.of[index].is_some() || nodes.graph.shape(leaf) != nodes.graph.shape(id)
        {
            return;
        }
        let members = &groups.groups[groups.group_of[index]].members;
        let same_places = members.iter().all(|&member| {
            nodes.operands(member).into_iter().all(|input| nodes.base(input) != leaf || input == leaf)
        });
        // What is copied at the end must still be there.
        let is_copied_later = updates.iter().any(|&(_, other)| nodes.base(other) == leaf);
        if same_places && !is_copied_later && !updates_clash(nodes, groups, leaf, id) {
            self.of[index] = self.of[leaf.index()].clone();
        }
    }

    /// Where a concatenation is already, if its parts lie one behind the other within a larger one.
    fn in_line(&self, nodes: &Nodes<'_>, id: Id, axis: usize) -> Option<Place> {
        let node = nodes.graph.node(id);
        if nodes.wanted[id.index()] {
            return None;
        }
        let mut at = 0;
        let mut whole: Option<Place> = None;
        for &part in &node.inputs {
            let place = self.of[nodes.base(part).index()].as_ref()?;
            let view = nodes.view_at(part, &place.view)?;
            let whole = whole.get_or_insert_with(|| Place {
                storage: place.storage,
                view: View { shape: node.shape.clone(), ..view.clone() },
            });
            let offset = whole.view.offset + at * usize::try_from(view.strides[axis]).ok()?;
            let follows = (place.storage, view.offset) == (whole.storage, offset)
                && view.strides == whole.view.strides
                && !self.storages[place.storage].from_start;
            if !follows {
                return None;
            }
            at += view.shape[axis];
        }
        whole.filter(|whole| views_hold(nodes, id, &whole.view))
    }

    /// Gives parts of a concatenation their place within it.
    fn parts(&mut self, nodes: &Nodes<'_>, id: Id, axis: usize) {
        let Some(whole) = self.of[id.index()].clone() else { return };
        let inputs = &nodes.graph.node(id).inputs;
        let mut start = 0;
        for &part in inputs {
            let shape = nodes.graph.shape(part).to_vec();
            let offset = whole.view.offset + start * whole.view.strides[axis] as usize;
            start += shape[axis];
            let view = View { offset, shape, strides: whole.view.strides.clone() };
            self.part(nodes, part, Place { storage: whole.storage, view });
        }
    }

    fn part(&mut self, nodes: &Nodes<'_>, part: Id, place: Place) {
        let base = nodes.base(part);
        // Only reshapes may lie between the concatenation and what is computed: they put no elements elsewhere.
        let mut at = part;
        while at != base {
            if nodes.graph.node(at).op != Op::Reshape {
                return;
            }
            at = nodes.graph.node(at).inputs[0];
        }
        if self.of[base.index()].is_some() || nodes.wanted[base.index()] {
            return;
        }
        let Some(view) = reshaped(&place.view, nodes.graph.shape(base)) else { return };
        let rank = view.shape.len();
        let by_columns = rank >= 2 && view.strides[rank - 1] == 1 && view.strides[rank - 2] >= 0;
        let can_write = match &nodes.kinds[base.index()] {
            Kind::Step | Kind::RowStep(_) => true,
            Kind::ProductFrom { .. } => by_columns,
            Kind::Own => match nodes.graph.node(base).op {
                Op::Concat(_) => true,
                Op::MatMul => by_columns,
                _ => view.is_contiguous(),
            },
            _ => false,
        };
        if can_write && views_hold(nodes, base, &view) {
            self.of[base.index()] = Some(Place { storage: place.storage, view });
        }
    }

    /// Where the elements of any node are.
    ///
    /// # Panics
    /// When a view can't be described where its base was put, which `parts` has looked for.
    pub(super) fn place(&self, nodes: &Nodes<'_>, id: Id) -> Place {
        let base = nodes.base(id);
        let Some(place) = &self.of[base.index()] else { panic!("node {base:?} has no memory") };
        let Some(view) = nodes.view_at(id, &place.view) else { panic!("node {id:?} is no view of {base:?}") };
        Place { storage: place.storage, view }
    }
}

/// Concatenations and their axes, the largest first: a smaller one may be part of it, or be in it already.
fn concatenations(nodes: &Nodes<'_>) -> Vec<(Id, usize)> {
    let mut found: Vec<(Id, usize)> = (0..nodes.kinds.len())
        .rev()
        .filter(|&index| nodes.kinds[index] == Kind::Own)
        .filter_map(|index| match nodes.graph.node(Id(index as u32)).op {
            Op::Concat(axis) => Some((Id(index as u32), axis)),
            _ => None,
        })
        .collect();
    found.sort_by_key(|(id, _)| Reverse(nodes.graph.shape(*id).iter().product::<usize>()));
    found
}

/// Whether some other reader of the variable needs the new value first, so that it can't run before.
fn updates_clash(nodes: &Nodes<'_>, groups: &Groups, leaf: Id, id: Id) -> bool {
    let writer = groups.group_of[id.index()];
    let mut open = vec![writer];
    let mut seen = vec![false; groups.groups.len()];
    while let Some(group) = open.pop() {
        for member in &groups.groups[group].members {
            for reader in &nodes.readers[member.index()] {
                let next = groups.group_of[reader.index()];
                if next != writer && !seen[next] {
                    seen[next] = true;
                    open.push(next);
                }
            }
        }
    }
    nodes.readers[leaf.index()].iter().any(|reader| seen[groups.group_of[reader.index()]])
}

/// Whether every view of `base` can still be described when it lies at `place`, and products can still begin with it.
fn views_hold(nodes: &Nodes<'_>, base: Id, place: &View) -> bool {
    (base.index()..nodes.kinds.len()).map(|index| Id(index as u32)).all(|id| {
        let kind = &nodes.kinds[id.index()];
        if let Kind::ProductFrom { init, .. } = kind
            && nodes.base(*init) == base
        {
            let rank = nodes.graph.shape(*init).len();
            return nodes
                .view_at(*init, place)
                .is_some_and(|view| view.strides[rank - 1] == 1 && view.strides[rank - 2] >= 0);
        }
        *kind != Kind::Alias || nodes.base(id) != base || nodes.view_at(id, place).is_some()
    })
}
