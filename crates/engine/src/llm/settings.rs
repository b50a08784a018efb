//! How a model is to be run, resolved once, and the memory that this takes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use formats::model::Facts;
use kernels::attention::KvElement;
use kernels::compute::Isa;

/// Immutable settings of one engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Positions a sequence may have; `None` takes what the model was made for.
    pub context_tokens: Option<usize>,
    /// Sequences that run together; more wait.
    pub sequences_max: usize,
    /// Requests that may wait; more are refused.
    pub queue_max: usize,
    /// Threads that compute, the engine's own included.
    pub threads: usize,
    pub isa: Isa,
    /// How keys and values are kept; `None` for what the model's file says, or 16 bits.
    pub kv_element: Option<KvElement>,
    /// Tokens evaluated in one step at most, over all sequences.
    pub step_tokens_max: usize,
    /// What a step is to take, about, that evaluates prompts while others are answering.
    pub step_beside_answers_max: Duration,
    /// Tokens guessed ahead of an answer, at most, and checked in one step; 0 guesses none. Answers are the same.
    pub draft_tokens_max: usize,
    /// A smaller model of the same tokeniser, a `.gguf` file or a Hugging Face folder, that guesses them where that brings
    /// more tokens a second than what was said before does.
    pub draft_model: Option<PathBuf>,
    /// Where weights are kept as they were packed, to be mapped at the next start and shared between processes.
    pub packed: Option<PackedFolder>,
    /// Memory for weights, keys/values and activations together; `None` takes nine tenths of what is free.
    pub memory_max_bytes: Option<u64>,
    /// Of what is free, what others have been promised: see [`MemoryPlan::promised_bytes`].
    pub memory_promised_bytes: u64,
}

impl Settings {
    /// The same, with what the model says where nothing else was.
    pub(super) fn for_model(&self, facts: &Facts) -> Settings {
        Settings { kv_element: self.kv_element.or(facts.kv_element), ..self.clone() }
    }

    /// How keys and values are kept.
    pub(super) fn kv(&self) -> KvElement {
        self.kv_element.unwrap_or(KvElement::I16)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            context_tokens: None,
            sequences_max: 16,
            queue_max: 256,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            isa: Isa::detect(),
            kv_element: None,
            step_tokens_max: 512,
            step_beside_answers_max: Duration::from_millis(60),
            draft_tokens_max: 8,
            draft_model: None,
            packed: None,
            memory_max_bytes: None,
            memory_promised_bytes: 0,
        }
    }
}

/// Where packed weights are kept, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFolder {
    pub path: PathBuf,
    /// Beyond it, files that were not used for longest are deleted.
    pub bytes_max: u64,
}

/// Where the memory of a loaded model goes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights as packed for this instruction set.
    pub weights_bytes: u64,
    /// Of these, what is mapped from a file.
    pub mapped_bytes: u64,
    /// The cache of keys and values, all pages.
    pub kv_bytes: u64,
    /// Buffers of a step.
    pub activations_bytes: u64,
}

impl MemoryPlan {
    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.kv_bytes + self.activations_bytes
    }

    /// What is in use, or will be, though the system calls it free: what is mapped from a file, which it takes for a cache,
    /// and what was not touched yet.
    pub fn promised_bytes(&self) -> u64 {
        self.mapped_bytes + self.kv_bytes + self.activations_bytes
    }
}

/// A number of bytes as people read it: `1.4 GiB`.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", units[unit])
    }
}

/// Bytes of memory that a new allocation could have, as the kernel says, within the container's limit;
/// `None` where the machine doesn't say.
pub fn free_memory_bytes() -> Option<u64> {
    let kibibytes = |text: &str, key: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| kibibytes(&text, "MemAvailable:")).map(|kib| kib * 1024);
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max");
    // Cached files count as used there, and go when memory is wanted.
    let cached = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").map_or(0, |text| cached_files(&text));
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0).saturating_sub(cached);
    match (machine, limit) {
        (Some(machine), Some(limit)) => Some(machine.min(limit.saturating_sub(used))),
        (machine, limit) => machine.or(limit),
    }
}

/// Bytes of cached files in a control group's `memory.stat`.
fn cached_files(stat: &str) -> u64 {
    let value = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        matches!(key, "inactive_file" | "active_file").then(|| value.trim().parse::<u64>().ok())?
    };
    stat.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_files_of_a_container_can_be_had() {
        assert_eq!(cached_files("anon 5\nfile 90\ninactive_file 30\nactive_file 12\ninactive_anon 7\n"), 42);
        assert_eq!(cached_files(""), 0);
    }

    #[test]
    fn what_is_mapped_is_promised_like_what_was_not_touched() {
        let memory = MemoryPlan { weights_bytes: 100, mapped_bytes: 0, kv_bytes: 20, activations_bytes: 3 };
        assert_eq!([memory.total_bytes(), memory.promised_bytes()], [123, 23]);
        let mapped = MemoryPlan { mapped_bytes: 90, ..memory };
        assert_eq!([mapped.total_bytes(), mapped.promised_bytes()], [123, 113]);
    }

    #[test]
    fn bytes_read_as_people_say_them() {
        let check = |bytes: u64, expected: &str| assert_eq!(Bytes(bytes).to_string(), expected);
        check(17, "17 bytes");
        check(1024, "1.0 KiB");
        check(1536 * 1024, "1.5 MiB");
        check(u64::MAX, "16777216.0 TiB");
    }
}
