//! The table of layers, as Keras prints it.

use super::{Model, Origin};

/// Widths of the four columns of Keras's table for models that aren't a plain chain, and the three of one that is.
const WIDE: [usize; 4] = [21, 19, 12, 19];
const PLAIN: [usize; 3] = [33, 24, 15];

impl Model {
    /// Keras's summary: layers, what they yield, how many weights they have, and in wired models what they are
    /// connected to.
    pub fn summary(&self) -> String {
        let is_chain = self.inputs.len() == 1
            && self.steps.len() == self.nodes.len()
            && self.steps.iter().enumerate().all(|(index, step)| {
                let before = if index == 0 { Origin::Input(0) } else { Origin::Step(index - 1, 0) };
                step.inputs == [before]
            });
        let mut heads = vec!["Layer (type)", "Output Shape", "Param #", "Connected to"];
        let widths: &[usize] = if is_chain { &PLAIN } else { &WIDE };
        heads.truncate(widths.len());
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (name, shape) in &self.inputs {
            let shape = Model::shown(&[&[super::PROBE], &shape[..]].concat());
            rows.push(vec![format!("{name} (InputLayer)"), shape, "0".to_owned(), "-".to_owned()]);
        }
        let mut counted = vec![false; self.nodes.len()];
        for step in &self.steps {
            let node = &self.nodes[step.node];
            // A shared layer's further calls have a row in Keras only through what they are connected to.
            if std::mem::replace(&mut counted[step.node], true) {
                continue;
            }
            let count: usize =
                self.weights[node.weights.clone()].iter().map(|placed| placed.range.len()).sum();
            let inputs: Vec<String> = step.inputs.iter().map(|&input| self.origin_name(input)).collect();
            let class = node.layer.0.layer.class_name();
            let shape = step.shapes.first().map(|shape| Model::shown(shape)).unwrap_or_default();
            rows.push(vec![format!("{} ({class})", node.name), shape, grouped(count), inputs.join(", ")]);
        }
        let mut table = String::from("Model: \"functional\"\n");
        table += &rule(widths, ["┏", "━", "┳", "┓"]);
        table += &line(widths, &heads.iter().map(|head| head.to_string()).collect::<Vec<_>>(), "┃");
        for (index, row) in rows.iter().enumerate() {
            table += &rule(widths, if index == 0 { ["┡", "━", "╇", "┩"] } else { ["├", "─", "┼", "┤"] });
            table += &line(widths, row, "│");
        }
        table += &rule(widths, ["└", "─", "┴", "┘"]);
        let fixed: usize = self.weights.iter().filter(|w| !w.weight.trainable).map(|w| w.range.len()).sum();
        let size = |count: usize| format!("{} ({})", grouped(count), bytes(4 * count));
        table += &format!(" Total params: {}\n", size(self.trainable_len + fixed));
        table += &format!(" Trainable params: {}\n", size(self.trainable_len));
        table + &format!(" Non-trainable params: {}\n", size(fixed))
    }

    fn origin_name(&self, origin: Origin) -> String {
        match origin {
            Origin::Input(number) => format!("{}[0][0]", self.inputs[number].0),
            Origin::Step(step, output) => {
                let calls =
                    self.steps[..step].iter().filter(|other| other.node == self.steps[step].node).count();
                format!("{}[{calls}][{output}]", self.nodes[self.steps[step].node].name)
            }
        }
    }
}

fn rule(widths: &[usize], [left, dash, middle, right]: [&str; 4]) -> String {
    let dashes: Vec<String> = widths.iter().map(|width| dash.repeat(*width)).collect();
    format!("{left}{}{right}\n", dashes.join(middle))
}

/// A row, wrapped within its columns; numbers at the right.
fn line(widths: &[usize], cells: &[String], bar: &str) -> String {
    let wrapped: Vec<Vec<String>> =
        widths.iter().zip(cells).map(|(width, cell)| wrap(cell, width - 2)).collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or(1);
    let mut text = String::new();
    for at in 0..height {
        let column = |(index, (width, lines)): (usize, (&usize, &Vec<String>))| {
            let cell = lines.get(at).map_or("", String::as_str);
            let width = width - 2;
            if index == 2 { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") }
        };
        let columns: Vec<String> = widths.iter().zip(&wrapped).enumerate().map(column).collect();
        text += &format!("{bar}{}{bar}\n", columns.join(bar));
    }
    text
}

fn wrap(cell: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in cell.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        let last = lines.len() - 1;
        let needed = lines[last].chars().count() + letters.len() + !lines[last].is_empty() as usize;
        if needed <= width && !lines[last].is_empty() {
            lines[last].push(' ');
            lines[last].push_str(word);
            continue;
        }
        for (index, part) in letters.chunks(width).enumerate() {
            let part: String = part.iter().collect();
            if index == 0 && lines[last].is_empty() { lines[last] = part } else { lines.push(part) }
        }
    }
    lines
}

/// Thousands apart.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(count: usize) -> String {
    let mut size = count as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if size < 1024.0 {
            return format!("{size:.2} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.2} TB")
}
