//! What nobody can be faster than: the same bytes hashed, decompressed, hashed and written, on all cores.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result};
use sampan_oci::{Algorithm, codec::Decoder, digest::Hasher};

use super::fixture::{Images, spread};

/// Writes the layers of all images into `scratch`.
pub(crate) fn of(images: &Images, scratch: &Path) -> Result<()> {
    spread(scratch);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..super::cores())
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(layer) = images.layers.get(i) else { return Ok(()) };
                        // Of a random name: ext4 places a directory by its name's hash, and the last round's files
                        // of that place have just been deleted.
                        let dir = tempfile::Builder::new().prefix("layer-").tempdir_in(scratch)?.keep();
                        one(layer, &dir).with_context(|| layer.display().to_string())?;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker panicked"))
    })
}

/// Hashes on the way.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

fn one(layer: &Path, dir: &Path) -> Result<()> {
    let blob = Hashed { inner: File::open(layer)?, hasher: Hasher::new(Algorithm::Sha256) };
    let tar = Hashed { inner: Decoder::new(blob)?, hasher: Hasher::new(Algorithm::Sha256) };
    let mut tar = tar::Archive::new(io::BufReader::with_capacity(256 << 10, tar));
    let mut made = std::collections::HashSet::new();
    let mut buffer = vec![0; 256 << 10];
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = dir.join(entry.path()?);
        if let Some(parent) = path.parent()
            && made.insert(parent.to_path_buf())
        {
            fs::create_dir_all(parent)?;
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut file = File::create(&path)?;
                loop {
                    match entry.read(&mut buffer)? {
                        0 => break,
                        n => file.write_all(&buffer[..n])?,
                    }
                }
            }
            tar::EntryType::Symlink => {
                if let Some(target) = entry.link_name()? {
                    std::os::unix::fs::symlink(target, &path)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
