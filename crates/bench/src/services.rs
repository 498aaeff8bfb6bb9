//! Services: from a pod's readiness to the first connection, through a Service against the pod itself, and what a
//! thousand Services cost. Everything is measured from the machine, so that no other container is in the way.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use sampan_network::{Protocol, RuleTable, RuleTableConfig, ServicePort, TrafficPolicy};
use serde_json::json;

use crate::{memory, node::Node, pods, report::Report};

const SERVICES: usize = 1000;
const ENDPOINTS: u8 = 10;
/// Connections per figure and way.
const CONNECTIONS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

/// All figures of Services.
pub(crate) async fn measure(node: &Node, client: &Client, rounds: usize, report: &mut Report) -> Result<()> {
    let mut first = Vec::new();
    for round in 0..rounds * 2 {
        first.push(first_connection(client, round).await?);
    }
    report.figure("pod Ready to first connection through its Service", "p99 <= 100 ms", first);

    let (name, pod_ip) = server(client, "kept").await?;
    let service_ip = service(client, "kept").await?;
    reach(SocketAddrV4::new(service_ip, 80).into()).await?;
    let few = compare(pod_ip, service_ip);
    report.figure("connection to the pod", "", few.0.clone());
    report.figure("the same through its Service, 1 Service", "", few.1.clone());
    report.ratio("Service / pod, 1 Service (<= 1.05)", &few.1, &few.0);

    let before = memory::pss(node.pid())?;
    let started = Instant::now();
    many(client).await?;
    report.figure("1,000 Services with 10 endpoints each created", "", vec![started.elapsed()]);
    let last: Api<Service> = Api::default_namespaced(client.clone());
    let last = last.get(&format!("many-{}", SERVICES - 1)).await?;
    let last = cluster_ip(&last)?;
    // The rules of the last one are there when it no longer refuses: its endpoints do not exist.
    let started = Instant::now();
    while started.elapsed() < PATIENCE && refuses(SocketAddrV4::new(last, 80).into()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    report.figure("and after the last of them, all in force", "", vec![started.elapsed()]);
    let many = compare(pod_ip, service_ip);
    report.figure("connection through a Service, 1,000 Services", "", many.1.clone());
    report.ratio("Service / pod, 1,000 Services (<= 1.05)", &many.1, &many.0);
    report.size("daemon PSS, 1,000 Services more", "", memory::pss(node.pid())?.saturating_sub(before));
    pods::delete(client, &[name]).await?;
    report.figure("all rules of 1,000 Services written anew", "", resync().await?);
    Ok(())
}

/// From the Ready condition, as a client sees it, to a connection through the Service.
async fn first_connection(client: &Client, round: usize) -> Result<Duration> {
    let name = format!("first-{round}");
    let ip = service(client, &name).await?;
    let connecting = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        while refuses(SocketAddrV4::new(ip, 80).into()) {
            if started.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Instant::now()
    });
    let (pod, _) = server(client, &name).await?;
    let ready = Instant::now();
    let connected = connecting.await?;
    pods::delete(client, &[pod]).await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    services.delete(&name, &DeleteParams::default()).await?;
    Ok(connected.saturating_duration_since(ready))
}

/// A web server that is Ready, and its address.
async fn server(client: &Client, name: &str) -> Result<(String, Ipv4Addr)> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": "sampan.local/toolbox", "imagePullPolicy": "IfNotPresent",
            "command": ["httpd", "-p", "8080"],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}]},
    });
    api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let is_ready = |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    let waiting = kube::runtime::wait::await_condition(api, name, is_ready);
    let pod = tokio::time::timeout(PATIENCE, waiting).await.context("the pod does not get Ready")??;
    let ip = pod.and_then(|pod| pod.status?.pod_ip).context("the pod has no address")?;
    Ok((name.to_owned(), ip.parse()?))
}

async fn service(client: &Client, name: &str) -> Result<Ipv4Addr> {
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let service = json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let made = api.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    cluster_ip(&made)
}

fn cluster_ip(service: &Service) -> Result<Ipv4Addr> {
    let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    Ok(ip.context("the Service has no address")?.parse()?)
}

/// A thousand Services without selectors, and slices for them.
async fn many(client: &Client) -> Result<()> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let create = |number: usize| {
        let (services, slices) = (services.clone(), slices.clone());
        async move {
            let name = format!("many-{number}");
            let service =
                json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
            services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
            let endpoints = (1..=ENDPOINTS).map(
                |last| json!({"addresses": [format!("198.51.100.{last}")], "conditions": {"ready": true}}),
            );
            let slice = json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": endpoints.collect::<Vec<_>>(),
            });
            slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
            anyhow::Ok(())
        }
    };
    stream::iter((0..SERVICES).map(create)).buffered(16).try_collect::<()>().await
}

/// Connections to the pod and through the Service, one after the other.
fn compare(pod: Ipv4Addr, service: Ipv4Addr) -> (Vec<Duration>, Vec<Duration>) {
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        for (ip, port, times) in [(pod, 8080, &mut direct), (service, 80, &mut through)] {
            let started = Instant::now();
            let connected = TcpStream::connect(SocketAddrV4::new(ip, port));
            if connected.is_ok() {
                times.push(started.elapsed());
            }
        }
    }
    (direct, through)
}

fn refuses(to: SocketAddr) -> bool {
    let connected = TcpStream::connect_timeout(&to, Duration::from_millis(50));
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

async fn reach(to: SocketAddr) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect_timeout(&to, Duration::from_millis(50)).is_err() {
        if started.elapsed() > PATIENCE {
            bail!("{to} cannot be reached");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A table of its own, replaced as a whole.
async fn resync() -> Result<Vec<Duration>> {
    let table = RuleTable::open(
        RuleTableConfig {
            name: "sampan-bench-t".to_owned(),
            bridge: None,
            pod_cidr: "10.205.0.0/16".parse()?,
            cluster_cidr: "10.205.0.0/16".parse()?,
            service_cidr: "10.206.0.0/16".parse()?,
            pods_bypass_host: false,
        },
        Default::default(),
    )
    .await?;
    let range: sampan_network::Ipv4Cidr = "10.206.0.0/16".parse()?;
    let services: Vec<ServicePort> = (1..=u32::try_from(SERVICES)?)
        .map(|number| ServicePort {
            name: format!("default/many-{number}/tcp/"),
            protocol: Protocol::Tcp,
            port: 80,
            cluster_ips: vec![range.nth(number)],
            external_ips: Vec::new(),
            node_port: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            affinity: None,
            endpoints: (1..=ENDPOINTS)
                .map(|last| SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, last), 8080))
                .collect(),
            local_endpoints: Vec::new(),
        })
        .collect();
    let mut times = Vec::new();
    for _ in 0..9 {
        let started = Instant::now();
        table.replace_services(services.clone()).await?;
        times.push(started.elapsed());
    }
    table.remove().await?;
    Ok(times)
}
