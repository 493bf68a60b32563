//! Short numbers without an exponent, as most cells hold: each way here gives what
//! [`Decimal::single`](super::number::Decimal::single) gives, or nothing.

#![expect(
    clippy::inline_always,
    reason = "a way to read has to be compiled into a loop for it"
)]

#[cfg(target_arch = "x86_64")]
pub(super) use self::vectors::{Vectors, has_vectors};

use super::number::{leading_digits, single, value};

/// Bytes in which a number is looked for, and what is read besides.
pub(super) const BRIEF: usize = 34;

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
        if leading_zero || no_digit || !ends {
            return None;
        }
        let value = single(self.digits, self.behind)?;
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
        _mm_cvtsi128_si64, _mm_loadu_si128, _mm_madd_epi16, _mm_maddubs_epi16, _mm_packus_epi32,
        _mm_set1_epi8, _mm_set1_epi16, _mm_set1_epi32, _mm_shuffle_epi8, _mm_sub_epi8,
        _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8,
        _mm256_set1_epi8, _mm256_sub_epi8,
    };

    use super::super::number::{MOST_DIGITS, TENS};
    use super::{BRIEF, Brief, Found};

    /// Most digits on each side of a point.
    const HALF: usize = 16;

    /// Up to 16 digits on each side of a point, 18 together. Only for functions that are compiled for
    /// AVX2 and BMI, and only run where [`has_vectors`].
    pub(in super::super) struct Vectors;

    /// Whether this processor has what [`Vectors`] takes.
    pub(in super::super) fn has_vectors() -> bool {
        use std::arch::is_x86_feature_detected as has;
        has!("avx2") && has!("bmi1") && has!("bmi2")
    }

    /// The places of the first bytes, moved to the end, by their count; zeros stand in front.
    #[expect(clippy::indexing_slicing, reason = "the compiler makes the table")]
    const TO_THE_END: [[u8; HALF]; HALF + 1] = {
        let mut lines = [[0x80; HALF]; HALF + 1];
        let mut count = 0;
        while count <= HALF {
            let mut from = 0;
            while from < count {
                lines[count][HALF - count + from] = from as u8;
                from += 1;
            }
            count += 1;
        }
        lines
    };

    /// Which of 32 bytes are digits, and which are points: a bit for each.
    #[inline(always)]
    fn look(bytes: &[u8; 32]) -> (u32, u32) {
        // SAFETY: for all of them: `Vectors` is only run where the processor has them. Loads go over
        // arrays of their size.
        let (digits, points) = unsafe {
            let text = _mm256_loadu_si256(bytes.as_ptr().cast());
            let values = _mm256_sub_epi8(text, _mm256_set1_epi8(b'0'.cast_signed()));
            let least = _mm256_min_epu8(values, _mm256_set1_epi8(9));
            let point = _mm256_set1_epi8(b'.'.cast_signed());
            (
                _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, values)),
                _mm256_movemask_epi8(_mm256_cmpeq_epi8(text, point)),
            )
        };
        (digits.cast_unsigned(), points.cast_unsigned())
    }

    /// The number that the first `count` bytes are the digits of.
    #[inline(always)]
    fn digits(bytes: &[u8; HALF], count: usize) -> Option<u64> {
        let places = TO_THE_END.get(count)?;
        // SAFETY: as above.
        let halves = unsafe {
            let text = _mm_loadu_si128(bytes.as_ptr().cast());
            let values = _mm_sub_epi8(text, _mm_set1_epi8(b'0'.cast_signed()));
            let values = _mm_shuffle_epi8(values, _mm_loadu_si128(places.as_ptr().cast()));
            // Ten times the first of two, and the second: two digits, four, eight.
            let twos = _mm_maddubs_epi16(values, _mm_set1_epi16(0x010a));
            let fours = _mm_madd_epi16(twos, _mm_set1_epi32(0x0001_0064));
            let fours = _mm_packus_epi32(fours, fours);
            _mm_cvtsi128_si64(_mm_madd_epi16(fours, _mm_set1_epi32(0x0001_2710)))
        };
        let (front, back) = (halves as u32, (halves >> 32) as u32);
        Some(u64::from(front) * 100_000_000 + u64::from(back))
    }

    impl Brief for Vectors {
        #[inline(always)]
        fn read(window: &[u8; BRIEF]) -> Option<(f32, usize)> {
            let negative = window.first() == Some(&b'-');
            let start = usize::from(negative);
            let text = window.get(start..)?;
            let (numeric, points) = look(text.first_chunk()?);
            let point = points & !numeric & numeric.wrapping_add(1);
            let is_point = point != 0;
            let whole = numeric.trailing_ones() as usize;
            // What is found does not wait for the digits, nor the next number for this one's.
            let end = (numeric | point).trailing_ones() as usize;
            let behind = end - whole - usize::from(is_point);
            if whole + behind > MOST_DIGITS {
                return None;
            }
            let front = digits(text.first_chunk()?, whole)?;
            let back = digits(text.get(whole + 1..)?.first_chunk()?, behind)?;
            let found = Found {
                negative,
                first: *text.first()?,
                digits: front * TENS.get(behind)? + back,
                whole,
                is_point,
                behind,
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
    #[cfg(target_arch = "x86_64")]
    fn vectors_read_what_doubles_are_written_as() {
        for number in [
            "35.959999084472656",
            "-1012.2999877929688",
            "0.1599999964237213",
        ] {
            let want = (number.parse::<f32>().unwrap().to_bits(), number.len());
            let found = all(&format!("{number},"));
            assert_eq!(found[1..], vec![Some(want); found.len() - 1], "{number}");
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
            "1234567890123456789,",
            "1234567890.123456789,",
        ] {
            let found = all(text);
            assert!(found.iter().all(Option::is_none), "{text}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_has_the_bits_of_the_slow_way(text in "-?[0-9]{0,17}(\\.[0-9]{0,18})?[,}e.0 ]") {
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
