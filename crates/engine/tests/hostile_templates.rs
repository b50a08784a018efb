//! Chat templates that would fill the memory or never end. A binary of its own, for an allocator that bounds threads.

use std::alloc::System;

use engine::llm::template::{ChatTemplate, TemplateError, TemplateTokens};
use kernels::thread_bound::Bounded;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: Bounded<System> = Bounded(System);

/// Lists that double sixty times over, each in a way that the interpreter doesn't count.
const DOUBLING: [&str; 3] = [
    "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a | length }}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}\
     {{ [ns.a] | join(',') | length }}",
    "{% set ns = namespace(a=['x']) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | upper }}",
];

#[test]
fn a_template_that_fills_the_memory_is_stopped_and_not_used_again() {
    for source in DOUBLING {
        let template = ChatTemplate::new(source, TemplateTokens::default()).unwrap();
        let render = || template.render(&json!([]), None, true, None);
        let first = render();
        // On a machine that does much else the time may be over first.
        let ended = matches!(
            first,
            Err(TemplateError::Stopped | TemplateError::TooMuchWork | TemplateError::TooSlow)
        );
        assert!(ended, "{first:?} {source}");
        if first == Err(TemplateError::Stopped) {
            assert_eq!(render(), first, "{source}");
        }
    }
    // Others are none the worse for it.
    let template = ChatTemplate::new("{{ messages[0] }}", TemplateTokens::default()).unwrap();
    assert_eq!(template.render(&json!(["hi"]), None, true, None).as_deref(), Ok("hi"));
}
