//! Bytes of a trajectory.
//!
//! ```text
//! file    = "zo-traj\n"  length:u32  header  checksum:u32  record*
//! record  = kind:u8  length:u24  check:u8  payload  checksum:u32
//! ```
//!
//! All numbers are little-endian. `length` counts the bytes of the header, or of the payload. A checksum is the CRC-32 (that of gzip) of all
//! bytes of the file before it, earlier checksums left out: so a record that is missing, or in another place, is found as well. `check` lets
//! the end of a file that was cut off be told from a record whose length is damaged: it is the exclusive or of 0xA5 and the four bytes before it.

use crc32fast::Hasher;

use super::digest::Digest;
use super::{Record, RecordedStep};

pub(super) const MAGIC: [u8; 8] = *b"zo-traj\n";

/// Bytes before a payload.
const HEAD: usize = 5;
/// Bytes of a checksum.
pub(super) const CHECKSUM: usize = 4;
/// The longest payload.
const LONGEST: usize = (1 << 24) - 1;
/// What a disk writes whole.
const SECTOR: usize = 512;

const STEP: u8 = 1;
const EVALUATION: u8 = 2;
const DIGEST: u8 = 3;

/// A step has a learning rate of its own; else it is that of the step before.
const RATE: u8 = 1;
/// The answers are f32.
const SINGLE: u8 = 2;
/// The module stood at its weights.
const AT_REST: u8 = 4;

/// What a file says after its header, or what is wrong there.
pub(super) enum Next {
    /// A record, and where the next one begins.
    Record(Record, usize),
    /// The end of the file cuts a record off.
    Torn,
    /// A record is not as it was written.
    Damaged(String),
}

/// What the bytes of a record depend on besides the record itself.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// Of all bytes so far but the checksums.
    checksum: Hasher,
    /// The learning rate of the last step.
    lr: Option<f64>,
}

impl Context {
    /// After the header.
    pub(super) fn new(checksum: Hasher) -> Self {
        Self { checksum, lr: None }
    }

    /// The bytes of a record; `None` if it is too long.
    pub(super) fn encode(&mut self, record: &Record) -> Option<Vec<u8>> {
        let (kind, payload) = match record {
            Record::Step(step) => (STEP, self.step(step)),
            Record::Evaluation { score, loss } => (
                EVALUATION,
                [score.to_le_bytes(), loss.to_le_bytes()].concat(),
            ),
            Record::Digest { at_rest, digest } => {
                let flags = if *at_rest { AT_REST } else { 0 };
                (DIGEST, [&[flags], digest.as_bytes().as_slice()].concat())
            }
        };
        if payload.len() > LONGEST {
            return None;
        }
        let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
        let mut bytes = vec![kind, a, b, c, check([kind, a, b, c])];
        bytes.extend(payload);
        self.checksum.update(&bytes);
        bytes.extend(self.checksum.clone().finalize().to_le_bytes());
        Some(bytes)
    }

    fn step(&mut self, step: &RecordedStep) -> Vec<u8> {
        let lr = Some(step.lr).filter(|lr| self.lr.map(f64::to_bits) != Some(lr.to_bits()));
        self.lr = Some(step.lr);
        let fits = |answer: &f64| f64::from(*answer as f32).to_bits() == answer.to_bits();
        let single = step.answers.iter().all(fits);
        let mut payload = vec![0];
        if let Some(lr) = lr {
            payload[0] |= RATE;
            payload.extend(lr.to_le_bytes());
        }
        if step.began_at_rest {
            payload[0] |= AT_REST;
        }
        if single {
            payload[0] |= SINGLE;
            payload.extend(step.answers.iter().flat_map(|a| (*a as f32).to_le_bytes()));
        } else {
            payload.extend(step.answers.iter().flat_map(|a| a.to_le_bytes()));
        }
        payload
    }

    /// The record at `offset`, which is not the end of the file.
    pub(super) fn decode(&mut self, file: &[u8], offset: usize) -> Next {
        let rest = &file[offset..];
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else {
            return Next::Torn;
        };
        let [kind, a, b, c, found] = *head;
        if check([kind, a, b, c]) != found {
            return damaged(
                file,
                [offset, offset + HEAD],
                "its length is not as it was written",
            );
        }
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            return Next::Torn;
        };
        let Some(stored) = rest.first_chunk::<CHECKSUM>() else {
            return Next::Torn;
        };
        let mut checksum = self.checksum.clone();
        checksum.update(head);
        checksum.update(payload);
        let end = offset + HEAD + length + CHECKSUM;
        if checksum.clone().finalize() != u32::from_le_bytes(*stored) {
            return damaged(file, [offset, end], "its checksum is wrong");
        }
        match self.payload(kind, payload) {
            Some(record) => {
                self.checksum = checksum;
                Next::Record(record, end)
            }
            None => Next::Damaged(format!(
                "it is of kind {kind} and {length} byte(s), which this version does not know"
            )),
        }
    }

    fn payload(&mut self, kind: u8, payload: &[u8]) -> Option<Record> {
        match kind {
            STEP => self.decode_step(payload),
            EVALUATION => {
                let numbers = doubles(payload)?;
                let [score, loss] = numbers[..] else {
                    return None;
                };
                Some(Record::Evaluation { score, loss })
            }
            DIGEST => {
                let (flags, digest) = payload.split_first()?;
                let digest = Digest::new(digest.try_into().ok()?);
                (flags & !AT_REST == 0).then_some(Record::Digest {
                    at_rest: *flags == AT_REST,
                    digest,
                })
            }
            _ => None,
        }
    }

    fn decode_step(&mut self, payload: &[u8]) -> Option<Record> {
        let (flags, mut rest) = payload.split_first()?;
        if flags & !(RATE | SINGLE | AT_REST) != 0 {
            return None;
        }
        let mut lr = self.lr;
        if flags & RATE != 0 {
            let (bytes, answers) = rest.split_first_chunk()?;
            (lr, rest) = (Some(f64::from_le_bytes(*bytes)), answers);
        }
        let answers = match flags & SINGLE {
            0 => doubles(rest)?,
            _ => singles(rest)?,
        };
        self.lr = lr;
        Some(Record::Step(RecordedStep {
            lr: lr?,
            began_at_rest: flags & AT_REST != 0,
            answers,
        }))
    }
}

fn check(head: [u8; 4]) -> u8 {
    head.into_iter().fold(0xA5, |check, byte| check ^ byte)
}

fn doubles(bytes: &[u8]) -> Option<Vec<f64>> {
    let (numbers, rest) = bytes.as_chunks();
    let numbers = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes));
    rest.is_empty().then(|| numbers.collect())
}

fn singles(bytes: &[u8]) -> Option<Vec<f64>> {
    let (numbers, rest) = bytes.as_chunks();
    let numbers = numbers
        .iter()
        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
    rest.is_empty().then(|| numbers.collect())
}

/// What is wrong with the bytes `from..to` of a file. When the power fails, a file can have grown by sectors that were never written: if the
/// file ends in zeros from the border of a sector in this record on, it is torn there.
fn damaged(file: &[u8], [from, to]: [usize; 2], reason: &str) -> Next {
    let written = file
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let border = written.max(from).next_multiple_of(SECTOR);
    match border < to && border + HEAD < file.len() {
        true => Next::Torn,
        false => Next::Damaged(reason.to_owned()),
    }
}
