//! Matrices that the plans of a model share: each plan packs them anew, and one copy is kept.

use std::cell::RefCell;
use std::sync::Arc;

use super::panels::Panels;

/// The matrices that were packed while a model is compiled.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Packed(RefCell<Vec<Arc<Panels>>>);

impl Packed {
    /// `panels`, or the same ones of an earlier plan.
    pub(super) fn shared(&self, panels: Panels) -> Arc<Panels> {
        let mut kept = self.0.borrow_mut();
        if let Some(same) = kept.iter().find(|kept| ***kept == panels) {
            return Arc::clone(same);
        }
        let panels = Arc::new(panels);
        kept.push(Arc::clone(&panels));
        panels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_matrices_are_kept_once() {
        let packed = Packed::default();
        let panels = |seed: f32| Panels::new(3, 5, |row, column| seed + (row * column) as f32);
        let first = packed.shared(panels(1.0));
        assert!(Arc::ptr_eq(&first, &packed.shared(panels(1.0))));
        assert!(!Arc::ptr_eq(&first, &packed.shared(panels(2.0))));
    }
}
