//! What `torch.save` writes for a state dict, assembled without Python.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::io::{Cursor, Write};

use safetensors::Dtype as FileDtype;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::common::Tensors;

/// A storage: elements of one type.
pub(crate) struct Storage {
    pub(crate) class: &'static str,
    pub(crate) count: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Storage {
    pub(crate) fn new(dtype: FileDtype, bytes: Vec<u8>) -> Self {
        let (class, size) = match dtype {
            FileDtype::F64 => ("DoubleStorage", 8),
            FileDtype::F32 => ("FloatStorage", 4),
            FileDtype::F16 => ("HalfStorage", 2),
            FileDtype::BF16 => ("BFloat16Storage", 2),
            FileDtype::I32 => ("IntStorage", 4),
            other => panic!("{other:?}"),
        };
        Self {
            class,
            count: bytes.len() / size,
            bytes,
        }
    }
}

/// A tensor: a view of a storage, by its index.
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) storage: usize,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) stride: Vec<usize>,
}

impl View {
    pub(crate) fn contiguous(name: &str, storage: usize, shape: &[usize]) -> Self {
        let mut stride = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            stride[axis - 1] = stride[axis] * shape[axis];
        }
        Self {
            name: name.to_owned(),
            storage,
            offset: 0,
            shape: shape.to_vec(),
            stride,
        }
    }
}

/// A state dict before it is written.
#[derive(Default)]
pub(crate) struct StateDict {
    pub(crate) storages: Vec<Storage>,
    pub(crate) views: Vec<View>,
}

impl StateDict {
    /// Each tensor in a storage of its own.
    pub(crate) fn new(tensors: &Tensors) -> Self {
        let mut dict = Self::default();
        for (name, (dtype, shape, bytes)) in tensors {
            dict.views
                .push(View::contiguous(name, dict.storages.len(), shape));
            dict.storages.push(Storage::new(*dtype, bytes.clone()));
        }
        dict
    }

    pub(crate) fn view(&mut self, name: &str) -> &mut View {
        self.views
            .iter_mut()
            .find(|view| view.name == name)
            .unwrap()
    }

    /// `OrderedDict` of `_rebuild_tensor_v2(storage, offset, shape, stride, False, OrderedDict())`.
    pub(crate) fn pickle(&self) -> Pickle {
        let mut pickle = Pickle::begin();
        pickle.global("collections", "OrderedDict");
        pickle.raw(b")R(");
        for view in &self.views {
            pickle.text(&view.name);
            pickle.global("torch._utils", "_rebuild_tensor_v2");
            pickle.raw(b"(");
            pickle.storage(view.storage, &self.storages[view.storage]);
            pickle.integer(view.offset);
            pickle.integers(&view.shape);
            pickle.integers(&view.stride);
            pickle.raw(b"\x89");
            pickle.global("collections", "OrderedDict");
            pickle.raw(b")RtR");
        }
        pickle.raw(b"u");
        pickle
    }

    /// As PyTorch writes since 1.6.
    pub(crate) fn zip(&self) -> Vec<u8> {
        zip(self.pickle(), &self.storages)
    }

    /// As PyTorch wrote before: magic number, version, system, the object, the storages' keys, and their elements.
    pub(crate) fn legacy(&self) -> Vec<u8> {
        let mut bytes = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
        let mut system = Pickle::begin();
        system.raw(b"}");
        system.text("little_endian");
        system.raw(b"\x88s");
        bytes.extend(system.end());
        bytes.extend(self.pickle().end());
        // Storages that no tensor uses are not written.
        let used: BTreeSet<_> = self.views.iter().map(|view| view.storage).collect();
        let mut keys = Pickle::begin();
        keys.raw(b"](");
        for index in &used {
            keys.text(&index.to_string());
        }
        keys.raw(b"e");
        bytes.extend(keys.end());
        for index in used {
            let storage = &self.storages[index];
            bytes.extend((storage.count as u64).to_le_bytes());
            bytes.extend(&storage.bytes);
        }
        bytes
    }
}

/// An archive of a pickle and storages.
pub(crate) fn zip(pickle: Pickle, storages: &[Storage]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut add = |name: String, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("pytorch_model/data.pkl".to_owned(), &pickle.end());
    add("pytorch_model/byteorder".to_owned(), b"little");
    for (index, storage) in storages.iter().enumerate() {
        add(format!("pytorch_model/data/{index}"), &storage.bytes);
    }
    add("pytorch_model/version".to_owned(), b"3\n");
    zip.finish().unwrap().into_inner()
}

/// The opcodes of a pickle, protocol 2.
pub(crate) struct Pickle(Vec<u8>);

impl Pickle {
    pub(crate) fn begin() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.raw(b".");
        self.0
    }

    pub(crate) fn raw(&mut self, opcodes: &[u8]) {
        self.0.extend(opcodes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.raw(b"X");
        self.raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    pub(crate) fn integer(&mut self, value: usize) {
        self.raw(b"J");
        self.raw(&(value as i32).to_le_bytes());
    }

    pub(crate) fn integers(&mut self, values: &[usize]) {
        self.raw(b"(");
        for value in values {
            self.integer(*value);
        }
        self.raw(b"t");
    }

    pub(crate) fn global(&mut self, module: &str, name: &str) {
        self.raw(format!("c{module}\n{name}\n").as_bytes());
    }

    /// A reference to a storage by the persistent id `("storage", class, key, "cpu", count)`.
    pub(crate) fn storage(&mut self, index: usize, storage: &Storage) {
        self.raw(b"(");
        self.text("storage");
        self.global("torch", storage.class);
        self.text(&index.to_string());
        self.text("cpu");
        self.integer(storage.count);
        self.raw(b"tQ");
    }
}
