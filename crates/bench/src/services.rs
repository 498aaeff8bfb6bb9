//! Services: from a pod's readiness to the first connection, through a Service against the pod itself, and what a
//! thousand Services cost.

mod wire;

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    path::PathBuf,
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
const CONNECTIONS: usize = 2000;
/// Transfers per figure and way.
const TRANSFERS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);

/// All figures of Services.
pub(crate) async fn measure(node: &Node, client: &Client, rounds: usize, report: &mut Report) -> Result<()> {
    let mut first = Vec::new();
    for round in 0..rounds * 2 {
        first.push(first_connection(client, round).await?);
    }
    report.figure("pod Ready to first connection through its Service", "p99 <= 100 ms", first);

    let kept = server(client, "kept").await?;
    let caller = server(client, "caller").await?;
    wire::serve(&kept.namespace)?;
    let service_ip = service(client, "kept", wire::PORT).await?;
    reach(SocketAddrV4::new(service_ip, 80).into()).await?;
    let ways =
        Ways { pod: SocketAddrV4::new(kept.ip, wire::PORT), service: SocketAddrV4::new(service_ip, 80) };
    ways.compare(&caller, "1 Service", report)?;
    ways.transfer(&caller, report)?;

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
    ways.compare(&caller, "1,000 Services", report)?;
    report.size("daemon PSS, 1,000 Services more", "", memory::pss(node.pid())?.saturating_sub(before));
    pods::delete(client, &[kept.name, caller.name]).await?;
    report.figure("all rules of 1,000 Services written anew", "", resync().await?);
    Ok(())
}

/// From the Ready condition, as a client sees it, to a connection through the Service.
async fn first_connection(client: &Client, round: usize) -> Result<Duration> {
    let name = format!("first-{round}");
    let ip = service(client, &name, 8080).await?;
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
    let pod = server(client, &name).await?;
    let ready = Instant::now();
    let connected = connecting.await?;
    pods::delete(client, &[pod.name]).await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    services.delete(&name, &DeleteParams::default()).await?;
    Ok(connected.saturating_duration_since(ready))
}

/// A pod with a web server that is Ready.
struct Server {
    name: String,
    ip: Ipv4Addr,
    namespace: PathBuf,
}

async fn server(client: &Client, name: &str) -> Result<Server> {
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
    let pod = pod.context("the pod is gone")?;
    let ip = pod.status.and_then(|status| status.pod_ip).context("the pod has no address")?;
    let namespace = wire::namespace(pod.metadata.uid.as_deref().context("the pod has no uid")?)?;
    Ok(Server { name: name.to_owned(), ip: ip.parse()?, namespace })
}

async fn service(client: &Client, name: &str, target: u16) -> Result<Ipv4Addr> {
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let service = json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": target}]},
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

/// The same server, by its pod's address and by its Service's.
struct Ways {
    pod: SocketAddrV4,
    service: SocketAddrV4,
}

impl Ways {
    /// Connections from another pod and from the machine. Beside the ratio stands that of the pod to itself, which is what the
    /// method makes of nothing.
    fn compare(&self, caller: &Server, services: &str, report: &mut Report) -> Result<()> {
        for (from, namespace) in [("a pod", Some(&caller.namespace)), ("the machine", None)] {
            let [direct, through, again] =
                wire::within(namespace, || wire::connect([self.pod, self.service, self.pod], CONNECTIONS))?;
            report.ratio(
                &format!("connection from {from}, Service / pod, {services} (<= 1.05)"),
                &through,
                &direct,
            );
            report.ratio("pod / the same pod, in the same run (noise)", &again, &direct);
            report.figure(&format!("connection from {from} to a pod"), "", direct);
            report.figure("the same through its Service", "", through);
        }
        Ok(())
    }

    /// Bytes from one pod to another.
    fn transfer(&self, caller: &Server, report: &mut Report) -> Result<()> {
        let receive = || wire::receive([self.pod, self.service], TRANSFERS);
        let [direct, through] = wire::within(Some(&caller.namespace), receive)?;
        report.rate("megabytes from pod to pod", wire::rates(&direct));
        report.rate("megabytes from pod to pod through its Service", wire::rates(&through));
        report.ratio("time of a transfer, Service / pod (<= 1.05)", &through, &direct);
        Ok(())
    }
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
