//! Measures the coding of one file of weights on all cores: `codec FILE LAYOUT [BASE]`, LAYOUT being words16, words32
//! or bytes. One line of JSON: sizes, and gigabytes of weights a second, the best of several rounds. Since others may be
//! at work on the machine, it says too what one core does in a second that it has for itself (Linux).

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use store::codec::{self, Layout};

const CHUNK_BYTES: usize = 1 << 20;
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, layout, base @ ..] = &arguments[..] else { return Err("codec FILE LAYOUT [BASE]".into()) };
    let layout = match layout.as_str() {
        "words16" => Layout::Words16,
        "words32" => Layout::Words32,
        "bytes" => Layout::Bytes,
        other => return Err(format!("no layout {other}").into()),
    };
    let raw = std::fs::read(file)?;
    let base = base.first().map(std::fs::read).transpose()?;
    let threads = std::thread::available_parallelism()?.get();
    let chunks: Vec<&[u8]> = raw.chunks(CHUNK_BYTES).collect();
    let bases: Vec<Option<&[u8]>> = match &base {
        Some(base) => base.chunks(CHUNK_BYTES).map(Some).collect(),
        None => vec![None; chunks.len()],
    };
    let (encode_seconds, encode_core, frames) =
        best(|| each(threads, chunks.len(), |index| codec::encode(chunks[index], layout, 0, bases[index])));
    let (decode_seconds, decode_core, decoded) = best(|| {
        each(threads, chunks.len(), |index| codec::decode(&frames[index], bases[index], CHUNK_BYTES))
    });
    for (chunk, decoded) in chunks.iter().zip(decoded) {
        if decoded? != *chunk {
            return Err("what came out isn't what was put in".into());
        }
    }
    let coded: usize = frames.iter().map(Vec::len).sum();
    let speed = |seconds: f64| raw.len() as f64 / 1e9 / seconds;
    let line = serde_json::json!({
        "bytes": raw.len(), "coded": coded, "threads": threads,
        "encode_gb_s": speed(encode_seconds), "decode_gb_s": speed(decode_seconds),
        "encode_gb_s_core": speed(encode_core), "decode_gb_s_core": speed(decode_core),
    });
    println!("{line}");
    Ok(())
}

/// The least seconds by the clock, the least seconds of all threads' work, and the last result.
fn best<T: Send>(mut work: impl FnMut() -> (f64, T)) -> (f64, f64, T) {
    let mut round = || {
        let begun = Instant::now();
        let (worked, result) = work();
        (begun.elapsed().as_secs_f64(), worked, result)
    };
    let mut best = round();
    for _ in 1..ROUNDS {
        let (seconds, worked, result) = round();
        best = (best.0.min(seconds), best.1.min(worked), result);
    }
    best
}

/// Results of `work` for each index, by `threads` threads, and the seconds that they had a core.
fn each<T: Send>(threads: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> (f64, Vec<T>) {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0.0, Vec::with_capacity(count)));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    own.push((index, work(index)));
                }
                if let Ok(mut results) = results.lock() {
                    results.0 += seconds_on_core();
                    results.1.extend(own);
                }
            });
        }
    });
    let (seconds, mut results) = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(index, _)| *index);
    (seconds, results.into_iter().map(|(_, result)| result).collect())
}

/// What the system says that this thread had of a core.
fn seconds_on_core() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).map_or(f64::NAN, |ns: f64| ns / 1e9)
}
