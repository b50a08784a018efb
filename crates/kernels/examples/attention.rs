//! Measures attention: prefill of whole prompts and decoding steps, with the shapes of real models.
//!
//! `cargo run --release -p kernels --example attention [threads]`

use std::time::Instant;

use kernels::attention::{AttentionSettings, KvCache, KvElement, KvLayout, PAGE_TOKENS};
use kernels::attention::{Rows, SequenceRows, attend};
use kernels::compute::{Compute, Isa};

/// Query heads, key/value heads and their size.
struct Shape {
    name: &'static str,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "SmolLM2-135M", heads: 9, kv_heads: 3, head_dim: 64 },
    Shape { name: "Llama-3.2-1B", heads: 32, kv_heads: 8, head_dim: 64 },
    Shape { name: "Llama-3.1-8B", heads: 32, kv_heads: 8, head_dim: 128 },
];

/// The least time of some runs, in seconds.
fn least_s(mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut least = f64::INFINITY;
    while begin.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        run();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

/// Attention of the last `rows` positions of each of `sequences` sequences of `length`.
fn measure(
    compute: &Compute,
    shape: &Shape,
    element: KvElement,
    sequences: usize,
    rows: usize,
    length: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let Shape { name, heads, kv_heads, head_dim } = *shape;
    let pages_each = length.div_ceil(PAGE_TOKENS);
    let layout = KvLayout::new(1, kv_heads, head_dim, (pages_each * sequences) as u32, element);
    let mut cache = KvCache::new(layout?)?;
    let tables: Vec<Vec<u32>> =
        (0..sequences).map(|i| (0..pages_each).map(|page| (page * sequences + i) as u32).collect()).collect();
    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let keys = wave(length * kv_heads * head_dim, 0.37);
    let keys = Rows { values: &keys, stride: kv_heads * head_dim };
    for pages in &tables {
        let all = SequenceRows { rows: 0..length, first_position: 0, pages };
        cache.write(compute, 0, &[all], keys, keys);
    }
    let batch: Vec<SequenceRows<'_>> = tables
        .iter()
        .enumerate()
        .map(|(i, pages)| SequenceRows {
            rows: i * rows..(i + 1) * rows,
            first_position: length - rows,
            pages,
        })
        .collect();
    let queries = wave(sequences * rows * heads * head_dim, 0.71);
    let mut out = vec![0.0; queries.len()];
    let queries = Rows { values: &queries, stride: heads * head_dim };
    let settings =
        AttentionSettings { heads, scale: 1.0 / (head_dim as f32).sqrt(), softcap: None, window: None };
    let attend_s = least_s(|| attend(compute, &cache, 0, queries, &batch, &settings, &mut out));
    let new = wave(sequences * rows * kv_heads * head_dim, 0.5);
    let new = Rows { values: &new, stride: kv_heads * head_dim };
    let write_s = least_s(|| cache.write(compute, 0, &batch, new, new));
    let seen: usize = (length - rows + 1..=length).sum();
    let flops = (4 * sequences * seen * heads * head_dim) as f64;
    let read = (2 * sequences * length * kv_heads * head_dim) as f64
        * if element == KvElement::I16 { 2.0 } else { 1.0 };
    println!(
        "{name}, {} cache, {sequences} x {rows} rows at {length}: {:.1} us, {:.1} GFLOP/s, {:.1} GB/s; write {:.1} us",
        element.name(),
        attend_s * 1e6,
        flops / attend_s / 1e9,
        read / attend_s / 1e9,
        write_s * 1e6,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(1);
    let isa =
        std::env::args().nth(2).and_then(|name| Isa::available().into_iter().find(|isa| isa.name() == name));
    let compute = Compute::new(isa.unwrap_or(Isa::detect()), threads);
    println!("{}, {threads} threads", compute.isa());
    for shape in &SHAPES {
        for element in [KvElement::I16, KvElement::I8] {
            for (sequences, rows, length) in [(1, 512, 512), (1, 512, 4096), (1, 1, 4096), (16, 1, 512)] {
                measure(&compute, shape, element, sequences, rows, length)?;
            }
        }
    }
    Ok(())
}
