//! Every field of upstream's `KubeletConfiguration` (v1.36), its type, and what sampan does with it.

use serde_json::Value;

/// What a field may hold.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number between two, both included.
    Int(i64, i64),
    /// Any number.
    Number,
    /// A text.
    Text,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A duration in Go's notation, `1m30s`.
    Duration,
    /// A list of texts.
    Texts,
    /// A list of IP addresses.
    Ips,
    /// A quantity such as `10Mi`.
    Quantity,
    /// Texts by name.
    Map,
    /// Quantities by resource name.
    Resources,
    /// Eviction thresholds by signal: a quantity or a percentage.
    Thresholds,
    /// Durations by eviction signal.
    SignalDurations,
    /// Booleans by name.
    Gates,
    /// An object with these fields.
    Object(&'static [Field]),
    /// A list of such objects.
    List(&'static [Field]),
    /// Anything: not looked into.
    Any,
}

/// What setting a field does.
#[derive(Clone, Copy)]
pub(super) enum Support {
    /// It takes effect.
    Yes,
    /// Any value is taken; one that [`says`](Only) the same as what sampan does anyway gives no warning.
    Only(Only),
    /// It has no effect; a warning says so.
    No,
}

/// The value that sampan has, whatever is configured.
#[derive(Clone, Copy)]
pub(super) enum Only {
    Bool(bool),
    Int(i64),
    Text(&'static str),
}

impl Only {
    pub(super) fn is(self, value: &Value) -> bool {
        match self {
            Self::Bool(own) => value.as_bool() == Some(own),
            Self::Int(own) => value.as_i64() == Some(own),
            Self::Text(own) => value.as_str().is_some_and(|text| text == own || text.is_empty()),
        }
    }
}

/// Name, type, support.
pub(super) type Field = (&'static str, Kind, Support);

use Kind::{
    Any, Bool, Duration, Gates, Int, Ips, List, Map, Number, Object, OneOf, Quantity, Resources,
    SignalDurations, Text, Texts, Thresholds,
};
use Support::{No, Yes};

const fn only(value: bool) -> Support {
    Support::Only(Only::Bool(value))
}

const fn only_int(value: i64) -> Support {
    Support::Only(Only::Int(value))
}

const fn only_text(value: &'static str) -> Support {
    Support::Only(Only::Text(value))
}

const PORT: Kind = Int(0, 65_535);
const COUNT: Kind = Int(0, i32::MAX as i64);
const PERCENT: Kind = Int(0, 100);
/// Half of all ids there are at most: the host has some itself.
const IDS: Kind = Int(65_536, 1 << 31);

/// All fields of the configuration.
#[rustfmt::skip]
pub(super) const FIELDS: &[Field] = &[
    ("apiVersion", Text, Yes),
    ("kind", Text, Yes),
    ("enableServer", Bool, only(true)),
    ("staticPodPath", Text, Yes),
    ("podLogsDir", Text, Yes),
    ("syncFrequency", Duration, Yes),
    ("fileCheckFrequency", Duration, Yes),
    ("httpCheckFrequency", Duration, No),
    ("staticPodURL", Text, No),
    ("staticPodURLHeader", Any, No),
    ("address", Text, No),
    ("port", PORT, Yes),
    ("readOnlyPort", PORT, only_int(0)),
    ("tlsCertFile", Text, No),
    ("tlsPrivateKeyFile", Text, No),
    ("tlsCipherSuites", Texts, No),
    ("tlsMinVersion", Text, only_text("VersionTLS12")),
    ("tlsCurvePreferences", Any, No),
    ("rotateCertificates", Bool, only(false)),
    ("serverTLSBootstrap", Bool, only(false)),
    ("authentication", Object(&[
        ("x509", Object(&[("clientCAFile", Text, No)]), Yes),
        ("webhook", Object(&[("enabled", Bool, only(true)), ("cacheTTL", Duration, No)]), Yes),
        ("anonymous", Object(&[("enabled", Bool, only(false))]), Yes),
    ]), Yes),
    ("authorization", Object(&[
        ("mode", OneOf(&["AlwaysAllow", "Webhook"]), only_text("Webhook")),
        ("webhook", Object(&[("cacheAuthorizedTTL", Duration, No), ("cacheUnauthorizedTTL", Duration, No)]), Yes),
    ]), Yes),
    ("registryPullQPS", COUNT, Yes),
    ("registryBurst", COUNT, Yes),
    ("imagePullCredentialsVerificationPolicy", OneOf(&["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"]), Yes),
    ("preloadedImagesVerificationAllowlist", Texts, Yes),
    ("eventRecordQPS", COUNT, No),
    ("eventBurst", COUNT, No),
    ("enableDebuggingHandlers", Bool, only(true)),
    ("enableContentionProfiling", Bool, only(false)),
    ("healthzPort", PORT, only_int(0)),
    ("healthzBindAddress", Text, No),
    ("oomScoreAdj", Int(-1_000, 1_000), No),
    ("clusterDomain", Text, Yes),
    ("clusterDNS", Ips, Yes),
    ("streamingConnectionIdleTimeout", Duration, No),
    ("nodeStatusUpdateFrequency", Duration, Yes),
    ("nodeStatusReportFrequency", Duration, Yes),
    ("nodeLeaseDurationSeconds", Int(0, 3_600), Yes),
    ("imageMinimumGCAge", Duration, Yes),
    ("imageMaximumGCAge", Duration, Yes),
    ("imageGCHighThresholdPercent", PERCENT, Yes),
    ("imageGCLowThresholdPercent", PERCENT, Yes),
    ("volumeStatsAggPeriod", Duration, No),
    ("kubeletCgroups", Text, No),
    ("systemCgroups", Text, No),
    ("cgroupRoot", Text, Yes),
    ("cgroupsPerQOS", Bool, only(true)),
    ("cgroupDriver", OneOf(&["cgroupfs", "systemd"]), No),
    ("cpuManagerPolicy", Text, only_text("none")),
    ("cpuManagerPolicyOptions", Map, No),
    ("cpuManagerReconcilePeriod", Duration, No),
    ("singleProcessOOMKill", Bool, Yes),
    ("memoryManagerPolicy", Text, only_text("None")),
    ("topologyManagerPolicy", Text, only_text("none")),
    ("topologyManagerScope", Text, only_text("container")),
    ("topologyManagerPolicyOptions", Map, No),
    ("qosReserved", Map, No),
    ("runtimeRequestTimeout", Duration, Yes),
    ("hairpinMode", Text, only_text("promiscuous-bridge")),
    ("maxPods", COUNT, Yes),
    ("podCIDR", Text, No),
    ("podPidsLimit", Int(-1, i64::MAX), Yes),
    ("resolvConf", Text, Yes),
    ("runOnce", Bool, only(false)),
    ("cpuCFSQuota", Bool, Yes),
    ("cpuCFSQuotaPeriod", Duration, Yes),
    ("nodeStatusMaxImages", Int(-1, i32::MAX as i64), Yes),
    ("maxOpenFiles", Int(0, i64::MAX), No),
    ("contentType", Text, No),
    ("kubeAPIQPS", COUNT, No),
    ("kubeAPIBurst", COUNT, No),
    ("serializeImagePulls", Bool, Yes),
    ("maxParallelImagePulls", Int(1, i32::MAX as i64), Yes),
    ("evictionHard", Thresholds, Yes),
    ("evictionSoft", Thresholds, Yes),
    ("evictionSoftGracePeriod", SignalDurations, Yes),
    ("evictionPressureTransitionPeriod", Duration, Yes),
    ("evictionMaxPodGracePeriod", Int(-1, i32::MAX as i64), Yes),
    ("evictionMinimumReclaim", Thresholds, Yes),
    ("mergeDefaultEvictionSettings", Bool, Yes),
    ("podsPerCore", COUNT, Yes),
    ("enableControllerAttachDetach", Bool, only(true)),
    ("protectKernelDefaults", Bool, only(false)),
    ("makeIPTablesUtilChains", Bool, No),
    ("iptablesMasqueradeBit", Int(0, 31), No),
    ("iptablesDropBit", Int(0, 31), No),
    ("featureGates", Gates, No),
    ("failSwapOn", Bool, only(false)),
    ("memorySwap", Object(&[("swapBehavior", OneOf(&["", "NoSwap", "LimitedSwap"]), only_text("NoSwap"))]), Yes),
    ("containerLogMaxSize", Quantity, Yes),
    ("containerLogMaxFiles", Int(2, i32::MAX as i64), Yes),
    ("containerLogMaxWorkers", Int(1, i32::MAX as i64), No),
    ("containerLogMonitorInterval", Duration, Yes),
    ("configMapAndSecretChangeDetectionStrategy", OneOf(&["Get", "Cache", "Watch"]), No),
    ("systemReserved", Resources, Yes),
    ("kubeReserved", Resources, Yes),
    ("reservedSystemCPUs", Text, No),
    ("showHiddenMetricsForVersion", Text, No),
    ("systemReservedCgroup", Text, No),
    ("kubeReservedCgroup", Text, No),
    ("enforceNodeAllocatable", Texts, Yes),
    ("allowedUnsafeSysctls", Texts, Yes),
    ("volumePluginDir", Text, No),
    ("providerID", Text, Yes),
    ("kernelMemcgNotification", Bool, No),
    ("logging", Any, No),
    ("enableSystemLogHandler", Bool, only(false)),
    ("enableSystemLogQuery", Bool, only(false)),
    ("shutdownGracePeriod", Duration, Yes),
    ("shutdownGracePeriodCriticalPods", Duration, Yes),
    ("shutdownGracePeriodByPodPriority", List(&[
        ("priority", Int(i32::MIN as i64, i32::MAX as i64), Yes),
        ("shutdownGracePeriodSeconds", Int(0, i32::MAX as i64), Yes),
    ]), Yes),
    ("crashLoopBackOff", Object(&[("maxContainerRestartPeriod", Duration, Yes)]), Yes),
    ("reservedMemory", Any, No),
    ("enableProfilingHandler", Bool, only(false)),
    ("enableDebugFlagsHandler", Bool, only(false)),
    ("seccompDefault", Bool, Yes),
    ("memoryReservationPolicy", Text, only_text("None")),
    ("memoryThrottlingFactor", Number, No),
    ("registerWithTaints", List(&[
        ("key", Text, Yes),
        ("value", Text, Yes),
        ("effect", OneOf(&["NoSchedule", "PreferNoSchedule", "NoExecute"]), Yes),
        ("timeAdded", Text, Yes),
    ]), Yes),
    ("registerNode", Bool, only(true)),
    ("tracing", Any, No),
    ("localStorageCapacityIsolation", Bool, Yes),
    ("containerRuntimeEndpoint", Text, Yes),
    ("imageServiceEndpoint", Text, No),
    ("failCgroupV1", Bool, only(false)),
    ("userNamespaces", Object(&[("idsPerPod", IDS, Yes)]), Yes),
];
