//! Tokenisers against their peers: `fixtures/tokenizer/make_goldens.py` made the cases.

use formats::tokenizer::{GgufTokenizer, TokenizerSource};
use serde_json::Value;

use super::*;

fn fixture(name: &str) -> Value {
    let path = format!("{}/fixtures/tokenizer/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))).unwrap()
}

fn numbers<T: std::str::FromStr>(value: &Value) -> Vec<T>
where
    T::Err: std::fmt::Debug,
{
    value.as_array().into_iter().flatten().map(|item| item.to_string().parse().unwrap()).collect()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn gguf_source(value: &Value) -> GgufTokenizer {
    let id = |key: &str| value.get(key).and_then(Value::as_u64).map(|id| id as u32);
    GgufTokenizer {
        model: value["model"].as_str().unwrap().to_owned(),
        pre: value["pre"].as_str().map(str::to_owned),
        tokens: strings(&value["tokens"]),
        scores: numbers(&value["scores"]),
        types: numbers(&value["types"]),
        merges: strings(&value["merges"]),
        bos: id("bos"),
        eos: id("eos"),
        unk: id("unk"),
        add_space_prefix: value["add_space_prefix"].as_bool(),
        remove_extra_whitespaces: value["remove_extra_whitespaces"].as_bool(),
        ..GgufTokenizer::default()
    }
}

fn gguf(source: GgufTokenizer) -> Tokenizer {
    Tokenizer::new(&TokenizerSource::Gguf(Box::new(source))).unwrap()
}

/// A two-letter vocabulary to vary.
fn tiny() -> GgufTokenizer {
    GgufTokenizer {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: ["a", "b", "ab", "<|end|>"].map(String::from).to_vec(),
        types: vec![1, 1, 1, 3],
        merges: vec!["a b".into()],
        ..GgufTokenizer::default()
    }
}

fn check_cases(tokenizer: &Tokenizer, texts: &[String], expected: &Value, special: bool, name: &str) {
    let mut wrong = 0;
    for (text, expected) in texts.iter().zip(expected.as_array().unwrap()) {
        let (found, expected) = (tokenizer.encode(text, special, false).unwrap(), numbers::<u32>(expected));
        if found != expected {
            wrong += 1;
            let spell = |ids: &[u32]| ids.iter().map(|id| tokenizer.token_text(*id)).collect::<Vec<_>>();
            println!("{name}: {text:?}\n  found    {:?}\n  expected {:?}", spell(&found), spell(&expected));
        }
    }
    assert_eq!(wrong, 0, "{name}, special {special}: of {} texts", texts.len());
}

#[test]
fn byte_level_vocabularies_agree_with_llama_cpp() {
    let golden = fixture("byte_level.json");
    let texts = strings(&golden["texts"]);
    for (pre, expected) in golden["pres"].as_object().unwrap() {
        let source = GgufTokenizer { pre: Some(pre.clone()), ..gguf_source(&golden["source"]) };
        let tokenizer = gguf(source);
        check_cases(&tokenizer, &texts, &expected["plain"], false, pre);
        check_cases(&tokenizer, &texts, &expected["special"], true, pre);
    }
}

#[test]
fn sentencepiece_vocabularies_agree_with_sentencepiece() {
    for name in ["spm_bpe.json", "spm_unigram.json"] {
        let golden = fixture(name);
        let tokenizer = gguf(gguf_source(&golden["source"]));
        check_cases(&tokenizer, &strings(&golden["texts"]), &golden["plain"], false, name);
    }
}

#[test]
fn tokenizer_json_agrees_with_its_library() {
    for name in ["library_byte_level.json", "library_sentencepiece.json"] {
        let golden = fixture(name);
        let json = serde_json::to_vec(&golden["json"]).unwrap();
        let tokenizer = Tokenizer::new(&TokenizerSource::TokenizerJson { json, config: None }).unwrap();
        let texts = strings(&golden["texts"]);
        check_cases(&tokenizer, &texts, &golden["plain"], false, name);
        check_cases(&tokenizer, &texts, &golden["special"], true, name);
    }
}

/// By hand, with cases of a real file: see make_goldens.py.
#[test]
#[ignore = "needs TOKENIZER_CASES, a file that make_goldens.py writes"]
fn peer_cases() {
    let path = std::env::var("TOKENIZER_CASES").unwrap();
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let source = gguf_source(&golden["source"]);
    let start = std::time::Instant::now();
    let tokenizer = gguf(source);
    println!("loaded in {:?}", start.elapsed());
    let texts = strings(&golden["texts"]);
    let start = std::time::Instant::now();
    let bytes: usize = texts.iter().map(String::len).sum();
    texts.iter().for_each(|text| drop(tokenizer.encode(text, false, false).unwrap()));
    println!("{bytes} bytes encoded in {:?}", start.elapsed());
    check_cases(&tokenizer, &texts, &golden["plain"], false, "peer");
    check_cases(&tokenizer, &texts, &golden["special"], true, "peer");
}

#[test]
fn bytes_of_the_tokens_are_the_text() {
    let golden = fixture("byte_level.json");
    let source = GgufTokenizer { pre: Some("llama-bpe".into()), ..gguf_source(&golden["source"]) };
    let spm = gguf_source(&fixture("spm_bpe.json")["source"]);
    for (tokenizer, prefix) in [(gguf(source), ""), (gguf(spm), " ")] {
        for text in strings(&golden["texts"]).iter().filter(|text| !text.is_empty() && !text.contains('▁'))
        {
            let ids = tokenizer.encode(text, false, false).unwrap();
            let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).copied().collect();
            assert_eq!(String::from_utf8_lossy(&bytes), format!("{prefix}{text}"));
        }
    }
}

#[test]
fn user_text_never_becomes_a_control_token() {
    let golden = fixture("byte_level.json");
    let byte_level = GgufTokenizer { pre: Some("llama-bpe".into()), ..gguf_source(&golden["source"]) };
    let spm = |name| gguf_source(&fixture(name)["source"]);
    for source in [byte_level, spm("spm_bpe.json"), spm("spm_unigram.json")] {
        let tokenizer = gguf(source);
        for control in tokenizer.control_texts().to_vec() {
            for text in [control.clone(), format!("a{control}b"), format!(" {control}{control}")] {
                let ids = tokenizer.encode(&text, false, false).unwrap();
                assert!(
                    !ids.iter().any(|id| tokenizer.is_special(*id) && Some(*id) != tokenizer.named().unk)
                );
                let ids = tokenizer.encode(&text, true, false).unwrap();
                assert!(ids.iter().any(|id| tokenizer.is_special(*id)), "{text:?}");
            }
        }
    }
}

#[test]
fn a_marked_control_token_is_plain_text() {
    let golden = fixture("byte_level.json");
    let tokenizer = gguf(GgufTokenizer { pre: Some("qwen2".into()), ..gguf_source(&golden["source"]) });
    let marked = format!("<|end|>say <{LITERAL_MARK}|end|> twice");
    let mut expected = tokenizer.encode("<|end|>", true, false).unwrap();
    expected.extend(tokenizer.encode("say <|end|> twice", false, false).unwrap());
    assert_eq!(tokenizer.encode(&marked, true, false).unwrap(), expected);
}

#[test]
fn control_tokens_are_silent_unless_asked_for() {
    let tokenizer = gguf(tiny());
    assert_eq!(tokenizer.token_bytes(3), b"");
    assert_eq!(tokenizer.token_bytes_with_special(3), b"<|end|>");
    assert_eq!(tokenizer.token_bytes(99), b"");
}

#[test]
fn bos_comes_first_once_and_only_where_wanted() {
    let check = |pre: &str, add_bos, text: &str, expected: &[u32]| {
        let tokenizer = gguf(GgufTokenizer { pre: Some(pre.into()), add_bos, bos: Some(3), ..tiny() });
        assert_eq!(tokenizer.encode(text, true, true).unwrap(), expected, "{pre} {add_bos:?} {text:?}");
        assert!(!tokenizer.encode("ab", true, false).unwrap().contains(&3));
    };
    check("gpt-2", Some(true), "ab", &[3, 2]);
    check("gpt-2", Some(true), "<|end|>ab", &[3, 2]);
    check("gpt-2", Some(true), "", &[3]);
    check("gpt-2", Some(false), "ab", &[2]);
    check("gpt-2", None, "ab", &[2]);
    check("llama-bpe", None, "ab", &[3, 2]);
    check("llama-bpe", Some(false), "ab", &[2]);
}

#[test]
fn bos_of_a_tokenizer_json_follows_its_configuration() {
    let golden = fixture("library_byte_level.json");
    let json = serde_json::to_vec(&golden["json"]).unwrap();
    let check = |config: Option<Value>, expected: usize| {
        let source = TokenizerSource::TokenizerJson { json: json.clone(), config };
        let tokenizer = Tokenizer::new(&source).unwrap();
        let with = tokenizer.encode("soup", false, true).unwrap();
        assert_eq!(with.len() - tokenizer.encode("soup", false, false).unwrap().len(), expected);
        tokenizer.named().bos
    };
    let bos = check(None, 1);
    assert!(bos.is_some());
    assert_eq!(check(Some(serde_json::json!({"bos_token": "<s>", "add_bos_token": false})), 0), bos);
    assert_eq!(check(Some(serde_json::json!({"bos_token": {"content": "<s>"}})), 1), bos);
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let check = |change: fn(&mut GgufTokenizer), expected: &str| {
        let mut source = tiny();
        change(&mut source);
        let error = Tokenizer::new(&TokenizerSource::Gguf(Box::new(source))).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    };
    check(|source| source.tokens.clear(), "0 tokens");
    check(|source| source.types.truncate(2), "token_type has 2 entries for 4 tokens");
    check(|source| source.model = "bert".into(), "\"bert\"");
    check(|source| source.pre = Some("made-up".into()), "\"made-up\"");
    check(|source| source.pre = None, "pre is missing");
    check(|source| source.merges.push("a a".into()), "merge 1, \"a a\", makes a token");
    check(|source| source.merges.push("ab".into()), "no space");
    check(|source| source.eos = Some(4), "eos token is 4");
    check(|source| source.add_bos = Some(true), "BOS");
    check(|source| source.model = "llama".into(), "scores has 0 entries");
    let json = TokenizerSource::TokenizerJson { json: b"{\"version\": 1}".to_vec(), config: None };
    assert!(Tokenizer::new(&json).unwrap_err().to_string().starts_with("tokenizer.json: "));
}

#[test]
fn long_runs_take_no_quadratic_time() {
    let start = std::time::Instant::now();
    let golden = fixture("byte_level.json");
    let byte_level = GgufTokenizer { pre: Some("llama-bpe".into()), ..gguf_source(&golden["source"]) };
    for tokenizer in [gguf(byte_level), gguf(gguf_source(&fixture("spm_bpe.json")["source"]))] {
        for run in ["a", " ", "\n", "=", "é", "1", "\u{301}", "aB"] {
            let ids = tokenizer.encode(&run.repeat(50_000), false, false).unwrap();
            assert!(!ids.is_empty());
        }
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn hostile_tokenizer_json_is_refused_or_bounded() {
    let golden = fixture("library_byte_level.json");
    let load = |part: &str, value: Value| {
        let mut json = golden["json"].clone();
        json[part] = value;
        let json = serde_json::to_vec(&json).unwrap();
        Tokenizer::new(&TokenizerSource::TokenizerJson { json, config: None })
    };
    let check = |part: &str, value: Value, expected: &str| {
        let error = load(part, value).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    };
    let replace = |pattern: Value, content: &str| serde_json::json!({"type": "Replace", "pattern": pattern, "content": content});
    let sequence = |steps: Vec<Value>| serde_json::json!({"type": "Sequence", "normalizers": steps});
    let grow = replace(serde_json::json!({"String": "a"}), "aaaaaaaaa");
    check("normalizer", sequence(vec![grow.clone(); 2]), "64 times as long");
    check("normalizer", sequence(vec![replace(serde_json::json!({"String": "a"}), ""); 40]), "32 steps");
    check(
        "normalizer",
        serde_json::json!({"type": "Prepend", "prepend": "x".repeat(99)}),
        "16 bytes in front",
    );
    check("normalizer", replace(serde_json::json!({"Regex": ""}), "x"), "");
    check(
        "post_processor",
        serde_json::json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<none>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {},
        }),
        "",
    );
    assert!(load("normalizer", grow).is_ok());
    // Breaks on some texts only: an error for these, not a panic.
    let tokenizer = load("normalizer", replace(serde_json::json!({"Regex": "(?=q)"}), "x")).unwrap();
    let broken = tokenizer.encode("q", true, true).unwrap_err().to_string();
    assert_eq!(broken, "a text like \"q\" breaks the tokeniser: one of its patterns can't be used");
    assert!(tokenizer.encode("a", true, true).is_ok());
}

#[test]
fn the_bound_of_a_text_s_length_is_the_longest_token_s() {
    let tokenizer = gguf(tiny());
    assert_eq!(tokenizer.text_bytes_max(3), 3 * "<|end|>".len());
}
