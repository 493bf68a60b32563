//! Convolutions: what a window sees is laid out as a row, and the rows are multiplied with the kernels
//! like those of a dense layer. Each value is so summed in the order of [`Panels`], over the window's
//! rows, columns and channels, whatever else is in the batch.

use std::sync::Arc;

use tract_onnx::prelude::{Datum, TDim, TValue, TVec, TractResult, tvec};
use tract_onnx::tract_hir::internal::bail;

use super::depthwise::Depthwise;
use super::images::{Bordered, Images, Window};
use super::kernel::{Fact, Kernel};
use super::panels::{Finish, Panels};
use super::tensors::{filled, input, values};

/// Rows that are laid out at a time hold about so many values: they and the kernels stay in the
/// second cache.
const ROOM: usize = 1 << 16;

/// The kernels of a convolution.
#[derive(Debug)]
pub(super) enum Kernels {
    /// For each group of channels a matrix, and what is done with its columns' sums.
    Groups(Vec<(Arc<Panels>, Finish)>),
    /// One kernel for each channel.
    Depthwise(Depthwise),
}

/// A convolution with known kernels.
#[derive(Debug)]
pub(super) struct Convolution {
    pub(super) from: Images,
    pub(super) window: Window,
    pub(super) kernels: Kernels,
    pub(super) to: Images,
    /// The result's, and how many axes of it are spatial.
    pub(super) shape: Vec<usize>,
    pub(super) spatial_axes: usize,
}

/// How the places of a window are laid out as rows.
struct Layout {
    /// Neighbouring values that are copied at once.
    run: usize,
    /// Where each run lies, from the first value of the window.
    starts: Vec<usize>,
    /// From place to place, down and across.
    steps: [usize; 2],
}

impl Convolution {
    /// Lets the channels of a pixel lie side by side in the result.
    pub(super) fn put_channels_last(&mut self) {
        self.to.channels_last = true;
        let batch = usize::from(self.shape.len() > self.spatial_axes + 1);
        if let Some(axes) = self.shape.get_mut(batch..) {
            axes.rotate_left(1);
        }
    }

    fn layout(&self, row_step: usize, groups: usize) -> Layout {
        let channels = self.from.channels;
        let [rows, columns] = self.window.size;
        let [down, across] = self.window.dilations;
        let of_group = channels / groups.max(1);
        let joined = groups == 1 && across == 1;
        let (run, parts) = if joined {
            (of_group * columns, 1)
        } else {
            (of_group, columns)
        };
        let row = |row: usize| {
            let start = row * down * row_step;
            (0..parts).map(move |part| start + part * across * channels)
        };
        let [step_down, step_across] = self.window.strides;
        Layout {
            run,
            starts: (0..rows).flat_map(row).collect(),
            steps: [step_down * row_step, step_across * channels],
        }
    }

    /// All places of one image with its border, channels side by side.
    fn multiply(
        &self,
        image: &[f32],
        row_step: usize,
        groups: &[(Arc<Panels>, Finish)],
        scratch: &mut Scratch,
        to: &mut [f32],
    ) {
        let layout = self.layout(row_step, groups.len());
        let depth = layout.run * layout.starts.len();
        let channels = self.to.channels;
        let (of_group, from_group) = (
            channels / groups.len().max(1),
            self.from.channels / groups.len().max(1),
        );
        let block = (ROOM / depth.max(1)).clamp(16, 64) / 8 * 8;
        for (index, to) in to.chunks_mut((block * channels).max(1)).enumerate() {
            let places = index * block..index * block + to.len() / channels.max(1);
            for (group, (panels, finish)) in groups.iter().enumerate() {
                let first = group * from_group;
                self.lay_out(image, &layout, places.clone(), first, &mut scratch.rows);
                if groups.len() == 1 {
                    panels.multiply(&scratch.rows, finish, to);
                    continue;
                }
                scratch.block.resize(places.len() * of_group, 0.0);
                panels.multiply(&scratch.rows, finish, &mut scratch.block);
                let rows = scratch.block.chunks_exact(of_group.max(1));
                for (to, from) in to.chunks_exact_mut(channels.max(1)).zip(rows) {
                    if let Some(to) = to.get_mut(group * of_group..(group + 1) * of_group) {
                        to.copy_from_slice(from);
                    }
                }
            }
        }
    }

    /// What the window sees at `places`, from channel `first` on, one row for each.
    fn lay_out(
        &self,
        image: &[f32],
        layout: &Layout,
        places: std::ops::Range<usize>,
        first: usize,
        rows: &mut Vec<f32>,
    ) {
        let depth = layout.run * layout.starts.len();
        // Every value is written below.
        rows.resize(places.len() * depth, 0.0);
        let [_, across] = self.window.places;
        let [step_down, step_across] = layout.steps;
        for (place, to) in places.zip(rows.chunks_exact_mut(depth.max(1))) {
            let start = place / across * step_down + place % across * step_across + first;
            let seen = image.get(start..).unwrap_or_default();
            match layout.run {
                1 => copy::<1>(seen, &layout.starts, to),
                2 => copy::<2>(seen, &layout.starts, to),
                3 => copy::<3>(seen, &layout.starts, to),
                4 => copy::<4>(seen, &layout.starts, to),
                5 => copy::<5>(seen, &layout.starts, to),
                6 => copy::<6>(seen, &layout.starts, to),
                7 => copy::<7>(seen, &layout.starts, to),
                8 => copy::<8>(seen, &layout.starts, to),
                9 => copy::<9>(seen, &layout.starts, to),
                12 => copy::<12>(seen, &layout.starts, to),
                16 => copy::<16>(seen, &layout.starts, to),
                24 => copy::<24>(seen, &layout.starts, to),
                32 => copy::<32>(seen, &layout.starts, to),
                48 => copy::<48>(seen, &layout.starts, to),
                run => {
                    for (to, start) in to.chunks_exact_mut(run.max(1)).zip(&layout.starts) {
                        if let Some(from) = seen.get(*start..start + run) {
                            to.copy_from_slice(from);
                        }
                    }
                }
            }
        }
    }
}

/// Runs of a length that the compiler knows.
fn copy<const RUN: usize>(seen: &[f32], starts: &[usize], to: &mut [f32]) {
    let (runs, _) = to.as_chunks_mut::<RUN>();
    for (to, start) in runs.iter_mut().zip(starts) {
        if let Some(from) = seen
            .get(*start..)
            .and_then(|seen| seen.first_chunk::<RUN>())
        {
            *to = *from;
        }
    }
}

/// Memory that is used again for each image.
#[derive(Default)]
struct Scratch {
    rows: Vec<f32>,
    block: Vec<f32>,
    result: Vec<f32>,
}

impl Kernel for Convolution {
    fn name(&self) -> &'static str {
        "Convolution"
    }

    fn multiplications(&self) -> usize {
        let groups = match &self.kernels {
            Kernels::Groups(groups) => groups.len(),
            Kernels::Depthwise(_) => self.from.channels,
        };
        let [rows, columns] = self.window.size;
        let depth = rows * columns * self.from.channels / groups.max(1);
        self.to.count * self.to.values() * depth
    }

    fn facts(&self, _: &[Fact]) -> TractResult<TVec<Fact>> {
        let shape = self.shape.iter().map(|length| TDim::from(*length));
        Ok(tvec!(Fact::new(f32::datum_type(), shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let images = values::<f32>(input(inputs, 0)?)?;
        if images.len() != self.from.count * self.from.values() {
            bail!("the images have another shape than the one that was announced");
        }
        let result = filled(&self.shape, |to| {
            let mut bordered = Bordered::new(&self.from, &self.window);
            let row_step = bordered.row_step();
            let mut scratch = Scratch::default();
            let ours = self.to.channels_last || self.to.channels == 1 || self.to.pixels() == 1;
            let each = images.chunks_exact(self.from.values().max(1));
            for (image, to) in each.zip(to.chunks_exact_mut(self.to.values().max(1))) {
                let image = bordered.of(image);
                let mut result = std::mem::take(&mut scratch.result);
                result.resize(if ours { 0 } else { to.len() }, 0.0);
                let values = if ours { &mut *to } else { &mut *result };
                match &self.kernels {
                    Kernels::Groups(groups) => {
                        self.multiply(image, row_step, groups, &mut scratch, values);
                    }
                    Kernels::Depthwise(kernels) => {
                        kernels.apply(image, row_step, &self.window, values);
                    }
                }
                if !ours {
                    transpose(&result, self.to.channels, to);
                }
                scratch.result = result;
            }
            Ok(())
        })?;
        Ok(tvec!(result))
    }
}

/// From the channels of each pixel to the pixels of each channel.
fn transpose(from: &[f32], channels: usize, to: &mut [f32]) {
    let channels = channels.max(1);
    let pixels = from.len() / channels;
    for (channel, to) in to.chunks_exact_mut(pixels.max(1)).enumerate() {
        let from = from.iter().skip(channel).step_by(channels);
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::ops::tensors::tensor_of;
    use crate::runtime::ops::wide::fused;

    fn value(place: usize, seed: usize) -> f32 {
        ((place as f32 + 1.0) * (seed as f32 + 0.37)).sin()
    }

    fn add(a: f32, b: f32, sum: f32) -> f32 {
        if fused() {
            a.mul_add(b, sum)
        } else {
            sum + a * b
        }
    }

    #[derive(Debug, Clone)]
    struct Case {
        from: Images,
        window: Window,
        groups: usize,
        /// Kernels of a group.
        width: usize,
        seed: usize,
    }

    fn cases() -> impl Strategy<Value = Case> {
        let pair = |most: usize| [1..=most, 1..=most];
        let window = (pair(3), pair(2), pair(2), [0..3_usize, 0..3_usize], pair(6));
        let images = (
            1..4_usize,
            prop::sample::select(vec![1_usize, 2, 3, 17]),
            pair(9),
        );
        let kernels = (
            prop::sample::select(vec![1_usize, 4, 17]),
            1..3_usize,
            any::<bool>(),
        );
        (window, images, kernels, any::<u8>(), any::<bool>()).prop_map(
            |(window, images, (width, groups, each), seed, channels_last)| {
                let (size, strides, dilations, before, places) = window;
                let (count, of_group, [height, width_of_image]) = images;
                let groups = if each { 18 } else { groups };
                let (of_group, width) = if each { (1, 1) } else { (of_group, width) };
                Case {
                    from: Images {
                        count,
                        channels: groups * of_group,
                        height,
                        width: width_of_image,
                        channels_last,
                    },
                    window: Window {
                        size,
                        strides,
                        dilations,
                        before,
                        places,
                    },
                    groups,
                    width,
                    seed: usize::from(seed),
                }
            },
        )
    }

    impl Case {
        /// Of a kernel, a channel of its group, and a place in the window.
        fn weight(&self, kernel: usize, channel: usize, tap: usize) -> f32 {
            value(kernel * 97 + channel * 13 + tap, self.seed)
        }

        fn convolution(&self, channels_last: bool) -> Convolution {
            let [rows, columns] = self.window.size;
            let of_group = self.from.channels / self.groups;
            let channels = self.groups * self.width;
            let bias: Vec<f32> = (0..channels).map(|i| value(i, 3)).collect();
            let finish = |range: std::ops::Range<usize>| {
                let mut finish = Finish::adding(&bias[range]);
                finish.relu = true;
                finish.most = Some(1.5);
                finish
            };
            let kernels = if of_group == 1 && self.width == 1 && self.groups > 1 {
                let value = |channel, tap| self.weight(channel, 0, tap);
                let taps = rows * columns;
                Kernels::Depthwise(Depthwise::new(channels, taps, finish(0..channels), value))
            } else {
                let group = |group: usize| {
                    let first = group * self.width;
                    let value = |place: usize, kernel: usize| {
                        self.weight(first + kernel, place % of_group, place / of_group)
                    };
                    let panels = Panels::new(of_group * rows * columns, self.width, value);
                    (Arc::new(panels), finish(first..first + self.width))
                };
                Kernels::Groups((0..self.groups).map(group).collect())
            };
            let [height, width] = self.window.places;
            let to = Images {
                channels,
                height,
                width,
                channels_last: false,
                ..self.from
            };
            let mut convolution = Convolution {
                from: self.from,
                window: self.window,
                kernels,
                to,
                shape: vec![to.count, channels, height, width],
                spatial_axes: 2,
            };
            if channels_last {
                convolution.put_channels_last();
            }
            convolution
        }

        /// One value after the other, in the order that is promised.
        fn naive(&self, images: &[f32], image: usize, kernel: usize, place: usize) -> f32 {
            let Images {
                channels,
                height,
                width,
                channels_last,
                ..
            } = self.from;
            let Window {
                size: [rows, columns],
                strides,
                dilations,
                before,
                places,
            } = self.window;
            let of_group = channels / self.groups;
            let mut sum = 0.0;
            for tap in 0..rows * columns {
                for channel in 0..of_group {
                    let at = |axis: usize, place: usize, tap: usize| {
                        (place * strides[axis] + tap * dilations[axis]).checked_sub(before[axis])
                    };
                    let row = at(0, place / places[1], tap / columns).filter(|row| *row < height);
                    let column = at(1, place % places[1], tap % columns).filter(|c| *c < width);
                    let seen = row.zip(column).map_or(0.0, |(row, column)| {
                        let channel = kernel / self.width * of_group + channel;
                        let pixel = row * width + column;
                        let inside = if channels_last {
                            pixel * channels + channel
                        } else {
                            channel * height * width + pixel
                        };
                        images[image * channels * height * width + inside]
                    });
                    sum = add(seen, self.weight(kernel, channel, tap), sum);
                }
            }
            let sum = sum + value(kernel, 3);
            sum.clamp(0.0, 1.5)
        }
    }

    proptest! {
        #[test]
        fn it_is_the_plain_loop(case in cases(), channels_last in any::<bool>()) {
            let convolution = case.convolution(channels_last);
            let len = case.from.count * case.from.values();
            let images: Vec<f32> = (0..len).map(|i| value(i, case.seed + 5)).collect();
            let x = tensor_of(&[len], images.clone()).unwrap();
            let y = convolution.eval(&[x]).unwrap();
            prop_assert_eq!(y[0].shape(), &*convolution.shape);
            let y = values::<f32>(&y[0]).unwrap();
            let (channels, pixels) = (convolution.to.channels, convolution.to.pixels());
            // Few columns are summed side by side.
            let in_order = case.width > 3 || matches!(convolution.kernels, Kernels::Depthwise(_));
            for image in 0..case.from.count {
                for (kernel, place) in (0..channels).flat_map(|k| (0..pixels).map(move |p| (k, p))) {
                    let inside = if channels_last { place * channels + kernel } else { kernel * pixels + place };
                    let found = y[image * channels * pixels + inside];
                    let expected = case.naive(&images, image, kernel, place);
                    if in_order {
                        prop_assert_eq!(found, expected);
                    } else {
                        prop_assert!((found - expected).abs() < 1e-5, "{} {}", found, expected);
                    }
                }
            }
        }
    }
}
