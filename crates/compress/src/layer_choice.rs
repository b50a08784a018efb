//! Which layers of a decoder a text needs least.
//!
//! Each layer's influence, one less the mean cosine similarity of what goes in and what comes out (ShortGPT, Men et al.
//! 2024, arXiv 2403.03853), says which few are worth trying; of these goes the one without which the text is expected
//! best, then the next. Influence alone knows nothing of layers that matter because of others.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use kernels::compute::Compute;
use serde::Serialize;

use crate::error::CompressError;
use crate::sequence::{Reader, spread};

/// Windows on which influence is measured.
const INFLUENCE_WINDOWS: usize = 16;
/// Layers that are tried for each that goes.
const TRIED: usize = 4;
/// Windows that each of them is tried on.
const TRIAL_WINDOWS: usize = 4;

/// What was found out of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerInfluence {
    pub layer: usize,
    /// 0 where the layer turns the hidden state into no other direction.
    pub influence: f64,
    pub is_dropped: bool,
    /// Of a layer that was dropped: the text's perplexity without it and those that were dropped before it.
    pub perplexity_without: Option<f64>,
}

/// Chooses `count` layers of the model at `path` to leave out, by what it does with `text`. `progress` hears how many of
/// how many windows are done, and may ask to stop.
///
/// # Errors
/// A model that can't be run or has no more layers than that, a text that is too short.
pub fn choose_layers(
    path: &Path,
    compute: &Arc<Compute>,
    text: &str,
    count: usize,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<LayerInfluence>, CompressError> {
    let mut reader = Reader::open(path, compute)?;
    let layers = reader.files.decoder().layers.len();
    if count >= layers {
        return Err(CompressError::Layers { found: count, layers });
    }
    let tokens = reader.tokens(text)?;
    let of = |windows: usize| spread(&tokens, windows);
    let (seen, tried) = (of(INFLUENCE_WINDOWS), of(TRIAL_WINDOWS));
    let all = seen.len() + count * TRIED.min(layers) * tried.len();
    let mut done = 0;
    let mut next = || {
        done += 1;
        if progress((done - 1).min(all), all).is_break() { Err(CompressError::Stopped) } else { Ok(()) }
    };

    reader.forward.gather_changes();
    for window in seen {
        next()?;
        reader.read(window);
    }
    let influence = |layer| reader.forward.changes().and_then(|changes| changes.influence(layer));
    let mut found: Vec<LayerInfluence> = (0..layers)
        .map(|layer| LayerInfluence {
            layer,
            influence: influence(layer).unwrap_or_default(),
            is_dropped: false,
            perplexity_without: None,
        })
        .collect();
    let mut order: Vec<usize> = (0..layers).collect();
    order.sort_by(|a, b| found[*a].influence.total_cmp(&found[*b].influence));

    let mut dropped = Vec::with_capacity(count);
    for _ in 0..count {
        let mut best: Option<(f64, usize)> = None;
        for layer in order.iter().copied().filter(|layer| !dropped.contains(layer)).take(TRIED) {
            reader.forward.skip_layers(&[dropped.as_slice(), &[layer]].concat());
            let mut surprise = 0.0;
            for window in &tried {
                next()?;
                surprise += reader.surprise(window);
            }
            let perplexity = (surprise / tried.len() as f64).exp();
            if best.is_none_or(|(least, _)| perplexity.total_cmp(&least).is_lt()) {
                best = Some((perplexity, layer));
            }
        }
        let Some((perplexity, layer)) = best else { break };
        dropped.push(layer);
        (found[layer].is_dropped, found[layer].perplexity_without) = (true, Some(perplexity));
    }
    let _ = progress(all, all);
    Ok(found)
}

/// The layers that are to go, in rising order.
pub fn dropped(layers: &[LayerInfluence]) -> Vec<usize> {
    layers.iter().filter(|layer| layer.is_dropped).map(|layer| layer.layer).collect()
}
