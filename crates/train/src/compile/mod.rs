//! From a graph to a program: views, fused passes, an order, memory, and prepared operations.

mod drafts;
mod fuse;
mod merge;
mod nodes;
mod packs;
mod places;
mod plan;
mod program;
mod rows;
mod schedule;
mod sink;
mod views;

use kernels::compute::Isa;
use kernels::gemm::Precision;

use crate::error::Result;
use crate::graph::{Graph, Id, Op};
use drafts::Drafts;
use fuse::Groups;
use nodes::{Kind, Nodes};
use places::Places;
pub use program::Program;

/// Where variables are in the workspace; temporary values follow them.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    offsets: Vec<usize>,
    end: usize,
}

impl Variables {
    /// Room for one more, of `len` values; its number.
    pub fn add(&mut self, len: usize) -> usize {
        self.offsets.push(self.end);
        self.end += len.next_multiple_of(kernels::workspace::LINE);
        self.offsets.len() - 1
    }

    /// Where variable `number` begins.
    pub fn offset(&self, number: usize) -> usize {
        self.offsets[number]
    }

    /// Values before the first temporary one.
    pub fn end(&self) -> usize {
        self.end
    }
}

/// What a program computes with. An instruction set alone computes in f32.
#[derive(Clone, Copy, Debug)]
pub struct Arithmetic {
    pub isa: Isa,
    /// What products are computed in, but for small ones.
    pub products: Precision,
}

impl From<Isa> for Arithmetic {
    fn from(isa: Isa) -> Arithmetic {
        Arithmetic { isa, products: Precision::Float32 }
    }
}

/// Compiles what yields `outputs` and the new values of variables.
pub fn compile(
    graph: &Graph,
    outputs: &[Id],
    updates: &[(usize, Id)],
    variables: &Variables,
    arithmetic: impl Into<Arithmetic>,
) -> Result<Program> {
    let arithmetic = arithmetic.into();
    let wanted: Vec<Id> = outputs.iter().copied().chain(updates.iter().map(|(_, id)| *id)).collect();
    let (graph, moved) = graph.reduced(&wanted)?;
    let (outputs, new_values) = moved.split_at(outputs.len());
    let updates: Vec<(usize, Id)> =
        updates.iter().map(|(variable, _)| *variable).zip(new_values.to_vec()).collect();
    let nodes = Nodes::new(&graph, &moved);
    let mut groups = Groups::new(&nodes);
    sink::sink(&mut groups, &nodes);
    let places = Places::new(&nodes, &groups, &variables.offsets, &updates);
    let order = schedule::order(&nodes, &groups, &places);
    let mut drafts = Drafts::new(&nodes, &groups, places, arithmetic);
    order.into_iter().for_each(|group| drafts.group(group));
    let output_places: Vec<_> = outputs.iter().map(|&id| output(&mut drafts, id)).collect();
    let copies: Vec<_> = updates
        .iter()
        .filter_map(|&(variable, id)| new_value(&mut drafts, variable, id, variables))
        .collect();
    for (from, to) in copies {
        drafts.copy(from, to);
    }
    let Drafts { mut drafts, places, .. } = drafts;
    packs::share(&mut drafts);
    rows::pack_first(&mut drafts, &places.storages);
    merge::neighbours(&mut drafts);
    plan::reuse_in_place(&mut drafts, &places.storages);
    let runs = rows::runs(&drafts, &places.storages, arithmetic.isa);
    let (offsets, end) = plan::offsets(&drafts, &places.storages, variables.end, &runs);
    let leaves =
        (0..graph.len()).map(|index| Id(index as u32)).filter(|id| nodes.kinds[id.index()] == Kind::Leaf);
    let mut program = Program::new(end);
    for id in leaves {
        let Some(place) = &places.of[id.index()] else { continue };
        let at = offsets[place.storage];
        match &graph.node(id).op {
            Op::Input(number) => program.add_input(*number, at, graph.shape(id)),
            Op::Constant(bits) => program.add_constant(at, bits.clone()),
            _ => {}
        }
    }
    for place in output_places {
        program.add_output(offsets[place.storage], place.view.elements());
    }
    let mut next = 0;
    for run in runs {
        drafts[next..run.start].iter().for_each(|draft| program.add(draft, &offsets, arithmetic.isa));
        program.add_by_rows(&drafts[run.clone()], &offsets, arithmetic.isa);
        next = run.end;
    }
    drafts[next..].iter().for_each(|draft| program.add(draft, &offsets, arithmetic.isa));
    Ok(program)
}

/// Keeps an output until the run's end, in a storage that is nothing else.
fn output(drafts: &mut Drafts<'_>, id: Id) -> places::Place {
    let place = drafts.places.place(drafts.nodes, id);
    let storage = &drafts.places.storages[place.storage];
    let is_own = storage.fixed.is_none()
        && !storage.from_start
        && place.view.is_contiguous()
        && place.view.offset == 0;
    let place = if is_own {
        place
    } else {
        let to = drafts.places.temporary(&place.view.shape);
        drafts.copy(place, to.clone());
        to
    };
    drafts.places.storages[place.storage].to_end = true;
    place
}

/// Where a variable's new value is and where it belongs, unless it was computed there. A view of a variable is copied
/// out first.
fn new_value(
    drafts: &mut Drafts<'_>,
    variable: usize,
    id: Id,
    variables: &Variables,
) -> Option<(places::Place, places::Place)> {
    let mut from = drafts.places.place(drafts.nodes, id);
    let at = variables.offsets[variable];
    let is_computed = drafts.nodes.kinds[drafts.nodes.base(id).index()] != Kind::Leaf;
    if is_computed && drafts.places.storages[from.storage].fixed == Some(at) && from.view.is_contiguous() {
        return None;
    }
    if drafts.places.storages[from.storage].fixed.is_some() {
        let out = drafts.places.temporary(&from.view.shape);
        drafts.copy(from, out.clone());
        from = out;
    }
    let to = drafts.places.temporary(&from.view.shape);
    drafts.places.storages[to.storage].fixed = Some(at);
    Some((from, to))
}

#[cfg(test)]
mod tests;
