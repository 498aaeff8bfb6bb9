//! What every OCI runtime must do under the shim.

use std::fs;
use std::time::Duration;

use sampan_shim::client::Error;
use sampan_shim::protocol::{DeleteContainer, Event, FailureCode, Status, TerminalSize, exit_path};
use serde_json::json;

use crate::Test;
use crate::fixture::{Fixture, Runtime, collect, eventually, read_until, run};

pub(crate) const TESTS: &[Test] = &[
    Test::Each("pod_09_exit_codes_and_signals", exit_codes),
    Test::Each("life_of_a_container", life),
    Test::Each("exits_are_on_the_disk_before_they_are_told", durable),
    Test::Each("a_missing_command_fails_the_create_with_runcs_words", missing_command),
    Test::Each("a_broken_bundle_fails_the_create_and_leaves_nothing", broken_bundle),
    Test::Each("oom_kills_are_told_apart", oom),
    Test::Each("attach_with_stdin", attach_stdin),
    Test::Each("stdin_once_closes_after_the_first_session", stdin_once),
    Test::Each("a_terminal_with_sizes", terminal),
    Test::Each("pause_and_resume", pause),
    Test::Each("update_changes_limits", update),
    Test::Each("kill_all_reaches_every_process", kill_all),
    Test::Each("a_created_container_can_be_deleted", delete_created),
];

fn exit_codes(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let (exit, log) = fixture.run("a", &["then", "echo", "hi", "--", "exit", "3"]).await;
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, 0, false));
        assert_eq!(log, ["stdout F hi"]);
        fixture.start(fixture.container("b", &["sleep", "100"])).await;
        fixture.shim.kill("b", None, 9, false).await.unwrap();
        let exit = fixture.shim.wait("b", None).await.unwrap();
        assert_eq!((exit.code, exit.signal), (137, 9));
        let again = fixture.shim.kill("b", None, 9, false).await.unwrap_err();
        assert!(again.is_not_found());
        fixture.finish().await;
    });
}

fn life(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let shim = &fixture.shim;
        let mut events = shim.events().await.unwrap();
        let pid = shim.create(fixture.container("c", &["sleep", "100"])).await.unwrap();
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
        assert_eq!(fixture.status("c").await, Some(Status::Created));
        let twice = shim.create(fixture.container("c", &["sleep", "1"])).await.unwrap_err();
        assert_eq!(twice.code(), Some(FailureCode::AlreadyExists));
        shim.start("c").await.unwrap();
        assert_eq!(fixture.status("c").await, Some(Status::Running));
        let twice = shim.start("c").await.unwrap_err();
        assert_eq!(twice.code(), Some(FailureCode::FailedPrecondition));
        let delete = DeleteContainer { id: "c".into(), ..Default::default() };
        let early = shim.delete(delete.clone()).await.unwrap_err();
        assert_eq!(early.code(), Some(FailureCode::FailedPrecondition));
        let busy = shim.shutdown().await.unwrap_err();
        assert_eq!(busy.code(), Some(FailureCode::FailedPrecondition));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
        shim.kill("c", None, 9, false).await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        let exit = shim.wait("c", None).await.unwrap();
        assert_eq!(event, Event::Exit { id: "c".into(), exec: None, exit: exit.clone() });
        assert_eq!(fixture.status("c").await, Some(Status::Exited));
        assert_eq!(shim.delete(delete).await.unwrap(), Some(exit));
        assert_eq!(fixture.status("c").await, None);
        fixture.finish().await;
    });
}

fn durable(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("d", &["exit", "42"])).await;
        let exit = fixture.shim.wait("d", None).await.unwrap();
        let path = exit_path(&fixture.path("state"), "d");
        let written = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(exit, written);
        assert_eq!(exit.code, 42);
        fixture.finish().await;
    });
}

fn missing_command(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let refused = |id: &str, command: &str| {
            let container = fixture.container_with(id, &[], |config| {
                config["process"]["args"] = json!([command]);
            });
            async {
                let error = fixture.shim.create(container).await.unwrap_err();
                assert_eq!(error.code(), Some(FailureCode::Runtime), "{error}");
                error.to_string()
            }
        };
        let text = refused("m1", "no-such-command").await;
        match runtime {
            Runtime::Crun => assert!(text.contains("executable file `no-such-command` not found"), "{text}"),
            _ => {
                let words = "unable to start container process: exec: \"no-such-command\": \
                             executable file not found in $PATH";
                assert!(text.starts_with("OCI runtime create failed: "), "{text}");
                assert!(text.contains(words), "{text}");
            }
        }
        if runtime != Runtime::Crun {
            let text = refused("m2", "/nowhere/x").await;
            assert!(
                text.contains("exec: \"/nowhere/x\": stat /nowhere/x: no such file or directory"),
                "{text}"
            );
            let text = refused("m3", "/not-executable").await;
            assert!(text.contains("exec: \"/not-executable\": permission denied"), "{text}");
        }
        assert_eq!(fixture.shim.state().await.unwrap().containers, []);
        fixture.finish().await;
    });
}

fn broken_bundle(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let container = fixture.container_with("x", &["sleep", "1"], |config| {
            let missing =
                json!({"destination": "/m", "type": "bind", "source": "/no/such", "options": ["bind"]});
            config["mounts"].as_array_mut().unwrap().push(missing);
        });
        let error = fixture.shim.create(container).await.unwrap_err();
        assert!(
            error.to_string().contains("/no/such") || error.to_string().contains("o such file"),
            "{error}"
        );
        let mut container = fixture.container("y", &["sleep", "1"]);
        fs::write(container.bundle.join("config.json"), "{").unwrap();
        assert!(fixture.shim.create(container.clone()).await.is_err());
        container.runtime.path = "/no/such/runtime".into();
        let error = fixture.shim.create(container).await.unwrap_err();
        assert_eq!(error.code(), Some(FailureCode::Runtime));
        assert_eq!(fixture.shim.state().await.unwrap().containers, []);
        // The ids can be used again: nothing was left.
        let (exit, _) = fixture.run("x", &["exit", "0"]).await;
        assert_eq!(exit.code, 0);
        fixture.finish().await;
    });
}

fn oom(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut container = fixture.container_with("o", &["alloc", "200"], |config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 50 << 20});
        });
        let v1 = format!("/sys/fs/cgroup/memory{}/o", fixture.cgroup);
        let v2 = format!("/sys/fs/cgroup{}/o", fixture.cgroup);
        let is_v1 = fs::metadata("/sys/fs/cgroup/memory").is_ok();
        container.memory_cgroup = Some(if is_v1 { v1 } else { v2 }.into());
        let (exit, _) = fixture.run_container(container).await;
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, true));
        fixture.finish().await;
    });
}

fn attach_stdin(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut container = fixture.container("i", &["lines"]);
        container.stdin = true;
        fixture.start(container).await;
        let mut first = fixture.shim.attach("i", None, true, true, true).await.unwrap();
        first.input.write(b"one\n").await.unwrap();
        read_until(&mut first.output, "got one\n").await;
        // The session ends, the container's stdin does not.
        first.input.close().await.unwrap();
        drop(first);
        let mut second = fixture.shim.attach("i", None, true, true, true).await.unwrap();
        second.input.write(b"two\nquit\n").await.unwrap();
        let (stdout, _, exit) = collect(&mut second.output).await;
        assert_eq!(stdout, "got two\ngot quit\n");
        assert_eq!(exit.unwrap().code, 0);
        assert_eq!(fixture.log("i"), ["stdout F got one", "stdout F got two", "stdout F got quit"]);
        fixture.finish().await;
    });
}

fn stdin_once(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut container = fixture.container("i", &["then", "cat", "--", "echo", "end"]);
        container.stdin = true;
        container.stdin_once = true;
        fixture.start(container).await;
        let mut session = fixture.shim.attach("i", None, true, true, true).await.unwrap();
        let data = "0123456789".repeat(50_000);
        let (mut input, mut output) = session_halves(&mut session, &fixture).await;
        let written = async {
            input.write(data.as_bytes()).await.unwrap();
            input.close().await.unwrap();
        };
        let ((), (stdout, _, exit)) = tokio::join!(written, collect(&mut output));
        assert!(stdout == format!("{data}end\n"), "{} bytes", stdout.len());
        assert_eq!(exit.unwrap().code, 0);
        fixture.finish().await;
    });
}

async fn session_halves(
    session: &mut sampan_shim::client::AttachStream,
    fixture: &Fixture,
) -> (sampan_shim::client::AttachInput, sampan_shim::client::AttachOutput) {
    let other = fixture.shim.attach("i", None, false, false, false).await.unwrap();
    std::mem::replace(session, other).into_split()
}

fn terminal(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut container = fixture.container_with("t", &["then", "lines", "--", "size"], |config| {
            config["process"]["terminal"] = json!(true);
            config["process"]["consoleSize"] = json!({"width": 80, "height": 24});
        });
        container.tty = true;
        container.stdin = true;
        fixture.start(container).await;
        let mut session = fixture.shim.attach("t", None, true, true, true).await.unwrap();
        session.input.write(b"hello\n").await.unwrap();
        let text = read_until(&mut session.output, "got hello").await;
        assert!(text.starts_with("hello\r\n"), "{text:?}");
        let size = TerminalSize { width: 132, height: 43 };
        fixture.shim.resize("t", None, size).await.unwrap();
        session.input.write(b"quit\n").await.unwrap();
        let (stdout, stderr, exit) = collect(&mut session.output).await;
        assert!(stdout.ends_with("132x43\r\n"), "{stdout:?}");
        assert_eq!(stderr, "");
        assert_eq!(exit.unwrap().code, 0);
        fixture.finish().await;
    });
}

fn pause(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("p", &["sleep", "100"])).await;
        fixture.shim.pause("p").await.unwrap();
        assert!(fixture.shim.state().await.unwrap().containers[0].paused);
        assert!(fixture.shim.exec(fixture.exec("p", "e", &["echo"])).await.is_err());
        fixture.shim.resume("p").await.unwrap();
        assert!(!fixture.shim.state().await.unwrap().containers[0].paused);
        fixture.shim.pause("p").await.unwrap();
        // A frozen container can be deleted by force.
        fixture.delete("p").await;
        fixture.finish().await;
    });
}

fn update(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("u", &["sleep", "100"])).await;
        let resources = json!({"cpu": {"shares": 512}, "pids": {"limit": 77}});
        fixture.shim.update("u", resources).await.unwrap();
        let dirs = fixture.cgroups();
        let limits: Vec<String> =
            dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("u/pids.max")).ok()).collect();
        assert_eq!(limits, ["77\n"]);
        fixture.finish().await;
    });
}

fn kill_all(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("k", &["sleep", "100"])).await;
        fixture.shim.exec(fixture.exec("k", "e", &["sleep", "100"])).await.unwrap();
        fixture.shim.kill("k", None, 9, true).await.unwrap();
        let exit = fixture.shim.wait("k", Some("e")).await.unwrap();
        assert_eq!(exit.signal, 9);
        assert_eq!(fixture.shim.wait("k", None).await.unwrap().signal, 9);
        fixture.finish().await;
    });
}

fn delete_created(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let pid = fixture.shim.create(fixture.container("n", &["sleep", "100"])).await.unwrap();
        let delete = DeleteContainer { id: "n".into(), ..Default::default() };
        assert_eq!(fixture.shim.delete(delete).await.unwrap(), None);
        eventually("the init to go", || fs::metadata(format!("/proc/{pid}")).is_err()).await;
        let wait = tokio::time::timeout(Duration::from_secs(1), fixture.shim.wait("n", None));
        assert!(matches!(wait.await.unwrap(), Err(Error::Failed(_))));
        fixture.finish().await;
    });
}
