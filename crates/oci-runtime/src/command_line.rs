//! runc's command line, as far as engines use it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::journal::Journal;

#[derive(Debug, Parser)]
#[command(name = "sampan-oci", about = "OCI runtime with runc's command line", version)]
struct CommandLine {
    /// Directory for the state of containers.
    #[arg(long, default_value = "/run/sampan/oci")]
    root: PathBuf,
    /// File that errors are written to, besides stderr.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Form of that file: text or json.
    #[arg(long, default_value = "text")]
    log_format: String,
    /// Taken and ignored.
    #[arg(long)]
    debug: bool,
    /// Taken and ignored: cgroups are always made directly.
    #[arg(long)]
    systemd_cgroup: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a container; it waits for `start`.
    Create(Create),
    /// Let a created container run.
    Start { id: String },
    /// Print a container's state.
    State { id: String },
    /// Send a signal to a container's init, or with `--all` to all its processes.
    Kill {
        #[arg(short, long)]
        all: bool,
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Remove what is left of a container.
    Delete {
        #[arg(short, long)]
        force: bool,
        id: String,
    },
    /// Run another process in a container.
    Exec(Exec),
    /// Freeze a container.
    Pause { id: String },
    /// Thaw a container.
    Resume { id: String },
    /// Change a container's limits.
    Update {
        /// OCI LinuxResources as JSON; `-` is stdin.
        #[arg(short, long)]
        resources: PathBuf,
        id: String,
    },
    /// Print what this runtime can do.
    Features,
    /// List containers.
    List {
        #[arg(short, long, default_value = "table")]
        format: String,
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the processes of a container.
    Ps {
        #[arg(short, long, default_value = "table")]
        format: String,
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Directory with `config.json`.
    #[arg(short, long, default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// File that the init's pid is written to.
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Socket that the terminal is sent to.
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Move the root instead of pivoting (ramdisks).
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Taken and ignored: the caller's keyring is never joined.
    #[arg(long)]
    no_new_keyring: bool,
    /// How many descriptors after stderr the container keeps.
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: i32,
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// File with the OCI process to run.
    #[arg(short, long)]
    pub(crate) process: Option<PathBuf>,
    /// File that the process's pid is written to.
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Socket that the terminal is sent to.
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Return once it runs; else wait for it and end with its exit code.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Give it a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Its working directory.
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// Its user: UID[:GID].
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// More environment: NAME=VALUE.
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// How many descriptors after stderr it keeps.
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: i32,
    pub(crate) id: String,
    /// The command, when there is no `--process`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Runs `sampan oci`. `args` are those after `oci`. Must be called before any thread exists.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    run(args).into()
}

/// As [`main`], for a process that was forked off to run it; gives the exit code.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args = std::iter::once(OsString::from("sampan-oci")).chain(args);
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(1);
        }
    };
    let journal = Journal { json: line.log_format == "json", log: line.log };
    let root = &line.root;
    let done = |()| 0;
    let result = match line.command {
        Command::Create(create) => commands::create::run(root, &create).map(done),
        Command::Start { id } => commands::start::run(root, &id).map(done),
        Command::State { id } => commands::state::run(root, &id).map(done),
        Command::Kill { all, id, signal } => commands::kill::run(root, &id, &signal, all).map(done),
        Command::Delete { force, id } => commands::delete::run(root, &id, force).map(done),
        Command::Exec(exec) => commands::exec::run(root, &exec),
        Command::Pause { id } => commands::freeze::pause(root, &id).map(done),
        Command::Resume { id } => commands::freeze::resume(root, &id).map(done),
        Command::Update { resources, id } => commands::update::run(root, &id, &resources).map(done),
        Command::Features => commands::features::run().map(done),
        Command::List { format, quiet } => commands::state::list(root, &format, quiet).map(done),
        Command::Ps { format, id } => commands::state::processes(root, &id, &format).map(done),
    };
    result.unwrap_or_else(|error| {
        journal.error(&error.chain());
        1
    })
}
