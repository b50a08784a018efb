//! Convolutions against their definition in f64: forward, and each gradient as the adjoint of it.

use super::*;
use crate::gemm::{Pack, Precision};

/// `sum over windows of x w g`, of which each of the three targets is a derivative.
fn products(geometry: &Geometry, values: [&[f32]; 3], mut each: impl FnMut([usize; 3], [f64; 3])) {
    let [x, w, y] = values;
    let per_group_in = geometry.channels_in / geometry.groups;
    let per_group_out = geometry.channels_out / geometry.groups;
    for image in 0..geometry.batch {
        for pixel in 0..geometry.output_pixels() {
            for tap in 0..geometry.taps() {
                let Some(source) = geometry.tap_pixel(geometry.coordinates(pixel), tap) else { continue };
                for out in 0..geometry.channels_out {
                    for i in 0..per_group_in {
                        let channel = out / per_group_out * per_group_in + i;
                        let at_x = image * geometry.input_len() + source * geometry.channels_in + channel;
                        let at_w = (tap * per_group_in + i) * geometry.channels_out + out;
                        let at_y = image * geometry.output_len() + pixel * geometry.channels_out + out;
                        each([at_x, at_w, at_y], [x[at_x] as f64, w[at_w] as f64, y[at_y] as f64]);
                    }
                }
            }
        }
    }
}

fn check(geometry: Geometry) {
    let sizes = [
        geometry.batch * geometry.input_len(),
        geometry.kernel_len(),
        geometry.batch * geometry.output_len(),
    ];
    let (w, y) = (sizes[0], sizes[0] + sizes[1]);
    for isa in Isa::available() {
        for (which, target) in [Target::Input, Target::Kernel, Target::Output].into_iter().enumerate() {
            let packed = y + sizes[2];
            let packing = Convolution::packing(isa, &geometry, target, w);
            let working = packed + packing.as_ref().map_or(0, |(_, floats)| *floats);
            let total = working + Convolution::working_memory(&geometry, target);
            let run = |threads: usize| {
                let compute = Compute::new(isa, threads);
                let mut workspace = Workspace::new(total, threads);
                for (i, x) in workspace.values_mut().iter_mut().enumerate() {
                    *x = ((i * 7919 + 5) % 1009) as f32 / 504.5 - 1.0;
                }
                let before = workspace.values().to_vec();
                if let Some((view, _)) = &packing {
                    Pack::new((isa, Precision::Float32), view.clone(), packed).run(&compute, &mut workspace);
                }
                let operands = Operands { x: 0, w, y, packed, working };
                Convolution::new(isa, geometry, target, operands).run(&compute, &mut workspace);
                let start = [0, w, y][which];
                (before, workspace.values()[start..start + sizes[which]].to_vec())
            };
            let (before, found) = run(1);
            let mut exact = vec![0.0; sizes[which]];
            let values = [&before[..w], &before[w..y], &before[y..packed]];
            products(&geometry, values, |at, v| exact[at[which]] += v[0] * v[1] * v[2] / v[which]);
            for (found, exact) in found.iter().zip(&exact) {
                assert!(
                    (*found as f64 - exact).abs() < 1e-3,
                    "{isa} {target:?} {geometry:?}: {found} {exact}"
                );
            }
            assert_eq!(found, run(3).1, "{isa} {target:?}: threads change bits");
        }
    }
}

#[test]
fn convolutions_match_their_definition() {
    let plain = Geometry {
        batch: 3,
        input: [1, 7, 6],
        channels_in: 5,
        output: [1, 5, 4],
        channels_out: 11,
        kernel: [1, 3, 3],
        strides: [1; 3],
        dilation: [1; 3],
        before: [0; 3],
        groups: 1,
    };
    check(plain);
    check(Geometry { output: [1, 7, 6], before: [0, 1, 1], ..plain });
    check(Geometry { output: [1, 4, 3], before: [0, 1, 0], strides: [1, 2, 2], ..plain });
    check(Geometry { output: [1, 3, 2], dilation: [1, 2, 2], ..plain });
    check(Geometry { channels_in: 4, channels_out: 6, groups: 2, ..plain });
    check(Geometry {
        channels_in: 20,
        channels_out: 20,
        groups: 20,
        output: [1, 7, 6],
        before: [0, 1, 1],
        ..plain
    });
    check(Geometry {
        input: [4, 5, 6],
        output: [3, 3, 6],
        kernel: [2, 3, 1],
        channels_in: 2,
        channels_out: 3,
        ..plain
    });
    check(Geometry {
        batch: 1,
        input: [1, 1, 40],
        output: [1, 1, 38],
        kernel: [1, 1, 3],
        channels_out: 40,
        ..plain
    });
}

#[test]
fn pooling_takes_and_puts_where_windows_are_greatest() {
    for isa in Isa::available() {
        [3, 16, 39].into_iter().for_each(|channels| check_pooling(isa, channels));
    }
}

/// Among what is pooled is one value that is no number: it must not be hidden.
fn check_pooling(isa: Isa, channels: usize) {
    use super::pooling::{Pool, Pooling};
    let geometry = Geometry {
        batch: 2,
        input: [1, 5, 5],
        channels_in: channels,
        output: [1, 3, 3],
        channels_out: channels,
        kernel: [1, 3, 3],
        strides: [1, 2, 2],
        dilation: [1; 3],
        before: [0, 1, 1],
        groups: 1,
    };
    let (inputs, outputs) = (2 * geometry.input_len(), 2 * geometry.output_len());
    let compute = Compute::new(isa, 2);
    let mut workspace = Workspace::new(2 * inputs + outputs, 2);
    let mut random: Vec<f32> =
        (0..workspace.len()).map(|i| ((i * 7919 + 5) % 1009) as f32 / 504.5 - 1.0).collect();
    random[7 * channels + 1] = f32::NAN;
    let mut run = |pooling, x, values| {
        workspace.values_mut().copy_from_slice(&random);
        Pool::new(geometry, pooling, x, values, 2 * inputs).run(&compute, &mut workspace);
        workspace.values().to_vec()
    };
    let greatest = run(Pooling::Take, 0, 0);
    let taken = run(Pooling::Take, 0, inputs);
    let put = run(Pooling::Put, 0, inputs);
    let sum = run(Pooling::Sum, inputs, inputs);
    let spread = run(Pooling::Spread, inputs, inputs);
    let mut expected_put = vec![0.0f32; inputs];
    let mut expected_spread = vec![0.0f32; inputs];
    for i in 0..outputs {
        let (image, rest) = (i / geometry.output_len(), i % geometry.output_len());
        let (pixel, channel) = (rest / channels, rest % channels);
        let at = geometry.coordinates(pixel);
        let seen: Vec<usize> = (0..9)
            .filter_map(|tap| geometry.tap_pixel(at, tap))
            .map(|pixel| image * geometry.input_len() + pixel * channels + channel)
            .collect();
        let winner = *seen.iter().max_by(|a, b| random[**a].total_cmp(&random[**b])).unwrap();
        assert_eq!(greatest[2 * inputs + i].to_bits(), random[winner].to_bits(), "{isa} {channels}");
        assert_eq!(taken[2 * inputs + i], random[inputs + winner]);
        assert!((sum[2 * inputs + i] - seen.iter().map(|at| random[inputs + at]).sum::<f32>()).abs() < 1e-5);
        expected_put[winner] += random[2 * inputs + i];
        seen.iter().for_each(|&at| expected_spread[at] += random[2 * inputs + i]);
    }
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&put[inputs..2 * inputs], &expected_put));
    assert!(close(&spread[inputs..2 * inputs], &expected_spread));
}
