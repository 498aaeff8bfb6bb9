//! Execs: streams, terminals, exit codes, many at once, bounds.

use std::time::{Duration, Instant};

use sampan_shim::client::{Error, ExecSyncOptions, Output};
use sampan_shim::protocol::{FailureCode, TerminalSize};
use serde_json::json;

use crate::Test;
use crate::fixture::{Fixture, Runtime, collect, eventually, read_until, run};

pub(crate) const TESTS: &[Test] = &[
    Test::Each("pod_54_exec_streams_and_exit_codes", streams),
    Test::Each("exec_with_a_terminal", terminal),
    Test::Each("exec_sync_is_bounded", sync),
    Test::Each("hook_26_exec_sync_times_out_and_kills", timeout),
    Test::Once("hook_26_exec_sync_that_times_out_while_it_starts_is_killed", timeout_while_starting),
    Test::Each("exec_of_a_missing_command", missing),
    Test::Once("several_execs_at_once", several),
    Test::Once("an_exec_waits_for_its_client", slow),
    Test::Once("an_exec_in_a_container_that_is_gone", gone),
    Test::Once("a_detached_exec_is_remembered", detached),
];

fn streams(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let script = ["then", "echo", "out", "--", "error", "err", "--", "exit", "5"];
        let mut stream = fixture.shim.exec_stream(fixture.exec("c", "e", &script)).await.unwrap();
        assert!(stream.pid.unwrap() > 1);
        let (stdout, stderr, exit) = collect(&mut stream.output).await;
        assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(exit.unwrap().code, 5);
        let mut exec = fixture.exec("c", "in", &["cat"]);
        exec.stdin = true;
        let stream = fixture.shim.exec_stream(exec).await.unwrap();
        let (mut input, mut output) = stream.into_split();
        let data = "x".repeat(300_000);
        let write = async {
            input.write(data.as_bytes()).await.unwrap();
            input.close().await.unwrap();
        };
        let ((), (stdout, _, exit)) = tokio::join!(write, collect(&mut output));
        assert!(stdout == data);
        assert_eq!(exit.unwrap().code, 0);
        let stream = fixture.shim.exec_stream(fixture.exec("c", "k", &["sleep", "50"])).await.unwrap();
        fixture.shim.kill("c", Some("k"), 15, false).await.unwrap();
        let (_, mut output) = stream.into_split();
        assert_eq!(collect(&mut output).await.2.unwrap().code, 143);
        // Delivered to its client, it is forgotten.
        assert_eq!(fixture.shim.state().await.unwrap().containers[0].execs, []);
        fixture.finish().await;
    });
}

fn terminal(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let mut exec = fixture.exec("c", "t", &["then", "lines", "--", "size"]);
        exec.tty = true;
        exec.stdin = true;
        exec.process["terminal"] = json!(true);
        let mut stream = fixture.shim.exec_stream(exec).await.unwrap();
        stream.input.resize(TerminalSize { width: 100, height: 30 }).await.unwrap();
        stream.input.write(b"quit\n").await.unwrap();
        let (stdout, _, exit) = collect(&mut stream.output).await;
        assert_eq!(stdout, "quit\r\ngot quit\r\n100x30\r\n");
        assert_eq!(exit.unwrap().code, 0);
        fixture.finish().await;
    });
}

fn sync(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let exec = fixture.exec("c", "e", &["spam", "1000000"]);
        let options = ExecSyncOptions { timeout: Some(Duration::from_secs(20)), max_output: 1000 };
        let output = fixture.shim.exec_sync(exec, options).await.unwrap();
        assert_eq!((output.stdout.len(), output.exit.code), (1000, 0));
        fixture.finish().await;
    });
}

fn timeout(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let options = ExecSyncOptions { timeout: Some(Duration::from_millis(700)), ..Default::default() };
        let exec = fixture.exec("c", "e", &["sleep", "50"]);
        let error = fixture.shim.exec_sync(exec, options).await.unwrap_err();
        assert!(matches!(error, Error::ExecTimeout { seconds: 1, .. }), "{error}");
        let exit = fixture.shim.wait("c", Some("e")).await.unwrap();
        assert_eq!(exit.signal, 9);
        fixture.finish().await;
    });
}

fn timeout_while_starting(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        // A runtime that takes its time with execs.
        let script = fixture.path("runtime");
        let real = fixture.oci();
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *\" exec \"*) sleep 2;; esac\nexec {} oci \"$@\"\n",
            real.path.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut container = fixture.container("c", &["sleep", "100"]);
        container.runtime.path = script;
        container.runtime.args = Vec::new();
        fixture.start(container).await;
        let options = ExecSyncOptions { timeout: Some(Duration::from_millis(100)), ..Default::default() };
        let exec = fixture.exec("c", "e", &["sleep", "90"]);
        let error = fixture.shim.exec_sync(exec, options).await.unwrap_err();
        assert!(matches!(error, Error::ExecTimeout { .. }), "{error}");
        assert_eq!(fixture.shim.wait("c", Some("e")).await.unwrap().signal, 9);
        fixture.finish().await;
    });
}

fn missing(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let mut exec = fixture.exec("c", "e", &["echo"]);
        exec.process["args"] = json!(["no-such"]);
        let error = fixture.shim.exec_stream(exec.clone()).await.unwrap_err();
        assert_eq!(error.code(), Some(FailureCode::Runtime));
        if runtime != Runtime::Crun {
            let text = "OCI runtime exec failed: exec failed: unable to start container process: \
                        exec: \"no-such\": executable file not found in $PATH";
            assert!(error.to_string().starts_with(text), "{error}");
        }
        // The id is free again, and the container unharmed.
        exec.process = crate::fixture::process(&["echo", "fine"]);
        let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
        assert_eq!(output.stdout, b"fine\n");
        fixture.finish().await;
    });
}

fn several(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..10_u8 {
            let shim = fixture.shim.clone();
            let code = number.to_string();
            let script = ["then", "echo", &code, "--", "exit", &code];
            let exec = fixture.exec("c", &format!("e{number}"), &script);
            tasks.spawn(async move {
                let output = shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
                assert_eq!(output.stdout, format!("{number}\n").into_bytes());
                assert_eq!(output.exit.code, i32::from(number));
            });
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
        fixture.finish().await;
    });
}

fn slow(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let exec = fixture.exec("c", "e", &["spam", "5000000"]);
        let mut stream = fixture.shim.exec_stream(exec).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut received = 0;
        while let Some(item) = stream.output.next().await.unwrap() {
            match item {
                Output::Stdout(bytes) => received += bytes.len(),
                Output::Exit(exit) => assert_eq!(exit.code, 0),
                Output::Stderr(_) => panic!("stderr"),
            }
        }
        assert_eq!(received, 5_000_000);
        // A client that goes away does not hold it up either.
        let exec = fixture.exec("c", "f", &["then", "spam", "1000000", "--", "write", "/done", "x"]);
        let stream = fixture.shim.exec_stream(exec).await.unwrap();
        drop(stream);
        let done = fixture.path("bundle-c/rootfs/done");
        eventually("the exec to end", || done.exists()).await;
        fixture.finish().await;
    });
}

fn gone(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let error = fixture.shim.exec(fixture.exec("c", "e", &["echo"])).await.unwrap_err();
        assert!(error.is_not_found());
        fixture.start(fixture.container("c", &["exit", "0"])).await;
        fixture.shim.wait("c", None).await.unwrap();
        let error = fixture.shim.exec(fixture.exec("c", "e", &["echo"])).await.unwrap_err();
        assert_eq!(error.code(), Some(FailureCode::FailedPrecondition));
        fixture.finish().await;
    });
}

fn detached(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let start = Instant::now();
        fixture.shim.exec(fixture.exec("c", "e", &["exit", "9"])).await.unwrap();
        let exit = fixture.shim.wait("c", Some("e")).await.unwrap();
        assert_eq!(exit.code, 9);
        assert!(start.elapsed() < Duration::from_secs(10));
        let state = fixture.shim.state().await.unwrap();
        assert_eq!(state.containers[0].execs[0].exit, Some(exit.clone()));
        assert_eq!(fixture.shim.delete_exec("c", "e").await.unwrap(), exit);
        assert!(fixture.shim.wait("c", Some("e")).await.unwrap_err().is_not_found());
        let mut exec = fixture.exec("c", "a", &["lines"]);
        exec.stdin = true;
        fixture.shim.exec(exec).await.unwrap();
        let mut stream = fixture.shim.attach("c", Some("a"), true, true, true).await.unwrap();
        stream.input.write(b"later\n").await.unwrap();
        read_until(&mut stream.output, "got later\n").await;
        fixture.finish().await;
    });
}
