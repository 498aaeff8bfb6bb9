//! Nothing is left: descriptors, files, mounts, cgroups, processes.

use std::fs;
use std::time::Duration;

use sampan_shim::client::ExecSyncOptions;
use serde_json::json;

use crate::Test;
use crate::fixture::{Fixture, Runtime, collect, run};

pub(crate) const TESTS: &[Test] = &[
    Test::Once("two_hundred_execs_leave_no_descriptor", execs),
    Test::Once("an_exec_that_leaves_a_child_behind_keeps_no_descriptor", left_behind),
    Test::Once("a_shim_out_of_descriptors_waits_for_some", no_descriptors),
    Test::Each("containers_leave_no_trace", containers),
    Test::Each("processes_get_no_descriptors_of_ours", inherited),
];

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn execs(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let shim = fixture.shim.state().await.unwrap().pid;
        let before = descriptors(shim);
        for round in 0..200 {
            let id = format!("e{round}");
            let mut exec = fixture.exec("c", &id, &["echo", "x"]);
            match round % 10 {
                0 => {
                    exec.tty = true;
                    exec.stdin = true;
                    exec.process["terminal"] = json!(true);
                    let mut stream = fixture.shim.exec_stream(exec).await.unwrap();
                    assert_eq!(collect(&mut stream.output).await.0, "x\r\n");
                }
                1 => {
                    exec.process["args"] = json!(["missing"]);
                    assert!(fixture.shim.exec_stream(exec).await.is_err());
                }
                2 => drop(fixture.shim.exec_stream(exec).await.unwrap()),
                3 => {
                    fixture.shim.exec(exec).await.unwrap();
                    fixture.shim.wait("c", Some(&id)).await.unwrap();
                    fixture.shim.delete_exec("c", &id).await.unwrap();
                }
                _ => {
                    let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
                    assert_eq!(output.stdout, b"x\n");
                }
            }
        }
        crate::fixture::eventually("descriptors to close", || descriptors(shim) <= before).await;
        let scratch = fs::read_dir(fixture.path("shim")).unwrap().flatten();
        let scratch: Vec<_> = scratch.map(|entry| entry.file_name()).collect();
        assert!(scratch.len() <= 4, "{scratch:?}");
        fixture.finish().await;
    });
}

fn left_behind(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        fixture.start(fixture.container("c", &["sleep", "100"])).await;
        let shim = fixture.shim.state().await.unwrap().pid;
        let before = descriptors(shim);
        for round in 0..6 {
            let id = format!("e{round}");
            let exec = fixture.exec("c", &id, &["leave", "sleep", "100"]);
            if round % 2 == 0 {
                let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
                assert_eq!(output.stdout, b"left true\n");
            } else {
                // Nobody reads, and nobody asks for it afterwards.
                fixture.shim.exec(exec).await.unwrap();
                assert_eq!(fixture.shim.wait("c", Some(&id)).await.unwrap().code, 0);
            }
        }
        crate::fixture::eventually("descriptors to close", || descriptors(shim) <= before).await;
        fixture.finish().await;
    });
}

/// Clock ticks that a process has used.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11);
    fields.take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

fn no_descriptors(runtime: Runtime) {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    run(async {
        let fixture = Fixture::new(runtime).await;
        let shim = fixture.shim.state().await.unwrap().pid;
        let open_files = |limit| prlimit(Pid::from_raw(shim), Resource::Nofile, limit).unwrap();
        // Its stdio has these three; the shim took all that the hard limit allows.
        let hard = getrlimit(Resource::Nofile).maximum;
        let before = open_files(Rlimit { current: Some(3), maximum: hard });
        assert_eq!((before.current, before.maximum), (hard, hard));
        // One more client than it can take: it waits in the queue, and the shim waits too.
        let shim_of_task = fixture.shim.clone();
        let asking = tokio::spawn(async move { shim_of_task.state().await });
        let used = ticks(shim);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(ticks(shim) - used < 20, "the shim is busy with a client that it cannot let in");
        assert!(!asking.is_finished());
        open_files(before);
        asking.await.unwrap().unwrap();
        fixture.finish().await;
    });
}

fn containers(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let shim = fixture.shim.state().await.unwrap().pid;
        let before = descriptors(shim);
        let mounts = || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let ours = fixture.temp.path().display().to_string();
            mounts.lines().filter(|line| line.contains(&ours)).count()
        };
        for round in 0..3 {
            let (exit, _) = fixture.run(&format!("c{round}"), &["exit", "0"]).await;
            assert_eq!(exit.code, 0);
        }
        crate::fixture::eventually("descriptors to close", || descriptors(shim) <= before).await;
        assert_eq!(mounts(), 0);
        for dir in fixture.cgroups() {
            let below = fs::read_dir(&dir).unwrap().flatten();
            assert_eq!(below.filter(|entry| entry.path().is_dir()).count(), 0, "{dir:?}");
        }
        let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
        assert_eq!(children, "");
        let left: Vec<_> = fs::read_dir(fixture.path("oci"))
            .unwrap()
            .flatten()
            .filter(|entry| fs::read_dir(entry.path()).is_ok_and(|mut dir| dir.next().is_some()))
            .map(|entry| entry.file_name())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        fixture.finish().await;
    });
}

fn inherited(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let (_, log) = fixture.run("f", &["fds"]).await;
        // The last one is the directory that is being read.
        let fds: Vec<&str> = log[0].trim_start_matches("stdout F ").split(' ').collect();
        assert_eq!(fds.len(), 4, "{fds:?}");
        fixture.start(fixture.container("g", &["sleep", "100"])).await;
        let exec = fixture.exec("g", "e", &["fds"]);
        let output = fixture.shim.exec_sync(exec, ExecSyncOptions::default()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.split(' ').count(), 4, "{text}");
        fixture.finish().await;
    });
}
