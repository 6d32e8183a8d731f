"""The stage on which real programs meet: a namespace of its own, names, certificates, processes.

Inside the namespace standard ports are free, nothing leaks out, and whatever a test forgot ends with it. All waiting is
for a condition, never for a time.
"""

import os
import pathlib
import socket
import subprocess
import time

DNS = "127.0.0.53"

# Every domain has one address of its own on loopback.
ADDRESS = {
    "t.example": "127.0.0.10",
    "plain.t.example": "127.0.0.10",
    "q.example": "127.0.0.10",
    "p.example": "127.0.0.11",
    "x.example": "127.0.0.17",
}

# Domains that speak SIP: where their `sip.DOMAIN` is, and whether they say so in `_sipfederationtls._tcp`.
SIP = {
    "t.example": ("127.0.0.10", True),
    "k.example": ("127.0.0.14", True),
    "l.example": ("127.0.0.16", True),
    "h.example": ("127.0.0.26", False),
    "o.example": ("127.0.0.18", False),
    "n.example": ("127.0.0.27", True),
}
# What SIPp plays has a domain of its own for each scenario, so that all of them can be played at once.
FLOWS = range(1, 10)
for flow in FLOWS:
    SIP[f"f{flow}.l.example"] = (f"127.0.16.{flow}", True)


class Failed(Exception):
    """A scenario did not go as it should."""


def until(what, condition, seconds=15.0):
    """Waits until `condition()` is true, and gives back what it said."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def listens(address, port):
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


class Stage:
    """A folder, a certificate authority, a name server and the processes of one run."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.running = []
        self.ca = self.folder / "ca.crt"

    def path(self, name):
        return self.folder / name

    def open(self):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        resolv = self.path("resolv.conf")
        resolv.write_text(f"nameserver {DNS}\noptions timeout:2 attempts:1\n")
        subprocess.run(["mount", "--bind", str(resolv), "/etc/resolv.conf"], check=True)
        self.make_certificates()
        self.start_dns()

    def close(self):
        for process in reversed(self.running):
            process.stop()

    def start_dns(self):
        lines = [f"listen-address={DNS}", "bind-interfaces", "no-resolv", "no-hosts", "local=/example/", "pid-file"]
        for domain, address in ADDRESS.items():
            lines.append(f"host-record=xmpp.{domain},{address}")
            lines.append(f"srv-host=_xmpp-server._tcp.{domain},xmpp.{domain},5269,10,50")
            lines.append(f"srv-host=_xmpp-client._tcp.{domain},xmpp.{domain},5222,10,50")
        for domain, (address, has_record) in SIP.items():
            lines.append(f"host-record=sip.{domain},{address}")
            if has_record:
                lines.append(f"srv-host=_sipfederationtls._tcp.{domain},sip.{domain},5061,100,1")
        self.path("dnsmasq.conf").write_text("\n".join(lines) + "\n")
        user = ["--user=root"] if os.getuid() == 0 else []
        process = self.spawn("dnsmasq", ["dnsmasq", "-k", *user, "-C", str(self.path("dnsmasq.conf"))])
        process.wait_for_port(DNS, 53)

    def make_certificates(self):
        """One authority, and for each domain a certificate that is good for both directions."""
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                     "-subj", "/CN=Interop CA", "-keyout", self.path("ca.key"), "-out", self.ca,
                     "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        for domain in {**ADDRESS, **SIP}:
            if not domain.startswith("f"):
                self.make_certificate(domain)

    def make_certificate(self, domain):
        """One certificate, good for both directions; that of `l.example` is good for all domains of SIPp."""
        key, request, certificate = (self.path(f"{domain}.{it}") for it in ("key", "csr", "crt"))
        # An old partner has a key that its old suites can use.
        kind = ["rsa:2048"] if domain == "o.example" else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        self.openssl("req", "-new", "-newkey", *kind, "-nodes", "-subj", f"/CN={domain}", "-keyout", key, "-out", request)
        names = [domain, f"xmpp.{domain}", f"sip.{domain}"]
        if domain == "l.example":
            names += [f"sip.f{flow}.{domain}" for flow in FLOWS]
        extensions = self.path(f"{domain}.ext")
        extensions.write_text(f"subjectAltName={','.join(f'DNS:{it}' for it in names)}\n"
                              "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        self.openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.path("ca.key"), "-CAcreateserial",
                     "-days", "30", "-extfile", extensions, "-out", certificate)
        self.path(f"{domain}.pem").write_bytes(certificate.read_bytes() + key.read_bytes())

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"openssl {arguments[0]}: {done.stderr}")

    def spawn(self, name, command, **options):
        process = Process(name, self.path(f"{name}.out"), command, **options)
        self.running.append(process)
        return process


class Process:
    """A program that we started and that we alone end, by its own id."""

    def __init__(self, name, log, command, **options):
        self.name = name
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)

    def wait_for_port(self, address, port, seconds=20.0):
        def ready():
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended with {self.child.returncode} at its start:\n{self.tail(20)}")
            return listens(address, port)

        until(f"{self.name} to listen on {address}:{port}", ready, seconds)

    def stop(self, seconds=15.0):
        """Asks it to end, then makes it. Gives back its exit code."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return self.child.returncode

    def tail(self, lines=30):
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
