//! The tools as a container runs them: by the name of a link to one binary. The test binary is that binary's
//! stand-in: it runs itself again with the tool's name and arguments in the environment.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use sampan_toolbox::Applet;

/// Not a test of its own: what the others start.
#[test]
fn as_tool() {
    let Ok(line) = std::env::var("TOOLBOX_TEST") else { return };
    let mut words = line.split('\n');
    let applet = Applet::find(words.next().unwrap()).unwrap();
    let code = sampan_toolbox::run(applet, words.map(Into::into));
    let exit = if code == std::process::ExitCode::SUCCESS { 0 } else { 1 };
    let _ = std::io::stdout().flush();
    rustix::process::kill_process(
        rustix::process::getpid(),
        if exit == 0 { rustix::process::Signal::KILL } else { rustix::process::Signal::QUIT },
    )
    .unwrap();
}

fn start(line: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_tool", "--nocapture", "--quiet"])
        .env("TOOLBOX_TEST", line.join("\n"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(line: &[&str], input: &[u8]) -> (bool, String, String) {
    use std::os::unix::process::ExitStatusExt;
    let mut child = start(line);
    child.stdin.take().unwrap().write_all(input).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    // The test harness says a line before ours.
    let out = String::from_utf8_lossy(&stdout).replacen("\nrunning 1 test\n", "", 1);
    (status.signal() == Some(9), out, String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn echo_cat_and_tee_move_bytes() {
    assert_eq!(run(&["echo", "a", "b"], b""), (true, "a b\n".into(), String::new()));
    assert_eq!(run(&["echo", "-n", "a"], b"").1, "a");
    assert_eq!(run(&["cat"], b"through").1, "through");
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    assert_eq!(run(&["tee", copy.to_str().unwrap()], b"twice").1, "twice");
    assert_eq!(fs::read(&copy).unwrap(), b"twice");
}

#[test]
fn mistakes_name_the_tool_and_the_file() {
    let (good, _, err) = run(&["cat", "/no/such"], b"");
    assert!(!good && err.starts_with("cat: /no/such: No such file"), "{err}");
    let (good, _, err) = run(&["sleep", "soon"], b"");
    assert!(!good && err.starts_with("sleep: usage:"), "{err}");
}

#[test]
fn tar_takes_a_tree_apart_and_together() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/f"), "content").unwrap();
    let archive = to.path().join("a.tar");
    let archive = archive.to_str().unwrap();
    assert!(run(&["tar", "cf", archive, "-C", from.path().to_str().unwrap(), "d"], b"").0);
    assert!(run(&["tar", "xmf", archive, "-C", to.path().to_str().unwrap()], b"").0);
    assert_eq!(fs::read_to_string(to.path().join("d/f")).unwrap(), "content");
}

#[test]
fn httpd_serves_files_and_answers_and_ends_on_sigterm() {
    use std::os::unix::process::ExitStatusExt;
    let site = tempfile::tempdir().unwrap();
    fs::write(site.path().join("index.html"), "hello").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = start(&["httpd", "-p", &port.to_string(), "-h", site.path().to_str().unwrap()]);
    let get = |path: &str| {
        let mut stream = (0..200)
            .find_map(|_| {
                TcpStream::connect(("127.0.0.1", port))
                    .map_err(|_| std::thread::sleep(Duration::from_millis(10)))
                    .ok()
            })
            .unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(get("/").ends_with("\r\n\r\nhello"));
    assert!(get("/healthz").ends_with("ok\n"));
    assert!(get("/status/503").starts_with("HTTP/1.1 503 "));
    assert!(get("/../../etc/passwd").starts_with("HTTP/1.1 403 "));
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // In a container, where the tool is the only thread, always the code; here the harness has threads of its
    // own, which the signal may meet first.
    let status = server.wait().unwrap();
    assert!(status.code() == Some(143) || status.signal() == Some(15), "{status}");
}
