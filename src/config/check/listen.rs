//! Listeners: who connects where.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::config::check::Checks;
use crate::config::file::{File, Listen};
use crate::config::finding::Finding;
use crate::config::read::{At, printable};
use crate::policy::{Policy, Rule, Security, Transport};
use crate::shard::settings::{Listener, Party};

impl Checks<'_> {
    /// The listeners by id, and the address of each.
    pub(super) fn listens(
        &mut self,
        written: &[Listen],
        admin_at: Option<&At<String>>,
        admin: Option<SocketAddr>,
    ) -> (Vec<Listener>, Vec<SocketAddr>) {
        if written.is_empty() {
            self.found.push(
                Finding::error("C0208", 0..0, "nothing is listened on")
                    .why("neither clients nor other servers could connect")
                    .mend("add [[listen]] with address and party, once for clients and once for peers"),
            );
        }
        let mut taken: Vec<(SocketAddr, bool, Range<usize>)> = Vec::new();
        if let (Some(address), Some(at)) = (admin, admin_at) {
            taken.push((address, false, at.span.clone()));
        }
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for entry in written {
            let party = entry.party.as_ref().map_or(Party::Client, |it| it.value);
            let security = match party {
                Party::Sip(Transport::Tls) => Security::Direct,
                Party::Sip(_) => Security::Optional,
                _ => entry.security.as_ref().map_or(Security::StartTls, |it| it.value),
            };
            let proxies = self.proxies(entry, party);
            let port = match (party, security) {
                (Party::Client, Security::Direct) => 5223,
                (Party::Client, _) => 5222,
                (Party::Peer, Security::Direct) => 5270,
                (Party::Peer, _) => 5269,
                (Party::Sip(transport), _) => transport.port(),
            };
            if entry.addresses.is_empty() && !self.found.iter().any(|it| it.span == entry.span) {
                let what = "a listener without an address";
                let mend = format!("address = \"0.0.0.0:{port}\"");
                self.found.push(Finding::error("C0107", entry.span.clone(), what).mend(mend));
            }
            let mut exposed = None;
            for at in &entry.addresses {
                let Some(address) = self.socket_address(at, port) else { continue };
                // TCP and UDP have ports of their own.
                let is_datagram = party == Party::Sip(Transport::Udp);
                if address.port() != 0
                    && let Some((.., first)) =
                        taken.iter().find(|it| (it.0, it.1) == (address, is_datagram))
                {
                    self.found.push(
                        Finding::error(
                            "C0206",
                            at.span.clone(),
                            format!("{address} is listened on twice"),
                        )
                        .mark("again here")
                        .other(first.clone(), "first here")
                        .why("a connection could not know which of the two it is for")
                        .mend("give one of them another port, or remove it"),
                    );
                    continue;
                }
                taken.push((address, is_datagram, at.span.clone()));
                if !address.ip().is_loopback() {
                    exposed = exposed.or(Some(address));
                }
                listeners.push(Listener { party, security, proxies: proxies.clone() });
                addresses.push(address);
            }
            if let Some(address) = exposed {
                self.clear_listener(entry, party, address, !proxies.is_empty());
            }
        }
        (listeners, addresses)
    }

    /// Warns of clear text where others than this host can read it. Behind a proxy it is the proxy
    /// that speaks TLS.
    fn clear_listener(
        &mut self,
        entry: &Listen,
        party: Party,
        address: SocketAddr,
        is_behind_proxy: bool,
    ) {
        let optional = entry.security.as_ref().filter(|it| it.value == Security::Optional);
        let clear = entry.clear.as_ref().filter(|_| !is_behind_proxy);
        let Some(span) = optional.map(|it| &it.span).or(clear) else { return };
        let (mark, mend) = if matches!(party, Party::Sip(_)) {
            (
                "no TLS here",
                "security = \"tls\"; tcp and udp are for benches, closed networks and listeners behind a `proxy`",
            )
        } else {
            (
                "TLS may be left out here",
                "security = \"starttls\"; \"optional\" is for benches and closed networks",
            )
        };
        let what = format!("clear text is allowed on {address}");
        self.found.push(
            Finding::warning("C0401", span.clone(), what)
                .mark(mark)
                .why("whoever is on the way can read and change what is said")
                .mend(mend),
        );
    }

    /// The addresses of trusted balancers before a listener.
    fn proxies(&mut self, entry: &Listen, party: Party) -> Vec<IpAddr> {
        let Some(written) = &entry.proxies else { return Vec::new() };
        if !matches!(party, Party::Sip(Transport::Tls | Transport::Tcp)) {
            let span = written.first().map_or_else(|| entry.span.clone(), |it| it.span.clone());
            self.found.push(
                Finding::error("C0211", span, "`proxy` is for SIP listeners over TLS or TCP")
                    .why("the PROXY protocol is read there alone, and datagrams have none")
                    .mend("remove it, or did you mean party = \"sip\"?"),
            );
            return Vec::new();
        }
        let mut proxies = Vec::new();
        for at in written {
            match at.value.parse() {
                Ok(address) => proxies.push(address),
                Err(_) => {
                    let what = format!("\"{}\" is not an address", printable(&at.value));
                    self.found.push(
                        Finding::error("C0108", at.span.clone(), what)
                            .mark("expected \"ip\"")
                            .why("names are not looked up here, and the proxy's port changes with each connection")
                            .mend("proxy = [\"127.0.0.1\"]"),
                    );
                }
            }
        }
        proxies
    }

    /// Federation without a way in can't prove our own domain by dialback.
    pub(super) fn reachable_by_peers(&mut self, file: &File, policy: &Policy) {
        let by_xmpp = |it: &Rule| it.allow && it.protocol.sip().is_none();
        let allows = by_xmpp(&policy.default) || policy.rules().iter().any(|it| by_xmpp(&it.1));
        let is_peer = |it: &Listen| it.party.as_ref().is_none_or(|it| it.value == Party::Peer);
        if !allows || file.listens.is_empty() || file.listens.iter().any(is_peer) {
            return;
        }
        let at = file
            .federation
            .default
            .as_ref()
            .map(|it| it.span.clone())
            .or_else(|| file.federation.span.clone());
        self.found.push(
            Finding::warning("C0407", at.unwrap_or_default(), "other domains are allowed, but none can connect here")
                .why("they reach our users, and check that we are who we say (dialback), by connecting to us")
                .mend("add [[listen]] with party = \"peer\" (usually port 5269)"),
        );
    }
}
