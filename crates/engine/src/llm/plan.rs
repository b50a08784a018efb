//! How much memory a model will take, decided before anything is loaded.

use formats::model::Decoder;
use kernels::attention::{KvLayout, KvLayoutError, PAGE_TOKENS};

use super::draft_model::{ROWS_MAX, SEQUENCES_MAX};
use super::forward::{Forward, StepSizes};
use super::pages::Pages;
use super::settings::{Bytes, MemoryPlan, Settings, free_memory_bytes};
use super::weights::packed_bytes_max;

/// Rows of logits beyond one a sequence, for reports on prompts.
const PROMPT_LOGIT_ROWS: usize = 16;
/// A context below this is of no use, and is refused rather than chosen.
const CONTEXT_TOKENS_MIN: usize = 256;
/// Contexts that are advised are whole multiples of this.
const ROUND_TOKENS: usize = 1024;

/// Why a model cannot be run as asked.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(
        "a context of {asked} tokens was asked for, and the model was made for {trained}: ask for at most that"
    )]
    Context { asked: usize, trained: usize },
    #[error("{setting} is 0: it must be at least 1")]
    Zero { setting: &'static str },
    #[error(
        "too little memory: weights take up to {weights}, step buffers {activations} and one context of {context} \
         tokens {kv}, and {free} may be used. {advice}"
    )]
    Memory { weights: Bytes, activations: Bytes, context: usize, kv: Bytes, free: Bytes, advice: String },
    #[error(transparent)]
    Layout(#[from] KvLayoutError),
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What was decided: sizes to allocate, and what they add up to.
pub(super) struct Plan {
    pub layout: KvLayout,
    pub sizes: StepSizes,
    /// Of the draft model, which has a page for each of the served one's.
    pub draft: Option<(KvLayout, StepSizes)>,
    /// Of both.
    pub memory: MemoryPlan,
}

/// What to do where a context doesn't fit and one of `affordable` tokens would.
fn advice(affordable: usize, is_limited: bool, has_draft: bool) -> String {
    let room = if is_limited { "raise --memory-max" } else { "free memory" };
    let room = if has_draft { format!("{room}, or leave the draft model out") } else { room.to_owned() };
    // A number that a person would choose, and that a little less memory the next time leaves right.
    let context = if affordable >= ROUND_TOKENS {
        affordable / ROUND_TOKENS * ROUND_TOKENS
    } else {
        CONTEXT_TOKENS_MIN
    };
    if affordable >= CONTEXT_TOKENS_MIN {
        format!("Ask for a shorter context, such as --context {context}, or {room}.")
    } else {
        format!("Take a smaller model or a coarser quantisation, or {room}.")
    }
}

/// Chooses context and cache for the memory there is: room for `sequences_max` full contexts where it fits,
/// for fewer where not, and a shorter context only where none was asked for.
/// A draft model is a decoder and the bytes of its files.
pub(super) fn plan(
    decoder: &Decoder,
    file_bytes: u64,
    draft: Option<(&Decoder, u64)>,
    settings: &Settings,
) -> Result<Plan, PlanError> {
    let zeros = [
        ("threads", settings.threads),
        ("the number of sequences", settings.sequences_max),
        ("tokens a step", settings.step_tokens_max),
        ("the context", settings.context_tokens.unwrap_or(1)),
    ];
    if let Some((setting, _)) = zeros.into_iter().find(|(_, value)| *value == 0) {
        return Err(PlanError::Zero { setting });
    }
    let trained = decoder.context;
    let asked = settings.context_tokens.unwrap_or(trained);
    if asked > trained {
        return Err(PlanError::Context { asked, trained });
    }

    let rows_max = settings.step_tokens_max.max(settings.sequences_max);
    let logit_rows_max = settings.sequences_max.saturating_add(PROMPT_LOGIT_ROWS);
    let draft_files = draft.map_or(0, |(_, file_bytes)| file_bytes);
    let draft_step = draft.map_or(0, |(draft, _)| Forward::buffer_bytes(draft, ROWS_MAX, SEQUENCES_MAX));
    let weights = packed_bytes_max(file_bytes).saturating_add(packed_bytes_max(draft_files));
    let activations = Forward::buffer_bytes(decoder, rows_max, logit_rows_max) + draft_step;
    let layout = |decoder: &Decoder, pages: usize| {
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        let (kv_heads, head_dim) = (decoder.kv_heads, decoder.head_dim);
        KvLayout::new(decoder.layers.len(), kv_heads, head_dim, pages, settings.kv())
    };
    let draft_page = draft.map(|(draft, _)| layout(draft, 1)).transpose()?;
    let page_bytes = (layout(decoder, 1)?.bytes() + draft_page.map_or(0, |page| page.bytes())) as u64;
    let free = || Some(free_memory_bytes()?.saturating_sub(settings.memory_promised_bytes) / 10 * 9);
    let budget = settings.memory_max_bytes.or_else(free);
    let budget = budget.unwrap_or(u64::MAX);
    let pages_affordable = budget.saturating_sub(weights.saturating_add(activations)) / page_bytes;
    let pages_affordable = usize::try_from(pages_affordable).unwrap_or(usize::MAX);

    let affordable = pages_affordable.saturating_mul(PAGE_TOKENS);
    let context = match settings.context_tokens {
        Some(asked) => asked,
        None => asked.min(affordable),
    };
    if affordable < context || context < CONTEXT_TOKENS_MIN.min(asked) {
        let kv = Bytes(page_bytes.saturating_mul(Pages::needed(asked) as u64));
        let advice = advice(affordable, settings.memory_max_bytes.is_some(), draft.is_some());
        let (weights, activations, free) = (Bytes(weights), Bytes(activations), Bytes(budget));
        return Err(PlanError::Memory { weights, activations, context: asked, kv, free, advice });
    }
    let wanted = Pages::needed(context).saturating_mul(settings.sequences_max);
    let pages = wanted.min(pages_affordable);
    let memory = MemoryPlan {
        weights_bytes: weights,
        mapped_bytes: 0,
        kv_bytes: page_bytes.saturating_mul(pages as u64),
        activations_bytes: activations,
    };
    let draft = draft.map(|(draft, _)| {
        let (context_tokens, logit_rows_max) = (context.min(draft.context), SEQUENCES_MAX);
        let sizes = StepSizes { context_tokens, rows_max: ROWS_MAX, logit_rows_max };
        layout(draft, pages).map(|layout| (layout, sizes))
    });
    let sizes = StepSizes { context_tokens: context, rows_max, logit_rows_max };
    Ok(Plan { layout: layout(decoder, pages)?, sizes, draft: draft.transpose()?, memory })
}

#[test]
fn what_is_advised_fits_and_is_round() {
    let check = |affordable: usize, is_limited: bool, expected: [&str; 2]| {
        let text = advice(affordable, is_limited, false);
        assert!(advice(affordable, is_limited, true).ends_with(", or leave the draft model out."));
        assert!(expected.iter().all(|expected| text.contains(expected)), "{text}");
    };
    check(7136, false, ["--context 6144,", "free memory"]);
    check(1023, true, ["--context 256,", "raise --memory-max"]);
    check(255, true, ["smaller model", "raise --memory-max"]);
}
