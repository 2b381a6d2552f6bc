//! Moves the running program from the file it was started from to another open file of the same inode.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{MountAttributes, succeed};

/// The kernel's pages, and what program headers are aligned to.
const PAGE: usize = 4096;
/// Leads to the file that the program was started from, whatever its name is now.
pub(crate) const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// A part of the program in memory, as its program header has it: addresses and sizes in bytes.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// The first page.
    start: usize,
    /// Up to the end of the last page that comes from the file.
    length: usize,
    offset: libc::off_t,
    protection: libc::c_int,
}

/// `struct prctl_mm_map` of `linux/prctl.h`: where the parts of a process are, for those who read `/proc/PID`.
#[repr(C)]
#[derive(Debug, Default)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_break: u64,
    end_break: u64,
    start_stack: u64,
    start_arguments: u64,
    end_arguments: u64,
    start_environment: u64,
    end_environment: u64,
    auxiliary_vector: u64,
    auxiliary_size: u32,
    program: u32,
}

/// The running program's file on a copy of the mount that it was started from, which is attached to nothing.
#[derive(Debug)]
pub struct ProgramCopy(OwnedFd);

impl ProgramCopy {
    /// A copy with these attributes.
    ///
    /// # Errors
    /// The kernel's errno: a file in memory is on no mount that can be copied, and an ordinary user may copy none.
    pub fn new(attributes: &MountAttributes) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = open_tree(CWD, OWN_PROGRAM, flags)?;
        super::set_mount_attributes(copy.as_fd(), c"", false, attributes)?;
        // A standard stream that is closed is found closed later, and `/dev/null` takes its place: not this, which the program loses.
        let copy = if copy.as_raw_fd() > libc::STDERR_FILENO { copy } else { fcntl_dupfd_cloexec(&copy, 3)? };
        Ok(ProgramCopy(copy))
    }

    /// The place of the file: enough to execute it.
    #[must_use]
    pub fn into_place(self) -> OwnedFd {
        self.0
    }
}

/// Maps every part of the running program through such a copy, and makes that what `/proc/PID/exe` leads to: `PR_SET_MM_MAP`
/// of prctl(2), which refuses while the old file is still mapped, and takes `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE` and a
/// kernel with `CONFIG_CHECKPOINT_RESTORE`. `arguments` are those that the program was started with.
///
/// Saves what starting the program once more would cost: an execve and the start of the C library.
///
/// # Errors
/// `ENOEXEC` where the program is not one at a fixed address without a dynamic linker; the kernel's errno. The program goes on
/// either way: its bytes are the same from both files.
pub fn remap_program(copy: &ProgramCopy, arguments: &[OsString]) -> io::Result<()> {
    let headers = headers()?;
    // The descriptor of a mount is only a place; what is mapped has to be opened.
    let path = format!("/proc/self/fd/{}", copy.0.as_raw_fd());
    let file = rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let file = file.as_fd();
    let mut map = MemoryMap::here(arguments);
    for header in headers {
        if let Some(segment) = Segment::of(header) {
            // SAFETY: the segment is one of this program's, and `file` is its file, which nobody can have written to: the
            // kernel refuses to open a running program for writing. The runtime has one thread.
            unsafe { segment.remap(file)? };
            map.add(header);
        }
    }
    map.program = super::raw(file);
    // SAFETY: the structure is as large as is said; the kernel copies it and checks that the addresses are the process's.
    succeed(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0)
    }))
}

impl MemoryMap {
    /// What is known without asking: the kernel lays out the arguments, the environment and the program's name one after the
    /// other, and the vector that it passes tells where the name is (`create_elf_tables` of `fs/binfmt_elf.c`).
    fn here(arguments: &[OsString]) -> Self {
        unsafe extern "C" {
            static environ: *const *const libc::c_char;
        }
        // SAFETY: nobody changes the environment; the C library ends it with a null pointer.
        let (name, first) = unsafe {
            let first = if environ.is_null() { std::ptr::null() } else { *environ };
            (libc::getauxval(libc::AT_EXECFN), first)
        };
        let start_environment = if first.is_null() { name } else { first.addr() as u64 };
        let length: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
        // Were it otherwise, the kernel would refuse an address that is not the process's.
        let start_arguments = start_environment.saturating_sub(length as u64);
        MemoryMap {
            start_stack: start_arguments,
            start_arguments,
            end_arguments: start_environment,
            start_environment,
            end_environment: name,
            ..MemoryMap::default()
        }
    }

    /// Takes in a segment.
    fn add(&mut self, header: &libc::Elf64_Phdr) {
        let end = header.p_vaddr + header.p_filesz;
        if header.p_flags & libc::PF_X != 0 {
            (self.start_code, self.end_code) = (header.p_vaddr, end);
        }
        if header.p_flags & libc::PF_W != 0 {
            (self.start_data, self.end_data) = (header.p_vaddr, end);
            // The heap of brk(2), which nothing uses here, would begin behind the data.
            let end = (header.p_vaddr + header.p_memsz).next_multiple_of(PAGE as u64);
            (self.start_break, self.end_break) = (end, end);
        }
    }
}

/// This program's headers. At an address of the kernel's choice, or with a dynamic linker, there is more in memory than they
/// tell.
fn headers() -> io::Result<&'static [libc::Elf64_Phdr]> {
    // SAFETY: getauxval only reads what the kernel left for the process.
    let value = |kind| usize::try_from(unsafe { libc::getauxval(kind) }).unwrap_or(0);
    let (address, count) = (value(libc::AT_PHDR), value(libc::AT_PHNUM));
    if address == 0 || value(libc::AT_PHENT) != size_of::<libc::Elf64_Phdr>() {
        return Err(io::Error::from_raw_os_error(libc::ENOEXEC));
    }
    let pointer = std::ptr::with_exposed_provenance::<libc::Elf64_Phdr>(address);
    // SAFETY: the kernel mapped the headers with the program, `count` of this size, and nothing ever unmaps or writes them:
    // a remapping puts the same bytes there.
    let headers = unsafe { std::slice::from_raw_parts(pointer, count) };
    let start =
        usize::try_from(headers.iter().find(|header| is_first(header)).map_or(0, |first| first.p_vaddr));
    let is_fixed = start.is_ok_and(|start| start != 0 && (start..start + PAGE).contains(&address));
    let is_alone = headers.iter().all(|header| header.p_type != libc::PT_INTERP);
    if is_fixed && is_alone { Ok(headers) } else { Err(io::Error::from_raw_os_error(libc::ENOEXEC)) }
}

/// The one that begins with the ELF header.
fn is_first(header: &libc::Elf64_Phdr) -> bool {
    header.p_type == libc::PT_LOAD && header.p_offset == 0
}

impl Segment {
    fn of(header: &libc::Elf64_Phdr) -> Option<Self> {
        if header.p_type != libc::PT_LOAD || header.p_filesz == 0 {
            return None;
        }
        let (address, size) = (usize::try_from(header.p_vaddr).ok()?, usize::try_from(header.p_filesz).ok()?);
        let within = address % PAGE;
        let flag = |bit, protection| if header.p_flags & bit != 0 { protection } else { 0 };
        Some(Segment {
            start: address - within,
            length: (within + size).next_multiple_of(PAGE),
            offset: libc::off_t::try_from(header.p_offset).ok()? - libc::off_t::try_from(within).ok()?,
            protection: flag(libc::PF_R, libc::PROT_READ)
                | flag(libc::PF_W, libc::PROT_WRITE)
                | flag(libc::PF_X, libc::PROT_EXEC),
        })
    }

    /// # Safety
    /// The segment must be one of this program's, and `file` must have the bytes it was made from. No other thread may run.
    unsafe fn remap(self, file: BorrowedFd<'_>) -> io::Result<()> {
        let place = std::ptr::with_exposed_provenance_mut::<libc::c_void>(self.start);
        let private = libc::MAP_PRIVATE;
        if self.protection & libc::PROT_WRITE == 0 {
            // SAFETY: nobody can have changed these pages, so the file has the same bytes; the kernel replaces the mapping
            // in one step.
            return mapped(unsafe {
                let flags = private | libc::MAP_FIXED;
                libc::mmap(place, self.length, self.protection, flags, file.as_raw_fd(), self.offset)
            })
            .map(drop);
        }
        let mut saved = Vec::with_capacity(self.length);
        // SAFETY: the segment is `length` bytes long, `saved` has room for them, and they do not overlap. Between the two
        // copies the data are what they were at the program's start: there is one thread, in this function, which uses its
        // stack and what was allocated before, and the C library stores an errno only of a call that failed.
        mapped(unsafe {
            std::ptr::copy_nonoverlapping(place.cast::<u8>(), saved.as_mut_ptr(), self.length);
            let flags = private | libc::MAP_FIXED;
            let new = libc::mmap(place, self.length, self.protection, flags, file.as_raw_fd(), self.offset);
            if new != libc::MAP_FAILED {
                std::ptr::copy_nonoverlapping(saved.as_ptr(), place.cast::<u8>(), self.length);
            }
            new
        })
        .map(drop)
    }
}

fn mapped(place: *mut libc::c_void) -> io::Result<*mut libc::c_void> {
    if place == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(place) }
}
