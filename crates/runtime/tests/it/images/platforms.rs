//! Images by platform: variants, indexes in indexes, handlers that run another platform (KEP-4216).

use sampan_oci::manifest::media_type as mt;
use sampan_oci::{Digest, Platform};
use sampan_runtime::images::{ImageStore, PullRequest};
use serde_json::{Value, json};

use super::builder::{Coding, Image, config, file_of, open, pull, tar};
use super::fake::{Auth, Fake};

fn image_for(architecture: &str) -> Image {
    let mut image = Image::new(&[(tar(&[("which", architecture.as_bytes())]), Coding::Gzip)]);
    image.config = String::from_utf8(image.config).unwrap().replace("amd64", architecture).into_bytes();
    image.seal();
    image
}

fn index(fake: &Fake, tag: &str, entries: &[Value]) -> (Digest, usize) {
    let bytes = json!({"schemaVersion": 2, "mediaType": mt::OCI_INDEX, "manifests": entries}).to_string();
    let digest = Digest::sha256(bytes.as_bytes());
    fake.manifest(tag, mt::OCI_INDEX, bytes.clone().into_bytes());
    (digest, bytes.len())
}

fn platform(architecture: &str) -> Value {
    json!({"os": "linux", "architecture": architecture})
}

#[tokio::test(flavor = "multi_thread")]
async fn img_46_the_best_variant_is_taken_and_img_49_names_mean_nothing() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let images: Vec<Image> = ["arm", "arm64", "amd64"].into_iter().map(image_for).collect();
    images.iter().for_each(|image| image.publish(&fake, ""));
    let v6 = json!({"os": "linux", "architecture": "arm", "variant": "v6"});
    let v7 = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
    index(&fake, "arm", &[images[1].entry(v6), images[0].entry(v7)]);
    let mut config = config(&dir.path().join("arm"));
    config.platform = "linux/arm/v7".parse().unwrap();
    let store = ImageStore::open(config).await.unwrap();
    assert_eq!(pull(&store, &fake.image("a:arm")).await.unwrap().id, images[0].id());
    // `-arm64` at the end of a name is only a name.
    images[2].publish(&fake, "1");
    let store = open(&dir.path().join("amd")).await;
    let record = pull(&store, &fake.image("app-arm64:1")).await.unwrap();
    assert_eq!(file_of(&store, &record, "which").unwrap(), b"amd64");
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_in_indexes_are_followed_for_a_while() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = image_for("amd64");
    image.publish(&fake, "");
    let (mut digest, mut size) = index(&fake, "one", &[image.entry(platform("amd64"))]);
    let mut tops = Vec::new();
    for tag in ["two", "three", "four"] {
        let entry = json!({"mediaType": mt::OCI_INDEX, "digest": digest, "size": size});
        (digest, size) = index(&fake, tag, &[entry]);
        tops.push(digest.clone());
    }
    let store = open(dir.path()).await;
    let record = pull(&store, &fake.image("a:three")).await.unwrap();
    assert_eq!(record.image_ref(), format!("{}@{}", fake.image("a"), tops[1]), "IMG-48: the outermost one");
    let error = pull(&store, &fake.image("a:four")).await.unwrap_err().chain();
    assert!(error.contains("nested too deeply"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn img_47_no_match_lists_what_there_is() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = image_for("s390x");
    let entries = [
        image.entry(platform("s390x")),
        image.entry(json!({"os": "linux", "architecture": "arm", "variant": "v7"})),
        image.entry(platform("unknown")),
    ];
    index(&fake, "1", &entries);
    let store = open(dir.path()).await;
    let error = pull(&store, &fake.image("a:1")).await.unwrap_err().chain();
    assert!(error.contains("no match for platform in manifest: not found"), "{error}");
    assert!(error.contains("the image has linux/s390x, linux/arm/v7)"), "{error}");
    // An entry that says the right platform and holds another one.
    image.publish(&fake, "");
    index(&fake, "liar", &[image.entry(platform("amd64"))]);
    let error = pull(&store, &fake.image("a:liar")).await.unwrap_err().chain();
    assert!(error.contains("is for linux/s390x, this node runs linux/amd64"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_another_platform_has_its_own_images() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let (here, there) = (image_for("amd64"), image_for("arm64"));
    here.publish(&fake, "");
    there.publish(&fake, "");
    let (top, _) = index(&fake, "1", &[here.entry(platform("amd64")), there.entry(platform("arm64"))]);
    let settings = || {
        let mut settings = config(dir.path());
        settings.handler_platforms.insert("qemu".to_owned(), Platform::new("linux", "arm64"));
        settings
    };
    let store = ImageStore::open(settings()).await.unwrap();
    let name = fake.image("a/b:1");
    let for_qemu = |image: &str| PullRequest {
        image: image.to_owned(),
        handler: "qemu".to_owned(),
        ..PullRequest::default()
    };
    assert_eq!(store.pull(for_qemu(&name)).await.unwrap().id, there.id());
    assert!(store.resolve(&name).unwrap().is_none(), "the node itself has not got it");
    assert_eq!(pull(&store, &name).await.unwrap().id, here.id());
    let by_digest = format!("{}@{top}", fake.image("a/b"));
    drop(store);
    let store = ImageStore::open(settings()).await.unwrap();
    for name in [&name, &by_digest] {
        assert_eq!(store.resolve_for(name, "qemu").unwrap().unwrap().id, there.id(), "{name}");
        assert_eq!(store.resolve_for(name, "").unwrap().unwrap().id, here.id(), "{name}");
        assert_eq!(store.resolve_for(name, "runc").unwrap().unwrap().id, here.id(), "{name}");
    }
    // Another table of handlers, as a configuration file that is read again has it.
    let before = settings().handler_platforms;
    store.set_handler_platforms([("runc".to_owned(), Platform::new("linux", "arm64"))].into());
    assert_eq!(store.resolve_for(&name, "runc").unwrap().unwrap().id, there.id());
    assert_eq!(store.resolve_for(&name, "qemu").unwrap().unwrap().id, here.id());
    store.set_handler_platforms(before);
    // Known by digest: nothing but the question goes to the registry.
    let asked = fake.seen().len();
    store.pull(for_qemu(&name)).await.unwrap();
    assert_eq!(fake.seen().len(), asked + 1);
    // The tag moves for one of them only.
    let newer = Image::new(&[(tar(&[("which", b"newer")]), Coding::Gzip)]);
    newer.publish(&fake, "1");
    pull(&store, &name).await.unwrap();
    assert_eq!(store.resolve(&name).unwrap().unwrap().id, newer.id());
    assert_eq!(store.resolve_for(&name, "qemu").unwrap().unwrap().id, there.id());
    store.remove_image(&there.id().to_string()).await.unwrap();
    assert!(store.resolve_for(&name, "qemu").unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_pulled_for_a_related_platform_gives_the_node_its_own_image() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let (here, small) = (image_for("amd64"), image_for("386"));
    here.publish(&fake, "");
    small.publish(&fake, "");
    let (top, _) = index(&fake, "1", &[small.entry(platform("386")), here.entry(platform("amd64"))]);
    let mut settings = config(dir.path());
    settings.handler_platforms.insert("old".to_owned(), Platform::new("linux", "386"));
    let store = ImageStore::open(settings).await.unwrap();
    let name = fake.image("a/b:1");
    let for_old = PullRequest { image: name.clone(), handler: "old".to_owned(), ..PullRequest::default() };
    assert_eq!(store.pull(for_old).await.unwrap().id, small.id());
    // An amd64 machine can run it; it is not what the index has for one.
    let before = fake.count(&format!("GET /v2/a/b/manifests/{top}"));
    for name in [&name, &format!("{}@{top}", fake.image("a/b"))] {
        assert_eq!(pull(&store, name).await.unwrap().id, here.id(), "{name}");
    }
    assert_eq!(store.resolve(&name).unwrap().unwrap().id, here.id());
    assert_eq!(store.resolve_for(&name, "old").unwrap().unwrap().id, small.id());
    assert_eq!(fake.count(&format!("GET /v2/a/b/manifests/{top}")), before, "the index was here");
}
