//! The command line: what can be typed. What it means is in [`commands`](crate::commands).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{AgentOptions, Directories, LogFormat, ServerOptions};

/// A Kubernetes node in one binary
#[derive(Parser)]
#[command(name = "sampan", version, about, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Show results and errors only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Show progress as lines, not as bars
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start what manifests describe, show its logs, and delete it on Ctrl-C
    Run(RunArgs),
    /// Run the API server, scheduler, controllers, kubelet and container runtime
    Server(Box<ServerArgs>),
    /// Run kubelet and container runtime as a node of a cluster whose API is elsewhere
    Agent(Box<AgentArgs>),
    /// Run the container runtime alone, for another kubelet or crictl
    Cri(CriArgs),
    /// Show what a pod's container, or its lifecycle hooks, printed
    Logs(LogsArgs),
    /// Work with the images of this node
    #[command(subcommand)]
    Image(ImageCommand),
    /// Tell why a pod does not run, in plain words with the fix
    Explain(ExplainArgs),
    /// Print a kubeconfig for a node of another machine, or for a user, of this server's cluster
    Kubeconfig(KubeconfigArgs),
    /// Check whether this machine can run pods, with a fix for what is missing
    Doctor(DoctorArgs),
    /// Print a shell completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
pub(crate) struct ServerArgs {
    /// A YAML file whose keys are the names of these options; what is given here wins
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: ServerOptions,
}

#[derive(Args)]
pub(crate) struct AgentArgs {
    /// A YAML file whose keys are the names of these options; what is given here wins
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: AgentOptions,
}

#[derive(Args)]
pub(crate) struct CriArgs {
    /// A configuration file as of `sampan server`; what is given here wins
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) directories: Directories,
    /// Addresses for pods; this node takes the first /24 of it [default: 10.42.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub(crate) cluster_cidr: Option<String>,
    /// The bridge that pods hang on [default: sampan0]
    #[arg(long, value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// Registry hosts (host or host:port) that are reached over plain HTTP; loopback always is
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    pub(crate) insecure_registries: Option<Vec<String>>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Manifests (YAML or JSON, several documents each); `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The namespace for objects that name none
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// Use the server of this kubeconfig (default: a running server's, else one is started for the run)
    #[arg(long, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The configuration file (as of `sampan server`) of the server that is started for the run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Leave everything running at the end; needs a running server
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) directories: Directories,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The pod: its name, or NAMESPACE/NAME
    #[arg(value_name = "POD")]
    pub(crate) pod: String,
    /// The container; may be left out when the pod has one
    #[arg(long, short, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// The namespace of a pod that is named without one
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// Show what postStart and preStop handlers printed, run by run
    #[arg(long)]
    pub(crate) hooks: bool,
    /// Show the run before the last restart
    #[arg(long, short, conflicts_with = "hooks")]
    pub(crate) previous: bool,
    /// Stay and show what comes
    #[arg(long, short, conflicts_with = "hooks")]
    pub(crate) follow: bool,
    /// Show only so many lines from the end
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
    /// Put its time before each line
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// Use the server of this kubeconfig (default: a running server's)
    #[arg(long, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) directories: Directories,
}

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Fetch images from their registries
    Pull(ImageNames),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ImageLsArgs),
    /// Show an image's configuration and layers as JSON
    Inspect(ImageNames),
    /// Remove names of images; an image goes with its last name, and by its id
    Rm(ImageNames),
    /// Load images from an archive (an OCI layout or what `docker save` writes), or from a layout's directory
    Load(ImageLoadArgs),
    /// Write an image to an archive
    Save(ImageSaveArgs),
    /// Keep images from ever being collected
    Pin(ImageNames),
    /// Let pinned images be collected again
    Unpin(ImageNames),
    /// Remove images that no container uses and that are not pinned
    Prune(ImagePruneArgs),
}

#[derive(Args)]
pub(crate) struct ImageNames {
    /// Names with tag or digest, or image ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) directories: Directories,
}

#[derive(Args)]
pub(crate) struct ImageLsArgs {
    /// Print ids only
    #[arg(long)]
    pub(crate) ids: bool,
    #[command(flatten)]
    pub(crate) directories: Directories,
}

#[derive(Args)]
pub(crate) struct ImageLoadArgs {
    /// The archive (plain, gzip or zstd) or the directory of an OCI layout; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) directories: Directories,
}

#[derive(Args)]
pub(crate) struct ImageSaveArgs {
    /// The image's name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The archive to write; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// The archive's format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: SaveFormat,
    #[command(flatten)]
    pub(crate) directories: Directories,
}

/// What `sampan image save` writes.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub(crate) enum SaveFormat {
    /// An OCI image layout
    #[default]
    Oci,
    /// What `docker load` reads
    Docker,
}

#[derive(Args)]
pub(crate) struct ImagePruneArgs {
    #[command(flatten)]
    pub(crate) directories: Directories,
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// What it is: `pod`
    #[arg(value_name = "KIND")]
    pub(crate) kind: String,
    /// NAMESPACE/NAME, or NAME
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The namespace of a NAME without one
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// The cluster to ask, any cluster (default: $KUBECONFIG, else /etc/sampan/kubeconfig, else ~/.kube/config)
    #[arg(long, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("who").required(true))]
pub(crate) struct KubeconfigArgs {
    /// For `sampan agent` on a machine that is to be the node NAME
    #[arg(long, value_name = "NAME", group = "who")]
    pub(crate) node: Option<String>,
    /// For the user NAME, who may do what RoleBindings say
    #[arg(long, value_name = "NAME", group = "who")]
    pub(crate) user: Option<String>,
    /// The user's group
    #[arg(long, value_name = "GROUP", requires = "user")]
    pub(crate) group: Option<String>,
    /// The API as seen from there
    #[arg(long, value_name = "URL")]
    pub(crate) server: String,
    /// How long the certificate is good, a year at most; nodes renew theirs [default: a year]
    #[arg(long, value_name = "N")]
    pub(crate) expiration_seconds: Option<u32>,
    /// The data directory of the server [default: /var/lib/sampan]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) directories: Directories,
}
