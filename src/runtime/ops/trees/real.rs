//! The two kinds of numbers that trees compare and sum, and the buffers that a thread keeps.

use std::cell::RefCell;
use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::super::wide::LANES;
use super::lower::{Rounding, View};

/// `f32` or `f64`.
pub(crate) trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const LOWEST: Self;
    const ONE: Self;
    fn of(value: f64) -> Self;
    fn of_single(value: f32) -> Self;
    fn single(self) -> f32;
    fn double(self) -> f64;
    fn exp(self) -> Self;
    /// A feature as a comparison wants to read it.
    fn read<X: Feature>(feature: X, view: View) -> Self;
    /// Floats as floats.
    fn floats(values: &[[Self; LANES]]) -> Option<&[[f32; LANES]]>;
    /// Floats as floats.
    fn row(values: &[Self]) -> Option<&[f32]>;
    /// Where the thread keeps buffers of this kind.
    fn buffers(kept: &mut Kept) -> &mut [Vec<Self>; 3];
}

/// A value that a model is fed with.
pub(crate) trait Feature: Copy + Send + Sync {
    fn single(self) -> f32;
    fn double(self) -> f64;
}

macro_rules! feature {
    ($($x:ident),*) => {
        $(impl Feature for $x {
            #[inline]
            fn single(self) -> f32 {
                self as f32
            }

            #[inline]
            fn double(self) -> f64 {
                self as f64
            }
        })*
    };
}

feature!(f32, f64, i32, i64);

macro_rules! real {
    ($real:ident, $buffers:ident, $read:expr, $floats:expr) => {
        impl Real for $real {
            const LOWEST: Self = $real::NEG_INFINITY;
            const ONE: Self = 1.0;

            fn of(value: f64) -> Self {
                value as $real
            }

            #[inline]
            fn of_single(value: f32) -> Self {
                value.into()
            }

            fn single(self) -> f32 {
                self as f32
            }

            fn double(self) -> f64 {
                self.into()
            }

            fn exp(self) -> Self {
                self.exp()
            }

            #[inline]
            fn read<X: Feature>(feature: X, view: View) -> Self {
                let value: $real = $read(feature, view.rounding);
                if view.nan_is_low && value.is_nan() {
                    $real::NEG_INFINITY
                } else {
                    value
                }
            }

            fn floats(values: &[[Self; LANES]]) -> Option<&[[f32; LANES]]> {
                $floats(values)
            }

            fn row(values: &[Self]) -> Option<&[f32]> {
                $floats(values)
            }

            fn buffers(kept: &mut Kept) -> &mut [Vec<Self>; 3] {
                &mut kept.$buffers
            }
        }
    };
}

real!(f32, singles, round, Some);
real!(f64, doubles, |feature: X, _| feature.double(), |_| None);

/// A float for which a comparison comes out as for `feature`.
#[inline]
fn round<X: Feature>(feature: X, rounding: Rounding) -> f32 {
    let nearest = feature.single();
    match rounding {
        Rounding::Up if f64::from(nearest) < feature.double() => nearest.next_up(),
        Rounding::Down if f64::from(nearest) > feature.double() => nearest.next_down(),
        _ => nearest,
    }
}

/// Buffers that outlive a run.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    singles: [Vec<f32>; 3],
    doubles: [Vec<f64>; 3],
}

/// A larger buffer is not kept.
const KEPT_BYTES: usize = 4 << 20;

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Lends `work` a buffer of this thread's, of `len` values that may be anything.
pub(crate) fn with_buffer<R: Real, T>(
    which: Buffer,
    len: usize,
    work: impl FnOnce(&mut [R]) -> T,
) -> T {
    let slot = |kept: &RefCell<Kept>, new: Vec<R>| {
        let mut kept = kept.borrow_mut();
        let [cells, lanes, sums] = R::buffers(&mut kept);
        let slot = match which {
            Buffer::Cells => cells,
            Buffer::Lanes => lanes,
            Buffer::Sums => sums,
        };
        std::mem::replace(slot, new)
    };
    // Taken out meanwhile, so that a panic or a nested run finds an empty one.
    let mut buffer = KEPT.with(|kept| slot(kept, Vec::new()));
    if buffer.len() < len {
        buffer.resize(len, R::default());
    }
    let result = work(buffer.get_mut(..len).unwrap_or_default());
    if size_of_val(buffer.as_slice()) <= KEPT_BYTES {
        KEPT.with(|kept| drop(slot(kept, buffer)));
    }
    result
}

/// The buffers that a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// The rows as the kernel reads them.
    Cells,
    /// The rows side by side, as lists of comparisons read them.
    Lanes,
    /// The sums of the targets.
    Sums,
}
