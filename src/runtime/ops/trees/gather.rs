//! Walks of many rows side by side that fetch all their nodes, and then all their values, at once.
//!
//! A fetch from sixteen places takes no more instructions than one, where a walk by single steps
//! needs ten for each row and has not enough registers for sixteen of them.
#![expect(
    unsafe_code,
    reason = "fetches go to places that are not checked one by one, by instructions that not every \
              processor has"
)]

use std::arch::x86_64::{
    __m512i, _CMP_LE_OQ, _mm512_add_epi32, _mm512_and_epi32, _mm512_castsi512_ps,
    _mm512_castsi512_si256, _mm512_cmp_ps_mask, _mm512_extracti64x4_epi64, _mm512_i32gather_epi32,
    _mm512_i32gather_epi64, _mm512_i32gather_ps, _mm512_loadu_si512, _mm512_mask_sub_epi32,
    _mm512_or_epi32, _mm512_permutex2var_epi32, _mm512_reduce_max_epu32, _mm512_set1_epi32,
    _mm512_setr_epi32, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_si512,
};
use std::sync::OnceLock;

use super::super::wide::{LANES, Level, level};
use super::kernel::Narrow;

/// Whether this processor fetches fast: it has the instructions, and no microcode that slows them
/// down. Linux says so where it knows (Documentation/admin-guide/hw-vuln/gather_data_sampling.rst).
pub(super) fn is_fast() -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| {
        let file = "/sys/devices/system/cpu/vulnerabilities/gather_data_sampling";
        let state = std::fs::read_to_string(file).unwrap_or_default();
        level() == Level::Avx512 && !is_slowed(&state)
    })
}

fn is_slowed(state: &str) -> bool {
    state.starts_with("Mitigation") || state.starts_with("Unknown")
}

/// Blocks that take a step together: a fetch takes long, but waits for no other.
const TOGETHER: usize = 4;

/// So few steps do not wait for each other even where fewer blocks take them.
const FEW_STEPS: u32 = 6;

/// Walks on from the places in `found` and leaves the payloads there, no leaf farther than `steps`.
/// `lanes` has `columns` lines for each block of rows. Gives how many blocks were walked: those behind
/// them are faster by single steps.
///
/// # Safety
/// [`is_fast`]. Every node of `nodes` leads to two of them, and reads one of `columns`.
pub(super) unsafe fn walk(
    nodes: &[Narrow],
    lanes: &[[f32; LANES]],
    columns: usize,
    found: &mut [[u32; LANES]],
    steps: u32,
) -> usize {
    assert!(i32::try_from(nodes.len()).is_ok() && lanes.len() == found.len() * columns);
    let blocks = found.len();
    let (many, rest) = found.as_chunks_mut::<TOGETHER>();
    let (cells, rest_cells) = lanes.split_at(many.len() * TOGETHER * columns);
    for (cells, found) in cells.chunks_exact(TOGETHER * columns).zip(many) {
        // SAFETY: the caller's promise.
        unsafe { walk_blocks(nodes, cells, columns, found, steps) };
    }
    if steps > FEW_STEPS {
        return blocks - rest.len();
    }
    for (cells, found) in rest_cells.chunks_exact(columns).zip(rest) {
        // SAFETY: as above.
        unsafe { walk_blocks(nodes, cells, columns, std::array::from_mut(found), steps) };
    }
    blocks
}

/// Walks `N` blocks.
///
/// # Safety
/// As for [`walk`].
#[target_feature(enable = "avx512f")]
unsafe fn walk_blocks<const N: usize>(
    nodes: &[Narrow],
    lanes: &[[f32; LANES]],
    columns: usize,
    found: &mut [[u32; LANES]; N],
    steps: u32,
) {
    let one = _mm512_set1_epi32(1);
    let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let mut blocks: [&[[f32; LANES]]; N] = [&[]; N];
    for (block, cells) in blocks.iter_mut().zip(lanes.chunks_exact(columns)) {
        *block = cells;
    }
    // SAFETY: sixteen numbers each.
    let load = |numbers: &[u32; LANES]| unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) };
    let mut places = found.each_ref().map(load);
    let farthest = places
        .iter()
        .fold(0, |most, places| most.max(_mm512_reduce_max_epu32(*places)));
    assert!((farthest as usize) < nodes.len());
    for _ in 0..steps {
        for (places, block) in places.iter_mut().zip(blocks) {
            // SAFETY: the places were found to be in `nodes`, and a step leads to others there.
            let (thresholds, rest) = unsafe { fetch(nodes, *places) };
            let column = _mm512_and_epi32(rest, _mm512_set1_epi32(0xffff));
            let cell = _mm512_or_epi32(_mm512_slli_epi32::<4>(column), lane);
            // SAFETY: `block` has a line of sixteen values for each column.
            let values = unsafe { _mm512_i32gather_ps::<4>(cell, block.as_ptr().cast()) };
            let left = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(values, _mm512_castsi512_ps(thresholds));
            let right = _mm512_add_epi32(*places, _mm512_srli_epi32::<16>(rest));
            *places = _mm512_mask_sub_epi32(right, left, right, one);
        }
    }
    for (found, places) in found.iter_mut().zip(places) {
        // SAFETY: as above; sixteen numbers.
        unsafe {
            let payloads = _mm512_i32gather_epi32::<8>(places, nodes.as_ptr().cast());
            _mm512_storeu_si512(found.as_mut_ptr().cast(), payloads);
        }
    }
}

/// The thresholds of the nodes at `places`, and their columns and steps to the right.
///
/// # Safety
/// There are so many nodes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn fetch(nodes: &[Narrow], places: __m512i) -> (__m512i, __m512i) {
    const { assert!(size_of::<Narrow>() == 8) };
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_or_epi32(even, _mm512_set1_epi32(1));
    let nodes = nodes.as_ptr().cast();
    // SAFETY: the caller's promise.
    let (low, high) = unsafe {
        (
            _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(places), nodes),
            _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(places), nodes),
        )
    };
    (
        _mm512_permutex2var_epi32(low, even, high),
        _mm512_permutex2var_epi32(low, odd, high),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slowed_processor_is_known_by_what_linux_says() {
        for state in [
            "Mitigation: Microcode\n",
            "Mitigation: AVX disabled, no microcode\n",
            "Unknown: Dependent on hypervisor status\n",
        ] {
            assert!(is_slowed(state), "{state}");
        }
        for state in [
            "Not affected\n",
            "Vulnerable\n",
            "Vulnerable: No microcode\n",
            "",
        ] {
            assert!(!is_slowed(state), "{state}");
        }
    }
}
