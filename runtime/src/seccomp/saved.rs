//! A compiled program as a file: for `exec`, which would otherwise compile the container's profile each time.

use super::Program;
use crate::sys::FilterInstruction;

/// Changes with the layout, and with what a profile compiles to: a file of another version of the runtime is not used.
const MAGIC: &[u8] = concat!("inspect-runtime filter ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();
const INSTRUCTION_BYTES: usize = 8;

impl Program {
    /// The file's content: a line that says what it is, the flags of seccomp(2), and the instructions as `struct sock_filter`,
    /// all numbers in the machine's byte order.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + self.instructions.len() * INSTRUCTION_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        for one in &self.instructions {
            bytes.extend_from_slice(&one.code.to_ne_bytes());
            bytes.extend_from_slice(&[one.yes, one.no]);
            bytes.extend_from_slice(&one.constant.to_ne_bytes());
        }
        bytes
    }

    /// Reads such a file; `None` for anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        let (instructions, []) = rest.as_chunks::<INSTRUCTION_BYTES>() else { return None };
        let instructions = instructions.iter().map(|[low, high, yes, no, constant @ ..]| FilterInstruction {
            code: u16::from_ne_bytes([*low, *high]),
            yes: *yes,
            no: *no,
            constant: u32::from_ne_bytes(*constant),
        });
        Some(Program {
            instructions: instructions.collect(),
            flags: u32::from_ne_bytes(*flags),
            unknown_syscalls: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_comes_back_and_nothing_else_does() {
        let spec: oci_spec::runtime::Spec =
            serde_json::from_str(include_str!("../../benches/configs/containerd.json")).unwrap();
        let profile = spec.linux().as_ref().unwrap().seccomp().as_ref().unwrap();
        let program = crate::seccomp::compile(profile).unwrap();
        let bytes = program.to_bytes();
        let back = Program::from_bytes(&bytes).unwrap();
        assert_eq!((back.instructions, back.flags), (program.instructions, program.flags));
        assert!(Program::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        assert!(Program::from_bytes(&bytes[1..]).is_none());
        assert!(Program::from_bytes(b"").is_none());
    }
}
