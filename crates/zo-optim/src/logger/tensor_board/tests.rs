use super::*;
use crate::logger::Value;

/// What Python's tensorboard writes for the three events of `log_three`.
const GOLDEN: &str = "\
    1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b3531101d00000000000000602fdf230900002040fc54d9412a120a\
    100a096576616c2f6c6f7373150000403fd954262e4c00000000000000f5d4a2a00900002040fc54d94110ac022a3e0a110a0a747261696e2f6c6f7373150000\
    003f0a290a22747261696e2f6d65616e5f6162735f70726f6a65637465645f6772616469656e74731500000040df8141b1";

fn logger(dir: &Path) -> TensorBoard {
    TensorBoard {
        now: || 1_700_000_000.5,
        ..TensorBoard::new(dir)
    }
}

fn log_three(logger: &mut TensorBoard) {
    let before = Record::new(0).with("eval_loss", 0.75).with("note", "none");
    logger.log(&before).unwrap();
    let step = Record::new(300)
        .with("loss", 0.5)
        .with("projected_gradients", vec![-1.0, 3.0])
        .with("memory", Value::Missing);
    logger.log(&step).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file, which is the only one in the folder.
fn file(dir: &Path) -> Vec<u8> {
    let entries: Vec<_> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(entries.len(), 1);
    let name = entries[0].file_name().into_string().unwrap();
    assert!(name.starts_with("events.out.tfevents.1700000000"), "{name}");
    fs::read(entries[0].path()).unwrap()
}

#[test]
fn the_crc_is_castagnoli_s() {
    // The check value of CRC-32C.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn files_are_those_of_tensorboard_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("deep/events");
    let mut logger = logger(&events);
    log_three(&mut logger);
    assert_eq!(hex(&file(&events)), GOLDEN);
}

#[test]
fn a_run_goes_on_after_the_steps_it_has_done() {
    let dir = tempfile::tempdir().unwrap();
    log_three(&mut logger(dir.path()));
    let whole = file(dir.path());
    let path = dir
        .path()
        .read_dir()
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let record = Record::new(300).with("loss", 0.5);
    for (step, kept) in [(300, 177), (299, 40 + 45), (0, 40 + 45)] {
        fs::write(&path, &whole).unwrap();
        let mut logger = logger(dir.path());
        logger.resume(step, true).unwrap();
        assert_eq!(file(dir.path()), whole[..kept], "{step}");
        logger.log(&record).unwrap();
        let all = file(dir.path());
        assert_eq!(all[..kept], whole[..kept]);
        assert_eq!(step_of(unframe(&all[kept..]).unwrap()), Some(300));
    }
    // A record that is only half there, or damaged, goes too.
    for damage in [&whole[..170], &[&whole[..175], &[0, 0]].concat()] {
        fs::write(&path, damage).unwrap();
        logger(dir.path()).resume(300, true).unwrap();
        assert_eq!(file(dir.path()), whole[..85]);
    }
    // Nothing is left of a file that is not one of ours.
    fs::write(&path, "something else").unwrap();
    let mut logger = logger(dir.path());
    logger.resume(300, true).unwrap();
    log_three(&mut logger);
    assert_eq!(file(dir.path()), whole);
}

#[test]
fn a_new_run_replaces_the_old_one_and_leaves_other_programs_alone() {
    let dir = tempfile::tempdir().unwrap();
    log_three(&mut TensorBoard {
        now: || 1.0,
        ..TensorBoard::new(dir.path())
    });
    let other = dir.path().join("events.out.tfevents.2.host");
    fs::write(&other, "theirs").unwrap();
    log_three(&mut logger(dir.path()));
    assert_eq!(fs::read(&other).unwrap(), b"theirs");
    fs::remove_file(other).unwrap();
    assert_eq!(hex(&file(dir.path())), GOLDEN);
}

#[test]
fn steps_are_read_back() {
    for step in [0, 1, 127, 128, 300, 1 << 21, u64::from(u32::MAX)] {
        let mut event = Vec::new();
        double(&mut event, 1, 3.0);
        event.push(2 << 3);
        varint(&mut event, step);
        assert_eq!(step_of(&event), Some(step));
        assert_eq!(unframe(&frame(&event)), Some(&event[..]));
    }
    assert_eq!(step_of(b"theirs"), None);
    // A length that no file has.
    let long = [&[0xff; 8][..], &masked_crc(&[0xff; 8]), &[0; 9]].concat();
    assert_eq!(unframe(&long), None);
}
