//! How much each layer changes the residual stream: what a layer that may be left out does little of.
//!
//! Source: ShortGPT (Men et al. 2024, arXiv 2403.03853), whose "block influence" is one less the mean cosine similarity of
//! what goes in and what comes out.

/// Sums over rows, of each layer.
#[derive(Clone, Debug)]
pub struct LayerChanges {
    /// Of cosine similarities.
    similarities: Vec<f64>,
    rows: Vec<u64>,
    /// What went into the layer that is at work.
    before: Vec<f32>,
}

impl LayerChanges {
    pub(super) fn new(layers: usize) -> LayerChanges {
        LayerChanges { similarities: vec![0.0; layers], rows: vec![0; layers], before: Vec::new() }
    }

    pub(super) fn begin(&mut self, residual: &[f32]) {
        self.before.clear();
        self.before.extend_from_slice(residual);
    }

    /// `after` are rows of `h`, as many as [`LayerChanges::begin`] was given.
    pub(super) fn end(&mut self, layer: usize, after: &[f32], h: usize) {
        for (before, after) in self.before.chunks_exact(h).zip(after.chunks_exact(h)) {
            self.similarities[layer] += cosine(before, after);
            self.rows[layer] += 1;
        }
    }

    /// One less the mean similarity: 0 where the layer changes no direction. `None` where nothing went through.
    pub fn influence(&self, layer: usize) -> Option<f64> {
        let rows = self.rows[layer];
        (rows > 0).then(|| 1.0 - self.similarities[layer] / rows as f64)
    }
}

/// 1 where both are zeros, 0 where one is.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    match (aa > 0.0, bb > 0.0) {
        (true, true) => ab / (aa * bb).sqrt(),
        (one, other) => f64::from(u8::from(one == other)),
    }
}
