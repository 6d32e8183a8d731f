"""XMPP by hand: exact bytes over a socket, for what no well-behaved program would send."""

import base64
import contextlib
import hashlib
import hmac
import os
import re
import select
import socket
import ssl
import subprocess
import threading
import time

from servers import PASSWORD
from stage import ADDRESS, Failed

CLIENT = "jabber:client"
PEER = "jabber:server"
STREAMS = "http://etherx.jabber.org/streams"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"


class Wire:
    """One connection. What came in and was not yet matched stays in `unread`."""

    def __init__(self, address, port, source=None):
        self.socket = socket.create_connection((address, port), timeout=10, source_address=source and (source, 0))
        self.unread = b""
        self.ended = False

    def send(self, data):
        data = data.encode() if isinstance(data, str) else data
        try:
            self.socket.sendall(data)
        except (OSError, ssl.SSLError):
            # The other side may have closed over what we sent before; what it said is still to be read.
            pass

    def receive(self, seconds):
        self.socket.settimeout(max(0.01, seconds))
        try:
            data = self.socket.recv(65536)
        except (TimeoutError, ssl.SSLWantReadError):
            return
        except (OSError, ssl.SSLError):
            data = b""
        self.unread += data
        self.ended = self.ended or not data

    def until(self, pattern, seconds=15):
        """Reads until the pattern has come; gives back the match and forgets what stood before its end."""
        end = time.monotonic() + seconds
        wanted = re.compile(pattern.encode(), re.S)
        while True:
            found = wanted.search(self.unread)
            if found:
                self.unread = self.unread[found.end():]
                return found
            if self.ended or time.monotonic() > end:
                state = "the connection ended" if self.ended else f"{seconds} s passed"
                raise Failed(f"{state} without {pattern!r}; unread: {self.unread[-600:]!r}")
            self.receive(end - time.monotonic())

    def until_end(self, seconds=15):
        """Reads until the other side closes."""
        end = time.monotonic() + seconds
        while not self.ended:
            if time.monotonic() > end:
                raise Failed(f"still open after {seconds} s; unread: {self.unread[-600:]!r}")
            self.receive(end - time.monotonic())
        return self.unread

    def dies_of(self, *conditions, seconds=15):
        """The stream error that RFC 6120 names comes, the closing tag behind it, then the end of the connection."""
        found = self.until(r"<stream:error[^>]*>\s*<([a-z-]+)", seconds)
        said = found.group(1).decode()
        if said not in conditions:
            raise Failed(f"stream error {said}, not {' or '.join(conditions)}; then: {self.unread[:300]!r}")
        self.until("</stream:stream>", seconds)
        self.close_politely()
        self.until_end(seconds)
        return said

    def header(self, space, to, sender=None, version="1.0", declaration=True, more=""):
        self.send(("<?xml version='1.0'?>" if declaration else "")
                  + f"<stream:stream xmlns='{space}' xmlns:stream='{STREAMS}' to='{to}'"
                  + (f" from='{sender}'" if sender else "")
                  + (f" version='{version}'" if version else "") + f"{more}>")

    def opened(self):
        """The stream id of the answer, and the features behind it."""
        head = self.until(r"<stream:stream[^>]*?\sid=(['\"])(.*?)\1[^>]*>")
        features = self.until(r"<stream:features\s*/>|<stream:features.*?</stream:features>")
        return head.group(2).decode(), features.group(0).decode()

    def starttls(self, context, name):
        self.send(f"<starttls xmlns='{TLS}'/>")
        self.until(r"<proceed[^>]*/>|<proceed[^>]*></proceed>")
        self.secure(context, name)

    def secure(self, context, name):
        self.socket.settimeout(10)
        self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self.unread = b""

    def close_politely(self):
        self.send("</stream:stream>")
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class OpensslWire(Wire):
    """The same through `openssl s_client`, which tells the keying material that Python's ssl keeps to itself."""

    def __init__(self, address, port, domain, ca):
        self.child = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"{address}:{port}", "-servername", domain, "-starttls", "xmpp",
             "-xmpphost", domain, "-CAfile", str(ca), "-verify_return_error", "-ign_eof", "-tls1_3",
             "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.unread = b""
        self.ended = False
        self.exporter = bytes.fromhex(self.until(r"Keying material: ([0-9A-F]{64})").group(1).decode())

    def send(self, data):
        self.child.stdin.write(data.encode() if isinstance(data, str) else data)
        self.child.stdin.flush()

    def receive(self, seconds):
        ready, _, _ = select.select([self.child.stdout], [], [], max(0.01, seconds))
        if ready:
            data = os.read(self.child.stdout.fileno(), 65536)
            self.unread += data
            self.ended = self.ended or not data

    def close(self):
        self.child.terminate()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()


def client_context(stage, certificate=None):
    context = ssl.create_default_context(cafile=str(stage.ca))
    if certificate:
        context.load_cert_chain(stage.path(f"{certificate}.crt"), stage.path(f"{certificate}.key"))
    return context


def secured(server, port=5222, space=CLIENT, sender=None, certificate=None, source=None):
    """A connection to the server under TLS, its second stream open, and that stream's id and features."""
    context = client_context(server.stage, certificate)
    wire = Wire(server.address, port, source)
    if port == 5223:
        wire.secure(context, server.domain)
    else:
        wire.header(space, server.domain, sender)
        wire.opened()
        wire.starttls(context, server.domain)
    wire.header(space, server.domain, sender)
    return (wire, *wire.opened())


def scram(wire, user, hash_name, binding=None, flag=None, password=PASSWORD):
    """SCRAM as RFC 5802 tells it. `binding` is (type, bytes): then it is the -PLUS form. True if the server lets us in."""
    kind = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}[hash_name]

    def mac(key, text):
        return hmac.new(key, text, kind).digest()

    flag = flag or (f"p={binding[0]}" if binding else "n")
    bare = f"n={user},r={base64.b64encode(os.urandom(18)).decode()}"
    first = base64.b64encode(f"{flag},,{bare}".encode()).decode()
    mechanism = f"SCRAM-{hash_name}" + ("-PLUS" if binding else "")
    wire.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{first}</auth>")
    answer = wire.until(r"<challenge[^>]*>(.*?)</challenge>|<failure.*?</failure>")
    if not answer.group(1):
        return answer.group(0).decode()
    challenge = base64.b64decode(answer.group(1)).decode()
    told = dict(it.split("=", 1) for it in challenge.split(","))
    salted = hashlib.pbkdf2_hmac(kind, password.encode(), base64.b64decode(told["s"]), int(told["i"]))
    client_key = mac(salted, b"Client Key")
    bound = base64.b64encode(f"{flag},,".encode() + (binding[1] if binding else b"")).decode()
    final = f"c={bound},r={told['r']}"
    text = f"{bare},{challenge},{final}".encode()
    signature = mac(hashlib.new(kind, client_key).digest(), text)
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
    wire.send(f"<response xmlns='{SASL}'>{base64.b64encode(f'{final},p={proof}'.encode()).decode()}</response>")
    answer = wire.until(r"<success[^>]*>(.*?)</success>|<failure.*?</failure>")
    if not answer.group(1):
        return answer.group(0).decode()
    verifier = base64.b64encode(mac(mac(salted, b"Server Key"), text)).decode()
    if base64.b64decode(answer.group(1)).decode() != f"v={verifier}":
        raise Failed("the server's own proof is wrong")
    return True


def end_point(wire):
    """`tls-server-end-point` (RFC 5929, 4): the hash of the server's certificate, here always by SHA-256."""
    return "tls-server-end-point", hashlib.sha256(wire.socket.getpeercert(binary_form=True)).digest()


def bound(server, user, resource="wire"):
    """A client that is logged in and bound."""
    wire, _, _ = secured(server)
    said = scram(wire, user, server.hash_name)
    if said is not True:
        raise Failed(f"login of {user}: {said}")
    wire.header(CLIENT, server.domain)
    wire.opened()
    wire.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
              f"<resource>{resource}</resource></bind></iq>")
    wire.until(r"<jid>[^<]*</jid>.*?</iq>")
    return wire


class Authority:
    """The server of `x.example` to which the near server dials back: it says of each key what it was told to say."""

    domain = "x.example"

    def __init__(self, stage):
        self.verdict = "valid"
        self.asked = []
        self.wires = []
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(stage.path("x.example.crt"), stage.path("x.example.key"))
        self.listener = socket.create_server((ADDRESS[self.domain], 5269))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        wire = Wire.__new__(Wire)
        wire.socket, wire.unread, wire.ended = connection, b"", False
        self.wires.append(wire)
        try:
            self.greet(wire, f"<starttls xmlns='{TLS}'><required/></starttls>")
            wire.until(r"<starttls[^>]*/>|<starttls[^>]*></starttls>")
            wire.send(f"<proceed xmlns='{TLS}'/>")
            wire.socket = self.context.wrap_socket(wire.socket, server_side=True)
            wire.unread = b""
            self.greet(wire, "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>")
            while True:
                asked = wire.until(r"<db:(verify|result)([^>]*)>([^<]*)</db:\1>|</stream:stream>", seconds=120)
                if asked.group(1) is None:
                    break
                of = {it: found.group(1).decode() for it in ("from", "to", "id")
                      if (found := re.search(rf"\s{it}=['\"](.*?)['\"]".encode(), asked.group(2)))}
                self.asked.append((asked.group(1).decode(), of))
                name = asked.group(1).decode()
                kind = self.verdict if name == "verify" else "valid"
                id_ = f" id='{of['id']}'" if "id" in of else ""
                wire.send(f"<db:{name} from='{of['to']}' to='{of['from']}'{id_} type='{kind}'/>")
            wire.send("</stream:stream>")
        except (Failed, OSError, KeyError):
            pass
        wire.close()

    def greet(self, wire, features):
        wire.until(r"<stream:stream[^>]*>")
        wire.send(f"<?xml version='1.0'?><stream:stream xmlns='{PEER}' xmlns:db='jabber:server:dialback' "
                  f"xmlns:stream='{STREAMS}' from='{self.domain}' id='{os.urandom(12).hex()}' version='1.0'>"
                  f"<stream:features>{features}</stream:features>")

    def close(self):
        # Closing alone would leave `accept` waiting and the port taken.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.listener.close()
        # Nor may a stream of this scenario answer for the next one.
        for wire in self.wires:
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)


def peer(server, sender=Authority.domain):
    """A stream from `x.example` to the server, under TLS, before any dialback."""
    context = client_context(server.stage)
    wire = Wire(server.address, 5269)
    more = " xmlns:db='jabber:server:dialback'"
    wire.header(PEER, server.domain, sender, more=more)
    wire.opened()
    wire.starttls(context, server.domain)
    wire.header(PEER, server.domain, sender, more=more)
    _, features = wire.opened()
    return wire, features


def dial(wire, server, sender=Authority.domain, key="a1b2c3"):
    wire.send(f"<db:result from='{sender}' to='{server.domain}'>{key}</db:result>")
    return wire.until(r"<db:result[^>]*type=['\"]([a-z]+)['\"]", seconds=30).group(1).decode()
