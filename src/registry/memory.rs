//! What all loaded models hold together, kept within `limits.model_memory`. A load takes a lease of
//! what the probe has measured before it compiles, and keeps what the model holds for as long as
//! anybody has it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Signature;
use crate::runtime::{CompiledInfo, CompiledModel, RunError, Runner};

/// How often a load that waits for memory asks whether it is wanted still.
const ASK: Duration = Duration::from_millis(50);

/// Told how many bytes are leased; must not block.
pub type MemoryObserver = Arc<dyn Fn(u64) + Send + Sync>;

/// The models' memory.
pub struct ModelMemory {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
    observer: MemoryObserver,
}

impl fmt::Debug for ModelMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelMemory")
            .field("limit", &self.limit)
            .field("used", &*self.lock())
            .finish_non_exhaustive()
    }
}

/// Why there is no memory for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMemory {
    /// The others hold so many bytes.
    Used(u64),
    /// It is no longer wanted.
    Unwanted,
}

impl ModelMemory {
    /// At most `limit` bytes.
    pub fn new(limit: u64, observer: MemoryObserver) -> Arc<Self> {
        observer(0);
        Arc::new(Self {
            limit,
            used: Mutex::new(0),
            freed: Condvar::new(),
            observer,
        })
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are leased now.
    pub fn used(&self) -> u64 {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes`. What was retired is freed once its last batch is done, so a load waits for
    /// that as long as `patience`.
    pub fn lease(
        self: &Arc<Self>,
        bytes: u64,
        patience: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Lease, NoMemory> {
        let deadline = Instant::now() + patience;
        let mut used = self.lock();
        while used.saturating_add(bytes) > self.limit {
            if !wanted() {
                return Err(NoMemory::Unwanted);
            }
            if bytes > self.limit || Instant::now() >= deadline {
                return Err(NoMemory::Used(*used));
            }
            let woken = self.freed.wait_timeout(used, ASK);
            used = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += bytes;
        (self.observer)(*used);
        drop(used);
        Ok(Lease {
            memory: Arc::clone(self),
            bytes,
        })
    }

    fn give_back(&self, bytes: u64) {
        let mut used = self.lock();
        *used = used.saturating_sub(bytes);
        (self.observer)(*used);
        drop(used);
        self.freed.notify_all();
    }
}

/// Memory that a model takes; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    memory: Arc<ModelMemory>,
    bytes: u64,
}

impl Lease {
    /// Gives back what is over `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.memory.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

/// A model that gives its memory back with its last owner.
#[derive(Debug)]
pub(super) struct Leased {
    model: Arc<dyn CompiledModel>,
    _lease: Lease,
}

impl Leased {
    pub(super) fn hold(model: Arc<dyn CompiledModel>, lease: Lease) -> Arc<dyn CompiledModel> {
        Arc::new(Self {
            model,
            _lease: lease,
        })
    }
}

impl CompiledModel for Leased {
    fn signature(&self) -> &Signature {
        self.model.signature()
    }

    fn info(&self) -> &CompiledInfo {
        self.model.info()
    }

    fn runner(&self) -> Result<Box<dyn Runner>, RunError> {
        self.model.runner()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory(limit: u64) -> Arc<ModelMemory> {
        ModelMemory::new(limit, Arc::new(|_| {}))
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn what_does_not_fit_waits_for_what_is_freed_and_is_refused_at_last() {
        let memory = memory(100);
        let mut first = memory.lease(80, NOW, &|| true).unwrap();
        assert_eq!(
            memory.lease(30, NOW, &|| true).unwrap_err(),
            NoMemory::Used(80)
        );
        let long = Duration::from_mins(1);
        assert_eq!(
            memory.lease(101, long, &|| true).unwrap_err(),
            NoMemory::Used(80)
        );
        assert_eq!(
            memory.lease(30, long, &|| false).unwrap_err(),
            NoMemory::Unwanted
        );
        first.shrink(70);
        first.shrink(90);
        let second = memory.lease(30, NOW, &|| true).unwrap();
        assert_eq!(memory.used(), 100);
        let waits = std::thread::scope(|scope| {
            let waits = scope.spawn(|| memory.lease(70, long, &|| true).is_ok());
            drop(first);
            waits.join().unwrap()
        });
        assert!(waits);
        drop(second);
        assert_eq!(memory.used(), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_and_nothing_is_lost(
            steps in prop::collection::vec((0..60_u64, 0..60_u64, any::<bool>()), 0..40),
        ) {
            let memory = memory(100);
            let mut leases: Vec<Lease> = Vec::new();
            for (bytes, less, drops) in steps {
                if let Ok(mut lease) = memory.lease(bytes, NOW, &|| true) {
                    lease.shrink(less);
                    leases.push(lease);
                }
                if drops && !leases.is_empty() {
                    leases.swap_remove(0);
                }
                prop_assert!(memory.used() <= 100);
                prop_assert_eq!(memory.used(), leases.iter().map(|l| l.bytes).sum::<u64>());
            }
        }
    }
}
