//! Memory as kernels want it: read-only mapped files, and zeroed arrays aligned to cache lines.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::ops::{Deref, DerefMut, Range};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::{Mmap, MmapMut};

/// Alignment of every [`AlignedVec`]: a cache line, and the widest vector register.
pub const ALIGNMENT: usize = 64;

/// From this size on an array is mapped on its own, so that the system can back it by huge pages.
const MAPPED_BYTES_MIN: usize = 4 << 20;

/// A file's contents, mapped read-only.
///
/// The file must not be cut short or overwritten while it is mapped: reading a page that is gone kills the process
/// (SIGBUS), as for every program that maps files. Replace models by renaming a new file into place; a mapping keeps
/// the old one.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole of the file at `path`.
    ///
    /// # Errors
    /// What the operating system says about opening, examining or mapping it; what is no regular file is
    /// [`io::ErrorKind::InvalidInput`].
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the mapping is read-only and lives as long as this value. That nobody truncates or rewrites the file
        // meanwhile can't be enforced on the systems we run on; it is the documented duty of whoever owns the file.
        let map = unsafe { Mmap::map(&file)? };
        Ok(MappedFile { map })
    }

    /// Gives the memory that holds contents back to the system; what is read again comes from the file again.
    pub fn forget(&self) {
        // SAFETY: the mapping is of a file and read-only, so its pages hold nothing that the file does not. Advice only:
        // where it isn't taken, the pages stay.
        #[cfg(unix)]
        let _ = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }

    /// The contents.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// A part of a mapped file, which stays mapped as long as any of its parts is there.
#[derive(Clone, Debug)]
pub struct MappedPart {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl MappedPart {
    /// `None` where the file has no such part, or it does not begin at a multiple of [`ALIGNMENT`].
    pub fn new(file: &Arc<MappedFile>, range: Range<usize>) -> Option<MappedPart> {
        file.bytes().get(range.clone()).filter(|part| part.as_ptr().addr().is_multiple_of(ALIGNMENT))?;
        Some(MappedPart { file: file.clone(), range })
    }
}

impl Deref for MappedPart {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }
}

/// Bytes that memory hands out at a time.
pub(crate) const LINE_BYTES: usize = 64;

/// Asks for the cache line at an address, which need not be one.
#[inline(always)]
pub(crate) fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch neither faults nor changes anything, at any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Numbers for which all bits zero is a value.
///
/// # Safety
/// Any `size_of::<Self>()` zero bytes must be a valid value, and values must need no drop.
pub unsafe trait Zeroed: Copy + Send + Sync + 'static {
    /// The value of all bits zero.
    fn zero() -> Self;
}

macro_rules! zeroed_numbers {
    ($($ty:ty)*) => {
        // SAFETY: plain numbers; zero bits are the value 0.
        $(unsafe impl Zeroed for $ty {
            fn zero() -> $ty {
                // SAFETY: as above.
                unsafe { std::mem::zeroed() }
            }
        })*
    };
}
zeroed_numbers!(u8 i8 u16 i16 u32 i32 u64 i64 usize f32 f64 f16 bf16);

/// A fixed-length array that starts zeroed and aligned to [`ALIGNMENT`] bytes.
pub struct AlignedVec<T: Zeroed> {
    data: NonNull<T>,
    len: usize,
    backing: Backing,
}

enum Backing {
    Empty,
    Heap(Layout),
    /// Unmapped when dropped.
    Mapped(#[allow(dead_code)] MmapMut),
    /// A part of an [`Arena`], which lives as long as any of them.
    Part(#[allow(dead_code)] Arc<MmapMut>),
}

// SAFETY: it owns its memory as a `Vec<T>` does, and `Zeroed` is Send and Sync.
unsafe impl<T: Zeroed> Send for AlignedVec<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroed> Sync for AlignedVec<T> {}

impl<T: Zeroed> AlignedVec<T> {
    /// `len` zeros. Memory that is never touched is, for large arrays, never taken from the system.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`] with the size when the system refuses it or it overflows.
    pub fn try_zeroed(len: usize) -> io::Result<AlignedVec<T>> {
        let refused = || {
            let message = format!("no memory for {len} elements of {} bytes", size_of::<T>());
            io::Error::new(io::ErrorKind::OutOfMemory, message)
        };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(refused)?;
        if bytes == 0 {
            return Ok(AlignedVec { data: NonNull::dangling(), len, backing: Backing::Empty });
        }
        if bytes >= MAPPED_BYTES_MIN {
            let mut map = MmapMut::map_anon(bytes).map_err(|_| refused())?;
            // Advice only: where it isn't taken, pages stay small.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            let data = NonNull::new(map.as_mut_ptr().cast::<T>()).ok_or_else(refused)?;
            return Ok(AlignedVec { data, len, backing: Backing::Mapped(map) });
        }
        let layout = Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| refused())?;
        // SAFETY: the layout's size isn't 0.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<T>()).ok_or_else(refused)?;
        Ok(AlignedVec { data, len, backing: Backing::Heap(layout) })
    }

    /// As [`AlignedVec::try_zeroed`], for sizes that can't reasonably fail.
    ///
    /// # Panics
    /// When the system refuses the memory.
    pub fn zeroed(len: usize) -> AlignedVec<T> {
        match AlignedVec::try_zeroed(len) {
            Ok(array) => array,
            Err(error) => panic!("{error}"),
        }
    }
}

/// One large mapping from which arrays are cut in the order they are asked for: what is read one after the other lies so
/// in memory, on huge pages where the system has them.
pub struct Arena {
    map: Option<Arc<MmapMut>>,
    start: NonNull<u8>,
    /// Bytes handed out.
    used: usize,
    bytes: usize,
}

impl Arena {
    /// Room for `bytes`, of which the system gives what is touched. Where it gives none, every array is on its own.
    pub fn new(bytes: usize) -> Arena {
        let none = Arena { map: None, start: NonNull::dangling(), used: 0, bytes: 0 };
        let Ok(mut map) = MmapMut::map_anon(bytes.max(1)) else { return none };
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let Some(start) = NonNull::new(map.as_mut_ptr()) else { return none };
        Arena { map: Some(Arc::new(map)), start, used: 0, bytes }
    }

    /// `len` zeros, of their own memory where there is no more room here.
    ///
    /// # Panics
    /// When the system refuses the memory.
    pub fn zeroed<T: Zeroed>(&mut self, len: usize) -> AlignedVec<T> {
        let at = self.used.next_multiple_of(ALIGNMENT);
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| at.checked_add(bytes));
        let (Some(map), Some(end)) = (&self.map, end.filter(|end| *end <= self.bytes && len > 0)) else {
            return AlignedVec::zeroed(len);
        };
        self.used = end;
        // SAFETY: `at` is within the mapping, and a multiple of the alignment as the mapping's start is.
        let data = unsafe { self.start.add(at) }.cast::<T>();
        AlignedVec { data, len, backing: Backing::Part(map.clone()) }
    }
}

impl<T: Zeroed> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        if let Backing::Heap(layout) = self.backing {
            // SAFETY: allocated in `try_zeroed` with this layout, and freed only here.
            unsafe { dealloc(self.data.as_ptr().cast(), layout) }
        }
    }
}

impl<T: Zeroed> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `data` points at `len` initialised values (zeroed, or none) that this owns; an arena hands out each
        // byte once, and its mapping lives as long as its parts.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_zero_aligned_and_writable_at_every_size() {
        for len in [0, 1, 15, 1000, MAPPED_BYTES_MIN / 4 - 1, MAPPED_BYTES_MIN / 4, 3_000_001] {
            let mut array = AlignedVec::<f32>::zeroed(len);
            assert_eq!(array.len(), len);
            assert!(array.iter().all(|&x| x == 0.0));
            assert!(len == 0 || (array.as_ptr() as usize).is_multiple_of(ALIGNMENT));
            array.fill(1.5);
            assert_eq!(array.iter().filter(|&&x| x == 1.5).count(), len);
        }
    }

    #[test]
    fn parts_of_an_arena_lie_one_after_the_other_and_outlive_it() {
        let mut arena = Arena::new(1000);
        let mut parts: Vec<AlignedVec<f32>> = [10, 0, 30, 300, 5].map(|len| arena.zeroed(len)).into();
        drop(arena);
        for (i, part) in parts.iter_mut().enumerate() {
            assert!(
                part.iter().all(|&x| x == 0.0) && (part.is_empty() || part.as_ptr().addr() % ALIGNMENT == 0)
            );
            part.fill(i as f32);
        }
        let starts: Vec<usize> = parts.iter().map(|part| part.as_ptr().addr()).collect();
        assert_eq!([starts[2] - starts[0], starts[4] - starts[0]], [64, 192], "the one of 300 is on its own");
        assert!(parts.iter().enumerate().all(|(i, part)| part.iter().all(|&x| x == i as f32)));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for len in [usize::MAX, usize::MAX / 8, 1 << 60] {
            let error = AlignedVec::<u64>::try_zeroed(len).err().map(|error| error.kind());
            assert_eq!(error, Some(io::ErrorKind::OutOfMemory), "{len}");
        }
    }

    #[test]
    fn a_mapped_file_shows_its_bytes() {
        let path = std::env::temp_dir().join(format!("tureen-mapped-{}", std::process::id()));
        std::fs::write(&path, b"GGUF and more").unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        assert_eq!(mapped.bytes(), b"GGUF and more");
        mapped.forget();
        assert_eq!(mapped.bytes(), b"GGUF and more");
        let shared = Arc::new(mapped);
        let part = |range| MappedPart::new(&shared, range).map(|part| part.to_vec());
        assert_eq!(part(0..4), Some(b"GGUF".to_vec()));
        assert_eq!([part(4..8), part(0..14), part(64..64)], [None, None, None]);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(MappedFile::open(&path).unwrap().bytes(), b"");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn folders_and_missing_files_are_errors() {
        let kind = |path: &Path| MappedFile::open(path).err().map(|error| error.kind());
        assert_eq!(kind(&std::env::temp_dir()), Some(io::ErrorKind::InvalidInput));
        assert_eq!(kind(Path::new("/no/such/file")), Some(io::ErrorKind::NotFound));
    }
}
