//! What the process of a job may take, so that the server beside it goes on: cores, memory, turns.

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, nice, setrlimit};

/// Behind whatever answers requests.
const NICENESS: i32 = 10;
/// Where memory runs out, the system ends a job before a server (proc(5)).
#[cfg(target_os = "linux")]
const OUT_OF_MEMORY_SCORE: &str = "500";

/// Limits this process, and the threads that it starts from now on, to so many cores and so many bytes of memory.
///
/// # Errors
/// The system refuses.
pub fn set(threads: usize, memory_bytes_max: Option<u64>) -> anyhow::Result<()> {
    nice(NICENESS).context("giving way to others")?;
    if let Some(bytes) = memory_bytes_max {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // Files that are mapped for reading don't count.
        setrlimit(Resource::Data, limit).with_context(|| format!("limiting memory to {bytes} bytes"))?;
    }
    #[cfg(target_os = "linux")]
    {
        limit_cores(threads)?;
        // Some containers don't allow it, and then the job is worth as much as others.
        if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OUT_OF_MEMORY_SCORE) {
            tracing::debug!("/proc/self/oom_score_adj: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = threads;
    Ok(())
}

/// Takes `threads` of the cores that this process may use, beginning at another for each process, so that jobs beside
/// each other don't share some and leave others idle.
#[cfg(target_os = "linux")]
fn limit_cores(threads: usize) -> anyhow::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let ours = sched_getaffinity(None).context("reading which cores may be used")?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| ours.is_set(*core)).collect();
    if threads >= cores.len() {
        return Ok(());
    }
    let begin = std::process::id() as usize;
    let mut taken = CpuSet::new();
    for at in 0..threads {
        taken.set(cores[(begin + at) % cores.len()]);
    }
    sched_setaffinity(None, &taken).with_context(|| format!("limiting to {threads} cores"))
}
