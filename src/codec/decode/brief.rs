//! Short numbers without an exponent, as most cells hold: each way here gives what
//! [`Decimal::single`](super::number::Decimal::single) gives, or nothing.

#![expect(
    clippy::inline_always,
    reason = "a way to read has to be compiled into a loop for it"
)]

#[cfg(target_arch = "x86_64")]
pub(super) use self::vectors::{Vectors, has_vectors};

use super::number::{EXACT, POWERS, leading_digits, value};

/// Bytes in which a number is looked for.
pub(super) const BRIEF: usize = 17;

/// A way to read short numbers.
pub(super) trait Brief {
    /// The number that `window` begins with, if it is short and a comma or the end of an object stands
    /// behind it; and its length.
    fn read(window: &[u8; BRIEF]) -> Option<(f32, usize)>;
}

/// What is known of a number once its bytes have been looked at.
struct Found {
    negative: bool,
    /// Its first byte behind the sign.
    first: u8,
    digits: u64,
    /// How many digits stand in front of the point.
    whole: usize,
    is_point: bool,
    /// How many digits stand behind it.
    behind: usize,
    length: usize,
}

impl Found {
    /// The nearest double, rounded to a float, if all of it is in JSON's grammar.
    #[inline(always)]
    fn float(&self, window: &[u8; BRIEF]) -> Option<(f32, usize)> {
        let leading_zero = self.whole > 1 && self.first == b'0';
        let no_digit = self.whole == 0 || (self.is_point && self.behind == 0);
        let ends = matches!(window.get(self.length)?, b',' | b'}');
        if leading_zero || no_digit || !ends || self.digits > EXACT {
            return None;
        }
        // Both are exact: one rounding to a double, and one to a float.
        let value = (self.digits as i64 as f64 / POWERS.get(self.behind)?) as f32;
        let sign = u32::from(self.negative) << 31;
        Some((f32::from_bits(value.to_bits() | sign), self.length))
    }
}

/// Eight bytes at a time, as every processor can: at most so many without the sign.
pub(super) struct Words;

impl Brief for Words {
    #[inline(always)]
    fn read(window: &[u8; BRIEF]) -> Option<(f32, usize)> {
        let negative = window.first() == Some(&b'-');
        let start = usize::from(negative);
        let text = u64::from_le_bytes(*window.get(start..)?.first_chunk()?);
        let whole = leading_digits(text);
        let place = 8 * whole as u32;
        // Whether there is a fraction is as hard to predict as where digits end. A point is taken
        // out, so that the digits stand in a row.
        let is_point = text.wrapping_shr(place) as u8 == b'.';
        let below = 1_u64.wrapping_shl(place) - 1;
        let digits = text & below | (text >> (8 * u32::from(is_point))) & !below;
        let count = leading_digits(digits);
        let found = Found {
            negative,
            first: text as u8,
            digits: value(digits, count),
            whole,
            is_point,
            behind: count - whole,
            length: start + count + usize::from(is_point),
        };
        found.float(window)
    }
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    #![expect(
        unsafe_code,
        reason = "instructions that not every processor has may be used once they were found; bytes \
                  one by one or in words take twice as many"
    )]

    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_cvtsi128_si64, _mm_madd_epi16, _mm_maddubs_epi16,
        _mm_min_epu8, _mm_movemask_epi8, _mm_packus_epi32, _mm_set_epi64x, _mm_set1_epi8,
        _mm_set1_epi16, _mm_set1_epi32, _mm_shuffle_epi8, _mm_sub_epi8,
    };

    use super::{BRIEF, Brief, Found};

    /// Bytes of a vector.
    const LANES: usize = 16;
    /// Clears a byte when it stands for a place.
    const CLEARED: u8 = 0x80;

    /// Sixteen bytes at once. Only for functions that are compiled for AVX2 and BMI, and only run where
    /// [`has_vectors`].
    pub(in super::super) struct Vectors;

    /// Whether this processor has what [`Vectors`] takes.
    pub(in super::super) fn has_vectors() -> bool {
        use std::arch::is_x86_feature_detected as has;
        has!("avx2") && has!("bmi1") && has!("bmi2")
    }

    /// The places of all bytes but one, by the place of that one; the last line leaves out none.
    #[expect(clippy::indexing_slicing, reason = "the compiler makes the table")]
    const WITHOUT: [[u8; LANES]; LANES + 1] = {
        let mut lines = [[CLEARED; LANES]; LANES + 1];
        let mut left_out = 0;
        while left_out <= LANES {
            let mut to = 0;
            while to < LANES {
                let from = to + (to >= left_out) as usize;
                if from < LANES {
                    lines[left_out][to] = from as u8;
                }
                to += 1;
            }
            left_out += 1;
        }
        lines
    };

    /// The places of the first bytes, moved to the end, by their count.
    #[expect(clippy::indexing_slicing, reason = "the compiler makes the table")]
    const TO_THE_END: [[u8; LANES]; LANES + 1] = {
        let mut lines = [[CLEARED; LANES]; LANES + 1];
        let mut count = 0;
        while count <= LANES {
            let mut from = 0;
            while from < count {
                lines[count][LANES - count + from] = from as u8;
                from += 1;
            }
            count += 1;
        }
        lines
    };

    #[inline(always)]
    fn load(bytes: &[u8; LANES]) -> __m128i {
        let both = u128::from_le_bytes(*bytes);
        // SAFETY: for all of them: `Vectors` is only run where the processor has them.
        unsafe { _mm_set_epi64x((both >> 64) as i64, both as i64) }
    }

    impl Brief for Vectors {
        #[inline(always)]
        fn read(window: &[u8; BRIEF]) -> Option<(f32, usize)> {
            let negative = window.first() == Some(&b'-');
            let start = usize::from(negative);
            let bytes = window.get(start..)?.first_chunk()?;
            let text = load(bytes);
            // SAFETY: as above.
            let (digits, numeric, points) = unsafe {
                let digits = _mm_sub_epi8(text, _mm_set1_epi8(b'0'.cast_signed()));
                let least = _mm_min_epu8(digits, _mm_set1_epi8(9));
                let numeric = _mm_movemask_epi8(_mm_cmpeq_epi8(least, digits));
                let point = _mm_set1_epi8(b'.'.cast_signed());
                (
                    digits,
                    numeric,
                    _mm_movemask_epi8(_mm_cmpeq_epi8(text, point)),
                )
            };
            // A bit for each byte, and one behind the last.
            let other = !numeric.cast_unsigned();
            let point = points.cast_unsigned() & other & other.wrapping_neg();
            let is_point = point != 0;
            let whole = other.trailing_zeros() as usize;
            let end = (other & !point).trailing_zeros() as usize;
            let count = end - usize::from(is_point);
            let left_out = (point | 1 << LANES).trailing_zeros() as usize;
            let without = load(WITHOUT.get(left_out)?);
            let to_the_end = load(TO_THE_END.get(count)?);
            // SAFETY: as above.
            let halves = unsafe {
                let digits = _mm_shuffle_epi8(_mm_shuffle_epi8(digits, without), to_the_end);
                // Ten times the first of two, and the second: two digits, four, eight.
                let twos = _mm_maddubs_epi16(digits, _mm_set1_epi16(0x010a));
                let fours = _mm_madd_epi16(twos, _mm_set1_epi32(0x0001_0064));
                let fours = _mm_packus_epi32(fours, fours);
                _mm_cvtsi128_si64(_mm_madd_epi16(fours, _mm_set1_epi32(0x0001_2710)))
            };
            let (front, back) = (halves as u32, (halves >> 32) as u32);
            let found = Found {
                negative,
                first: *bytes.first()?,
                digits: u64::from(front) * 100_000_000 + u64::from(back),
                whole,
                is_point,
                behind: count - whole,
                length: start + end,
            };
            found.float(window)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::number::decimal;
    use super::*;

    fn all(text: &str) -> Vec<Option<(u32, usize)>> {
        let mut window = [b' '; BRIEF];
        let len = text.len().min(BRIEF);
        window[..len].copy_from_slice(&text.as_bytes()[..len]);
        let mut ways = vec![Words::read(&window)];
        #[cfg(target_arch = "x86_64")]
        if has_vectors() {
            ways.push(Vectors::read(&window));
        }
        let bits = |(value, length): (f32, usize)| (value.to_bits(), length);
        ways.into_iter().map(|found| found.map(bits)).collect()
    }

    #[test]
    fn short_numbers_are_read() {
        for number in [
            "0", "-0", "7", "-5", "0.5", "-0.25", "12345678", "1234567", "35.96", "1012.3",
            "-17.261", "0.000001", "99.99999",
        ] {
            for end in [",\"a\":1", "}"] {
                let want = Some((number.parse::<f32>().unwrap().to_bits(), number.len()));
                let found = all(&format!("{number}{end}"));
                assert!(
                    found.iter().all(|found| *found == want),
                    "{number}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn all_else_is_not() {
        for text in [
            "",
            "-",
            ",",
            "}",
            "-,",
            "01,",
            "-01,",
            "00,",
            "1.,",
            ".5,",
            "1..2,",
            "1.2.3,",
            "1 ,",
            "1",
            "1e5,",
            "1.5E2,",
            "+1,",
            "null,",
            "\"1\",",
            "--1,",
            "1-,",
            "1.-,",
            "1.5]",
            "12345678901234567,",
            "1234567890.1234567,",
        ] {
            let found = all(text);
            assert!(found.iter().all(Option::is_none), "{text}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_has_the_bits_of_the_slow_way(text in "-?[0-9]{0,12}(\\.[0-9]{0,12})?[,}e.0 ]") {
            let slow = decimal(text.as_bytes());
            let slow = slow.and_then(|(decimal, length)| Some((decimal.single()?.to_bits(), length)));
            for found in all(&text).into_iter().flatten() {
                prop_assert_eq!(Some(found), slow);
            }
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), BRIEF), at in 0..BRIEF) {
            let mut window: [u8; BRIEF] = bytes.try_into().unwrap();
            window[at] = b'.';
            Words::read(&window);
            #[cfg(target_arch = "x86_64")]
            if has_vectors() {
                Vectors::read(&window);
            }
        }
    }
}
