//! The bridge that all sandboxes hang on, and links of the host's namespace.

use futures::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, packet_route::link::LinkAttribute};

use crate::{Error, Ipv4Cidr};

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

/// Makes the bridge unless it is there, gives it the gateway address and brings it up. Returns its index.
pub(crate) async fn ensure(name: &str, cidr: Ipv4Cidr, mtu: Option<u32>) -> Result<u32, Error> {
    with_netlink(async |links| {
        let failed = |operation| move |source| Error::Link { operation, link: name.to_owned(), source };
        // An address of its own: otherwise the bridge takes that of its lowest port and changes it
        // (and so the gateway that pods have in their neighbour tables) as pods come and go.
        let gateway = cidr.gateway().octets();
        let mac = vec![0x0a, 0x58, gateway[0], gateway[1], gateway[2], gateway[3]];
        let bridge = LinkBridge::new(name).address(mac).build();
        match links.link().add(bridge).execute().await {
            Err(error) if errno(&error) != Some(EEXIST) => return Err(failed("making bridge")(error)),
            _ => {}
        }
        let index = index_of(&links, name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))?;
        let address = links.address().add(index, cidr.gateway().into(), cidr.prefix());
        match address.execute().await {
            Err(error) if errno(&error) != Some(EEXIST) => return Err(failed("giving an address to")(error)),
            _ => {}
        }
        let mut up = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            up = up.mtu(mtu);
        }
        links.link().change(up.build()).execute().await.map_err(failed("bringing up"))?;
        Ok(index)
    })
    .await
}

/// Deletes a link of the host's namespace; one that is gone is no error.
pub(crate) async fn delete_link(name: &str) -> Result<(), Error> {
    with_netlink(async |links| {
        let Some(index) = index_of(&links, name).await? else { return Ok(()) };
        match links.link().del(index).execute().await {
            Err(error) if errno(&error) != Some(ENODEV) => {
                Err(Error::Link { operation: "deleting", link: name.to_owned(), source: error })
            }
            _ => Ok(()),
        }
    })
    .await
}

pub(crate) async fn index_of(links: &Handle, name: &str) -> Result<Option<u32>, Error> {
    match links.link().get().match_name(name.to_owned()).execute().try_next().await {
        Ok(link) => Ok(link
            .filter(|link| link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(n) if n == name)))
            .map(|link| link.header.index)),
        Err(error) if errno(&error) == Some(ENODEV) => Ok(None),
        Err(source) => Err(Error::Link { operation: "looking up", link: name.to_owned(), source }),
    }
}

/// Runs `work` with a netlink socket of the current namespace and closes it afterwards.
pub(crate) async fn with_netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T, Error>) -> Result<T, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    let connection = tokio::spawn(connection);
    let result = work(handle).await;
    connection.abort();
    result
}

pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}
