//! Cheap steps are done where they are read, if what they are made of is there too: a factor that only the gradient needs
//! isn't kept from the forward pass on when it follows from a value that is kept anyway.

use kernels::fused::Function;

use super::fuse::{Groups, SIZE_MAX};
use super::nodes::{Kind, Nodes};
use crate::graph::{Id, Op};

/// Steps that move together, at most.
const CHAIN_MAX: usize = 4;

pub(super) fn sink(groups: &mut Groups, nodes: &Nodes<'_>) {
    for index in (0..nodes.kinds.len()).rev() {
        let id = Id(index as u32);
        let Some(to) = only_reader(groups, nodes, id) else { continue };
        let Some((chain, read)) = chain(groups, nodes, id) else { continue };
        let Some(space) = &groups.groups[to].space else { continue };
        let same_space = |&member: &Id| nodes.graph.shape(member) == &space[..];
        let loads = outside_operands(groups, nodes, to);
        let new_loads = read.iter().filter(|input| !loads.contains(input)).count();
        let size = groups.groups[to].members.len() + loads.len() + chain.len() + new_loads;
        if !chain.iter().all(same_space) || new_loads > 1 || size > SIZE_MAX {
            continue;
        }
        let from = groups.group_of[index];
        groups.groups[from].members.retain(|member| !chain.contains(member));
        chain.iter().for_each(|member| groups.group_of[member.index()] = to);
        let members = &mut groups.groups[to].members;
        members.extend(chain);
        members.sort_unstable();
    }
}

/// The one pass that reads a step's result, element by element, if it isn't the step's own.
fn only_reader(groups: &Groups, nodes: &Nodes<'_>, id: Id) -> Option<usize> {
    let readers = &nodes.readers[id.index()];
    let to = groups.group_of[readers.first()?.index()];
    let by_elements = |&reader: &Id| {
        groups.group_of[reader.index()] == to
            && nodes.operands(reader).into_iter().all(|input| input == id || nodes.base(input) != id)
    };
    let moves = is_cheap(nodes, id) && to != groups.group_of[id.index()] && readers.iter().all(by_elements);
    moves.then_some(to)
}

fn is_cheap(nodes: &Nodes<'_>, id: Id) -> bool {
    use Function::*;
    nodes.kinds[id.index()] == Kind::Step
        && !nodes.wanted[id.index()]
        && matches!(
            nodes.graph.node(id).op,
            Op::Map(Copy | Neg | Abs | Sign | Add | Sub | Mul | Max | Min | Less | Equal | Select)
        )
}

/// `id` with the cheap steps that it alone needs, and what they are made of, which is kept whether they move or not.
fn chain(groups: &Groups, nodes: &Nodes<'_>, id: Id) -> Option<(Vec<Id>, Vec<Id>)> {
    let from = groups.group_of[id.index()];
    let (mut chain, mut read) = (vec![id], Vec::new());
    let mut next = 0;
    while let Some(&member) = chain.get(next) {
        next += 1;
        for input in nodes.operands(member) {
            let base = nodes.base(input);
            let is_outside = |reader: &Id| groups.group_of[reader.index()] != from;
            if groups.group_of[base.index()] != from {
                if matches!(nodes.graph.node(base).op, Op::Variable(_)) {
                    return None;
                }
            } else if !nodes.wanted[base.index()] && !nodes.readers[base.index()].iter().any(is_outside) {
                let is_needed_here = |reader: &Id| chain.contains(reader);
                let moves = input == base
                    && is_cheap(nodes, input)
                    && nodes.readers[base.index()].iter().all(is_needed_here);
                if !moves || chain.len() == CHAIN_MAX {
                    return None;
                }
                if !chain.contains(&input) {
                    chain.push(input);
                }
                continue;
            }
            if !read.contains(&input) {
                read.push(input);
            }
        }
    }
    Some((chain, read))
}

/// What a pass reads of others.
fn outside_operands(groups: &Groups, nodes: &Nodes<'_>, group: usize) -> Vec<Id> {
    let mut read = Vec::new();
    for &member in &groups.groups[group].members {
        for input in nodes.operands(member) {
            if groups.group_of[nodes.base(input).index()] != group && !read.contains(&input) {
                read.push(input);
            }
        }
    }
    read
}
