//! Binaries that are not what a handler needs, and the table over time.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn table(dir: &Path, handlers: &[(&str, HandlerConfig)]) -> Handlers {
    let mut all = BTreeMap::from([("sampan".to_owned(), HandlerConfig::Embedded)]);
    all.extend(handlers.iter().map(|(name, config)| ((*name).to_owned(), config.clone())));
    Handlers {
        executable: "/proc/self/exe".into(),
        oci_dir: dir.to_owned(),
        search_path: Some(dir.display().to_string()),
        table: RwLock::new(Arc::new(Table { default: "sampan".to_owned(), handlers: all })),
        probes: std::sync::Mutex::default(),
    }
}

async fn refusal(handlers: &Handlers, name: &str) -> String {
    handlers.select(name).await.unwrap_err().message().to_owned()
}

#[tokio::test]
async fn rtc_18_rtc_20_bad_binaries_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| HandlerConfig::binary(script(dir.path(), name, text));
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let handlers = table(
        dir.path(),
        &[
            ("missing", HandlerConfig::binary(dir.path().join("nowhere"))),
            ("plain", HandlerConfig::binary(plain)),
            ("directory", HandlerConfig::binary(dir.path())),
            ("crashes", at("crashes", "kill -SEGV $$")),
            ("fails", at("fails", "exit 3")),
            ("garbage", at("garbage", "echo Lorem ipsum dolor sit amet")),
            ("endless", at("endless", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")),
            ("old", at("old", "echo runc version 0.1.1")),
            ("kata", at("kata", "echo 'kata-runtime  : 3.2.0'")),
            ("fine", at("fine", "[ $1 = --version ] && echo runc version 1.1.5 && exit 0; exit 1")),
        ],
    );
    for (name, part) in [
        ("missing", "nowhere does not exist"),
        ("plain", "is not an executable file"),
        ("directory", "is not an executable file"),
        ("crashes", "--version failed: signal: 11"),
        ("fails", "--version failed: exit status: 3"),
        ("garbage", "is no OCI runtime: --version printed \"Lorem ipsum dolor sit amet\""),
        ("endless", "endless"),
        ("old", "runc 0.1.1 is too old: 1.0 or later is needed"),
        ("kata", "kata-runtime 3.2.0"),
    ] {
        let text = refusal(&handlers, name).await;
        let beginning = format!("the runtime for {name:?} cannot be used: ");
        assert!(text.starts_with(&beginning) && text.contains(part), "{text}");
    }
    assert_eq!(refusal(&handlers, "no-such").await, "no runtime for \"no-such\" is configured");
    assert!(!handlers.select("fine").await.unwrap().oci.opaque);
    assert_eq!(handlers.select("").await.unwrap().oci.args, ["oci"], "RTC-16: no name is the default");
}

#[tokio::test]
async fn rtc_20_a_binary_that_hangs_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let hangs = script(dir.path(), "hangs", "sleep 600 & wait");
    let handlers = table(dir.path(), &[("hangs", HandlerConfig::binary(hangs))]);
    let began = Instant::now();
    let text = refusal(&handlers, "hangs").await;
    assert!(text.contains("did not answer within 5 s"), "{text}");
    let again = handlers.select("hangs").await.unwrap_err();
    assert_eq!(again.message(), text);
    assert_eq!(again.code(), tonic::Code::Unavailable, "it may answer the next time");
    assert!(began.elapsed() < Duration::from_secs(9), "the second answer was remembered");
}

#[tokio::test]
async fn rtc_21_what_worked_is_offered_while_it_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(dir.path(), "slow", "echo runc version 1.1.5");
    let handlers = table(dir.path(), &[("slow", HandlerConfig::binary(path))]);
    let offered = async || {
        let all = handlers.survey().await;
        all.into_iter().find(|found| found.name == "slow").unwrap().state.is_ok()
    };
    assert!(offered().await);
    script(dir.path(), "slow", "sleep 600 & wait");
    assert!(offered().await, "one that does not answer now is as it was");
    assert_eq!(handlers.select("slow").await.unwrap_err().code(), tonic::Code::Unavailable);
    script(dir.path(), "slow", "exit 3");
    assert!(!offered().await, "one that answers otherwise is not");
    assert_eq!(handlers.select("slow").await.unwrap_err().code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn rtc_20_the_table_and_its_binaries_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = table(dir.path(), &[]);
    assert!(refusal(&handlers, "runsc").await.contains("is configured"));
    script(dir.path(), "runsc", "echo runsc version 1");
    assert!(handlers.select("runsc").await.unwrap().oci.opaque, "found on PATH once it is there");
    script(dir.path(), "runsc", "echo something else is here now");
    assert!(refusal(&handlers, "runsc").await.contains("no OCI runtime"), "a changed file is asked again");

    let two = |args: &[&str]| HandlerConfig::Binary {
        path: script(dir.path(), "runc-1", "echo runc version 1.1.5"),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        root: None,
        annotations: vec!["run.oci.*".to_owned()],
    };
    let table = BTreeMap::from([
        ("sampan".to_owned(), HandlerConfig::Embedded),
        ("one".to_owned(), two(&[])),
        ("two".to_owned(), two(&["--debug"])),
    ]);
    handlers.replace("one".to_owned(), table.clone()).unwrap();
    let (one, other) = (handlers.select("").await.unwrap(), handlers.select("two").await.unwrap());
    assert_eq!((one.oci.path, one.oci.args.len()), (other.oci.path, 0), "one runtime, two handlers");
    assert_eq!(other.oci.args, ["--debug"]);
    assert_ne!(one.oci.root, other.oci.root);
    assert!(handlers.replace("gone".to_owned(), table).is_err());
    assert_eq!(handlers.default_name(), "one", "a bad table changes nothing");
    let names: Vec<_> = handlers.survey().await.into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["one", "runsc", "sampan", "two"]);
}

#[test]
fn annotations_pass_by_name_or_beginning() {
    let patterns = ["dev.gvisor.*".to_owned(), "exact".to_owned()];
    assert!(passes(&patterns, "dev.gvisor.spec.mount") && passes(&patterns, "exact"));
    assert!(!passes(&patterns, "exactly") && !passes(&patterns, "dev.gvisors") && !passes(&[], "exact"));
}

#[tokio::test]
async fn rtc_17_a_delete_without_a_shim_that_fails_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = |text: &str, hide_unified: bool| OciRuntime {
        path: script(dir.path(), "runtime", text),
        args: vec!["--debug".to_owned()],
        root: dir.path().join("root"),
        hide_unified,
        opaque: false,
    };
    let log = dir.path().join("log");
    let noted = runtime(&format!("echo $* > {}", log.display()), false);
    delete::delete(&noted, "c1").await.unwrap();
    let root = dir.path().join("root");
    let expected = format!("--debug --root {} delete --force c1\n", root.display());
    assert_eq!(std::fs::read_to_string(&log).unwrap(), expected);
    // More than a pipe holds.
    let talk = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo no such state >&2; exit 3";
    let error = delete::delete(&runtime(talk, false), "c1").await.unwrap_err();
    assert!(error.contains("exit status: 3: xxx") && error.ends_with("no such state"), "{error}");
    // crun's view of a machine with both versions.
    let looks = "grep -q ' /sys/fs/cgroup/unified ' /proc/self/mountinfo && exit 1; exit 0";
    delete::delete(&runtime(looks, true), "c1").await.unwrap();
}
