//! Convolutions in which each channel has a kernel of its own: many channels at a time, each summed
//! over the window's rows and columns in order.

#![expect(
    clippy::inline_always,
    reason = "the loop has to be compiled into a function of its level"
)]

use super::images::Window;
use super::panels::Finish;
use super::wide::{LANES, Vector, Wide, wide};

/// The kernels of all channels.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// [`LANES`] channels side by side, for each place of the window; then the next channels. Filled
    /// up with zeros.
    lines: Vec<[f32; LANES]>,
    finish: Finish,
    channels: usize,
}

impl Depthwise {
    /// Of kernels with `taps` values for each channel, which `value` gives.
    pub(super) fn new(
        channels: usize,
        taps: usize,
        finish: Finish,
        value: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let mut lines = Vec::new();
        for first in (0..channels).step_by(LANES) {
            for tap in 0..taps {
                let mut line = [0.0; LANES];
                for (channel, to) in (first..channels).zip(&mut line) {
                    *to = value(channel, tap);
                }
                lines.push(line);
            }
        }
        Self {
            lines,
            finish,
            channels,
        }
    }

    /// All places of an image with its border, channels side by side.
    pub(super) fn apply(&self, image: &[f32], row_step: usize, window: &Window, to: &mut [f32]) {
        let [rows, columns] = window.size;
        let [down, across] = window.dilations;
        let row = |row: usize| {
            let start = row * down * row_step;
            (0..columns).map(move |column| start + column * across * self.channels)
        };
        wide(Apply {
            kernels: self,
            image,
            starts: &(0..rows).flat_map(row).collect::<Vec<_>>(),
            row_step,
            window,
            to,
        });
    }
}

struct Apply<'a> {
    kernels: &'a Depthwise,
    image: &'a [f32],
    /// Where the places of the window lie, from its first one.
    starts: &'a [usize],
    row_step: usize,
    window: &'a Window,
    to: &'a mut [f32],
}

impl Wide for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let channels = self.kernels.channels.max(1);
        let [_, places] = self.window.places;
        let [down, across] = self.window.strides;
        for (place, to) in self.to.chunks_exact_mut(channels).enumerate() {
            let start = place / places * down * self.row_step + place % places * across * channels;
            let lines = self.kernels.lines.chunks_exact(self.starts.len().max(1));
            for (part, (lines, to)) in lines.zip(to.chunks_mut(LANES)).enumerate() {
                let seen = self.image.get(start + part * LANES..).unwrap_or_default();
                let mut sums = V::zero();
                for (line, offset) in lines.iter().zip(self.starts) {
                    let seen = seen.get(*offset..).unwrap_or_default();
                    // Lanes beyond the last channel hold whatever comes next; they are not kept.
                    let values = if let Some(values) = seen.first_chunk::<LANES>() {
                        V::load(values)
                    } else {
                        let mut values = [0.0; LANES];
                        values
                            .iter_mut()
                            .zip(seen)
                            .for_each(|(to, from)| *to = *from);
                        V::load(&values)
                    };
                    sums = sums.add_products(values, V::load(line));
                }
                self.kernels.finish.finish(sums, part).store_into(to);
            }
        }
    }
}
