//! Medians and percentiles.

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Counts of latencies by whole milliseconds: Kafka's timestamps know no less.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

/// Longer ones count as this many milliseconds.
const LONGEST: i64 = 120_000;

impl Latencies {
    pub fn add(&mut self, millis: i64) {
        let millis = millis.clamp(0, LONGEST) as usize;
        if millis >= self.counts.len() {
            self.counts.resize(millis + 1, 0);
        }
        self.counts[millis] += 1;
        self.total += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own += more;
        }
        self.total += other.total;
    }

    pub fn len(&self) -> u64 {
        self.total
    }

    /// The latency that the share `quantile` of all stays below, interpolated within its millisecond
    /// as grouped data are: what is counted as `m` lies between m and m + 1.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let wanted = quantile * self.total as f64;
        let mut below = 0.0;
        for (millis, count) in self.counts.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return millis as f64 + (wanted - below) / count;
            }
            below += count;
        }
        self.counts.len() as f64
    }

    /// Share of the latencies at or above each millisecond, for plots.
    pub fn exceeding(&self) -> Vec<(f64, f64)> {
        let mut left = self.total as f64;
        let mut points = Vec::new();
        for (millis, count) in self.counts.iter().enumerate() {
            if left > 0.0 {
                points.push((millis as f64, left / self.total as f64));
            }
            left -= *count as f64;
        }
        points
    }
}

/// The central 95 % of `values`.
pub fn central(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    let at = |share: f64| {
        let place = share * last;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        sorted[low] + (sorted[high] - sorted[low]) * place.fract()
    };
    if sorted.is_empty() {
        (f64::NAN, f64::NAN)
    } else {
        (at(0.025), at(0.975))
    }
}
