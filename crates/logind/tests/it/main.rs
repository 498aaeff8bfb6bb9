//! Against a real bus with a logind of the test's own on it.
#![allow(clippy::unwrap_used)]

mod bus;

use std::time::Duration;

use futures::StreamExt;
use sampan_logind::{Error, Logind};

use self::bus::Bus;

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_while_the_lock_is_held() {
    let dir = tempfile::Builder::new().prefix("smpt-logind-").tempdir().unwrap();
    let bus = Bus::start(Duration::from_secs(30)).await;
    let logind = Logind::connect_to(bus.address(), dir.path()).await.unwrap();
    logind.ensure_delay(Duration::from_secs(30)).await.unwrap();
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing to override");
    let mut shutdowns = logind.shutdowns().await.unwrap();
    let lock = logind.inhibit().await.unwrap();
    assert_eq!(bus.locks(), ["shutdown kubelet delay"]);
    bus.prepare_for_shutdown(true).await;
    assert_eq!(shutdowns.next().await, Some(true));
    assert_eq!(bus.locks().len(), 1);
    drop(lock);
    bus.released().await;
    bus.prepare_for_shutdown(false).await;
    assert_eq!(shutdowns.next().await, Some(false));
    drop(bus);
    assert_eq!(shutdowns.next().await, None, "the stream ends with the bus");
}

#[tokio::test(flavor = "multi_thread")]
async fn logind_is_made_to_wait_long_enough() {
    let dir = tempfile::Builder::new().prefix("smpt-logind-").tempdir().unwrap();
    let conf = dir.path().join("logind.conf.d");
    let bus = Bus::start(Duration::from_secs(5)).await;
    let logind = Logind::connect_to(bus.address(), &conf).await.unwrap();
    // It has another file that wins, or reads none: nobody believes in a delay that is not there.
    let error = logind.ensure_delay(Duration::from_millis(40_500)).await.unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    assert!(error.to_string().contains("InhibitDelayMaxSec"), "{error}");
    bus.read_configuration_from(&conf.join("99-kubelet.conf"));
    logind.ensure_delay(Duration::from_millis(40_500)).await.unwrap();
    assert_eq!(logind.delay_limit().await.unwrap(), Duration::from_secs(41));
    let error = Logind::connect_to("unix:path=/no/such/bus", &conf).await.unwrap_err();
    assert!(matches!(error, Error::Bus(_)), "{error}");
}
