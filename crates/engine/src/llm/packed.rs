//! Packed weights kept in a folder, so that a model that was packed once is mapped at the next start: a start takes little
//! more than reading, and processes share the memory. Files are named by all that decides what is in them, the content of
//! the model's files, the instruction set and how that lays weights out; so none is ever wrong, only unused.
//!
//! A file: a header of 4,096 bytes (below), then for each matrix, in the order of packing, a record of 64 bytes (length,
//! then a hash of its tensors' names, types and shapes, little-endian, then zeros) and its bytes, padded to 64.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use formats::model::{ModelFiles, Tensor};
use kernels::compute::Compute;
use kernels::elements::ElementType;
use kernels::matmul::{PackedWeights, Weights};
use kernels::memory::{ALIGNMENT, Arena, MappedFile, MappedPart};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::fingerprint::hash;
use super::packed_folder::{PartialFile, make_room};
use super::settings::{Bytes, PackedFolder};
use super::weights::{DecoderWeights, WeightsError, packed_bytes_max};

const MAGIC: &[u8; 8] = b"TUREENPW";
/// Of this file format. How weights are laid out has a hash of its own.
const VERSION: u64 = 1;
/// The data begins at a page of memory.
const HEADER_BYTES: usize = 4096;
/// What the header begins with: magic, version, content, layout, bytes and hash of the data, then a hash of these.
const FIELDS: usize = 7;
const RECORD_BYTES: usize = 64;

/// Why packed weights were not used, or not kept. The model is then packed from its own files.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackedError {
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: io::Error },
    #[error("{path} is damaged: {what}")]
    Damaged { path: PathBuf, what: &'static str },
    #[error("they take {needed}, and at most {most} are to be kept: raise packed_max")]
    TooLarge { needed: Bytes, most: Bytes },
}

/// The packed weights of one model on one instruction set.
pub(super) struct PackedCache {
    folder: PackedFolder,
    content: u64,
    layout: u64,
    path: PathBuf,
    /// That a file of it may have.
    bytes_max: u64,
}

impl PackedCache {
    /// For a model whose files have the hash `weights`.
    pub fn new(folder: &PackedFolder, compute: &Compute, files: &ModelFiles, weights: u64) -> PackedCache {
        // Of a folder, the description says what the tensors in its files are.
        let content = xxh3_64(format!("{:?} {weights}", files.decoder()).as_bytes());
        let layout = layout(compute);
        let path = folder.path.join(format!("{content:016x}-{}-{layout:016x}", compute.isa()));
        let bytes_max = HEADER_BYTES as u64 + packed_bytes_max(files.facts().file_bytes);
        PackedCache { folder: folder.clone(), content, layout, path, bytes_max }
    }

    /// What was packed before, checked; `None` where nothing was.
    pub fn open(&self, compute: &Compute) -> Result<Option<PackedFile>, PackedError> {
        let file = match MappedFile::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(self.failed(cause)),
        };
        let damaged = |what| PackedError::Damaged { path: self.path.clone(), what };
        let (header, data) =
            file.bytes().split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("it is cut short"))?;
        let expected = self.header(data.len() as u64, hash(compute, std::iter::once(data), &mut || {}));
        if header != expected {
            return Err(damaged("its header, its length and its contents do not belong together"));
        }
        // The least recently used goes first where there is no room for all. A folder that can't be written to has nobody
        // who makes room either.
        let _ = File::open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
        let file = PackedFile { file: Arc::new(file), next: Cell::new(HEADER_BYTES) };
        Ok(Some(file))
    }

    /// A file beside where it belongs, for what is about to be packed.
    pub fn writer(&self) -> Result<PackedWriter, PackedError> {
        let mut to = PartialFile::new(&self.folder, self.bytes_max)?;
        to.write(&[&[0; HEADER_BYTES]])?;
        Ok(PackedWriter { to, written: 0 })
    }

    /// Makes a file that is whole the one that is found from now on.
    pub fn keep(&self, compute: &Compute, writer: PackedWriter) -> Result<(), PackedError> {
        let PackedWriter { mut to, written } = writer;
        make_room(&self.folder, HEADER_BYTES as u64 + written, Some(&to))?;
        let path = to.path.clone();
        let mut finish = || {
            to.file.set_len(HEADER_BYTES as u64 + written)?;
            // Nothing is mapped any more when the file is written to again.
            let data_hash = {
                let mapped = MappedFile::open(&path)?;
                hash(compute, std::iter::once(&mapped.bytes()[HEADER_BYTES..]), &mut || mapped.forget())
            };
            to.file.seek(SeekFrom::Start(0))?;
            to.file.write_all(&self.header(written, data_hash))?;
            to.file.sync_all()?;
            std::fs::rename(&path, &self.path)?;
            // The name is on disk once its folder is.
            File::open(&self.folder.path)?.sync_all()
        };
        finish().map_err(|cause| PackedError::File { path: to.path.clone(), cause })
    }

    fn header(&self, data_bytes: u64, data_hash: u64) -> Vec<u8> {
        let magic = u64::from_le_bytes(*MAGIC);
        let fields = [magic, VERSION, self.content, self.layout, data_bytes, data_hash];
        let mut header: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        header.extend(xxh3_64(&header).to_le_bytes());
        debug_assert_eq!(header.len(), 8 * FIELDS);
        header.resize(HEADER_BYTES, 0);
        header
    }

    fn failed(&self, cause: io::Error) -> PackedError {
        PackedError::File { path: self.path.clone(), cause }
    }

    /// What is said of a file whose matrices are other ones, though its name and hash are right.
    pub fn other_matrices(&self) -> PackedError {
        PackedError::Damaged { path: self.path.clone(), what: "it holds other matrices than the model has" }
    }
}

/// Packs a model's weights, or maps what was packed before. `content` is the hash of its files, where `folder` is to be
/// used. Says what kept it from mapping them, or from keeping them.
pub(super) fn load(
    compute: &Compute,
    files: &ModelFiles,
    folder: Option<(&PackedFolder, u64)>,
    progress: &mut dyn FnMut(usize, usize),
    troubles: &mut Vec<String>,
) -> Result<DecoderWeights, WeightsError> {
    let Some((folder, content)) = folder else { return DecoderWeights::load(compute, files, progress) };
    let cache = PackedCache::new(folder, compute, files, content);
    let mut note = |error: PackedError| troubles.push(error.to_string());
    let found = cache.open(compute).map_err(&mut note).ok().flatten();
    if found.is_some() {
        let packing = Packing { from: found, ..Packing::default() };
        match DecoderWeights::read(compute, files, &packing, progress) {
            Ok(weights) if packing.from.is_some_and(|file| file.is_at_end()) => return Ok(weights),
            Ok(_) | Err(WeightsError::PackedOtherwise) => note(cache.other_matrices()),
            Err(error) => return Err(error),
        }
    }
    let to = RefCell::new(cache.writer().map_err(&mut note).ok());
    let packing = Packing { to, ..Packing::default() };
    let weights = DecoderWeights::read(compute, files, &packing, progress)?;
    let kept = packing.to.into_inner().map_or(Ok(()), |writer| cache.keep(compute, writer));
    packing.trouble.into_inner().into_iter().chain(kept.err()).for_each(note);
    Ok(weights)
}

/// Where packed matrices come from if not from packing, and where they are kept if anywhere.
#[derive(Default)]
pub(super) struct Packing {
    pub from: Option<PackedFile>,
    to: RefCell<Option<PackedWriter>>,
    /// Why they are not kept after all.
    trouble: RefCell<Option<PackedError>>,
}

impl Packing {
    pub fn keep(&self, tensors: &[Tensor<'_>], packed: &PackedWeights) {
        let mut to = self.to.borrow_mut();
        if let Some(Err(error)) = to.as_mut().map(|writer| writer.add(tensors, packed)) {
            *to = None;
            *self.trouble.borrow_mut() = Some(error);
        }
    }
}

/// A mapped file whose matrices are taken in the order in which they were packed.
pub(super) struct PackedFile {
    file: Arc<MappedFile>,
    next: Cell<usize>,
}

impl PackedFile {
    /// The next matrix, if it is of these tensors and has so many bytes.
    pub fn take(&self, tensors: &[Tensor<'_>], bytes: usize) -> Option<MappedPart> {
        let at = self.next.get();
        let record = self.file.bytes().get(at..at + RECORD_BYTES)?;
        if record != self::record(tensors, bytes) {
            return None;
        }
        let start = at + RECORD_BYTES;
        self.next.set(start.checked_add(bytes)?.checked_next_multiple_of(ALIGNMENT)?);
        MappedPart::new(&self.file, start..start + bytes)
    }

    /// Whether every matrix was taken.
    pub fn is_at_end(&self) -> bool {
        self.next.get() == self.file.bytes().len()
    }
}

/// Matrices on their way to a file.
pub(super) struct PackedWriter {
    to: PartialFile,
    written: u64,
}

impl PackedWriter {
    pub fn add(&mut self, tensors: &[Tensor<'_>], packed: &PackedWeights) -> Result<(), PackedError> {
        let bytes = packed.as_bytes();
        let padding = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
        let parts = [&record(tensors, bytes.len())[..], bytes, &[0; ALIGNMENT][..padding]];
        self.written += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.to.write(&parts)
    }
}

/// Says which matrix follows.
fn record(tensors: &[Tensor<'_>], bytes: usize) -> [u8; RECORD_BYTES] {
    let mut identity = Xxh3::new();
    for Tensor { name, element_type, shape, .. } in tensors {
        identity.update(format!("{name:?} {element_type} {shape:?}\n").as_bytes());
    }
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&(bytes as u64).to_le_bytes());
    record[8..16].copy_from_slice(&identity.digest().to_le_bytes());
    record
}

/// A hash of how this program lays weights out for the instruction set, by doing so with a little of each type: in two
/// parts that end within a panel, and where the type allows it with rows of odd length.
fn layout(compute: &Compute) -> u64 {
    const ROWS: [usize; 2] = [19, 22];
    let mut whole = Xxh3::new();
    for (element_type, columns) in ElementType::ALL.into_iter().flat_map(|of| [(of, 512), (of, 37)]) {
        let Some(row_bytes) = element_type.row_bytes(columns) else { continue };
        // Each byte is another, over and over, and zeros and ones in a row don't come.
        let byte = |index: usize| (index * 151 % 251) as u8;
        let bytes: Vec<u8> = (0..ROWS[0].max(ROWS[1]) * row_bytes).map(byte).collect();
        let part = |rows: usize| Weights { element_type, rows, columns, bytes: &bytes[..rows * row_bytes] };
        if let Ok(packed) = PackedWeights::pack(compute, &ROWS.map(part), &mut Arena::new(0), &mut || {}) {
            whole.update(&xxh3_64(packed.as_bytes()).to_le_bytes());
        }
    }
    whole.digest()
}
