//! Pulls that go well.

use sampan_oci::Digest;
use sampan_oci::manifest::media_type as mt;
use sampan_oci::registry::Credentials;
use sampan_runtime::images::{LayerState, PullProgress, PullRequest};
use serde_json::json;
use tokio::sync::watch;

use super::builder::{Coding, Image, assert_tidy, file_of, noise, open, pull, tar};
use super::fake::{Auth, Fake};

fn three() -> Image {
    Image::new(&[
        (tar(&[("etc/", b""), ("etc/a", b"1"), ("same", b"low")]), Coding::Gzip),
        (tar(&[("etc/b", b"2"), ("same", b"middle")]), Coding::Zstd),
        (tar(&[("same", b"top"), ("big", &noise(1, 2_000_000))]), Coding::Plain),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn all_codings_and_every_layer_verified() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = three();
    image.publish(&fake, "1");
    let store = open(dir.path()).await;
    let (progress, seen) = watch::channel(PullProgress::default());
    let request =
        PullRequest { image: fake.image("a/b:1"), progress: Some(progress), ..PullRequest::default() };
    let record = store.pull(request).await.unwrap();
    assert_eq!(record.id, image.id());
    assert_eq!(record.repo_tags, [fake.image("a/b:1")]);
    assert_eq!(record.repo_digests, [format!("{}@{}", fake.image("a/b"), image.digest())]);
    assert_eq!(
        (record.uid(), record.config.config.cmd.as_slice()),
        (Some(1000), &["/bin/app".to_owned()][..])
    );
    assert_eq!(file_of(&store, &record, "same").unwrap(), b"top");
    assert_eq!(file_of(&store, &record, "big").unwrap(), noise(1, 2_000_000));
    let last = seen.borrow().clone();
    assert_eq!(last.layers.len(), 3);
    assert!(last.layers.iter().all(|l| l.state == LayerState::Done && l.done == l.total), "{last:?}");
    assert_tidy(dir.path());
    // Found under every spelling.
    let names = [
        fake.image("a/b:1"),
        record.repo_digests[0].clone(),
        record.id.to_string(),
        record.id.hex().to_owned(),
        record.id.short().to_owned(),
    ];
    for name in names {
        assert_eq!(store.resolve(&name).unwrap().unwrap().id, record.id, "{name}");
    }
    assert!(store.resolve(&fake.image("a/b:2")).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn img_53_a_known_digest_fetches_nothing() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    three().publish(&fake, "1");
    let store = open(dir.path()).await;
    pull(&store, &fake.image("a/b:1")).await.unwrap();
    let (gets, heads) = (fake.count("GET"), fake.count("HEAD"));
    three().publish(&fake, "2");
    let record = pull(&store, &fake.image("a/b:2")).await.unwrap();
    assert_eq!((fake.count("GET"), fake.count("HEAD")), (gets, heads + 1));
    assert_eq!(record.repo_tags, [fake.image("a/b:1"), fake.image("a/b:2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn img_25_img_26_tags_move_and_digests_do_not() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let old = three();
    old.publish(&fake, "1");
    let store = open(dir.path()).await;
    pull(&store, &fake.image("a/b:1")).await.unwrap();
    let new = Image::new(&[(tar(&[("x", b"new")]), Coding::Gzip)]);
    new.publish(&fake, "1");
    // Nothing asks the registry as long as nobody pulls.
    assert_eq!(store.resolve(&fake.image("a/b:1")).unwrap().unwrap().id, old.id());
    let record = pull(&store, &fake.image("a/b:1")).await.unwrap();
    assert_eq!(record.id, new.id());
    let by_digest = format!("{}@{}", fake.image("a/b"), old.digest());
    let record = pull(&store, &by_digest).await.unwrap();
    assert_eq!(record.id, old.id());
    assert!(record.repo_tags.is_empty());
    assert_eq!(record.image_ref(), by_digest);
    // IMG-17: with both, the digest decides.
    let both = format!("{}@{}", fake.image("a/b:1"), old.digest());
    assert_eq!(pull(&store, &both).await.unwrap().id, old.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn img_46_img_47_img_48_indexes() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = Image::with(&[(tar(&[("x", b"mine")]), Coding::Gzip)], true, json!({}));
    image.publish(&fake, "");
    let index = |entries: Vec<serde_json::Value>| {
        serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": mt::DOCKER_INDEX, "manifests": entries}))
            .unwrap()
    };
    let other = Image::new(&[(tar(&[("x", b"other")]), Coding::Gzip)]);
    let good = index(vec![
        other.entry(json!({"os": "unknown", "architecture": "unknown"})),
        other.entry(json!({"os": "linux", "architecture": "s390x"})),
        image.entry(json!({"os": "linux", "architecture": "amd64"})),
    ]);
    let digest = Digest::sha256(&good);
    fake.manifest("multi", mt::DOCKER_INDEX, good.clone());
    fake.manifest(&digest.to_string(), mt::DOCKER_INDEX, good);
    let store = open(dir.path()).await;
    let record = pull(&store, &fake.image("a/b:multi")).await.unwrap();
    assert_eq!(record.id, image.id());
    assert_eq!(
        record.image_ref(),
        format!("{}@{digest}", fake.image("a/b")),
        "the index's digest is reported"
    );
    let record = pull(&store, &format!("{}@{digest}", fake.image("a/b"))).await.unwrap();
    assert_eq!(record.id, image.id());
    let none = index(vec![other.entry(json!({"os": "linux", "architecture": "s390x"}))]);
    fake.manifest("none", mt::DOCKER_INDEX, none.clone());
    fake.manifest(&Digest::sha256(&none).to_string(), mt::DOCKER_INDEX, none);
    let error = pull(&store, &fake.image("a/b:none")).await.unwrap_err().chain();
    assert!(error.contains("no match for platform in manifest: not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pulls_at_once_fetch_each_layer_once() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let base = (tar(&[("base", &noise(7, 3_000_000))]), Coding::Gzip);
    let images: Vec<Image> = (0..5)
        .map(|i| Image::new(&[base.clone(), (tar(&[("own", &noise(i, 1000))]), Coding::Gzip)]))
        .collect();
    for (i, image) in images.iter().enumerate() {
        image.publish(&fake, &i.to_string());
    }
    let store = open(dir.path()).await;
    let names: Vec<String> = (0..10).map(|i| fake.image(&format!("a/b:{}", i % 5))).collect();
    let pulls = names.iter().map(|name| pull(&store, name));
    for (i, record) in futures::future::join_all(pulls).await.into_iter().enumerate() {
        assert_eq!(record.unwrap().id, images[i % 5].id());
    }
    assert_eq!(fake.count(&format!("GET /v2/a/b/blobs/{}", images[0].layers[0].0.digest)), 1);
    assert_tidy(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_blob_twice_in_an_image_and_layers_without_content() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let empty = (tar(&[]), Coding::Gzip);
    let image = Image::new(&[empty.clone(), (tar(&[("x", b"1")]), Coding::Gzip), empty.clone(), empty]);
    image.publish(&fake, "1");
    let store = open(dir.path()).await;
    let record = pull(&store, &fake.image("a:1")).await.unwrap();
    assert_eq!(record.layers.len(), 4);
    assert_eq!(fake.count(&format!("blobs/{}", image.layers[0].0.digest)), 1);
    let none = Image::new(&[]);
    none.publish(&fake, "none");
    pull(&store, &fake.image("a:none")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn private_images_by_token_and_by_password() {
    let dir = tempfile::tempdir().unwrap();
    let user = Some(("joe".to_owned(), "secret".to_owned()));
    for auth in [Auth::Bearer { user, realm: None }, Auth::Basic("joe".into(), "secret".into())] {
        let fake = Fake::start(auth).await;
        three().publish(&fake, "1");
        let store = open(&dir.path().join(fake.host())).await;
        let error = pull(&store, &fake.image("a:1")).await.unwrap_err().chain();
        assert!(error.contains("401 Unauthorized"), "{error}");
        let credentials = Credentials::basic("joe", "secret");
        let request = PullRequest { image: fake.image("a:1"), credentials, ..PullRequest::default() };
        store.pull(request).await.unwrap();
        // Here or not: whether somebody may have it is the registry's to say.
        let by_digest = format!("{}@{}", fake.image("a"), three().digest());
        assert!(pull(&store, &by_digest).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_keeps_what_an_image_volume_shows() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    for name in ["root", "data"] {
        Image::new(&[(tar(&[(name, name.as_bytes())]), Coding::Gzip)]).publish(&fake, name);
    }
    let store = open(dir.path()).await;
    let root = pull(&store, &fake.image("a:root")).await.unwrap();
    let data = pull(&store, &fake.image("a:data")).await.unwrap();
    store.snapshots().prepare_with("c1", &root, std::slice::from_ref(&data), None).unwrap();
    let removed = store.remove_image(&fake.image("a:data")).await.unwrap();
    assert_eq!(removed.deleted, std::slice::from_ref(&data.id));
    assert!(file_of(&store, &data, "data").is_some(), "a container has it mounted");
    store.snapshots().remove("c1").unwrap();
    store.prune(std::collections::HashSet::from([root.id.to_string()])).await.unwrap();
    assert!(file_of(&store, &data, "data").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_what_is_being_removed_leaves_a_whole_image_or_none() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    three().publish(&fake, "1");
    let store = open(dir.path()).await;
    let name = fake.image("a:1");
    pull(&store, &name).await.unwrap();
    for round in 0..30 {
        let (pulled, removed) = tokio::join!(
            async {
                // Other moments of the removal each time.
                tokio::time::sleep(std::time::Duration::from_micros(round * 100)).await;
                pull(&store, &name).await
            },
            store.remove_image(&name)
        );
        pulled.unwrap();
        removed.unwrap();
        for image in store.list() {
            let missing = image.chain_ids().find(|chain| !store.snapshots().has(chain));
            assert_eq!(missing, None, "round {round}: a layer of a listed image is gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_keeps_what_others_need() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let base = (tar(&[("base", &noise(7, 100_000))]), Coding::Gzip);
    let one = Image::new(&[base.clone(), (tar(&[("one", b"1")]), Coding::Gzip)]);
    let two = Image::new(&[base, (tar(&[("two", b"2")]), Coding::Gzip)]);
    one.publish(&fake, "one");
    two.publish(&fake, "two");
    let store = open(dir.path()).await;
    let (first, second) = (
        pull(&store, &fake.image("a:one")).await.unwrap(),
        pull(&store, &fake.image("a:two")).await.unwrap(),
    );
    store.snapshots().prepare("c1", &first, None).unwrap();
    let removed = store.remove_image(&fake.image("a:one")).await.unwrap();
    assert_eq!(removed.deleted, std::slice::from_ref(&first.id));
    assert!(file_of(&store, &first, "one").is_some(), "a container still stands on it");
    assert!(file_of(&store, &second, "base").is_some());
    store.snapshots().remove("c1").unwrap();
    let removed = store.prune(std::collections::HashSet::from([second.id.to_string()])).await.unwrap();
    assert!(removed.deleted.is_empty() && removed.bytes > 0);
    assert!(file_of(&store, &first, "one").is_none());
    assert!(file_of(&store, &second, "base").is_some());
    let removed = store.prune(Default::default()).await.unwrap();
    assert_eq!(removed.deleted, std::slice::from_ref(&second.id));
    let info = store.fs_info().await.unwrap();
    assert_eq!((info.used_bytes, info.inodes_used), (0, 0));
    assert!(store.remove_image("nothing").await.unwrap().deleted.is_empty());
}
