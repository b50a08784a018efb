//! Activation checkpointing as a rewrite (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): the forward pass
//! is cut into segments; what one segment hands to others is kept, and the rest is computed again when the gradient comes to
//! it.

use std::collections::{BTreeSet, HashMap};

use super::{Graph, Id, Op};

/// How much smaller each budget for what a segment keeps is than the one tried before.
const SMALLER: f64 = 0.8;
const BUDGETS: usize = 24;

impl Graph {
    /// A graph that yields the same, in which the nodes from `forward` on (the gradient and what follows) find nothing kept of
    /// the nodes before but what is handed from segment to segment, and the last segment. Where that saves nothing, the same
    /// graph. And where `wanted` is in it.
    pub(crate) fn recomputed(&self, forward: usize, wanted: &[Id]) -> (Graph, Vec<Id>) {
        let pass = Pass::new(self, forward, wanted);
        match pass.cuts() {
            Some(cuts) => Rewrite::new(&pass, cuts).run(wanted),
            None => (self.clone(), wanted.to_vec()),
        }
    }
}

/// A forward pass, and who reads what of it.
struct Pass<'a> {
    graph: &'a Graph,
    forward: usize,
    live: Vec<bool>,
    /// Of each node the one whose values it shows: itself, unless it only moves them.
    root: Vec<usize>,
    /// Whether a root is computed, not given or constant.
    computed: Vec<bool>,
    /// The last node of the forward pass that reads the root, or shows it.
    last_reader: Vec<usize>,
    /// Whether the gradient reads the root.
    kept: Vec<bool>,
}

impl<'a> Pass<'a> {
    fn new(graph: &'a Graph, forward: usize, wanted: &[Id]) -> Pass<'a> {
        let count = graph.len();
        let mut live = vec![false; count];
        wanted.iter().for_each(|id| live[id.index()] = true);
        for index in (0..count).rev() {
            if live[index] {
                graph.nodes[index].inputs.iter().for_each(|input| live[input.index()] = true);
            }
        }
        let mut pass = Pass {
            graph,
            forward,
            live,
            root: (0..count).collect(),
            computed: vec![false; count],
            last_reader: (0..count).collect(),
            kept: vec![false; count],
        };
        for index in 0..count {
            pass.look_at(index);
        }
        for id in wanted.iter().filter(|id| id.index() < forward) {
            // What a run yields lives to its end in any case.
            let root = pass.root[id.index()];
            pass.last_reader[root] = forward;
        }
        pass
    }

    fn look_at(&mut self, index: usize) {
        let node = &self.graph.nodes[index];
        let is_given = matches!(node.op, Op::Input(_) | Op::Variable(_) | Op::Constant(_));
        if node.op.is_movement() {
            self.root[index] = self.root[node.inputs[0].index()];
        }
        // What follows from constants alone is worked out ahead.
        self.computed[index] = !is_given && node.inputs.iter().any(|input| !self.is_constant(*input));
        if !self.live[index] {
            return;
        }
        for input in &node.inputs {
            let root = self.root[input.index()];
            if index < self.forward {
                self.last_reader[root] = self.last_reader[root].max(index);
            } else if root < self.forward {
                self.kept[root] = true;
            }
        }
    }

    fn is_constant(&self, id: Id) -> bool {
        let is_given = matches!(self.graph.node(id).op, Op::Input(_) | Op::Variable(_));
        !is_given && !self.computed[id.index()]
    }

    /// Values that a node has memory for.
    fn len(&self, index: usize) -> usize {
        let has_memory = self.live[index] && self.root[index] == index && self.computed[index];
        if has_memory { self.graph.nodes[index].shape.iter().product() } else { 0 }
    }

    /// The last node of each segment but the last, for the budget that needs the least memory; none where none saves any.
    fn cuts(&self) -> Option<Vec<usize>> {
        // Values that later nodes of the forward pass read, after each node.
        let mut across = vec![0isize; self.forward + 1];
        for index in 0..self.forward {
            let len = self.len(index) as isize;
            across[index] += len;
            across[self.last_reader[index]] -= len;
        }
        let mut sum = 0;
        across.iter_mut().for_each(|x| {
            sum += *x;
            *x = sum;
        });
        let kept = |index: usize| if self.kept[index] { self.len(index) } else { 0 };
        let all: usize = (0..self.forward).map(kept).sum();
        let mut budget = all as f64;
        let mut best = (all, None);
        for _ in 0..BUDGETS {
            budget *= SMALLER;
            let cuts = self.cuts_for(budget as usize, &across, &kept);
            let needed = self.needed(&cuts, &kept);
            if needed < best.0 {
                best = (needed, Some(cuts));
            }
        }
        best.1
    }

    /// Cuts after segments that keep about `budget` values, each where the fewest are handed on.
    fn cuts_for(&self, budget: usize, across: &[isize], kept: &impl Fn(usize) -> usize) -> Vec<usize> {
        let mut cuts = Vec::new();
        let (mut index, mut in_segment) = (0, 0);
        let mut best: Option<(isize, usize)> = None;
        while index < self.forward {
            in_segment += kept(index);
            if in_segment * 2 >= budget && best.is_none_or(|(fewest, _)| across[index] <= fewest) {
                best = Some((across[index], index));
            }
            if let (true, Some((_, at))) = (in_segment > budget, best) {
                cuts.push(at);
                (index, in_segment, best) = (at, 0, None);
            }
            index += 1;
        }
        cuts
    }

    /// Values that are alive at most when the gradient is computed: what is handed on, and the largest segment.
    fn needed(&self, cuts: &[usize], kept: &impl Fn(usize) -> usize) -> usize {
        let mut segments = vec![0; cuts.len() + 1];
        let mut handed_on = 0;
        for index in 0..self.forward {
            if is_handed_on(cuts, index, self.last_reader[index]) {
                handed_on += self.len(index);
            } else {
                segments[segment(cuts, index)] += kept(index);
            }
        }
        handed_on + segments.into_iter().max().unwrap_or(0)
    }
}

fn segment(cuts: &[usize], index: usize) -> usize {
    cuts.partition_point(|&cut| cut < index)
}

fn is_handed_on(cuts: &[usize], index: usize, last_reader: usize) -> bool {
    segment(cuts, index) < segment(cuts, last_reader)
}

struct Rewrite<'a> {
    pass: &'a Pass<'a>,
    cuts: Vec<usize>,
    graph: Graph,
    /// Where each node went.
    moved: HashMap<usize, Id>,
    /// Where each node was computed again.
    again: HashMap<usize, Id>,
}

impl<'a> Rewrite<'a> {
    fn new(pass: &'a Pass<'a>, cuts: Vec<usize>) -> Rewrite<'a> {
        let graph = Graph { streams: pass.graph.streams, ..Graph::new() };
        Rewrite { pass, cuts, graph, moved: HashMap::new(), again: HashMap::new() }
    }

    fn run(mut self, wanted: &[Id]) -> (Graph, Vec<Id>) {
        for index in (0..self.pass.graph.len()).filter(|&index| self.pass.live[index]) {
            let node = &self.pass.graph.nodes[index];
            let is_forward = index < self.pass.forward;
            let inputs = node
                .inputs
                .iter()
                .map(|input| match is_forward || !self.is_gone(input.index()) {
                    true => self.moved[&input.index()],
                    false => self.computed_again(input.index()),
                })
                .collect();
            let id = self.graph.push(node.op.clone(), inputs, node.shape.clone());
            self.moved.insert(index, id);
        }
        let wanted = wanted.iter().map(|id| self.moved[&id.index()]).collect();
        (self.graph, wanted)
    }

    /// Whether what a node shows isn't kept for the gradient.
    fn is_gone(&self, index: usize) -> bool {
        let pass = self.pass;
        let root = pass.root[index];
        root < pass.forward
            && pass.computed[root]
            && segment(&self.cuts, root) < self.cuts.len()
            && !is_handed_on(&self.cuts, root, pass.last_reader[root])
    }

    /// The node computed again from what its segment was handed, with all that is needed for it.
    fn computed_again(&mut self, index: usize) -> Id {
        let (mut needed, mut open) = (BTreeSet::new(), vec![index]);
        while let Some(index) = open.pop() {
            if !self.again.contains_key(&index) && needed.insert(index) {
                let inputs = &self.pass.graph.nodes[index].inputs;
                open.extend(inputs.iter().map(|input| input.index()).filter(|&input| self.is_gone(input)));
            }
        }
        for index in needed {
            let node = &self.pass.graph.nodes[index];
            let inputs = node.inputs.iter().map(|input| self.input_again(input.index())).collect();
            let id = self.graph.push(node.op.clone(), inputs, node.shape.clone());
            self.again.insert(index, id);
        }
        self.again[&index]
    }

    fn input_again(&mut self, index: usize) -> Id {
        if self.is_gone(index) {
            return self.again[&index];
        }
        let id = self.moved[&index];
        match self.pass.is_constant(Id(index as u32)) {
            true => id,
            false => self.graph.push(Op::Again, vec![id], self.pass.graph.nodes[index].shape.clone()),
        }
    }
}
