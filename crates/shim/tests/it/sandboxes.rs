//! Pod sandboxes: namespaces, the pause process, sysctls.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use sampan_shim::client::ExecSyncOptions;
use sampan_shim::protocol::{CreateSandbox, Event, FailureCode, NamespaceMode, Sandbox};
use serde_json::{Value, json};

use crate::Test;
use crate::fixture::{Fixture, Runtime, kill, run};

pub(crate) const TESTS: &[Test] = &[
    Test::Each("containers_share_the_sandboxs_namespaces", shared),
    Test::Each("a_shared_pid_namespace_has_a_pause_process", shared_pid),
    Test::Once("the_hosts_namespaces_are_left_alone", host),
    Test::Once("bad_sysctls_are_refused_and_leave_nothing", bad_sysctls),
    Test::Once("the_end_of_the_pause_process_is_told", pause_ends),
];

fn pod() -> CreateSandbox {
    CreateSandbox {
        hostname: "web-0".into(),
        net: NamespaceMode::Pod,
        ipc: NamespaceMode::Pod,
        uts: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        sysctls: BTreeMap::from([
            ("kernel.shm_rmid_forced".into(), "1".into()),
            ("net.core.somaxconn".into(), "777".into()),
        ]),
        ..Default::default()
    }
}

fn join(config: &mut Value, sandbox: &Sandbox) {
    let pid = match &sandbox.pid {
        Some(path) => json!({"type": "pid", "path": path}),
        None => json!({"type": "pid"}),
    };
    config["linux"]["namespaces"] = json!([
        pid,
        {"type": "mount"},
        {"type": "network", "path": sandbox.net},
        {"type": "ipc", "path": sandbox.ipc},
        {"type": "uts", "path": sandbox.uts},
    ]);
}

fn shared(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let sandbox = fixture.shim.create_sandbox(pod()).await.unwrap();
        assert_eq!(sandbox.net, Some(fixture.path("shim/ns/net")));
        let twice = fixture.shim.create_sandbox(pod()).await.unwrap_err();
        assert_eq!(twice.code(), Some(FailureCode::AlreadyExists));
        let script = [
            "then",
            "hostname",
            "--",
            "read",
            "/proc/sys/net/core/somaxconn",
            "--",
            "read",
            "/proc/sys/kernel/shm_rmid_forced",
            "--",
            "link",
            "/proc/self/ns/net",
        ];
        let container = fixture.container_with("c", &script, |config| join(config, &sandbox));
        let (exit, log) = fixture.run_container(container).await;
        assert_eq!(exit.code, 0);
        let net = fs::metadata(sandbox.net.as_ref().unwrap()).unwrap().ino();
        let net = format!("stdout F net:[{net}]");
        assert_eq!(log, ["stdout F web-0", "stdout F 777", "stdout F 1", &net]);
        let more = BTreeMap::from([("net.ipv4.conf.lo.forwarding".into(), "1".into())]);
        fixture.shim.apply_sysctls(more).await.unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = fixture.path("shim/ns").display().to_string();
        let line = mounts.lines().find(|line| line.contains(&format!(" {ours} "))).unwrap();
        assert!(!line.contains("shared:"), "{line}");
        fixture.finish().await;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&ours));
    });
}

fn shared_pid(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut request = pod();
        request.pid = NamespaceMode::Pod;
        request.oom_score_adj = Some(100);
        let sandbox = fixture.shim.create_sandbox(request).await.unwrap();
        let pause = sandbox.pause_pid.unwrap();
        let status = fs::read_to_string(format!("/proc/{pause}/status")).unwrap();
        assert!(status.contains("Name:\tpause") && status.contains("CapEff:\t0000000000000000"), "{status}");
        assert!(fs::read_dir(format!("/proc/{pause}/fd")).unwrap().count() == 3);
        let score = fs::read_to_string(format!("/proc/{pause}/oom_score_adj")).unwrap();
        assert_eq!(score, "100\n");
        for id in ["a", "b"] {
            let container = fixture.container_with(id, &["sleep", "100"], |config| join(config, &sandbox));
            fixture.start(container).await;
        }
        let exec = fixture.exec("a", "e", &["then", "read", "/proc/1/cmdline", "--", "read", "/proc/1/comm"]);
        let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("/pause\0") && text.ends_with("pause\n"), "{text:?}");
        // Nobody in the pod reaches our binary through it.
        let exec = fixture.exec("a", "x", &["read", "/proc/1/exe"]);
        let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
        assert!(output.stdout.starts_with(b"error: "), "{:?}", String::from_utf8_lossy(&output.stdout[..20]));
        // The end of one container is not the end of the other.
        fixture.shim.kill("a", None, 9, false).await.unwrap();
        assert_eq!(fixture.shim.wait("a", None).await.unwrap().signal, 9);
        let exec = fixture.exec("b", "e", &["echo", "alive"]);
        let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
        assert_eq!(output.stdout, b"alive\n");
        fixture.finish().await;
        assert!(fs::metadata(format!("/proc/{pause}")).is_err());
    });
}

fn host(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let request = CreateSandbox { hostname: "x".into(), ..Default::default() };
        let sandbox = fixture.shim.create_sandbox(request).await.unwrap();
        assert_eq!(sandbox, Sandbox::default());
        fixture.finish().await;
    });
}

fn bad_sysctls(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        for name in ["net.no.such", "../../etc/passwd"] {
            let mut request = pod();
            request.sysctls = BTreeMap::from([(name.into(), "1".into())]);
            let error = fixture.shim.create_sandbox(request).await.unwrap_err();
            assert!(error.to_string().contains(&format!("sysctl {name}")), "{error}");
        }
        // It can be made after that.
        fixture.shim.create_sandbox(pod()).await.unwrap();
        fixture.finish().await;
    });
}

fn pause_ends(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut events = fixture.shim.events().await.unwrap();
        let mut request = pod();
        request.pid = NamespaceMode::Pod;
        let sandbox = fixture.shim.create_sandbox(request).await.unwrap();
        kill(sandbox.pause_pid.unwrap(), 9).unwrap();
        let event = events.next().await.unwrap().unwrap();
        assert!(matches!(event, Event::SandboxExit { exit } if exit.signal == 9));
        assert!(fixture.shim.state().await.unwrap().sandbox.unwrap().pause_exited);
        fixture.finish().await;
    });
}
