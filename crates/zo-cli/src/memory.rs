//! Memory of this process.

/// The peak so far, in MiB. `None` where the system does not say (it is read from `/proc`, so Linux only).
pub fn peak_rss_mib() -> Option<f64> {
    status("VmHWM:")
}

/// The memory now, in MiB. `None` as above.
pub fn rss_mib() -> Option<f64> {
    status("VmRSS:")
}

/// What a program does first, so that activations on the CPU need not be mapped again at every operation.
pub(crate) fn keep_freed() {
    #[cfg(feature = "flex")]
    zo_flex::keep_freed_memory();
}

fn status(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
