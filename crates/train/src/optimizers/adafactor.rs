//! Adafactor (Shazeer and Stern, arXiv:1804.04235), as Keras has it.

use super::Step;
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

impl Step<'_> {
    /// The second moment of a matrix is known by its means over rows and columns alone: the first slot has those of rows,
    /// the second those of columns, one after the other. A vector has it whole in the first.
    pub(super) fn adafactor(
        &mut self,
        beta_2_decay: f32,
        [epsilon_1, epsilon_2]: [f32; 2],
        clip_threshold: f32,
        slots: &[Id],
    ) -> Result<(Id, Vec<Id>)> {
        let decay = self.graph.scalar(beta_2_decay);
        let fresh = self.graph.map2(Function::Pow, self.t, decay)?;
        let root = self.graph.map(Function::Sqrt, self.t);
        let one = self.graph.scalar(1.0);
        let least = self.graph.div(one, root)?;
        let rate = self.graph.min(self.rate, least)?;
        let [mut new_p, mut new_rows, mut new_columns] = [vec![], vec![], vec![]];
        for part in self.parts {
            let graph = &mut *self.graph;
            let [p, g, rows, columns] = [self.p, self.g, slots[0], slots[1]]
                .map(|vector| graph.slice_axis(vector, 0, part.range.start, part.range.len()));
            let (p, g, rows, columns) = (p?, g?, rows?, columns?);
            let square = graph.square(g)?;
            let square = graph.add_scalar(square, epsilon_1)?;
            let (v, rows, columns) = match part.shape[..] {
                [.., height, width] => factored(graph, square, fresh, [rows, columns], [height, width])?,
                _ => (mixed(graph, rows, square, fresh)?, None, columns),
            };
            let rows = rows.unwrap_or(v);
            let root = graph.map(Function::Sqrt, v);
            let direction = graph.div(g, root)?;
            let size = root_mean_square(graph, direction)?;
            let size = graph.scale(size, 1.0 / clip_threshold)?;
            let longer = graph.max(size, one)?;
            let direction = graph.div(direction, longer)?;
            let size = root_mean_square(graph, p)?;
            let least = graph.scalar(epsilon_2);
            let size = graph.max(size, least)?;
            let alpha = graph.mul(size, rate)?;
            let change = graph.mul(direction, alpha)?;
            new_p.push(graph.sub(p, change)?);
            new_rows.push(rows);
            new_columns.push(columns);
        }
        let graph = &mut *self.graph;
        let slots = vec![graph.concat(&new_rows, 0)?, graph.concat(&new_columns, 0)?];
        Ok((graph.concat(&new_p, 0)?, slots))
    }
}

/// `old` and `new` in the shares `1 - fresh` and `fresh`.
fn mixed(graph: &mut Graph, old: Id, new: Id, fresh: Id) -> Result<Id> {
    let change = graph.sub(new, old)?;
    let change = graph.mul(change, fresh)?;
    graph.add(old, change)
}

fn root_mean_square(graph: &mut Graph, x: Id) -> Result<Id> {
    let square = graph.square(x)?;
    let mean = graph.mean(square, &[0])?;
    Ok(graph.map(Function::Sqrt, mean))
}

/// The second moment of matrices `[.., height, width]` whose squared gradients are `square`, and the parts of both slots:
/// means over rows and over columns, filled up with zeros.
fn factored(
    graph: &mut Graph,
    square: Id,
    fresh: Id,
    slots: [Id; 2],
    [height, width]: [usize; 2],
) -> Result<(Id, Option<Id>, Id)> {
    let len = graph.shape(square)[0];
    let count = len / (height * width);
    let square = graph.reshape(square, &[count, height, width])?;
    let mut means = vec![];
    let mut kept = vec![];
    for (slot, axis, shape) in [(slots[0], 2, [count, height, 1]), (slots[1], 1, [count, 1, width])] {
        let own = shape.iter().product();
        let old = graph.slice_axis(slot, 0, 0, own)?;
        let old = graph.reshape(old, &shape)?;
        let new = graph.mean(square, &[axis])?;
        let mean = mixed(graph, old, new, fresh)?;
        let flat = graph.reshape(mean, &[own])?;
        kept.push(graph.pad(flat, &[0], &[1], &[len])?);
        means.push(mean);
    }
    let over_all = graph.mean(means[0], &[1])?;
    let rows = graph.div(means[0], over_all)?;
    let v = graph.mul(rows, means[1])?;
    Ok((graph.reshape(v, &[len])?, Some(kept[0]), kept[1]))
}
