//! Speed of matrix products, for tuning: `matmul [--types Q4_0,Q6_K] [--shapes NxK,..] [--rows 1,8,512]
//! [--threads N] [--isa avx2] [--ms 200]`.
//!
//! Each line is the best of many short runs, which a busy machine disturbs least: multiply-adds count as two
//! operations, and bytes are those of the packed weights. One row walks over copies of the weights that together
//! exceed the caches, as decoding does; `--warm` keeps to one copy.

use std::time::{Duration, Instant};

use kernels::compute::{Compute, Isa};
use kernels::elements::ElementType;
use kernels::matmul::{Input, PackedWeights, QuantizedRows, Weights, matmul};
use kernels::memory::Arena;

/// Packed bytes that one row walks over before it meets a weight again.
const COLD_BYTES: usize = 96 << 20;

struct Settings {
    types: Vec<ElementType>,
    shapes: Vec<(usize, usize)>,
    rows: Vec<usize>,
    compute: Compute,
    time: Duration,
    warm: bool,
}

fn main() {
    let settings = settings(std::env::args().skip(1).collect());
    println!("{} with {} threads", settings.compute.isa(), settings.compute.pool().threads());
    println!(
        "{:>8} {:>12} {:>5} {:>10} {:>9} {:>8} {:>9}",
        "type", "n x k", "rows", "us", "GOP/s", "GB/s", "pack s/G"
    );
    for element_type in &settings.types {
        for (n, k) in &settings.shapes {
            if element_type.row_bytes(*k).is_none() {
                println!("{:>8} {:>12}   rows of {k} are no whole blocks", element_type, format!("{n}x{k}"));
                continue;
            }
            measure(&settings, *element_type, *n, *k);
        }
    }
}

fn settings(args: Vec<String>) -> Settings {
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        Some(args.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value")).clone())
    };
    let numbers = |text: String, by: char| -> Vec<usize> {
        text.split(by).map(|x| x.parse().unwrap_or_else(|_| panic!("{x} is no number"))).collect()
    };
    let named = |name: &str| {
        let found = ElementType::ALL.into_iter().find(|x| x.name().eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("{name} is no element type"))
    };
    let types = value("--types").unwrap_or("Q4_1,Q4_0,Q8_0".into());
    let shapes = value("--shapes").unwrap_or("1536x576,576x1536,49152x576".into());
    let isa = value("--isa").map_or(Isa::detect(), |name| {
        let found = Isa::available().into_iter().find(|isa| isa.name() == name);
        found.unwrap_or_else(|| panic!("this machine has no {name}"))
    });
    let threads = numbers(value("--threads").unwrap_or("2".into()), ',')[0];
    Settings {
        types: match types.as_str() {
            "all" => ElementType::ALL.to_vec(),
            names => names.split(',').map(named).collect(),
        },
        shapes: shapes.split(',').map(|shape| numbers(shape.into(), 'x')).map(|x| (x[0], x[1])).collect(),
        rows: numbers(value("--rows").unwrap_or("1,8,512".into()), ','),
        compute: Compute::new(isa, threads),
        time: Duration::from_millis(numbers(value("--ms").unwrap_or("200".into()), ',')[0] as u64),
        warm: args.iter().any(|arg| arg == "--warm"),
    }
}

fn measure(settings: &Settings, element_type: ElementType, n: usize, k: usize) {
    let compute = &settings.compute;
    let mut bytes = vec![0u8; element_type.row_bytes(n * k).unwrap_or(0)];
    // Codes and scales only need to be finite: no two bytes of this make an exponent of ones in any float type.
    bytes
        .iter_mut()
        .enumerate()
        .for_each(|(i, byte)| *byte = (i.wrapping_mul(2654435761) >> 13) as u8 & 0x2f);
    let weights = [Weights { element_type, rows: n, columns: k, bytes: &bytes }];
    let pack = || match PackedWeights::pack(compute, &weights, &mut Arena::new(0), &mut || {}) {
        Ok(packed) => packed,
        Err(error) => panic!("{error}"),
    };
    let started = Instant::now();
    let mut copies = vec![pack()];
    let pack_time = started.elapsed();
    for rows in &settings.rows {
        let cold = if settings.warm || *rows > 16 { 1 } else { COLD_BYTES.div_ceil(copies[0].bytes()) };
        copies.resize_with(copies.len().max(cold), pack);
        let mut values: Vec<f32> = (0..rows * k).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        let mut quantized = QuantizedRows::new(*rows, k, copies[0].reads());
        quantized.fill(compute, &mut values, k, |_, _| {});
        let mut out = vec![0.0; rows * n];
        let (mut best, started, mut run) = (Duration::MAX, Instant::now(), 0);
        while started.elapsed() < settings.time || run < 2 * cold {
            // A few products at a time, so that the clock costs nothing.
            let each = if cold > 1 { cold.min(8) } else { 1 };
            let now = Instant::now();
            for i in 0..each {
                let input = Input { values: &values, quantized: &quantized };
                matmul(compute, input, &copies[(run + i) % cold], &mut out);
            }
            best = best.min(now.elapsed() / each as u32);
            run += each;
        }
        let seconds = best.as_secs_f64();
        println!(
            "{:>8} {:>12} {:>5} {:>10.1} {:>9.1} {:>8.2} {:>9.2}",
            element_type,
            format!("{n}x{k}"),
            rows,
            seconds * 1e6,
            2.0 * (rows * n * k) as f64 / seconds / 1e9,
            copies[0].bytes() as f64 / seconds / 1e9,
            pack_time.as_secs_f64() / (n * k) as f64 * 1e9,
        );
    }
}
