//! Philox4x32-10, the counter-based generator under all noise.
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
    x.map(|word| word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (`kat_vectors`, `philox4x32 10`).
    #[test]
    fn known_answers() {
        let cases = [
            (
                [0u32; 4],
                [0u32; 2],
                [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
            ),
            (
                [!0; 4],
                [!0; 2],
                [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
            ),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        for (counter, key, expected) in cases {
            let keys = RoundKeys::new(join(key[0], key[1]));
            let words = block(
                &keys,
                join(counter[0], counter[1]),
                join(counter[2], counter[3]),
            );
            assert_eq!(words, expected);
        }
    }
}
