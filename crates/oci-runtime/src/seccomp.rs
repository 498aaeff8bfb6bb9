//! A seccomp profile of the OCI spec, compiled to a BPF program.
//!
//! Of our own, because seccompiler knows two actions per filter and one architecture, and tries system calls
//! one after the other; profiles have several actions (`clone3` answers ENOSYS in the default one),
//! name x86's 32-bit programs too, and run on each system call of each container: here a search tree
//! decides in about ten instructions.

mod assembler;
mod numbers;
mod profile;

use std::collections::BTreeMap;

use serde_json::Value;

use assembler::Program;
use profile::{Profile, Rule};

/// A system call's number has this bit in the x32 ABI.
const X32: u32 = 0x4000_0000;

/// An architecture as the kernel tells the filter, its numbers, and its names in profiles.
struct Architecture {
    audit: u32,
    table: &'static [(&'static str, u32)],
    name: &'static str,
}

const ARCHITECTURES: [Architecture; 3] = [
    Architecture { audit: 0xC000_003E, table: numbers::X86_64, name: "SCMP_ARCH_X86_64" },
    Architecture { audit: 0x4000_0003, table: numbers::X86, name: "SCMP_ARCH_X86" },
    Architecture { audit: 0xC000_00B7, table: numbers::AARCH64, name: "SCMP_ARCH_AARCH64" },
];

/// The name of the architecture that this is built for.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };

/// Compiles `linux.seccomp`: the flags of seccomp(2) as `u32`, then 8 bytes an instruction, little-endian.
/// Empty when the profile allows everything.
pub(crate) fn compile(seccomp: &Value) -> Result<Vec<u8>, String> {
    let profile = Profile::parse(seccomp)?;
    let wanted = |arch: &&Architecture| {
        arch.name == NATIVE || profile.architectures.iter().any(|name| name == arch.name)
    };
    let mut program = Program::default();
    program.load_architecture();
    for architecture in ARCHITECTURES.iter().filter(wanted) {
        let mut section = Program::default();
        section.load_number();
        let ranges = ranges(&profile, architecture);
        section.search(&ranges);
        program.section(architecture.audit, section);
    }
    // A program of an architecture that the profile does not speak of.
    program.answer(profile::KILL_PROCESS);
    let mut bytes = profile.flags.to_le_bytes().to_vec();
    program.encode(&mut bytes)?;
    Ok(bytes)
}

/// What to do from a system call's number on, up to the next range's.
#[derive(Debug, PartialEq, Eq)]
struct Range<'a> {
    from: u32,
    rules: Vec<&'a Rule>,
    otherwise: u32,
}

fn ranges<'a>(profile: &'a Profile, architecture: &Architecture) -> Vec<Range<'a>> {
    let mut calls: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
    for rule in &profile.rules {
        for name in &rule.names {
            // Names that this kernel version or architecture does not have are left out, as runc does.
            if let Some(number) = numbers::number(architecture.table, name) {
                calls.entry(number).or_default().push(rule);
            }
        }
    }
    let default = profile.default;
    let mut ranges: Vec<Range<'_>> = Vec::new();
    let mut push = |from: u32, rules: Vec<&'a Rule>, otherwise: u32| {
        if let Some(last) = ranges.last_mut() {
            if last.from == from {
                *last = Range { from, rules, otherwise };
                return;
            }
            if last.rules.is_empty() && rules.is_empty() && last.otherwise == otherwise {
                return;
            }
        }
        ranges.push(Range { from, rules, otherwise });
    };
    push(0, Vec::new(), default);
    let last = calls.keys().next_back().copied();
    for (number, rules) in calls {
        // The first rule without conditions ends the search.
        let plain = rules.iter().find(|rule| rule.conditions.is_empty());
        let otherwise = plain.map_or(default, |rule| rule.action);
        let conditional = rules.iter().copied().filter(|rule| !rule.conditions.is_empty());
        push(number, conditional.collect(), otherwise);
        push(number + 1, Vec::new(), default);
    }
    if let (Some(last), Some(unknown)) = (last, profile.unknown) {
        // System calls newer than the profile answer ENOSYS, so that programs fall back (as runc patches).
        push(last + 1, Vec::new(), unknown);
    }
    // No profile speaks of these; what they do has its other number checked, so they must not pass a list of what is
    // refused.
    push(X32, Vec::new(), profile.unknown.unwrap_or(profile::NO_SUCH_CALL));
    ranges
}

#[cfg(test)]
mod tests;
