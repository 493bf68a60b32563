//! Sums and exponentials whose bits depend on nothing but their arguments: no fused operations, no
//! library that differs from machine to machine, no order that follows memory alignment. Written
//! so that the compiler can vectorise them.

/// Σ xᵢ·wᵢ over the shorter of both: eight running sums, added up as a fixed tree.
pub(in crate::runtime) fn dot(x: &[f32], w: &[f32]) -> f32 {
    sum_of(x, w, |x, w| x * w)
}

/// Σ (xᵢ−wᵢ)², in the order of [`dot`].
pub(in crate::runtime) fn squared_distance(x: &[f32], w: &[f32]) -> f32 {
    sum_of(x, w, |x, w| (x - w) * (x - w))
}

/// Σ f(xᵢ), in the order of [`dot`].
pub(in crate::runtime) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum_of(x, x, |x, _| f(x))
}

#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "the closure must be inlined for the loop to be vectorised"
)]
fn sum_of(x: &[f32], w: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut low = [0.0; 4];
    let mut high = [0.0; 4];
    let (x_eights, x_rest) = x.as_chunks::<8>();
    let (w_eights, w_rest) = w.as_chunks::<8>();
    for ([x0, x1, x2, x3, x4, x5, x6, x7], [w0, w1, w2, w3, w4, w5, w6, w7]) in
        x_eights.iter().zip(w_eights)
    {
        add(
            &mut low,
            [f(*x0, *w0), f(*x1, *w1), f(*x2, *w2), f(*x3, *w3)],
        );
        add(
            &mut high,
            [f(*x4, *w4), f(*x5, *w5), f(*x6, *w6), f(*x7, *w7)],
        );
    }
    let length = x_rest.len().min(w_rest.len());
    let (x_rest, w_rest) = (x_rest.get(..length), w_rest.get(..length));
    let (x_four, x_rest) = x_rest.unwrap_or_default().as_chunks::<4>();
    let (w_four, w_rest) = w_rest.unwrap_or_default().as_chunks::<4>();
    // A sum that began with +0 is never −0, so that adding 0 changes nothing.
    let rest = match (x_rest, w_rest) {
        ([x0], [w0]) => [f(*x0, *w0), 0.0, 0.0, 0.0],
        ([x0, x1], [w0, w1]) => [f(*x0, *w0), f(*x1, *w1), 0.0, 0.0],
        ([x0, x1, x2], [w0, w1, w2]) => [f(*x0, *w0), f(*x1, *w1), f(*x2, *w2), 0.0],
        _ => [0.0; 4],
    };
    match (x_four, w_four) {
        ([[x0, x1, x2, x3]], [[w0, w1, w2, w3]]) => {
            add(
                &mut low,
                [f(*x0, *w0), f(*x1, *w1), f(*x2, *w2), f(*x3, *w3)],
            );
            add(&mut high, rest);
        }
        _ => add(&mut low, rest),
    }
    add(&mut low, high);
    let [s0, s1, s2, s3] = low;
    (s0 + s2) + (s1 + s3)
}

#[inline]
fn add(sums: &mut [f32; 4], values: [f32; 4]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

/// eˣ, at most 2 units in the last place off; a polynomial on [−ln 2 / 2, ln 2 / 2] (the minimax
/// coefficients of the Cephes library's `expf`), then a scaling by a power of two.
#[inline]
pub(in crate::runtime) fn exp(x: f32) -> f32 {
    /// Adding it to a small number rounds that to an integer, which then lies in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Beyond these bounds the result is 0 or infinite anyway; NaN passes through.
    let x = x.clamp(-104.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let whole = shifted - ROUND;
    let r = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    // In two steps, since one factor could not reach the smallest and the largest numbers.
    let half = exponent >> 1;
    y * power_of_two(half) * power_of_two(exponent - half)
}

/// 2ⁿ for −126 ≤ n ≤ 127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// 1 / (1 + e⁻ˣ), without an overflow on the way.
#[inline]
pub(in crate::runtime) fn logistic(x: f32) -> f32 {
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// [`logistic`] of −x and of x, to the bit, for the price of one.
#[inline]
pub(in crate::runtime) fn logistic_pair(x: f32) -> [f32; 2] {
    let e = exp(-x.abs());
    let (less, more) = (e / (1.0 + e), 1.0 / (1.0 + e));
    if x < 0.0 { [more, less] } else { [less, more] }
}

/// The quantile of the normal distribution, √2·erf⁻¹(2x−1), by the approximation that ONNX Runtime
/// uses (S. Winitzki, "A handy approximation for the error function and its inverse", a = 0.147):
/// `onnxruntime/core/providers/cpu/ml/ml_common.h`.
pub(in crate::runtime) fn probit(x: f32) -> f32 {
    const A: f32 = 0.147;
    let y = 2.0 * x - 1.0;
    let sign = if y < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - y) * (1.0 + y)).ln();
    let v = std::f32::consts::FRAC_2_PI / A + 0.5 * log;
    let inner = -v + (v * v - log / A).sqrt();
    std::f32::consts::SQRT_2 * sign * inner.sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exponentials_are_right_at_the_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(88.7).is_finite());
        assert!(exp(-103.0) > 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(logistic(0.0), 0.5);
        assert_eq!(logistic(f32::INFINITY), 1.0);
        assert_eq!(logistic(f32::NEG_INFINITY), 0.0);
        assert!(logistic(f32::NAN).is_nan());
    }

    #[test]
    fn probits_are_those_of_onnx_runtime() {
        // Computed with ONNX Runtime 1.32.
        for (x, expected) in [
            (0.41, -0.227_549_55),
            (0.8, 0.841_756_1),
            (0.3, -0.524_445_9),
        ] {
            let got = probit(x);
            assert!((got - expected).abs() < 1e-6, "{x}: {got}");
        }
        assert_eq!(probit(0.0), f32::NEG_INFINITY);
        assert!(probit(1.5).is_nan());
    }

    proptest! {
        #[test]
        fn exp_is_close_to_the_exact_value(x in -87.0_f32..88.5) {
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - exact).abs() / exact;
            prop_assert!(relative < 2.5e-7, "{x}: {relative}");
        }

        #[test]
        fn tiny_exponentials_are_close(x in -104.0_f32..-87.0) {
            let exact = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) - exact).abs() < 3e-45 + exact * 2.5e-7);
        }

        #[test]
        fn both_logistics_are_those_of_each(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            let both = logistic_pair(x).map(f32::to_bits);
            if x.is_nan() {
                prop_assert!(logistic_pair(x).iter().all(|p| p.is_nan()));
            } else if x != 0.0 {
                prop_assert_eq!(both, [logistic(-x).to_bits(), logistic(x).to_bits()]);
            } else {
                prop_assert_eq!(both, [0.5_f32.to_bits(); 2]);
            }
        }

        #[test]
        fn logistic_is_close_to_the_exact_value(x in -80.0_f32..80.0) {
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let relative = (f64::from(logistic(x)) - exact).abs() / exact;
            prop_assert!(relative < 4e-7, "{x}: {relative}");
        }

        /// The plain definition of the order: the products of one remainder of 8 from left to
        /// right, then the tree.
        #[test]
        fn sums_are_taken_in_the_fixed_order(
            pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 0..70),
        ) {
            let (x, w): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let lane = |lane: usize| {
                let own = pairs.iter().skip(lane).step_by(8);
                own.fold(0.0_f32, |sum, (x, w)| sum + x * w)
            };
            let low = (lane(0) + lane(4)) + (lane(2) + lane(6));
            let high = (lane(1) + lane(5)) + (lane(3) + lane(7));
            let (got, expected) = (dot(&x, &w), low + high);
            prop_assert!(
                got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan())
            );
        }
    }
}
