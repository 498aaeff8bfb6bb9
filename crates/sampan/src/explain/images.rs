//! Images that cannot be had: names, credentials, registries.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::{Finding, SecretFact, Story};

/// What a registry's answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It wants to know who asks, or does not let this one in.
    Denied,
    /// It has no such image or tag.
    NotFound,
    /// Its certificate is not trusted.
    Certificate,
    /// Nobody answers under that name.
    Unreachable,
    /// Too many pulls.
    RateLimit,
    /// No image for this machine.
    Platform,
    /// The node's disk.
    DiskFull,
    Other,
}

impl Cause {
    fn of(message: &str) -> Self {
        let message = message.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        // The order matters: a denial often comes with "not found, or requires login".
        match () {
            () if has(&["no space left", "disk is full", "resourceexhausted"]) => Self::DiskFull,
            () if has(&["x509", "certificate", "tls:"]) => Self::Certificate,
            () if has(&["429", "toomanyrequests", "rate limit"]) => Self::RateLimit,
            () if has(&["401", "403", "unauthorized", "denied", "authentication required", "forbidden"]) => {
                Self::Denied
            }
            () if has(&["no match for platform", "no image for platform", "no matching manifest"]) => {
                Self::Platform
            }
            () if has(&["404", "not found", "manifest unknown", "name unknown"]) => Self::NotFound,
            () if has(&[
                "registryunavailable",
                "registry is unavailable",
                "connection refused",
                "no such host",
            ]) || has(&["timed out", "timeout", "unreachable", "cannot resolve", "dns"]) =>
            {
                Self::Unreachable
            }
            () => Self::Other,
        }
    }
}

pub(super) fn finding(story: &Story, kind: &str, status: &ContainerStatus) -> Option<Finding> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    let (name, image) = (&status.name, &status.image);
    let who = format!("{kind} {name}");
    Some(match waiting.reason.as_deref().unwrap_or_default() {
        "InvalidImageName" => Finding::new(format!("{who}: {image:?} is no image name (InvalidImageName)"))
            .detail(message)
            .fix("a name is [HOST[:PORT]/]PATH[:TAG][@DIGEST] in lower case, such as reg.example.com:5000/team/app:1.2")
            .fix(set_image(story, name)),
        "ErrImageNeverPull" => {
            Finding::new(format!("{who}: image {image} is not on the node, and imagePullPolicy Never forbids a pull"))
                .detail("a private image that another pod pulled does not count: this pod must have its Secret, too")
                .fix(format!("on the node: sampan image load ARCHIVE, or sampan image pull {image}; the pod then starts by itself"))
                .fix("or set imagePullPolicy: IfNotPresent")
        }
        "ImageInspectError" => Finding::new(format!("{who}: the node cannot look at its images (ImageInspectError)"))
            .detail(message)
            .fix("look at the container runtime on the node: `sampan doctor`, its log, its disk"),
        "SignatureValidationFailed" => Finding::new(format!("{who}: the signature of {image} is not accepted"))
            .detail(message)
            .fix("use an image signed by whom the node's policy trusts"),
        reason @ ("ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable") => {
            let finding = Finding::new(format!("{who}: image {image} cannot be pulled ({reason})")).detail(message);
            pull_advice(story, name, image, Cause::of(message), finding)
        }
        _ if message.starts_with("Pulling image") || message.starts_with("Waiting to pull") => {
            Finding::new(format!("{who}: {}", lower_first(message))).fix("nothing: it starts when the image is here")
        }
        _ => return None,
    })
}

fn pull_advice(story: &Story, container: &str, image: &str, cause: Cause, finding: Finding) -> Finding {
    let registry = registry_of(image);
    match cause {
        Cause::Denied => credentials(story, &registry, finding),
        Cause::NotFound => finding
            .fix(format!("the registry answers but does not have this name or tag: check {image} for a typo"))
            .fix("some registries answer the same when credentials are missing")
            .fix(set_image(story, container)),
        Cause::Certificate => finding
            .fix(format!("give the node the registry's CA: put it at /etc/sampan/certs.d/{registry}/ca.crt"))
            .fix(format!("and name it in /etc/sampan/certs.d/{registry}/hosts.toml (docs/images.md); it is read at once")),
        Cause::Unreachable => finding
            .fix(format!("from the node: curl -v https://{registry}/v2/"))
            .fix("check the name, DNS, proxies and firewalls of the node; attempts go on by themselves"),
        Cause::RateLimit => finding
            .fix("the registry limits pulls: log in (an imagePullSecret raises the limit), or use a mirror (hosts.toml)")
            .fix("attempts go on by themselves, up to five minutes apart"),
        Cause::Platform => finding
            .fix("the image was not built for this machine's architecture: build it for several platforms, or use another tag"),
        Cause::DiskFull => finding
            .fix("the node's disk is full: sampan image prune removes what no container uses"),
        Cause::Other => finding
            .fix(format!("try it on the node: sampan image pull {image}")),
    }
}

/// What about the pod's Secrets is wrong.
fn credentials(story: &Story, registry: &str, mut finding: Finding) -> Finding {
    let namespace = story.namespace();
    let mut usable = Vec::new();
    for (name, fact) in &story.pull_secrets {
        let secret = format!("Secret {namespace}/{name}");
        match fact {
            SecretFact::Missing => {
                finding = finding.detail(format!("{secret}, which the pod names, does not exist"))
            }
            SecretFact::Unknown => {}
            SecretFact::Present { kind, .. } if !kind.starts_with("kubernetes.io/docker") => {
                finding = finding
                    .detail(format!("{secret} has type {kind}: only kubernetes.io/dockerconfigjson is used"));
            }
            SecretFact::Present { registries, .. }
                if registries.iter().any(|known| known.contains(registry)) =>
            {
                usable.push(name.clone());
            }
            SecretFact::Present { registries, .. } => {
                finding =
                    finding.detail(format!("{secret} is for {}, not for {registry}", registries.join(", ")));
            }
        }
    }
    if let Some(name) = usable.first() {
        return finding.fix(format!(
            "the registry refuses what Secret {namespace}/{name} says: renew it; the pod tries again at once"
        )).fix(format!(
            "kubectl -n {namespace} create secret docker-registry {name} --docker-server={registry} --docker-username=USER --docker-password=PASSWORD --dry-run=client -o yaml | kubectl apply -f -"
        ));
    }
    let named = story
        .pull_secrets
        .iter()
        .find(|(_, fact)| **fact == SecretFact::Missing)
        .map(|(name, _)| name.clone());
    let name = named.clone().unwrap_or_else(|| "registry".to_owned());
    finding = finding.fix(format!(
        "kubectl -n {namespace} create secret docker-registry {name} --docker-server={registry} --docker-username=USER --docker-password=PASSWORD"
    ));
    match named {
        Some(_) => finding.fix("the pod tries again as soon as the Secret is there"),
        None => finding
            .fix(format!("and name it in the pod: spec.imagePullSecrets: [{{name: {name}}}]"))
            .fix(format!(
                "or for all new pods of the account: kubectl -n {namespace} patch serviceaccount {} -p '{{\"imagePullSecrets\":[{{\"name\":\"{name}\"}}]}}'",
                story.spec().service_account_name.as_deref().unwrap_or("default")
            )),
    }
}

fn registry_of(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => "docker.io".to_owned(),
    }
}

fn set_image(story: &Story, container: &str) -> String {
    let owner =
        story.pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let namespace = story.namespace();
    match owner {
        Some(owner) if owner.kind == "ReplicaSet" => {
            let deployment = owner.name.rsplit_once('-').map_or(owner.name.as_str(), |(name, _)| name);
            format!("kubectl -n {namespace} set image deployment/{deployment} {container}=NEW_NAME")
        }
        Some(owner) => format!("change the image in {} {}", owner.kind, owner.name),
        None => format!("kubectl -n {namespace} set image pod/{} {container}=NEW_NAME", story.name()),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
