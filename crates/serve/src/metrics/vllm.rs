//! What is counted, a second time under vLLM's names (docs.vllm.ai/en/latest/usage/metrics.html), so that its dashboards
//! and what routes by them, such as Kubernetes' inference gateway, work here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use engine::llm::{DurationCounts, Stats};

use super::Times;
use super::histogram::render_histogram;
use super::render::{head, quoted};

/// Name, kind, what it is, how it is read.
type Metric = (&'static str, &'static str, &'static str, fn(&Stats) -> f64);

const METRICS: [Metric; 10] = [
    ("vllm:num_requests_running", "gauge", "Requests in the batch.", |s| s.running as f64),
    ("vllm:num_requests_waiting", "gauge", "Requests that wait.", |s| s.waiting as f64),
    ("vllm:kv_cache_usage_perc", "gauge", "Share of the key/value cache in use, 1 is all.", |s| {
        s.kv_pages_used as f64 / s.kv_pages_total.max(1) as f64
    }),
    ("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up in the cache.", |s| {
        s.prefix_cache_queries_total as f64
    }),
    ("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found there.", |s| {
        s.cached_tokens_total as f64
    }),
    ("vllm:num_preemptions_total", "counter", "Preemptions.", |s| s.preemptions_total as f64),
    // There, what was found in the cache counts too.
    ("vllm:prompt_tokens_total", "counter", "Prompt tokens processed.", |s| {
        (s.prompt_tokens_total + s.cached_tokens_total) as f64
    }),
    ("vllm:generation_tokens_total", "counter", "Tokens generated.", |s| s.generated_tokens_total as f64),
    ("vllm:spec_decode_num_draft_tokens_total", "counter", "Tokens guessed ahead.", |s| {
        s.drafted_tokens_total as f64
    }),
    ("vllm:spec_decode_num_accepted_tokens_total", "counter", "Guessed tokens that were right.", |s| {
        s.accepted_drafts_total as f64
    }),
];

/// Name, what it is, which.
type Histogram = (&'static str, &'static str, fn(&Times) -> DurationCounts);

const HISTOGRAMS: [Histogram; 3] = [
    ("vllm:time_to_first_token_seconds", "Time to first token.", |t| t.first_token.read()),
    ("vllm:inter_token_latency_seconds", "Time between tokens.", |t| t.inter_token.read()),
    ("vllm:e2e_request_latency_seconds", "Time of a whole request.", |t| t.whole.read()),
];

pub(super) fn render(out: &mut String, engines: &[(&str, Stats)], times: &BTreeMap<String, Arc<Times>>) {
    let labels = |model: &str| format!("model_name={},engine=\"0\"", quoted(model));
    for (name, kind, help, read) in METRICS {
        head(out, name, kind, help);
        for (model, stats) in engines {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name}{{{}}} {}", labels(model), read(stats));
        }
    }
    for (name, help, which) in HISTOGRAMS {
        head(out, name, "histogram", help);
        for (model, times) in times {
            render_histogram(out, name, &labels(model), &which(times));
        }
    }
    let name = "vllm:request_queue_time_seconds";
    head(out, name, "histogram", "Time that requests waited.");
    for (model, stats) in engines {
        render_histogram(out, name, &labels(model), &stats.queue_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboards_of_vllm_find_their_names() {
        let stats = Stats {
            running: 3,
            kv_pages_used: 1,
            kv_pages_total: 4,
            preemptions_total: 2,
            ..Stats::default()
        };
        let mut out = String::new();
        render(&mut out, &[("smol", stats)], &BTreeMap::from([("smol".to_owned(), Arc::default())]));
        for line in [
            "# TYPE vllm:num_requests_running gauge",
            "vllm:num_requests_running{model_name=\"smol\",engine=\"0\"} 3",
            "vllm:kv_cache_usage_perc{model_name=\"smol\",engine=\"0\"} 0.25",
            "vllm:num_preemptions_total{model_name=\"smol\",engine=\"0\"} 2",
            "vllm:time_to_first_token_seconds_count{model_name=\"smol\",engine=\"0\"} 0",
            "vllm:request_queue_time_seconds_bucket{model_name=\"smol\",engine=\"0\",le=\"+Inf\"} 0",
        ] {
            assert!(out.lines().any(|found| found == line), "{line} is not in\n{out}");
        }
    }
}
