//! What the embedded runtime adds to libcontainer: seccomp, capabilities, users, limits.

use std::fs;

use sampan_shim::client::ExecSyncOptions;
use serde_json::{Value, json};

use crate::Test;
use crate::fixture::{Fixture, Runtime, eventually, kill, run};

pub(crate) const TESTS: &[Test] = &[
    Test::Each("capabilities_are_those_of_the_spec", capabilities),
    Test::Each("seccomp_applies_without_no_new_privileges", seccomp),
    Test::Each("users_own_their_stdio_and_have_a_home", users),
    Test::Each("limits_are_clamped", limits),
    Test::Once("runc_command_line", command_line),
    Test::Once("a_stranger_with_the_inits_number_is_left_alone", reused_number),
    Test::Once("a_command_that_cannot_be_executed_says_so", not_a_program),
];

fn status(log: &[String], name: &str) -> String {
    let line = log.iter().find_map(|line| line.strip_prefix(&format!("stdout F {name}:")));
    line.unwrap().trim().to_owned()
}

fn capabilities(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let (_, log) = fixture.run("root", &["read", "/proc/self/status"]).await;
        // CHOWN 0, KILL 5, SETUID 7, NET_BIND_SERVICE 10.
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(status(&log, set), "00000000000004a1", "{set}");
        }
        assert_eq!(status(&log, "CapInh"), "0000000000000000");
        assert_eq!(status(&log, "Seccomp"), "0");
        let container = fixture.container_with("user", &["read", "/proc/self/status"], |config| {
            let process = &mut config["process"];
            process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [44]});
            process["noNewPrivileges"] = json!(true);
            let caps = &mut process["capabilities"];
            caps["inheritable"] = json!(["CAP_NET_BIND_SERVICE"]);
            caps["ambient"] = json!(["CAP_NET_BIND_SERVICE"]);
        });
        let (_, log) = fixture.run_container(container).await;
        assert_eq!(status(&log, "CapEff"), "0000000000000400");
        assert_eq!(status(&log, "CapAmb"), "0000000000000400");
        assert_eq!(status(&log, "NoNewPrivs"), "1");
        assert!(status(&log, "Groups").contains("44"));
        assert_eq!(status(&log, "Uid"), "1000\t1000\t1000\t1000");
        fixture.finish().await;
    });
}

fn profile() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 85}],
    })
}

fn seccomp(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        for (id, nnp, uid) in [("a", false, 0), ("b", true, 0), ("c", false, 1000), ("d", true, 1000)] {
            let script = ["then", "chroot", "--", "read", "/proc/self/status", "--", "sleep", "100"];
            let container = fixture.container_with(id, &script, |config| {
                config["linux"]["seccomp"] = profile();
                config["process"]["noNewPrivileges"] = json!(nnp);
                config["process"]["user"] = json!({"uid": uid, "gid": uid});
            });
            fixture.start(container).await;
            fixture.wait_for_log(id, "stdout F Seccomp:\t2").await;
            let log = fixture.log(id);
            assert!(log[0].contains("Err(Os { code: 85"), "{}", log[0]);
            assert_eq!(status(&log, "NoNewPrivs"), if nnp { "1" } else { "0" });
            if runtime == Runtime::Embedded {
                let exec = fixture.exec(id, "e", &["chroot"]);
                let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
                assert!(String::from_utf8_lossy(&output.stdout).contains("code: 85"));
            }
            fixture.delete(id).await;
        }
        fixture.finish().await;
    });
}

fn users(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let script = [
            "then",
            "env",
            "--",
            "write",
            "/dev/fd/1",
            "through the link\n",
            "--",
            "read",
            "/proc/self/fd/0",
        ];
        let container = fixture.container_with("u", &script, |config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        });
        let (_, log) = fixture.run_container(container).await;
        assert!(log.contains(&"stdout F HOME=/home/user".to_owned()), "{log:?}");
        assert!(log.contains(&"stdout F A=1".to_owned()));
        assert!(log.contains(&"stdout F written".to_owned()), "{log:?}");
        assert!(log.contains(&"stdout F through the link".to_owned()));
        fixture.finish().await;
    });
}

fn limits(runtime: Runtime) {
    // runc and crun fail where CAP_SYS_RESOURCE is missing.
    if runtime != Runtime::Embedded {
        return;
    }
    run(async {
        let fixture = Fixture::new(runtime).await;
        let script = ["then", "read", "/proc/self/limits", "--", "read", "/proc/self/oom_score_adj"];
        let container = fixture.container_with("l", &script, |config| {
            config["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "hard": 1_000_000_000_u64, "soft": 1_000_000_000_u64},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            ]);
            config["process"]["oomScoreAdj"] = json!(-997);
        });
        let (exit, log) = fixture.run_container(container).await;
        assert_eq!(exit.code, 0);
        assert!(log.iter().any(|line| line.contains("Max core file size        0")), "{log:?}");
        let container = fixture.container_with("m", &["read", "/proc/self/oom_score_adj"], |config| {
            config["process"]["oomScoreAdj"] = json!(900);
        });
        let (_, log) = fixture.run_container(container).await;
        assert_eq!(log, ["stdout F 900"]);
        fixture.finish().await;
    });
}

fn command_line(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let pid = fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let oci = fixture.oci();
        let call = |args: &[&str]| {
            let mut command = std::process::Command::new(&oci.path);
            let output = command.args(&oci.args).arg("--root").arg(&oci.root).args(args).output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
        };
        let (code, stdout, _) = call(&["state", "c"]);
        let state: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &state["status"], &state["pid"]), (0, &json!("running"), &json!(pid)));
        assert_eq!(state["bundle"], json!(fixture.path("bundle-c")));
        let (_, stdout, _) = call(&["list", "--format", "json"]);
        assert!(stdout.contains("\"c\""));
        let (_, stdout, _) = call(&["ps", "--format", "json", "c"]);
        assert!(stdout.contains(&pid.to_string()));
        let (code, stdout, _) = call(&["exec", "--env", "X=1", "--user", "1000", "c", "/t", "applet", "env"]);
        assert_eq!(code, 0);
        assert!(stdout.contains("X=1\n") && stdout.contains("HOME=/home/user\n"), "{stdout}");
        let (code, _, _) = call(&["exec", "c", "/t", "applet", "exit", "33"]);
        assert_eq!(code, 33);
        assert_eq!(call(&["features"]).0, 0);
        let (code, _, stderr) = call(&["state", "nothing"]);
        assert_eq!((code, stderr.as_str()), (1, "container does not exist\n"));
        assert_eq!(call(&["delete", "c"]).0, 1);
        // Signals other than deadly ones leave it running.
        assert_eq!(call(&["kill", "c", "WINCH"]).0, 0);
        assert_eq!(call(&["exec", "c", "/t", "applet", "exit", "0"]).0, 0);
        fixture.finish().await;
    });
}

fn reused_number(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let pid = fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let shim = fixture.shim.state().await.unwrap().pid;
        for pid in [shim, pid] {
            kill(pid, 9).unwrap();
            eventually("the process to end", || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            })
            .await;
        }
        // Shim and init are dead, and another process got the init's number.
        let mut stranger = std::process::Command::new("/proc/self/exe");
        let mut stranger = stranger.args(["applet", "sleep", "100"]).spawn().unwrap();
        let file = fixture.path("oci/c/state.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(state["pid"], json!(pid));
        state["pid"] = json!(stranger.id());
        fs::write(&file, state.to_string()).unwrap();
        let oci = fixture.oci();
        let call = |args: &[&str]| {
            let mut command = std::process::Command::new(&oci.path);
            command.args(&oci.args).arg("--root").arg(&oci.root).args(args).output().unwrap()
        };
        let refused = call(&["kill", "c", "9"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("container not running"), "{refused:?}");
        let deleted = call(&["delete", "--force", "c"]);
        assert!(deleted.status.success(), "{deleted:?}");
        assert!(!fixture.path("oci/c").exists());
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger was killed");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        // (What is left of the shim, the fixture removes.)
    });
}

fn not_a_program(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let container = fixture.container("c", &["/text"]);
        let text = container.bundle.join("rootfs/text");
        fs::write(&text, "neither ELF nor #!").unwrap();
        fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (exit, log) = fixture.run_container(container).await;
        assert_eq!(exit.code, 255);
        assert!(log[0].contains("exec /text: Exec format error"), "{log:?}");
        eventually("nothing", || true).await;
        fixture.finish().await;
    });
}
