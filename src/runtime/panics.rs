//! Catches the panics of a model's code, and keeps them off stderr: they come back as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::one_line;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it becomes its message. Nothing that `work` had borrowed mutably may be
/// used after a panic without being rebuilt.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    silence_caught_panics();
    let outer = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    result.map_err(|payload| message(&*payload))
}

/// The process-wide hook prints as before, except on a thread that is inside [`catch`].
fn silence_caught_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        one_line(text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        one_line(text)
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_message_and_nesting_keeps_quiet() {
        assert_eq!(catch(|| 7), Ok(7));
        assert_eq!(catch(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        let caught = catch(|| {
            let inner = catch(|| panic!("inner\n {}", 1));
            assert_eq!(inner, Err::<(), _>("inner 1".to_owned()));
            assert!(QUIET.get());
            panic::panic_any(7)
        });
        assert_eq!(caught, Err::<(), _>("a panic without a message".to_owned()));
        assert!(!QUIET.get());
    }
}
