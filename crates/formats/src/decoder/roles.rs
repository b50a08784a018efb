//! Finds the tensor of each role, and checks at opening that the file has all that the model needs and nothing
//! that would go unused.

use super::names::{candidates, presence, shape};
use super::{Naming, Presence, Tensors};
use crate::error::FormatError;
use crate::model::{Decoder, FeedForward, Role};
use crate::storage::{Catalogue, StoredTensor, check_part, is_computed};

/// Missing tensors that an error names; the first few tell enough.
const MISSING_NAMED_MAX: usize = 8;

/// A role's place: a tensor, the role's first row in it, and its shape.
pub(crate) type Place<'c> = (&'c StoredTensor, usize, Vec<usize>);

/// Where `role` is, or `None` where the model does not have it.
///
/// # Errors
/// When the tensor has another shape than the model's description asks for.
pub(crate) fn find<'c>(
    catalogue: &'c Catalogue,
    tensors: &Tensors,
    decoder: &Decoder,
    role: Role,
    layer: usize,
) -> Result<Option<Place<'c>>, FormatError> {
    if presence(tensors, role) == Presence::Absent {
        return Ok(None);
    }
    for candidate in candidates(tensors, decoder, role, layer) {
        let Some(stored) = catalogue.get(&candidate.name) else { continue };
        // Files may write a vector as a matrix of one row.
        let spare = stored.shape.len().saturating_sub(candidate.shape.len());
        if stored.shape[..spare].iter().any(|n| *n != 1) || stored.shape[spare..] != candidate.shape[..] {
            return Err(FormatError::Shape {
                name: candidate.name,
                role: format!("{role:?}"),
                expected: candidate.shape,
                found: stored.shape.clone(),
            });
        }
        return Ok(Some((stored, candidate.first, shape(decoder, role))));
    }
    Ok(None)
}

/// Checks each role's tensor, and that no tensor within the decoder is left over: one that is not used would
/// change what the model computes.
///
/// # Errors
/// When tensors are missing, of another shape or of a type that is not read, or left over.
pub(crate) fn check(catalogue: &Catalogue, tensors: &Tensors, decoder: &Decoder) -> Result<(), FormatError> {
    let all = catalogue.tensors();
    let mut used = vec![false; all.len()];
    let mut missing = Vec::new();
    let mut visit = |role: Role, layer: usize| -> Result<bool, FormatError> {
        match find(catalogue, tensors, decoder, role, layer)? {
            Some((stored, first, shape)) => {
                check_part(stored, first, &shape)?;
                if let Ok(index) = all.binary_search_by(|tensor| tensor.name.cmp(&stored.name)) {
                    used[index] = true;
                }
            }
            None if presence(tensors, role) == Presence::Required => {
                missing.extend(
                    candidates(tensors, decoder, role, layer).into_iter().map(|found| found.name).take(1),
                );
            }
            None => {}
        }
        Ok(missing.len() < MISSING_NAMED_MAX)
    };
    visit_all(decoder, &mut visit)?;
    if !missing.is_empty() {
        let more = if missing.len() < MISSING_NAMED_MAX { "" } else { ", and maybe more" };
        return Err(FormatError::Missing {
            what: format!("tensor {}{more}", missing.join(", ")),
            needed_for: format!("a {} model of {} layers needs it", decoder.family, decoder.layers.len()),
        });
    }
    let left_over =
        all.iter().zip(used).find(|(tensor, used)| !used && matters(tensors, decoder, &tensor.name));
    match left_over {
        Some((tensor, _)) => Err(FormatError::Unsupported {
            what: "a tensor of this model".to_owned(),
            found: tensor.name.clone(),
            supported: format!(
                "those of the family {}; leaving one out would change the answers",
                decoder.family
            ),
        }),
        None => Ok(()),
    }
}

/// Calls `visit` for each role of each layer until it says to stop.
fn visit_all(
    decoder: &Decoder,
    visit: &mut impl FnMut(Role, usize) -> Result<bool, FormatError>,
) -> Result<(), FormatError> {
    const ALWAYS: [Role; 14] = [
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
    for role in [Role::Embedding, Role::OutputNorm, Role::Output] {
        visit(role, 0)?;
    }
    for (index, layer) in decoder.layers.iter().enumerate() {
        let experts = match layer.feed_forward {
            FeedForward::Dense => 0,
            FeedForward::Experts => decoder.experts.map_or(0, |experts| experts.count),
        };
        let dense: &[Role] = match layer.feed_forward {
            FeedForward::Dense => &[Role::Gate, Role::Up, Role::Down],
            FeedForward::Experts => &[Role::Router],
        };
        let of_experts = (0..experts)
            .flat_map(|expert| [Role::ExpertGate(expert), Role::ExpertUp(expert), Role::ExpertDown(expert)]);
        for role in ALWAYS.into_iter().chain(dense.iter().copied()).chain(of_experts) {
            if !visit(role, index)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether a tensor that no role names would change what the decoder computes.
fn matters(tensors: &Tensors, decoder: &Decoder, name: &str) -> bool {
    if is_computed(name) {
        return false;
    }
    let (inside, layers, top) = match &tensors.naming {
        Naming::Gguf => (name, "blk.", true),
        // Vision towers and the like stand beside the decoder; a tied output matrix is a copy of the embedding.
        Naming::HuggingFace { prefix, output, .. } => match name.strip_prefix(prefix) {
            Some(inside) => (inside, "layers.", !prefix.is_empty()),
            None => return name.starts_with("lm_head.") && name != *output,
        },
    };
    match inside.strip_prefix(layers).and_then(|rest| rest.split('.').next()) {
        // Layers past the last predict further tokens ahead, for speculation.
        Some(layer) => layer.parse().map_or(true, |layer: usize| layer < decoder.layers.len()),
        None => top,
    }
}
