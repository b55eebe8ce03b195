//! What the C library does with freed memory.

/// Asks glibc to keep what is freed for the next operation, and says whether it will.
///
/// burn-flex allocates each result anew. By default glibc gives free memory at the end of its heap back to the system as soon as there is much of it, so that
/// activations are cleared and mapped again, page by page, at every operation, which long rows feel most. With this
/// up to 512 MiB stay mapped, which other processes cannot use meanwhile; the peak does not grow. Blocks of 32 MiB and more, weights as a rule, still
/// go back at once.
///
/// It is for programs, at the beginning of `main`: it holds for the whole process. Nothing happens, and `false` is returned, with another C library, and where
/// the environment sets up glibc's allocator (`GLIBC_TUNABLES`, `MALLOC_TRIM_THRESHOLD_` or `MALLOC_MMAP_THRESHOLD_`). Another
/// global allocator does not notice.
pub fn keep_freed_memory() -> bool {
    let names = [
        "GLIBC_TUNABLES",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_MMAP_THRESHOLD_",
    ];
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !names.into_iter().any(is_set) && set()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set() -> bool {
    const MIB: libc::c_int = 1 << 20;
    // Setting either ends glibc's own adjustment of both, so the first must be what it would have become.
    // SAFETY: mallopt takes two numbers by value, and locks the allocator while it sets them.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * MIB) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, 512 * MIB) == 1
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set() -> bool {
    false
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::keep_freed_memory;

    /// Minor page faults of this thread so far.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("read");
        // After the name, in parentheses, which may hold anything.
        let fields = stat.rsplit(')').next().map(str::split_whitespace);
        let faults = fields.and_then(|mut fields| fields.nth(7));
        faults.expect("ten fields").parse().expect("a number")
    }

    /// Four blocks that together are more than glibc keeps by default.
    fn operations() {
        let blocks: Vec<Vec<u8>> = (0..4).map(|_| vec![1; 12 << 20]).collect();
        std::hint::black_box(blocks);
    }

    #[test]
    fn freed_memory_is_used_again_without_page_faults() {
        // The environment may have set up something else.
        if !keep_freed_memory() {
            return;
        }
        operations();
        let before = faults();
        for _ in 0..5 {
            operations();
        }
        let faults = faults() - before;
        assert!(faults < 1000, "{faults} page faults");
    }
}
