#![allow(clippy::unwrap_used)]
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::json;

use super::*;

/// What the program answers, run as the kernel would.
fn ask(program: &[u64], kind: i32, access: i32, major: u32, minor: u32) -> bool {
    let request = [kind as u32 | (access as u32) << 16, major, minor];
    let (mut registers, mut at) = ([0_u32; 6], 0);
    for _ in 0..10_000 {
        let [code, operands, j0, j1, v0, v1, v2, v3] = program[at].to_le_bytes();
        let (to, from) = (usize::from(operands & 15), usize::from(operands >> 4));
        let jump = i16::from_le_bytes([j0, j1]);
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        at += 1;
        let jumps = match code {
            LOAD => {
                registers[to] = request[usize::try_from(jump).unwrap() / 4];
                continue;
            }
            AND => {
                registers[to] &= value;
                continue;
            }
            SHIFT_RIGHT => {
                registers[to] >>= value;
                continue;
            }
            MOVE => {
                registers[to] = value;
                continue;
            }
            COPY => {
                registers[to] = registers[from];
                continue;
            }
            UNLESS => registers[to] != value,
            UNLESS_SAME => registers[to] != registers[from],
            IF => registers[to] == value,
            EXIT => return registers[usize::from(ANSWER)] == 1,
            other => panic!("{other:#x}"),
        };
        if jumps {
            at += usize::try_from(jump).unwrap();
        }
    }
    panic!("it does not end");
}

fn usual() -> Vec<Value> {
    vec![
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
        json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}),
        json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}),
        json!({"allow": true, "type": "b", "major": 8, "minor": 1, "access": "r"}),
        json!({"allow": false, "type": "c", "major": 136, "minor": 7, "access": "w"}),
    ]
}

#[test]
fn the_last_rule_that_speaks_of_a_request_decides() {
    let program = compile(&usual()).unwrap().unwrap();
    let ask = |kind, access, major, minor| ask(&program, kind, access, major, minor);
    // Nodes of all kinds may be made; that is not using them.
    assert!(ask(BLOCK, MAKE, 8, 0) && ask(CHARACTER, MAKE, 1, 1));
    assert!(!ask(BLOCK, READ, 8, 0) && !ask(BLOCK, WRITE, 8, 0) && !ask(BLOCK, MAKE | READ, 8, 0));
    assert!(!ask(CHARACTER, READ, 1, 1), "/dev/mem");
    assert!(ask(CHARACTER, READ | WRITE, 1, 3) && !ask(BLOCK, READ, 1, 3), "/dev/null");
    assert!(ask(CHARACTER, READ | WRITE, 136, 5), "any minor number");
    assert!(ask(BLOCK, READ, 8, 1) && !ask(BLOCK, READ | WRITE, 8, 1));
    assert!(ask(CHARACTER, READ, 136, 7) && !ask(CHARACTER, READ | WRITE, 136, 7));
}

#[test]
fn nothing_is_allowed_that_no_rule_speaks_of() {
    let program = compile(&[]).unwrap().unwrap();
    assert!(!ask(&program, CHARACTER, READ, 1, 3));
    assert_eq!(compile(&[json!({"allow": true, "access": "rwm"})]).unwrap(), None);
    for wrong in [json!({"type": "x"}), json!({"access": "rx"}), json!({"major": 1_u64 << 40})] {
        assert!(compile(&[wrong]).is_err());
    }
}

#[test]
fn the_kernel_keeps_a_cgroup_to_its_rules() {
    // Also where the controllers are on v1: what a hybrid set-up has of v2 takes such programs.
    let Some(dir) = cgroups::v2_directory(Path::new(&format!("/smpt-{}-devices", std::process::id()))) else {
        eprintln!("this machine has no cgroup v2");
        return;
    };
    std::fs::create_dir(&dir).unwrap();
    let run = |script: &str| {
        let procs = dir.join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec, a write of two bytes.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || std::fs::write(&procs, "0"))
        };
        command.status().unwrap().success()
    };
    let kmsg = "exec 3</dev/kmsg";
    assert!(run(kmsg), "before");
    let program = compile(&usual()).unwrap().unwrap();
    bpf::guard_devices(&File::open(&dir).unwrap(), &program).unwrap();
    assert!(!run(kmsg), "a device that no rule allows");
    assert!(run("exec 3<>/dev/null"));
    std::fs::remove_dir(&dir).unwrap();
}
