//! systemd's logind as a node needs it (KEP-2000): it delays a shutdown of the machine while somebody holds a lock, and
//! says when one begins.
//!
//! The words are logind's (org.freedesktop.login1(5)): a lock is a file descriptor that logind gave us, and is
//! released by closing it, so a daemon that dies holds up nobody. What to do in the time won is the kubelet's business.

mod error;
mod limit;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use futures::{Stream, StreamExt};
use zbus::message::Type;
use zbus::zvariant::{self, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream};

pub use crate::error::Error;

/// Where logind reads what overrides its configuration.
pub const CONF_DIR: &str = "/etc/systemd/logind.conf.d";

const SERVICE: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// A connection to logind.
#[derive(Clone, Debug)]
pub struct Logind {
    bus: Connection,
    conf_dir: PathBuf,
}

/// While it lives, a shutdown of the machine waits (as long as logind's `InhibitDelayMaxSec` allows).
#[derive(Debug)]
pub struct Lock {
    _descriptor: OwnedFd,
}

impl Logind {
    /// Connects over the system bus (`DBUS_SYSTEM_BUS_ADDRESS`, or the usual socket). Overrides of logind's
    /// configuration are written to `conf_dir`, [`CONF_DIR`] in earnest.
    ///
    /// # Errors
    /// [`Error::Bus`] on machines without a system bus.
    pub async fn connect(conf_dir: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::over(Connection::system().await.map_err(Error::Bus)?, conf_dir)
    }

    /// Connects over the bus at `address`, such as `unix:path=/run/dbus/system_bus_socket`.
    ///
    /// # Errors
    /// [`Error::Bus`] when there is none.
    pub async fn connect_to(address: &str, conf_dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let builder = zbus::connection::Builder::address(address).map_err(Error::Bus)?;
        Self::over(builder.build().await.map_err(Error::Bus)?, conf_dir)
    }

    fn over(bus: Connection, conf_dir: impl Into<PathBuf>) -> Result<Self, Error> {
        Ok(Self { bus, conf_dir: conf_dir.into() })
    }

    /// Takes a lock that delays shutdowns.
    ///
    /// # Errors
    /// [`Error::Call`] without logind, or without the right to do it.
    pub async fn inhibit(&self) -> Result<Lock, Error> {
        let arguments = ("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay");
        let answer = self.call(SERVICE, OBJECT, MANAGER, "Inhibit", &arguments).await?;
        let descriptor: zvariant::OwnedFd = answer.body().deserialize().map_err(Error::call("Inhibit"))?;
        Ok(Lock { _descriptor: descriptor.into() })
    }

    /// How long a lock delays a shutdown at most.
    ///
    /// # Errors
    /// [`Error::Call`] without logind.
    pub async fn delay_limit(&self) -> Result<Duration, Error> {
        let property = (MANAGER, "InhibitDelayMaxUSec");
        let properties = "org.freedesktop.DBus.Properties";
        let answer = self.call(SERVICE, OBJECT, properties, "Get", &property).await?;
        let value: OwnedValue = answer.body().deserialize().map_err(Error::call("InhibitDelayMaxUSec"))?;
        let micros = u64::try_from(value).map_err(Error::call("InhibitDelayMaxUSec"))?;
        Ok(Duration::from_micros(micros))
    }

    /// Tells of shutdowns: true when one begins, false when it was called off. Ends with the connection.
    ///
    /// # Errors
    /// [`Error::Call`] when the bus does not let us listen.
    pub async fn shutdowns(&self) -> Result<impl Stream<Item = bool> + Unpin + use<>, Error> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SERVICE)
            .and_then(|rule| rule.path(OBJECT))
            .and_then(|rule| rule.interface(MANAGER))
            .and_then(|rule| rule.member("PrepareForShutdown"))
            .map_err(Error::call("AddMatch"))?
            .build();
        let signals = MessageStream::for_match_rule(rule, &self.bus, None).await;
        let signals = signals.map_err(Error::call("AddMatch"))?;
        // What is no boolean is no word of logind's.
        Ok(Box::pin(signals.filter_map(|signal| async { signal.ok()?.body().deserialize().ok() })))
    }

    async fn call<B>(
        &self,
        service: &str,
        object: &str,
        interface: &str,
        method: &'static str,
        body: &B,
    ) -> Result<zbus::Message, Error>
    where
        B: serde::Serialize + zvariant::DynamicType,
    {
        let call = self.bus.call_method(Some(service), object, Some(interface), method, body);
        call.await.map_err(Error::call(method))
    }
}
