//! Archives over the socket: `sampan image load`, `save` and `prune` against a running server.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use sampan_cri::archives as proto;
use sampan_cri::archives::image_archives_server::ImageArchives;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{ImageService, status};
use crate::images::ArchiveFormat;

const CHUNK: usize = 256 << 10;
/// Chunks that may wait in a queue.
const QUEUE: usize = 8;

#[tonic::async_trait]
impl ImageArchives for ImageService {
    type SaveStream = Pin<Box<dyn Stream<Item = Result<proto::Chunk, Status>> + Send>>;

    async fn load(
        &self,
        request: Request<Streaming<proto::Chunk>>,
    ) -> Result<Response<proto::LoadResponse>, Status> {
        let mut chunks = request.into_inner();
        let (send, receive) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
        let feed = async move {
            loop {
                let chunk = match chunks.message().await {
                    Ok(Some(chunk)) => Ok(Bytes::from(chunk.data)),
                    Ok(None) => return,
                    Err(error) => Err(io::Error::other(error.message().to_owned())),
                };
                let last = chunk.is_err();
                if send.send(chunk).await.is_err() || last {
                    return;
                }
            }
        };
        let reader = ChunkReader { receive, current: Bytes::new() };
        let (loaded, ()) = futures::join!(self.store.load(reader), feed);
        let images = loaded.map_err(|e| status(&e))?;
        // The archive may not be there a second time.
        self.store.flush().await;
        let name = |image: &crate::images::ImageRecord| {
            image.names().next().map_or_else(|| image.id.to_string(), str::to_owned)
        };
        Ok(Response::new(proto::LoadResponse { images: images.iter().map(|image| name(image)).collect() }))
    }

    async fn save(&self, request: Request<proto::SaveRequest>) -> Result<Response<Self::SaveStream>, Status> {
        let request = request.into_inner();
        let format = match request.format() {
            proto::Format::Oci => ArchiveFormat::Oci,
            proto::Format::Docker => ArchiveFormat::Docker,
        };
        // What can be known before the first byte is an error of the call.
        if self.store.resolve(&request.image).map_err(|e| status(&e))?.is_none() {
            return Err(Status::not_found(format!("no such image {:?}", request.image)));
        }
        let (send, receive) = mpsc::channel(QUEUE);
        let (store, errors) = (self.store.clone(), send.clone());
        tokio::spawn(async move {
            let writer = ChunkWriter { send, current: Vec::with_capacity(CHUNK) };
            if let Err(error) = store.save(&[request.image], format, writer).await {
                let _ = errors.send(Err(status(&error))).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }

    async fn pin(&self, request: Request<proto::PinRequest>) -> Result<Response<proto::PinResponse>, Status> {
        let proto::PinRequest { image, pinned } = request.into_inner();
        let image = self.store.set_pinned(&image, pinned).await.map_err(|e| status(&e))?;
        Ok(Response::new(proto::PinResponse { id: image.id.to_string() }))
    }

    async fn remove(
        &self,
        request: Request<proto::RemoveRequest>,
    ) -> Result<Response<proto::RemoveResponse>, Status> {
        let image = request.into_inner().image;
        if self.store.resolve(&image).map_err(|e| status(&e))?.is_none() {
            return Err(Status::not_found(format!("no such image {image:?}")));
        }
        let removed = self.store.remove(&image).await.map_err(|e| status(&e))?;
        let deleted = removed.deleted.iter().map(ToString::to_string).collect();
        Ok(Response::new(proto::RemoveResponse { untagged: removed.untagged, deleted }))
    }

    async fn prune(&self, _: Request<proto::PruneRequest>) -> Result<Response<proto::PruneResponse>, Status> {
        let in_use = self.images_in_use().map_err(|e| status(&e))?;
        let removed = self.store.prune(in_use).await.map_err(|e| status(&e))?;
        let mut names = removed.untagged;
        names.extend(removed.deleted.iter().map(ToString::to_string));
        Ok(Response::new(proto::PruneResponse { removed: names, bytes: removed.bytes }))
    }
}

impl ImageService {
    /// Ids of the images whose layers are below a container or mounted into it.
    fn images_in_use(&self) -> Result<HashSet<String>, crate::images::ImageError> {
        let snapshots = self.store.snapshots();
        let mut tops = HashSet::new();
        for container in snapshots.containers()? {
            let images = snapshots.images_below(&container)?;
            tops.extend(images.into_iter().filter_map(|layers| layers.into_iter().last()));
        }
        let images = self.store.list();
        let used =
            images.iter().filter(|image| image.layers.last().is_some_and(|top| tops.contains(&top.chain_id)));
        Ok(used.map(|image| image.id.to_string()).collect())
    }
}

struct ChunkReader {
    receive: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = self.current.len().min(buf.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

struct ChunkWriter {
    send: mpsc::Sender<Result<proto::Chunk, Status>>,
    current: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(CHUNK - self.current.len());
        self.current.extend_from_slice(&buf[..n]);
        if self.current.len() == CHUNK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.current, Vec::with_capacity(CHUNK));
        let sent = self.send.blocking_send(Ok(proto::Chunk { data }));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away"))
    }
}
