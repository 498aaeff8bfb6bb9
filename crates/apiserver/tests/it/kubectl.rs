//! The daily commands of the real kubectl, over HTTPS.

use std::path::Path;

use tokio::io::AsyncWriteExt;

use crate::harness::Api;
use crate::https::Door;

const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: x}}
data: {k: v}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: x}}
spec:
  containers:
  - {name: c, image: sampan.local/toolbox, args: [sleep, '1000']}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: x}, ports: [{port: 80}]}
";

struct Kubectl<'a> {
    home: &'a Path,
}

impl Kubectl<'_> {
    async fn run(&self, arguments: &str, input: &str) -> (bool, String) {
        let mut child = tokio::process::Command::new("kubectl")
            .env("KUBECONFIG", self.home.join("config"))
            .env("HOME", self.home)
            .args(arguments.split(' '))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    async fn ok(&self, arguments: &str) -> String {
        let (success, text) = self.run(arguments, "").await;
        assert!(success, "kubectl {arguments}: {text}");
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_as_every_day() {
    if !Path::new("/usr/bin/kubectl").exists() {
        println!("kubectl is not installed: nothing tried");
        return;
    }
    let api = Api::start().await;
    let door = Door::open(&api).await;
    let home = tempfile::tempdir().unwrap();
    let url = format!("https://{}", door.address);
    std::fs::write(home.path().join("config"), api.server.config.pki.admin_kubeconfig(&url)).unwrap();
    let kubectl = Kubectl { home: home.path() };

    let (success, text) = kubectl.run("apply -f -", MANIFEST).await;
    assert!(success, "{text}");
    assert_eq!(text, "configmap/settings created\npod/web created\nservice/web created\n");
    let (_, text) = kubectl.run("apply -f -", MANIFEST).await;
    assert_eq!(text, "configmap/settings unchanged\npod/web unchanged\nservice/web unchanged\n");
    let (_, text) = kubectl.run("apply -f -", &MANIFEST.replace("k: v", "k: w")).await;
    assert!(text.starts_with("configmap/settings configured\n"), "{text}");
    assert_eq!(kubectl.ok("get cm settings -o jsonpath={.data.k}").await, "w");

    let table = kubectl.ok("get pods -o wide").await;
    let head: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head[..5], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"], "{table}");
    assert!(table.contains("web") && table.contains("0/1") && table.contains("Pending"), "{table}");
    assert_eq!(kubectl.ok("get pods -l app=x -o name").await, "pod/web\n");
    assert!(kubectl.ok("get pod web -o yaml").await.contains("kind: Pod"));
    assert_eq!(kubectl.ok("label pod web tier=a").await, "pod/web labeled\n");
    assert_eq!(kubectl.ok("annotate pod web note=a").await, "pod/web annotated\n");
    assert!(kubectl.ok("describe pod web").await.contains("Service Account:  default"));
    assert!(kubectl.ok("describe service web").await.contains("10.43."));
    assert!(kubectl.ok("get all").await.contains("service/kubernetes"));
    assert_eq!(
        kubectl.ok("wait --for=jsonpath={.status.phase}=Pending pod/web --timeout=5s").await,
        "pod/web condition met\n"
    );
    for (kind, body) in [
        ("json", r#"[{"op":"remove","path":"/data/k"}]"#),
        ("merge", r#"{"data":{"a":"b"}}"#),
        ("strategic", r#"{"data":{"c":"d"}}"#),
    ] {
        let text = kubectl.ok(&format!("patch cm settings --type={kind} -p {body}")).await;
        assert_eq!(text, "configmap/settings patched\n");
    }
    let created = kubectl.ok("create deployment d --image=i --replicas=2").await;
    assert!(created.contains("deployment.apps/d created\n"), "{created}");
    assert!(created.contains("Warning: sampan stores deployments.apps, but nothing acts"), "{created}");
    assert_eq!(kubectl.ok("scale deployment d --replicas=3").await, "deployment.apps/d scaled\n");
    assert_eq!(kubectl.ok("get deploy d -o jsonpath={.spec.replicas}").await, "3");
    assert_eq!(kubectl.ok("create secret generic s --from-literal=a=b").await, "secret/s created\n");
    assert_eq!(kubectl.ok("create namespace n").await, "namespace/n created\n");
    assert!(kubectl.ok("get events").await.contains("No resources found"));
    let (success, text) = kubectl.run("apply --server-side -f -", MANIFEST).await;
    assert!(!success && text.contains("server-side apply is not supported yet"), "{text}");
    let (success, text) = kubectl
        .run("create -f -", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\nunknown: 1\n")
        .await;
    assert!(!success && text.contains("strict decoding error: unknown field \"unknown\""), "{text}");
    let (success, text) = kubectl.run("get pod none", "").await;
    assert_eq!((success, text.as_str()), (false, "Error from server (NotFound): pods \"none\" not found\n"));
    api.post("/api/v1/nodes", serde_json::json!({"metadata": {"name": "n"}})).await.expect(201);
    api.pod("bound", Some("n")).await;
    assert_eq!(kubectl.ok("cordon n").await, "node/n cordoned\n");
    let drained = kubectl.ok("drain n --force --grace-period=0 --timeout=20s").await;
    assert!(
        drained.contains("evicting pod default/bound") && drained.contains("node/n drained"),
        "{drained}"
    );
    assert!(kubectl.ok("delete pod web --wait=true").await.starts_with("pod \"web\" deleted"));
    assert!(kubectl.ok("delete cm,svc,deploy -l app=x").await.contains("configmap \"settings\" deleted"));
    door.close().await;
}
