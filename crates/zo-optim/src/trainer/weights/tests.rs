use burn::tensor::Device;
use half::{bf16, f16};

use super::*;

#[derive(Module, Debug)]
struct Toy {
    full: Param<Tensor<2>>,
    brain: Param<Tensor<1>>,
    half: Param<Tensor<1>>,
    frozen: Param<Tensor<1>>,
}

fn param<const D: usize>(data: TensorData) -> Param<Tensor<D>> {
    let (device, dtype) = (Device::flex(), data.dtype());
    Param::from_tensor(Tensor::from_data(data, (&device, dtype)))
}

/// Values that a conversion would change: a NaN with a payload, subnormals, a negative zero.
fn toy() -> Toy {
    let full = [
        0x7fc0_1234,
        0x8000_0000,
        1,
        0x3f80_0001,
        0xff80_0000,
        0x0080_0000,
    ];
    let brain = [0x7fc1, 0x8000, 0x0001].map(bf16::from_bits);
    let half = [0x7e01, 0x8000, 0x0001, 0x3c01].map(f16::from_bits);
    Toy {
        full: param(TensorData::new(full.map(f32::from_bits).to_vec(), [2, 3])),
        brain: param(TensorData::new(brain.to_vec(), [3])),
        half: param(TensorData::new(half.to_vec(), [4])),
        frozen: param(TensorData::new(vec![1f32, 2.0], [2])),
    }
}

fn zeros() -> Toy {
    Toy {
        full: param(TensorData::new(vec![0f32; 6], [2, 3])),
        brain: param(TensorData::new(vec![bf16::ZERO; 3], [3])),
        half: param(TensorData::new(vec![f16::ZERO; 4], [4])),
        frozen: param(TensorData::new(vec![0f32; 2], [2])),
    }
}

fn trained() -> ParamGroup {
    ParamGroup::all().exclude(ParamGroup::from_path("frozen"))
}

fn bytes(module: &Toy) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    visit(module, &ParamGroup::all(), &mut |parameter| {
        let data = parameter.values(None)?;
        all.insert(parameter.path.to_owned(), data.as_bytes().to_vec());
        Ok(())
    })
    .unwrap();
    all
}

#[test]
fn trained_parameters_come_back_bit_for_bit_with_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let saved = toy();
    write(&path, &saved, &trained()).unwrap();
    let ids = BTreeMap::from([("half".to_owned(), saved.half.id.val())]);
    let before = zeros();
    let (frozen, full) = (before.frozen.id, before.full.id);
    let (loaded, result) = read(&path, before, &trained(), &ids);
    result.unwrap();
    let (mut found, expected) = (bytes(&loaded), bytes(&saved));
    assert_eq!(found.remove("frozen"), Some(vec![0; 8]));
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|(name, bytes)| expected[name] == *bytes));
    assert_eq!(loaded.half.id, saved.half.id);
    assert_eq!((loaded.frozen.id, loaded.full.id), (frozen, full));
    assert_eq!(loaded.brain.val().dtype(), DType::BF16);
    let raw = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&raw).unwrap();
    assert_eq!(file.tensor("half").unwrap().dtype(), Dtype::F16);
    assert_eq!(file.len(), 3);
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let read = |trained: ParamGroup| {
        let (_, result) = super::read(&path, zeros(), &trained, &BTreeMap::new());
        result.unwrap_err().to_string()
    };
    assert!(read(trained()).contains("weights.safetensors"));
    write(&path, &toy(), &trained()).unwrap();
    let missing = read(ParamGroup::all());
    assert!(missing.contains("`frozen`: it is missing"), "{missing}");
    let mut other = toy();
    other.half = param(TensorData::new(vec![0f32; 4], [4]));
    write(&path, &other, &trained()).unwrap();
    let dtype = read(trained());
    assert!(
        dtype.contains("`half`: its dtype is F32 instead of F16"),
        "{dtype}"
    );
    other.full = param(TensorData::new(vec![0f32; 6], [3, 2]));
    write(&path, &other, &trained()).unwrap();
    let shape = read(trained());
    assert!(
        shape.contains("`full`: its shape is [3, 2] instead of [2, 3]"),
        "{shape}"
    );
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let truncated = read(trained());
    assert!(truncated.contains("bytes instead of"), "{truncated}");
    std::fs::write(&path, [255; 16]).unwrap();
    assert!(read(trained()).contains("claims a header"));
}
