"""A client of our own on asyncio, with stream management (XEP-0198) that can be cut at any octet, and what cuts it.

It keeps what RFC 6120 and XEP-0198 ask of a client and nothing more: what was not acknowledged is sent again, the same
octets, after a resumption; what came is counted stanza by stanza. Not here: presence and rosters (`resident.py`).
"""

import asyncio
import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
from xml.parsers import expat

from servers import PASSWORD
from stage import Failed

SM = "urn:xmpp:sm:3"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
STREAM = "http://etherx.jabber.org/streams"
SALTED = {}


class Lost(Exception):
    """The connection ended."""


class Refused(Failed):
    """The server did not take the session back."""


class Element:
    """One first-level child of the stream, as far as the scenarios look into it."""

    __slots__ = ("attributes", "children", "name", "space", "text")

    def __init__(self, tag, attributes):
        self.space, _, self.name = tag.rpartition(" ")
        self.attributes = attributes
        self.children = []
        self.text = ""

    def get(self, name, default=None):
        return self.attributes.get(name, default)

    def child(self, name):
        return next((it for it in self.children if it.name == name), None)

    def __repr__(self):
        inner = "".join(map(repr, self.children)) + self.text
        return f"<{self.name} {self.attributes}>{inner}</{self.name}>"


class Reader:
    """Elements out of octets."""

    def __init__(self):
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.data
        self.open = []
        self.done = []

    def start(self, tag, attributes):
        it = Element(tag, attributes)
        if len(self.open) > 1:
            self.open[-1].children.append(it)
        self.open.append(it)

    def end(self, _):
        it = self.open.pop()
        if len(self.open) == 1:
            self.done.append(it)

    def data(self, text):
        if len(self.open) > 1:
            self.open[-1].text += text

    def feed(self, data):
        try:
            self.parser.Parse(data, False)
        except expat.ExpatError as why:
            raise Failed(f"the server sent what is no XML: {why}: {data[-300:]!r}") from None
        done, self.done = self.done, []
        return done


class Connection:
    """One connection, from its first octet to its end."""

    def __init__(self, server, address):
        self.server = server
        self.address = address
        self.queue = []

    async def open(self, user, context):
        """Logged in, the third stream open."""
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        self.header()
        await self.features()
        self.send(f"<starttls xmlns='{TLS}'/>")
        await self.expect("proceed")
        await self.secure(context)
        self.header()
        await self.features()
        await self.scram(user)
        self.header()
        return await self.features()

    async def secure(self, context):
        loop = asyncio.get_running_loop()
        transport = self.writer.transport
        protocol = transport.get_protocol()
        secured = await loop.start_tls(transport, protocol, context, server_hostname=self.server.domain,
                                       ssl_handshake_timeout=20)
        if secured is None:
            raise Lost("during the handshake")
        self.reader._transport = secured
        self.writer = asyncio.StreamWriter(secured, protocol, self.reader, loop)

    def header(self):
        self.parser = Reader()
        self.queue = []
        self.send(f"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='{STREAM}' "
                  f"to='{self.server.domain}' version='1.0'>")

    def send(self, data):
        if self.writer.transport.is_closing():
            raise Lost("closed")
        self.writer.write(data if isinstance(data, bytes) else data.encode())

    async def next(self):
        while not self.queue:
            data = await self.reader.read(65536)
            if not data:
                raise Lost("end of file")
            self.queue = self.parser.feed(data)
        return self.queue.pop(0)

    async def expect(self, *names):
        it = await self.next()
        if it.name not in names:
            raise Failed(f"{it}, not {names}")
        return it

    async def features(self):
        return await self.expect("features")

    async def scram(self, user):
        kind = self.server.hash_name
        name = {"SHA-1": "sha1", "SHA-256": "sha256"}[kind]

        def mac(key, text):
            return hmac.new(key, text, name).digest()

        bare = f"n={user},r={base64.b64encode(os.urandom(18)).decode()}"
        first = base64.b64encode(f"n,,{bare}".encode()).decode()
        self.send(f"<auth xmlns='{SASL}' mechanism='SCRAM-{kind}'>{first}</auth>")
        challenge = base64.b64decode((await self.expect("challenge")).text).decode()
        told = dict(it.split("=", 1) for it in challenge.split(","))
        key = (name, told["s"], told["i"])
        if key not in SALTED:
            SALTED[key] = hashlib.pbkdf2_hmac(name, PASSWORD.encode(), base64.b64decode(told["s"]), int(told["i"]))
        client_key = mac(SALTED[key], b"Client Key")
        final = f"c=biws,r={told['r']}"
        signature = mac(hashlib.new(name, client_key).digest(), f"{bare},{challenge},{final}".encode())
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
        self.send(f"<response xmlns='{SASL}'>{base64.b64encode(f'{final},p={proof}'.encode()).decode()}</response>")
        await self.expect("success")

    def close(self):
        if getattr(self, "writer", None) is not None:
            self.writer.transport.abort()


GONE = (Lost, OSError, ssl.SSLError, asyncio.IncompleteReadError)


class Session:
    """A user's session that outlives its connections, if the server has promised so."""

    def __init__(self, server, user, resource, address=None, resume=True):
        self.server = server
        self.user = user
        self.resource = resource
        self.full = f"{server.jid(user)}/{resource}"
        self.address = address or (server.address, 5222)
        self.context = ssl.create_default_context(cafile=str(server.stage.ca))
        self.resumable = resume
        self.id = None
        self.connection = None
        self.unacked = []
        self.acked = 0
        self.handled = 0
        self.resumptions = 0
        self.on_stanza = lambda it: None
        self.on_acked = lambda it: None
        self.waiting = {}

    @property
    def sent(self):
        return self.acked + len(self.unacked)

    async def connect(self):
        """A connection with this session on it, the old one taken back if there is one."""
        connection = Connection(self.server, self.address)
        try:
            await asyncio.wait_for(self.begin(connection), 30)
        except BaseException:
            connection.close()
            raise
        self.connection = connection

    async def begin(self, connection):
        await connection.open(self.user, self.context)
        if self.id is not None:
            connection.send(f"<resume xmlns='{SM}' previd='{self.id}' h='{self.handled}'/>")
            it = await connection.expect("resumed", "failed")
            if it.name == "failed":
                raise Refused(f"{self.full}: {it}")
            self.resumptions += 1
            self.settle(int(it.get("h")))
            for _, data in self.unacked:
                connection.send(data)
            return
        connection.send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                        f"<resource>{self.resource}</resource></bind></iq>")
        while (it := await connection.next()).get("id") != "bind":
            pass
        if it.get("type") != "result":
            raise Failed(f"bind of {self.full}: {it}")
        resume = " resume='true'" if self.resumable else ""
        connection.send(f"<enable xmlns='{SM}'{resume}/>")
        it = await connection.expect("enabled")
        if self.resumable:
            if it.get("resume") not in ("true", "1") or not it.get("id"):
                raise Failed(f"no resumption was promised: {it}")
            self.id = it.get("id")
        # XEP-0198, 4: both counts begin here.
        self.handled, self.acked, self.unacked = 0, 0, []

    def settle(self, handled):
        if not self.acked <= handled <= self.sent:
            raise Failed(f"{self.full}: h={handled} with {self.acked} acked and {self.sent} sent")
        done, self.unacked = self.unacked[:handled - self.acked], self.unacked[handled - self.acked:]
        self.acked = handled
        for mark, _ in done:
            self.on_acked(mark)

    def send(self, data, mark=None):
        """One stanza; it stays ours until it is acknowledged. A lost connection is noticed by whoever reads."""
        data = data.encode()
        self.unacked.append((mark, data))
        try:
            self.connection.send(data)
        except GONE:
            pass

    def ask_ack(self):
        try:
            self.connection.send(f"<r xmlns='{SM}'/>")
        except GONE:
            pass

    async def read(self):
        """Deals with what comes until the connection is gone: raises one of GONE."""
        while True:
            it = await self.connection.next()
            if it.space == SM:
                if it.name == "r":
                    self.connection.send(f"<a xmlns='{SM}' h='{self.handled}'/>")
                elif it.name == "a":
                    self.settle(int(it.get("h")))
                else:
                    raise Failed(f"{self.full} got {it}")
            elif it.name in ("message", "presence", "iq"):
                self.handled = (self.handled + 1) % 2**32
                waiting = self.waiting.pop(it.get("id"), None) if it.name == "iq" else None
                if waiting is not None and not waiting.done():
                    waiting.set_result(it)
                else:
                    self.on_stanza(it)
            elif it.name == "error":
                # `conflict` comes to a stream whose session went on elsewhere.
                raise Lost(f"stream error: {it}")
            else:
                raise Failed(f"{self.full} got {it}")

    def close(self):
        if self.connection is not None:
            self.connection.close()


class Cut:
    """Where a connection ends: after this many octets to the server (`up`) or from it, and how."""

    def __init__(self, up, at, how):
        self.up, self.at, self.how = up, at, how

    def __repr__(self):
        return f"Cut({'up' if self.up else 'down'} at {self.at}, {self.how})"


class Relay:
    """Passes octets between a client and a server; each new connection takes the next of `cuts`.

    `close` ends both sides in order, `reset` tears both down, `hang` leaves the server with a connection that is silent
    and open: it does not know that its client is gone.
    """

    def __init__(self, target, cuts):
        self.target = target
        self.cuts = list(cuts)
        self.done = []
        self.hanging = []
        self.tasks = set()

    async def open(self, address="127.0.0.1"):
        self.listener = await asyncio.start_server(self.accepted, address, 0)
        return self.listener.sockets[0].getsockname()

    async def accepted(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            await self.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self.tasks.discard(task)

    async def serve(self, reader, writer):
        cut = self.cuts.pop(0) if self.cuts else None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        ways = [asyncio.ensure_future(self.pump(source, sink, cut.at if cut and cut.up == up else None))
                for source, sink, up in ((reader, far_writer, True), (far_reader, writer, False))]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            reached = any(it.result() for it in done)
        finally:
            for it in ways:
                it.cancel()
        how = "close"
        if reached:
            self.done.append(cut)
            how = cut.how
        if how == "reset":
            for it in (writer, far_writer):
                it.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                it.transport.abort()
            return
        writer.close()
        if how == "hang":
            self.hanging.append(far_writer)
        else:
            far_writer.close()

    @staticmethod
    async def pump(source, sink, limit):
        """True once the limit is reached; False at the end of the source."""
        passed = 0
        try:
            while data := await source.read(65536):
                if limit is not None and passed + len(data) >= limit:
                    sink.write(data[:limit - passed])
                    return True
                passed += len(data)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        return False

    async def close(self):
        self.listener.close()
        for it in self.hanging:
            it.transport.abort()
        for it in list(self.tasks):
            it.cancel()
