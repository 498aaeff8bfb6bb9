//! Against Debian's `docker-registry`, with images pushed by `skopeo` where it is installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sampan_oci::registry::Credentials;
use sampan_runtime::images::{ArchiveFormat, PullRequest};

use super::builder::{Coding, Image, file_of, noise, open, pull, tar};
use super::fake::{Auth, Fake};

/// A registry process on a free port; killed with its owner.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// `None` when `docker-registry` is not installed.
    pub(crate) async fn start(dir: &Path, auth: &str) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{host}\"}}\n{auth}",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let registry = Self { child, host };
        for _ in 0..200 {
            if std::net::TcpStream::connect(&registry.host).is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("docker-registry does not start");
    }
}

fn image() -> Image {
    Image::new(&[
        (tar(&[("etc/", b""), ("etc/a", b"1")]), Coding::Gzip),
        (tar(&[("big", &noise(5, 5_000_000))]), Coding::Gzip),
    ])
}

/// An archive of an image, made by our own `save` from a registry in memory.
async fn archive(dir: &Path) -> std::path::PathBuf {
    let fake = Fake::start(Auth::None).await;
    image().publish(&fake, "1");
    let store = open(&dir.join("source")).await;
    let name = fake.image("a:1");
    pull(&store, &name).await.unwrap();
    let path = dir.join("image.tar");
    let file = std::fs::File::create(&path).unwrap();
    store.save(&[name], ArchiveFormat::Docker, file).await.unwrap();
    path
}

fn skopeo(args: &[&str]) -> bool {
    Command::new("skopeo").args(args).stdout(Stdio::null()).status().is_ok_and(|s| s.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_and_other_tools() {
    let dir = tempfile::tempdir().unwrap();
    let Some(registry) = Registry::start(dir.path(), "").await else {
        println!("skipped: docker-registry is not installed");
        return;
    };
    let path = archive(dir.path()).await;
    let push = |from: &str, name: &str, format: &str| {
        let target = format!("docker://{}/{name}", registry.host);
        skopeo(&[
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--format",
            format,
            from,
            &target,
        ])
    };
    // skopeo reads what we saved, in both of its forms.
    let docker = format!("docker-archive:{}", path.display());
    if !push(&docker, "team/docker:1", "v2s2") {
        println!("skipped: skopeo is not installed");
        return;
    }
    assert!(push(&format!("oci-archive:{}", path.display()), "team/oci:1", "oci"));
    let store = open(&dir.path().join("store")).await;
    for name in ["team/docker:1", "team/oci:1"] {
        let record = pull(&store, &format!("{}/{name}", registry.host)).await.unwrap();
        assert_eq!(file_of(&store, &record, "big").unwrap(), noise(5, 5_000_000));
        assert_eq!(file_of(&store, &record, "etc/a").unwrap(), b"1");
    }
    let error = pull(&store, &format!("{}/team/none:1", registry.host)).await.unwrap_err().chain();
    assert!(error.contains("404 Not Found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_with_passwords() {
    let dir = tempfile::tempdir().unwrap();
    // joe / secret, bcrypt.
    let made = Command::new("htpasswd").args(["-Bbn", "joe", "secret"]).output();
    let Ok(made) = made else {
        println!("skipped: htpasswd is not installed");
        return;
    };
    std::fs::write(dir.path().join("htpasswd"), made.stdout).unwrap();
    let auth =
        format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", dir.path().join("htpasswd").display());
    let Some(registry) = Registry::start(dir.path(), &auth).await else { return };
    let path = archive(dir.path()).await;
    let target = format!("docker://{}/a:1", registry.host);
    let source = format!("docker-archive:{}", path.display());
    let args = [
        "copy",
        "-q",
        "--insecure-policy",
        "--dest-tls-verify=false",
        "--dest-creds",
        "joe:secret",
        &source,
        &target,
    ];
    if !skopeo(&args) {
        return;
    }
    let store = open(&dir.path().join("store")).await;
    let image = format!("{}/a:1", registry.host);
    assert!(pull(&store, &image).await.unwrap_err().chain().contains("no credentials were given"));
    let credentials = Credentials::basic("joe", "secret");
    store.pull(PullRequest { image, credentials, ..PullRequest::default() }).await.unwrap();
}
