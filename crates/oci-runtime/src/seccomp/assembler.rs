//! Writing BPF: a search tree over ranges of system calls, and comparisons of 64-bit arguments.
//!
//! Conditional jumps reach 255 instructions, `ja` any number: far targets take both.

use super::Range;
use super::profile::{Condition, Operator};

// Instruction codes of classic BPF (uapi/linux/bpf_common.h).
const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `BPF_MAXINSNS`.
const MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) then: u8,
    pub(super) otherwise: u8,
    pub(super) value: u32,
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Program(pub(super) Vec<Instruction>);

impl Program {
    pub(super) fn load_architecture(&mut self) {
        self.push(LOAD, 0, 0, ARCHITECTURE);
    }

    pub(super) fn load_number(&mut self) {
        self.push(LOAD, 0, 0, NUMBER);
    }

    pub(super) fn answer(&mut self, action: u32) {
        self.push(RETURN, 0, 0, action);
    }

    /// `section`, when the loaded architecture is this one.
    pub(super) fn section(&mut self, architecture: u32, section: Self) {
        self.push(IF_EQUAL, 1, 0, architecture);
        self.jump(section.0.len());
        self.0.extend(section.0);
    }

    /// Finds the loaded number's range and answers. `ranges` are sorted and begin at 0.
    pub(super) fn search(&mut self, ranges: &[Range<'_>]) {
        match ranges {
            [] => {}
            [range] => self.leaf(range),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let mut left = Self::default();
                left.search(low);
                match u8::try_from(left.0.len()) {
                    Ok(near) => self.push(IF_AT_LEAST, near, 0, high[0].from),
                    Err(_) => {
                        self.push(IF_AT_LEAST, 0, 1, high[0].from);
                        self.jump(left.0.len());
                    }
                }
                self.0.extend(left.0);
                self.search(high);
            }
        }
    }

    fn leaf(&mut self, range: &Range<'_>) {
        for rule in &range.rules {
            // Comparisons from the last to the first: each knows how far the next rule is.
            let mut block = Self::default();
            block.answer(rule.action);
            for condition in rule.conditions.iter().rev() {
                block = compare(*condition, block);
            }
            self.0.extend(block.0);
        }
        self.answer(range.otherwise);
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), String> {
        if self.0.len() > MAX {
            let length = self.0.len();
            return Err(format!("the seccomp filter has {length} instructions, {MAX} are possible"));
        }
        for instruction in &self.0 {
            bytes.extend(instruction.code.to_le_bytes());
            bytes.extend([instruction.then, instruction.otherwise]);
            bytes.extend(instruction.value.to_le_bytes());
        }
        Ok(())
    }

    fn load_masked(&mut self, offset: u32, mask: u32) {
        self.push(LOAD, 0, 0, offset);
        if mask != u32::MAX {
            self.push(AND, 0, 0, mask);
        }
    }

    fn jump(&mut self, distance: usize) {
        self.push(JUMP, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX));
    }

    fn push(&mut self, code: u16, then: u8, otherwise: u8, value: u32) {
        self.0.push(Instruction { code, then, otherwise, value });
    }
}

/// `block` when the condition holds, else what follows it.
fn compare(condition: Condition, block: Program) -> Program {
    let mut program = Program::default();
    let length = block.0.len();
    // Where the comparison goes: `pass` is the block, `fail` a jump over it, which stands between.
    // Layout: [high] [low] [ja over block] [block].
    let argument = ARGUMENTS + 8 * u32::from(condition.index);
    #[allow(clippy::cast_possible_truncation, reason = "the halves of 64 bits")]
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(condition.value);
    let (high_mask, low_mask) = halves(condition.mask);
    let masked = |mask: u32| usize::from(mask != u32::MAX);
    // Instructions of the low half: load, perhaps and, one jump; then the `ja`.
    let low_part = 2 + masked(low_mask);
    let to_low = 0_u8;
    let fail = u8::try_from(low_part).unwrap_or(0);
    let pass = fail + 1;
    program.load_masked(argument + 4, high_mask);
    match condition.operator {
        Operator::Equal => program.push(IF_EQUAL, to_low, fail, high),
        Operator::NotEqual => program.push(IF_EQUAL, to_low, pass, high),
        Operator::Greater | Operator::GreaterOrEqual => {
            program.push(IF_GREATER, pass + 1, 0, high);
            program.push(IF_EQUAL, to_low, fail, high);
        }
        Operator::Less | Operator::LessOrEqual => {
            program.push(IF_GREATER, fail + 1, 0, high);
            program.push(IF_EQUAL, to_low, pass, high);
        }
    }
    program.load_masked(argument, low_mask);
    // Then: fall to the `ja` (0) or jump over it (1).
    match condition.operator {
        Operator::Equal => program.push(IF_EQUAL, 1, 0, low),
        Operator::NotEqual => program.push(IF_EQUAL, 0, 1, low),
        Operator::Greater => program.push(IF_GREATER, 1, 0, low),
        Operator::GreaterOrEqual => program.push(IF_AT_LEAST, 1, 0, low),
        Operator::Less => program.push(IF_AT_LEAST, 0, 1, low),
        Operator::LessOrEqual => program.push(IF_GREATER, 0, 1, low),
    }
    program.jump(length);
    program.0.extend(block.0);
    program
}
