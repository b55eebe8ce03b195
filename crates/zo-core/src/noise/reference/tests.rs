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
        let words = philox(
            join(key[0], key[1]),
            join(counter[0], counter[1]),
            join(counter[2], counter[3]),
        );
        assert_eq!(words, expected);
    }
}

#[test]
fn radius_is_the_logarithm() {
    for a in [
        0u32,
        1,
        2,
        3,
        77,
        1 << 20,
        1 << 25,
        123_456_789,
        1 << 31,
        u32::MAX - 1,
        u32::MAX,
    ] {
        let a31 = a >> 1;
        let cut = if a31 < 1 << 24 { a31 } else { a31 & !0x7F };
        let u = f64::from(cut as f32 + 0.5) / 2f64.powi(31);
        let exact = (-2.0 * u.ln()).sqrt();
        let error = (f64::from(radius(a)) - exact).abs() / exact;
        assert!(error < 3e-7, "a = {a}: {} instead of {exact}", radius(a));
    }
    assert!(radius(u32::MAX) > 0.0);
}

#[test]
fn circle_points_have_unit_norm_and_cover_all_octants() {
    let mut octants = [0usize; 8];
    for i in 0..4096u32 {
        let (c, s) = point_on_circle(i << 20);
        assert!((c.mul_add(c, s * s) - 1.0).abs() < 3e-7);
        let turn = (f64::from(s).atan2(f64::from(c)) / std::f64::consts::TAU + 1.0) % 1.0;
        octants[(turn * 8.0) as usize % 8] += 1;
    }
    assert!(octants.iter().all(|n| *n == 512), "{octants:?}");
}

#[test]
fn signs_follow_the_bits() {
    assert_eq!(
        (sign(0b10, 0), sign(0b10, 1), sign(1 << 31, 31)),
        (1.0, -1.0, -1.0)
    );
}

#[test]
fn a_frame_holds_the_factors_of_the_definition() {
    let key = TensorKey::new("layers.0.weight");
    for kind in [BasisKind::Lozo, BasisKind::Subzero] {
        for (rank, shape) in [(1, [3, 2]), (2, [4, 5]), (3, [40, 27])] {
            let frame = crate::Basis::new(kind, rank, 42)
                .frame(key, &shape)
                .unwrap();
            let (left, right) = factors((kind, rank, 42), key, shape);
            assert_eq!(frame.left, left);
            assert_eq!(frame.right, right);
        }
    }
}
