//! `sampan kubeconfig`: identities of this server's cluster, for nodes on other machines and for people.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use sampan_apiserver::pki::{Identity, issue_kubeconfig};

use crate::{cli::KubeconfigArgs, config::Directories, output::Printer};

pub(super) fn run(args: &KubeconfigArgs, printer: &Printer) -> Result<ExitCode> {
    let url: http::Uri = args.server.parse().with_context(|| format!("--server {}", args.server))?;
    ensure!(
        url.scheme_str() == Some("https") && url.host().is_some(),
        "--server {}: an address like https://10.0.0.1:6443",
        args.server
    );
    let identity = match (&args.node, &args.user) {
        (Some(name), _) => {
            ensure!(
                sampan_api::names::dns1123_subdomain(name).is_empty(),
                "--node {name}: lower-case letters, digits, `-` and `.`, at most 253"
            );
            Identity::Node(name)
        }
        (None, Some(name)) => Identity::User { name, group: args.group.as_deref() },
        (None, None) => bail!("for whom? --node NAME or --user NAME"),
    };
    let directories = Directories { data_dir: args.data_dir.clone(), run_dir: None };
    let lifetime = args.expiration_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let kubeconfig = issue_kubeconfig(&directories.data().join("pki"), &args.server, identity, lifetime)?;
    printer.raw(kubeconfig.as_bytes());
    Ok(ExitCode::SUCCESS)
}
