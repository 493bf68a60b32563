//! Numbers that are the same on every run.

/// `SplitMix64`.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// Uniform in 0..1.
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform in −`scale`..`scale`.
    pub fn uniform(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count)
            .map(|_| (self.next() * 2.0 - 1.0) * scale)
            .collect()
    }
}
