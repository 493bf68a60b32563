//! Images in a tensor: where their values lie, and which of them a window sees.

/// Images of one size. Those with one spatial axis have the height 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Images {
    pub(super) count: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Whether the channels of a pixel lie side by side; else the pixels of a channel do.
    pub(super) channels_last: bool,
}

/// A window that moves over an image: down and across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) size: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
    /// Rows and columns of zeros in front of the image. Those behind it follow from `places`.
    pub(super) before: [usize; 2],
    /// How many places it takes.
    pub(super) places: [usize; 2],
}

impl Images {
    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Values of one image.
    pub(super) fn values(&self) -> usize {
        self.channels * self.pixels()
    }
}

/// An image with its border, the channels of a pixel side by side.
#[derive(Debug)]
pub(super) struct Bordered {
    from: Images,
    before: [usize; 2],
    width: usize,
    /// Empty where an image can be taken as it is.
    values: Vec<f32>,
}

impl Bordered {
    /// Room for one of the images `from`, with the zeros that `window` sees around it.
    pub(super) fn new(from: &Images, window: &Window) -> Self {
        let reach = |axis: usize, length: usize| {
            let of = |values: &[usize; 2]| values.get(axis).copied().unwrap_or_default();
            let last = of(&window.places).saturating_sub(1) * of(&window.strides);
            let seen = last + of(&window.size).saturating_sub(1) * of(&window.dilations) + 1;
            seen.max(of(&window.before) + length)
        };
        let (height, width) = (reach(0, from.height), reach(1, from.width));
        let whole = from.channels_last || from.channels == 1 || from.pixels() == 1;
        let plain = whole && (height, width) == (from.height, from.width);
        let len = if plain {
            0
        } else {
            height * width * from.channels
        };
        Self {
            from: *from,
            before: window.before,
            width,
            values: vec![0.0; len],
        }
    }

    /// How far a pixel of the next row is away.
    pub(super) fn row_step(&self) -> usize {
        self.width * self.from.channels
    }

    /// `image` with its border.
    pub(super) fn of<'a>(&'a mut self, image: &'a [f32]) -> &'a [f32] {
        if self.values.is_empty() {
            return image;
        }
        let Images {
            channels, width, ..
        } = self.from;
        let [above, left] = self.before;
        let (row_step, pixels) = (self.row_step(), self.from.pixels());
        let rows = self.values.chunks_exact_mut(row_step.max(1)).skip(above);
        for (row, to) in rows.take(self.from.height).enumerate() {
            let inside = left * channels..(left + width) * channels;
            let Some(to) = to.get_mut(inside) else {
                continue;
            };
            if self.from.channels_last || channels == 1 {
                let start = row * width * channels;
                if let Some(from) = image.get(start..start + to.len()) {
                    to.copy_from_slice(from);
                }
                continue;
            }
            for (channel, plane) in image.chunks_exact(pixels.max(1)).enumerate() {
                let from = plane.iter().skip(row * width);
                let to = to.iter_mut().skip(channel).step_by(channels);
                to.zip(from).for_each(|(to, from)| *to = *from);
            }
        }
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gets_its_border_and_its_channels_side_by_side() {
        let from = Images {
            count: 1,
            channels: 2,
            height: 1,
            width: 2,
            channels_last: false,
        };
        let window = Window {
            size: [2, 2],
            strides: [1, 1],
            dilations: [1, 1],
            before: [1, 1],
            places: [1, 2],
        };
        let mut bordered = Bordered::new(&from, &window);
        let border = [0.0; 6];
        let inside = [0.0, 0.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(
            bordered.of(&[1.0, 2.0, 3.0, 4.0]),
            [border, inside].concat()
        );
        let last = Images {
            channels_last: true,
            ..from
        };
        let mut bordered = Bordered::new(&last, &window);
        assert_eq!(
            bordered.of(&[1.0, 3.0, 2.0, 4.0]),
            [border, inside].concat()
        );
        // Nothing to add.
        let window = Window {
            size: [1, 1],
            before: [0, 0],
            ..window
        };
        let image = [5.0, 6.0, 7.0, 8.0];
        assert_eq!(Bordered::new(&last, &window).of(&image), image);
    }
}
