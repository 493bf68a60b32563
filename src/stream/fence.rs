//! The revision fence: a commit says which revision scored up to it, so that no instance goes on
//! with an older one. Pure.

/// Metadata of a commit whose newest record was scored by `revision`.
pub(super) fn metadata(revision: i64) -> String {
    format!("r={revision}")
}

/// The revision in a commit's metadata; `None` where another program has committed.
pub(super) fn revision(metadata: &str) -> Option<i64> {
    metadata
        .split(';')
        .find_map(|part| part.trim().strip_prefix("r=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_other_texts_say_nothing() {
        assert_eq!(revision(&metadata(42)), Some(42));
        assert_eq!(revision("r=7; later=1"), Some(7));
        for other in ["", "x", "r=", "r=seven", "NONE"] {
            assert_eq!(revision(other), None, "{other:?}");
        }
    }
}
