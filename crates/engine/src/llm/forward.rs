//! One pass of a decoder over a batch: token ids in, logits out.
//!
//! Dimension letters as in `formats::model`, and `m` for the rows (tokens) of a batch. A row's result never
//! depends on the other rows, so prompts may be split and sequences mixed at will.

use std::ops::Range;
use std::sync::Arc;

use formats::model::{Activation, Decoder, ModelFiles, Rotary, RotaryLayout};
use kernels::activation;
use kernels::attention::{AttentionSettings, HEAD_DIM_MAX, KvCache, Rows, SequenceRows, attend};
use kernels::compute::Compute;
use kernels::matmul::{Forms, Input, QuantizedRows, matmul};
use kernels::norm::rms_norm;
use kernels::rotary::{Layout, rotate};

use super::experts::{ExpertBuffers, mix_experts};
use super::input_squares::{InputSquares, Reads};
use super::layer_changes::LayerChanges;
use super::weights::{DecoderWeights, FeedForwardWeights, GatedWeights, LayerWeights};

/// Consecutive tokens of one sequence in a batch.
#[derive(Clone, Debug)]
pub struct Span {
    pub tokens: Vec<u32>,
    /// Position of the first token in its sequence.
    pub first_position: usize,
    /// The sequence's pages of the cache, enough for its positions up to the span's end.
    pub pages: Vec<u32>,
    /// Which of the tokens to compute logits after.
    pub logits: Range<usize>,
}

/// A model ready to run, with the buffers of a step, which are made once.
pub struct Forward {
    pub compute: Arc<Compute>,
    decoder: Decoder,
    weights: DecoderWeights,
    rotaries: Vec<Rotary>,
    /// Layers that the residual stream passes by unchanged.
    skipped: Vec<bool>,
    buffers: Buffers,
    rows_max: usize,
    logit_rows_max: usize,
}

/// Intermediate values of a step, each `[m, ...]`, row-major.
struct Buffers {
    /// The residual stream, `[m, h]`.
    residual: Vec<f32>,
    /// `[m, h]`.
    normed: Vec<f32>,
    quantized: QuantizedRows,
    /// What the stacked products write: query, key, value or gate, up.
    stacked: Vec<f32>,
    /// `[m, a·d]`.
    attended: Vec<f32>,
    /// `[m, f]`.
    inner: Vec<f32>,
    /// `[m, h]`.
    projected: Vec<f32>,
    /// For each rotary, `[m, dim/2]` cosines and sines.
    angles: Vec<Angles>,
    /// Logits asked for, `[logit rows, v]`.
    logits: Vec<f32>,
    experts: Option<ExpertBuffers>,
    /// Where they are asked for.
    squares: Option<InputSquares>,
    changes: Option<LayerChanges>,
}

struct Angles {
    /// Pairs rotated: columns of both.
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// The widest intermediate values of a decoder, in elements a row.
struct Widths {
    stacked: usize,
    inner: usize,
    columns_max: usize,
}

fn widths(decoder: &Decoder) -> Widths {
    let inner = decoder.feed_forward.max(decoder.experts.map_or(0, |experts| experts.hidden));
    let attention = decoder.heads * decoder.head_dim;
    Widths {
        stacked: (attention + 2 * decoder.kv_heads * decoder.head_dim).max(2 * inner),
        inner,
        columns_max: decoder.hidden.max(attention).max(inner),
    }
}

impl Forward {
    /// Bytes of the buffers for steps of `rows_max` tokens of which `logit_rows_max` ask for logits.
    pub fn buffer_bytes(decoder: &Decoder, rows_max: usize, logit_rows_max: usize) -> u64 {
        let widths = widths(decoder);
        let attended = decoder.heads * decoder.head_dim;
        let row = 3 * decoder.hidden + widths.stacked + widths.inner + attended;
        // As 8-bit codes with what each block has, and as pairs of bfloat16.
        let quantized = widths.columns_max.div_ceil(4) + 3 * widths.columns_max.div_ceil(32);
        let quantized = quantized + widths.columns_max.div_ceil(2);
        let experts = decoder.experts.map_or(0, |experts| 2 * decoder.hidden + experts.count);
        let rows = rows_max as u64 * (row + quantized + experts) as u64;
        4 * (rows + logit_rows_max as u64 * (decoder.vocabulary + decoder.hidden) as u64)
    }

    /// Packs the model's weights; `progress` hears how many of how many layers are done.
    ///
    /// # Errors
    /// A tensor that is missing or of the wrong shape.
    pub fn load(
        compute: impl Into<Arc<Compute>>,
        files: &ModelFiles,
        sizes: StepSizes,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Forward, super::weights::WeightsError> {
        let compute = compute.into();
        let weights = DecoderWeights::load(&compute, files, progress)?;
        Ok(Forward::new(compute, files, weights, sizes))
    }

    /// Runs the model of `files` by its packed weights.
    pub(super) fn new(
        compute: Arc<Compute>,
        files: &ModelFiles,
        weights: DecoderWeights,
        sizes: StepSizes,
    ) -> Forward {
        let decoder = files.decoder().clone();
        let rotaries = decoder.rotaries_at(sizes.context_tokens);
        let buffers = Buffers::new(&decoder, &rotaries, &sizes, weights.reads);
        let StepSizes { rows_max, logit_rows_max, .. } = sizes;
        let skipped = vec![false; decoder.layers.len()];
        Forward { compute, decoder, weights, rotaries, skipped, buffers, rows_max, logit_rows_max }
    }

    pub fn weights(&self) -> &DecoderWeights {
        &self.weights
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// From now on adds up the squares of what every product reads, which takes time.
    pub fn gather_squares(&mut self) {
        self.buffers.squares = Some(InputSquares::new(&self.decoder));
    }

    /// The same anew, and of `layers` products of columns with each other too, but for inputs of more than `columns_max`: `4·n²` bytes for `n` columns.
    pub fn gather_products(&mut self, layers: Range<usize>, columns_max: usize) {
        // First, as both would take twice the memory.
        self.buffers.squares = None;
        let (compute, rows) = (&self.compute, self.rows_max);
        self.buffers.squares =
            Some(InputSquares::with_products(&self.decoder, compute, layers, columns_max, rows));
    }

    /// The sums so far, where they are gathered.
    pub fn squares(&self) -> Option<&InputSquares> {
        self.buffers.squares.as_ref()
    }

    /// From now on adds up how much each layer changes the residual stream.
    pub fn gather_changes(&mut self) {
        self.buffers.changes = Some(LayerChanges::new(self.decoder.layers.len()));
    }

    /// The sums so far, where they are gathered.
    pub fn changes(&self) -> Option<&LayerChanges> {
        self.buffers.changes.as_ref()
    }

    /// From now on leaves out the layers of `skipped` and no others, as if the model had been made without them.
    ///
    /// # Panics
    /// When the model has no such layer.
    pub fn skip_layers(&mut self, skipped: &[usize]) {
        self.skipped.fill(false);
        skipped.iter().for_each(|layer| self.skipped[*layer] = true);
    }

    /// Runs the spans of a batch, writes their keys and values to `cache`, and returns the logits asked for,
    /// `[rows, v]` in the order of the spans, with what they were computed on, for who goes on from there.
    ///
    /// # Panics
    /// When a batch has more rows than the step was sized for: the scheduler's mistake.
    pub fn run(&mut self, spans: &[Span], cache: &mut KvCache) -> (&Compute, &mut [f32]) {
        let m: usize = spans.iter().map(|span| span.tokens.len()).sum();
        let logit_rows: usize = spans.iter().map(|span| span.logits.len()).sum();
        assert!(m <= self.rows_max, "a step of {m} rows, sized for {}", self.rows_max);
        assert!(
            logit_rows <= self.logit_rows_max,
            "{logit_rows} logit rows, sized for {}",
            self.logit_rows_max
        );
        let mut sequences = Vec::with_capacity(spans.len());
        let mut row = 0;
        for span in spans {
            let rows = row..row + span.tokens.len();
            row = rows.end;
            sequences.push(SequenceRows { rows, first_position: span.first_position, pages: &span.pages });
        }

        let step = Step { compute: &self.compute, decoder: &self.decoder, m };
        step.embed(&self.weights, spans, &mut self.buffers.residual);
        step.angles(&sequences, &self.rotaries, &mut self.buffers.angles);
        let layers = self.weights.layers.iter().enumerate().filter(|(index, _)| !self.skipped[*index]);
        for (index, weights) in layers {
            if let Some(changes) = &mut self.buffers.changes {
                changes.begin(&self.buffers.residual[..m * self.decoder.hidden]);
            }
            step.attention(index, weights, &sequences, cache, &mut self.buffers);
            step.feed_forward(index, weights, &mut self.buffers);
            if let Some(changes) = &mut self.buffers.changes {
                let h = self.decoder.hidden;
                changes.end(index, &self.buffers.residual[..m * h], h);
            }
        }
        step.logits(spans, &self.weights, logit_rows, &mut self.buffers);
        (&self.compute, &mut self.buffers.logits[..logit_rows * self.decoder.vocabulary])
    }
}

/// The largest step that buffers are made for.
#[derive(Clone, Copy, Debug)]
pub struct StepSizes {
    pub context_tokens: usize,
    pub rows_max: usize,
    pub logit_rows_max: usize,
}

impl Buffers {
    fn new(decoder: &Decoder, rotaries: &[Rotary], sizes: &StepSizes, reads: Forms) -> Buffers {
        let rows = sizes.rows_max;
        let widths = widths(decoder);
        let zeros = |columns: usize| vec![0.0; rows * columns];
        let angles = rotaries.iter().map(|rotary| {
            let pairs = rotary.frequencies.len();
            Angles { pairs, cos: zeros(pairs), sin: zeros(pairs) }
        });
        Buffers {
            residual: zeros(decoder.hidden),
            normed: vec![0.0; rows.max(sizes.logit_rows_max) * decoder.hidden],
            quantized: QuantizedRows::new(rows.max(sizes.logit_rows_max), widths.columns_max, reads),
            stacked: zeros(widths.stacked),
            attended: zeros(decoder.heads * decoder.head_dim),
            inner: zeros(widths.inner),
            projected: vec![0.0; rows.max(sizes.logit_rows_max) * decoder.hidden],
            angles: angles.collect(),
            logits: vec![0.0; sizes.logit_rows_max * decoder.vocabulary],
            experts: decoder.experts.map(|experts| ExpertBuffers::new(&experts, decoder.hidden, rows)),
            squares: None,
            changes: None,
        }
    }
}

/// What every part of one pass needs to know.
pub(super) struct Step<'a> {
    pub compute: &'a Compute,
    pub decoder: &'a Decoder,
    /// Rows of the batch.
    pub m: usize,
}

impl Step<'_> {
    /// Looks up each token's embedding.
    fn embed(&self, weights: &DecoderWeights, spans: &[Span], residual: &mut [f32]) {
        let (h, scale) = (self.decoder.hidden, self.decoder.embedding_scale);
        let mut rest = residual;
        for Span { tokens, .. } in spans {
            let (rows, others) = rest.split_at_mut(tokens.len() * h);
            rest = others;
            self.compute.pool().for_each_row(rows, h, |row, residual| {
                weights.embed(tokens[row], residual);
                if scale != 1.0 {
                    residual.iter_mut().for_each(|x| *x *= scale);
                }
            });
        }
    }

    /// Cosines and sines of every row's position, for each rotary embedding.
    fn angles(&self, sequences: &[SequenceRows<'_>], rotaries: &[Rotary], angles: &mut [Angles]) {
        for (rotary, Angles { pairs, cos, sin }) in rotaries.iter().zip(angles) {
            for sequence in sequences {
                for (offset, row) in sequence.rows.clone().enumerate() {
                    let position = (sequence.first_position + offset) as f32;
                    for (i, frequency) in rotary.frequencies.iter().enumerate() {
                        // Not the platform's, whose last bits may differ.
                        let (s, c) = libm::sincosf(position * frequency);
                        cos[row * *pairs + i] = c * rotary.attention_factor;
                        sin[row * *pairs + i] = s * rotary.attention_factor;
                    }
                }
            }
        }
    }

    fn attention(
        &self,
        index: usize,
        weights: &LayerWeights,
        sequences: &[SequenceRows<'_>],
        cache: &mut KvCache,
        buffers: &mut Buffers,
    ) {
        let (h, m) = (self.decoder.hidden, self.m);
        let stack = &weights.query_key_value;
        let stacked = &mut buffers.stacked[..m * stack.columns()];
        let (residual, normed) = (&buffers.residual[..m * h], &mut buffers.normed[..m * h]);
        let input = self.norm(residual, &weights.attention_norm, normed, &mut buffers.quantized);
        stack.multiply(self.compute, input, m, stacked);
        if let Some(squares) = &mut buffers.squares {
            squares.add(self.compute, index, Reads::QueryKeyValue, input.values);
        }
        self.finish_heads(weights, &buffers.angles[self.decoder.layers[index].rotary], stacked);

        let attended = &mut buffers.attended[..m * self.decoder.heads * self.decoder.head_dim];
        self.attend(index, sequences, cache, [0, 1, 2].map(|part| stack.part(stacked, m, part)), attended);
        let columns = self.decoder.heads * self.decoder.head_dim;
        let input = quantize(self.compute, attended, columns, &mut buffers.quantized);
        let projected = &mut buffers.projected[..m * h];
        matmul(self.compute, input, &weights.attention_output, projected);
        if let Some(squares) = &mut buffers.squares {
            squares.add(self.compute, index, Reads::AttentionOutput, input.values);
        }
        if let Some(bias) = &weights.attention_output_bias {
            projected.chunks_exact_mut(h).for_each(|row| add(row, bias));
        }
        self.add_to_residual(weights.post_attention_norm.as_deref(), buffers);
    }

    /// What becomes of queries, keys and values before attention sees them: adds the bias, norms each head and rotates
    /// it, as far as the family has these.
    fn finish_heads(&self, weights: &LayerWeights, angles: &Angles, stacked: &mut [f32]) {
        let layout = match self.decoder.rotary_layout {
            RotaryLayout::Interleaved => Layout::Interleaved,
            RotaryLayout::Halves => Layout::Halves,
        };
        let (a, g) =
            (self.decoder.heads * self.decoder.head_dim, self.decoder.kv_heads * self.decoder.head_dim);
        let columns = [0..a, a..a + g, a + g..a + 2 * g];
        let norms = [weights.query_norm.as_deref(), weights.key_norm.as_deref(), None];
        weights.query_key_value.for_each(self.compute, self.m, stacked, |part, row, values| {
            if let Some(bias) = &weights.query_key_value_bias {
                add(values, &bias[columns[part].clone()]);
            }
            let mut unnormed = [0.0; HEAD_DIM_MAX];
            for head in values.chunks_exact_mut(self.decoder.head_dim) {
                if let Some(norm) = norms[part] {
                    let unnormed = &mut unnormed[..head.len()];
                    unnormed.copy_from_slice(head);
                    rms_norm(self.compute.isa(), unnormed, norm, self.decoder.norm_epsilon, head);
                }
                if part < 2 {
                    let (cos, sin) = angles.row(row);
                    rotate(head, cos, sin, layout);
                }
            }
        });
    }

    fn attend(
        &self,
        layer: usize,
        sequences: &[SequenceRows<'_>],
        cache: &mut KvCache,
        [queries, keys, values]: [Rows<'_>; 3],
        attended: &mut [f32],
    ) {
        cache.write(self.compute, layer, sequences, keys, values);
        let settings = AttentionSettings {
            heads: self.decoder.heads,
            scale: self.decoder.attention_scale,
            softcap: self.decoder.attention_softcap,
            window: self.decoder.layers[layer].window,
        };
        attend(self.compute, cache, layer, queries, sequences, &settings, attended);
    }

    fn feed_forward(&self, index: usize, weights: &LayerWeights, buffers: &mut Buffers) {
        let h = self.decoder.hidden;
        let (residual, normed) = (&buffers.residual[..self.m * h], &mut buffers.normed[..self.m * h]);
        let input = self.norm(residual, &weights.feed_forward_norm, normed, &mut buffers.quantized);
        let out = &mut buffers.projected[..self.m * h];
        if let Some(squares) = &mut buffers.squares {
            squares.add(self.compute, index, Reads::FeedForward, input.values);
        }
        match &weights.feed_forward {
            FeedForwardWeights::Dense(gated) => {
                let stacked = &mut buffers.stacked[..self.m * gated.gate_up.columns()];
                gated.gate_up.multiply(self.compute, input, self.m, stacked);
                self.finish_gated(gated, stacked, &mut buffers.inner, &mut buffers.quantized, out);
                if let Some(squares) = &mut buffers.squares {
                    let inner = &buffers.inner[..self.m * gated.down.columns()];
                    squares.add(self.compute, index, Reads::Down, inner);
                }
            }
            FeedForwardWeights::Experts { router, experts } => {
                let Some(expert_buffers) = &mut buffers.experts else {
                    unreachable!("a decoder with experts has buffers for them")
                };
                matmul(self.compute, input, router, expert_buffers.probabilities(self.m));
                let scratch = GatedScratch {
                    quantized: &mut buffers.quantized,
                    stacked: &mut buffers.stacked,
                    inner: &mut buffers.inner,
                };
                mix_experts(self, experts, normed, expert_buffers, scratch, out);
            }
        }
        self.add_to_residual(weights.post_feed_forward_norm.as_deref(), buffers);
    }

    /// `down(activation(gate(x)) * up(x))` for the rows whose gates and ups are in `stacked`, into `out`, `[rows, h]`.
    pub(super) fn finish_gated(
        &self,
        weights: &GatedWeights,
        stacked: &[f32],
        inner: &mut [f32],
        quantized: &mut QuantizedRows,
        out: &mut [f32],
    ) {
        let f = weights.down.columns();
        let rows = stacked.len() / weights.gate_up.columns();
        let [gates, ups] = [0, 1].map(|part| weights.gate_up.part(stacked, rows, part));
        let inner = &mut inner[..rows * f];
        quantized.fill(self.compute, inner, f, |row, inner| {
            let (gate, up) = (gates.part(row, 0..f), ups.part(row, 0..f));
            match self.decoder.activation {
                Activation::Silu => activation::silu_mul(self.compute.isa(), gate, up, inner),
                Activation::GeluTanh => activation::gelu_tanh_mul(self.compute.isa(), gate, up, inner),
            }
        });
        matmul(self.compute, Input { values: inner, quantized }, &weights.down, out);
    }

    /// Adds `buffers.projected`, normed first where the family does so, to the residual stream.
    fn add_to_residual(&self, norm: Option<&[f32]>, buffers: &mut Buffers) {
        let h = self.decoder.hidden;
        let projected = &buffers.projected[..self.m * h];
        let epsilon = self.decoder.norm_epsilon;
        let normed = match norm {
            Some(weight) => {
                let normed = &mut buffers.normed[..self.m * h];
                self.compute.pool().for_each_row(normed, h, |row, out| {
                    rms_norm(self.compute.isa(), &projected[row * h..][..h], weight, epsilon, out);
                });
                &*normed
            }
            None => projected,
        };
        self.compute.pool().for_each_row(&mut buffers.residual[..self.m * h], h, |row, residual| {
            add(residual, &normed[row * h..][..h]);
        });
    }

    /// RMS norm of every row of `input`, `[m, h]`, as the input of a product.
    fn norm<'a>(
        &self,
        input: &[f32],
        weight: &[f32],
        normed: &'a mut [f32],
        quantized: &'a mut QuantizedRows,
    ) -> Input<'a> {
        let h = weight.len();
        let epsilon = self.decoder.norm_epsilon;
        quantized.fill(self.compute, normed, h, |row, normed| {
            rms_norm(self.compute.isa(), &input[row * h..][..h], weight, epsilon, normed);
        });
        Input { values: normed, quantized }
    }

    /// The output projection of the rows that ask for it.
    fn logits(&self, spans: &[Span], weights: &DecoderWeights, logit_rows: usize, buffers: &mut Buffers) {
        if logit_rows == 0 {
            return;
        }
        let h = self.decoder.hidden;
        let mut first = 0;
        let mut gathered = buffers.projected.chunks_exact_mut(h);
        for span in spans {
            let rows = &buffers.residual[(first + span.logits.start) * h..(first + span.logits.end) * h];
            rows.chunks_exact(h).zip(&mut gathered).for_each(|(row, out)| out.copy_from_slice(row));
            first += span.tokens.len();
        }
        let (last, normed) = (&buffers.projected[..logit_rows * h], &mut buffers.normed[..logit_rows * h]);
        let input = self.norm(last, &weights.output_norm, normed, &mut buffers.quantized);
        let logits = &mut buffers.logits[..logit_rows * self.decoder.vocabulary];
        matmul(self.compute, input, &weights.output, logits);
        if let Some(squares) = &mut buffers.squares {
            squares.output.add(input.values);
        }
        if let Some(cap) = self.decoder.logit_softcap {
            let v = self.decoder.vocabulary;
            self.compute
                .pool()
                .for_each_row(logits, v, |_, row| activation::softcap(self.compute.isa(), row, cap));
        }
    }
}

/// Buffers that a gated block writes on its way.
pub(super) struct GatedScratch<'a> {
    pub quantized: &'a mut QuantizedRows,
    pub stacked: &'a mut [f32],
    pub inner: &'a mut [f32],
}

impl Angles {
    /// Cosines and sines of one row.
    fn row(&self, row: usize) -> (&[f32], &[f32]) {
        let columns = row * self.pairs..(row + 1) * self.pairs;
        (&self.cos[columns.clone()], &self.sin[columns])
    }
}

/// Quantises `values`, `[m, columns]`, and pairs both forms as a product's input.
pub(super) fn quantize<'a>(
    compute: &Compute,
    values: &'a mut [f32],
    columns: usize,
    quantized: &'a mut QuantizedRows,
) -> Input<'a> {
    quantized.fill(compute, values, columns, |_, _| {});
    Input { values, quantized }
}

fn add(out: &mut [f32], values: &[f32]) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
}
