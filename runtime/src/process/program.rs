//! Whether the kernel is sure to execute a program.
//!
//! `start` returns before execve, as it does with runc and crun, unless there is reason to think that execve will fail: then
//! it waits, so that what goes wrong comes back to its caller rather than into the container's output.

use std::ffi::CStr;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use crate::plan::ProcessPlan;

/// How much of a program is looked at: its header, and the program headers and the name of the dynamic linker, which linkers
/// put right behind it.
const LOOK: usize = 1024;
/// The size of `Elf64_Phdr`.
const PROGRAM_HEADER: usize = 56;
/// `PT_INTERP`.
const INTERPRETER: u32 = 3;
/// `e_machine` of this processor.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: u16 = 0;

/// Looks at the program as its user: a file that it may execute, an ELF program for this processor, whose dynamic linker, if it
/// has one, is there. `false` means no more than that it is not known: a script may well run.
pub(crate) fn is_sure_to_run(plan: &ProcessPlan) -> bool {
    let Some(path) = plan.candidates.first() else { return false };
    // On a mount with `noexec` nothing is executable.
    if rustix::fs::accessat(CWD, path.as_c_str(), Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = rustix::fs::openat(CWD, path.as_c_str(), flags, Mode::empty()) else { return false };
    let mut start = [0_u8; LOOK];
    let Ok(length) = rustix::io::read(&file, &mut start) else { return false };
    match interpreter(&start[..length]) {
        Found::None => true,
        Found::At(linker) => rustix::fs::accessat(CWD, linker, Access::EXEC_OK, AtFlags::EACCESS).is_ok(),
        Found::Unknown => false,
    }
}

/// What a program's headers say about its dynamic linker.
#[derive(Debug, Eq, PartialEq)]
enum Found<'a> {
    /// It needs none.
    None,
    At(&'a CStr),
    /// It is no program for this processor, or not all of that is in the part looked at.
    Unknown,
}

/// Reads the headers as elf(5) has them, little-endian, 64 bits.
fn interpreter(start: &[u8]) -> Found<'_> {
    let short = |at: usize| start.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let is_program = start.starts_with(b"\x7fELF\x02\x01")
        && short(18) == Some(MACHINE)
        && short(54).map(usize::from) == Some(PROGRAM_HEADER);
    let (true, Some(first), Some(count)) = (is_program, word(start, 32), short(56)) else {
        return Found::Unknown;
    };
    for index in 0..usize::from(count) {
        let header = first.checked_add(index * PROGRAM_HEADER);
        let Some(header) = header.and_then(|at| start.get(at..at.checked_add(PROGRAM_HEADER)?)) else {
            return Found::Unknown;
        };
        if header[..4] == INTERPRETER.to_le_bytes() {
            let (Some(offset), Some(size)) = (word(header, 8), word(header, 32)) else {
                return Found::Unknown;
            };
            let name = offset.checked_add(size).and_then(|end| start.get(offset..end));
            return match name.and_then(|name| CStr::from_bytes_with_nul(name).ok()) {
                Some(name) => Found::At(name),
                None => Found::Unknown,
            };
        }
    }
    Found::None
}

/// A number of 8 bytes that fits a size.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(headers: &[(u32, u64, u64)], tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0_u8; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(headers.len()).unwrap();
        for (kind, offset, size) in headers {
            let mut header = [0_u8; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn the_dynamic_linker_is_found_where_there_is_one() {
        assert_eq!(interpreter(&program(&[(1, 0, 500)], b"")), Found::None);
        assert_eq!(interpreter(&program(&[(1, 0, 500), (3, 176, 5)], b"/l/d\0")), Found::At(c"/l/d"));
        assert_eq!(interpreter(&program(&[(3, 120, 4)], b"/l/d")), Found::Unknown);
        assert_eq!(interpreter(&program(&[(3, u64::MAX, 4)], b"/l/d")), Found::Unknown);
    }

    #[test]
    fn what_is_no_program_for_this_processor_is_not_known() {
        let whole = program(&[(1, 0, 500)], b"");
        for length in 0..whole.len() {
            assert_eq!(interpreter(&whole[..length]), Found::Unknown, "{length}");
        }
        assert_eq!(interpreter(b"#!/bin/sh\n"), Found::Unknown);
        let mut other = whole.clone();
        other[18] = 40;
        assert_eq!(interpreter(&other), Found::Unknown);
        let mut far = whole;
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(interpreter(&far), Found::Unknown);
    }

    #[test]
    fn this_test_is_a_program() {
        let start = std::fs::read("/proc/self/exe").unwrap();
        assert!(matches!(interpreter(&start[..LOOK]), Found::At(_) | Found::None));
    }
}
