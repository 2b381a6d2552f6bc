//! Turns the leaves of every architecture into one BPF program.

use super::assembler::{Assembler, Place, Test};
use super::rules::{Alternative, Comparison, Condition, Handler, Leaf};
use crate::sys::FilterInstruction as Instruction;

// `struct seccomp_data` of `linux/seccomp.h`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;

/// One value of `seccomp_data.arch` and how the numbers seen with it are handled.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) audit: u32,
    pub(super) leaves: Vec<Leaf>,
}

/// The program: the architecture is looked up from the first section to the last, the number by binary search.
pub(super) fn program(sections: &[Section], default: u32, foreign: u32) -> Vec<Instruction> {
    let mut assembler = Assembler::default();
    let mut entries = Vec::with_capacity(sections.len());
    for section in sections.iter().rev() {
        let mut generator = Generator { assembler: &mut assembler, default };
        let search = generator.search(&section.leaves);
        entries.push((section.audit, assembler.load(NUMBER_OFFSET, search)));
    }
    let mut next = assembler.ret(foreign);
    for (audit, entry) in entries {
        next = assembler.branch(Test::Equal, audit, entry, next);
    }
    assembler.load(ARCHITECTURE_OFFSET, next);
    assembler.finish()
}

struct Generator<'a> {
    assembler: &'a mut Assembler,
    default: u32,
}

impl Generator<'_> {
    /// A search for the leaf of the number in the accumulator.
    fn search(&mut self, leaves: &[Leaf]) -> Place {
        match leaves {
            [] => self.assembler.ret(self.default),
            [only] => self.handler(&only.handler),
            [below, exact, above] if below.handler == above.handler && exact.start + 1 == above.start => {
                let no = self.handler(&below.handler);
                let yes = self.handler(&exact.handler);
                self.assembler.branch(Test::Equal, exact.start, yes, no)
            }
            _ => {
                let middle = leaves.len() / 2;
                let above = self.search(&leaves[middle..]);
                let below = self.search(&leaves[..middle]);
                self.assembler.branch(Test::GreaterOrEqual, leaves[middle].start, above, below)
            }
        }
    }

    fn handler(&mut self, handler: &Handler) -> Place {
        match handler {
            Handler::Always(action) => self.assembler.ret(*action),
            Handler::Choice(alternatives) => {
                let mut next = self.assembler.ret(self.default);
                for alternative in alternatives.iter().rev() {
                    next = self.alternative(alternative, next);
                }
                next
            }
        }
    }

    fn alternative(&mut self, alternative: &Alternative, otherwise: Place) -> Place {
        let mut matched = self.assembler.ret(alternative.action);
        for condition in alternative.conditions.iter().rev() {
            matched = self.condition(*condition, matched, otherwise);
        }
        matched
    }

    fn condition(&mut self, condition: Condition, yes: Place, no: Place) -> Place {
        let halves = Halves::of(condition);
        match condition.comparison {
            Comparison::Equal => self.equal(halves, yes, no),
            Comparison::NotEqual => self.equal(halves, no, yes),
            Comparison::Greater => self.ordered(Test::Greater, halves, yes, no),
            Comparison::GreaterOrEqual => self.ordered(Test::GreaterOrEqual, halves, yes, no),
            Comparison::Less => self.ordered(Test::GreaterOrEqual, halves, no, yes),
            Comparison::LessOrEqual => self.ordered(Test::Greater, halves, no, yes),
            Comparison::MaskedEqual(mask) => self.masked_equal(halves, mask, yes, no),
        }
    }

    fn equal(&mut self, halves: Halves, yes: Place, no: Place) -> Place {
        let low = self.compare(halves.low_offset, None, halves.low, yes, no);
        if !halves.wide {
            return low;
        }
        self.compare(halves.high_offset, None, halves.high, low, no)
    }

    fn masked_equal(&mut self, halves: Halves, mask: u64, yes: Place, no: Place) -> Place {
        let (mask_high, mask_low) = split(mask);
        let low = self.compare(halves.low_offset, Some(mask_low), halves.low, yes, no);
        if !halves.wide || (mask_high, halves.high) == (0, 0) {
            return low;
        }
        self.compare(halves.high_offset, Some(mask_high), halves.high, low, no)
    }

    fn compare(&mut self, offset: u32, mask: Option<u32>, value: u32, yes: Place, no: Place) -> Place {
        let branch = self.assembler.branch(Test::Equal, value, yes, no);
        let masked = match mask {
            Some(mask) if mask != u32::MAX => self.assembler.and(mask, branch),
            _ => branch,
        };
        self.assembler.load(offset, masked)
    }

    /// The high half decides unless it is equal; then the low half does.
    fn ordered(&mut self, test: Test, halves: Halves, yes: Place, no: Place) -> Place {
        let low = self.assembler.branch(test, halves.low, yes, no);
        let low = self.assembler.load(halves.low_offset, low);
        if !halves.wide {
            return low;
        }
        let equal = self.assembler.branch(Test::Equal, halves.high, low, no);
        let high = self.assembler.branch(Test::Greater, halves.high, yes, equal);
        self.assembler.load(halves.high_offset, high)
    }
}

/// The two 32-bit words of an argument: classic BPF loads no more at a time.
#[derive(Clone, Copy)]
struct Halves {
    high: u32,
    low: u32,
    high_offset: u32,
    low_offset: u32,
    wide: bool,
}

impl Halves {
    fn of(condition: Condition) -> Self {
        let (high, low) = split(condition.value);
        let base = ARGUMENTS_OFFSET + 8 * u32::try_from(condition.argument).unwrap_or(0);
        let (low_offset, high_offset) =
            if cfg!(target_endian = "little") { (base, base + 4) } else { (base + 4, base) };
        Halves { high, low, high_offset, low_offset, wide: condition.wide }
    }
}

fn split(value: u64) -> (u32, u32) {
    let [b7, b6, b5, b4, b3, b2, b1, b0] = value.to_be_bytes();
    (u32::from_be_bytes([b7, b6, b5, b4]), u32::from_be_bytes([b3, b2, b1, b0]))
}
