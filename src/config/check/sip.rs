//! SIP federation: rules of SIP domains, trusted edges, our own name toward them.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::config::check::Checks;
use crate::config::file::{Domain as WrittenDomain, Edge as Written, Listen, Peer};
use crate::config::finding::Finding;
use crate::config::read::{At, printable};
use crate::policy::{
    Edge, Identity, Im, Pattern, PeerAuth, Pidf, Policy, Profile, Protocol, Rule, Security,
    SipHost, SipRule, SipTarget, Transport,
};
use crate::shard::settings::{Domain, Party};
use crate::tls::{CertStore, Material, Use};

impl Checks<'_> {
    /// A rule about a domain that speaks SIP.
    pub(super) fn sip_rule(&mut self, peer: &Peer, allow: bool, default: &Rule) -> Rule {
        self.keys_of_xmpp(peer);
        let profile = peer.profile.as_ref().map_or(Profile::Lync, |it| it.value);
        let is_microsoft = profile == Profile::Lync;
        let transport = peer.sip.transport.as_ref().map_or(Transport::Tls, |it| it.value);
        let targets = self.sip_targets(peer.targets.as_deref(), transport);
        let names = self.host_names(peer.sip.names.as_deref());
        let by_default = match (&peer.sip.names, is_microsoft) {
            (Some(_), _) => Identity::Fixed,
            (None, true) => Identity::Microsoft,
            (None, false) => Identity::Rfc5922,
        };
        let identity = peer.sip.identity.as_ref().map_or(by_default, |it| it.value);
        if transport == Transport::Tls {
            self.sip_identity(peer, identity, &targets);
        } else {
            self.sip_in_clear(peer, allow, &targets);
        }
        let rule = SipRule {
            identity,
            names,
            targets,
            transport,
            rate: peer
                .sip
                .rate
                .as_ref()
                .and_then(|it| u32::try_from(it.value?).ok())
                .unwrap_or(RATE),
            im: peer
                .sip
                .im
                .as_ref()
                .map_or(if is_microsoft { Im::Session } else { Im::Page }, |it| it.value),
            pidf: peer
                .sip
                .pidf
                .as_ref()
                .map_or(if is_microsoft { Pidf::Microsoft } else { Pidf::Standard }, |it| it.value),
        };
        Rule {
            allow,
            protocol: Protocol::Sip(Box::new(rule)),
            profile,
            auth: PeerAuth::External,
            security: Security::Direct,
            targets: Vec::new(),
            private_addresses: peer
                .private_addresses
                .as_ref()
                .map_or(default.private_addresses, |it| it.value),
        }
    }

    /// Who a SIP peer is has to follow from what is written.
    fn sip_identity(&mut self, peer: &Peer, identity: Identity, targets: &[SipTarget]) {
        let at = peer.sip.identity.as_ref().map(|it| it.span.clone());
        let names = peer.sip.names.as_deref();
        match (identity, names) {
            (Identity::Fixed, None | Some([])) => {
                let span = at.or_else(|| peer.pattern.as_ref().map(|it| it.span.clone()));
                self.found.push(
                    Finding::error("C0212", span.unwrap_or_default(), "identity = \"fixed\" without `names`")
                        .mark("no certificate could ever be the right one")
                        .mend("names = [\"sipfed.online.lync.com\"]: the names to be found in the peer's certificate"),
                );
            }
            (Identity::Microsoft | Identity::Rfc5922, Some([first, ..])) => {
                self.found.push(
                    Finding::error(
                        "C0212",
                        first.span.clone(),
                        "`names` count for identity = \"fixed\" only",
                    )
                    .mark("never looked at")
                    .other(at.unwrap_or_default(), "because of this")
                    .mend("remove `names`, or write identity = \"fixed\""),
                );
            }
            (Identity::Microsoft, _) => {
                let is_address = |it: &SipTarget| matches!(it.host, SipHost::Address(_));
                let Some(first) = peer.targets.iter().flatten().next() else { return };
                if targets.iter().any(is_address) {
                    self.found.push(
                        Finding::error("C0212", first.span.clone(), "an address in `targets` leaves nothing to compare the certificate with")
                            .why("identity = \"microsoft\" expects the name of the target in the certificate, and an address has none")
                            .mend("write the target's name, or identity = \"fixed\" with names = [\"edge.partner.example\"]"),
                    );
                }
            }
            _ => {}
        }
    }

    /// Without TLS the source address is the only proof, so it must be one that was written down.
    fn sip_in_clear(&mut self, peer: &Peer, allow: bool, targets: &[SipTarget]) {
        let Some(at) = &peer.sip.transport else { return };
        let word = at.value.word();
        let is_address = |it: &SipTarget| matches!(it.host, SipHost::Address(_));
        if targets.is_empty() || !targets.iter().all(is_address) {
            self.found.push(
                Finding::error("C0213", at.span.clone(), format!("transport = \"{word}\" without addresses in `targets`"))
                    .mark("no proof of identity is left")
                    .why("without TLS a peer is known by its source address alone, and DNS is no proof of it")
                    .mend("targets = [\"192.0.2.7:5060\"], or leave `transport` out: TLS"),
            );
        }
        for (key, span) in [
            ("identity", peer.sip.identity.as_ref().map(|it| it.span.clone())),
            ("names", peer.sip.names.as_ref().and_then(|it| it.first()).map(|it| it.span.clone())),
        ] {
            let Some(span) = span else { continue };
            let what = format!("`{key}` has no effect over {word}: there is no certificate");
            self.found.push(Finding::warning("C0409", span, what).mend("remove it"));
        }
        let is_near = |it: &SipTarget| matches!(it.host, SipHost::Address(ip) if ip.is_loopback());
        if allow && !targets.iter().all(is_near) {
            let name = peer.pattern.as_ref().map_or("a peer", |it| &it.value);
            let what = format!("SIP in clear text with {}", printable(name));
            self.found.push(
                Finding::warning("C0408", at.span.clone(), what)
                    .why("whoever is on the way can read and change all of it, or speak with the peer's address")
                    .mend("transport = \"tls\"; tcp and udp are for benches and closed networks"),
            );
        }
    }

    /// Keys that mean something for XMPP only.
    fn keys_of_xmpp(&mut self, peer: &Peer) {
        for (key, span, instead) in [
            (
                "auth",
                peer.auth.as_ref().map(|it| &it.span),
                "`identity` says how a SIP peer proves who it is",
            ),
            (
                "security",
                peer.security.as_ref().map(|it| &it.span),
                "`transport` says what carries SIP",
            ),
        ] {
            let Some(span) = span else { continue };
            let what = format!("`{key}` is for XMPP, and this rule says protocol = \"sip\"");
            self.found.push(Finding::error("C0214", span.clone(), what).mend(instead));
        }
    }

    /// Keys that mean something for SIP only.
    pub(super) fn keys_of_sip(&mut self, peer: &Peer) {
        for (key, span) in sip_keys(peer) {
            let what = format!("`{key}` is for SIP, and this rule is about an XMPP domain");
            let mend = "add protocol = \"sip\", or remove it";
            self.found.push(Finding::error("C0214", span, what).mend(mend));
        }
    }

    /// Hosts by name or address with their ports.
    fn sip_targets(
        &mut self,
        written: Option<&[At<String>]>,
        transport: Transport,
    ) -> Vec<SipTarget> {
        let targets = written.unwrap_or_default().iter();
        targets.filter_map(|at| self.sip_target(at, transport.port())).collect()
    }

    fn sip_target(&mut self, at: &At<String>, port: u16) -> Option<SipTarget> {
        let text = at.value.as_str();
        if let Ok(address) = text.parse::<SocketAddr>()
            && address.port() != 0
        {
            return Some(SipTarget { host: SipHost::Address(address.ip()), port: address.port() });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(SipTarget { host: SipHost::Address(address), port });
        }
        let (host, port) = match text.rsplit_once(':') {
            None => (text, Some(port)),
            Some((host, port)) => (host, port.parse().ok().filter(|it| *it != 0)),
        };
        let host = crate::address::prepare_domain(host).ok();
        let (Some(host), Some(port)) = (host, port) else {
            let what = format!("\"{}\" is not a host and port", printable(text));
            self.found.push(
                Finding::error("C0108", at.span.clone(), what)
                    .mark("expected \"host:port\" or \"ip:port\"")
                    .mend("\"edge.partner.example:5061\" or \"192.0.2.7:5061\""),
            );
            return None;
        };
        Some(SipTarget { host: SipHost::Name(host.into_owned()), port })
    }

    fn host_names(&mut self, written: Option<&[At<String>]>) -> Vec<String> {
        written.unwrap_or_default().iter().filter_map(|at| self.domain_name(at)).collect()
    }

    /// The trusted edges.
    pub(super) fn edges(
        &mut self,
        written: &[Written],
        peers: &[Peer],
        local: &[String],
        policy: &Policy,
    ) -> Vec<Edge> {
        let mut edges: Vec<(Edge, Vec<Range<usize>>)> = Vec::new();
        for entry in written {
            let mut places = Vec::new();
            let mut patterns = Vec::new();
            for at in &entry.speaks_for {
                let Some(pattern) = self.pattern(at) else { continue };
                self.not_local(&pattern, at, local);
                self.not_of_two_edges(&pattern, at, &edges);
                self.edge_of_use(&pattern, at, policy);
                places.push(at.span.clone());
                patterns.push(pattern);
            }
            let mut targets = self.sip_targets(entry.targets.as_deref(), Transport::Tls);
            let Some(at) = &entry.name else { continue };
            let Some(name) = self.domain_name(at) else { continue };
            if edges.iter().any(|it| it.0.name == name) {
                let what = format!("two edges with the name {name}");
                let mend = "merge them: one [[edge]] speaks for as many domains as you like";
                self.found.push(Finding::error("C0215", at.span.clone(), what).mend(mend));
                continue;
            }
            if targets.is_empty() {
                targets.push(SipTarget { host: SipHost::Name(name.clone()), port: 5061 });
            }
            edges.push((Edge { name, speaks_for: patterns, targets }, places));
        }
        let edges: Vec<Edge> = edges.into_iter().map(|it| it.0).collect();
        for peer in peers {
            self.not_edge_and_own(peer, &edges);
        }
        edges
    }

    /// Two edges that may speak for one domain: the requests to it could go to either.
    fn not_of_two_edges(
        &mut self,
        pattern: &Pattern,
        at: &At<String>,
        edges: &[(Edge, Vec<Range<usize>>)],
    ) {
        for (edge, places) in edges {
            let other = edge.speaks_for.iter().zip(places).find(|it| it.0.overlaps(pattern));
            let Some((_, first)) = other else { continue };
            let what = format!("\"{}\" is behind two edges", printable(&at.value));
            self.found.push(
                Finding::error("C0215", at.span.clone(), what)
                    .mark("again here")
                    .other(first.clone(), format!("{} speaks for it, too", edge.name))
                    .why("nothing says which of the two its requests should go to")
                    .mend("name each domain under one edge"),
            );
        }
    }

    /// A domain behind an edge has the edge's targets and names.
    fn not_edge_and_own(&mut self, peer: &Peer, edges: &[Edge]) {
        let Some(at) = &peer.pattern else { return };
        if peer.is_sip.as_ref().is_none_or(|it| !it.value) {
            return;
        }
        let Some(edge) = edges.iter().find(|it| it.speaks_for(&at.value.to_ascii_lowercase()))
        else {
            return;
        };
        let mut keys = sip_keys(peer);
        keys.retain(|it| ["identity", "names", "transport"].contains(&it.0));
        keys.extend(peer.targets.iter().flatten().next().map(|it| ("targets", it.span.clone())));
        for (key, span) in keys {
            let what = format!("`{key}` is settled by the edge {} before this domain", edge.name);
            self.found.push(
                Finding::error("C0215", span, what)
                    .why("it says where requests go and whose certificate is believed for the domain")
                    .mend("remove it here, or take the domain out of the edge's `speaks_for`"),
            );
        }
    }

    /// SIP peers need a way in.
    pub(super) fn sip_peers_can_connect(&mut self, listens: &[Listen], peers: &[Peer]) {
        // A TLS terminator in front passes TLS on as TCP.
        let takes = |it: &Listen, wanted: Transport| match &it.party {
            Some(At { value: Party::Sip(transport), .. }) => {
                let is_behind_proxy = *transport == Transport::Tcp && it.proxies.is_some();
                *transport == wanted || (wanted == Transport::Tls && is_behind_proxy)
            }
            _ => false,
        };
        let mut told = Vec::new();
        for peer in peers {
            let Some(at) = peer.is_sip.as_ref().filter(|it| it.value) else { continue };
            let transport = peer.sip.transport.as_ref().map_or(Transport::Tls, |it| it.value);
            if peer.action.as_ref().is_none_or(|it| !it.value)
                || told.contains(&transport)
                || listens.iter().any(|it| takes(it, transport))
            {
                continue;
            }
            told.push(transport);
            let (word, port) = (transport.word(), transport.port());
            let what =
                format!("a SIP domain is allowed, but no SIP peer can connect here over {word}");
            self.found.push(
                Finding::error("C0216", at.span.clone(), what)
                    .why("what belongs to a subscription or a chat comes to the name in our Contact, on a connection the peer opens")
                    .mend(format!("add [[listen]] with address = \"0.0.0.0:{port}\", party = \"sip\", security = \"{word}\"")),
            );
        }
    }

    /// What stands in our Contact and Record-Route means us.
    pub(super) fn not_our_sip_name(&mut self, peers: &[Peer], domains: &[Domain]) {
        for at in peers.iter().filter_map(|it| it.pattern.as_ref()) {
            let name = at.value.to_ascii_lowercase();
            let Some(domain) = domains.iter().find(|it| it.sip_name == name && it.name != name)
            else {
                continue;
            };
            let what = format!("{name} is our own name toward SIP peers");
            self.found.push(
                Finding::error("C0203", at.span.clone(), what)
                    .mark(format!("the sip_name of {}", domain.name))
                    .why(
                        "requests to that name mean this node, so it can't be a foreign domain too",
                    )
                    .mend("give the [[domain]] another sip_name, or remove the rule"),
            );
        }
    }

    /// Who is believed for a domain that nobody may talk to is of no use.
    fn edge_of_use(&mut self, pattern: &Pattern, at: &At<String>, policy: &Policy) {
        let is_of_use = |(other, rule): &(Pattern, Rule)| {
            rule.allow && rule.protocol.sip().is_some() && other.overlaps(pattern)
        };
        if policy.rules().iter().any(is_of_use) {
            return;
        }
        let what = format!("no rule allows SIP with \"{}\"", printable(&at.value));
        self.found.push(
            Finding::warning("C0410", at.span.clone(), what)
                .why("an edge is believed about who it is that speaks; whether they may is for a [[peer]] to say")
                .mend("[[peer]] pattern = \"...\", action = \"allow\", protocol = \"sip\""),
        );
    }

    /// Our name toward SIP peers: what their certificate checks will look for.
    pub(super) fn sip_names(
        &mut self,
        written: &[WrittenDomain],
        domains: &[Domain],
        store: &CertStore,
        policy: &Policy,
        listens: bool,
    ) {
        let mut sip =
            policy.rules().iter().filter(|it| it.1.allow && it.1.protocol.sip().is_some());
        if !listens && sip.clone().next().is_none() {
            return;
        }
        let to_edges = sip.any(|it| it.1.profile == Profile::Lync);
        for entry in written {
            let Some(name) = entry.name.as_ref() else { continue };
            let key = crate::address::prepare_domain(&name.value).unwrap_or_default();
            let Some(domain) = domains.iter().find(|it| it.name == key) else { continue };
            let Some(material) = store.find(&domain.name) else { continue };
            let at = entry.sip_name.as_ref().unwrap_or(name);
            let file = entry.certificate.as_ref().map(|it| it.span.clone()).unwrap_or_default();
            self.sip_name_covered(at, &domain.sip_name, material, file.clone());
            if to_edges {
                self.sip_name_in_domain(at, domain);
            }
            self.for_both_roles(material, file);
        }
    }

    fn sip_name_covered(
        &mut self,
        at: &At<String>,
        sip_name: &str,
        material: &Material,
        file: Range<usize>,
    ) {
        let names = material.names();
        if names.has_sip_host(sip_name) {
            return;
        }
        let finding = if names.speak_for(sip_name, Use::S2s) {
            let what = format!("the certificate has {sip_name} by a wildcard only");
            Finding::warning("C0411", at.span.clone(), what).mark("wildcards don't count in SIP")
        } else {
            let what = format!("the certificate does not have {sip_name}; it has {names}");
            Finding::error("C0217", at.span.clone(), what).mark("our name toward SIP peers")
        };
        self.found.push(
            finding
                .other(file, "this certificate")
                .why("SIP peers look for the target of our SRV record in it (RFC 5922, 7.2 refuses wildcards) and close, or answer 504")
                .mend(format!("request one with {sip_name} as dNSName in subjectAltName, or set `sip_name` to a name it has")),
        );
    }

    fn sip_name_in_domain(&mut self, at: &At<String>, domain: &Domain) {
        let (name, sip_name) = (&domain.name, &domain.sip_name);
        let parent = sip_name.split_once('.').map(|it| it.1);
        if sip_name == name || parent == Some(name) {
            return;
        }
        self.found.push(
            Finding::warning("C0412", at.span.clone(), format!("{sip_name} is not directly in {name}"))
                .why("Lync and Skype for Business edges find us by SRV and refuse (504) a target that is not LABEL.DOMAIN, unless their administrator wrote it down")
                .mend(format!("sip_name = \"sip.{name}\", and _sipfederationtls._tcp.{name} pointing there")),
        );
    }

    /// RFC 5280, 4.2.1.12.
    fn for_both_roles(&mut self, material: &Material, file: Range<usize>) {
        let lacks = match material.purposes() {
            (true, true) => return,
            (true, false) => "client authentication",
            (false, _) => "server authentication",
        };
        self.found.push(
            Finding::warning("C0413", file, format!("the certificate is not for {lacks}"))
                .mark("extended key usage")
                .why("SIP federation is mutual: we are server and client with one certificate, and Microsoft's edges want both purposes in it")
                .mend("request one with serverAuth and clientAuth, or put a proxy in front that has one"),
        );
    }
}

/// The keys of `[[peer]]` that SIP alone has, as far as they are written.
pub(super) fn sip_keys(peer: &Peer) -> Vec<(&'static str, Range<usize>)> {
    let sip = &peer.sip;
    [
        ("identity", sip.identity.as_ref().map(|it| it.span.clone())),
        ("names", sip.names.as_ref().and_then(|it| it.first()).map(|it| it.span.clone())),
        ("transport", sip.transport.as_ref().map(|it| it.span.clone())),
        ("rate", sip.rate.as_ref().map(|it| it.span.clone())),
        ("im", sip.im.as_ref().map(|it| it.span.clone())),
        ("pidf", sip.pidf.as_ref().map(|it| it.span.clone())),
    ]
    .into_iter()
    .filter_map(|(key, span)| Some((key, span?)))
    .collect()
}

/// What an Access Edge takes from a partner that it merely discovered: 20 messages a second.
const RATE: u32 = 20;
