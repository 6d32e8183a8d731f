"""The servers of the stage: Tandem as the one under test, Prosody as the other side, or as both in the control run."""

import os
import subprocess

import sip_stage
from stage import ADDRESS, Failed, until

PASSWORD = "pw-of-the-stage"


class Server:
    """What the scenarios need to know about either server."""

    def __init__(self, stage, domain):
        self.stage = stage
        self.domain = domain
        self.address = ADDRESS[domain]
        self.users = set()
        self.process = None
        self.log = stage.path(f"{domain}.out")

    def jid(self, user):
        return f"{user}@{self.domain}"

    def restart(self, **settings):
        self.stop()
        self.start(**settings)

    def stop(self):
        if self.process is not None:
            code = self.process.stop()
            self.process = None
            return code
        return None

    def tail(self, lines=40):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


class Prosody(Server):
    kind = "prosody"
    mechanisms = ("SCRAM-SHA-1",)
    hash_name = "SHA-1"
    level = "debug"

    def plain_domain(self):
        """Where PLAIN is offered, and no channel binding."""
        return self.domain

    def start(self, secure=False):
        folder = self.stage.path(self.domain)
        certificates = folder / "certs"
        certificates.mkdir(parents=True, exist_ok=True)
        for end in ("crt", "key"):
            (certificates / f"{self.domain}.{end}").write_bytes(self.stage.path(f"{self.domain}.{end}").read_bytes())
        self.config = folder / "prosody.cfg.lua"
        self.config.write_text(self.text(folder, secure))
        self.log = folder / "prosody.log"
        self.process = self.stage.spawn(self.domain, ["prosody", "--config", str(self.config), "-F"])
        for port in (5222, 5223, 5269):
            self.process.wait_for_port(self.address, port)

    def text(self, folder, secure):
        root = "run_as_root = true\n" if os.getuid() == 0 else ""
        return root + f"""
pidfile = "{folder}/prosody.pid"; data_path = "{folder}/data"; admin_socket = "{folder}/prosody.sock"
certificates = "{folder}/certs"
ssl = {{ cafile = "{self.stage.ca}" }}
interfaces = {{ "{self.address}" }}
c2s_ports = {{ 5222 }}; c2s_direct_tls_ports = {{ 5223 }}; s2s_ports = {{ 5269 }}
http_ports = {{}}; https_ports = {{}}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "ping", "version", "presence", "message", "iq",
  "s2s", "s2s_auth_certs", "dialback", "admin_shell",
  "offline", "carbons", "blocklist", "smacks", "vcard", "private", "lastactivity", "time", "csi", "csi_simple" }}
smacks_hibernation_time = 300; smacks_max_queue_size = 100000
c2s_require_encryption = true; allow_unencrypted_plain_auth = false
s2s_require_encryption = true; s2s_secure_auth = {"true" if secure else "false"}
log = {{ {self.level} = "{folder}/prosody.log" }}
VirtualHost "{self.domain}"
  ssl = {{ cafile = "{self.stage.ca}"; certificate = "{folder}/certs/{self.domain}.crt";
    key = "{folder}/certs/{self.domain}.key" }}
"""

    def add_user(self, user, domain=None):
        assert domain in (None, self.domain)
        if user in self.users:
            return
        done = subprocess.run(
            ["prosodyctl", "--root", "--config", str(self.config), "register", user, self.domain, PASSWORD],
            capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"prosodyctl register {user}: {done.stdout}{done.stderr}")
        self.users.add(user)


class Tandem(Server):
    kind = "tandem"
    mechanisms = ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512")
    hash_name = "SHA-256"
    speaks_sip = True

    def __init__(self, stage, domain, binary, deny_io_uring=False):
        super().__init__(stage, domain)
        self.binary = binary
        here = os.path.dirname(os.path.abspath(__file__))
        self.wrapper = [os.path.join(here, "..", "deny_io_uring.py")] if deny_io_uring else []

    def plain_domain(self):
        """Where PLAIN is offered."""
        return f"plain.{self.domain}"

    def start(self, default="allow", rules=(), auth="dialback"):
        folder = self.stage.path(self.domain)
        (folder / "state").mkdir(parents=True, exist_ok=True)
        self.config = folder / "tandem.toml"
        self.config.write_text(self.text(folder, default, rules, auth))
        self.socket = folder / "ctl.sock"
        self.process = self.stage.spawn(self.domain, [*self.wrapper, self.binary, "run", str(self.config)])
        for port in (5222, 5223, 5269, *((5060, 5061, 5062) if self.speaks_sip else ())):
            self.process.wait_for_port(self.address, port)
        until("the control socket", self.socket.exists)

    def text(self, folder, default, rules, auth):
        sip = sip_stage.settings(self.address) if self.speaks_sip else ""
        domains = "".join(f"""
[[domain]]
name = "{name}"
sip_name = "sip.{name}"
certificate = "{self.stage.path(name)}.crt"
key = "{self.stage.path(name)}.key"
plain = {plain}
channel_binding = {binding}
""" for name, plain, binding in ((self.domain, "false", "true"), (f"plain.{self.domain}", "true", "false")))
        listeners = "".join(f"""
[[listen]]
address = ["{self.address}:{port}"]
party = "{party}"
security = "{security}"
""" for port, party, security in
            ((5222, "client", "starttls"), (5223, "client", "direct"), (5269, "peer", "starttls")))
        peers = "".join(f"""
[[peer]]
pattern = "{pattern}"
action = "{action}"
""" for pattern, action in rules)
        return f"""
[node]
name = "stage"
shards = 2
state = "{folder}/state"
{domains}{listeners}
[federation]
default = "{default}"
auth = "{auth}"
private_addresses = true
{peers}{sip}
[admin]
http = "127.0.0.1:9090"
socket = "{folder}/ctl.sock"

[log]
level = "debug"

[trust]
ca_bundle = "{self.stage.ca}"
"""

    def ctl(self, *arguments, text=None):
        return subprocess.run([self.binary, "ctl", "--socket", str(self.socket), *arguments], input=text,
                              capture_output=True, text=True, check=False, timeout=20)

    def add_user(self, user, domain=None):
        jid = f"{user}@{domain or self.domain}"
        if jid in self.users:
            return
        done = self.ctl("user", "add", jid, text=f"{PASSWORD}\n")
        if done.returncode != 0:
            raise Failed(f"tandem ctl user add {jid}: {done.stdout}{done.stderr}")
        self.users.add(jid)
