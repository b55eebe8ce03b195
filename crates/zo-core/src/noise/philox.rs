//! Philox4x32-10, the counter-based generator under all noise, as kernels compute it: [`philox`](super::reference::philox) is the definition.
//!
//! Salmon et al., *Parallel random numbers: as easy as 1, 2, 3* (SC 2011). A block of 128 random bits is a pure function of a
//! 128-bit counter and a 64-bit key, so any element of any noise tensor can be computed alone, in any order, on any device.

/// Multipliers and key increments of the paper.
const M0: u64 = 0xD251_1F53;
const M1: u64 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;

/// Low half of a 64-bit word.
const LOW: u64 = 0xFFFF_FFFF;

/// The ten round keys of one seed: computed once per pass and tensor, not once per block.
#[derive(Clone, Copy)]
pub(crate) struct RoundKeys([[u64; 2]; 10]);

impl RoundKeys {
    pub(crate) fn new(seed: u64) -> Self {
        let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
        Self(std::array::from_fn(|_| {
            let keys = [u64::from(k0), u64::from(k1)];
            (k0, k1) = (k0.wrapping_add(W0), k1.wrapping_add(W1));
            keys
        }))
    }
}

/// One round on 64-bit lanes that hold 32-bit words.
///
/// The upper halves carry garbage between rounds: each product reads only the lower half, which is what a SIMD multiplication of
/// 32 to 64 bits does anyway. So a round is two multiplications, two shifts and four exclusive ors.
#[inline(always)]
fn round(x: [u64; 4], k: [u64; 2]) -> [u64; 4] {
    let p0 = (x[0] & LOW) * M0;
    let p1 = (x[2] & LOW) * M1;
    [(p1 >> 32) ^ x[1] ^ k[0], p1, (p0 >> 32) ^ x[3] ^ k[1], p0]
}

/// The block of four random words at `counter` of the stream `stream` under the key `seed`.
#[inline(always)]
pub(crate) fn block(keys: &RoundKeys, counter: u64, stream: u64) -> [u32; 4] {
    let k = &keys.0;
    let mut x = [counter & LOW, counter >> 32, stream & LOW, stream >> 32];
    x = round(x, k[0]);
    x = round(x, k[1]);
    x = round(x, k[2]);
    x = round(x, k[3]);
    x = round(x, k[4]);
    x = round(x, k[5]);
    x = round(x, k[6]);
    x = round(x, k[7]);
    x = round(x, k[8]);
    x = round(x, k[9]);
    // Not `map`, which is generic, and so not inlined everywhere: the loop around would not vectorise.
    [x[0] as u32, x[1] as u32, x[2] as u32, x[3] as u32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::reference::philox;

    #[test]
    fn blocks_are_those_of_the_definition() {
        let mut x = [0u64, u64::MAX, 0x0123_4567_89AB_CDEF];
        for _ in 0..1000 {
            let [key, counter, stream] = x;
            let words = philox(key, counter, stream);
            assert_eq!(block(&RoundKeys::new(key), counter, stream), words);
            let [a, b, c, d] = words.map(u64::from);
            x = [a << 32 | b, c << 32 | d, stream.rotate_left(7) ^ key];
        }
    }
}
