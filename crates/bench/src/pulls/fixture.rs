//! The images: made from this machine's `/usr` and from nothing, served by a real registry.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::IFlags;
use sampan_oci::{Descriptor, Digest, manifest::media_type};
use serde_json::json;

/// How large everything is.
pub(crate) struct Sizes {
    /// Bytes of the six-layer image, unpacked.
    pub(crate) usr: u64,
    pub(crate) small_files: usize,
    /// Bytes of each of the ten images.
    pub(crate) each: u64,
}

impl Sizes {
    /// As the issue names them.
    pub(crate) const FULL: Self = Self { usr: 500 << 20, small_files: 100_000, each: 20 << 20 };
    /// For a look in two minutes.
    pub(crate) const SMALL: Self = Self { usr: 120 << 20, small_files: 20_000, each: 5 << 20 };
}

/// What is pulled together.
pub(crate) struct Images {
    pub(crate) title: String,
    pub(crate) names: Vec<String>,
    /// Bytes of the tars.
    pub(crate) unpacked: u64,
    /// The compressed layers on disk, of all images.
    pub(crate) layers: Vec<PathBuf>,
}

/// A registry with all images in it.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    registry: Child,
    port: u16,
    images: Vec<Images>,
}

#[derive(Clone, Copy)]
enum Coding {
    Gzip,
    Zstd,
}

impl Fixture {
    pub(crate) fn make(sizes: &Sizes) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sampan-bench-pulls-").tempdir_in("/var/tmp")?;
        spread(dir.path());
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.path().join("registry").display()
        );
        fs::write(dir.path().join("registry.yml"), config)?;
        let log = fs::File::create(dir.path().join("registry.log"))?;
        let registry = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("registry.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("docker-registry (`cargo xtask setup` installs it)")?;
        let mut fixture = Self { dir, registry, port, images: Vec::new() };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        let files = files_of(Path::new("/usr"), sizes.usr)?;
        let tars: Vec<Vec<u8>> = split(&files, 6).iter().map(|part| tar_of(part)).collect::<Result<_>>()?;
        fixture.add("6 layers of /usr, gzip", vec![("usr-gzip", tars.clone())], Coding::Gzip)?;
        fixture.add("6 layers of /usr, zstd", vec![("usr-zstd", tars)], Coding::Zstd)?;
        let small = |layer: usize| tar_of_bytes((0..20).map(|i| (format!("l{layer}/{i}"), 4096)));
        let small: Vec<_> = (0..60).map(small).collect::<Result<_>>()?;
        fixture.add("60 small layers", vec![("many-layers", small)], Coding::Gzip)?;
        let many = tar_of_bytes((0..sizes.small_files).map(|i| (format!("d{}/f{i}", i / 100), 200)))?;
        let title = format!("{} small files", sizes.small_files);
        fixture.add(&title, vec![("many-files", vec![many])], Coding::Gzip)?;
        let part = split(&files_of(Path::new("/usr"), sizes.each * 10)?, 10);
        let tars: Vec<_> = part.iter().map(|part| tar_of(part)).collect::<Result<_>>()?;
        let names: Vec<String> = (0..10).map(|i| format!("ten-{i}")).collect();
        let ten = names.iter().zip(tars).map(|(name, tar)| (name.as_str(), vec![tar])).collect();
        fixture.add("ten images at once", ten, Coding::Gzip)?;
        Ok(fixture)
    }

    pub(crate) fn images(&self) -> &[Images] {
        &self.images
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A fresh directory on the same file system.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("pull-").tempdir_in(self.dir.path())?)
    }

    fn add(&mut self, title: &str, images: Vec<(&str, Vec<Vec<u8>>)>, coding: Coding) -> Result<()> {
        eprintln!("making {title}");
        let mut all = Images { title: title.to_owned(), names: Vec::new(), unpacked: 0, layers: Vec::new() };
        for (name, tars) in images {
            let layout = self.dir.path().join(name);
            all.unpacked += tars.iter().map(|tar| tar.len() as u64).sum::<u64>();
            all.layers.extend(write_layout(&layout, &tars, coding)?);
            let to = format!("127.0.0.1:{}/bench/{name}:1", self.port);
            let pushed = Command::new("skopeo")
                .args([
                    "copy",
                    "--insecure-policy",
                    "--quiet",
                    "--preserve-digests",
                    "--dest-tls-verify=false",
                ])
                .arg(format!("oci:{}:1", layout.display()))
                .arg(format!("docker://{to}"))
                .output()
                .context("skopeo (`cargo xtask setup` installs it)")?;
            ensure!(pushed.status.success(), "skopeo: {}", String::from_utf8_lossy(&pushed.stderr));
            all.names.push(to);
        }
        self.images.push(all);
        Ok(())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

/// On ext4 directories are spread over the disk: after mass deletes, files in the old place are made fifteen times
/// slower, and the last of the compared would pay for the first.
pub(crate) fn spread(dir: &Path) {
    if let Ok(file) = fs::File::open(dir)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
    {
        let _ = rustix::fs::ioctl_setflags(&file, flags | IFlags::TOPDIR);
    }
}

/// Regular files and links of a tree, in order, until they have this many bytes.
fn files_of(root: &Path, bytes: u64) -> Result<Vec<(PathBuf, u64)>> {
    let (mut todo, mut files, mut total) = (vec![root.to_path_buf()], Vec::new(), 0);
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_file() && meta.len() < 64 << 20 || meta.is_symlink() {
                let size = if meta.is_file() { meta.len() } else { 0 };
                total += size;
                files.push((path, size));
            }
            if total >= bytes {
                return Ok(files);
            }
        }
    }
    Ok(files)
}

/// Parts of about the same number of bytes.
fn split(files: &[(PathBuf, u64)], parts: u64) -> Vec<Vec<PathBuf>> {
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    let (mut out, mut seen) = (vec![Vec::new(); usize::try_from(parts).unwrap_or(1)], 0);
    for (path, size) in files {
        let part = (seen * parts / total.max(1)).min(parts - 1);
        out[usize::try_from(part).unwrap_or_default()].push(path.clone());
        seen += size;
    }
    out
}

fn tar_of(files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.sparse(false);
    for path in files {
        let name = path.strip_prefix("/")?;
        tar.append_path_with_name(path, name).with_context(|| path.display().to_string())?;
    }
    Ok(tar.into_inner()?)
}

/// Files of bytes that do not compress well.
fn tar_of_bytes(files: impl Iterator<Item = (String, usize)>) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for (name, size) in files {
        let mut content = Vec::with_capacity(size + 8);
        while content.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
        }
        content.truncate(size);
        let mut header = tar::Header::new_ustar();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        tar.append_data(&mut header, name, content.as_slice())?;
    }
    Ok(tar.into_inner()?)
}

/// An OCI layout on disk; its compressed layers.
fn write_layout(dir: &Path, tars: &[Vec<u8>], coding: Coding) -> Result<Vec<PathBuf>> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |media_type: &str, bytes: &[u8]| -> Result<(Descriptor, PathBuf)> {
        let descriptor = Descriptor::of(media_type, bytes);
        let path = blobs.join(descriptor.digest.hex());
        fs::write(&path, bytes)?;
        Ok((descriptor, path))
    };
    let mut layers = Vec::new();
    for tar in tars {
        layers.push(match coding {
            Coding::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                gzip.write_all(tar)?;
                put(media_type::OCI_LAYER_GZIP, &gzip.finish()?)?
            }
            Coding::Zstd => put(media_type::OCI_LAYER_ZSTD, &zstd::encode_all(tar.as_slice(), 3)?)?,
        });
    }
    let diff_ids: Vec<String> = tars.iter().map(|tar| Digest::sha256(tar).to_string()).collect();
    let platform = sampan_oci::Platform::host();
    let config = json!({"architecture": platform.architecture, "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let (config, _) = put(media_type::OCI_CONFIG, &serde_json::to_vec(&config)?)?;
    let descriptors: Vec<&Descriptor> = layers.iter().map(|(descriptor, _)| descriptor).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config,
        "layers": descriptors});
    let (mut manifest, _) = put(media_type::OCI_MANIFEST, &serde_json::to_vec(&manifest)?)?;
    manifest.annotations = BTreeMap::from([("org.opencontainers.image.ref.name".to_owned(), "1".to_owned())]);
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(layers.into_iter().map(|(_, path)| path).collect())
}
