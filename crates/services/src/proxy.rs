//! Hands Services to the rules: what changed while a transaction ran goes into the next one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sampan_network::{RuleTable, ServicePort};
use tokio::sync::Notify;

/// After a failure it is tried again after this time, doubled each time up to a limit.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// How often is looked whether somebody deleted the rules (a firewall that was restarted).
const LOOK: Duration = Duration::from_secs(10);

/// Changes on their way to the rules.
#[derive(Default)]
pub(crate) struct Proxy {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Whether all Services have been heard of.
    known: bool,
    services: HashMap<String, Vec<ServicePort>>,
}

impl Proxy {
    /// A Service has these ports now, and no others.
    pub(crate) fn set(&self, service: String, ports: Vec<ServicePort>) {
        self.lock().services.insert(service, ports);
        self.changed.notify_one();
    }

    /// All Services have been said: what the rules have besides is of the past.
    pub(crate) fn known(&self) {
        let before = std::mem::replace(&mut self.lock().known, true);
        if !before {
            self.changed.notify_one();
        }
    }

    /// Hands over, for ever.
    pub(crate) async fn run(&self, rules: &RuleTable) {
        let mut names: HashMap<String, BTreeSet<String>> = HashMap::new();
        let mut first = true;
        let mut backoff = FIRST_BACKOFF;
        loop {
            let taken = {
                let mut waiting = self.lock();
                waiting.known.then(|| std::mem::take(&mut waiting.services))
            };
            let result = match taken {
                None => Ok(()),
                Some(services) => {
                    let changes = changes(&mut names, services);
                    if std::mem::take(&mut first) {
                        rules.replace_services(changes.into_values().flatten().collect()).await
                    } else {
                        rules.change_services(changes).await
                    }
                }
            };
            let pause = match result {
                Ok(()) => {
                    backoff = FIRST_BACKOFF;
                    LOOK
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(%error, "Services do not get their rules; trying again");
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    backoff / 2
                }
            };
            if tokio::time::timeout(pause, self.changed.notified()).await.is_err()
                && let Err(error) = rules.restore_if_gone().await
            {
                tracing::warn!(error = %chain(&error), "looking after the rules");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports that changed by name; those that their Service does not have any more are gone.
fn changes(
    names: &mut HashMap<String, BTreeSet<String>>,
    services: HashMap<String, Vec<ServicePort>>,
) -> HashMap<String, Option<ServicePort>> {
    let mut changes = HashMap::new();
    for (service, ports) in services {
        let now: BTreeSet<String> = ports.iter().map(|port| port.name.clone()).collect();
        let before = names.remove(&service).unwrap_or_default();
        changes.extend(before.difference(&now).map(|name| (name.clone(), None)));
        changes.extend(ports.into_iter().map(|port| (port.name.clone(), Some(port))));
        if !now.is_empty() {
            names.insert(service, now);
        }
    }
    changes
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
