#![allow(clippy::unwrap_used)]
use super::*;
use crate::images::config::VerificationPolicy;
use crate::images::credentials::Login;

fn access(dir: &Path, policy: VerificationPolicy) -> ImageAccess {
    let config = ImageConfig { image_pull_credentials_verification_policy: policy, ..Default::default() };
    ImageAccess::new(dir, &config, Clock::System)
}

fn preloaded(dir: &Path) -> ImageAccess {
    access(dir, VerificationPolicy::NeverVerifyPreloadedImages)
}

fn of_secret(uid: &str, name: &str, password: &str) -> Credential {
    Credential {
        key: "reg.io".into(),
        login: Login::Password { username: "u".into(), password: password.into() },
        source: Source::Secret { uid: uid.into(), namespace: "ns".into(), name: name.into() },
    }
}

fn admitted(access: &ImageAccess, image: &str, credentials: &[Credential]) -> bool {
    match access.judge(image, "id") {
        Verdict::Accessible => true,
        Verdict::MustPull => false,
        Verdict::DependsOnCredentials(proof) => access.admits(&proof, credentials),
    }
}

#[test]
fn img_76_img_80_a_private_image_is_for_who_has_the_secret_or_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let access = preloaded(dir.path());
    access.intend("reg.io/a:1").unwrap();
    access.pulled("reg.io/a:1", "id", Some(&of_secret("1", "s", "p")));
    assert!(!admitted(&access, "reg.io/a:1", &[]));
    assert!(!admitted(&access, "reg.io/a:1", &[of_secret("2", "t", "other")]));
    // The same Secret, rotated: it is the same right.
    assert!(admitted(&access, "reg.io/a:1", &[of_secret("1", "s", "rotated")]));
    // Another Secret with the same login, and from then on that Secret whatever it says.
    assert!(admitted(&access, "reg.io/a:1", &[of_secret("3", "v", "rotated")]));
    assert!(admitted(&access, "reg.io/a:1", &[of_secret("3", "v", "new")]));
    // The same id under a name that nobody proved.
    assert!(!admitted(&access, "reg.io/b:1", &[of_secret("1", "s", "p")]));
    // A new daemon knows all of it.
    let restarted = preloaded(dir.path());
    assert!(admitted(&restarted, "reg.io/a:2", &[of_secret("1", "s", "x")]));
    assert!(!admitted(&restarted, "reg.io/a:2", &[]));
}

#[test]
fn img_77_img_79_preloaded_and_anonymous_images_are_everybodys() {
    let dir = tempfile::tempdir().unwrap();
    let access = preloaded(dir.path());
    assert!(admitted(&access, "reg.io/a:1", &[]));
    access.pulled("reg.io/a:1", "id", Some(&of_secret("1", "s", "p")));
    assert!(!admitted(&access, "reg.io/a:1", &[]));
    access.pulled("reg.io/a:1", "id", None);
    assert!(admitted(&access, "reg.io/a:1", &[]));
    let node = Credential { source: Source::NodeFile { path: "/x".into() }, ..of_secret("", "", "p") };
    access.pulled("reg.io/c:1", "id", Some(&node));
    assert!(admitted(&access, "reg.io/c:1", &[]));
}

#[test]
fn img_78_always_verify_lets_nobody_in_unproven() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        access(dir.path(), VerificationPolicy::AlwaysVerify).judge("a", "id"),
        Verdict::MustPull
    ));
    let never = access(dir.path(), VerificationPolicy::NeverVerify);
    never.pulled("a", "id", Some(&of_secret("1", "s", "p")));
    assert!(matches!(never.judge("a", "id"), Verdict::Accessible));
}

#[test]
fn img_81_records_have_upstreams_form_and_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let access = preloaded(dir.path());
    access.intend("reg.io/a:1").unwrap();
    let pulling = dir.path().join("image_manager/pulling");
    let file = std::fs::read_dir(&pulling).unwrap().next().unwrap().unwrap();
    let name = file.file_name().into_string().unwrap();
    assert!(name.starts_with("sha256-") && name.len() == 7 + 64, "{name}");
    let intent: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!((&intent["kind"], &intent["image"]), (&"ImagePullIntent".into(), &"reg.io/a:1".into()));
    access.pulled("reg.io/a:1", "id", Some(&of_secret("1", "s", "hunter2")));
    assert!(std::fs::read_dir(&pulling).unwrap().next().is_none());
    let file = std::fs::read_dir(dir.path().join("image_manager/pulled")).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(!text.contains("hunter2"));
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["kind"], "ImagePulledRecord");
    assert_eq!(record["imageRef"], "id");
    assert_eq!(record["credentialMapping"]["reg.io/a"]["kubernetesSecrets"][0]["name"], "s");
    // Images that are gone lose their record.
    access.prune(&["id".into()], Timestamp::MAX);
    assert!(!admitted(&access, "reg.io/a:1", &[]));
    access.prune(&[], Timestamp::MAX);
    assert!(admitted(&access, "reg.io/a:1", &[]));
}

#[test]
fn img_81_a_damaged_record_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let access = preloaded(dir.path());
    access.pulled("a", "id", None);
    let file = std::fs::read_dir(dir.path().join("image_manager/pulled")).unwrap().next().unwrap().unwrap();
    std::fs::write(file.path(), "{").unwrap();
    assert!(matches!(access.judge("a", "id"), Verdict::MustPull));
}

#[test]
fn img_81_without_a_record_the_pull_stays_on_the_books() {
    let dir = tempfile::tempdir().unwrap();
    let access = preloaded(dir.path());
    access.intend("reg.io/a:1").unwrap();
    // Nothing can be written there, as on a disk that the pull has filled.
    let pulled = dir.path().join("image_manager/pulled");
    std::fs::write(&pulled, "").unwrap();
    access.pulled("reg.io/a:1", "id", Some(&of_secret("1", "s", "p")));
    std::fs::remove_file(&pulled).unwrap();
    assert!(!admitted(&access, "reg.io/a:1", &[]));
    // Not even when the next pull brings nothing.
    access.intend("reg.io/a:1").unwrap();
    access.failed("reg.io/a:1");
    assert!(!admitted(&access, "reg.io/a:1", &[]));
    assert!(!admitted(&preloaded(dir.path()), "reg.io/a:1", &[]));
}

#[test]
fn img_81_a_record_of_the_moment_is_not_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let access = preloaded(dir.path());
    let began = Timestamp::now();
    access.pulled("reg.io/a:1", "id", Some(&of_secret("1", "s", "p")));
    // The images were listed before it was pulled.
    access.prune(&[], began);
    assert!(!admitted(&access, "reg.io/a:1", &[]));
}
