//! GetContainerEvents: changes as they happen, until the client or the server goes.

use futures::StreamExt;
use sampan_cri::v1::ContainerEventResponse;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::Status;

use crate::runtime::Runtime;

use super::BoxStream;

pub(super) fn get_container_events(runtime: &Runtime) -> BoxStream<ContainerEventResponse> {
    let events = BroadcastStream::new(runtime.events.subscribe()).map(|event| {
        event.map_err(|BroadcastStreamRecvError::Lagged(lost)| {
            // The kubelet lists everything again when its stream breaks.
            Status::data_loss(format!("{lost} container events were lost"))
        })
    });
    Box::pin(events.take_until(runtime.shutdown.clone().cancelled_owned()))
}
