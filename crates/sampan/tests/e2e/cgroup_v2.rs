//! A machine with cgroup v2 alone, and AppArmor: a guest in software emulation boots this binary from its initramfs. Most
//! users have v2; many machines that tests run on have not. `cargo xtask vm` runs it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::fixture::Node;

/// What the guest's kernel has as modules and a node needs; their dependencies come along.
const MODULES: &[&str] = &[
    "overlay",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject_ipv4",
    "nft_ct",
    "nft_numgen",
    "nft_fib_ipv4",
    "nf_conntrack_netlink",
];

/// The kernel of the distribution's package and its modules.
fn kernel() -> (PathBuf, PathBuf) {
    let kernels = fs::read_dir("/boot").unwrap().flatten();
    let release = kernels
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
        .find(|release| release.contains("-cloud-"));
    let release = release.expect("linux-image-cloud-amd64 is not installed: `cargo xtask vm` does it");
    (format!("/boot/vmlinuz-{release}").into(), format!("/lib/modules/{release}").into())
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies the modules; `order` lists them so that each comes after those it needs.
fn copy_modules(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    let table = fs::read_to_string(from.join("modules.dep")).unwrap();
    let mut order: Vec<String> = Vec::new();
    for module in MODULES {
        let file = format!("/{module}.ko");
        // A kernel may have it built in.
        let Some(line) = table.lines().find(|line| line.split(':').next().unwrap().ends_with(&file)) else {
            continue;
        };
        let (own, needs) = line.split_once(':').unwrap();
        for path in needs.split_whitespace().rev().chain([own]) {
            let name = path.rsplit('/').next().unwrap().to_owned();
            if !order.contains(&name) {
                fs::copy(from.join(path), to.join(&name)).unwrap();
                order.push(name);
            }
        }
    }
    fs::write(to.join("order"), order.join("\n")).unwrap();
}

/// Copies the program that loads profiles, where it is on any machine, with its libraries and its dialect of rules.
fn copy_parser(root: &Path) {
    let copy = "for file in $(ldd $1 | grep -o '/[^ ]*') $1 /etc/apparmor/parser.conf /etc/apparmor.d/abi/3.0 /usr/share/apparmor-features/features; do \
                mkdir -p $2${file%/*} && cp -L $file $2$file || exit 1; done";
    succeed(Command::new("sh").args(["-e", "-c", copy, "sh", "/usr/sbin/apparmor_parser"]).arg(root));
}

/// Everything that the guest has, as an initramfs.
fn initramfs(dir: &Path, binary: &Path, modules: &Path) -> PathBuf {
    let root = dir.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    let kubectl = Command::new("sh").args(["-c", "command -v kubectl"]).output().unwrap();
    let kubectl = String::from_utf8(kubectl.stdout).unwrap();
    fs::copy(kubectl.trim(), root.join("bin/kubectl")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    succeed(Command::new("strip").arg("-o").arg(root.join("bin/sampan")).arg(binary));
    copy_modules(modules, &root.join("modules"));
    fs::write(root.join("init"), include_str!("cgroup_v2/guest.sh")).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("pods.yaml"), include_str!("cgroup_v2/pods.yaml")).unwrap();
    let profile = dir.join("profile.txt");
    fs::write(&profile, include_str!("cgroup_v2/profile.txt")).unwrap();
    let compile = ["--skip-kernel-load", "--skip-cache", "--ofile"];
    succeed(Command::new("apparmor_parser").args(compile).arg(root.join("profile")).arg(&profile));
    copy_parser(&root);
    let image = dir.join("initramfs");
    let pack = "cd \"$1\" && find . | busybox cpio -o -H newc > \"$2\"";
    succeed(Command::new("sh").args(["-c", pack, "sh"]).arg(&root).arg(&image));
    image
}

/// Boots the guest and waits for its end; what it said.
fn boot(dir: &Path, binary: &Path) -> BTreeMap<String, String> {
    let (kernel, modules) = kernel();
    let image = initramfs(dir, binary, &modules);
    let console = dir.join("console");
    let mut guest = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all apparmor=1 security=apparmor"])
        .stdin(Stdio::null())
        .stdout(File::create(&console).unwrap())
        .stderr(File::create(dir.join("qemu.log")).unwrap())
        .spawn()
        .unwrap();
    // A loaded machine emulates slowly; this only ends a guest that hangs.
    let deadline = Instant::now() + Duration::from_secs(900);
    while guest.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = guest.kill();
            let _ = guest.wait();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = fs::read_to_string(&console).unwrap_or_default();
    eprintln!("{said}");
    let facts = said.lines().filter_map(|line| line.trim().strip_prefix("fact ")?.split_once('='));
    facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
#[ignore = "boots a machine in software emulation, which takes minutes: `cargo xtask vm`"]
fn rtc_25_rtc_26_cgroup_v2_and_apparmor_in_a_guest() {
    let node = Node::prepare(&[]);
    let binary = PathBuf::from(node.command().get_program());
    let dir = tempfile::Builder::new().prefix(&format!("smpt-{}-vm-", std::process::id())).tempdir().unwrap();
    let facts = boot(dir.path(), &binary);
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    assert!(fact("end").starts_with("well"), "{facts:#?}");
    assert_eq!(fact("module"), "");
    // The cgroups are where upstream has them.
    assert_eq!(fact("exact.pod"), "/sys/fs/cgroup/kubepods");
    assert_eq!(fact("burst.pod"), "/sys/fs/cgroup/kubepods/burstable");
    assert_eq!(fact("best.pod"), "/sys/fs/cgroup/kubepods/besteffort");
    for of in ["exact.pod", "exact.container"] {
        assert_eq!(fact(&format!("{of}.cpu.max")), "10000 100000", "{of}");
        assert_eq!(fact(&format!("{of}.memory.max")), "104857600", "{of}");
    }
    for of in ["burst.pod", "burst.container"] {
        assert_eq!(fact(&format!("{of}.cpu.max")), "max 100000", "{of}");
        assert_eq!(fact(&format!("{of}.memory.max")), "67108864", "{of}");
    }
    assert_eq!(fact("best.container.memory.max"), "max");
    assert_eq!(fact("exact.pod.pids.max"), "123");
    let weight = |name: &str| fact(&format!("{name}.cpu.weight")).parse::<u32>().unwrap();
    // Who asks for more processor gets more; who asks for nothing gets the least.
    for level in ["pod", "container"] {
        let [exact, burst, best] = ["exact", "burst", "best"].map(|pod| weight(&format!("{pod}.{level}")));
        assert!(burst > exact && exact > best && best == 1, "{level}: {burst} {exact} {best}");
    }
    assert_eq!(weight("kubepods/besteffort"), 1);
    for controller in ["cpu", "memory", "pids"] {
        let enabled = fact("kubepods/burstable.controllers");
        assert!(enabled.split(' ').any(|name| name == controller), "{enabled}");
    }
    // A container sees a hierarchy of its own.
    assert_eq!(fact("exact.inside"), "0::/");
    assert_eq!(fact("exact.sees"), "0");
    assert_eq!(fact("greedy.code"), "137");
    assert_eq!(fact("guarded.profile"), "smpt-no-touch (enforce)");
    assert_eq!(fact("exact.profile"), "sampan-default (enforce)");
    assert_eq!(fact("best.profile"), "sampan-default (enforce)", "who names none has the default");
    assert_eq!(fact("burst.profile"), "unconfined");
    assert!(fact("guarded.write").contains("ermission denied"), "{}", fact("guarded.write"));
    assert_eq!(fact("burst.device"), "Operation not permitted", "a node is not the device");
    assert_eq!(fact("burst.null"), "1+0 records in");
    assert!(fact("stats").parse::<u32>().unwrap() >= 4, "{}", fact("stats"));
    assert_eq!(fact("remains"), "0");
}
