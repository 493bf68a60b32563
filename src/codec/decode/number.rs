//! Short decimal numbers, read eight digits at a time: most numbers of events are of this kind.
//!
//! What is accepted has the same bits as with `str::parse`: a mantissa below 2^53 and a power of ten
//! up to 10^22 are both exact doubles, so that one division rounds once. A float takes longer ones too,
//! where what the roundings leave open is not what decides.

use std::ops::Range;

/// A number without an exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) negative: bool,
    /// The digits as one integer.
    pub(super) digits: u64,
    /// How many of them stand behind the point; `None` without a point.
    pub(super) fraction: Option<usize>,
}

/// So many digits fit into 64 bits.
pub(super) const MOST_DIGITS: usize = 18;
/// Integers up to here are doubles.
const EXACT: u64 = 1 << 53;

const POWERS: [f64; MOST_DIGITS + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];
pub(super) const TENS: [u64; 17] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    100_000_000_000,
    1_000_000_000_000,
    10_000_000_000_000,
    100_000_000_000_000,
    1_000_000_000_000_000,
    10_000_000_000_000_000,
];

impl Decimal {
    /// The nearest double; `None` where it takes more than one rounding to find.
    #[inline]
    pub(super) fn double(self) -> Option<f64> {
        if self.digits > EXACT {
            return None;
        }
        let value = match self.fraction {
            None | Some(0) => self.digits as f64,
            Some(fraction) => self.digits as f64 / POWERS.get(fraction)?,
        };
        Some(if self.negative { -value } else { value })
    }

    /// The nearest double, rounded to a float; `None` where it is too near the middle of two floats to
    /// tell without that double.
    #[inline]
    pub(super) fn single(self) -> Option<f32> {
        let value = single(self.digits, self.fraction.unwrap_or(0))?;
        Some(if self.negative { -value } else { value })
    }
}

/// `digits` divided by ten to the `fraction`, rounded to a double and then to a float.
#[inline]
pub(super) fn single(digits: u64, fraction: usize) -> Option<f32> {
    /// The bits of a double that a float of the same exponent does not have.
    const BEHIND: u64 = (1 << 29) - 1;
    /// The middle between two floats.
    const MIDDLE: u64 = 1 << 28;
    // Fewer instructions than from `u64`: 18 digits fit.
    // No branch for whole numbers, as whether one is whole is hard to predict.
    let value = digits as i64 as f64 / POWERS.get(fraction)?;
    // Both numbers are rounded beyond 2^53, so that the quotient is up to two units off the nearest
    // double; it is no small one, as at most 18 digits stand behind the point. No branch for each
    // of the two: lengths of digits are hard to predict.
    let clear = (digits <= EXACT) | ((value.to_bits() & BEHIND).abs_diff(MIDDLE) > 4);
    clear.then_some(value as f32)
}

/// Reads the number that `bytes` begin with, in JSON's grammar without an exponent; gives its length
/// too. `None` for all that is not such a number, and for one that goes on in another way.
#[inline]
pub(super) fn decimal(bytes: &[u8]) -> Option<(Decimal, usize)> {
    let found = bytes.first_chunk().and_then(short);
    let ends = |(_, length): &(Decimal, usize)| {
        let behind = bytes.get(*length).copied().unwrap_or_default();
        !matches!(behind, b'0'..=b'9' | b'.' | b'e' | b'E')
    };
    found.filter(ends).or_else(|| byte_by_byte(bytes))
}

/// [`decimal`], for a number that is long or stands near the end.
#[inline(never)]
fn byte_by_byte(bytes: &[u8]) -> Option<(Decimal, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let (mut digits, mut at) = (0, start);
    one_by_one(bytes, &mut digits, &mut at);
    let mut count = at - start;
    // No digit, or zeros in front.
    if count == 0 || (count > 1 && bytes.get(start) == Some(&b'0')) {
        return None;
    }
    let mut fraction = None;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let point = at;
        one_by_one(bytes, &mut digits, &mut at);
        count += at - point;
        fraction = Some(at - point).filter(|behind| *behind > 0);
        fraction?;
    }
    if count > MOST_DIGITS || matches!(bytes.get(at), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let decimal = Decimal {
        negative,
        digits,
        fraction,
    };
    Some((decimal, at))
}

/// Reads numbers, each up to the `separator` behind it, into `to`, and gives how many there were and
/// where the next one begins. It ends where a number is not short, has an exponent or is none, and
/// before the end of `bytes`: that is left to [`decimal`] and others.
///
/// Where numbers end is found for a block of bytes first: then no number waits for the one before.
pub(super) fn floats(bytes: &[u8], separator: u8, to: &mut [f32]) -> (usize, usize) {
    let (mut count, mut at, mut start) = (0, 0, 0);
    while let Some(block) = bytes.get(start..).and_then(|rest| rest.first_chunk()) {
        let mut ends = separators(block, separator);
        while ends != 0 {
            let end = start + ends.trailing_zeros() as usize;
            ends &= ends - 1;
            let (Some(slot), Some(value)) = (to.get_mut(count), number(bytes, at..end)) else {
                return (count, at);
            };
            *slot = value;
            count += 1;
            at = end + 1;
        }
        start += BLOCK;
    }
    (count, at)
}

/// Bytes that are looked through for separators at once.
const BLOCK: usize = 64;

/// A bit for each byte that is `separator`.
#[inline]
fn separators(block: &[u8; BLOCK], separator: u8) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // Moves the highest bit of byte k to bit 56 + k.
    const GATHER: u64 = 0x0002_0408_1020_4081;
    let (words, _) = block.as_chunks();
    words.iter().rev().fold(0, |ends, word| {
        let other = u64::from_le_bytes(*word) ^ (u64::from(separator) * (u64::MAX / 255));
        // The highest bit of each byte that is 0: nothing carries from one to the next.
        let equal = !(((other & LOW) + LOW) | other | LOW);
        ends << 8 | equal.wrapping_mul(GATHER) >> 56
    })
}

/// The number at `place`, if it is short and of JSON's grammar.
#[inline]
fn number(bytes: &[u8], place: Range<usize>) -> Option<f32> {
    let window = bytes.get(place.start..)?.first_chunk::<WINDOW>()?;
    let first = window.first()?.wrapping_sub(b'0');
    let behind = place.len().wrapping_sub(2);
    // One digit, a point and up to 16 more is what most numbers of long lists are.
    if window.get(1) != Some(&b'.') || first > 9 || behind.wrapping_sub(1) > 15 {
        let (decimal, length) = short(window)?;
        return decimal.single().filter(|_| length == place.len());
    }
    let (front, rest) = (behind.min(8), behind.saturating_sub(8));
    let [front_word, rest_word] = [word(window, 2)?, word(window, 10)?];
    if leading_digits(front_word) < front || leading_digits(rest_word) < rest {
        return None;
    }
    let digits = u64::from(first) * TENS.get(front)? + value(front_word, front);
    let digits = digits * TENS.get(rest)? + value(rest_word, rest);
    single(digits, behind)
}

/// Eight bytes from `at` on, the first one lowest.
#[inline]
fn word(window: &[u8; WINDOW], at: usize) -> Option<u64> {
    let eight = window.get(at..at + 8)?.first_chunk()?;
    Some(u64::from_le_bytes(*eight))
}

/// Bytes in which [`short`] finds a number: sign, 8 digits, point, 16 digits, the byte behind them, and
/// what is read besides.
const WINDOW: usize = 32;

/// The number that `window` begins with, of at most 8 digits before and 16 behind the point, and its
/// length. What stands behind it may be more digits.
#[inline]
fn short(window: &[u8; WINDOW]) -> Option<(Decimal, usize)> {
    let negative = window.first() == Some(&b'-');
    let start = usize::from(negative);
    let front = word(window, start)?;
    let whole = leading_digits(front);
    // No digit, or zeros in front.
    if whole == 0 || (whole > 1 && front as u8 == b'0') {
        return None;
    }
    let mut decimal = Decimal {
        negative,
        digits: value(front, whole),
        fraction: None,
    };
    let end = start + whole;
    if window.get(end) != Some(&b'.') {
        return Some((decimal, end));
    }
    let fraction = word(window, end + 1)?;
    let mut behind = leading_digits(fraction);
    if behind == 0 {
        return None;
    }
    decimal.digits = decimal.digits * TENS.get(behind)? + value(fraction, behind);
    if behind == 8 {
        let fraction = word(window, end + 9)?;
        let more = leading_digits(fraction);
        decimal.digits = decimal.digits.wrapping_mul(*TENS.get(more)?);
        decimal.digits = decimal.digits.wrapping_add(value(fraction, more));
        behind += more;
    }
    decimal.fraction = Some(behind);
    (whole + behind <= MOST_DIGITS).then_some((decimal, end + 1 + behind))
}

/// Appends the digits from `at` on to `digits`; what is more than 64 bits wraps.
#[inline]
fn one_by_one(bytes: &[u8], digits: &mut u64, at: &mut usize) {
    while let Some(byte) = bytes.get(*at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return;
        }
        *digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit));
        *at += 1;
    }
}

/// Eight times the digit 0.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// How many of the eight bytes, from the first (lowest) one on, are digits.
#[inline]
pub(super) fn leading_digits(word: u64) -> usize {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // A digit's high half is 3, also with 6 added. A carry comes out of no digit, and reaches only
    // bytes behind the first that is none.
    let other = (word & HIGH) ^ ZEROS;
    let above = (word.wrapping_add(0x0606_0606_0606_0606) & HIGH) ^ ZEROS;
    ((other | above).trailing_zeros() / 8) as usize
}

/// The value of the first `count` of eight bytes, which are digits.
#[inline]
pub(super) fn value(word: u64, count: usize) -> u64 {
    const MASK: u64 = 0x0000_00ff_0000_00ff;
    // The digits move to the end, zeros in front of them.
    let zeros = 8 * (8 - count.min(8)) as u32;
    let word = word.wrapping_sub(ZEROS).checked_shl(zeros).unwrap_or(0);
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let front = (pairs & MASK).wrapping_mul(100 + (1_000_000 << 32));
    let back = ((pairs >> 16) & MASK).wrapping_mul(1 + (10_000 << 32));
    front.wrapping_add(back) >> 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The number and what the rest of the text is, if it is accepted.
    fn read(text: &str) -> Option<(f64, &str)> {
        let (decimal, length) = decimal(text.as_bytes())?;
        Some((decimal.double()?, &text[length..]))
    }

    #[test]
    fn what_is_read_ends_where_the_number_does() {
        assert_eq!(read("12,5"), Some((12.0, ",5")));
        assert_eq!(read("0.25]"), Some((0.25, "]")));
        assert_eq!(read("123456789.5,00000"), Some((123_456_789.5, ",00000")));
        assert_eq!(
            read("-7 000000000000000").map(|(x, _)| x.to_bits()),
            Some((-7.0_f64).to_bits())
        );
        assert_eq!(
            read("-0").map(|(x, _)| x.to_bits()),
            Some((-0.0_f64).to_bits())
        );
        assert_eq!(
            read("9007199254740992"),
            Some((9_007_199_254_740_992.0, ""))
        );
    }

    #[test]
    fn all_else_is_left_to_others() {
        for text in [
            "",
            "-",
            "+1",
            ".5",
            "1.",
            "1.e",
            "01",
            "-01",
            "1e5",
            "1.5E2",
            "1.5.2",
            "x",
            "-x",
            "9007199254740993",
            "1234567890123456789",
            "0.1234567890123456789",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn longer_numbers_are_floats_at_once_unless_near_a_middle() {
        let single =
            |text: &str| decimal(text.as_bytes()).and_then(|(decimal, _)| decimal.single());
        for text in [
            "1015.4000244140625",
            "9.206239700317383",
            "9007199254740993",
        ] {
            let double: f64 = text.parse().unwrap();
            assert_eq!(single(text), Some(double as f32), "{text}");
            assert_eq!(read(text), None, "one rounding does not give {text}");
        }
        // Between 1 and the next float, and the doubles beside it.
        for text in [
            "1.0000000596046447",
            "1.0000000596046448",
            "1.0000000596046450",
        ] {
            assert_eq!(single(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn it_has_the_bits_of_the_standard_library(
            text in prop_oneof![
                "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?",
                any::<f32>().prop_map(|x| x.to_string()),
                any::<f64>().prop_map(|x| x.to_string()),
            ],
            behind in "|[,\\] }\u{e9}\u{ff}][0-9,]{0,12}",
        ) {
            let all = format!("{text}{behind}");
            if let Some((value, rest)) = read(&all) {
                prop_assert_eq!(rest, behind);
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
            } else {
                // Only what is long is refused.
                let digits = text.bytes().filter(u8::is_ascii_digit).count();
                prop_assert!(digits > 15, "{}", text);
            }
        }

        #[test]
        fn a_float_is_the_double_rounded_once_more(
            text in prop_oneof![
                "-?(0|[1-9][0-9]{0,7})(\\.[0-9]{1,16})?",
                "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?",
                (1e-3..1e6_f32).prop_map(|x| f64::from(x).to_string()),
                // The middle of two floats, its double neighbours, and decimals close to them.
                ((1e-3..1e6_f32), -3..4_i64, 12..18_usize).prop_map(|(x, off, precision)| {
                    let middle = f64::midpoint(f64::from(x), f64::from(x.next_up()));
                    format!("{:.precision$}", f64::from_bits(middle.to_bits().wrapping_add_signed(off)))
                }),
            ],
            behind in "[,} ][0-9,]{0,40}",
        ) {
            let all = format!("{text}{behind}");
            if let Some((decimal, length)) = decimal(all.as_bytes()) {
                prop_assert_eq!(length, text.len());
                let double = text.parse::<f64>().unwrap();
                prop_assert!(decimal.double().is_none_or(|x| x.to_bits() == double.to_bits()));
                let single = decimal.single();
                prop_assert!(single.is_none_or(|x| x.to_bits() == (double as f32).to_bits()), "{}", text);
            }
        }

        #[test]
        fn many_at_once_are_those_that_are_read_one_by_one(
            numbers in prop::collection::vec(
                prop_oneof![
                    4 => any::<f32>().prop_map(|x| x.to_string()),
                    4 => (0.0..1.0_f32).prop_map(|x| x.to_string()),
                    2 => "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?",
                    1 => "[-+]?[0-9.eE]{0,12}",
                ],
                0..40,
            ),
            room in 0..40_usize,
        ) {
            let text = numbers.join(",");
            let mut to = vec![f32::NAN; room];
            let (count, at) = floats(text.as_bytes(), b',', &mut to);
            prop_assert!(count <= room && at <= text.len());
            let mut begin = 0;
            for (number, value) in numbers.iter().zip(&to).take(count) {
                let one = number.parse::<f64>().unwrap() as f32;
                prop_assert_eq!(one.to_bits(), value.to_bits(), "{}", number);
                begin += number.len() + 1;
            }
            prop_assert_eq!(at, begin);
        }

        #[test]
        fn no_bytes_break_many(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "[0-9.,]{0,200}".prop_map(String::into_bytes),
            ],
            separator in prop_oneof![Just(b','), any::<u8>()],
        ) {
            let mut to = [0.0; 20];
            let (count, at) = floats(&bytes, separator, &mut to);
            prop_assert!(count <= at && at <= bytes.len());
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some((decimal, length)) = decimal(&bytes) {
                let text = std::str::from_utf8(&bytes[..length]).unwrap();
                let value: f64 = text.parse().unwrap();
                prop_assert!(decimal.double().is_none_or(|x| x.to_bits() == value.to_bits()));
            }
        }
    }
}
