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
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        let kinds = match rule.typ().unwrap_or_default() {
            // For cgroup v1, and so for runc, this goes for everything whatever else the rule says. Here it says what it says.
            LinuxDeviceType::A if (major, minor, access) == (None, None, ALL) => {
                *self = Rules { allows_by_default: rule.allow(), exceptions: BTreeMap::new() };
                return Ok(());
            }
            LinuxDeviceType::A => [Kind::Block, Kind::Character].as_slice(),
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Character],
            LinuxDeviceType::P => return Err(refuse("devices[].type", "a FIFO is no device")),
        };
        for device in kinds.iter().map(|kind| Device { kind: *kind, major, minor }) {
            if rule.allow() == self.allows_by_default {
                self.take_back(device, access)?;
            } else {
                *self.exceptions.entry(device).or_default() |= access;
            }
        }
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

    /// The program: an exception that is about the device and the access decides.
    ///
    /// The kernel's verifier follows each conditional jump both ways with what it knows after it, and what is known of a number
    /// that was equal makes it go through all that follows once more: with a jump a number it took 0.37 ms for the default
    /// rules. So equality leads out at once, and goes on with nothing known.
    fn program(&self) -> Result<Vec<BpfInstruction>, CgroupError> {
        let mut program = Vec::with_capacity(16 + 6 * self.exceptions.len());
        program.extend([
            load_word(TYPE, 0),
            operate(MOV_REGISTER, ACCESS, TYPE, 0),
            operate(SHIFT_RIGHT, ACCESS, 0, 16),
            operate(AND, TYPE, 0, 0xffff),
            load_word(MAJOR, 4),
            load_word(MINOR, 8),
            operate(MOV_REGISTER, NUMBER, MAJOR, 0),
            operate(SHIFT_LEFT, NUMBER, 0, MINOR_BITS.cast_signed()),
            operate(OR_REGISTER, NUMBER, MINOR, 0),
        ]);
        let blocks = program.len();
        program.push(jump(JUMP_IF_EQUAL, TYPE, Kind::Block as i32));
        self.append_kind(&mut program, Kind::Character)?;
        program[blocks].offset = distance(blocks, program.len())?;
        self.append_kind(&mut program, Kind::Block)?;
        Ok(program)
    }

    /// The exceptions of a kind, and both verdicts.
    fn append_kind(&self, program: &mut Vec<BpfInstruction>, kind: Kind) -> Result<(), CgroupError> {
        let start = program.len();
        for (device, access) in self.exceptions.iter().filter(|(device, _)| device.kind == kind) {
            self.append(program, *device, *access);
        }
        program.extend(verdict(self.allows_by_default));
        let exception = program.len();
        let mut is_reached = false;
        for (place, instruction) in program.iter_mut().enumerate().skip(start) {
            if matches!(instruction.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL) && instruction.offset == 0 {
                instruction.offset = distance(place, exception)?;
                is_reached = true;
            }
        }
        // The kernel refuses a program with instructions that nothing leads to.
        if is_reached {
            program.extend(verdict(!self.allows_by_default));
        }
        Ok(())
    }

    /// Compares with one exception. Jumps without a distance lead to its verdict.
    fn append(&self, program: &mut Vec<BpfInstruction>, device: Device, access: u8) {
        // An access to be allowed must be covered whole; one to be denied need only be touched.
        let (covers, mask) = (!self.allows_by_default, i32::from(access));
        match (device.compared(), access) {
            (Compared::Never, _) => {}
            (Compared::With(register, value), ALL) => program.push(jump(JUMP_IF_EQUAL, register, value)),
            (Compared::With(register, value), _) if covers => program.extend([
                operate(MOV_REGISTER, R1, register, 0),
                operate(XOR, R1, 0, value),
                operate(MOV_REGISTER, R0, ACCESS, 0),
                operate(AND, R0, 0, !mask),
                operate(OR_REGISTER, R0, R1, 0),
                jump(JUMP_IF_EQUAL, R0, 0),
            ]),
            (Compared::With(register, value), _) => program.extend([
                operate(MOV_REGISTER, R1, register, 0),
                operate(XOR, R1, 0, value),
                BpfInstruction { offset: 3, ..jump(JUMP_UNLESS_EQUAL, R1, 0) },
                operate(MOV_REGISTER, R0, ACCESS, 0),
                operate(AND, R0, 0, mask),
                jump(JUMP_UNLESS_EQUAL, R0, 0),
            ]),
            (Compared::Always, _) => program.extend([
                operate(MOV_REGISTER, R0, ACCESS, 0),
                operate(AND, R0, 0, if covers { !mask } else { mask }),
                jump(if covers { JUMP_IF_EQUAL } else { JUMP_UNLESS_EQUAL }, R0, 0),
            ]),
        }
    }
}

/// What tells the devices of an exception from others of their kind.
enum Compared {
    /// A register has a value.
    With(u8, i32),
    Always,
    Never,
}

impl Device {
    fn compared(self) -> Compared {
        match (self.major, self.minor) {
            (Some(major), Some(minor)) if major >> MAJOR_BITS == 0 && minor >> MINOR_BITS == 0 => {
                Compared::With(NUMBER, (major << MINOR_BITS | minor).cast_signed())
            }
            // No device of Linux has such a number.
            (Some(_), Some(_)) => Compared::Never,
            (Some(major), None) => Compared::With(MAJOR, major.cast_signed()),
            (None, Some(minor)) => Compared::With(MINOR, minor.cast_signed()),
            (None, None) => Compared::Always,
        }
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
        Ok(DeviceProgram { program: Rules::from_spec(rules)?.program()? })
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
/// The context at first.
const R1: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Both in one, as the kernel has them (`linux/kdev_t.h`).
const NUMBER: u8 = 6;
const MAJOR_BITS: u32 = 12;
const MINOR_BITS: u32 = 20;
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K, 32 bits
const MOV_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X, 32 bits
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K, 32 bits
const OR_REGISTER: u8 = 0x4c; // BPF_ALU | BPF_OR | BPF_X, 32 bits
const XOR: u8 = 0xa4; // BPF_ALU | BPF_XOR | BPF_K, 32 bits
const SHIFT_LEFT: u8 = 0x64; // BPF_ALU | BPF_LSH | BPF_K, 32 bits
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

/// A jump whose distance is filled in when the target has its place.
fn jump(code: u8, register: u8, constant: i32) -> BpfInstruction {
    operate(code, register, 0, constant)
}

fn distance(from: usize, to: usize) -> Result<i16, CgroupError> {
    i16::try_from(to - from - 1)
        .map_err(|_| refuse("devices", "there are more rules than a program has room for"))
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
        let mut registers = [0_u32; 7];
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
                XOR => registers[to] ^= value,
                OR_REGISTER => registers[to] |= registers[from],
                SHIFT_LEFT => registers[to] <<= value,
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
    fn a_rule_for_both_kinds_goes_no_further_than_it_says() {
        let eighth = r#"{"allow": true, "type": "a", "major": 8, "minor": -1, "access": "r"}"#;
        let program = compile(&format!("[{DENY}, {eighth}]")).unwrap();
        let allows = |kind, device, access| interpret(&program, kind, device, access);
        assert!(allows(Kind::Block, (8, 1), READ) && allows(Kind::Character, (8, 1), READ));
        assert!(!allows(Kind::Block, (8, 1), WRITE) && !allows(Kind::Character, (1, 1), READ));
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

    /// Whether an exception is about the device and the access, as the rules say it.
    fn is_exception(rules: &Rules, kind: Kind, (major, minor): (u32, u32), asked: u8) -> bool {
        rules.exceptions.iter().any(|(device, access)| {
            let is_about = device.contains(Device { kind, major: Some(major), minor: Some(minor) });
            is_about && if rules.allows_by_default { asked & access != 0 } else { asked & !access == 0 }
        })
    }

    #[test]
    fn a_program_says_what_its_rules_say_and_has_nothing_unreachable() {
        let numbers = [None, Some(0), Some(8), Some(4095), Some(4096), Some(0xf_ffff), Some(0x10_0000)];
        let mut exceptions = BTreeMap::new();
        let mut checked = 0;
        for (round, access) in (1..=ALL).cycle().take(300).enumerate() {
            let (first, second) = (numbers[round % 7], numbers[round / 7 % 7]);
            let kind = if round % 3 == 0 { Kind::Block } else { Kind::Character };
            if round % 5 == 0 {
                exceptions.clear();
            } else {
                exceptions.insert(Device { kind, major: first, minor: second }, access);
            }
            for allows_by_default in [false, true] {
                let rules = Rules { allows_by_default, exceptions: exceptions.clone() };
                let program = rules.program().unwrap();
                expect_reachable(&program);
                let numbers = [(0, 0), (8, 0), (0, 8), (8, 8), (4095, 0xf_ffff), (1, 3), (8, 0xf_ffff)];
                let kinds = [Kind::Block, Kind::Character];
                let accesses = kinds.into_iter().flat_map(|kind| (1..=ALL).map(move |asked| (kind, asked)));
                for ((kind, asked), device) in accesses.flat_map(|one| numbers.map(|device| (one, device))) {
                    let exception = is_exception(&rules, kind, device, asked);
                    let allowed = interpret(&program, kind, device, asked);
                    assert_eq!(
                        allowed,
                        exception != allows_by_default,
                        "{rules:?} {kind:?} {device:?} {asked}"
                    );
                    checked += usize::from(exception);
                }
            }
        }
        assert!(checked > 1000, "{checked}");
    }

    fn expect_reachable(program: &[BpfInstruction]) {
        let (mut reached, mut open) = (vec![false; program.len()], vec![0]);
        while let Some(place) = open.pop() {
            if std::mem::replace(&mut reached[place], true) {
                continue;
            }
            let BpfInstruction { code, offset, .. } = program[place];
            if matches!(code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL) {
                open.push(place + 1 + usize::try_from(offset).unwrap());
            }
            if code != EXIT {
                open.push(place + 1);
            }
        }
        assert!(reached.iter().all(|one| *one), "{program:?}");
    }

    #[test]
    fn more_rules_than_there_is_room_for_are_refused() {
        let device = |minor| Device { kind: Kind::Block, major: Some(8), minor: Some(minor) };
        let rules = |count| Rules {
            exceptions: (0..count).map(|minor| (device(minor), READ)).collect(),
            ..Rules::default()
        };
        assert!(rules(5000).program().is_ok());
        assert!(rules(6000).program().is_err());
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
