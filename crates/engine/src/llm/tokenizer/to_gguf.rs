//! The keys of a GGUF file for a tokeniser out of `tokenizer.json`: byte-level BPE whose way of cutting words has a name.
//!
//! Source: `_set_vocab_gpt2` of llama.cpp's converter. That the keys mean the same is tried on texts.

use formats::tokenizer::{GgufTokenizer, TokenizerSource};
use serde_json::Value;

use super::gguf::{CONTROL, NORMAL, UNUSED, USER_DEFINED};
use super::pretokenizers::{self, GPT2};
use super::{Tokenizer, TokenizerError, json, vocabulary};

/// Names of pre-tokenisers, one for each way of cutting.
const NAMES: [&str; 11] = [
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "smollm",
    "dbrx",
    "gpt-4o",
    "tekken",
    "qwen35",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
];
/// What words, digits, spaces, scripts and markers are told apart by.
const PROBES: [&str; 6] = [
    "Hello, world! It's the year 2024, isn't it? THAT'S 1234567 of 89.",
    "  two spaces\n\n\tand tabs  \r\n  end   ",
    "d\u{e9}j\u{e0} vu \u{4e16}\u{754c} \u{43f}\u{440}\u{438}\u{432}\u{435}\u{442} \u{645}\u{631}\u{62d}\u{628}\u{627} \u{1f600}\u{1f680}",
    "fn main() { let x = a[0] + b->c; } // done #1 $%^&* ___ camelCase HTTPServer",
    "<s>[INST] <|im_start|>user\nhi<|im_end|></s> <unk> <pad>",
    "\u{bd} \u{b2} \u{2167} na\u{308}ive ~ `tick` \u{2019}quote\u{2019}",
];

/// `source` by the keys of a GGUF file, with as many tokens as the model's embedding has rows: unused ones are added.
///
/// # Errors
/// When it is no byte-level BPE, cuts words in a way without a name, or the keys give other ids on some text.
pub fn to_gguf(source: &TokenizerSource, rows: usize) -> Result<GgufTokenizer, TokenizerError> {
    let (bytes, config) = match source {
        TokenizerSource::Gguf(tokenizer) => return Ok(tokenizer.as_ref().clone()),
        TokenizerSource::TokenizerJson { json, config } => (json, config.as_ref()),
    };
    let tree: Value = serde_json::from_slice(bytes).map_err(TokenizerError::library("tokenizer.json"))?;
    let parts = json::parts(bytes, config)?;
    let (named, prefix) = (parts.named, parts.prefix);
    if !prefix.is_empty() && named.bos.map(|bos| vec![bos]) != Some(prefix.clone()) {
        return Err(not_said(format!("texts begin with the tokens {prefix:?}")));
    }
    let pre = pre_tokenizer(&tree)?;
    let (tokens, types) = tokens(&tree, rows)?;
    let tokenizer = GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: Some(pre.to_owned()),
        tokens,
        types,
        merges: merges(&tree)?,
        bos: named.bos,
        eos: named.eos,
        unk: named.unk,
        pad: named.pad,
        add_bos: Some(!prefix.is_empty()),
        ..GgufTokenizer::default()
    };
    let said = Tokenizer::new(&TokenizerSource::Gguf(Box::new(tokenizer.clone())))?;
    let meant = Tokenizer::new(source)?;
    for text in PROBES {
        for parse_special in [false, true] {
            if said.encode(text, parse_special, true)? != meant.encode(text, parse_special, true)? {
                return Err(not_said(format!("{text:?} gets other ids")));
            }
        }
    }
    Ok(tokenizer)
}

fn not_said(what: String) -> TokenizerError {
    TokenizerError::NotInGguf(what)
}

/// The name of the way in which texts are cut into words.
fn pre_tokenizer(tree: &Value) -> Result<&'static str, TokenizerError> {
    let model = &tree["model"];
    let kind = model["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" || model["byte_fallback"] == true {
        let kind = if kind == "BPE" { "BPE with bytes to fall back on (SentencePiece)" } else { kind };
        return Err(not_said(format!("the model is {kind:?}, and byte-level BPE is expected")));
    }
    // Published files compose letters first; llama.cpp never does, and texts are composed nearly always.
    let normalizer = &tree["normalizer"];
    if !normalizer.is_null() && normalizer["type"] != "NFC" {
        return Err(not_said(format!("the normaliser is {}", normalizer["type"])));
    }
    let mut patterns = Vec::new();
    let mut is_byte_level = false;
    let step = &tree["pre_tokenizer"];
    let steps = step["pretokenizers"].as_array().map_or(std::slice::from_ref(step), Vec::as_slice);
    for step in steps {
        match step["type"].as_str() {
            Some("ByteLevel") if step["add_prefix_space"] != true => {
                is_byte_level = true;
                // Left out, it is true.
                if step["use_regex"] != false {
                    patterns.push(GPT2);
                }
            }
            Some("Digits") if step["individual_digits"] == true => patterns.push(r"\p{N}"),
            Some("Split") if step["behavior"] == "Isolated" && step["invert"] != true => {
                let pattern = step["pattern"]["Regex"].as_str();
                patterns.push(pattern.ok_or_else(|| not_said("a word is cut at a text".to_owned()))?);
            }
            _ => return Err(not_said(format!("the pre-tokeniser has the step {}", step["type"]))),
        }
    }
    if !is_byte_level {
        return Err(not_said("the pre-tokeniser has no step ByteLevel".to_owned()));
    }
    let ignore_merges = model["ignore_merges"] == true;
    NAMES
        .into_iter()
        .find(|name| {
            pretokenizers::by_name(name)
                .is_some_and(|pre| pre.patterns == patterns && pre.ignore_merges == ignore_merges)
        })
        .ok_or_else(|| {
            let of: String = patterns.join(", ").chars().take(120).collect();
            not_said(format!("no name is known for words cut by {of:?} (ignore_merges: {ignore_merges})"))
        })
}

/// Texts and types by id; ids without a token get an unused one.
fn tokens(tree: &Value, rows: usize) -> Result<(Vec<String>, Vec<i32>), TokenizerError> {
    vocabulary::check_size(rows)?;
    let mut table: Vec<Option<(&str, i32)>> = vec![None; rows];
    let place = |id: &Value| -> Result<usize, TokenizerError> {
        let id = id.as_u64().ok_or(TokenizerError::Inconsistent)?;
        let found = usize::try_from(id).ok().filter(|id| *id < rows);
        found.ok_or_else(|| not_said(format!("the embedding has {rows} rows, and there is a token {id}")))
    };
    for (text, id) in tree["model"]["vocab"].as_object().ok_or(TokenizerError::Inconsistent)? {
        let id = place(id)?;
        table[id] = Some((text, NORMAL));
    }
    for token in tree["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let id = place(&token["id"])?;
        let text = token["content"].as_str().ok_or(TokenizerError::Inconsistent)?;
        let is_control = token["special"] == true || vocabulary::looks_like_control(text);
        table[id] = Some((text, if is_control { CONTROL } else { USER_DEFINED }));
    }
    let named = table.iter().enumerate().map(|(id, token)| match token {
        Some((text, kind)) => ((*text).to_owned(), *kind),
        None => (format!("[PAD{id}]"), UNUSED),
    });
    Ok(named.unzip())
}

/// `left right`, best first; the file has them so, or as pairs.
fn merges(tree: &Value) -> Result<Vec<String>, TokenizerError> {
    let merges = tree["model"]["merges"].as_array().ok_or(TokenizerError::Inconsistent)?;
    let text = |merge: &Value| match merge {
        Value::String(merge) => Some(merge.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(left), Value::String(right)] if !left.contains(' ') && !right.contains(' ') => {
                Some(format!("{left} {right}"))
            }
            _ => None,
        },
        _ => None,
    };
    merges.iter().map(|merge| text(merge).ok_or(TokenizerError::Inconsistent)).collect()
}
