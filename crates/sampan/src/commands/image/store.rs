//! The images that the commands work on: those of the running server, or the store itself.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Directories;

/// An open image store.
pub(super) struct Store {
    client: sampan_cri::client::Client,
    /// Serving to ourselves, without a running server.
    own: Option<(JoinHandle<Result<()>>, CancellationToken, PathBuf)>,
}

impl Store {
    pub(super) async fn open(directories: &Directories) -> Result<Self> {
        if crate::server::is_running(directories) {
            let endpoint = format!("unix://{}", directories.cri_socket().display());
            let client = sampan_cri::client::connect(&endpoint).await.context("the running server")?;
            return Ok(Self { client, own: None });
        }
        let images = crate::server::images(directories, &[]).await?;
        let socket = directories.run().join(format!("images-{}.sock", std::process::id()));
        let shutdown = CancellationToken::new();
        let (path, stop) = (socket.clone(), shutdown.clone());
        let serving = tokio::spawn(async move {
            sampan_runtime::image_service::serve(&path, images, stop).await.context("serving the image store")
        });
        let endpoint = format!("unix://{}", socket.display());
        let mut attempts = 0;
        let client = loop {
            match sampan_cri::client::connect(&endpoint).await {
                Ok(client) => break client,
                // The socket appears within a moment of the task's start.
                Err(_) if attempts < 200 && !serving.is_finished() => {
                    attempts += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Err(error) => {
                    if serving.is_finished() {
                        serving.await??;
                    }
                    return Err(error).context("the image store does not answer");
                }
            }
        };
        Ok(Self { client, own: Some((serving, shutdown, socket)) })
    }

    pub(super) fn client(&self) -> sampan_cri::client::Client {
        self.client.clone()
    }

    pub(super) async fn close(self) {
        if let Some((serving, shutdown, socket)) = self.own {
            drop(self.client);
            shutdown.cancel();
            let _ = serving.await;
            let _ = std::fs::remove_file(socket);
        }
    }
}
