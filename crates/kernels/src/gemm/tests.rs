//! Products against f64 on every instruction set, and the same bits on any number of threads.

use super::*;

struct Case {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    a_transposed: bool,
    b_transposed: bool,
    init: bool,
}

fn matrix(offset: usize, batch: usize, rows: usize, columns: usize, transposed: bool) -> View {
    let strides = if transposed { [1, rows as isize] } else { [columns as isize, 1] };
    View {
        offset,
        shape: vec![batch, rows, columns],
        strides: [&[(rows * columns) as isize], &strides[..]].concat(),
    }
}

/// As [`Precision::Bfloat16`] rounds: to the nearest, ties to even. Denormal numbers, which it takes for zero, don't come.
fn rounded(x: f32) -> f32 {
    half::bf16::from_f32(x).to_f32()
}

fn product(
    (isa, precision): (Isa, Precision),
    threads: usize,
    case: &Case,
) -> (Vec<f32>, Vec<f64>, Vec<f64>) {
    let Case { batch, m, n, k, .. } = *case;
    let a = matrix(0, batch, m, k, case.a_transposed);
    let b = matrix(batch * m * k, batch, k, n, case.b_transposed);
    let c = View::contiguous(b.offset + batch * k * n, &[batch, m, n]);
    let packed = (c.offset + batch * m * n).next_multiple_of(16);
    let compute = Compute::new(isa, threads);
    let mut workspace = Workspace::new(packed + batch * packed_values(isa, precision, k, n), threads);
    for (i, x) in workspace.values_mut().iter_mut().enumerate() {
        *x = ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
    }
    let before = workspace.values().to_vec();
    let mut exact = vec![0.0; batch * m * n];
    let mut sizes = vec![0.0; batch * m * n];
    let at = |view: &View, b: usize, i: usize, j: usize| {
        let offset =
            b as isize * view.strides[0] + i as isize * view.strides[1] + j as isize * view.strides[2];
        let value = before[view.offset + offset as usize];
        if precision == Precision::Bfloat16 && view.offset != c.offset {
            rounded(value).into()
        } else {
            f64::from(value)
        }
    };
    for g in 0..batch {
        for row in 0..m {
            for column in 0..n {
                let start = if case.init { at(&c, g, row, column) } else { 0.0 };
                let place = (g * m + row) * n + column;
                exact[place] = start + (0..k).map(|i| at(&a, g, row, i) * at(&b, g, i, column)).sum::<f64>();
                sizes[place] = (0..k).map(|i| (at(&a, g, row, i) * at(&b, g, i, column)).abs()).sum::<f64>();
            }
        }
    }
    Pack::new((isa, precision), b, packed).run(&compute, &mut workspace);
    let init = case.init.then(|| c.clone());
    Gemm::new((isa, precision), a, Packed::whole(packed, k), false, init, c.clone())
        .run(&compute, &mut workspace);
    (workspace.values()[c.offset..c.offset + batch * m * n].to_vec(), exact, sizes)
}

#[test]
fn nothing_runs_on_another_instruction_set_than_it_was_prepared_for() {
    for (prepared, had) in Isa::available().into_iter().zip(Isa::available().into_iter().skip(1)) {
        let of = |rows| matrix(0, 1, rows, 8, false);
        let pack = Pack::new((prepared, Precision::Float32), of(8), 1024);
        let c = View::contiguous(512, &[1, 4, 8]);
        let gemm = Gemm::new((prepared, Precision::Float32), of(4), Packed::whole(1024, 8), false, None, c);
        type Run<'a> = &'a dyn Fn(&Compute, &mut Workspace);
        let runs: [Run<'_>; 2] =
            [&|compute, workspace| pack.run(compute, workspace), &|compute, workspace| {
                gemm.run(compute, workspace)
            }];
        for run in runs {
            let run = |isa| run(&Compute::new(isa, 1), &mut Workspace::new(4096, 1));
            run(prepared);
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(had)));
            assert!(refused.is_err(), "prepared for {prepared}, run on {had}");
        }
    }
}

#[test]
fn products_match_f64_and_do_not_depend_on_threads() {
    let sizes = [
        (1, 1, 1, 1),
        (2, 12, 32, 7),
        (1, 33, 10, 100),
        (3, 29, 49, 65),
        (1, 130, 300, 40),
        (1, 25, 40, 2100),
    ];
    for (batch, m, n, k) in sizes {
        for flags in 0..8 {
            let (a_transposed, b_transposed, init) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
            let case = Case { batch, m, n, k, a_transposed, b_transposed, init };
            let exact = Isa::available().into_iter().map(|isa| (isa, Precision::Float32));
            let rounded = Isa::available().into_iter().map(|isa| (isa, Precision::Bfloat16));
            for (isa, precision) in exact.chain(rounded.filter(|(isa, precision)| precision.is_had_by(*isa)))
            {
                let (found, exact, sizes) = product((isa, precision), 1, &case);
                for i in 0..found.len() {
                    let error = (found[i] as f64 - exact[i]).abs();
                    assert!(error <= 1e-6 * (k as f64).sqrt() * (sizes[i] + 1.0), "{isa} {m} {n} {k} {i}");
                }
                assert_eq!(
                    found,
                    product((isa, precision), 3, &case).0,
                    "{isa} {m} {n} {k}: threads change bits"
                );
            }
        }
    }
}

/// Products with some of the steps that were packed have the bits of those with these steps packed alone.
#[test]
fn parts_of_what_is_packed_are_multiplied() {
    const STEPS: usize = 70;
    let (m, n) = (29, 57);
    for (first, k) in [(0, 70), (2, 68), (6, 10), (64, 6), (3, 67), (10, 7)] {
        for isa in Isa::available() {
            for precision in [Precision::Float32, Precision::Bfloat16] {
                let cuts_pairs = first % 2 > 0 || k % 2 > 0;
                if !precision.is_had_by(isa) || precision == Precision::Bfloat16 && cuts_pairs {
                    continue;
                }
                let a = View::contiguous(0, &[1, m, k]);
                let b = View::contiguous(m * k, &[1, STEPS, n]);
                let part = View { offset: b.offset + first * n, shape: vec![1, k, n], ..b.clone() };
                let [c, other] = [0, 1].map(|i| View::contiguous(b.offset + (STEPS + i * m) * n, &[1, m, n]));
                let end = other.range().end.next_multiple_of(16);
                let floats = packed_values(isa, precision, STEPS, n);
                let compute = Compute::new(isa, 2);
                let mut workspace = Workspace::new(end + 2 * floats, 2);
                for (i, x) in workspace.values_mut().iter_mut().enumerate() {
                    *x = ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
                }
                let of_all = Packed { at: end, steps: STEPS, first };
                for (from, packed, to) in [(b, of_all, &c), (part, Packed::whole(end + floats, k), &other)] {
                    Pack::new((isa, precision), from, packed.at).run(&compute, &mut workspace);
                    Gemm::new((isa, precision), a.clone(), packed, false, None, to.clone())
                        .run(&compute, &mut workspace);
                }
                let found = [c, other].map(|view| workspace.values()[view.range()].to_vec());
                assert_eq!(found[0], found[1], "{isa} {precision:?} {first} {k}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "steps 5 to 13 of 12 that were packed")]
fn more_steps_than_were_packed_are_refused() {
    let (a, c) = (View::contiguous(0, &[4, 8]), View::contiguous(32, &[4, 8]));
    Gemm::new((Isa::Portable, Precision::Float32), a, Packed { at: 64, steps: 12, first: 5 }, true, None, c);
}
