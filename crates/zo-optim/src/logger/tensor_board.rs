//! Event files for TensorBoard: TFRecords of the protocol buffer `Event`, as far as curves need it.
//!
//! ```text
//! record   length: u64, masked crc of the length: u32, data, masked crc of the data: u32     little endian
//! Event    wall_time = 1: double, step = 2: int64, file_version = 3: string or summary = 5: Summary
//! Summary  value = 1: Value, once for each
//! Value    tag = 1: string, simple_value = 2: float
//! ```

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{EVALUATION, LogError, Logger, Record, stays};

/// What the tags of values of held-out rows begin with.
const EVALUATION_TAG: &str = "eval/";

/// Ends the name of a file of ours. TensorBoard looks for `tfevents` in names.
const SUFFIX: &str = ".zo-optim";

/// A folder for TensorBoard (`tensorboard --logdir DIR`): values whose names begin with `eval_` are `eval/...`, others `train/...`. What an earlier
/// run logged in the folder is replaced, unless this one goes on with it; event files of other programs are left alone.
#[derive(Debug)]
pub struct TensorBoard {
    dir: PathBuf,
    /// The file of events, and where it is.
    file: Option<(PathBuf, File)>,
    /// Seconds since 1970.
    now: fn() -> f64,
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

impl TensorBoard {
    /// The folder `dir`, made at the first record.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            file: None,
            now,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Our event files in the folder, in the order of their times.
    fn files(&self) -> Result<Vec<PathBuf>, LogError> {
        fs::create_dir_all(&self.dir).map_err(LogError::io(&self.dir))?;
        let entries = fs::read_dir(&self.dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut files: Vec<PathBuf> = entries
            .map_err(LogError::io(&self.dir))?
            .iter()
            .map(fs::DirEntry::path)
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.contains("tfevents") && name.ends_with(SUFFIX)
            })
            .collect();
        files.sort();
        Ok(files)
    }

    /// A new file, with the version that readers ask for.
    fn begin(&self) -> Result<(PathBuf, File), LogError> {
        for old in self.files()? {
            fs::remove_file(&old).map_err(LogError::io(&old))?;
        }
        let now = (self.now)();
        let name = format!("events.out.tfevents.{:010}{SUFFIX}", now as u64);
        let path = self.dir.join(name);
        let mut file = File::create(&path).map_err(LogError::io(&path))?;
        let mut event = Vec::new();
        double(&mut event, 1, now);
        bytes(&mut event, 3, b"brain.Event:2");
        file.write_all(&frame(&event))
            .map_err(LogError::io(&path))?;
        Ok((path, file))
    }
}

impl Logger for TensorBoard {
    fn resume(&mut self, step: usize, evaluated: bool) -> Result<(), LogError> {
        self.file = None;
        let Some(path) = self.files()?.pop() else {
            return Ok(());
        };
        let written = fs::read(&path).map_err(LogError::io(&path))?;
        match kept(&written, (step, evaluated)) {
            // Not even the version is there.
            0 => Ok(()),
            length => {
                // Not for appending: on Windows such a file cannot be cut.
                let opened = File::options().write(true).open(&path);
                let cut = opened.and_then(|mut file| {
                    file.set_len(length as u64)?;
                    file.seek(SeekFrom::End(0)).map(|_| file)
                });
                let file = cut.map_err(LogError::io(&path))?;
                self.file = Some((path, file));
                Ok(())
            }
        }
    }

    fn log(&mut self, record: &Record) -> Result<(), LogError> {
        if self.file.is_none() {
            self.file = Some(self.begin()?);
        }
        let mut summary = Vec::new();
        for (name, number) in record.numbers() {
            let tag = match name.strip_prefix(EVALUATION) {
                Some(name) => format!("{EVALUATION_TAG}{name}"),
                None => format!("train/{name}"),
            };
            let mut value = Vec::new();
            bytes(&mut value, 1, tag.as_bytes());
            value.push(2 << 3 | 5);
            value.extend((number as f32).to_le_bytes());
            bytes(&mut summary, 1, &value);
        }
        let mut event = Vec::new();
        double(&mut event, 1, (self.now)());
        // A 0 is left out, as everywhere in protocol buffers.
        if record.step > 0 {
            event.push(2 << 3);
            varint(&mut event, record.step as u64);
        }
        bytes(&mut event, 5, &summary);
        match &mut self.file {
            // In one write: a reader beside us never waits for the rest.
            Some((path, file)) => file.write_all(&frame(&event)).map_err(LogError::io(path)),
            None => Ok(()),
        }
    }
}

/// How many bytes hold whole records that stay when the run goes on from there.
fn kept(file: &[u8], end: (usize, bool)) -> usize {
    let mut length = 0;
    while let Some(event) = unframe(&file[length..])
        && step_of(event).is_some_and(|at| stays(at as usize, is_evaluation(event), end))
    {
        length += event.len() + 16;
    }
    length
}

/// The data of the first record of `bytes`; `None` if it is not whole.
fn unframe(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (check, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (data, rest) = rest.split_at_checked(size)?;
    let whole = *check == masked_crc(length) && *rest.first_chunk()? == masked_crc(data);
    whole.then_some(data)
}

/// Whether an event that was written here has values of held-out rows. A tag is a field of bytes, number 1, before which its length stands.
fn is_evaluation(event: &[u8]) -> bool {
    let tags = event.windows(EVALUATION_TAG.len() + 2);
    tags.into_iter()
        .any(|tag| tag[0] == 1 << 3 | 2 && tag[2..] == *EVALUATION_TAG.as_bytes())
}

/// The step of an event that was written here: its time, then its step, unless that is 0. `None` if it is another program's.
fn step_of(event: &[u8]) -> Option<u64> {
    let rest = event.strip_prefix(&[1 << 3 | 1])?.get(8..)?;
    let Some(rest) = rest.strip_prefix(&[2 << 3]) else {
        return Some(0);
    };
    let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
    let groups = rest[..=end].iter().rev().map(|byte| u64::from(byte & 0x7f));
    Some(groups.fold(0, |step, group| step << 7 | group))
}

/// A record of a TFRecord file.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes, a string or a message.
fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// TFRecord's check: a crc of data that holds crcs would be weak, so it is turned and shifted.
fn masked_crc(data: &[u8]) -> [u8; 4] {
    let crc = crc32c(data).rotate_right(15);
    crc.wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32C (Castagnoli), byte by byte: records are small.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !data.iter().fold(!0, step)
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
