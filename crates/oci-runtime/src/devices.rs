//! Which devices a container may use on cgroup v2: a BPF program that the kernel asks at each `mknod` and `open`.
//!
//! v1 has files for these rules and libcgroups writes them; on v2 it would need libbpf, a C library. The rules are
//! those of the OCI spec's `linux.resources.devices`, where a later one overrides an earlier one and nothing is allowed
//! that no rule speaks of. So the program tries the last rule first, and the first that speaks of a request decides.

use std::fs::File;
use std::path::Path;

use serde_json::Value;

use crate::kernel::bpf;
use crate::{Error, Result, cgroups};

// What the kernel says of a request (uapi/linux/bpf.h, `struct bpf_cgroup_dev_ctx`): the kind of device in the lower
// half of the first word and the access in its upper half, then major and minor.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const EVERYTHING: i32 = MAKE | READ | WRITE;

// Registers: the request's kind, access, major and minor; the answer; one to reckon with.
const ANSWER: u8 = 0;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Where the program finds the request when it begins.
const REQUEST: u8 = 1;

// Instruction codes (uapi/linux/bpf.h and bpf_common.h), of 32 bits but the jumps.
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const COPY: u8 = 0xbc;
const UNLESS: u8 = 0x55;
const UNLESS_SAME: u8 = 0x5d;
const IF: u8 = 0x15;
const EXIT: u8 = 0x95;

/// The kernel's bound of a program by a privileged process is a million; this is more rules than a machine has devices.
const MAX_RULES: usize = 20_000;

/// One of `linux.resources.devices`; what is `None` may be anything.
#[derive(Clone, Copy, Debug)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

impl Rule {
    fn of(value: &Value) -> std::result::Result<Self, String> {
        let number = |name: &str| {
            let number = value[name].as_i64().filter(|number| *number >= 0);
            number.map(i32::try_from).transpose().map_err(|_| format!("{name} of {value} is too large"))
        };
        let kind = match value["type"].as_str().unwrap_or("a") {
            "" | "a" => None,
            "b" => Some(BLOCK),
            "c" | "u" => Some(CHARACTER),
            other => return Err(format!("{other:?} is not a type of device")),
        };
        let mut access = 0;
        for letter in value["access"].as_str().unwrap_or_default().bytes() {
            access |= match letter {
                b'r' => READ,
                b'w' => WRITE,
                b'm' => MAKE,
                _ => return Err(format!("the access of {value} is not of the letters r, w and m")),
            };
        }
        let allow = value["allow"].as_bool().unwrap_or(false);
        // As with v1, no letters are all of them.
        let access = if access == 0 { EVERYTHING } else { access };
        Ok(Self { allow, kind, major: number("major")?, minor: number("minor")?, access })
    }

    /// Whether it decides every request.
    fn is_total(&self) -> bool {
        (self.kind, self.major, self.minor, self.access) == (None, None, None, EVERYTHING)
    }

    /// The instructions that answer a request of which this rule speaks; else they run past their end.
    fn write(&self, program: &mut Vec<u64>) {
        let mut checks = Vec::new();
        let wanted = [(KIND, self.kind), (MAJOR, self.major), (MINOR, self.minor)];
        for (register, value) in wanted {
            checks.extend(value.map(|value| Check::Differs(register, value)));
        }
        if self.access != EVERYTHING {
            checks.push(if self.allow {
                Check::WantsMore(self.access)
            } else {
                Check::WantsNone(self.access)
            });
        }
        let length: usize = checks.iter().map(Check::length).sum();
        // Past the checks that are left and the answer.
        let mut left = length + 2;
        for check in checks {
            left -= check.length();
            check.write(program, i16::try_from(left).unwrap_or(i16::MAX));
        }
        answer(program, self.allow);
    }
}

/// Why a rule does not speak of a request.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// It is of another kind or number.
    Differs(u8, i32),
    /// It wants more than is allowed.
    WantsMore(i32),
    /// It wants nothing of what is forbidden.
    WantsNone(i32),
}

impl Check {
    const fn length(&self) -> usize {
        match self {
            Self::Differs(..) => 1,
            Self::WantsMore(_) | Self::WantsNone(_) => 3,
        }
    }

    /// Jumps over the next `left` instructions when it holds.
    fn write(self, program: &mut Vec<u64>, left: i16) {
        match self {
            Self::Differs(register, value) => program.push(instruction(UNLESS, register, 0, left, value)),
            Self::WantsMore(access) | Self::WantsNone(access) => {
                program.push(instruction(COPY, SCRATCH, ACCESS, 0, 0));
                program.push(instruction(AND, SCRATCH, 0, 0, access));
                program.push(match self {
                    Self::WantsNone(_) => instruction(IF, SCRATCH, 0, left, 0),
                    _ => instruction(UNLESS_SAME, SCRATCH, ACCESS, left, 0),
                });
            }
        }
    }
}

/// `struct bpf_insn`.
fn instruction(code: u8, to: u8, from: u8, jump: i16, value: i32) -> u64 {
    let [jump_low, jump_high] = jump.to_le_bytes();
    let [v0, v1, v2, v3] = value.to_le_bytes();
    u64::from_le_bytes([code, to | from << 4, jump_low, jump_high, v0, v1, v2, v3])
}

fn answer(program: &mut Vec<u64>, allow: bool) {
    program.push(instruction(MOVE, ANSWER, 0, 0, i32::from(allow)));
    program.push(instruction(EXIT, 0, 0, 0, 0));
}

/// The program for these rules; none when they allow everything.
fn compile(rules: &[Value]) -> std::result::Result<Option<Vec<u64>>, String> {
    if rules.len() > MAX_RULES {
        return Err(format!("more than {MAX_RULES} rules"));
    }
    let rules = rules.iter().map(Rule::of).collect::<std::result::Result<Vec<_>, _>>()?;
    if rules.last().is_some_and(|rule| rule.allow && rule.is_total()) {
        return Ok(None);
    }
    let mut program = vec![
        instruction(LOAD, KIND, REQUEST, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD, ACCESS, REQUEST, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, REQUEST, 4, 0),
        instruction(LOAD, MINOR, REQUEST, 8, 0),
    ];
    for rule in rules.iter().rev() {
        rule.write(&mut program);
        if rule.is_total() {
            // The kernel refuses instructions that nothing reaches.
            return Ok(Some(program));
        }
    }
    answer(&mut program, false);
    Ok(Some(program))
}

/// Holds the container with these cgroups to its rules. On v1 that is done already.
///
/// # Errors
/// When the kernel does not take them: a container without them could use every device of the host.
pub(crate) fn confine(config: &Value, cgroup: &Path) -> Result<()> {
    let Some(rules) = config.pointer("/linux/resources/devices").and_then(Value::as_array) else {
        return Ok(());
    };
    let program = compile(rules).map_err(|why| Error::text(format!("linux.resources.devices: {why}")))?;
    let Some(program) = program else { return Ok(()) };
    let dir = cgroups::v2_directory(cgroup);
    let dir =
        dir.ok_or_else(|| Error::text("cgroup v2 is not mounted: nothing keeps a container from devices"))?;
    let opened = File::open(&dir).map_err(Error::file("open cgroup", &dir))?;
    bpf::guard_devices(&opened, &program).map_err(Error::file("set the device rules of", &dir))
}

#[cfg(test)]
mod tests;
