//! `sampan image ...`: the images of this node, over the runtime's CRI socket.
//!
//! A running server answers there. Without one the image store is opened by this process and served to
//! itself on a socket of its own: the same calls, the same code.

mod store;

use std::{
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, bail};
use sampan_cri::{
    archives::{Chunk, Format, PinRequest, PruneRequest, RemoveRequest, SaveRequest},
    v1::{Image, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest},
};
use sampan_runtime::images::pack_layout;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
};

use self::store::Store;
use super::run::watch_pull;
use crate::{
    cli::{ImageCommand, ImageLoadArgs, ImageLsArgs, ImageNames, ImageSaveArgs, SaveFormat},
    output::{Printer, human_bytes},
};

/// What one message of an archive carries, in bytes.
const PIECE: usize = 1 << 20;

pub(super) async fn run(command: ImageCommand, printer: &Printer) -> Result<ExitCode> {
    match command {
        ImageCommand::Pull(args) => pull(args, printer).await,
        ImageCommand::Ls(args) => list(args, printer).await,
        ImageCommand::Inspect(args) => inspect(args, printer).await,
        ImageCommand::Rm(args) => remove(args, printer).await,
        ImageCommand::Load(args) => load(args, printer).await,
        ImageCommand::Save(args) => save(args, printer).await,
        ImageCommand::Pin(args) => pin(args, true, printer).await,
        ImageCommand::Unpin(args) => pin(args, false, printer).await,
        ImageCommand::Prune(args) => prune(&args.directories, printer).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn pull(args: ImageNames, printer: &Printer) -> Result<()> {
    let store = Store::open(&args.directories).await?;
    let pulls = args.images.iter().map(|name| pull_one(&store, name, printer));
    // All at once: the store fetches what they share only once, and bounds the connections.
    for pulled in futures::future::join_all(pulls).await {
        printer.line(pulled?);
    }
    store.close().await;
    Ok(())
}

async fn pull_one(store: &Store, name: &str, printer: &Printer) -> Result<String> {
    let progress = tokio::spawn(watch_pull(store.client(), name.to_owned(), printer.clone()));
    let request = PullImageRequest { image: Some(spec(name)), ..Default::default() };
    let answer = store.client().images.pull_image(request).await;
    progress.abort();
    Ok(answer.map_err(plain).with_context(|| format!("pulling {name}"))?.into_inner().image_ref)
}

async fn list(args: ImageLsArgs, printer: &Printer) -> Result<()> {
    let store = Store::open(&args.directories).await?;
    let answer = store.client().images.list_images(ListImagesRequest::default()).await.map_err(plain)?;
    let images = answer.into_inner().images;
    if args.ids {
        images.iter().for_each(|image| printer.line(&image.id));
    } else {
        table(&images).iter().for_each(|line| printer.line(line));
    }
    store.close().await;
    Ok(())
}

/// `IMAGE TAG ID SIZE`, as `crictl images` shows it.
fn table(images: &[Image]) -> Vec<String> {
    let mut rows = vec![["IMAGE", "TAG", "IMAGE ID", "SIZE"].map(str::to_owned)];
    for image in images {
        let size = human_bytes(image.size) + if image.pinned { " (pinned)" } else { "" };
        let id: String = image.id.rsplit(':').next().unwrap_or("").chars().take(13).collect();
        let names: Vec<(String, String)> = match image.repo_tags.as_slice() {
            [] => {
                let repository = image.repo_digests.first().and_then(|digest| digest.split_once('@'));
                vec![(repository.map_or("<none>", |(name, _)| name).to_owned(), "<none>".to_owned())]
            }
            tags => tags
                .iter()
                .map(|tag| tag.rsplit_once(':').unwrap_or((tag, "")))
                .map(|(name, tag)| (name.to_owned(), tag.to_owned()))
                .collect(),
        };
        rows.extend(names.into_iter().map(|(name, tag)| [name, tag, id.clone(), size.clone()]));
    }
    rows[1..].sort();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        format!(
            "{:a$}  {:b$}  {:c$}  {}",
            row[0],
            row[1],
            row[2],
            row[3],
            a = widths[0],
            b = widths[1],
            c = widths[2]
        )
    };
    rows.iter().map(line).collect()
}

async fn inspect(args: ImageNames, printer: &Printer) -> Result<()> {
    let store = Store::open(&args.directories).await?;
    let mut found = Vec::new();
    for name in &args.images {
        let request = ImageStatusRequest { image: Some(spec(name)), verbose: true };
        let answer = store.client().images.image_status(request).await.map_err(plain)?.into_inner();
        let Some(image) = answer.image else {
            bail!("no image `{name}`; `sampan image ls` lists those there are")
        };
        // The verbose part is JSON in a string, by the protocol.
        let info: serde_json::Map<_, _> = answer
            .info
            .into_iter()
            .map(|(key, text)| (key, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))))
            .collect();
        found.push(serde_json::json!({
            "id": image.id, "repoTags": image.repo_tags, "repoDigests": image.repo_digests,
            "size": image.size, "pinned": image.pinned, "info": info,
        }));
    }
    printer.line(serde_json::to_string_pretty(&found)?);
    store.close().await;
    Ok(())
}

async fn remove(args: ImageNames, printer: &Printer) -> Result<()> {
    let store = Store::open(&args.directories).await?;
    for name in &args.images {
        let status = ImageStatusRequest { image: Some(spec(name)), verbose: false };
        if store.client().images.image_status(status).await.map_err(plain)?.into_inner().image.is_none() {
            bail!("no image `{name}`; `sampan image ls` lists those there are");
        }
        let request = RemoveRequest { image: name.clone() };
        let removed = store.client().archives.remove(request).await;
        let removed = removed.map_err(plain).with_context(|| format!("removing {name}"))?.into_inner();
        printer.line(format!("removed {name}"));
        if removed.deleted.is_empty() {
            continue;
        }
        // By an id, or with its last tag, the image went with all that named it.
        for other in removed.untagged.iter().filter(|other| *other != name && !other.contains('@')) {
            printer.line(format!("removed {other}"));
        }
    }
    store.close().await;
    Ok(())
}

async fn load(args: ImageLoadArgs, printer: &Printer) -> Result<()> {
    let shown = args.file.display().to_string();
    // The protocol's stream has no place for our own read error: it is kept here, and told afterwards.
    let unread = Arc::new(OnceLock::new());
    let input: Box<dyn AsyncRead + Send + Unpin> = if is_dash(&args.file) {
        Box::new(File::from_std(own(std::io::stdin())?))
    } else if args.file.is_dir() {
        Box::new(File::from_std(pack_layout(&args.file, unread.clone())?))
    } else {
        Box::new(File::open(&args.file).await.with_context(|| format!("opening {shown}"))?)
    };
    let store = Store::open(&args.directories).await?;
    let pieces = futures::stream::unfold((input, unread.clone()), |(mut input, unread)| async move {
        let mut data = Vec::with_capacity(PIECE);
        match (&mut input).take(PIECE as u64).read_to_end(&mut data).await {
            Ok(0) => None,
            Ok(_) => Some((Chunk { data }, (input, unread))),
            Err(error) => {
                let _ = unread.set(error.to_string());
                None
            }
        }
    });
    let answer = store.client().archives.load(pieces).await;
    if let Some(error) = unread.get() {
        bail!("reading {shown}: {error}");
    }
    let answer = answer.map_err(plain).with_context(|| format!("loading {shown}"))?;
    for image in answer.into_inner().images {
        printer.line(format!("loaded {image}"));
    }
    store.close().await;
    Ok(())
}

async fn save(args: ImageSaveArgs, printer: &Printer) -> Result<()> {
    let shown = args.output.display().to_string();
    let store = Store::open(&args.directories).await?;
    let format = match args.format {
        SaveFormat::Oci => Format::Oci,
        SaveFormat::Docker => Format::Docker,
    };
    let request = SaveRequest { image: args.image.clone(), format: format.into() };
    let saving = || format!("saving {}", args.image);
    let mut pieces =
        store.client().archives.save(request).await.map_err(plain).with_context(saving)?.into_inner();
    let mut output: Box<dyn AsyncWrite + Send + Unpin> = match is_dash(&args.output) {
        true => Box::new(File::from_std(own(std::io::stdout())?)),
        false => Box::new(File::create(&args.output).await.with_context(|| format!("creating {shown}"))?),
    };
    while let Some(piece) = pieces.message().await.map_err(plain).with_context(saving)? {
        output.write_all(&piece.data).await.with_context(|| format!("writing {shown}"))?;
    }
    output.flush().await.with_context(|| format!("writing {shown}"))?;
    printer.status(format!("saved {} to {shown}", args.image));
    store.close().await;
    Ok(())
}

async fn pin(args: ImageNames, pinned: bool, printer: &Printer) -> Result<()> {
    let store = Store::open(&args.directories).await?;
    let word = if pinned { "pinned" } else { "unpinned" };
    for name in &args.images {
        let request = PinRequest { image: name.clone(), pinned };
        store.client().archives.pin(request).await.map_err(plain)?;
        printer.line(format!("{word} {name}"));
    }
    store.close().await;
    Ok(())
}

async fn prune(directories: &crate::config::Directories, printer: &Printer) -> Result<()> {
    let store = Store::open(directories).await?;
    let answer = store.client().archives.prune(PruneRequest {}).await.map_err(plain)?.into_inner();
    for image in &answer.removed {
        printer.line(format!("removed {image}"));
    }
    printer.status(format!("{} freed", human_bytes(answer.bytes)));
    store.close().await;
    Ok(())
}

fn spec(name: &str) -> ImageSpec {
    ImageSpec { image: name.to_owned(), user_specified_image: name.to_owned(), ..Default::default() }
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A standard stream as a file of our own.
fn own(stream: impl AsFd) -> Result<std::fs::File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

/// A gRPC failure as its message only: people do not need the code and the metadata.
fn plain(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}
