//! A decoder's weights, packed for the instruction set they will run on.
//!
//! Dimension letters as in `formats::model`.

use std::cell::{Cell, RefCell};

use formats::error::FormatError;
use formats::model::{FeedForward, ModelFiles, Role, Tensor};
use kernels::attention::Rows;
use kernels::compute::Compute;
use kernels::elements::{ElementType, dequantize};
use kernels::matmul::{Forms, Input, MatmulError, PackedWeights, Weights, matmul};
use kernels::memory::Arena;

use super::packed::Packing;

/// Bytes that the packed weights of a model may take: little more than in its files.
pub(super) fn packed_bytes_max(file_bytes: u64) -> u64 {
    file_bytes.saturating_mul(PACKING_PERCENT) / 100
}

/// Packed weights are at most this much larger than in the file, in percent.
const PACKING_PERCENT: u64 = 110;

/// Why weights could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("packing {tensor}: {cause}")]
    Pack { tensor: String, cause: MatmulError },
    #[error("the model lacks the tensor for {role:?} of {place}")]
    Missing { role: Role, place: String },
    #[error("what was packed before holds other matrices")]
    PackedOtherwise,
}

/// All weights of a decoder. Nothing of the model's files is needed once they are made: one that is changed while its model
/// is served changes nothing. Where packed weights are kept, matrices may be mapped from there.
pub struct DecoderWeights {
    pub layers: Vec<LayerWeights>,
    pub output_norm: Vec<f32>,
    /// `[v, h]`.
    pub output: PackedWeights,
    embedding: Embedding,
    /// Whether the matrices are mapped from a file, all but an embedding of their own.
    is_mapped: bool,
    /// What all of them read.
    pub reads: Forms,
}

/// What token ids become, `[v, h]`.
enum Embedding {
    /// The rows of the output matrix: the model ties the two.
    Tied,
    /// As in the file.
    Own { element_type: ElementType, bytes: Vec<u8> },
}

pub struct LayerWeights {
    pub attention_norm: Vec<f32>,
    /// Parts: query `[a·d, h]`, key `[g·d, h]`, value `[g·d, h]`.
    pub query_key_value: Stack,
    /// Biases of the three, `a·d + 2·g·d` long, where the family has any.
    pub query_key_value_bias: Option<Vec<f32>>,
    pub query_norm: Option<Vec<f32>>,
    pub key_norm: Option<Vec<f32>>,
    /// `[h, a·d]`.
    pub attention_output: PackedWeights,
    pub attention_output_bias: Option<Vec<f32>>,
    pub post_attention_norm: Option<Vec<f32>>,
    pub feed_forward_norm: Vec<f32>,
    pub feed_forward: FeedForwardWeights,
    pub post_feed_forward_norm: Option<Vec<f32>>,
}

pub enum FeedForwardWeights {
    Dense(GatedWeights),
    Experts {
        /// `[e, h]`.
        router: PackedWeights,
        experts: Vec<GatedWeights>,
    },
}

/// `down(activation(gate(x)) * up(x))`.
pub struct GatedWeights {
    /// Parts: gate `[f, h]`, up `[f, h]`.
    pub gate_up: Stack,
    /// `[h, f]`.
    pub down: PackedWeights,
}

/// Matrices that read the same input; neighbours of one type are packed as one, so that they take one pass.
pub struct Stack {
    groups: Vec<PackedWeights>,
    parts: Vec<Part>,
}

struct Part {
    group: usize,
    /// First output column of the part within its group.
    first: usize,
    columns: usize,
}

impl Stack {
    /// Output columns of all parts.
    pub fn columns(&self) -> usize {
        self.groups.iter().map(PackedWeights::rows).sum()
    }

    pub fn bytes(&self) -> usize {
        self.groups.iter().map(PackedWeights::bytes).sum()
    }

    /// All parts' products into `out`, `rows * self.columns()` long, to be read with [`Stack::part`].
    pub fn multiply(&self, compute: &Compute, input: Input<'_>, rows: usize, out: &mut [f32]) {
        let mut rest = out;
        for group in &self.groups {
            let (mine, others) = rest.split_at_mut(rows * group.rows());
            matmul(compute, input, group, mine);
            rest = others;
        }
    }

    /// Runs `task(part, row, values)` for each part's row in what [`Stack::multiply`] wrote for `rows` rows.
    pub fn for_each(
        &self,
        compute: &Compute,
        rows: usize,
        out: &mut [f32],
        task: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        let mut rest = out;
        for (index, group) in self.groups.iter().enumerate() {
            let (mine, others) = rest.split_at_mut(rows * group.rows());
            rest = others;
            compute.pool().for_each_row(mine, group.rows(), |row, values| {
                for (number, part) in self.parts.iter().enumerate().filter(|(_, part)| part.group == index) {
                    task(number, row, &mut values[part.first..][..part.columns]);
                }
            });
        }
    }

    /// The rows of one part in what [`Stack::multiply`] wrote for `rows` rows.
    pub fn part<'a>(&self, out: &'a [f32], rows: usize, part: usize) -> Rows<'a> {
        let Part { group, first, .. } = self.parts[part];
        let before: usize = self.groups[..group].iter().map(PackedWeights::rows).sum();
        Rows { values: &out[rows * before + first..], stride: self.groups[group].rows() }
    }
}

impl DecoderWeights {
    /// Reads and packs every tensor; `progress` hears how many of how many layers are done.
    pub fn load(
        compute: &Compute,
        files: &ModelFiles,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<DecoderWeights, WeightsError> {
        DecoderWeights::read(compute, files, &Packing::default(), progress)
    }

    /// The same, with matrices from `packing` or kept there.
    pub(super) fn read(
        compute: &Compute,
        files: &ModelFiles,
        packing: &Packing,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<DecoderWeights, WeightsError> {
        let decoder = files.decoder();
        let room = usize::try_from(packed_bytes_max(files.facts().file_bytes)).unwrap_or(usize::MAX);
        let arena = RefCell::new(Arena::new(room));
        let reads = Cell::new(Forms::default());
        let reader = Reader { compute, files, packing, arena, reads, norm_offset: decoder.norm_offset };
        let mut layers = Vec::with_capacity(decoder.layers.len());
        for index in 0..decoder.layers.len() {
            progress(index, decoder.layers.len());
            layers.push(reader.layer(index)?);
            // Packed weights and the file's are not both needed in memory.
            files.forget();
        }
        progress(decoder.layers.len(), decoder.layers.len());
        let Tensor { element_type, bytes, .. } = reader.required(Role::Embedding, None)?;
        let (embedding, output) = match files.tensor(Role::Output, None)? {
            Some(output) => (Embedding::Own { element_type, bytes: bytes.to_vec() }, output),
            None => (Embedding::Tied, reader.required(Role::Embedding, None)?),
        };
        let output_norm = reader.norm(Role::OutputNorm, None)?;
        let output = reader.pack(&[output])?;
        files.forget();
        let (is_mapped, reads) = (packing.from.is_some(), reader.reads.get());
        let mut weights = DecoderWeights { layers, output_norm, output, embedding, is_mapped, reads };
        weights.say_what_follows(compute);
        Ok(weights)
    }

    /// Tells each matrix of dense layers which one is read after it.
    fn say_what_follows(&mut self, compute: &Compute) {
        let mut next = &self.output;
        for layer in self.layers.iter_mut().rev() {
            let FeedForwardWeights::Dense(gated) = &mut layer.feed_forward else { return };
            gated.down.followed_by(compute, next);
            follow(compute, &mut gated.gate_up.groups, &gated.down);
            layer.attention_output.followed_by(compute, &gated.gate_up.groups[0]);
            follow(compute, &mut layer.query_key_value.groups, &layer.attention_output);
            next = &layer.query_key_value.groups[0];
        }
    }

    /// The embedding of token `id`, `[h]`.
    ///
    /// # Panics
    /// When the model has no such token.
    pub fn embed(&self, id: u32, out: &mut [f32]) {
        match &self.embedding {
            Embedding::Tied => self.output.read_row(id as usize, out),
            Embedding::Own { element_type, bytes } => {
                let row_bytes = bytes.len() / self.output.rows();
                dequantize(*element_type, &bytes[id as usize * row_bytes..][..row_bytes], out);
            }
        }
    }

    /// Of [`DecoderWeights::bytes`], what is mapped from a file of packed weights.
    pub fn mapped_bytes(&self) -> usize {
        if self.is_mapped { self.bytes() - self.own_embedding_bytes() } else { 0 }
    }

    /// Bytes of the matrices, in memory.
    pub fn bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(LayerWeights::bytes).sum();
        layers + self.output.bytes() + self.own_embedding_bytes()
    }

    fn own_embedding_bytes(&self) -> usize {
        match &self.embedding {
            Embedding::Tied => 0,
            Embedding::Own { bytes, .. } => bytes.len(),
        }
    }
}

impl LayerWeights {
    fn bytes(&self) -> usize {
        let feed_forward = match &self.feed_forward {
            FeedForwardWeights::Dense(gated) => gated.bytes(),
            FeedForwardWeights::Experts { router, experts } => {
                router.bytes() + experts.iter().map(GatedWeights::bytes).sum::<usize>()
            }
        };
        self.query_key_value.bytes() + self.attention_output.bytes() + feed_forward
    }
}

impl GatedWeights {
    fn bytes(&self) -> usize {
        self.gate_up.bytes() + self.down.bytes()
    }
}

/// Reads tensors of one model by role.
struct Reader<'a> {
    compute: &'a Compute,
    files: &'a ModelFiles,
    packing: &'a Packing,
    /// Packed matrices lie in the order in which a step reads them.
    arena: RefCell<Arena>,
    /// What the matrices so far read.
    reads: Cell<Forms>,
    norm_offset: f32,
}

impl Reader<'_> {
    fn layer(&self, index: usize) -> Result<LayerWeights, WeightsError> {
        let layer = Some(index);
        let matrix = |role| self.required(role, layer);
        // In the order in which a step reads them.
        let projections = [matrix(Role::Query)?, matrix(Role::Key)?, matrix(Role::Value)?];
        let query_key_value = self.stack(&projections)?;
        let attention_output = self.pack(&[matrix(Role::AttentionOutput)?])?;
        let feed_forward = match self.files.decoder().layers[index].feed_forward {
            FeedForward::Dense => {
                FeedForwardWeights::Dense(self.gated(index, Role::Gate, Role::Up, Role::Down)?)
            }
            FeedForward::Experts => FeedForwardWeights::Experts {
                router: self.pack(&[matrix(Role::Router)?])?,
                experts: (0..self.files.decoder().experts.map_or(0, |experts| experts.count))
                    .map(|e| self.gated(index, Role::ExpertGate(e), Role::ExpertUp(e), Role::ExpertDown(e)))
                    .collect::<Result<_, _>>()?,
            },
        };
        Ok(LayerWeights {
            attention_norm: self.norm(Role::AttentionNorm, layer)?,
            query_key_value,
            query_key_value_bias: self.query_key_value_bias(index, &projections)?,
            query_norm: self.optional_norm(Role::QueryNorm, layer)?,
            key_norm: self.optional_norm(Role::KeyNorm, layer)?,
            attention_output,
            attention_output_bias: self.vector(Role::AttentionOutputBias, layer)?,
            post_attention_norm: self.optional_norm(Role::PostAttentionNorm, layer)?,
            feed_forward_norm: self.norm(Role::FeedForwardNorm, layer)?,
            feed_forward,
            post_feed_forward_norm: self.optional_norm(Role::PostFeedForwardNorm, layer)?,
        })
    }

    fn gated(&self, layer: usize, gate: Role, up: Role, down: Role) -> Result<GatedWeights, WeightsError> {
        let matrix = |role| self.required(role, Some(layer));
        Ok(GatedWeights {
            gate_up: self.stack(&[matrix(gate)?, matrix(up)?])?,
            down: self.pack(&[matrix(down)?])?,
        })
    }

    /// The three biases one after the other, zeros for one that the family leaves out.
    fn query_key_value_bias(
        &self,
        layer: usize,
        projections: &[Tensor<'_>; 3],
    ) -> Result<Option<Vec<f32>>, WeightsError> {
        let mut all = Vec::new();
        let mut any = false;
        for (role, projection) in
            [Role::QueryBias, Role::KeyBias, Role::ValueBias].into_iter().zip(projections)
        {
            match self.vector(role, Some(layer))? {
                Some(bias) => {
                    any = true;
                    all.extend(bias);
                }
                None => all.resize(all.len() + projection.shape[0], 0.0),
            }
        }
        Ok(any.then_some(all))
    }

    fn required(&self, role: Role, layer: Option<usize>) -> Result<Tensor<'_>, WeightsError> {
        let place = || layer.map_or("the model".to_owned(), |layer| format!("layer {layer}"));
        self.files.tensor(role, layer)?.ok_or_else(|| WeightsError::Missing { role, place: place() })
    }

    fn vector(&self, role: Role, layer: Option<usize>) -> Result<Option<Vec<f32>>, WeightsError> {
        Ok(self.files.tensor(role, layer)?.map(|tensor| floats(&tensor)))
    }

    fn norm(&self, role: Role, layer: Option<usize>) -> Result<Vec<f32>, WeightsError> {
        let mut weight = floats(&self.required(role, layer)?);
        weight.iter_mut().for_each(|w| *w += self.norm_offset);
        Ok(weight)
    }

    fn optional_norm(&self, role: Role, layer: Option<usize>) -> Result<Option<Vec<f32>>, WeightsError> {
        match self.files.tensor(role, layer)? {
            Some(_) => self.norm(role, layer).map(Some),
            None => Ok(None),
        }
    }

    /// Packs neighbours of one type as one.
    fn stack(&self, tensors: &[Tensor<'_>]) -> Result<Stack, WeightsError> {
        let mut stack = Stack { groups: Vec::new(), parts: Vec::new() };
        for same_type in tensors.chunk_by(|one, next| one.element_type == next.element_type) {
            let packed = self.pack(same_type)?;
            let mut first = 0;
            for tensor in same_type {
                let columns = tensor.shape[0];
                stack.parts.push(Part { group: stack.groups.len(), first, columns });
                first += columns;
            }
            stack.groups.push(packed);
        }
        Ok(stack)
    }

    /// One packed matrix of tensors `[rows, columns]` that share type and columns.
    fn pack(&self, tensors: &[Tensor<'_>]) -> Result<PackedWeights, WeightsError> {
        let parts: Vec<Weights<'_>> = tensors
            .iter()
            .map(|tensor| Weights {
                element_type: tensor.element_type,
                rows: tensor.shape[0],
                columns: tensor.shape[1],
                bytes: tensor.bytes,
            })
            .collect();
        let packed = match &self.packing.from {
            None => {
                let (arena, forget) = (&mut self.arena.borrow_mut(), &mut || self.files.forget());
                PackedWeights::pack(self.compute, &parts, arena, forget)
            }
            Some(file) => {
                let found = PackedWeights::mapped(self.compute, &parts, |bytes| file.take(tensors, bytes));
                found.transpose().ok_or(WeightsError::PackedOtherwise)?
            }
        };
        let packed = packed.map_err(|cause| {
            let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name).collect();
            WeightsError::Pack { tensor: names.join(" + "), cause }
        })?;
        self.packing.keep(tensors, &packed);
        self.reads.set(self.reads.get() | packed.reads());
        Ok(packed)
    }
}

/// Each of `groups` is followed by the one after it, and the last by `next`.
fn follow(compute: &Compute, groups: &mut [PackedWeights], next: &PackedWeights) {
    for index in 0..groups.len() {
        let (before, after) = groups.split_at_mut(index + 1);
        before[index].followed_by(compute, after.first().unwrap_or(next));
    }
}

fn floats(tensor: &Tensor<'_>) -> Vec<f32> {
    let mut values = vec![0.0; tensor.shape.iter().product()];
    dequantize(tensor.element_type, tensor.bytes, &mut values);
    values
}
