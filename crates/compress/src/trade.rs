//! Fewer bytes for the least loss: of many parts, each of which can be kept in several ways, which gets smaller next.

use serde::Serialize;

/// What is asked for; both, if both are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Wish {
    /// Bytes of the file, at most.
    pub bytes_max: Option<u64>,
    /// What may be lost, at most. Of a language model: divergence from the original on the text, in nats a token. Of a network:
    /// share of right answers (0.005 is half a point), or the relative growth of the mean squared error where answers are
    /// numbers; without right answers, the relative difference to the original's.
    pub loss_max: Option<f64>,
}

/// A way to keep a part, and what that costs: costs of different parts add up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    pub bytes: usize,
    pub cost: f64,
}

/// From each part's first way to fewer and fewer bytes: `(part, way)`, each the step that adds least cost for the bytes that
/// it saves.
pub fn steps(parts: &[Vec<Way>]) -> Vec<(usize, usize)> {
    let mut now: Vec<Option<Way>> = parts.iter().map(|ways| ways.first().copied()).collect();
    let best_of = |part: usize, now: Option<Way>| -> Option<(f64, usize)> {
        let now = now?;
        let price = |(way, to): (usize, &Way)| {
            let saved = now.bytes.checked_sub(to.bytes).filter(|saved| *saved > 0)?;
            Some(((to.cost - now.cost).max(0.0) / saved as f64, way))
        };
        parts[part].iter().enumerate().filter_map(price).min_by(|(a, _), (b, _)| a.total_cmp(b))
    };
    let mut best: Vec<_> = now.iter().enumerate().map(|(part, now)| best_of(part, *now)).collect();
    let mut steps = Vec::new();
    loop {
        let next = best.iter().enumerate().filter_map(|(part, best)| Some((best.as_ref()?, part)));
        let Some((&(_, way), part)) = next.min_by(|((a, _), _), ((b, _), _)| a.total_cmp(b)) else {
            return steps;
        };
        steps.push((part, way));
        now[part] = Some(parts[part][way]);
        best[part] = best_of(part, now[part]);
    }
}

#[test]
fn bytes_go_where_they_are_cheapest() {
    let part =
        |ways: &[(usize, f64)]| ways.iter().map(|&(bytes, cost)| Way { bytes, cost }).collect::<Vec<_>>();
    let parts = [part(&[(100, 0.0), (50, 1.0), (10, 9.0)]), part(&[(100, 0.0), (60, 0.1), (20, 0.5)])];
    // Prices of a byte: 0.0025 for the second part's first, then 0.01, 0.02 and 0.2.
    assert_eq!(steps(&parts), [(1, 1), (1, 2), (0, 1), (0, 2)]);
    // A way that costs more and saves less than another is passed over.
    assert_eq!(steps(&[part(&[(100, 0.0), (90, 5.0), (50, 1.0)])]), [(0, 2)]);
    assert_eq!(steps(&[vec![], part(&[(3, 0.0)])]), []);
}
