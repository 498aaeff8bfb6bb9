//! The command line of `sampan shim`. By hand: clap would be most of a shim's memory.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the daemon told the shim.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) id: String,
    pub(super) dir: PathBuf,
    pub(super) state: PathBuf,
    pub(super) cgroups: Vec<PathBuf>,
    pub(super) oom_score_adj: Option<i32>,
}

impl Arguments {
    pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut id, mut dir, mut state) = (None, None, None);
        let mut cgroups = Vec::new();
        let mut oom_score_adj = None;
        let mut args = args.into_iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy().into_owned();
            let (flag, mut inline) = match flag.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(OsString::from(value))),
                None => (flag, None),
            };
            let mut value =
                || inline.take().or_else(|| args.next()).ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--id" => id = Some(value()?.to_string_lossy().into_owned()),
                "--dir" => dir = Some(PathBuf::from(value()?)),
                "--state" => state = Some(PathBuf::from(value()?)),
                "--cgroup" => cgroups.push(PathBuf::from(value()?)),
                "--oom-score-adj" => {
                    let score = value()?;
                    let score = score.to_string_lossy();
                    oom_score_adj =
                        Some(score.parse().map_err(|_| format!("--oom-score-adj: not a number: {score}"))?);
                }
                _ => return Err(format!("unknown argument {flag}")),
            }
        }
        let arguments = Self {
            id: id.ok_or("--id is missing")?,
            dir: dir.ok_or("--dir is missing")?,
            state: state.ok_or("--state is missing")?,
            cgroups,
            oom_score_adj,
        };
        if !arguments.dir.is_absolute() || !arguments.state.is_absolute() {
            return Err("--dir and --state must be absolute".into());
        }
        Ok(arguments)
    }
}
