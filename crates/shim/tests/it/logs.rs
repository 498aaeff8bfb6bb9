//! Logs and slow clients.

use std::fs;
use std::time::Duration;

use sampan_shim::client::Output;

use crate::Test;
use crate::fixture::{Fixture, Runtime, eventually, run};

pub(crate) const TESTS: &[Test] = &[
    Test::Once("pod_54_logs_have_the_cri_format", format),
    Test::Once("long_lines_and_last_lines_are_tagged_as_pieces", pieces),
    Test::Once("a_log_is_reopened_after_rotation", reopen),
    Test::Once("a_full_disk_does_not_hold_up_a_container", full_disk),
    Test::Once("a_client_that_does_not_read_is_dropped", slow_client),
    Test::Once("many_lines_are_complete", many_lines),
];

fn format(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.run("f", &["then", "echo", "out", "--", "error", "err", "--", "echo"]).await;
        let text = fs::read_to_string(fixture.path("f.log")).unwrap();
        for line in text.lines() {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{line}");
            assert!(["stdout F out", "stderr F err", "stdout F "].contains(&rest), "{line}");
        }
        assert_eq!(text.lines().count(), 3);
        fixture.finish().await;
    });
}

fn pieces(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let (_, log) = fixture.run("p", &["then", "long", "20000", "--", "print", "tail"]).await;
        assert_eq!(log.len(), 3);
        assert_eq!(log[0], format!("stdout P {}", "y".repeat(16384)));
        assert_eq!(log[1], format!("stdout F {}", "y".repeat(20000 - 16384)));
        assert_eq!(log[2], "stdout P tail");
        fixture.finish().await;
    });
}

fn reopen(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut container = fixture.container("r", &["lines"]);
        container.stdin = true;
        fixture.start(container).await;
        let mut session = fixture.shim.attach("r", None, true, false, false).await.unwrap();
        session.input.write(b"one\n").await.unwrap();
        fixture.wait_for_log("r", "stdout F got one").await;
        fs::rename(fixture.path("r.log"), fixture.path("r.log.1")).unwrap();
        fixture.shim.reopen_log("r").await.unwrap();
        session.input.write(b"quit\n").await.unwrap();
        fixture.shim.wait("r", None).await.unwrap();
        assert_eq!(fixture.log("r"), ["stdout F got quit"]);
        fixture.finish().await;
    });
}

fn full_disk(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut container = fixture.container("f", &["spam", "3000000"]);
        container.log_path = Some("/dev/full".into());
        fixture.start(container).await;
        assert_eq!(fixture.shim.wait("f", None).await.unwrap().code, 0);
        let mut container = fixture.container("none", &["spam", "3000000"]);
        container.log_path = None;
        fixture.start(container).await;
        assert_eq!(fixture.shim.wait("none", None).await.unwrap().code, 0);
        fixture.finish().await;
    });
}

fn slow_client(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut container = fixture.container("s", &["then", "wait-stdin", "--", "spam", "10000000"]);
        container.stdin = true;
        fixture.start(container).await;
        let slow = fixture.shim.attach("s", None, false, true, true).await.unwrap();
        let mut fast = fixture.shim.attach("s", None, true, true, true).await.unwrap();
        fast.input.write(b"go\n").await.unwrap();
        let mut received = 0;
        loop {
            match fast.output.next().await.unwrap() {
                Some(Output::Stdout(bytes)) => received += bytes.len(),
                Some(Output::Exit(exit)) => {
                    assert_eq!(exit.code, 0);
                    break;
                }
                other => panic!("{other:?} after {received} bytes"),
            }
        }
        assert_eq!(received, 10_000_000);
        // The slow one gets what was kept for it, and the end; not the exit.
        let mut slow = slow.output;
        let mut got = 0;
        while let Ok(Some(Output::Stdout(bytes))) = slow.next().await {
            got += bytes.len();
        }
        assert!(got < 10_000_000, "{got}");
        fixture.finish().await;
    });
}

fn many_lines(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let (exit, log) = fixture.run("m", &["spam", "5000000"]).await;
        assert_eq!(exit.code, 0);
        assert_eq!(log.len(), 50_000);
        assert!(log.iter().all(|line| line.len() == "stdout F ".len() + 99));
        tokio::time::sleep(Duration::ZERO).await;
        eventually("nothing", || true).await;
        fixture.finish().await;
    });
}
