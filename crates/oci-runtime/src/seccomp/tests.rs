#![allow(clippy::unwrap_used)]
//! Filters, run by an interpreter of the BPF that seccomp allows.

use serde_json::json;

use super::*;

const X86_64: u32 = 0xC000_003E;
const X86: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

fn run(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (instructions, rest) = program[4..].as_chunks::<8>();
    assert!(rest.is_empty());
    let mut register = 0_u32;
    let mut at = 0;
    loop {
        let [c0, c1, jt, jf, k0, k1, k2, k3] = instructions[at];
        let k = u32::from_le_bytes([k0, k1, k2, k3]);
        let branch = |yes: bool| usize::from(if yes { jt } else { jf });
        at += 1;
        match u16::from_le_bytes([c0, c1]) {
            0x20 => {
                let k = k as usize;
                register = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
            }
            0x54 => register &= k,
            0x06 => return k,
            0x05 => at += k as usize,
            0x15 => at += branch(register == k),
            0x25 => at += branch(register > k),
            0x35 => at += branch(register >= k),
            code => panic!("instruction {code:#x}"),
        }
    }
}

#[test]
fn a_default_like_profile_decides_per_call_argument_and_architecture() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write", "exit_group", "mseal", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    });
    let program = compile(&profile).unwrap();
    let call = |arch, name: &str, arg: u64| {
        let table = if arch == X86 { numbers::X86 } else { numbers::X86_64 };
        let number = numbers::number(table, name).unwrap();
        run(&program, arch, number, [arg, 0, 0, 0, 0, 0])
    };
    assert_eq!(call(X86_64, "read", 0), ALLOW);
    assert_eq!(call(X86, "write", 0), ALLOW);
    assert_eq!(call(X86_64, "open", 0), ERRNO | 1);
    assert_eq!(call(X86_64, "personality", 0), ALLOW);
    assert_eq!(call(X86_64, "personality", 0xffff_ffff), ALLOW);
    assert_eq!(call(X86_64, "personality", 0xffff_ffff_0000_0000), ERRNO | 1);
    assert_eq!(call(X86_64, "personality", 8), ERRNO | 1);
    assert_eq!(call(X86_64, "clone", 0x0011), ALLOW);
    assert_eq!(call(X86_64, "clone", 0x1000_0000), ERRNO | 1);
    assert_eq!(call(X86_64, "clone3", 0), ERRNO | 38);
    // Newer than all that the profile names, x32, and an architecture it does not name.
    assert_eq!(run(&program, X86_64, 463, [0; 6]), ERRNO | 38);
    assert_eq!(run(&program, X86_64, X32, [0; 6]), ERRNO | 38);
    assert_eq!(run(&program, 0xC000_00B7, 63, [0; 6]), profile::KILL_PROCESS);
}

#[test]
fn comparisons_are_of_64_bits() {
    let values = [0, 1, 5, 6, 1 << 32, (1 << 32) + 5, (1 << 32) + 6, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    for (operator, holds) in operators {
        for value in values {
            let program = compile(&json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 1, "value": value, "op": operator},
                    {"index": 5, "value": 7, "op": "SCMP_CMP_EQ"},
                ]}],
            }))
            .unwrap();
            for argument in values {
                for last in [7, 8] {
                    let answer = run(&program, X86_64, 0, [0, argument, 0, 0, 0, last]);
                    let expected = holds(argument, value) && last == 7;
                    assert_eq!(answer == ALLOW, expected, "{argument} {operator} {value}");
                }
            }
        }
    }
}

#[test]
fn every_call_of_a_long_profile_is_found() {
    let names: Vec<&str> = numbers::X86_64.iter().map(|(name, _)| *name).step_by(2).collect();
    let program = compile(&json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 13,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }))
    .unwrap();
    for (at, (_, number)) in numbers::X86_64.iter().enumerate() {
        let expected = if at % 2 == 0 { ALLOW } else { ERRNO | 13 };
        assert_eq!(run(&program, X86_64, *number, [0; 6]), expected);
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    for profile in [
        json!({}),
        json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW"]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
            "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
    ] {
        assert!(compile(&profile).is_err());
    }
}

#[test]
fn a_list_of_what_is_refused_is_not_passed_by() {
    let program = compile(&json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO"},
            // Either value, as runc reads it.
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 4, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        ],
    }))
    .unwrap();
    let call = |name: &str, arg: u64| {
        let number = numbers::number(numbers::X86_64, name).unwrap();
        run(&program, X86_64, number, [arg, 0, 0, 0, 0, 0])
    };
    assert_eq!((call("mount", 0), call("read", 0)), (ERRNO | 1, ALLOW));
    assert_eq!([4, 8, 12].map(|value| call("personality", value)), [ERRNO | 1, ERRNO | 1, ALLOW]);
    let mount = numbers::number(numbers::X86_64, "mount").unwrap();
    assert_eq!(run(&program, X86_64, X32 | mount, [0; 6]), ERRNO | 38, "the same by its x32 number");
}

#[test]
fn tables_are_sorted() {
    for table in [numbers::X86_64, numbers::X86, numbers::AARCH64] {
        assert!(table.is_sorted_by(|a, b| a.0 < b.0));
    }
}
