//! What a model's files say of texts: its tokeniser and its chat template.

use std::sync::Arc;

use formats::model::ModelFiles;
use formats::tokenizer::TokenizerSource;

use super::draft_model::{DraftFiles, common_tokens};
use super::handle::LoadError;
use super::template::{ChatTemplate, TemplateTokens};
use super::tokenizer::Tokenizer;

/// A tokeniser as files state it, and the tokens that their model has embeddings of.
struct Source {
    tokenizer: TokenizerSource,
    embedding: usize,
}

impl Source {
    fn take(files: &mut ModelFiles) -> Source {
        Source { tokenizer: files.take_tokenizer(), embedding: files.decoder().vocabulary }
    }

    fn read(self) -> Result<Tokenizer, LoadError> {
        let tokenizer = Tokenizer::new(&self.tokenizer).map_err(LoadError::Tokenizer)?;
        if tokenizer.vocabulary() > self.embedding {
            let (tokenizer, embedding) = (tokenizer.vocabulary(), self.embedding);
            return Err(LoadError::Vocabulary { tokenizer, embedding });
        }
        Ok(tokenizer)
    }
}

/// Taken out of the files, so that it is gone once it was read.
pub(super) struct Sources {
    served: Source,
    chat_template: Option<String>,
    draft: Option<Source>,
}

impl Sources {
    pub fn take(files: &mut ModelFiles, draft: Option<&mut DraftFiles>) -> Sources {
        let chat_template = files.chat_template().map(str::to_owned);
        Sources {
            served: Source::take(files),
            chat_template,
            draft: draft.map(|draft| Source::take(&mut draft.files)),
        }
    }
}

pub(super) struct Words {
    pub tokenizer: Arc<Tokenizer>,
    pub template: Option<ChatTemplate>,
    /// Tokens that the draft model, if there is one, has in common with it, from 0 on.
    pub draft_tokens: Option<usize>,
}

impl Words {
    /// # Errors
    /// A tokeniser or a template that can't be used, or a draft model's that is another one.
    pub fn read(sources: Sources) -> Result<Words, LoadError> {
        let Sources { served, chat_template, draft } = sources;
        let tokenizer = Arc::new(served.read()?);
        let template = chat_template.map(|text| ChatTemplate::new(&text, TemplateTokens::of(&tokenizer)));
        let wrong = |error| LoadError::Draft(Box::new(error));
        let draft = draft.map(|draft| draft.read().map_err(wrong)).transpose()?;
        let draft_tokens = draft.map(|draft| common_tokens(&tokenizer, &draft)).transpose()?;
        Ok(Words { template: template.transpose()?, draft_tokens, tokenizer })
    }
}
