"""The SIP part of the stage: Tandem's partners in its configuration, and the programs that play them.

    s.example   SIPp over TCP (f1.s.example at 127.0.15.1 ... one domain per scenario), u.example over UDP
    l.example   SIPp over TLS, with stunnel in front of it in both directions; SRV records
    k.example   Kamailio with presence: TLS and SRV; ku.example and kt.example are the same by UDP and TCP
    h.example   a partner behind HAProxy, which terminates its TLS and vouches for its name
    o.example   a partner with suites that rustls does not speak, HAProxy in between
    w.example   wires of our own over TCP, v.example over UDP: exact octets for what no program would send
    n.example   a certificate of the stage's authority, and no rule: a stranger

Here are no scenarios.
"""

import shutil

from stage import FLOWS, SIP, Failed, until

# What wires of our own come from, and where they listen.
TCP_WIRE = "127.0.0.25"
UDP_WIRE = "127.0.0.29"
# HAProxy: partners behind it; partners with old suites.
PROXY = "127.0.0.18"
OLD = "127.0.0.28"


def rule(pattern, more):
    return f"""
[[peer]]
pattern = "{pattern}"
action = "allow"
protocol = "sip"
rate = 0
{more}
"""


def settings(address):
    """Tandem's listeners and rules for all of them."""
    listeners = "".join(f"""
[[listen]]
address = ["{address}:{port}"]
party = "sip"
security = "{security}"
{more}
""" for port, security, more in
        ((5061, "tls", ""), (5060, "tcp", ""), (5060, "udp", ""), (5062, "tcp", f'proxy = ["{PROXY}"]')))
    rules = ""
    for flow in FLOWS:
        rules += rule(f"f{flow}.s.example", f'transport = "tcp"\ntargets = ["127.0.15.{flow}:5060"]')
        rules += rule(f"f{flow}.u.example", f'transport = "udp"\ntargets = ["127.0.19.{flow}:5060"]')
        rules += rule(f"f{flow}.l.example", "")
    standard = 'profile = "xmpp"\nim = "page"\npidf = "standard"\n'
    rules += rule("k.example", standard + 'identity = "rfc5922"')
    rules += rule("ku.example", standard + 'transport = "udp"\ntargets = ["127.0.0.14:5060"]')
    rules += rule("kt.example", standard + 'transport = "tcp"\ntargets = ["127.0.0.14:5060"]')
    rules += rule("h.example", standard + 'identity = "rfc5922"')
    rules += rule("o.example", standard + 'identity = "fixed"\nnames = ["sip.o.example"]\n'
                  'targets = ["sip.o.example:5063"]')
    rules += rule("w.example", f'transport = "tcp"\ntargets = ["{TCP_WIRE}:5060"]')
    rules += rule("v.example", f'transport = "udp"\ntargets = ["{UDP_WIRE}:5060"]')
    return listeners + rules


def bound(address, port, carrier):
    """Whether somebody has that port; a try to connect would be taken for a call."""
    number = "".join(f"{int(it):02X}" for it in reversed(address.split("."))) + f":{port:04X}"
    with open(f"/proc/net/{carrier}", encoding="ascii") as rows:
        return any(row.split()[1] == number and (carrier == "udp" or row.split()[3] == "0A") for row in rows)


class Program:
    """A server of the SIP part; started once, when a scenario first needs it."""

    name = None
    ports = ()

    def __init__(self, stage):
        self.stage = stage
        self.process = stage.spawn(self.name, self.command())
        for address, port in self.ports:
            self.process.wait_for_port(address, port)

    def command(self):
        raise NotImplementedError

    @classmethod
    def of(cls, world):
        kept = world.__dict__.setdefault("programs", {})
        it = kept.get(cls.name)
        if it is None or it.process.child.poll() is not None:
            it = kept[cls.name] = cls(world.stage)
        return it

    def tail(self, lines=40):
        return f"--- {self.name}\n{self.process.tail(lines)}"


class Kamailio(Program):
    """Registrar, presence server and proxy of three domains."""

    name = "kamailio"
    domain = "k.example"
    address = SIP["k.example"][0]
    ports = ((address, 5060), (address, 5061))

    def command(self):
        folder = self.stage.path("kamailio")
        # Started again it knows nothing of before.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        tables = folder / "dbtext"
        tables.mkdir()
        for it in ("version", "presentity", "active_watchers", "watchers", "xcap", "location"):
            shutil.copy(f"/usr/share/kamailio/dbtext/kamailio/{it}", tables)
        side = f"""method = TLSv1.2+
certificate = {self.stage.path(self.domain)}.crt
private_key = {self.stage.path(self.domain)}.key
ca_list = {self.stage.ca}
verify_certificate = yes
require_certificate = yes
"""
        (folder / "tls.cfg").write_text(f"[server:default]\n{side}\n[client:default]\n{side}")
        (folder / "kamailio.cfg").write_text(KAMAILIO.replace("@DIR@", str(folder)).replace("@HERE@", self.address))
        return ["kamailio", "-DD", "-E", "-w", str(folder), "-Y", str(folder), "-f", str(folder / "kamailio.cfg")]


# A message for somebody else goes to Tandem, by the way that the domain of its sender has with it.
KAMAILIO = """#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=2
auto_aliases=no
alias="k.example"
alias="sip.k.example"
alias="ku.example"
alias="kt.example"
enable_tls=yes
tcp_source_ipv4=@HERE@
listen=udp:@HERE@:5060
listen=tcp:@HERE@:5060
listen=tls:@HERE@:5061 advertise sip.k.example:5061
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "tls.so"
loadmodule "ctl.so"
loadmodule "db_text.so"
loadmodule "presence.so"
loadmodule "presence_xml.so"
modparam("ctl", "binrpc", "unix:@DIR@/kam.sock")
modparam("tls", "config", "@DIR@/tls.cfg")
modparam("presence|presence_xml", "db_url", "text://@DIR@/dbtext")
modparam("presence", "server_address", "sip:sip.k.example:5061;transport=tls")
modparam("presence_xml", "force_active", 1)
modparam("usrloc", "db_mode", 0)
request_route {
  if (!mf_process_maxfwd_header("70")) { sl_send_reply("483", "Too Many Hops"); exit; }
  if (has_totag()) {
    if (loose_route()) {
      if (uri != myself || $rU != $null) { t_relay(); exit; }
    }
    if (is_method("SUBSCRIBE")) { handle_subscribe(); exit; }
    if (uri != myself) { t_relay(); exit; }
    if (!is_method("ACK")) { sl_send_reply("404", "Not here"); }
    exit;
  }
  if (is_method("MESSAGE|SUBSCRIBE|INVITE")) { record_route(); }
  if (uri != myself) {
    if ($fd == "ku.example") { $du = "sip:127.0.0.10:5060;transport=udp"; }
    else if ($fd == "kt.example") { $du = "sip:127.0.0.10:5060;transport=tcp"; }
    else { $du = "sip:sip." + $rd + ":5061;transport=tls"; }
    t_relay();
    exit;
  }
  if (is_method("OPTIONS")) { sl_send_reply("200", "OK"); exit; }
  if (is_method("REGISTER")) { save("location"); exit; }
  if (is_method("PUBLISH")) { handle_publish(); exit; }
  if (is_method("SUBSCRIBE")) { handle_subscribe(); exit; }
  if (!lookup("location")) { sl_send_reply("404", "Not Found"); exit; }
  t_relay();
}
"""


class Stunnel(Program):
    """TLS for SIPp, which has none: out to Tandem with the certificate of `l.example`, and in from it."""

    name = "stunnel"
    ports = tuple((f"127.0.16.{flow}", port) for flow in FLOWS for port in (5060, 5061))

    def command(self):
        ours = self.stage.path("l.example")
        common = f"cert = {ours}.crt\nkey = {ours}.key\nCAfile = {self.stage.ca}\nverifyChain = yes\n"
        text = "foreground = yes\npid =\nsyslog = no\ndebug = 5\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
        for flow in FLOWS:
            here = f"127.0.16.{flow}"
            text += (f"[out{flow}]\nclient = yes\naccept = {here}:5060\nconnect = {SIP['t.example'][0]}:5061\n"
                     f"checkHost = sip.t.example\nsni = sip.t.example\n{common}")
            # Nobody listens behind it but in the two scenarios that Tandem begins.
            text += f"[in{flow}]\naccept = {here}:5061\nconnect = {here}:5070\nrequireCert = yes\n{common}"
        # Kamailio's control comes by here, too.
        text += (f"[kamailio]\nclient = yes\naccept = 127.0.0.16:5060\nconnect = {SIP['k.example'][0]}:5061\n"
                 f"checkHost = sip.k.example\n{common}")
        path = self.stage.path("stunnel.conf")
        path.write_text(text)
        return ["stunnel", str(path)]


class Haproxy(Program):
    """In front of our SIP listener, and between us and a partner with old suites."""

    name = "haproxy"
    ports = ((PROXY, 5061), (PROXY, 5063))

    def command(self):
        tandem, ours = SIP["t.example"][0], self.stage.path("t.example.pem")
        path = self.stage.path("haproxy.cfg")
        path.write_text(f"""
global
    log stdout format raw daemon
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend partners
    bind {PROXY}:5061 ssl crt {ours} ca-file {self.stage.ca} verify required
    default_backend tandem
backend tandem
    source {PROXY}
    server tandem {tandem}:5062 send-proxy-v2-ssl-cn
frontend outward
    bind {PROXY}:5063 ssl crt {self.stage.path("o.example.pem")} ca-file {self.stage.ca} verify required
    default_backend old
backend old
    source {PROXY}
    server old {OLD}:5061 ssl crt {ours} ca-file {self.stage.ca} verify required ssl-max-ver TLSv1.2 ciphers {OLD_SUITE}
""")
        return ["haproxy", "-db", "-f", str(path)]


# RSA key exchange, CBC, SHA-1: what rustls never speaks.
OLD_SUITE = "AES256-SHA"


class Sipp:
    """One run of one of the files in `sipp/`: a partner's edge that keeps to its text."""

    def __init__(self, world, scenario, domain, user, address, port, carrier, remote=None):
        """`remote` is where it calls; without one it waits to be called."""
        self.stage = world.stage
        self.name = f"sipp-{scenario}-{domain}"
        self.mark = world.stage.path(f"{self.name}.mark")
        here = __file__.rsplit("/", 1)[0]
        folder = world.stage.path(self.name)
        folder.mkdir(exist_ok=True)
        for it in (1, 2):
            self.mark.with_name(f"{self.mark.name}.{it}").unlink(missing_ok=True)
        self.folder = folder
        command = ["sipp", *([remote] if remote else []), "-sf", f"{here}/sipp/{scenario}.xml", "-i", address, "-bind_local",
                   "-t", {"tcp": "t1", "udp": "u1"}[carrier], "-m", "1", "-key", "user", user, "-key", "domain", domain,
                   "-key", "mark", str(self.mark), "-nostdin", "-timeout", "40s", "-timeout_error", "-trace_err", "-trace_msg",
                   "-message_file", str(folder / "messages"), "-error_file", str(folder / "errors")]
        if port:
            command += ["-p", str(port)]
        self.process = world.stage.spawn(self.name, command, cwd=folder)
        if not remote:
            until(f"{self.name} to listen", lambda: bound(address, port, carrier) or self.ended() is not None)

    def marked(self, number):
        """It came to this point of its text."""
        return self.mark.with_name(f"{self.mark.name}.{number}").exists()

    def ended(self):
        """Its exit code; None while it runs."""
        return self.process.child.poll()

    def verdict(self):
        if self.ended() != 0:
            said = [f"{self.name} ended with {self.ended()}"]
            for it in ("errors", "messages"):
                path = self.folder / it
                if path.exists():
                    said.append(f"--- {it}\n" + path.read_text(errors="replace")[-4000:])
            raise Failed("\n".join(said))

    def stop(self):
        self.process.stop()


__all__ = ["Haproxy", "Kamailio", "OLD", "OLD_SUITE", "PROXY", "Program", "Sipp", "Stunnel", "TCP_WIRE", "UDP_WIRE",
           "settings", "until"]
