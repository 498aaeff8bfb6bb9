//! A container runtime that accepts calls and never answers them.

use std::time::Duration;

use sampan_kubelet::KubeletConfiguration;
use sampan_kubelet::cri::{ContainerRuntime, CriRuntime, go_error};
use tokio::net::UnixListener;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_runtime_that_hangs_is_given_up() {
    let dir = tempfile::Builder::new().prefix("smpt-deadlines-").tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    let client = sampan_cri::client::connect_lazy(&format!("unix://{}", socket.display())).unwrap();
    let runtime = CriRuntime::new(client.clone(), None);
    let start = Instant::now();
    let error = runtime.version().await.unwrap_err();
    assert_eq!(
        go_error(&error),
        "rpc error: code = DeadlineExceeded desc = context deadline exceeded: the container runtime has not answered \
         Version for 120 s"
    );
    assert_eq!(start.elapsed().as_secs(), 120);
    let error = runtime.run_pod_sandbox(Default::default(), String::new()).await.unwrap_err();
    assert!(error.message().ends_with("RunPodSandbox for 240 s"), "{error}");
    let error = runtime.stop_container("c", 30).await.unwrap_err();
    assert!(error.message().ends_with("StopContainer for 150 s"), "{error}");
    let error = runtime.exec_sync("c", vec!["true".to_owned()], 5).await.unwrap_err();
    assert!(error.message().ends_with("ExecSync for 125 s"), "{error}");
    // `runtimeRequestTimeout` of the configuration; zero is the default.
    let configured = |text: &str| {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration";
        let file = KubeletConfiguration::parse(&format!("{head}\nruntimeRequestTimeout: {text}\n")).unwrap();
        assert_eq!(file.warnings(), [""; 0]);
        CriRuntime::new(client.clone(), file.runtime_request_timeout())
    };
    let (short, default) = (configured("1500ms"), configured("0s"));
    let start = Instant::now();
    let error = short.version().await.unwrap_err();
    assert!(error.message().ends_with("Version for 1.5 s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let error = short.stop_container("c", 30).await.unwrap_err();
    assert!(error.message().ends_with("StopContainer for 31.5 s"), "{error}");
    let error = default.version().await.unwrap_err();
    assert!(error.message().ends_with("Version for 120 s"), "{error}");
}
