//! `sampan logs`: what a container printed, and with `--hooks` what its lifecycle hooks printed, which `kubectl logs`
//! has no option for. It asks the API server, so it works wherever a kubeconfig does.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use futures::AsyncReadExt;

use super::run::session::{connect, running_server};
use crate::{cli::LogsArgs, output::Printer};

/// Bytes that are shown at a time.
const CHUNK: usize = 32 << 10;

pub(super) async fn run(args: LogsArgs, printer: &Printer) -> Result<ExitCode> {
    let client = match &args.kubeconfig {
        Some(path) => connect(path).await?,
        None => running_server(&args.directories)
            .await
            .context("no server runs here: name one with --kubeconfig PATH, or --run-dir of one that runs")?,
    };
    let request = http::Request::get(path(&args)?).body(Vec::new())?;
    let mut log = std::pin::pin!(client.request_stream(request).await?);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = log.read(&mut chunk).await.context("reading the log")?;
        if count == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        printer.raw(&chunk[..count]);
    }
}

/// The request: `pods/log` with our parameter `hooks`.
fn path(args: &LogsArgs) -> Result<String> {
    let (namespace, pod) = args.pod.split_once('/').unwrap_or((&args.namespace, &args.pod));
    for (what, name) in
        [("namespace", Some(namespace)), ("pod", Some(pod)), ("container", args.container.as_deref())]
    {
        // Names of Kubernetes need no escaping; whatever does is none.
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        };
        if let Some(name) = name {
            ensure!(is_name(name), "{name:?} is not the name of a {what}");
        }
    }
    let mut path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?timestamps={}", args.timestamps);
    if let Some(container) = &args.container {
        path.push_str(&format!("&container={container}"));
    }
    for (name, set) in [("hooks", args.hooks), ("previous", args.previous), ("follow", args.follow)] {
        if set {
            path.push_str(&format!("&{name}=true"));
        }
    }
    if let Some(lines) = args.tail {
        path.push_str(&format!("&tailLines={lines}"));
    }
    Ok(path)
}
