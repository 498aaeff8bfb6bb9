//! What a container may do: capabilities, system calls, hidden paths, limits.

use sampan_cri::v1::{self, security_profile::ProfileType};

use super::{Check, Target, security};

/// A line of /proc/self/status.
async fn status_line(target: &Target, id: &str, name: &str) -> Result<String, tonic::Status> {
    let status = target.output(id, &["cat", "/proc/self/status"]).await?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    Ok(line.unwrap_or_default().to_owned())
}

fn seccomp(kind: ProfileType) -> Option<v1::SecurityProfile> {
    Some(v1::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() })
}

pub async fn capabilities_are_the_default_set(target: &Target) -> Check {
    let (pod, id) = target.sleeper("capabilities", |_, _| {}).await?;
    assert_eq!(status_line(target, &id, "CapBnd").await?, "00000000a80425fb");
    target.remove_pod(&pod).await?;
    let only = v1::Capability {
        add_capabilities: vec!["NET_ADMIN".to_owned()],
        drop_capabilities: vec!["ALL".to_owned()],
        ..Default::default()
    };
    let (pod, id) =
        target.sleeper("one", |_, container| security(container).capabilities = Some(only)).await?;
    assert_eq!(status_line(target, &id, "CapEff").await?, "0000000000001000");
    target.remove_pod(&pod).await
}

pub async fn no_new_privileges_and_seccomp(target: &Target) -> Check {
    let (pod, id) = target
        .sleeper("confined", |_, container| {
            security(container).no_new_privs = true;
            security(container).seccomp = seccomp(ProfileType::RuntimeDefault);
        })
        .await?;
    assert_eq!(status_line(target, &id, "NoNewPrivs").await?, "1");
    assert_eq!(status_line(target, &id, "Seccomp").await?, "2");
    assert_eq!(target.output(&id, &["probe", "unshare"]).await?.trim(), "refused");
    target.remove_pod(&pod).await?;
    let (pod, id) = target
        .sleeper("unconfined", |_, container| security(container).seccomp = seccomp(ProfileType::Unconfined))
        .await?;
    assert_eq!(status_line(target, &id, "Seccomp").await?, "0");
    target.remove_pod(&pod).await
}

pub async fn a_profile_of_the_node_is_loaded(target: &Target) -> Check {
    let file = target.logs.join("profile.json");
    std::fs::create_dir_all(&target.logs)?;
    std::fs::write(
        &file,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )?;
    let profile = v1::SecurityProfile {
        profile_type: ProfileType::Localhost.into(),
        localhost_ref: file.display().to_string(),
    };
    let (pod, id) =
        target.sleeper("localhost", |_, container| security(container).seccomp = Some(profile)).await?;
    assert_ne!(target.exec(&id, &["mkdir", "/tmp/x"]).await?.exit_code, 0);
    target.remove_pod(&pod).await
}

pub async fn paths_are_hidden_and_protected(target: &Target) -> Check {
    let (pod, id) = target
        .sleeper("paths", |_, container| {
            security(container).masked_paths =
                vec!["/proc/timer_list".to_owned(), "/sys/firmware".to_owned()];
            security(container).readonly_paths = vec!["/proc/sys".to_owned()];
        })
        .await?;
    assert_eq!(target.output(&id, &["cat", "/proc/timer_list"]).await?, "");
    assert_eq!(target.output(&id, &["ls", "/sys/firmware"]).await?, "");
    assert_ne!(target.exec(&id, &["probe", "write", "/proc/sys/kernel/domainname", "x"]).await?.exit_code, 0);
    target.remove_pod(&pod).await
}

pub async fn privileged_needs_a_privileged_pod(target: &Target) -> Check {
    let config = target.pod("plain");
    let pod = target.run_pod(&config).await?;
    let mut container = target.container("main", &["true"]);
    security(&mut container).privileged = true;
    let error = target.create(&pod, container, &config).await.expect_err("not in this pod");
    assert!(error.message().contains("no privileged container allowed in sandbox"), "{}", error.message());
    target.remove_pod(&pod).await?;

    let (pod, id) = target
        .sleeper("privileged", |pod, container| {
            pod.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
            security(container).privileged = true;
        })
        .await?;
    let host = std::fs::read_to_string("/proc/self/status")?;
    let ours = host.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    assert_eq!(status_line(target, &id, "CapEff").await?, ours);
    target.output(&id, &["ls", "/dev/kmsg"]).await?;
    target.remove_pod(&pod).await
}

pub async fn too_much_memory_is_an_oom_kill(target: &Target) -> Check {
    let config = target.pod("oom");
    let pod = target.run_pod(&config).await?;
    let mut container = target.container("main", &["probe", "eat", "300"]);
    container.linux.get_or_insert_default().resources =
        Some(v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    let id = target.run(&pod, container, &config).await?;
    let status = target.ended(&id).await?;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    target.remove_pod(&pod).await
}

pub async fn limits_are_set_and_changed(target: &Target) -> Check {
    let (pod, id) = target
        .sleeper("limits", |_, container| {
            container.linux.get_or_insert_default().resources = Some(v1::LinuxContainerResources {
                memory_limit_in_bytes: 128 << 20,
                cpu_shares: 512,
                oom_score_adj: 500,
                ..Default::default()
            });
        })
        .await?;
    assert_eq!(target.output(&id, &["cat", "/proc/1/oom_score_adj"]).await?.trim(), "500");
    let request = v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(v1::LinuxContainerResources { memory_limit_in_bytes: 256 << 20, ..Default::default() }),
        ..Default::default()
    };
    target.client.runtime.clone().update_container_resources(request).await?;
    let resources = target.status(&id).await?.resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (256 << 20, 512));
    let stats = v1::ContainerStatsRequest { container_id: id.clone() };
    let stats = target.client.runtime.clone().container_stats(stats).await?.into_inner().stats.unwrap();
    let memory = stats.memory.unwrap();
    let limit = memory.available_bytes.unwrap().value + memory.working_set_bytes.unwrap().value;
    assert_eq!(limit, 256 << 20);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    target.remove_pod(&pod).await
}
