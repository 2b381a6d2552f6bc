//! Lays out a classic BPF program from its end to its beginning.
//!
//! A jump of classic BPF goes forward only, so code that is written last instruction first always knows where its targets
//! are; a `ret` or a branch that several places share is written once. A conditional jump reaches 255 instructions: a
//! farther target gets a stepping stone.

use crate::sys::FilterInstruction as Instruction;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const REACH: usize = 254;

/// A comparison of the accumulator with a constant (`linux/bpf_common.h`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Test {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place(usize);

/// A program under construction, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    returns: Vec<(u32, Place)>,
}

impl Assembler {
    /// A `ret` of `action`: an earlier written one if a conditional jump reaches it.
    pub(super) fn ret(&mut self, action: u32) -> Place {
        let written = self.returns.iter().rposition(|&(known, place)| known == action && self.reaches(place));
        match written {
            Some(index) => self.returns[index].1,
            None => self.write_ret(action),
        }
    }

    /// `if accumulator <test> constant { yes } else { no }`.
    pub(super) fn branch(&mut self, test: Test, constant: u32, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        let yes = self.near(yes);
        let no = self.near(no);
        // Writing a stone for `no` moved `yes` one further; REACH leaves room for that.
        self.push(Instruction { code: test as u16, yes: self.distance(yes), no: self.distance(no), constant })
    }

    /// Loads the word of `seccomp_data` at `offset`, then goes on at `next`, which must be the place written last.
    pub(super) fn load(&mut self, offset: u32, next: Place) -> Place {
        self.before(Instruction { code: LOAD_WORD, yes: 0, no: 0, constant: offset }, next)
    }

    /// Masks the accumulator, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Place) -> Place {
        self.before(Instruction { code: AND, yes: 0, no: 0, constant: mask }, next)
    }

    /// The finished program, first instruction first; its beginning is the place written last.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    fn before(&mut self, instruction: Instruction, next: Place) -> Place {
        if next.0 + 1 != self.reversed.len() {
            self.stone(next);
        }
        self.push(instruction)
    }

    fn write_ret(&mut self, action: u32) -> Place {
        let place = self.push(Instruction { code: RETURN, yes: 0, no: 0, constant: action });
        self.returns.push((action, place));
        place
    }

    fn near(&mut self, target: Place) -> Place {
        if self.reaches(target) { target } else { self.stone(target) }
    }

    /// A place right here that continues at `target`.
    fn stone(&mut self, target: Place) -> Place {
        let instruction = self.reversed[target.0];
        if instruction.code == RETURN {
            return self.write_ret(instruction.constant);
        }
        let distance = u32::try_from(self.reversed.len() - target.0 - 1).unwrap_or(u32::MAX);
        self.push(Instruction { code: JUMP, yes: 0, no: 0, constant: distance })
    }

    fn reaches(&self, target: Place) -> bool {
        self.reversed.len() - target.0 - 1 < REACH
    }

    fn distance(&self, target: Place) -> u8 {
        u8::try_from(self.reversed.len() - target.0 - 1).unwrap_or(u8::MAX)
    }

    fn push(&mut self, instruction: Instruction) -> Place {
        self.reversed.push(instruction);
        Place(self.reversed.len() - 1)
    }
}
