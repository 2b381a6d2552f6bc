//! Device rules: merged, and compiled into a BPF program that the kernel asks at each `open` and `mknod` of a device.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Cgroup;
use super::error::CgroupError;
use super::resources::refuse;
use crate::sys::{self, BpfInstruction};

// `BPF_DEVCG_*` of `linux/bpf.h`.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Block and character devices, as the program sees them (`BPF_DEVCG_DEV_*`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Block = 1,
    Character = 2,
}

/// The devices a rule is about; a missing number stands for all.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Device {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Device {
    fn contains(self, other: Device) -> bool {
        let covers = |own: Option<u32>, other| own.is_none() || own == other;
        self.kind == other.kind && covers(self.major, other.major) && covers(self.minor, other.minor)
    }
}

/// Rules merged to a default and the exceptions from it, each with the accesses it is about.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Rules {
    pub(super) allows_by_default: bool,
    pub(super) exceptions: BTreeMap<Device, u8>,
}

/// What every container may do whatever its spec says, after the spec's own rules, as with runc: make any device node, and
/// use the devices that belong to every container. One of [`LinuxDeviceCgroup`]'s meaning each, as (kind, major, minor, access).
#[must_use]
pub fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let rules: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
        (LinuxDeviceType::C, None, None, "m"),
        (LinuxDeviceType::B, None, None, "m"),
        (LinuxDeviceType::C, Some(1), Some(3), "rwm"),    // null
        (LinuxDeviceType::C, Some(1), Some(8), "rwm"),    // random
        (LinuxDeviceType::C, Some(1), Some(7), "rwm"),    // full
        (LinuxDeviceType::C, Some(5), Some(0), "rwm"),    // tty
        (LinuxDeviceType::C, Some(1), Some(5), "rwm"),    // zero
        (LinuxDeviceType::C, Some(1), Some(9), "rwm"),    // urandom
        (LinuxDeviceType::C, Some(136), None, "rwm"),     // pts/*
        (LinuxDeviceType::C, Some(5), Some(2), "rwm"),    // ptmx
        (LinuxDeviceType::C, Some(10), Some(200), "rwm"), // net/tun
    ];
    rules.into_iter().map(|(kind, major, minor, access)| rule(kind, major, minor, access)).collect()
}

fn rule(kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(kind))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

impl Rules {
    /// Merges the spec's rules in their order, then [`default_rules`].
    pub(super) fn from_spec<'a>(
        rules: impl Iterator<Item = &'a LinuxDeviceCgroup>,
    ) -> Result<Self, CgroupError> {
        let mut merged = Rules::default();
        for rule in rules {
            merged.add(rule)?;
        }
        for rule in &default_rules() {
            merged.add(rule)?;
        }
        merged.drop_contained();
        Ok(merged)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), CgroupError> {
        let access = access(rule)?;
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => {
                *self = Rules { allows_by_default: rule.allow(), exceptions: BTreeMap::new() };
                return Ok(());
            }
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
            LinuxDeviceType::P => return Err(refuse("devices[].type", "a FIFO is no device")),
        };
        let device = Device { kind, major: number(rule.major())?, minor: number(rule.minor())? };
        if rule.allow() == self.allows_by_default {
            self.take_back(device, access)
        } else {
            self.except(device, access)
        }
    }

    fn except(&mut self, device: Device, access: u8) -> Result<(), CgroupError> {
        *self.exceptions.entry(device).or_default() |= access;
        Ok(())
    }

    /// Takes accesses out of the exceptions. One exception that is about more devices cannot have a hole: that is refused,
    /// for the rule would be without effect.
    fn take_back(&mut self, device: Device, access: u8) -> Result<(), CgroupError> {
        let wider = |other: &Device| *other != device && other.contains(device);
        if self.exceptions.iter().any(|(other, accesses)| wider(other) && accesses & access != 0) {
            return Err(refuse("devices", "a rule would punch a hole into an earlier rule with a wildcard"));
        }
        // An exception for a part of these devices goes the same way.
        self.exceptions.retain(|other, accesses| {
            if device.contains(*other) {
                *accesses &= !access;
            }
            *accesses != 0
        });
        Ok(())
    }

    /// Drops exceptions that a wider one makes superfluous.
    fn drop_contained(&mut self) {
        let all = self.exceptions.clone();
        self.exceptions.retain(|device, access| {
            let superfluous = |(other, accesses): (&Device, &u8)| {
                other != device && other.contains(*device) && accesses & *access == *access
            };
            !all.iter().any(superfluous)
        });
    }

    /// The program: the first exception that is about the device and the access decides.
    fn program(&self) -> Vec<BpfInstruction> {
        let mut program = Vec::with_capacity(8 + 10 * self.exceptions.len());
        program.extend([
            load_word(R2, 0),
            operate(MOV_REGISTER, R3, R2, 0),
            operate(SHIFT_RIGHT, R3, 0, 16),
            operate(AND, R2, 0, 0xffff),
            load_word(R4, 4),
            load_word(R5, 8),
        ]);
        for (device, access) in &self.exceptions {
            self.append(&mut program, *device, *access);
        }
        program.extend(verdict(self.allows_by_default));
        program
    }

    fn append(&self, program: &mut Vec<BpfInstruction>, device: Device, access: u8) {
        let mut block = vec![jump_unless_equal(R2, device.kind as i32)];
        if access != ALL {
            // An access to be allowed must be covered whole; one to be denied need only be touched.
            let mask = if self.allows_by_default { i32::from(access) } else { !i32::from(access) };
            let skip = if self.allows_by_default { JUMP_IF_EQUAL } else { JUMP_UNLESS_EQUAL };
            block.push(operate(MOV_REGISTER, R0, R3, 0));
            block.push(operate(AND, R0, 0, mask));
            block.push(operate(skip, R0, 0, 0));
        }
        for (register, number) in [(R4, device.major), (R5, device.minor)] {
            block.extend(number.map(|number| jump_unless_equal(register, number.cast_signed())));
        }
        block.extend(verdict(!self.allows_by_default));
        let length = block.len();
        for (place, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_UNLESS_EQUAL | JUMP_IF_EQUAL) {
                instruction.offset = i16::try_from(length - place - 1).unwrap_or(0);
            }
        }
        program.extend(block);
    }
}

fn access(rule: &LinuxDeviceCgroup) -> Result<u8, CgroupError> {
    let text = rule.access().as_deref().unwrap_or_default();
    if text.is_empty() {
        return Err(refuse("devices[].access", "it cannot be empty"));
    }
    text.chars().try_fold(0, |access, letter| match letter {
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        'm' => Ok(access | MKNOD),
        _ => Err(refuse("devices[].access", format!("{text:?} has other letters than r, w and m"))),
    })
}

fn number(number: Option<i64>) -> Result<Option<u32>, CgroupError> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(refuse("devices", format!("{number} is no device number"))),
        },
    }
}

/// A compiled set of device rules, not yet loaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceProgram {
    program: Vec<BpfInstruction>,
}

impl DeviceProgram {
    /// Compiles the spec's rules, followed by those every container has. Touches nothing.
    ///
    /// # Errors
    /// [`CgroupError::Resource`] for a rule that cannot be expressed.
    pub fn compile<'a>(rules: impl Iterator<Item = &'a LinuxDeviceCgroup>) -> Result<Self, CgroupError> {
        Ok(DeviceProgram { program: Rules::from_spec(rules)?.program() })
    }

    /// Loads the program and attaches it to a cgroup in the place of those attached there. Where one was, it is replaced in
    /// one step, so that no access goes unchecked in between. systemd's own program, one of several, stays.
    ///
    /// # Errors
    /// [`CgroupError::Devices`] with the kernel's reason.
    pub fn attach(&self, cgroup: &Cgroup) -> Result<(), CgroupError> {
        let error = |operation| {
            move |source: io::Error| CgroupError::Devices {
                operation,
                path: cgroup.path().to_path_buf(),
                source,
            }
        };
        let program = sys::load_device_program(&self.program).map_err(error("load"))?;
        sys::attach_device_program(cgroup.fd(), program.as_fd(), None).map_err(error("attach"))?;
        // The cgroup holds it from now on; the end of this process closes its descriptor.
        std::mem::forget(program);
        Ok(())
    }

    /// [`Self::attach`] for a cgroup that has programs: the new one takes their place.
    ///
    /// # Errors
    /// [`CgroupError::Devices`] with the kernel's reason.
    pub fn replace(&self, cgroup: &Cgroup) -> Result<(), CgroupError> {
        let error = |operation| {
            move |source: io::Error| CgroupError::Devices {
                operation,
                path: cgroup.path().to_path_buf(),
                source,
            }
        };
        let attached = attached(cgroup).map_err(error("find"))?;
        let program = sys::load_device_program(&self.program).map_err(error("load"))?;
        let (first, others) = match attached.split_first() {
            Some((first, others)) => (Some(first.as_fd()), others),
            None => (None, &[][..]),
        };
        sys::attach_device_program(cgroup.fd(), program.as_fd(), first).map_err(error("replace"))?;
        for other in others {
            sys::detach_device_program(cgroup.fd(), other.as_fd()).map_err(error("detach"))?;
        }
        Ok(())
    }
}

fn attached(cgroup: &Cgroup) -> io::Result<Vec<OwnedFd>> {
    sys::attached_device_programs(cgroup.fd())?.into_iter().map(sys::open_program).collect()
}

// Extended BPF (`linux/bpf.h`, `linux/bpf_common.h`).
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K, 32 bits
const MOV_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X, 32 bits
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K, 32 bits
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K, 32 bits
const JUMP_IF_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const JUMP_UNLESS_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// Loads a word of `struct bpf_cgroup_dev_ctx` { access and type, major, minor }, which R1 points to.
fn load_word(register: u8, offset: i16) -> BpfInstruction {
    BpfInstruction { code: LOAD_WORD, registers: register | (R1 << 4), offset, constant: 0 }
}

fn operate(code: u8, destination: u8, source: u8, constant: i32) -> BpfInstruction {
    BpfInstruction { code, registers: destination | (source << 4), offset: 0, constant }
}

/// Leaves the block of a rule; the offset is filled in when the block is complete.
fn jump_unless_equal(register: u8, constant: i32) -> BpfInstruction {
    operate(JUMP_UNLESS_EQUAL, register, 0, constant)
}

fn verdict(allow: bool) -> [BpfInstruction; 2] {
    [operate(MOV, R0, 0, i32::from(allow)), operate(EXIT, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a device program on (kind, major, minor, access); 1 allows.
    fn interpret(program: &[BpfInstruction], kind: Kind, device: (u32, u32), access: u8) -> bool {
        let context = [kind as u32 | u32::from(access) << 16, device.0, device.1];
        let mut registers = [0_u32; 6];
        let mut place = 0_usize;
        loop {
            let BpfInstruction { code, registers: pair, offset, constant } = program[place];
            place += 1;
            let (to, from) = (usize::from(pair & 0xf), usize::from(pair >> 4));
            let value = constant.cast_unsigned();
            let skip = usize::try_from(offset).unwrap_or(0);
            match code {
                LOAD_WORD => registers[to] = context[skip / 4],
                MOV => registers[to] = value,
                MOV_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_IF_EQUAL if registers[to] == value => place += skip,
                JUMP_UNLESS_EQUAL if registers[to] != value => place += skip,
                JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0] == 1,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn compile(json: &str) -> Result<Vec<BpfInstruction>, CgroupError> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        DeviceProgram::compile(rules.iter()).map(|program| program.program)
    }

    const DENY: &str = r#"{"allow": false, "access": "rwm"}"#;

    #[test]
    fn the_default_devices_are_allowed_and_any_node_may_be_made() {
        let program = compile(&format!("[{DENY}]")).unwrap();
        let allows = |kind, device, access| interpret(&program, kind, device, access);
        assert!(
            allows(Kind::Character, (1, 3), READ | WRITE) && allows(Kind::Character, (136, 7), READ | WRITE)
        );
        assert!(allows(Kind::Block, (8, 0), MKNOD) && !allows(Kind::Block, (8, 0), READ));
        assert!(!allows(Kind::Character, (1, 1), READ) && !allows(Kind::Block, (1, 3), READ));
    }

    #[test]
    fn rules_for_one_device_add_up_and_partial_access_is_not_enough() {
        let read = r#"{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"}"#;
        let write = r#"{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "w"}"#;
        let one = compile(&format!("[{DENY}, {read}]")).unwrap();
        assert!(
            interpret(&one, Kind::Block, (8, 0), READ) && !interpret(&one, Kind::Block, (8, 0), READ | WRITE)
        );
        let both = compile(&format!("[{DENY}, {read}, {write}]")).unwrap();
        assert!(
            interpret(&both, Kind::Block, (8, 0), READ | WRITE)
                && !interpret(&both, Kind::Block, (8, 1), READ)
        );
    }

    #[test]
    fn a_later_rule_takes_back_an_earlier_one() {
        let allow = r#"{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "rw"}"#;
        let deny = r#"{"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"}"#;
        let program = compile(&format!("[{DENY}, {allow}, {deny}]")).unwrap();
        assert!(
            interpret(&program, Kind::Block, (8, 0), READ)
                && !interpret(&program, Kind::Block, (8, 0), WRITE)
        );
    }

    #[test]
    fn where_everything_is_allowed_an_exception_denies_any_access_it_is_about() {
        let all = r#"{"allow": true, "access": "rwm"}"#;
        let deny = r#"{"allow": false, "type": "b", "major": 8, "access": "w"}"#;
        let program = compile(&format!("[{all}, {deny}]")).unwrap();
        assert!(
            interpret(&program, Kind::Character, (9, 9), ALL)
                && interpret(&program, Kind::Block, (8, 3), READ)
        );
        assert!(!interpret(&program, Kind::Block, (8, 3), READ | WRITE));
    }

    #[test]
    fn a_hole_in_a_wildcard_rule_and_wrong_words_are_refused() {
        let wide = r#"{"allow": true, "type": "b", "major": 8, "access": "rw"}"#;
        let hole = r#"{"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"}"#;
        assert!(compile(&format!("[{DENY}, {wide}, {hole}]")).is_err());
        assert!(compile(r#"[{"allow": true, "type": "c", "access": "x"}]"#).is_err());
        assert!(compile(r#"[{"allow": true, "type": "c"}]"#).is_err());
        assert!(compile(r#"[{"allow": true, "type": "c", "major": -2, "access": "r"}]"#).is_err());
        assert!(compile(r#"[{"allow": true, "type": "c", "major": 4294967296, "access": "r"}]"#).is_err());
    }

    #[test]
    fn rules_within_a_wider_rule_cost_nothing() {
        let rules = |json: &str| {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            Rules::from_spec(rules.iter()).unwrap().exceptions.len()
        };
        let all_characters = r#"{"allow": true, "type": "c", "access": "rwm"}"#;
        assert_eq!(rules(&format!("[{DENY}]")), 11);
        assert_eq!(rules(&format!("[{DENY}, {all_characters}]")), 2);
    }
}
