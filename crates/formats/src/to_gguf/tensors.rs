//! Each role's tensor by its name in GGUF files, its bytes as they are there.

use std::borrow::Cow;

use kernels::elements::{ElementType, dequantize};

use super::architecture;
use crate::decoder::{Naming, Tensors, candidates, find};
use crate::error::FormatError;
use crate::files::ModelFiles;
use crate::model::{Decoder, FeedForward, Role, RotaryScaling};
use crate::storage::part;

/// A tensor of a GGUF file, which is in other files yet.
#[derive(Clone, Debug)]
pub struct GgufTensor<'a> {
    pub name: String,
    /// The name in the files; of stacked experts, the first one's.
    pub source: &'a str,
    pub element_type: ElementType,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// One after the other; none of them where the numbers are computed.
    pieces: Vec<&'a [u8]>,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Kept,
    /// Of each of so many heads, halves of rows become pairs: row `(half, i)` goes to `(i, half)`.
    Interleaved(usize),
    /// From this type to F32, with something added to each number.
    Widened(ElementType, f32),
    /// In the place of all pieces.
    Computed(Vec<f32>),
    /// Interleaved, then widened.
    InterleavedAndWidened(usize, ElementType),
}

impl<'a> GgufTensor<'a> {
    /// One that a GGUF file has already.
    pub fn kept(
        name: &'a str,
        element_type: ElementType,
        shape: &[usize],
        bytes: &'a [u8],
    ) -> GgufTensor<'a> {
        GgufTensor {
            name: name.to_owned(),
            source: name,
            element_type,
            shape: shape.to_vec(),
            pieces: vec![bytes],
            change: Change::Kept,
        }
    }

    pub(super) fn is_computed(&self) -> bool {
        matches!(self.change, Change::Computed(_))
    }

    /// As many bytes as [`GgufTensor::bytes`] are, while none are made.
    pub fn bytes_len(&self) -> usize {
        let elements = self.shape.iter().product();
        self.element_type.row_bytes(elements).unwrap_or_default()
    }

    /// Borrowed where nothing changes; else made now, so that only one tensor need be in memory.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match &self.change {
            Change::Computed(values) => Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Change::Kept => self.joined(),
            Change::Interleaved(heads) => Cow::Owned(self.interleaved(*heads)),
            Change::Widened(from, offset) => Cow::Owned(widened(*from, *offset, &self.joined())),
            Change::InterleavedAndWidened(heads, from) => {
                Cow::Owned(widened(*from, 0.0, &self.interleaved(*heads)))
            }
        }
    }

    fn joined(&self) -> Cow<'a, [u8]> {
        match self.pieces[..] {
            [one] => Cow::Borrowed(one),
            _ => Cow::Owned(self.pieces.concat()),
        }
    }

    fn interleaved(&self, heads: usize) -> Vec<u8> {
        let bytes = self.joined();
        let rows = self.shape[0];
        let (row, half) = (bytes.len() / rows, rows / heads / 2);
        let mut out = Vec::with_capacity(bytes.len());
        for to in 0..rows {
            let (head, index) = (to / (2 * half), to % (2 * half));
            let from = head * 2 * half + index % 2 * half + index / 2;
            out.extend_from_slice(&bytes[from * row..][..row]);
        }
        out
    }
}

fn widened(from: ElementType, offset: f32, bytes: &[u8]) -> Vec<u8> {
    let mut values = vec![0.0; bytes.len() / from.block_bytes() * from.block_elements()];
    dequantize(from, bytes, &mut values);
    values.iter().flat_map(|x| (x + offset).to_le_bytes()).collect()
}

pub(super) fn all(model: &ModelFiles) -> Result<Vec<GgufTensor<'_>>, FormatError> {
    const NORMS_AND_ATTENTION: [Role; 14] = [
        Role::AttentionNorm,
        Role::Query,
        Role::Key,
        Role::Value,
        Role::QueryBias,
        Role::KeyBias,
        Role::ValueBias,
        Role::QueryNorm,
        Role::KeyNorm,
        Role::AttentionOutput,
        Role::AttentionOutputBias,
        Role::PostAttentionNorm,
        Role::FeedForwardNorm,
        Role::PostFeedForwardNorm,
    ];
    let decoder = model.decoder();
    let mut found = rotary(decoder);
    let build = Build { model, decoder };
    for role in [Role::Embedding, Role::OutputNorm, Role::Output] {
        found.extend(build.tensor(&[role], 0)?);
    }
    for (index, layer) in decoder.layers.iter().enumerate() {
        for role in NORMS_AND_ATTENTION {
            found.extend(build.tensor(&[role], index)?);
        }
        let count = decoder.experts.map_or(0, |experts| experts.count);
        let groups: Vec<Vec<Role>> = match layer.feed_forward {
            FeedForward::Dense => [Role::Gate, Role::Up, Role::Down].map(|role| vec![role]).into(),
            FeedForward::Experts => vec![
                vec![Role::Router],
                (0..count).map(Role::ExpertGate).collect(),
                (0..count).map(Role::ExpertUp).collect(),
                (0..count).map(Role::ExpertDown).collect(),
            ],
        };
        for roles in groups {
            found.extend(build.tensor(&roles, index)?);
        }
    }
    Ok(found)
}

/// Tables that GGUF files have in the place of settings.
fn rotary<'a>(decoder: &Decoder) -> Vec<GgufTensor<'a>> {
    let computed = |name: &str, values: Vec<f32>| GgufTensor {
        name: name.to_owned(),
        source: "",
        element_type: ElementType::F32,
        shape: vec![values.len()],
        pieces: Vec::new(),
        change: Change::Computed(values),
    };
    match decoder.rotaries.first().map(|settings| &settings.scaling) {
        Some(RotaryScaling::LongRope { short, long, .. }) => vec![
            computed("rope_factors_long.weight", long.clone()),
            computed("rope_factors_short.weight", short.clone()),
        ],
        Some(RotaryScaling::Llama3 { .. }) => {
            let mut plain = decoder.clone();
            plain.rotaries[0].scaling = RotaryScaling::None;
            let [plain, scaled] = [&plain, decoder]
                .map(|decoder| decoder.rotaries_at(decoder.context).swap_remove(0).frequencies);
            let divisors = plain.iter().zip(scaled).map(|(plain, scaled)| plain / scaled);
            vec![computed("rope_freqs.weight", divisors.collect())]
        }
        _ => Vec::new(),
    }
}

struct Build<'a> {
    model: &'a ModelFiles,
    decoder: &'a Decoder,
}

impl<'a> Build<'a> {
    /// One role's, or that of all experts'; nothing for a role that the model lacks, or whose tensor another role brings.
    fn tensor(&self, roles: &[Role], layer: usize) -> Result<Option<GgufTensor<'a>>, FormatError> {
        let Some(first) = roles.first().copied() else { return Ok(None) };
        let (catalogue, tensors, files) = self.model.stored();
        let named = Tensors { naming: Naming::Gguf, ..tensors.clone() };
        let options = candidates(&named, self.decoder, first, layer);
        let mut parts = Vec::with_capacity(roles.len());
        let mut is_fused = false;
        for role in roles {
            let Some((stored, row, shape)) = find(catalogue, tensors, self.decoder, *role, layer)? else {
                return Ok(None);
            };
            // Rows of several roles, of which the first brings all.
            let is_whole = roles.len() > 1 || stored.elements() == shape.iter().product::<usize>();
            if !is_whole && row > 0 {
                return Ok(None);
            }
            is_fused = !is_whole;
            let fused = stored.shape.iter().rev().take(shape.len()).rev().copied().collect();
            parts.push(part(files, stored, row, if is_whole { shape } else { fused })?);
        }
        let option = if is_fused { options.last() } else { options.first() };
        let (Some(option), Some(one)) = (option, parts.first()) else { return Ok(None) };
        if let Some(other) = parts.iter().find(|part| part.element_type != one.element_type) {
            return Err(FormatError::Unsupported {
                what: format!("the element type of tensor {}", other.name),
                found: other.element_type.to_string(),
                supported: format!("that of {}, {}: they become one tensor", one.name, one.element_type),
            });
        }
        let change = self.change(first, option.shape.len(), one.element_type);
        let is_wide = matches!(change, Change::Widened(..) | Change::InterleavedAndWidened(..));
        Ok(Some(GgufTensor {
            name: option.name.clone(),
            source: one.name,
            element_type: if is_wide { ElementType::F32 } else { one.element_type },
            shape: option.shape.clone(),
            pieces: parts.iter().map(|part| part.bytes).collect(),
            change,
        }))
    }

    /// Vectors and routers are in F32, which llama.cpp asks for.
    fn change(&self, role: Role, rank: usize, from: ElementType) -> Change {
        let Decoder { heads, kv_heads, norm_offset, .. } = *self.decoder;
        let (_, is_interleaved) = architecture(&self.decoder.family);
        let heads = match role {
            Role::Query | Role::QueryBias if is_interleaved => Some(heads),
            Role::Key | Role::KeyBias if is_interleaved => Some(kv_heads),
            _ => None,
        };
        let is_norm = matches!(
            role,
            Role::OutputNorm
                | Role::AttentionNorm
                | Role::QueryNorm
                | Role::KeyNorm
                | Role::PostAttentionNorm
                | Role::FeedForwardNorm
                | Role::PostFeedForwardNorm
        );
        match heads {
            Some(heads) if rank == 1 => Change::InterleavedAndWidened(heads, from),
            Some(heads) => Change::Interleaved(heads),
            None if is_norm => Change::Widened(from, norm_offset),
            None if rank == 1 || role == Role::Router => Change::Widened(from, 0.0),
            None => Change::Kept,
        }
    }
}
