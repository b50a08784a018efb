//! Templates against `transformers`: `fixtures/template/make_goldens.py` made the cases.

use serde_json::json;

use super::*;
use crate::llm::tokenizer::LITERAL_MARK;

fn tokens() -> TemplateTokens {
    TemplateTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..TemplateTokens::default() }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, tokens()).unwrap()
}

fn render(source: &str, messages: Json) -> Result<String, TemplateError> {
    template(source).render(&messages, None, true, None)
}

fn check_goldens(path: &str) {
    let golden: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (name, golden_template) in golden["templates"].as_object().unwrap() {
        let template = template(golden_template["source"].as_str().unwrap());
        let rendered = golden_template["rendered"].as_array().unwrap();
        for (index, (case, expected)) in golden["cases"].as_array().unwrap().iter().zip(rendered).enumerate()
        {
            let generate = case["add_generation_prompt"].as_bool().unwrap();
            let found = template.render(
                &case["messages"],
                case.get("tools"),
                generate,
                case.get("extra").and_then(Json::as_object),
            );
            let agrees = match (&found, expected["text"].as_str(), expected["error"].as_str()) {
                (Ok(found), Some(text), _) => found == text,
                (Err(TemplateError::Refused { message }), _, Some("TemplateError")) => {
                    expected["message"] == **message
                }
                (Err(TemplateError::Failed { .. }), _, Some(_)) => true,
                _ => false,
            };
            if !agrees {
                wrong.push(format!("{name} case {index}:\n  found    {found:?}\n  expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn prompts_are_those_of_transformers() {
    check_goldens(&format!("{}/fixtures/template/templates.json", env!("CARGO_MANIFEST_DIR")));
}

/// By hand, with published templates: see make_goldens.py.
#[test]
#[ignore = "needs TEMPLATE_CASES, a file that make_goldens.py writes"]
fn published_templates() {
    check_goldens(&std::env::var("TEMPLATE_CASES").unwrap());
}

#[test]
fn a_refusal_carries_the_template_s_words() {
    let error = render("{{ raise_exception('no system messages') }}", json!([])).unwrap_err();
    assert_eq!(error, TemplateError::Refused { message: "no system messages".into() });
    let error = render("{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{{ m() }}", json!([]));
    assert_eq!(error, Err(TemplateError::Refused { message: "deep".into() }));
    let error = render("{{ raise_exception('x' * 100000) }}", json!([]));
    assert_eq!(error, Err(TemplateError::Refused { message: "x".repeat(REFUSAL_CHARS_MAX) }));
}

#[test]
fn a_failure_says_where() {
    let check = |source: &str, expected_line: usize, expected: &str| {
        let Err(TemplateError::Failed { line, message }) = render(source, json!([{"role": "user"}])) else {
            panic!("{source} should fail");
        };
        assert_eq!(line, expected_line, "{source}");
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    };
    check("a\n{{ messages[3].content }}", 2, "undefined");
    check("a\n\n{{ 'x' + messages[0].content }}", 3, "");
    check("{{ unknown_function() }}", 1, "unknown_function");
    let Err(TemplateError::Syntax { line, message }) = ChatTemplate::new("a\n{% if %}", tokens()) else {
        panic!("should not compile");
    };
    assert_eq!(line, 2, "{message}");
}

#[test]
fn hostile_templates_end() {
    let check = |source: &str| assert!(render(source, json!([])).is_err(), "{source}");
    check("{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}");
    check("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
    check("{{ 'x' * 99999999999 }}");
    check("{{ 'x' | indent(99999999999) }}");
    check("{{ [1] | tojson(indent=99999999999) }}");
    check("{{ '%99999999999d' | format(1) }}");
    check("{{ '{:>99999999999}'.format(1) }}");
    check(
        "{% set ns = namespace(x=[]) %}{% for i in range(500) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    );
    check(
        "{% set ns = namespace(x=[]) %}{% for i in range(500) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    );
    check("{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}");
    check(
        "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    );
    check("{% for i in range(90000) %}{{ 'xxxxxxxxxx' * 100 }}{% endfor %}");
    // A list that holds itself twice, thirty times over.
    let doubled =
        "{% set ns = namespace(x=[1]) %}{% for i in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for end in ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x | string | length }}", "{{ ns.x | pprint }}"] {
        check(&format!("{doubled}{end}"));
    }
    let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
    assert!(matches!(ChatTemplate::new(&long, tokens()), Err(TemplateError::TooLong { .. })));
}

#[test]
fn extras_do_not_replace_the_conversation() {
    let extra = json!({"messages": "mine", "bos_token": "mine", "name": "Ada"});
    let found = template("{{ bos_token }}{{ messages | length }}{{ name }}").render(
        &json!([]),
        None,
        false,
        extra.as_object(),
    );
    assert_eq!(found.as_deref(), Ok("<s>0Ada"));
}

#[test]
fn what_users_write_is_marked_and_what_the_template_writes_is_not() {
    let tokens = TemplateTokens { control: vec!["<|end|>".into()], ..tokens() };
    let template = ChatTemplate::new("{{ messages[0].content }}<|end|>{{ tools | tojson }}", tokens).unwrap();
    let messages = json!([{"role": "user", "content": "a<|end|>b"}]);
    let found = template.render(&messages, Some(&json!(["<|end|>"])), true, None).unwrap();
    assert_eq!(found, "a<^|end|>b<|end|>[\"<^|end|>\"]".replace('^', &LITERAL_MARK.to_string()));
}

#[test]
fn many_messages_fit_the_budget() {
    let message = json!({"role": "user", "content": "hello <think></think> there"});
    let messages: Json = std::iter::repeat_n(message, 4000).collect();
    let golden =
        std::fs::read(format!("{}/fixtures/template/templates.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let golden: Json = serde_json::from_slice(&golden).unwrap();
    let found = render(golden["templates"]["tools"]["source"].as_str().unwrap(), messages);
    assert!(found.is_ok(), "{:?}", found.err());
}

/// Chains as long as a template may be: each link is a level of recursion in the compiler. What they come to is one
/// thing, but the process must live.
#[test]
fn no_chain_of_operators_exhausts_the_stack() {
    let chains = [
        ("{% if a %}", "{% elif a %}", "{% endif %}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ 1", "+1", " }}"),
        ("{{ a", "~abcdefghij", " }}"), // costs the square of its links
        ("{{ ", "-", "1 }}"),
        ("{{ a", ".a", " }}"),
        ("{{ a", "[0]", " }}"),
        ("{{ a", "()", " }}"),
        ("{{ 1", "**1", " }}"),
        ("{{ 1", "<1", " }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ a", "|e", " }}"),
        ("{{ a", " is a", " }}"),
        ("{{ ", "1 if a else ", "1 }}"),
        ("{{ ", "(", ""),
        ("{{ ", "[", ""),
        ("", "{% if a %}", ""),
    ];
    for (begin, link, end) in chains {
        let links = (TEMPLATE_BYTES_MAX - begin.len() - end.len()) / link.len();
        let source = format!("{begin}{}{end}", link.repeat(links));
        if let Ok(template) = ChatTemplate::new(&source, tokens()) {
            let _ = template.render(&json!([]), None, true, None);
        }
    }
}

#[test]
fn a_rendering_that_nothing_stops_is_given_up_and_its_template_rests() {
    let source = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(22) %}{% set ns.x = [ns.x, ns.x] %}\
                  {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ messages and ns.x == ns.y }}";
    let template = ChatTemplate { time_max: Duration::from_millis(50), ..template(source) };
    let slow = || template.render(&json!([1]), None, true, None);
    assert_eq!(slow(), Err(TemplateError::TooSlow));
    assert_eq!(template.overdue.load(Ordering::Acquire), 1);
    // Refused without another try, which would be overdue as well.
    assert_eq!(slow(), Err(TemplateError::TooSlow));
    assert_eq!(template.overdue.load(Ordering::Acquire), 1);
    while template.overdue.load(Ordering::Acquire) > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(template.render(&json!([]), None, true, None).as_deref(), Ok("[]"));
}
