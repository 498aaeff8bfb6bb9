//! The images that the commands work on: those of the running server, or the store itself.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Directories;

/// How often it is looked whether another process is done with the store.
const BUSY: Duration = Duration::from_millis(50);
/// So many looks are given to a server that does not answer yet: ten seconds.
const STARTING: u32 = 200;

/// An open image store.
pub(super) struct Store {
    client: sampan_cri::client::Client,
    /// Serving to ourselves, without a running server.
    own: Option<Own>,
}

struct Own {
    serving: JoinHandle<Result<()>>,
    shutdown: CancellationToken,
}

impl Store {
    pub(super) async fn open(directories: &Directories) -> Result<Self> {
        let mut patience = STARTING;
        let images = loop {
            if crate::node::is_running(directories) {
                let endpoint = format!("unix://{}", std::path::absolute(directories.cri_socket())?.display());
                match sampan_cri::client::connect(&endpoint).await {
                    Ok(client) => return Ok(Self { client, own: None }),
                    // It has just begun to start, or to stop.
                    Err(_) if patience > 0 => patience -= 1,
                    Err(error) => return Err(error).context("the running server"),
                }
                tokio::time::sleep(BUSY).await;
                continue;
            }
            match crate::node::images(directories).await? {
                Some(images) => break images,
                // Another command, or a server that is starting.
                None => tokio::time::sleep(BUSY).await,
            }
        };
        let socket =
            std::path::absolute(directories.run())?.join(format!("images-{}.sock", std::process::id()));
        let shutdown = CancellationToken::new();
        let (path, stop) = (socket.clone(), shutdown.clone());
        let serving = tokio::spawn(async move {
            sampan_runtime::image_service::serve(&path, images, stop).await.context("serving the image store")
        });
        let endpoint = format!("unix://{}", socket.display());
        let connected = connect(&endpoint, &serving).await;
        // This one connection is all that it is for: without a name nothing stays behind, however the command ends.
        let _ = fs::remove_file(&socket);
        let Some(client) = connected else {
            shutdown.cancel();
            serving.await??;
            bail!("the image store does not answer on {}", socket.display());
        };
        Ok(Self { client, own: Some(Own { serving, shutdown }) })
    }

    pub(super) fn client(&self) -> sampan_cri::client::Client {
        self.client.clone()
    }

    pub(super) async fn close(self) {
        if let Some(Own { serving, shutdown }) = self.own {
            drop(self.client);
            shutdown.cancel();
            let _ = serving.await;
        }
    }
}

/// Connects to what `serving` serves: its socket appears within a moment of the task's start.
async fn connect(endpoint: &str, serving: &JoinHandle<Result<()>>) -> Option<sampan_cri::client::Client> {
    for _ in 0..200 {
        match sampan_cri::client::connect(endpoint).await {
            Ok(client) => return Some(client),
            Err(_) if serving.is_finished() => return None,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    None
}
