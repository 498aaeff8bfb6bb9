//! The node's own `config.json`, or the `.dockercfg` of old: the first one that is there and valid, read again
//! when anything about the candidates changed (IMG-58, IMG-59), with the helper programs that it names.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::host_glob::key_matches;
use super::{Credential, DockerConfig, Keyring, Source, helper};
use crate::files::read_bounded;

/// A larger file is no docker configuration.
const MAX_FILE: u64 = 1 << 20;

/// What tells one version of the candidates from another: inode, size and time of each.
pub(crate) type Signature = Vec<Option<(u64, u64, i64, i64)>>;

/// The candidates, and what the winner says.
#[derive(Debug)]
pub(crate) struct NodeFile {
    candidates: Vec<Candidate>,
    cached: Mutex<Option<(Signature, Arc<Winner>)>>,
}

#[derive(Debug)]
struct Candidate {
    path: PathBuf,
    /// The old form, without `auths`.
    legacy: bool,
}

/// What counts; empty when no candidate does.
#[derive(Debug, Default)]
struct Winner {
    keyring: Keyring,
    config: DockerConfig,
}

impl NodeFile {
    /// Looks in `dirs`, or else in the usual places of a kubelet with this root.
    pub(crate) fn new(dirs: Option<Vec<PathBuf>>, root: &Path) -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let (new, old) = match dirs {
            Some(dirs) => (dirs.clone(), dirs),
            None => {
                let here = std::env::current_dir().ok();
                let common = || [Some(root.to_owned()), here.clone()].into_iter().flatten();
                let new = common()
                    .chain(home.iter().map(|home| home.join(".docker")))
                    .chain([PathBuf::from("/.docker")]);
                let old = common().chain(home.clone()).chain([PathBuf::from("/")]);
                (new.collect::<Vec<_>>(), old.collect::<Vec<_>>())
            }
        };
        let new = new.into_iter().map(|dir| Candidate { path: dir.join("config.json"), legacy: false });
        let old = old.into_iter().map(|dir| Candidate { path: dir.join(".dockercfg"), legacy: true });
        Self { candidates: new.chain(old).collect(), cached: Mutex::new(None) }
    }

    /// Changes when any candidate does.
    pub(crate) fn signature(&self) -> Signature {
        let of = |candidate: &Candidate| {
            let metadata = fs::metadata(&candidate.path).ok()?;
            Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
        };
        self.candidates.iter().map(of).collect()
    }

    /// The node's credentials for `repository`: the entries of the file, then what its helper says.
    pub(crate) async fn find(&self, repository: &str) -> Vec<Credential> {
        let winner = self.winner();
        let mut found = winner.keyring.lookup(repository);
        if let Some((program, server)) = helper_for(&winner.config, repository) {
            match helper::get(&program, &server).await {
                Ok(Some(login)) => {
                    let source = Source::Helper { name: program };
                    found.push(Credential { key: server, login, source });
                }
                Ok(None) => tracing::debug!(program, server, "the credential helper knows nothing"),
                Err(error) => tracing::warn!(program, server, error, "credential helper"),
            }
        }
        found
    }

    fn winner(&self) -> Arc<Winner> {
        let signature = self.signature();
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, winner)) = &*cached
            && *of == signature
        {
            return Arc::clone(winner);
        }
        let winner = Arc::new(self.read());
        *cached = Some((signature, Arc::clone(&winner)));
        winner
    }

    fn read(&self) -> Winner {
        for candidate in &self.candidates {
            let path = &candidate.path;
            match read(candidate) {
                Ok(Some(mut config)) => {
                    let mut keyring = Keyring::default();
                    let logins = std::mem::take(&mut config.logins);
                    let source = Source::NodeFile { path: path.clone() };
                    keyring.add(DockerConfig { logins, ..Default::default() }, &source);
                    return Winner { keyring, config };
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "this credential file does not count")
                }
            }
        }
        Winner::default()
    }
}

fn read(candidate: &Candidate) -> Result<Option<DockerConfig>, String> {
    match fs::metadata(&candidate.path) {
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    let bytes = read_bounded(&candidate.path, MAX_FILE).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or_else(|| format!("larger than {MAX_FILE} bytes"))?;
    let config = match candidate.legacy {
        true => DockerConfig::from_dockercfg(&bytes)?,
        false => DockerConfig::from_config_json(&bytes)?,
    };
    Ok(Some(config))
}

/// The helper for a repository and the name it knows the registry by: `credHelpers` first, then `credsStore`.
fn helper_for(config: &DockerConfig, repository: &str) -> Option<(String, String)> {
    let hub = repository.starts_with("docker.io/");
    let means = |key: &str| key_matches(key, repository) || hub && key == "index.docker.io";
    // The longest key is the most specific one.
    let own = config.helpers.iter().filter(|(key, _)| means(key)).max_by_key(|(key, _)| key.len());
    if let Some((_, (program, server))) = own {
        return Some((program.clone(), server.clone()));
    }
    let program = config.store.clone()?;
    let known = config.keys.iter().filter(|(key, _)| means(key)).max_by_key(|(key, _)| key.len());
    let server = match known {
        Some((_, server)) => server.clone(),
        None if hub => "https://index.docker.io/v1/".to_owned(),
        None => repository.split('/').next().unwrap_or_default().to_owned(),
    };
    Some((program, server))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::images::credentials::Login;

    fn user(file: &NodeFile, repository: &str) -> Option<String> {
        let found = futures::executor::block_on(file.find(repository));
        match &found.first()?.login {
            Login::Password { username, .. } => Some(username.clone()),
            Login::IdentityToken(_) => None,
        }
    }

    fn entry(user: &str) -> String {
        format!(r#"{{"a.io": {{"username": "{user}", "password": "p"}}}}"#)
    }

    #[test]
    fn img_58_the_first_valid_file_wins_and_the_old_form_comes_last() {
        let dir = tempfile::tempdir().unwrap();
        let dirs: Vec<PathBuf> = ["1", "2", "3"].iter().map(|name| dir.path().join(name)).collect();
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        let file = NodeFile::new(Some(dirs.clone()), Path::new("/nowhere"));
        assert_eq!(user(&file, "a.io/x"), None);
        fs::write(dirs[0].join(".dockercfg"), entry("old")).unwrap();
        assert_eq!(user(&file, "a.io/x").as_deref(), Some("old"));
        fs::write(dirs[2].join("config.json"), format!(r#"{{"auths": {}}}"#, entry("third"))).unwrap();
        assert_eq!(user(&file, "a.io/x").as_deref(), Some("third"));
        // One that is not valid is passed over; files are not merged.
        fs::write(dirs[0].join("config.json"), "{").unwrap();
        fs::write(dirs[1].join("config.json"), r#"{"auths": {"b.io": {"username": "u", "password": "p"}}}"#)
            .unwrap();
        assert_eq!(user(&file, "a.io/x"), None);
        assert_eq!(user(&file, "b.io/x").as_deref(), Some("u"));
    }

    #[test]
    fn img_59_an_edited_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = NodeFile::new(Some(vec![dir.path().to_owned()]), Path::new("/nowhere"));
        let path = dir.path().join("config.json");
        fs::write(&path, format!(r#"{{"auths": {}}}"#, entry("first"))).unwrap();
        assert_eq!(user(&file, "a.io/x").as_deref(), Some("first"));
        fs::write(&path, format!(r#"{{"auths": {}}}"#, entry("second"))).unwrap();
        assert_eq!(user(&file, "a.io/x").as_deref(), Some("second"));
    }

    #[test]
    fn the_most_specific_helper_and_the_name_it_knows() {
        let json = serde_json::json!({"credHelpers": {"*.ecr.example": "ecr", "1.ecr.example": "one"},
            "credsStore": "pass", "auths": {"https://gcr.example": {}}});
        let config = DockerConfig::from_config_json(json.to_string().as_bytes()).unwrap();
        let of = |repository: &str| helper_for(&config, repository).unwrap();
        assert_eq!(of("1.ecr.example/x"), ("one".into(), "1.ecr.example".into()));
        assert_eq!(of("2.ecr.example/x").0, "ecr");
        assert_eq!(of("gcr.example/x"), ("pass".into(), "https://gcr.example".into()));
        assert_eq!(of("docker.io/library/x"), ("pass".into(), "https://index.docker.io/v1/".into()));
        assert_eq!(of("quay.example/x"), ("pass".into(), "quay.example".into()));
    }
}
