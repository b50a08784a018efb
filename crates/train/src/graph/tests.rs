//! Gradients and second derivatives of every operation against finite differences in f64.

use super::reference::Values;
use super::*;

struct Case {
    graph: Graph,
    inputs: Vec<Id>,
    values: Values,
    seed: u64,
}

impl Case {
    fn new() -> Case {
        Case { graph: Graph::new(), inputs: vec![], values: Values::new(), seed: 1 }
    }

    /// An input with numbers in `low..high` that are no two alike.
    fn input(&mut self, shape: &[usize], low: f64, high: f64) -> Id {
        let id = self.graph.input(self.inputs.len(), shape);
        let values = (0..shape.iter().product::<usize>()).map(|_| {
            self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            low + (high - low) * (self.seed >> 11) as f64 / (1u64 << 53) as f64
        });
        self.values.set(id, values.collect());
        self.inputs.push(id);
        id
    }

    /// `y` weighted so that no element's gradient is like another's, and summed.
    fn weighted(&mut self, y: Id) -> Id {
        let shape = self.graph.shape(y).to_vec();
        let n: usize = shape.iter().product();
        let weights: Vec<f32> = (0..n).map(|i| ((i * 37 + 11) % 17) as f32 / 8.0 - 0.9).collect();
        let weights = self.graph.constant(&weights, &shape).unwrap();
        let product = self.graph.mul(y, weights).unwrap();
        self.graph.sum_all(product).unwrap()
    }

    fn check_slopes(&self, loss: Id, of: Id, gradient: Id, what: &str) {
        let found = self.values.of(&self.graph, &[gradient]).unwrap().remove(0);
        let base = self.values.of(&self.graph, &[of]).unwrap().remove(0);
        for i in 0..base.len() {
            let at = |step: f64| {
                let mut moved = base.clone();
                moved[i] += step;
                let mut values = self.values.clone();
                values.set(of, moved);
                values.of(&self.graph, &[loss]).unwrap()[0][0]
            };
            let h = 1e-5;
            let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
            let error = (slope - found[i]).abs();
            assert!(error < 2e-7 * (1.0 + slope.abs()), "{what}, element {i}: {} and {slope}", found[i]);
        }
    }

    /// First and second derivatives of `y` for all inputs.
    fn check(mut self, y: Id, what: &str) {
        let loss = self.weighted(y);
        let inputs = self.inputs.clone();
        let gradients = self.graph.gradients(loss, &inputs).unwrap();
        for (&input, &gradient) in inputs.iter().zip(&gradients) {
            self.check_slopes(loss, input, gradient, what);
        }
        for &gradient in &gradients {
            let square = self.graph.square(gradient).unwrap();
            let again = self.weighted(square);
            let second = self.graph.gradients(again, &inputs).unwrap();
            for (&input, &second) in inputs.iter().zip(&second) {
                self.check_slopes(again, input, second, &format!("second derivative of {what}"));
            }
        }
    }
}

fn check_function(function: Function, low: f64, high: f64) {
    let mut case = Case::new();
    let x = case.input(&[3, 4], low, high);
    let y = match function.arity() {
        1 => case.graph.map(function, x),
        _ => {
            let other = case.input(&[3, 4], low, high);
            case.graph.map2(function, x, other).unwrap()
        }
    };
    case.check(y, &format!("{function:?}"));
}

#[test]
fn functions_have_their_derivatives() {
    use Function::*;
    for function in
        [Copy, Neg, Exp, Expm1, Tanh, Sigmoid, Erf, Abs, Sign, Floor, Sin, Cos, Add, Sub, Mul, Max, Min]
    {
        check_function(function, -1.9, 1.9);
    }
    for function in [Log, Log1p, Sqrt, Div, Pow, Less, Equal] {
        check_function(function, 0.5, 3.0);
    }
    let mut case = Case::new();
    let [c, a, b] = [0, 1, 2].map(|_| case.input(&[7], -1.0, 1.0));
    let zero = case.graph.full(0.0, &[7]);
    let condition = case.graph.less(zero, c).unwrap();
    let y = case.graph.select(condition, a, b).unwrap();
    case.check(y, "select");
}

#[test]
fn movements_have_their_derivatives() {
    type Build = fn(&mut Graph, Id) -> Result<Id>;
    let builds: [(&str, Build); 9] = [
        ("reshape", |g, x| g.reshape(x, &[6, 4])),
        ("transpose", |g, x| g.transpose(x, &[2, 0, 1])),
        ("broadcast", |g, x| {
            let one = g.slice_axis(x, 1, 0, 1)?;
            g.broadcast(one, &[2, 2, 5, 4])
        }),
        ("slice", |g, x| g.slice(x, &[0, 1, 0], &[1, 1, 2], &[2, 2, 2])),
        ("pad", |g, x| g.pad(x, &[1, 0, 2], &[1, 2, 1], &[4, 6, 7])),
        ("reverse", |g, x| g.reverse(x, &[0, 2])),
        ("sum", |g, x| g.sum(x, &[0, 2])),
        ("max", |g, x| g.reduce_max(x, &[1, 2])),
        ("slices side by side", |g, x| {
            let parts = [g.slice_axis(x, 2, 2, 1)?, g.slice_axis(x, 2, 0, 1)?];
            g.mul(parts[0], parts[1])
        }),
    ];
    for (name, build) in builds {
        let mut case = Case::new();
        let x = case.input(&[2, 3, 4], -1.0, 1.0);
        let y = build(&mut case.graph, x).unwrap();
        // Squared, so that there is a second derivative.
        let y = case.graph.square(y).unwrap();
        case.check(y, name);
    }
    let mut case = Case::new();
    let (a, b) = (case.input(&[2, 3], -1.0, 1.0), case.input(&[2, 2], -1.0, 1.0));
    let y = case.graph.concat(&[a, b, a], 1).unwrap();
    let y = case.graph.square(y).unwrap();
    case.check(y, "concat");
}

#[test]
fn products_and_rows_have_their_derivatives() {
    let mut case = Case::new();
    let (a, b) = (case.input(&[2, 3, 4], -1.0, 1.0), case.input(&[2, 4, 2], -1.0, 1.0));
    let y = case.graph.matmul(a, b).unwrap();
    case.check(y, "matmul");
    let mut case = Case::new();
    let table = case.input(&[5, 3], -1.0, 1.0);
    let indices = case.graph.constant(&[1.0, 4.0, 1.0, 0.0], &[4]).unwrap();
    let rows = case.graph.take(table, indices).unwrap();
    let squares = case.graph.square(rows).unwrap();
    let y = case.graph.put(indices, squares, 6).unwrap();
    case.check(y, "take and put");
}

fn windows(
    kernel: [usize; 2],
    strides: [usize; 2],
    dilation: [usize; 2],
    padding: (usize, usize),
) -> Windows {
    Windows {
        kernel: kernel.to_vec(),
        strides: strides.to_vec(),
        dilation: dilation.to_vec(),
        padding: vec![padding; 2],
    }
}

#[test]
fn convolutions_and_pooling_have_their_derivatives() {
    for (windows, groups) in [
        (windows([2, 3], [1, 1], [1, 1], (0, 0)), 1),
        (windows([3, 2], [2, 1], [1, 2], (1, 1)), 1),
        (windows([2, 2], [1, 2], [1, 1], (0, 1)), 2),
    ] {
        let mut case = Case::new();
        let x = case.input(&[2, 4, 5, 2], -1.0, 1.0);
        let w = case.input(&[windows.kernel[0], windows.kernel[1], 2 / groups, 2], -1.0, 1.0);
        let y = case.graph.convolution(x, w, &windows, groups).unwrap();
        case.check(y, "convolution");
    }
    let pooled = windows([2, 2], [2, 1], [1, 1], (0, 1));
    for largest in [true, false] {
        let mut case = Case::new();
        let x = case.input(&[2, 4, 3, 2], -1.0, 1.0);
        let y =
            if largest { case.graph.max_pool(x, &pooled) } else { case.graph.sum_pool(x, &pooled) }.unwrap();
        let y = case.graph.square(y).unwrap();
        case.check(y, "pooling");
    }
    let mut case = Case::new();
    let x = case.input(&[2, 4, 3, 2], -1.0, 1.0);
    let bias = case.input(&[2], -1.0, 1.0);
    let y = case.graph.add(x, bias).unwrap();
    let zero = case.graph.scalar(0.0);
    let y = case.graph.max(y, zero).unwrap();
    let y = case.graph.max_pool(y, &pooled).unwrap();
    assert_eq!(case.graph.node(y).op, Op::Map(Function::Max), "what rises comes after pooling");
    let y = case.graph.square(y).unwrap();
    case.check(y, "pooling behind a bias and ReLU");
    let mut case = Case::new();
    let windows = windows([3, 3], [2, 2], [1, 1], (0, 1));
    let y = case.input(&[1, 2, 2, 3], -1.0, 1.0);
    let w = case.input(&[3, 3, 2, 3], -1.0, 1.0);
    let x = case.graph.convolution_transposed(y, w, &windows, 1, &[1, 4, 4, 2]).unwrap();
    case.check(x, "transposed convolution");
}

#[test]
fn the_steps_of_a_recurrence_contribute_to_its_weights_by_one_product() {
    let mut case = Case::new();
    let mut h = case.input(&[3, 4], -1.0, 1.0);
    let w = case.input(&[4, 4], -1.0, 1.0);
    for _ in 0..5 {
        let part = case.graph.matmul(h, w).unwrap();
        h = case.graph.map(Function::Tanh, part);
    }
    let before = case.graph.len();
    let loss = case.weighted(h);
    case.graph.gradients(loss, &[w]).unwrap();
    let products = (before..case.graph.len()).map(|index| case.graph.node(Id(index as u32)));
    let shapes: Vec<Vec<usize>> = products
        .filter(|node| node.op == Op::MatMul)
        .map(|node| case.graph.shape(node.inputs[0]).to_vec())
        .collect();
    assert!(shapes.contains(&vec![4, 15]), "{shapes:?}");
    case.check(h, "a recurrence");
}

#[test]
fn shapes_that_do_not_fit_are_errors_with_the_layer_and_both_shapes() {
    let mut graph = Graph::new();
    graph.set_scope("dense_1");
    let (a, b) = (graph.input(0, &[2, 3]), graph.input(1, &[4, 5]));
    let error = graph.matmul(a, b).unwrap_err().to_string();
    assert_eq!(
        error,
        "dense_1: matmul takes [.., m, k] and [.., k, n] with one k and equal batch sizes; received [2, 3] and [4, 5]"
    );
    assert!(graph.add(a, b).unwrap_err().to_string().contains("dense_1: add takes shapes that broadcast"));
}

#[test]
fn equal_nodes_are_one_and_constants_are_worked_out() {
    let mut graph = Graph::new();
    let x = graph.input(0, &[3]);
    assert_eq!(graph.square(x).unwrap(), graph.square(x).unwrap());
    assert_eq!(graph.scale(x, 1.0).unwrap(), x);
    let iota = graph.iota(3);
    let square = graph.square(iota).unwrap();
    let y = graph.add(x, square).unwrap();
    let (reduced, ids) = graph.reduced(&[y]).unwrap();
    assert_eq!(reduced.len(), 3);
    let Op::Constant(bits) = &reduced.node(reduced.node(ids[0]).inputs[1]).op else { panic!("not folded") };
    assert_eq!(f32::from_bits(bits[2]), 4.0);
}
