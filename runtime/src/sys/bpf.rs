//! bpf(2), for the device rules of a cgroup.
#![allow(unsafe_code, reason = "part of the one home of unsafe code; every block states its obligation")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{owned, raw};

/// One instruction of extended BPF: `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BpfInstruction {
    /// The operation.
    pub code: u8,
    /// The destination register in the low four bits, the source register in the high four.
    pub registers: u8,
    /// An offset: of a load, or of a jump in instructions.
    pub offset: i16,
    /// The constant of the operation.
    pub constant: i32,
}

/// `BPF_PROG_LOAD` for a cgroup device program under the license `Apache-2.0`, which calls no GPL-only helper.
///
/// # Errors
/// The kernel's errno; `EACCES` where its verifier refuses the program, `EPERM` without `CAP_BPF` or `CAP_SYS_ADMIN`.
pub fn load_device_program(program: &[BpfInstruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = ProgramLoad {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        ..ProgramLoad::default()
    };
    // SAFETY: the attributes' pointers are to `program` and `license`, which outlive the call; the kernel only reads them.
    owned(unsafe { bpf(BPF_PROG_LOAD, &raw const attributes) }?)
}

/// `BPF_PROG_ATTACH` of a device program to a cgroup. With `replaced` the program takes that one's place in one step,
/// else it is added to those there (`BPF_F_ALLOW_MULTI`).
///
/// # Errors
/// The kernel's errno.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let flags = if replaced.is_some() { BPF_F_ALLOW_MULTI | BPF_F_REPLACE } else { BPF_F_ALLOW_MULTI };
    let attributes = ProgramAttach {
        target: raw(cgroup),
        program: raw(program),
        attach_type: BPF_CGROUP_DEVICE,
        flags,
        replaced: replaced.map_or(0, raw),
    };
    // SAFETY: the attributes hold no pointers; the descriptors are open for the length of the call.
    unsafe { bpf(BPF_PROG_ATTACH, &raw const attributes) }.map(|_| ())
}

/// `BPF_PROG_DETACH` of a device program from a cgroup.
///
/// # Errors
/// The kernel's errno.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = ProgramAttach {
        target: raw(cgroup),
        program: raw(program),
        attach_type: BPF_CGROUP_DEVICE,
        ..ProgramAttach::default()
    };
    // SAFETY: the attributes hold no pointers; the descriptors are open for the length of the call.
    unsafe { bpf(BPF_PROG_DETACH, &raw const attributes) }.map(|_| ())
}

/// The kernel's IDs of the device programs attached to a cgroup itself, at most 64 (`BPF_CGROUP_MAX_PROGS`).
///
/// # Errors
/// The kernel's errno.
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut attributes = ProgramQuery {
        target: raw(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr().addr() as u64,
        count: 64,
        ..ProgramQuery::default()
    };
    // SAFETY: `ids` has room for the 64 IDs that `count` allows; `attributes` is exclusively ours and may be written.
    unsafe { bpf(BPF_PROG_QUERY, (&raw mut attributes).cast_const()) }?;
    ids.truncate(usize::try_from(attributes.count).unwrap_or(0));
    Ok(ids)
}

/// `BPF_PROG_GET_FD_BY_ID`.
///
/// # Errors
/// The kernel's errno; `ENOENT` where the program is gone.
pub fn open_program(id: u32) -> io::Result<OwnedFd> {
    let attributes = ProgramId { id, ..ProgramId::default() };
    // SAFETY: the attributes hold no pointers.
    owned(unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &raw const attributes) }?)
}

// `enum bpf_cmd`, `enum bpf_prog_type`, `enum bpf_attach_type` and the attach flags of `linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The first members of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct ProgramAttach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ProgramId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct ProgramQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// bpf(2).
///
/// # Safety
/// `attributes` must be what `command` takes, and every address in it must be valid for what the kernel does with it.
unsafe fn bpf<T>(command: libc::c_int, attributes: *const T) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for the attributes; the size is theirs.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
