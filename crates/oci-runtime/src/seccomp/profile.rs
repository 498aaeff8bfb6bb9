//! Reading `linux.seccomp`.

use serde_json::Value;

/// `SECCOMP_RET_KILL_PROCESS`.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// A system call answers that the kernel does not have it.
pub(super) const NO_SUCH_CALL: u32 = ERRNO | libc::ENOSYS as u32;

/// A profile.
#[derive(Debug)]
pub(super) struct Profile {
    /// What seccomp(2) is told.
    pub(super) flags: u32,
    pub(super) architectures: Vec<String>,
    pub(super) default: u32,
    /// What system calls answer that the profile is too old to know; none: as `default`.
    pub(super) unknown: Option<u32>,
    pub(super) rules: Vec<Rule>,
}

/// What some system calls get, when their arguments are so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: u32,
    pub(super) conditions: Vec<Condition>,
}

/// A comparison of an argument; all of a rule must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u8,
    pub(super) operator: Operator,
    pub(super) value: u64,
    pub(super) mask: u64,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Profile {
    pub(super) fn parse(seccomp: &Value) -> Result<Self, String> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(ToOwned::to_owned);
        let list = |value: Option<&Value>| -> Vec<Value> {
            value.and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let default_action =
            text(seccomp.get("defaultAction")).ok_or("linux.seccomp.defaultAction is missing")?;
        let errno = seccomp.get("defaultErrnoRet");
        let default = action(&default_action, errno)?;
        let refuses = [ERRNO, KILL_PROCESS, KILL_THREAD, TRAP].contains(&(default & 0xffff_0000));
        let plain = errno.and_then(Value::as_u64).is_none_or(|errno| errno == libc::EPERM as u64);
        let mut rules = Vec::new();
        for entry in list(seccomp.get("syscalls")) {
            let names = list(entry.get("names")).into_iter();
            let names: Vec<String> = names.filter_map(|name| text(Some(&name))).collect();
            let name = text(entry.get("action")).ok_or("linux.seccomp.syscalls: action is missing")?;
            let action = action(&name, entry.get("errnoRet"))?;
            if action == default {
                continue;
            }
            let conditions = list(entry.get("args"));
            let conditions: Result<Vec<_>, _> = conditions.iter().map(condition).collect();
            let conditions = conditions?;
            let repeats =
                |at: usize| conditions[..at].iter().any(|other| other.index == conditions[at].index);
            if (0..conditions.len()).any(repeats) {
                // Of several conditions on one argument any is enough, and then of all: as runc reads profiles.
                rules.extend(conditions.into_iter().map(|condition| Rule {
                    names: names.clone(),
                    action,
                    conditions: vec![condition],
                }));
            } else {
                rules.push(Rule { names, action, conditions });
            }
        }
        let mut flags = 0;
        for flag in list(seccomp.get("flags")) {
            flags |= match flag.as_str() {
                Some("SECCOMP_FILTER_FLAG_TSYNC") => 1,
                Some("SECCOMP_FILTER_FLAG_LOG") => 2,
                Some("SECCOMP_FILTER_FLAG_SPEC_ALLOW") => 4,
                _ => return Err(format!("seccomp flag {flag} is not supported")),
            };
        }
        Ok(Self {
            flags,
            architectures: list(seccomp.get("architectures"))
                .iter()
                .filter_map(|name| text(Some(name)))
                .collect(),
            default,
            unknown: (refuses && plain).then_some(NO_SUCH_CALL),
            rules,
        })
    }
}

fn action(name: &str, errno: Option<&Value>) -> Result<u32, String> {
    let errno = errno.and_then(Value::as_u64).unwrap_or(libc::EPERM as u64);
    let data = u32::try_from(errno & 0xffff).unwrap_or(0);
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | data,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_TRACE" => TRACE | data,
        "SCMP_ACT_LOG" => LOG,
        _ => return Err(format!("seccomp action {name} is not supported")),
    })
}

fn condition(argument: &Value) -> Result<Condition, String> {
    let number = |name: &str| argument.get(name).and_then(Value::as_u64);
    let index = number("index").filter(|index| *index < 6);
    let index = index.and_then(|index| u8::try_from(index).ok());
    let value = number("value").unwrap_or(0);
    let value_two = number("valueTwo").unwrap_or(0);
    let operator = argument.get("op").and_then(Value::as_str).unwrap_or_default();
    let all = u64::MAX;
    let (operator, value, mask) = match operator {
        "SCMP_CMP_EQ" => (Operator::Equal, value, all),
        "SCMP_CMP_NE" => (Operator::NotEqual, value, all),
        "SCMP_CMP_LT" => (Operator::Less, value, all),
        "SCMP_CMP_LE" => (Operator::LessOrEqual, value, all),
        "SCMP_CMP_GT" => (Operator::Greater, value, all),
        "SCMP_CMP_GE" => (Operator::GreaterOrEqual, value, all),
        "SCMP_CMP_MASKED_EQ" => (Operator::Equal, value_two & value, value),
        _ => return Err(format!("seccomp operator {operator:?} is not known")),
    };
    Ok(Condition {
        index: index.ok_or("linux.seccomp.syscalls.args.index is not an argument")?,
        operator,
        value,
        mask,
    })
}
