//! What a normaliser out of a file may do to a text: it is applied to whatever callers send, so how much longer it makes
//! a text is bounded when it is loaded.

use tokenizers::NormalizerWrapper;

use super::TokenizerError;

/// Bytes out for a byte in, at most; published normalisers of decoders make 6 at most.
const GROWTH_MAX: usize = 64;
/// Steps of a normaliser; published ones have some five.
const STEPS_MAX: usize = 32;
/// Bytes put in front of a text; published ones put one character.
const PREPENDED_BYTES_MAX: usize = 16;

/// # Errors
/// A normaliser with too many steps, or under which a text could grow too much.
pub(super) fn check(normalizer: &NormalizerWrapper) -> Result<(), TokenizerError> {
    let mut steps = 0;
    let growth = growth(normalizer, &mut steps)?;
    if steps > STEPS_MAX {
        return Err(TokenizerError::Normalizer(format!("has more than {STEPS_MAX} steps")));
    }
    if growth > GROWTH_MAX {
        return Err(TokenizerError::Normalizer(format!(
            "could make a text more than {GROWTH_MAX} times as long"
        )));
    }
    Ok(())
}

/// Bytes that one byte becomes at most.
fn growth(normalizer: &NormalizerWrapper, steps: &mut usize) -> Result<usize, TokenizerError> {
    *steps += 1;
    Ok(match normalizer {
        NormalizerWrapper::Sequence(sequence) => {
            let mut product = 1usize;
            for step in sequence.as_ref() {
                product = product.saturating_mul(growth(step, steps)?);
            }
            product
        }
        // A pattern may match a single byte, or the nothing between two.
        NormalizerWrapper::Replace(replace) => replace.content.len() + 1,
        NormalizerWrapper::Prepend(prepend) if prepend.prepend.len() > PREPENDED_BYTES_MAX => {
            return Err(TokenizerError::Normalizer(format!(
                "puts more than {PREPENDED_BYTES_MAX} bytes in front of each text"
            )));
        }
        NormalizerWrapper::Precompiled(_) => {
            return Err(TokenizerError::Normalizer(
                "is a precompiled table, which no model of the families served here has".to_owned(),
            ));
        }
        // U+FDFA, 3 bytes, becomes 18 characters of 33 bytes.
        NormalizerWrapper::NFKC(_) | NormalizerWrapper::NFKD(_) => 11,
        NormalizerWrapper::NFC(_) | NormalizerWrapper::NFD(_) => 3,
        NormalizerWrapper::BertNormalizer(_)
        | NormalizerWrapper::ByteLevel(_)
        | NormalizerWrapper::Lowercase(_) => 2,
        NormalizerWrapper::Prepend(_)
        | NormalizerWrapper::StripNormalizer(_)
        | NormalizerWrapper::StripAccents(_)
        | NormalizerWrapper::Nmt(_) => 1,
    })
}
