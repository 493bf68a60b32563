//! Which of many equal complaints is worth a line: what fails every 100 ms until a rebalance or a
//! broker's restart is over is said once. Pure.

/// Complaints of one kind, until all is well again.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: String,
    count: usize,
}

impl Complaints {
    /// Notes one; whether to show it: the first, and one that says something else than the last.
    pub(super) fn note(&mut self, what: &str) -> bool {
        let new = self.count == 0 || self.last != what;
        if new {
            what.clone_into(&mut self.last);
        }
        self.count += 1;
        new
    }

    /// All is well again; how many there were.
    pub(super) fn over(&mut self) -> usize {
        std::mem::take(&mut self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_complaints_are_shown_once_until_all_is_well() {
        let mut complaints = Complaints::default();
        let shown = ["a", "a", "b", "b", "a"].map(|what| complaints.note(what));
        assert_eq!(shown, [true, false, true, false, true]);
        assert_eq!(complaints.over(), 5);
        assert_eq!(complaints.over(), 0);
        assert!(complaints.note("a"), "it is new again");
    }
}
