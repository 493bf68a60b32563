//! Which rows of the batch that is running are real: a plan is made for a fixed number of rows and
//! padded, and an operator that refuses a value must not refuse padding.
//!
//! Operators see tensors only, so this travels beside them, by thread: tract runs a plan on the
//! thread that asks for it.

use std::cell::Cell;

thread_local! {
    /// Rows of the plan, and how many of them, from the front, are real.
    static LIVE: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
    /// Whether values are tried out that nobody asked about.
    static TRIAL: Cell<bool> = const { Cell::new(false) };
}

/// Puts the value back when it is dropped, after a panic too.
struct Restore<T: Copy + 'static>(&'static std::thread::LocalKey<Cell<T>>, T);

impl<T: Copy> Drop for Restore<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// Runs `work`, in which the first `live` rows of a batch of `rows` are real.
pub(super) fn with<T>(rows: usize, live: usize, work: impl FnOnce() -> T) -> T {
    let _restore = Restore(&LIVE, LIVE.replace(Some((rows, live))));
    work()
}

/// Runs `work`, in which made-up rows are tried out: no value is refused.
pub(super) fn on_trial<T>(work: impl FnOnce() -> T) -> T {
    let _restore = Restore(&TRIAL, TRIAL.replace(true));
    work()
}

/// How many of `values`, from the front, belong to real rows; the tensor that holds them has
/// `rows` rows.
pub(super) fn count(rows: usize, values: usize) -> usize {
    match LIVE.get() {
        _ if TRIAL.get() => 0,
        Some((plan_rows, live)) if plan_rows == rows => {
            values.checked_div(rows).unwrap_or_default() * live
        }
        // Something else than the batch lies along this axis: a constant, for instance.
        _ => values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_counted() {
        assert_eq!(count(4, 8), 8);
        with(4, 3, || {
            assert_eq!(count(4, 8), 6);
            assert_eq!(count(5, 10), 10);
            on_trial(|| assert_eq!(count(4, 8), 0));
            with(4, 1, || assert_eq!(count(4, 8), 2));
            assert_eq!(count(4, 8), 6);
        });
        assert_eq!(count(4, 8), 8);
    }
}
