//! What a container finds: files, variables, names, users (ENV-*).

use sampan_cri::v1;

use super::{Check, Target, security};

pub async fn env_01_the_root_can_be_read_only(target: &Target) -> Check {
    let (pod, id) =
        target.sleeper("readonly", |_, container| security(container).readonly_rootfs = true).await?;
    let refused = target.exec(&id, &["probe", "write", "/file", "x"]).await?;
    assert_ne!(refused.exit_code, 0);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("Read-only file system"), "{message}");
    target.remove_pod(&pod).await
}

pub async fn env_01_writes_stay_in_the_container(target: &Target) -> Check {
    let (pod, id) = target.sleeper("writable", |_, _| {}).await?;
    target.output(&id, &["probe", "write", "/file", "mine"]).await?;
    assert_eq!(target.output(&id, &["cat", "/file"]).await?, "mine");
    let pod_config = target.pod("other");
    let other_pod = target.run_pod(&pod_config).await?;
    let other = target.run(&other_pod, target.container("main", &["sleep", "60"]), &pod_config).await?;
    assert_ne!(target.exec(&other, &["cat", "/file"]).await?.exit_code, 0);
    target.remove_pod(&other_pod).await?;
    target.remove_pod(&pod).await
}

pub async fn env_04_variables_of_the_pod_win(target: &Target) -> Check {
    let pair = |key: &str, value: &str| v1::KeyValue { key: key.to_owned(), value: value.to_owned() };
    let (pod, id) = target
        .sleeper("variables", |_, container| {
            container.envs = vec![pair("PATH", "/bin:/mine"), pair("A", "b=c d"), pair("EMPTY", "")];
        })
        .await?;
    let env = target.output(&id, &["env"]).await?;
    let lines: Vec<&str> = env.lines().collect();
    for wanted in ["PATH=/bin:/mine", "A=b=c d", "EMPTY=", "HOSTNAME=variables"] {
        assert!(lines.contains(&wanted), "{wanted} is not in {lines:?}");
    }
    target.remove_pod(&pod).await
}

pub async fn env_03_user_group_and_directory(target: &Target) -> Check {
    let (pod, id) = target
        .sleeper("user", |_, container| {
            container.working_dir = "/tmp".to_owned();
            let security = security(container);
            security.run_as_user = Some(v1::Int64Value { value: 1234 });
            security.run_as_group = Some(v1::Int64Value { value: 2345 });
            security.supplemental_groups = vec![3456];
        })
        .await?;
    let who = target.output(&id, &["id"]).await?;
    assert!(who.contains("uid=1234") && who.contains("gid=2345") && who.contains("3456"), "{who}");
    assert_eq!(target.output(&id, &["probe", "pwd"]).await?.trim(), "/tmp");
    let user = target.status(&id).await?.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid), (1234, 2345));
    assert!(user.supplemental_groups.contains(&3456));
    target.remove_pod(&pod).await
}

pub async fn env_06_the_hostname_is_the_pods(target: &Target) -> Check {
    let (pod, id) = target.sleeper("my-host", |_, _| {}).await?;
    assert_eq!(target.output(&id, &["hostname"]).await?.trim(), "my-host");
    assert_eq!(target.output(&id, &["cat", "/etc/hostname"]).await?.trim(), "my-host");
    target.remove_pod(&pod).await
}

pub async fn the_resolver_is_the_pods(target: &Target) -> Check {
    let (pod, id) = target
        .sleeper("resolver", |pod, _| {
            pod.dns_config = Some(v1::DnsConfig {
                servers: vec!["10.9.8.7".to_owned()],
                searches: vec!["a.example".to_owned()],
                options: vec!["ndots:5".to_owned()],
            });
        })
        .await?;
    let text = target.output(&id, &["cat", "/etc/resolv.conf"]).await?;
    assert_eq!(text, "search a.example\nnameserver 10.9.8.7\noptions ndots:5\n");
    target.remove_pod(&pod).await
}

pub async fn env_44_volumes_are_mounted(target: &Target) -> Check {
    let host = target.logs.join("volume");
    std::fs::create_dir_all(&host)?;
    std::fs::write(host.join("file"), "from the host")?;
    let missing = target.logs.join("made-when-missing");
    let mount = |path: &str, host: &std::path::Path, readonly: bool| v1::Mount {
        container_path: path.to_owned(),
        host_path: host.display().to_string(),
        readonly,
        ..Default::default()
    };
    let (pod, id) = target
        .sleeper("volumes", |_, container| {
            container.mounts = vec![
                mount("/volume/nested", &missing, false),
                mount("/volume", &host, false),
                mount("/readonly", &host, true),
                mount("/etc/hosts", &host.join("file"), false),
            ];
        })
        .await?;
    assert_eq!(target.output(&id, &["cat", "/volume/file"]).await?, "from the host");
    assert_eq!(target.output(&id, &["cat", "/etc/hosts"]).await?, "from the host");
    target.output(&id, &["probe", "write", "/volume/new", "from inside"]).await?;
    assert_eq!(std::fs::read_to_string(host.join("new"))?, "from inside");
    target.output(&id, &["probe", "write", "/volume/nested/x", "x"]).await?;
    assert!(missing.join("x").exists());
    assert_ne!(target.exec(&id, &["probe", "write", "/readonly/new", "x"]).await?.exit_code, 0);
    assert_eq!(target.status(&id).await?.mounts.len(), 4);
    target.remove_pod(&pod).await
}

pub async fn containers_of_a_pod_share_memory_and_network(target: &Target) -> Check {
    let config = target.pod("shared");
    let pod = target.run_pod(&config).await?;
    let first = target.run(&pod, target.container("one", &["sleep", "60"]), &config).await?;
    let second = target.run(&pod, target.container("two", &["sleep", "60"]), &config).await?;
    target.output(&first, &["probe", "write", "/dev/shm/note", "hello"]).await?;
    assert_eq!(target.output(&second, &["cat", "/dev/shm/note"]).await?, "hello");
    let interfaces = |text: String| text.lines().count();
    assert_eq!(
        interfaces(target.output(&first, &["cat", "/proc/net/dev"]).await?),
        interfaces(target.output(&second, &["cat", "/proc/net/dev"]).await?)
    );
    target.remove_pod(&pod).await
}

pub async fn a_pod_can_share_its_pid_namespace(target: &Target) -> Check {
    let mut config = target.pod("pids");
    let pod_pid = v1::NamespaceOption::default();
    let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.namespace_options = Some(pod_pid.clone());
    let pod = target.run_pod(&config).await?;
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let mut container = target.container(name, &["sleep", "600"]);
        security(&mut container).namespace_options = Some(pod_pid.clone());
        ids.push(target.run(&pod, container, &config).await?);
    }
    let seen = target.output(&ids[0], &["ls", "/proc"]).await?;
    let pids = seen.split_whitespace().filter(|name| name.parse::<u32>().is_ok()).count();
    // The pause process, two sleeps and ls itself.
    assert!(pids >= 4, "{seen}");
    assert!(!target.output(&ids[1], &["cat", "/proc/1/cmdline"]).await?.contains("sleep"));
    target.remove_pod(&pod).await
}

pub async fn env_12_a_pod_in_the_hosts_network(target: &Target) -> Check {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let node = v1::NamespaceOption {
        network: v1::NamespaceMode::Node.into(),
        pid: v1::NamespaceMode::Container.into(),
        ..Default::default()
    };
    let (pod, id) = target
        .sleeper("host-network", |pod, container| {
            pod.hostname = String::new();
            pod.linux.get_or_insert_default().security_context.get_or_insert_default().namespace_options =
                Some(node.clone());
            security(container).namespace_options = Some(node.clone());
        })
        .await?;
    assert_eq!(target.output(&id, &["hostname"]).await?, host);
    let count = |text: &str| text.lines().count();
    let seen = target.output(&id, &["cat", "/proc/net/dev"]).await?;
    assert!(count(&seen) >= count("head\nhead\nlo"), "{seen}");
    assert_eq!(target.pod_status(&pod).await?.network.unwrap().ip, "");
    target.remove_pod(&pod).await
}

pub async fn sysctls_are_the_pods(target: &Target) -> Check {
    let (pod, id) = target
        .sleeper("sysctls", |pod, _| {
            pod.linux.get_or_insert_default().sysctls = super::labels(&[
                ("kernel.shm_rmid_forced", "1"),
                ("net.ipv4.ip_local_port_range", "20000 30000"),
            ]);
        })
        .await?;
    assert_eq!(target.output(&id, &["cat", "/proc/sys/kernel/shm_rmid_forced"]).await?.trim(), "1");
    let range = target.output(&id, &["cat", "/proc/sys/net/ipv4/ip_local_port_range"]).await?;
    assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["20000", "30000"]);
    target.remove_pod(&pod).await
}

pub async fn an_image_can_be_a_volume(target: &Target) -> Check {
    let mount = |sub: &str| v1::Mount {
        container_path: "/image".to_owned(),
        image: Some(v1::ImageSpec { image: target.image.clone(), ..Default::default() }),
        image_sub_path: sub.to_owned(),
        ..Default::default()
    };
    let (pod, id) = target.sleeper("image-volume", |_, container| container.mounts = vec![mount("")]).await?;
    assert!(target.output(&id, &["ls", "/image/bin"]).await?.contains("sleep"));
    assert_ne!(target.exec(&id, &["probe", "write", "/image/x", "x"]).await?.exit_code, 0);
    target.remove_pod(&pod).await?;
    let (pod, id) = target.sleeper("sub-path", |_, container| container.mounts = vec![mount("bin")]).await?;
    assert!(target.output(&id, &["ls", "/image"]).await?.contains("sleep"));
    let mut missing = target.container("missing", &["true"]);
    missing.mounts = vec![mount("no/such/directory")];
    assert!(target.create(&pod, missing, &target.pod("sub-path")).await.is_err());
    target.remove_pod(&pod).await
}

pub async fn an_ephemeral_container_sees_its_target(target: &Target) -> Check {
    let (pod, id) = target.sleeper("target", |_, _| {}).await?;
    let mut debugger = target.container("debugger", &["sleep", "60"]);
    security(&mut debugger).namespace_options = Some(v1::NamespaceOption {
        pid: v1::NamespaceMode::Target.into(),
        target_id: id.clone(),
        ..Default::default()
    });
    let config = target.pod("target");
    let debugger = target.run(&pod, debugger, &config).await?;
    assert!(target.output(&debugger, &["cat", "/proc/1/cmdline"]).await?.contains("3600"));
    let mut lost = target.container("lost", &["true"]);
    security(&mut lost).namespace_options = Some(v1::NamespaceOption {
        pid: v1::NamespaceMode::Target.into(),
        target_id: "no-such-container".to_owned(),
        ..Default::default()
    });
    assert!(target.create(&pod, lost, &config).await.is_err());
    target.remove_pod(&pod).await
}

pub async fn host_ports_lead_into_the_pod(target: &Target) -> Check {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?;
        free.local_addr()?.port()
    };
    let (pod, _) = target
        .sleeper("host-port", |pod, container| {
            pod.port_mappings = vec![v1::PortMapping {
                protocol: v1::Protocol::Tcp.into(),
                container_port: 8080,
                host_port: i32::from(port),
                host_ip: String::new(),
            }];
            container.command = ["httpd", "-p", "8080", "-h", "/etc"].map(str::to_owned).to_vec();
        })
        .await?;
    let ip = target.pod_status(&pod).await?.network.unwrap().ip;
    for address in [format!("{ip}:8080"), format!("127.0.0.1:{port}")] {
        let mut connected = tokio::net::TcpStream::connect(&address).await;
        for _ in 0..50 {
            if connected.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            connected = tokio::net::TcpStream::connect(&address).await;
        }
        assert!(connected.is_ok(), "{address}: {connected:?}");
    }
    // Another pod cannot have the same port.
    let mut clash = target.pod("clash");
    clash.port_mappings =
        vec![v1::PortMapping { host_port: i32::from(port), container_port: 1, ..Default::default() }];
    assert!(target.run_pod(&clash).await.is_err());
    target.remove_pod(&pod).await
}
