//! Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::{Display, Write};

use engine::llm::{Durations, Stats};
use engine::onnx::OnnxStats;

use super::histogram::render_histogram;
use super::{Metrics, Times, lock, vllm};
use crate::services::{Engine, Service};

/// One metric of engines: name, kind, what it is, how it is read.
type EngineMetric<S> = (&'static str, &'static str, &'static str, fn(&S) -> u64);

const TENSOR_METRICS: [EngineMetric<OnnxStats>; 4] = [
    ("tureen_tensor_calls_waiting", "gauge", "Tensor calls that wait for their run.", |s| s.waiting),
    ("tureen_tensor_calls_total", "counter", "Tensor calls that were queued.", |s| s.calls_total),
    ("tureen_tensor_rows_total", "counter", "Rows of tensor calls that were run.", |s| s.rows_total),
    ("tureen_tensor_runs_total", "counter", "Runs of a model, each of one or more calls.", |s| s.runs_total),
];

const ENGINE_METRICS: [EngineMetric<Stats>; 20] = [
    ("tureen_requests_running", "gauge", "Sequences that hold a place in the batch.", |s| s.running),
    ("tureen_requests_waiting", "gauge", "Sequences that wait for a place.", |s| s.waiting),
    ("tureen_slots", "gauge", "Places in the batch.", |s| s.slots),
    ("tureen_kv_pages", "gauge", "Pages of the key/value cache.", |s| s.kv_pages_total),
    ("tureen_kv_pages_used", "gauge", "Pages of the key/value cache in use.", |s| s.kv_pages_used),
    ("tureen_kv_pages_evicted_total", "counter", "Pages whose contents gave way to others'.", |s| {
        s.kv_pages_evicted_total
    }),
    ("tureen_prompt_tokens_total", "counter", "Prompt tokens evaluated.", |s| s.prompt_tokens_total),
    ("tureen_prefix_cache_queries_total", "counter", "Prompt tokens looked up in the cache.", |s| {
        s.prefix_cache_queries_total
    }),
    ("tureen_cached_tokens_total", "counter", "Prompt tokens found in the cache.", |s| s.cached_tokens_total),
    ("tureen_generated_tokens_total", "counter", "Tokens generated.", |s| s.generated_tokens_total),
    ("tureen_sequences_finished_total", "counter", "Sequences that ended.", |s| s.requests_finished_total),
    ("tureen_sequences_cancelled_total", "counter", "Sequences whose caller went away.", |s| {
        s.requests_cancelled_total
    }),
    ("tureen_sequences_timed_out_total", "counter", "Sequences that reached their time limit.", |s| {
        s.requests_timed_out_total
    }),
    ("tureen_preemptions_total", "counter", "Times that a sequence gave up its place for others.", |s| {
        s.preemptions_total
    }),
    ("tureen_recomputed_tokens_total", "counter", "Tokens evaluated again after that.", |s| {
        s.recomputed_tokens_total
    }),
    ("tureen_drafted_tokens_total", "counter", "Tokens guessed ahead.", |s| s.drafted_tokens_total),
    ("tureen_accepted_drafts_total", "counter", "Guessed tokens that were right.", |s| {
        s.accepted_drafts_total
    }),
    (
        "tureen_model_drafted_tokens_total",
        "counter",
        "Of the tokens guessed ahead, the draft model's.",
        |s| s.model_drafted_tokens_total,
    ),
    ("tureen_model_accepted_drafts_total", "counter", "Of the draft model's, those that were right.", |s| {
        s.model_accepted_drafts_total
    }),
    ("tureen_steps_total", "counter", "Forward passes.", |s| s.steps_total),
];

/// One histogram of models: name, what it is, which.
type TimesMetric = (&'static str, &'static str, fn(&Times) -> &Durations);

const TIMES_METRICS: [TimesMetric; 3] = [
    ("tureen_time_to_first_token_seconds", "From a request's arrival to its first token.", |t| {
        &t.first_token
    }),
    ("tureen_inter_token_seconds", "From one token of an answer to the next.", |t| &t.inter_token),
    ("tureen_answer_seconds", "From a request's arrival to the end of its whole answer.", |t| &t.whole),
];

impl Metrics {
    /// All of it, as text.
    pub fn render(&self, services: &[Service]) -> String {
        let (mut engines, mut tensors) = (Vec::new(), Vec::new());
        for service in services {
            match &service.engine {
                Engine::Llm(llm) => engines.push((service.name.as_str(), llm.stats())),
                Engine::Onnx(onnx) => tensors.push((service.name.as_str(), onnx.stats())),
            }
        }
        let mut out = String::new();
        head(&mut out, "tureen_requests_total", "counter", "Requests by how they ended.");
        for (labels, count) in lock(&self.requests).iter() {
            let model = quoted(&labels.model);
            let _ = writeln!(
                out,
                "tureen_requests_total{{endpoint=\"{}\",model={model},outcome=\"{}\",status=\"{}\"}} {count}",
                labels.endpoint, labels.outcome, labels.status
            );
        }
        render_engines(&mut out, &engines, &ENGINE_METRICS);
        let name = "tureen_queue_seconds";
        head(&mut out, name, "histogram", "From a sequence's submission to its place in the batch.");
        for (model, stats) in &engines {
            render_histogram(&mut out, name, &format!("model={}", quoted(model)), &stats.queue_time);
        }
        render_engines(&mut out, &tensors, &TENSOR_METRICS);
        let times = lock(&self.times);
        for (name, help, which) in TIMES_METRICS {
            head(&mut out, name, "histogram", help);
            for (model, times) in times.iter() {
                let labels = format!("model={}", quoted(model));
                render_histogram(&mut out, name, &labels, &which(times).read());
            }
        }
        vllm::render(&mut out, &engines, &times);
        out
    }
}

fn render_engines<S>(out: &mut String, engines: &[(&str, S)], metrics: &[EngineMetric<S>]) {
    for (name, kind, help, read) in metrics {
        head(out, name, kind, help);
        for (model, stats) in engines {
            let _ = writeln!(out, "{name}{{model={}}} {}", quoted(model), read(stats));
        }
    }
}

pub(super) fn head(out: &mut String, name: &str, kind: impl Display, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label's value in quotes, with the three escapes of the format.
pub(super) fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::llm::request::Usage;

    use super::*;
    use crate::metrics::Record;

    #[test]
    fn each_request_is_counted_once_at_its_end() {
        let metrics = Arc::new(Metrics::default());
        let mut answered = Record::begin(&metrics, "chat", None);
        answered.set_model("a\"b");
        let first = answered.token(None);
        answered.token(Some(first));
        answered.answered(Usage { prompt_tokens: 3, ..Usage::default() });
        let cancelled = Record::begin(&metrics, "chat", None);
        assert!(!metrics.render(&[]).contains("tureen_requests_total{"));
        drop((answered, cancelled));
        let text = metrics.render(&[]);
        let check = |line: &str| assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        check("# TYPE tureen_requests_total counter");
        check(r#"tureen_requests_total{endpoint="chat",model="a\"b",outcome="answered",status="200"} 1"#);
        check(r#"tureen_requests_total{endpoint="chat",model="",outcome="cancelled",status="499"} 1"#);
        check(r#"tureen_time_to_first_token_seconds_count{model="a\"b"} 1"#);
        check(r#"tureen_inter_token_seconds_count{model="a\"b"} 1"#);
    }

    #[test]
    fn engines_report_by_model() {
        let mut out = String::new();
        let stats = Stats { running: 3, kv_pages_used: 7, ..Stats::default() };
        render_engines(&mut out, &[("smol", stats), ("big", Stats::default())], &ENGINE_METRICS);
        for line in [
            "# TYPE tureen_requests_running gauge",
            "tureen_requests_running{model=\"smol\"} 3",
            "tureen_requests_running{model=\"big\"} 0",
            "tureen_kv_pages_used{model=\"smol\"} 7",
        ] {
            assert!(out.lines().any(|found| found == line), "{line} is not in\n{out}");
        }
    }
}
