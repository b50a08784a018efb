//! One pass of a decoder over a batch: token ids in, logits out.
//!
//! Dimension letters as in `formats::model`, and `m` for the rows (tokens) of a batch. A row's result never
//! depends on the other rows, so prompts may be split and sequences mixed at will.

use std::ops::Range;
use std::sync::Arc;

use formats::model::{Activation, Decoder, ModelFiles, Rotary, RotaryLayout};
use kernels::activation;
use kernels::attention::{AttentionSettings, HEAD_DIM_MAX, KvCache, SequenceRows, attend};
use kernels::compute::Compute;
use kernels::matmul::{Forms, Input, QuantizedRows, matmul};
use kernels::norm::rms_norm;
use kernels::rotary::{Layout, rotate};

use super::experts::{ExpertBuffers, mix_experts};
use super::weights::{DecoderWeights, FeedForwardWeights, GatedWeights, LayerWeights, Stack};

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
    queries: Vec<f32>,
    /// `[m, g·d]` each.
    keys: Vec<f32>,
    values: Vec<f32>,
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
        let heads = 2 * decoder.heads + 2 * decoder.kv_heads;
        let row = 3 * decoder.hidden + widths.stacked + widths.inner + heads * decoder.head_dim;
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
        Forward { compute, decoder, weights, rotaries, buffers, rows_max, logit_rows_max }
    }

    /// Bytes of the packed weights.
    pub fn weights_bytes(&self) -> usize {
        self.weights.bytes()
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
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
        for (index, weights) in self.weights.layers.iter().enumerate() {
            step.attention(index, weights, &sequences, cache, &mut self.buffers);
            step.feed_forward(weights, &mut self.buffers);
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
            queries: zeros(decoder.heads * decoder.head_dim),
            keys: zeros(decoder.kv_heads * decoder.head_dim),
            values: zeros(decoder.kv_heads * decoder.head_dim),
            attended: zeros(decoder.heads * decoder.head_dim),
            inner: zeros(widths.inner),
            projected: vec![0.0; rows.max(sizes.logit_rows_max) * decoder.hidden],
            angles: angles.collect(),
            logits: vec![0.0; sizes.logit_rows_max * decoder.vocabulary],
            experts: decoder.experts.map(|experts| ExpertBuffers::new(&experts, decoder.hidden, rows)),
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
        let (h, d) = (self.decoder.hidden, self.decoder.head_dim);
        self.norm(&buffers.residual[..self.m * h], &weights.attention_norm, &mut buffers.normed);
        let stacked = &mut buffers.stacked[..self.m * weights.query_key_value.columns()];
        let input = quantize(self.compute, &buffers.normed[..self.m * h], h, &mut buffers.quantized);
        weights.query_key_value.multiply(self.compute, input, self.m, stacked);

        let angles = &buffers.angles[self.decoder.layers[index].rotary];
        let bias = |columns: Range<usize>| weights.query_key_value_bias.as_ref().map(|bias| &bias[columns]);
        let (a, g) = (self.decoder.heads * d, self.decoder.kv_heads * d);
        let heads =
            |part, bias, norm, angles| Heads { stack: &weights.query_key_value, part, bias, norm, angles };
        let queries = heads(0, bias(0..a), weights.query_norm.as_deref(), Some(angles));
        let keys = heads(1, bias(a..a + g), weights.key_norm.as_deref(), Some(angles));
        let values = heads(2, bias(a + g..a + 2 * g), None, None);
        self.finish_heads(queries, stacked, &mut buffers.queries[..self.m * a]);
        self.finish_heads(keys, stacked, &mut buffers.keys[..self.m * g]);
        self.finish_heads(values, stacked, &mut buffers.values[..self.m * g]);
        self.attend(index, sequences, cache, buffers);

        let attention = self.decoder.heads * d;
        let attended = &buffers.attended[..self.m * attention];
        let input = quantize(self.compute, attended, attention, &mut buffers.quantized);
        let projected = &mut buffers.projected[..self.m * h];
        matmul(self.compute, input, &weights.attention_output, projected);
        if let Some(bias) = &weights.attention_output_bias {
            projected.chunks_exact_mut(h).for_each(|row| add(row, bias));
        }
        self.add_to_residual(weights.post_attention_norm.as_deref(), buffers);
    }

    /// Takes one part out of the stacked products: adds its bias, norms each head and rotates it, as far as the
    /// family has these. `out` is `[m, heads·d]`.
    fn finish_heads(&self, heads: Heads<'_>, stacked: &[f32], out: &mut [f32]) {
        let layout = match self.decoder.rotary_layout {
            RotaryLayout::Interleaved => Layout::Interleaved,
            RotaryLayout::Halves => Layout::Halves,
        };
        self.compute.pool().for_each_row(out, out.len() / self.m, |row, out| {
            out.copy_from_slice(heads.stack.part(stacked, self.m, heads.part, row));
            if let Some(bias) = heads.bias {
                add(out, bias);
            }
            let mut unnormed = [0.0; HEAD_DIM_MAX];
            for head in out.chunks_exact_mut(self.decoder.head_dim) {
                if let Some(norm) = heads.norm {
                    let unnormed = &mut unnormed[..head.len()];
                    unnormed.copy_from_slice(head);
                    rms_norm(self.compute.isa(), unnormed, norm, self.decoder.norm_epsilon, head);
                }
                if let Some(angles) = heads.angles {
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
        buffers: &mut Buffers,
    ) {
        let d = self.decoder.head_dim;
        let (keys, queries) = (self.m * self.decoder.kv_heads * d, self.decoder.heads * d);
        cache.write(self.compute, layer, sequences, &buffers.keys[..keys], &buffers.values[..keys]);
        let settings = AttentionSettings {
            heads: self.decoder.heads,
            scale: self.decoder.attention_scale,
            softcap: self.decoder.attention_softcap,
            window: self.decoder.layers[layer].window,
        };
        let (queries_in, out) =
            (&buffers.queries[..self.m * queries], &mut buffers.attended[..self.m * queries]);
        attend(self.compute, cache, layer, queries_in, sequences, &settings, out);
    }

    fn feed_forward(&self, weights: &LayerWeights, buffers: &mut Buffers) {
        let h = self.decoder.hidden;
        self.norm(&buffers.residual[..self.m * h], &weights.feed_forward_norm, &mut buffers.normed);
        match &weights.feed_forward {
            FeedForwardWeights::Dense(gated) => {
                let scratch = GatedScratch {
                    quantized: &mut buffers.quantized,
                    stacked: &mut buffers.stacked,
                    inner: &mut buffers.inner,
                };
                let normed = &buffers.normed[..self.m * h];
                self.gated(gated, normed, scratch, &mut buffers.projected[..self.m * h]);
            }
            FeedForwardWeights::Experts { router, experts } => {
                let Some(expert_buffers) = &mut buffers.experts else {
                    unreachable!("a decoder with experts has buffers for them")
                };
                let scratch = GatedScratch {
                    quantized: &mut buffers.quantized,
                    stacked: &mut buffers.stacked,
                    inner: &mut buffers.inner,
                };
                let (normed, out) = (&buffers.normed[..self.m * h], &mut buffers.projected[..self.m * h]);
                mix_experts(self, router, experts, normed, expert_buffers, scratch, out);
            }
        }
        self.add_to_residual(weights.post_feed_forward_norm.as_deref(), buffers);
    }

    /// `down(activation(gate(x)) * up(x))` for the rows of `input`, `[rows, h]`, into `out`, `[rows, h]`.
    pub(super) fn gated(
        &self,
        weights: &GatedWeights,
        input: &[f32],
        scratch: GatedScratch<'_>,
        out: &mut [f32],
    ) {
        let h = self.decoder.hidden;
        let rows = input.len() / h;
        let f = weights.down.columns();
        let stacked = &mut scratch.stacked[..rows * 2 * f];
        let input = quantize(self.compute, input, h, scratch.quantized);
        weights.gate_up.multiply(self.compute, input, rows, stacked);
        let inner = &mut scratch.inner[..rows * f];
        self.compute.pool().for_each_row(inner, f, |row, inner| {
            inner.copy_from_slice(weights.gate_up.part(stacked, rows, 0, row));
            let up = weights.gate_up.part(stacked, rows, 1, row);
            match self.decoder.activation {
                Activation::Silu => activation::silu_mul(self.compute.isa(), inner, up),
                Activation::GeluTanh => activation::gelu_tanh_mul(self.compute.isa(), inner, up),
            }
        });
        let input = quantize(self.compute, inner, f, scratch.quantized);
        matmul(self.compute, input, &weights.down, out);
    }

    /// Adds `buffers.projected`, normed first where the family does so, to the residual stream.
    fn add_to_residual(&self, norm: Option<&[f32]>, buffers: &mut Buffers) {
        let h = self.decoder.hidden;
        let projected = &buffers.projected[..self.m * h];
        let added = match norm {
            Some(weight) => {
                self.norm(projected, weight, &mut buffers.normed);
                &buffers.normed[..self.m * h]
            }
            None => projected,
        };
        add(&mut buffers.residual[..self.m * h], added);
    }

    /// RMS norm of every row of `input`, `[m, h]`.
    fn norm(&self, input: &[f32], weight: &[f32], out: &mut [f32]) {
        let h = weight.len();
        let epsilon = self.decoder.norm_epsilon;
        self.compute.pool().for_each_row(&mut out[..input.len()], h, |row, out| {
            rms_norm(self.compute.isa(), &input[row * h..][..h], weight, epsilon, out);
        });
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
        self.norm(&buffers.projected[..logit_rows * h], &weights.output_norm, &mut buffers.normed);
        let input = quantize(self.compute, &buffers.normed[..logit_rows * h], h, &mut buffers.quantized);
        let logits = &mut buffers.logits[..logit_rows * self.decoder.vocabulary];
        matmul(self.compute, input, &weights.output, logits);
        if let Some(cap) = self.decoder.logit_softcap {
            let v = self.decoder.vocabulary;
            self.compute
                .pool()
                .for_each_row(logits, v, |_, row| activation::softcap(self.compute.isa(), row, cap));
        }
    }
}

/// What becomes of the queries, the keys or the values before attention sees them.
struct Heads<'a> {
    stack: &'a Stack,
    part: usize,
    bias: Option<&'a [f32]>,
    norm: Option<&'a [f32]>,
    angles: Option<&'a Angles>,
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
    values: &'a [f32],
    columns: usize,
    quantized: &'a mut QuantizedRows,
) -> Input<'a> {
    quantized.quantize(compute, values, columns);
    Input { values, quantized }
}

fn add(out: &mut [f32], values: &[f32]) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
}
