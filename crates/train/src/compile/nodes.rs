//! What becomes of each node: a view, a step of a fused pass, or an operation with memory of its own.

use kernels::fused::ROW_MAX;
use kernels::workspace::View;

use super::views::moved;
use crate::graph::{Function, Graph, Id, Op};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Nothing needs it.
    Dead,
    /// An input, variable or constant.
    Leaf,
    /// Another view of its operand.
    Alias,
    /// A movement that strides can't describe: the operand's elements are copied out in order.
    Copy,
    /// A step of a fused pass.
    Step,
    /// A reduction of rows within a fused pass.
    RowStep(Function),
    /// An operation of its own.
    Own,
    /// A sum of a product and something else, which the product begins with.
    ProductFrom { product: Id, init: Id },
    /// A product that a [`Kind::ProductFrom`] computes.
    Inlined,
}

/// The graph with what becomes of each node.
pub(super) struct Nodes<'a> {
    pub graph: &'a Graph,
    pub kinds: Vec<Kind>,
    /// For each live node, the node whose memory holds it, and how it lies there if that is contiguous.
    bases: Vec<Option<(Id, View)>>,
    /// The nodes, views left out, that read each base, in rising order.
    pub readers: Vec<Vec<Id>>,
    pub wanted: Vec<bool>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(graph: &'a Graph, wanted: &[Id]) -> Nodes<'a> {
        let mut live = vec![false; graph.len()];
        let mut uses = vec![0; graph.len()];
        for id in wanted {
            live[id.index()] = true;
            uses[id.index()] += 1;
        }
        for index in (0..graph.len()).rev() {
            if live[index] {
                for input in &graph.node(Id(index as u32)).inputs {
                    live[input.index()] = true;
                    uses[input.index()] += 1;
                }
            }
        }
        let mut nodes = Nodes {
            graph,
            kinds: vec![Kind::Dead; graph.len()],
            bases: vec![None; graph.len()],
            readers: vec![vec![]; graph.len()],
            wanted: vec![false; graph.len()],
        };
        for index in (0..graph.len()).filter(|&index| live[index]) {
            let id = Id(index as u32);
            nodes.kinds[index] = nodes.kind(id, &uses);
            if let Kind::ProductFrom { product, .. } = nodes.kinds[index] {
                nodes.kinds[product.index()] = Kind::Inlined;
            }
            let node = graph.node(id);
            let base = match nodes.kinds[index] {
                Kind::Alias => nodes.bases[node.inputs[0].index()]
                    .clone()
                    .and_then(|(base, view)| moved(&node.op, &node.shape, &view).map(|view| (base, view))),
                _ => Some((id, View::contiguous(0, &node.shape))),
            };
            nodes.bases[index] = base;
        }
        for &id in wanted {
            let base = nodes.base(id);
            nodes.wanted[id.index()] = true;
            nodes.wanted[base.index()] = true;
        }
        for index in (0..graph.len()).filter(|&index| live[index]) {
            let id = Id(index as u32);
            for input in nodes.operands(id) {
                let base = nodes.base(input);
                nodes.readers[base.index()].push(id);
            }
        }
        nodes
    }

    fn kind(&self, id: Id, uses: &[usize]) -> Kind {
        let node = self.graph.node(id);
        match &node.op {
            Op::Input(_) | Op::Variable(_) | Op::Constant(_) => Kind::Leaf,
            op if op.is_movement() => {
                let view = self.bases[node.inputs[0].index()].as_ref().map(|(_, view)| view);
                if view.and_then(|view| moved(op, &node.shape, view)).is_some() {
                    Kind::Alias
                } else {
                    Kind::Copy
                }
            }
            Op::Map(Function::Add) => {
                for which in [1, 0] {
                    let (product, init) = (node.inputs[which], node.inputs[1 - which]);
                    if self.kinds[product.index()] == Kind::Own
                        && self.graph.node(product).op == Op::MatMul
                        && uses[product.index()] == 1
                        && product != init
                        && self.begins_product(init)
                    {
                        return Kind::ProductFrom { product, init };
                    }
                }
                Kind::Step
            }
            Op::Map(_) => Kind::Step,
            Op::Sum(axes) | Op::Max(axes) => {
                let from = self.graph.shape(node.inputs[0]);
                let last = from.len() - 1;
                match (&node.op, from[last] <= ROW_MAX && axes[..] == [last]) {
                    (Op::Sum(_), true) => Kind::RowStep(Function::RowSum),
                    (Op::Max(_), true) => Kind::RowStep(Function::RowMax),
                    _ => Kind::Own,
                }
            }
            _ => Kind::Own,
        }
    }

    /// Whether a product's sums can begin with what is at `init`: its columns stand side by side.
    fn begins_product(&self, init: Id) -> bool {
        self.bases[init.index()].as_ref().is_some_and(|(_, view)| {
            let rank = view.shape.len();
            view.strides[rank - 1] == 1 && view.strides[rank - 2] >= 0
        })
    }

    /// The nodes that an operation reads, views not resolved.
    pub(super) fn operands(&self, id: Id) -> Vec<Id> {
        let node = self.graph.node(id);
        match &self.kinds[id.index()] {
            Kind::Dead | Kind::Leaf | Kind::Alias | Kind::Inlined => vec![],
            Kind::ProductFrom { product, init } => {
                let mut operands = self.graph.node(*product).inputs.clone();
                operands.push(*init);
                operands
            }
            Kind::Step | Kind::RowStep(_) => {
                node.inputs.iter().copied().filter(|&input| self.graph.known_value(input).is_none()).collect()
            }
            _ => node.inputs.clone(),
        }
    }

    /// The node whose memory holds `id`.
    pub(super) fn base(&self, id: Id) -> Id {
        self.bases[id.index()].as_ref().map_or(id, |(base, _)| *base)
    }

    pub(super) fn is_step(&self, id: Id) -> bool {
        matches!(self.kinds[id.index()], Kind::Step | Kind::RowStep(_))
    }

    /// The step whose result `input` is, element by element (or row by row, with `true`), if it is one.
    pub(super) fn step_behind(&self, input: Id) -> Option<(Id, bool)> {
        if self.is_step(input) {
            return Some((input, false));
        }
        let node = self.graph.node(input);
        if node.op != Op::Broadcast {
            return None;
        }
        let (from, last) = (node.inputs[0], node.shape.len() - 1);
        let shape = self.graph.shape(from);
        let by_rows = shape[last] == 1 && shape[..last] == node.shape[..last];
        (by_rows && self.is_step(from)).then_some((from, true))
    }

    /// The view of `id` when its base lies at `place`; none if no strides describe it there.
    pub(super) fn view_at(&self, id: Id, place: &View) -> Option<View> {
        if self.kinds[id.index()] != Kind::Alias {
            return Some(place.clone());
        }
        let node = self.graph.node(id);
        moved(&node.op, &node.shape, &self.view_at(node.inputs[0], place)?)
    }
}
