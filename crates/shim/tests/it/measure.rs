//! Figures, printed: how long a container's cycle takes, how much memory a shim has.

use std::fs;
use std::time::Instant;

use sampan_shim::protocol::{CreateSandbox, NamespaceMode};

use crate::Test;
use crate::fixture::{Fixture, Runtime, run};

pub(crate) const TESTS: &[Test] = &[Test::Each("cycle", cycle), Test::Once("memory", memory)];

fn cycle(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let mut times = Vec::new();
        for round in 0..12 {
            let id = format!("c{round}");
            let container = fixture.container(&id, &["exit", "0"]);
            let start = Instant::now();
            fixture.start(container).await;
            fixture.shim.wait(&id, None).await.unwrap();
            fixture.delete(&id).await;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!(
            "cycle of {} (create, start, wait, delete): median {:?}",
            runtime.name(),
            times[times.len() / 2]
        );
        fixture.finish().await;
    });
}

fn memory(runtime: Runtime) {
    run(async {
        let fixture = Fixture::new(runtime).await;
        let request = CreateSandbox {
            net: NamespaceMode::Pod,
            ipc: NamespaceMode::Pod,
            uts: NamespaceMode::Pod,
            ..Default::default()
        };
        fixture.shim.create_sandbox(request).await.unwrap();
        fixture.start(fixture.container("c", &["spam", "1000000"])).await;
        fixture.shim.wait("c", None).await.unwrap();
        let pid = fixture.shim.state().await.unwrap().pid;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        for name in ["Rss", "Pss", "Pss_Anon", "Private_Dirty"] {
            let line = rollup.lines().find(|line| line.starts_with(&format!("{name}:")));
            println!("shim {}", line.unwrap());
        }
        fixture.finish().await;
    });
}
