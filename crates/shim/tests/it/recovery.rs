//! The daemon dies; the shim does not, and everything is found again. And the other way round.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sampan_shim::client::{Shim, remove_remains};
use sampan_shim::protocol::{
    CreateSandbox, DeleteContainer, Event, FailureCode, NamespaceMode, Request, Status, socket_path,
};

use crate::Test;
use crate::fixture::{Fixture, Runtime, eventually, kill, run};

pub(crate) const TESTS: &[Test] = &[
    Test::Each("a_client_that_dies_in_the_middle_of_calls", client_dies),
    Test::Once("state_and_events_tell_all_after_a_reconnect", reconnect),
    Test::Once("two_shims_in_one_directory_are_refused", two),
    Test::Once("a_dead_shims_container_is_deleted_by_the_next", shim_dies),
    Test::Once("a_hanging_runtime_is_killed", hanging),
    Test::Once("a_runtime_that_talks_a_lot_is_listened_to", talkative),
    Test::Once("nonsense_on_the_socket_is_refused", nonsense),
    Test::Once("a_deep_directory_fits", deep),
];

/// Sends a request and hangs up at once, as a daemon that is killed does.
fn send_and_die(fixture: &Fixture, request: &Request) {
    let mut socket = UnixStream::connect(socket_path(&fixture.path("shim"))).unwrap();
    let body = serde_json::to_vec(request).unwrap();
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    socket.write_all(&[&length[..], &body].concat()).unwrap();
}

fn client_dies(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        send_and_die(&fixture, &Request::CreateContainer(fixture.container("c", &["sleep", "100"])));
        while fixture.status("c").await != Some(Status::Created) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        send_and_die(&fixture, &Request::Start { id: "c".into() });
        while fixture.status("c").await != Some(Status::Running) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // An exec whose client dies has its stdin closed and ends by itself.
        let mut exec = fixture.exec("c", "e", &["then", "cat", "--", "write", "/done", "x"]);
        exec.stdin = true;
        exec.attach = true;
        send_and_die(&fixture, &Request::Exec(exec));
        let done = fixture.path("bundle-c/rootfs/done");
        eventually("the exec to end", || done.exists()).await;
        send_and_die(
            &fixture,
            &Request::Delete(DeleteContainer { id: "c".into(), force: true, runtime: None }),
        );
        while fixture.status("c").await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fixture.finish().await;
    });
}

fn reconnect(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("gone", &["exit", "4"])).await;
        let pid = fixture.start(fixture.container("here", &["sleep", "100"])).await;
        fixture.shim.exec(fixture.exec("here", "e", &["exit", "6"])).await.unwrap();
        fixture.shim.wait("here", Some("e")).await.unwrap();
        fixture.shim.wait("gone", None).await.unwrap();
        let again = Shim::connect(&fixture.path("shim")).await.unwrap();
        let state = again.state().await.unwrap();
        let [gone, here] = &state.containers[..] else { panic!("{state:?}") };
        assert_eq!((gone.status, gone.exit.as_ref().unwrap().code), (Status::Exited, 4));
        assert_eq!((here.status, here.pid), (Status::Running, pid));
        let mut events = again.events().await.unwrap();
        let mut codes = Vec::new();
        for _ in 0..2 {
            if let Some(Event::Exit { exit, .. }) = events.next().await.unwrap() {
                codes.push(exit.code);
            }
        }
        codes.sort_unstable();
        assert_eq!(codes, [4, 6]);
        again.kill("here", None, 9, false).await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        assert!(matches!(event, Event::Exit { id, exec: None, .. } if id == "here"));
        fixture.finish().await;
    });
}

fn two(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let error = Shim::spawn(&Fixture::options(fixture.temp.path())).await.unwrap_err();
        assert!(error.to_string().contains("another shim lives in"), "{error}");
        fixture.shim.state().await.unwrap();
        fixture.finish().await;
    });
}

fn shim_dies(runtime: Runtime) {
    run(async {
        let mut fixture = Fixture::new(runtime).await;
        let request = CreateSandbox { net: NamespaceMode::Pod, ..Default::default() };
        fixture.shim.create_sandbox(request).await.unwrap();
        let pid = fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let shim = fixture.shim.state().await.unwrap().pid;
        kill(shim, 9).unwrap();
        eventually("the shim to die", || fs::metadata(format!("/proc/{shim}/exe")).is_err()).await;
        let error = Shim::connect(&fixture.path("shim")).await.unwrap_err();
        assert!(error.is_gone());
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok(), "the container died with its shim");
        remove_remains(&fixture.path("shim")).unwrap();
        assert!(!fixture.path("shim").exists());
        fixture.shim = Shim::spawn(&Fixture::options(fixture.temp.path())).await.unwrap();
        let delete = DeleteContainer { id: "c".into(), force: true, runtime: Some(fixture.oci()) };
        assert_eq!(fixture.shim.delete(delete).await.unwrap(), None);
        eventually("the container to go", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
        .await;
        fixture.finish().await;
    });
}

fn hanging(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let script = fixture.path("runtime");
        fs::write(&script, "#!/bin/sh\nsleep 100\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut container = fixture.container("h", &["sleep", "1"]);
        container.runtime.path.clone_from(&script);
        container.runtime.args = Vec::new();
        container.timeout_ms = Some(300);
        let (mut talking, mut garbled) = (container.clone(), container.clone());
        "t".clone_into(&mut talking.id);
        "g".clone_into(&mut garbled.id);
        // The clean-up calls the same hanging runtime, and is bounded too (10 s).
        let error = fixture.shim.create(container).await.unwrap_err();
        assert_eq!(error.code(), Some(FailureCode::Timeout));
        let said = format!("OCI runtime create timed out: {} was killed after 0.3 s", script.display());
        assert!(error.to_string().contains(&said), "{error}");
        // One that never stops talking is stopped as well, and what it said is bounded.
        fs::write(&script, "#!/bin/sh\nexec cat /dev/zero >&2\n").unwrap();
        let error = fixture.shim.create(talking).await.unwrap_err();
        assert_eq!(error.code(), Some(FailureCode::Timeout));
        fs::write(&script, "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x >&2 & wait; exit 1\n").unwrap();
        let error = fixture.shim.create(garbled).await.unwrap_err();
        assert!(error.to_string().len() < 32 << 10, "{} bytes", error.to_string().len());
        fixture.finish().await;
    });
}

fn talkative(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let script = fixture.path("runtime");
        let real = fixture.oci();
        let command = [vec![real.path.display().to_string()], real.args.clone()].concat().join(" ");
        // As `runsc --debug --alsologtostderr` does, beyond what a pipe holds.
        let talk = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo the end >&2";
        let text = format!(
            "#!/bin/sh\ncase \" $* \" in\n*' start '*) {talk};;\n*' update '*) {talk}; exit 1;;\nesac\nexec {command} \"$@\"\n"
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut container = fixture.container("talk", &["sleep", "100"]);
        container.runtime.path.clone_from(&script);
        container.runtime.args = Vec::new();
        fixture.shim.create(container).await.unwrap();
        fixture.shim.start("talk").await.unwrap();
        // What it said last is what went wrong.
        let error = fixture.shim.update("talk", serde_json::json!({})).await.unwrap_err().to_string();
        assert!(error.contains("OCI runtime update failed: xxx") && error.ends_with("the end"), "{error}");
        assert!(error.len() < 32 << 10, "{} bytes", error.len());
        fixture.finish().await;
    });
}

fn nonsense(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        for bytes in
            [&b"\xff\xff\xff\xff"[..], b"\x02\x00\x00\x00{]", b"\x05\x00\x00\x00{}", b"GET / HTTP/1.1\r\n"]
        {
            let mut socket = UnixStream::connect(socket_path(&fixture.path("shim"))).unwrap();
            socket.write_all(bytes).unwrap();
            drop(socket);
        }
        for id in ["", "..", "a/b", "-x", "a b"] {
            let mut container = fixture.container("ok", &["exit", "0"]);
            container.id = id.into();
            let error = fixture.shim.create(container).await.unwrap_err();
            assert_eq!(error.code(), Some(FailureCode::InvalidArgument), "{id:?}");
        }
        fixture.shim.state().await.unwrap();
        fixture.finish().await;
    });
}

fn deep(runtime: Runtime) {
    run(async {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().join("d".repeat(60)).join("e".repeat(60));
        fs::create_dir_all(&base).unwrap();
        let _ = runtime;
        let shim = Shim::spawn(&Fixture::options(&base)).await.unwrap();
        shim.state().await.unwrap();
        shim.shutdown().await.unwrap();
    });
}
