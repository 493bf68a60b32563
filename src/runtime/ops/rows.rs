//! Rows along axes of a tensor, wherever those lie.

/// Values along some axes, taken as one: how many they are, and how far apart in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) length: usize,
    pub(super) stride: usize,
}

impl Rows {
    /// The rows of a tensor of `shape` along `axes`; `None` where those are not neighbours.
    pub(super) fn along(shape: &[usize], axes: &[usize]) -> Option<Self> {
        let (first, last) = (*axes.iter().min()?, *axes.iter().max()?);
        if last - first + 1 != axes.len() {
            return None;
        }
        Some(Self {
            length: shape.get(first..=last)?.iter().product(),
            stride: shape.get(last + 1..)?.iter().product(),
        })
    }

    /// Changes each row of `values` in place.
    pub(super) fn update(self, values: &mut [f32], each: impl Fn(&mut [f32])) {
        let Self { length, stride } = self;
        if stride == 1 {
            return values.chunks_exact_mut(length.max(1)).for_each(each);
        }
        let mut row = vec![0.0; length];
        for block in values.chunks_exact_mut((length * stride).max(1)) {
            for offset in 0..stride {
                let places = block.iter().skip(offset).step_by(stride);
                row.iter_mut()
                    .zip(places)
                    .for_each(|(to, from)| *to = *from);
                each(&mut row);
                let places = block.iter_mut().skip(offset).step_by(stride);
                places.zip(&row).for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// Puts one result for each row of `values` into `to`.
    pub(super) fn reduce<T>(self, values: &[f32], to: &mut [T], each: impl Fn(&[f32]) -> T) {
        let Self { length, stride } = self;
        if stride == 1 {
            let rows = values.chunks_exact(length.max(1));
            return to
                .iter_mut()
                .zip(rows)
                .for_each(|(to, row)| *to = each(row));
        }
        let mut row = vec![0.0; length];
        let blocks = values.chunks_exact((length * stride).max(1));
        for (block, to) in blocks.zip(to.chunks_exact_mut(stride.max(1))) {
            for (offset, to) in to.iter_mut().enumerate() {
                let places = block.iter().skip(offset).step_by(stride);
                row.iter_mut()
                    .zip(places)
                    .for_each(|(to, from)| *to = *from);
                *to = each(&row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_along_any_axes() {
        let rows = |axes: &[usize]| Rows::along(&[2, 3, 4], axes);
        let known = |length, stride| Some(Rows { length, stride });
        assert_eq!(rows(&[2]), known(4, 1));
        assert_eq!(rows(&[1, 2]), known(12, 1));
        assert_eq!(rows(&[1]), known(3, 4));
        assert_eq!(rows(&[0, 2]), None);
        assert_eq!(rows(&[]), None);
        assert_eq!(rows(&[3]), None);
    }

    #[test]
    fn rows_are_gathered_and_put_back() {
        let rows = Rows {
            length: 2,
            stride: 3,
        };
        let mut values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut sums = [0.0; 3];
        rows.reduce(&values, &mut sums, |row| row.iter().sum());
        assert_eq!(sums, [5.0, 7.0, 9.0]);
        rows.update(&mut values, <[f32]>::reverse);
        assert_eq!(values, [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
    }
}
