//! Speed of the products that training does, for tuning: `gemm [MxNxK ...]`, f32 and bfloat16 where the machine has it.
//! `t` before a size multiplies with a transposed first operand, as the gradient of weights does.
//!
//! Each figure is the best of many runs on 2 threads, which a busy machine disturbs least; a multiply-add is two operations.

use std::time::Instant;

use kernels::compute::{Compute, Isa};
use kernels::gemm::{Gemm, Pack, Packed, Precision, packed_values};
use kernels::workspace::{View, Workspace};

const RUNS: usize = 3000;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let usual =
        ["32x512x128", "32x128x512", "t128x512x2016", "128x1024x784", "t784x1024x128", "1024x256x1024"];
    let usual = usual.into_iter().chain(["1024x1024x256", "1024x256x256", "t256x256x1024", "t256x1024x1024"]);
    let sizes = if given.is_empty() { usual.map(str::to_owned).collect() } else { given };
    let compute = Compute::new(Isa::detect(), 2);
    for size in sizes {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            if precision.is_had_by(compute.isa()) {
                measure(&compute, &size, precision);
            }
        }
    }
}

fn measure(compute: &Compute, size: &str, precision: Precision) {
    let (transposed, numbers) = match size.strip_prefix('t') {
        Some(numbers) => (true, numbers),
        None => (false, size),
    };
    let numbers: Vec<usize> =
        numbers.split('x').map(|n| n.parse().unwrap_or_else(|_| panic!("{size} is not MxNxK"))).collect();
    let [m, n, k] = numbers[..] else { panic!("{size} is not MxNxK") };
    let strides = if transposed { vec![1, m as isize] } else { vec![k as isize, 1] };
    let a = View { offset: 0, shape: vec![m, k], strides };
    let b = View::contiguous((m * k).next_multiple_of(16), &[k, n]);
    let c = View::contiguous((b.offset + k * n).next_multiple_of(16), &[m, n]);
    let packed = (c.offset + m * n).next_multiple_of(16);
    let kind = (compute.isa(), precision);
    let mut workspace = Workspace::new(packed + packed_values(kind.0, precision, k, n), 2);
    workspace.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 251) as f32 / 251.0);
    let pack = Pack::new(kind, b, packed);
    let gemm = Gemm::new(kind, a, Packed::whole(packed, k), true, None, c);
    let mut best = |run: &dyn Fn(&mut Workspace)| {
        let times = (0..RUNS).map(|_| {
            let started = Instant::now();
            run(&mut workspace);
            started.elapsed().as_secs_f64()
        });
        times.fold(f64::INFINITY, f64::min)
    };
    let pack_time = best(&|workspace| pack.run(compute, workspace));
    let time = best(&|workspace| gemm.run(compute, workspace));
    println!(
        "{size:>16} {precision:?}: {:8.1} us, {:5.0} G op/s; packing the second operand {:6.1} us",
        time * 1e6,
        2.0 * (m * n * k) as f64 / time / 1e9,
        pack_time * 1e6
    );
}
