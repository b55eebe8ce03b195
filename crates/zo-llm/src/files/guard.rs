//! Dependencies that panic on bad input, made to return an error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread will be caught here, so that no one else should report it.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `run` returns, or the message of its panic. Nothing is printed. What `run` changes must not be used after a panic, unless a
/// half-finished change is harmless.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Installed once; it passes all other panics on to the previous hook.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    CAUGHT.set(outer);
    result.map_err(|panic| format!("its reader panicked ({})", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(guarded(|| 7), Ok(7));
        let error = guarded(|| -> u32 { panic!("no {}", "vocabulary") }).unwrap_err();
        assert!(error.contains("(no vocabulary)"), "{error}");
        let nested = guarded(|| guarded(|| panic!("inner")).unwrap_err().len());
        assert!(nested.unwrap() > 5);
        // Panics from elsewhere still unwind.
        assert!(std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(1))).is_err());
    }
}
