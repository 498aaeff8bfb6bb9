//! Servers that cannot start say why, in one line, with exit code 1; and what `sampan doctor` finds.

use std::{fs, net::TcpListener, process::Command};

use crate::fixture::{Node, Said};

fn refused(node: &Node) -> String {
    let said: Said = Command::new(env!("CARGO_BIN_EXE_sampan")).args(node.args()).output().unwrap().into();
    assert_eq!(said.code, 1, "{said:?}");
    let error = said.err.lines().find(|line| line.starts_with("error:")).unwrap_or_default().to_owned();
    assert!(!error.is_empty(), "{}", said.err);
    error
}

#[test]
fn ports_directories_and_files_that_are_taken_or_damaged() {
    let mut node = Node::start();
    // The same directories, by another process.
    let error = refused(&node);
    assert!(error.contains(&format!("a server (pid {}) already uses", node.pid())), "{error}");
    // The same data directory with another run directory.
    let other = Node::prepare(&[]);
    let args: Vec<String> = other
        .args()
        .iter()
        .map(|arg| {
            if *arg == other.path("data").display().to_string() {
                node.path("data").display().to_string()
            } else {
                arg.clone()
            }
        })
        .collect();
    let said: Said = Command::new(env!("CARGO_BIN_EXE_sampan")).args(&args).output().unwrap().into();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(&format!("in use by process {}", node.pid())), "{}", said.err);
    // A pod is not harmed by it.
    assert_eq!(node.kubectl(&["get", "nodes", "-o", "name"]).ok(), format!("node/{}\n", node.name()));

    assert_eq!(node.terminate(), 0, "{}", node.log());
    // Ports.
    for option in ["--https-listen-port", "--kubelet-port"] {
        let port: u16 = node.option(option).parse().unwrap();
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let error = refused(&node);
        assert!(error.contains(&format!("port {port} is in use")) && error.contains(option), "{error}");
        drop(taken);
    }
    // A damaged store is reported and left as it is.
    let store = node.path("data/store");
    let files: Vec<_> = fs::read_dir(&store).unwrap().flatten().map(|entry| entry.path()).collect();
    let file = files.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let good = fs::read(file).unwrap();
    fs::write(file, vec![0x5a; good.len()]).unwrap();
    let error = refused(&node);
    assert!(error.contains("damaged") && error.contains(&store.display().to_string()), "{error}");
    assert_eq!(fs::read(file).unwrap(), vec![0x5a; good.len()], "never recreated");
    fs::write(file, good).unwrap();
    node.launch();
}

#[test]
fn without_root_there_is_a_clear_error_and_doctor_names_it() {
    let node = Node::prepare(&[]);
    // A place that everybody may read.
    let program = std::path::absolute(env!("CARGO_BIN_EXE_sampan")).unwrap();
    let nobody = |args: &[String]| -> Said {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).args(args);
        command.output().unwrap().into()
    };
    let said = nobody(node.args());
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("root"), "{}", said.err);
    let said = nobody(&["doctor".to_owned()]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("missing  root"), "{}", said.out);
    // As root this machine can run pods, or no other test would pass.
    let said = node.sampan(&["doctor"]);
    assert_eq!(said.code, 0, "{said:?}");
    // Options that are wrong.
    for (option, value, wanted) in [
        ("--cluster-cidr", "10.300.0.0/16", "--cluster-cidr"),
        ("--bridge", "a-name-much-too-long", "--bridge"),
        ("--node-name", "UPPER", "--node-name"),
        ("--bind-address", "192.0.2.77", "192.0.2.77"),
    ] {
        let said = node.sampan(&["server", option, value, "--https-listen-port=0", "--kubelet-port=0"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(wanted), "{wanted}: {}", said.err);
    }
    assert_eq!(node.sampan(&["server", "--no-such-option"]).code, 2);
    let _ = fs::remove_dir_all(node.path("run"));
}
