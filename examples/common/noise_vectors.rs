//! What the noise contract gives for some seeds, as JSON: `docs/noise-vectors.json`.
//!
//! Numbers that JSON's readers may round are written as text: 64-bit numbers and the bits of floats, in hexadecimal.

use serde_json::{Value, json};
use zo_optim::noise::reference::{
    BASIS_SEED, BF16, F16, Half, MASK_SEEDS, ROUNDING_SEEDS, derive_seed, factors, keeps, low_rank,
    philox, rounding_bits, uniform, value,
};
use zo_optim::{BasisKind, Noise, TensorKey};

/// Seeds, small and large.
const SEEDS: [u64; 4] = [0, 42, 0x0123_4567_89AB_CDEF, u64::MAX];
const PATH: &str = "decoder.layers.0.fc1.weight";
const PATHS: [&str; 6] = ["", "a", "foobar", PATH, "layers.10.weight.lora.a", "größe"];

/// The text of the file, one case per line.
pub fn text() -> String {
    let sections: [(&str, Vec<Value>); 9] = [
        ("keys", PATHS.map(key).into()),
        ("philox", blocks()),
        ("seeds", seeds()),
        ("gaussian", noise(Noise::Gaussian)),
        ("rademacher", noise(Noise::Rademacher)),
        ("masks", masks()),
        ("rounding_bits", bits()),
        ("rounded", rounded()),
        ("low_rank", low_ranks()),
    ];
    let sections = sections.map(|(name, cases)| {
        let cases: Vec<String> = cases.iter().map(|case| format!("  {case}")).collect();
        format!(" \"{name}\": [\n{}\n ]", cases.join(",\n"))
    });
    format!("{{\n \"version\": 1,\n{}\n}}\n", sections.join(",\n"))
}

fn hex(number: u64) -> String {
    format!("{number:#018x}")
}

fn float(x: f32) -> String {
    format!("{:#010x}", x.to_bits())
}

fn key(path: &str) -> Value {
    json!({"path": path, "key": hex(TensorKey::new(path).0)})
}

fn blocks() -> Vec<Value> {
    let cases = [
        [0, 0, 0],
        [u64::MAX; 3],
        [
            0x299F_31D0_A409_3822,
            0x85A3_08D3_243F_6A88,
            0x0370_7344_1319_8A2E,
        ],
        [42, 7, TensorKey::new(PATH).0],
    ];
    let case = |[seed, counter, stream]: [u64; 3]| {
        let words = philox(seed, counter, stream).map(|word| format!("{word:#010x}"));
        json!({"key": hex(seed), "counter": hex(counter), "stream": hex(stream), "words": words})
    };
    cases.map(case).into()
}

fn seeds() -> Vec<Value> {
    let cases = [
        ("direction", 0),
        ("direction", 1),
        ("mask", MASK_SEEDS),
        ("mask", MASK_SEEDS + 1),
        ("rounding", ROUNDING_SEEDS),
        ("rounding", ROUNDING_SEEDS + 1),
        ("basis", BASIS_SEED),
    ];
    let runs = SEEDS.into_iter().zip([0, 3, 19_999, 1 << 40]);
    let of = |(run, step): (u64, u64)| {
        cases.map(|(what, index)| {
            let seed = derive_seed(run, step, index);
            json!({"run": hex(run), "step": step, "for": what, "index": hex(index), "seed": hex(seed), "uniform": uniform(seed)})
        })
    };
    runs.flat_map(of).collect()
}

/// Cases by seed, path and the first index of some: at borders of lanes and tiles, and far out.
fn places<const N: usize>(
    borders: [u64; N],
    case: impl Fn(u64, TensorKey, u64) -> Value,
) -> Vec<Value> {
    let firsts = || [0].into_iter().chain(borders).chain([(1 << 36) + 62]);
    let of = |(seed, path): (u64, &str)| {
        let case = |first| {
            let mut fields = case(seed, TensorKey::new(path), first);
            fields["seed"] = json!(hex(seed));
            fields["path"] = json!(path);
            fields["first"] = json!(hex(first));
            fields
        };
        firsts().map(case).collect::<Vec<_>>()
    };
    let pairs = SEEDS.into_iter().zip([PATH, PATH, "w", ""]);
    pairs.flat_map(of).collect()
}

fn noise(noise: Noise) -> Vec<Value> {
    let borders = match noise {
        Noise::Gaussian => [60, 252],
        Noise::Rademacher => [2044, 8188],
    };
    places(borders, |seed, tensor, first| {
        let values = (first..first + 8).map(|i| float(value(noise, seed, tensor, i)));
        json!({"bits": values.collect::<Vec<_>>()})
    })
}

fn masks() -> Vec<Value> {
    let probabilities = [0.5, 0.1, 0.01, 1.0, 1e-12];
    let of = |probability: f64| {
        places([252], |seed, tensor, first| {
            let keeps = |i| u8::from(keeps(seed, tensor, i, probability));
            let moves: Vec<u8> = (first..first + 48).map(keeps).collect();
            json!({"probability": probability, "moves": moves})
        })
    };
    probabilities.into_iter().flat_map(of).collect()
}

fn bits() -> Vec<Value> {
    places([60, 508], |seed, tensor, first| {
        let bits = (first..first + 8).map(|i| rounding_bits(seed, tensor, i));
        json!({"bits": bits.collect::<Vec<_>>()})
    })
}

/// From every range of exponents, by bits drawn as seeds are; and borders.
fn rounded() -> Vec<Value> {
    let of = |name: &str, half: Half, exponents: std::ops::Range<u32>, borders: &[u32]| {
        let drawn = exponents.flat_map(|exponent| {
            [0, 1].map(|k| {
                let word = derive_seed(7, u64::from(exponent), k);
                let x = (word as u32 & 0x807F_FFFF) | exponent << 23;
                (f32::from_bits(x), (word >> 48) as u16)
            })
        });
        let borders = borders
            .iter()
            .flat_map(|x| [0, 0x7FFF, 0x8000, u16::MAX].map(|bits| (f32::from_bits(*x), bits)));
        let case = |(x, bits): (f32, u16)| json!({"dtype": name, "x": float(x), "bits": bits, "result": float(half.rounded(x, bits))});
        drawn.chain(borders).map(case).collect::<Vec<_>>()
    };
    // 0, the smallest f32, -1, one digit beyond 1, the infinities, the largest f32.
    let all = [
        0,
        1,
        0xBF80_0000,
        0x3F80_0001,
        0x7F80_0000,
        0xFF80_0000,
        0x7F7F_FFFF,
    ];
    // 65504, 65520, 65536, 2^-14 and its neighbour below, 2^-24, 2^-25.
    let small = [
        0x477F_E000,
        0x477F_F000,
        0x4780_0000,
        0x3880_0000,
        0x387F_FFFF,
        0x3380_0000,
        0x3300_0000,
    ];
    let mut cases = of("bf16", BF16, 0..3, &all);
    cases.extend(of("bf16", BF16, 120..130, &[]));
    cases.extend(of("f16", F16, 85..130, &[&all[..], &small].concat()));
    cases
}

fn low_ranks() -> Vec<Value> {
    let cases = [(BasisKind::Lozo, "lozo"), (BasisKind::Subzero, "subzero")];
    let shapes = [(1, [4, 5]), (2, [4, 5]), (3, [9, 20]), (2, [33, 3])];
    let of = |(kind, name)| {
        shapes.map(|(rank, shape)| {
            let (basis, seed, tensor) = (SEEDS[2], SEEDS[1], TensorKey::new(PATH));
            let (left, right) = factors((kind, rank, basis), tensor, shape);
            let numbers = rank * if left.is_some() { rank } else { shape[0] };
            let coordinates: Vec<f32> = (0..numbers as u64)
                .map(|i| value(Noise::Gaussian, seed, tensor, i))
                .collect();
            let z = low_rank(left.as_deref(), &right, rank, shape, &coordinates);
            let z: Vec<String> = z.into_iter().map(float).collect();
            json!({"kind": name, "rank": rank, "basis": hex(basis), "seed": hex(seed), "path": PATH, "shape": shape, "bits": z})
        })
    };
    cases.into_iter().flat_map(of).collect()
}
