//! ExecSync and logs.

use sampan_cri::v1;
use tonic::Code;

use super::{Check, Target, read_log};

pub async fn hook_06_exec_collects_both_streams(target: &Target) -> Check {
    let (pod, id) = target.sleeper("exec", |_, _| {}).await?;
    let answer = target.exec(&id, &["probe", "both", "to stdout", "to stderr"]).await?;
    assert_eq!(
        (answer.stdout.as_slice(), answer.stderr.as_slice()),
        (&b"to stdout\n"[..], &b"to stderr\n"[..])
    );
    assert_eq!(target.exec(&id, &["probe", "exit", "5"]).await?.exit_code, 5);
    let error = target.exec(&id, &["no-such-program"]).await.expect_err("there is no such program");
    assert!(error.message().contains("no-such-program"), "{}", error.message());
    // Output beyond the bound is cut, not an error.
    let flood = target.exec(&id, &["probe", "flood", "17000000"]).await?;
    assert_eq!((flood.exit_code, flood.stdout.len()), (0, 16 << 20));
    target.stop(&id, 0).await?;
    assert!(target.exec(&id, &["true"]).await.is_err());
    target.remove_pod(&pod).await
}

pub async fn exec_that_takes_too_long_is_killed(target: &Target) -> Check {
    let (pod, id) = target.sleeper("slow", |_, _| {}).await?;
    let request = v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".to_owned(), "77".to_owned()],
        timeout: 1,
    };
    let error = target.client.runtime.clone().exec_sync(request).await.expect_err("too slow");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    ends(target, &id, "sleep 77").await?;
    target.remove_pod(&pod).await
}

pub async fn exec_whose_caller_is_gone_is_killed(target: &Target) -> Check {
    let (pod, id) = target.sleeper("gone", |_, _| {}).await?;
    let request = v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".to_owned(), "78".to_owned()],
        timeout: 0,
    };
    let mut runtime = target.client.runtime.clone();
    let call = runtime.exec_sync(request);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(500), call).await.is_err());
    ends(target, &id, "sleep 78").await?;
    target.remove_pod(&pod).await
}

/// Waits until no process of the container has this command line.
async fn ends(target: &Target, id: &str, command: &str) -> Check {
    let mut seen = String::new();
    for _ in 0..100 {
        seen.clear();
        let names = target.output(id, &["ls", "/proc"]).await?;
        for pid in names.split_whitespace().filter(|name| name.parse::<u32>().is_ok()) {
            let answer = target.exec(id, &["cat", &format!("/proc/{pid}/cmdline")]).await?;
            seen.push_str(&String::from_utf8_lossy(&answer.stdout).replace('\0', " "));
        }
        if !seen.contains(command) {
            return Ok(());
        }
    }
    panic!("it still runs: {seen}");
}

pub async fn logs_have_both_streams_and_can_be_rotated(target: &Target) -> Check {
    let config = target.pod("logs");
    let pod = target.run_pod(&config).await?;
    let both = target.run(&pod, target.container("both", &["probe", "both", "out", "err"]), &config).await?;
    target.ended(&both).await?;
    let mut lines = target.log(&both, 2).await?;
    lines.sort();
    let line = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    assert_eq!(lines, [line("stderr", "err"), line("stdout", "out")]);

    let id = target.run(&pod, target.container("count", &["probe", "count", "20"]), &config).await?;
    target.log(&id, 3).await?;
    let path = target.status(&id).await?.log_path;
    let rotated = format!("{path}.1");
    std::fs::rename(&path, &rotated)?;
    let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
    target.client.runtime.clone().reopen_container_log(request).await?;
    let after = target.log(&id, 3).await?;
    let before = read_log(&rotated);
    assert_eq!(before.first().unwrap().1, "line 0");
    // No line is lost or doubled between the two files.
    let numbers: Vec<String> = before.iter().chain(&after).map(|(_, text)| text.clone()).collect();
    for (number, text) in numbers.iter().enumerate() {
        assert_eq!(text, &format!("line {number}"));
    }
    target.remove_pod(&pod).await
}
