"""A SIP user agent that shares nothing with the switch: it writes its own messages and reads what comes.

Enough of SIP for the stage and no more: requests in and out of dialogs, answers, one queue of whatever came. It repeats
nothing, so it is for loopback alone.
"""

import asyncio
import itertools
import re
import uuid

from stage import Failed

NUMBERS = itertools.count(1)
COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length", "c": "content-type",
           "o": "event", "u": "allow-events", "k": "supported", "s": "subject", "e": "content-encoding"}


class Message:
    """One message as it came."""

    def __init__(self, octets):
        head, _, self.body = octets.partition(b"\r\n\r\n")
        self.octets = octets
        text = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace"))
        self.start, *lines = text.split("\r\n")
        self.headers = []
        for line in lines:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            self.headers.append((COMPACT.get(name, name), value.strip()))

    @property
    def status(self):
        """0 of a request."""
        return int(self.start.split(" ", 2)[1]) if self.start.startswith("SIP/") else 0

    @property
    def method(self):
        """A response's is its CSeq's."""
        return self.get("cseq").split()[-1] if self.status else self.start.split(" ", 1)[0]

    @property
    def uri(self):
        return self.start.split(" ")[1]

    def all(self, name):
        return [value for it, value in self.headers if it == name.lower()]

    def get(self, name):
        found = self.all(name)
        return found[0] if found else ""

    def tag(self, name):
        found = re.search(r";\s*tag=([^;\s]+)", self.get(name))
        return found.group(1) if found else None

    def __str__(self):
        return self.octets.decode("utf-8", "replace")


def cut(octets):
    """The first whole message on a stream and how long it is, or None."""
    start = len(octets) - len(octets.lstrip(b"\r\n"))
    end = octets.find(b"\r\n\r\n", start)
    if end < 0:
        return None
    found = re.search(rb"\r\n(?:content-length|l)[ \t]*:[ \t]*(\d+)", octets[start:end], re.I)
    whole = end + 4 + (int(found.group(1)) if found else 0)
    return (octets[start:whole], whole) if len(octets) >= whole else None


class Stream(asyncio.Protocol):
    """TCP, or TLS with a `context`."""

    scheme = "TCP"

    def __init__(self, heard=None):
        self.queue = asyncio.Queue()
        self.unread = b""
        self.ended = asyncio.get_running_loop().create_future()
        self.heard = heard

    @classmethod
    async def to(cls, address, port, source=None, context=None, name=None):
        loop = asyncio.get_running_loop()
        _, it = await loop.create_connection(cls, address, port, local_addr=source and (source, 0), ssl=context,
                                             server_hostname=name if context else None)
        it.scheme = "TLS" if context else "TCP"
        return it

    def connection_made(self, transport):
        self.transport = transport
        self.local = transport.get_extra_info("sockname")[:2]
        if self.heard:
            self.heard(self)

    def data_received(self, octets):
        self.unread += octets
        while True:
            found = cut(self.unread)
            if not found:
                break
            self.unread = self.unread[found[1]:]
            self.queue.put_nowait(Message(found[0]))

    def connection_lost(self, _):
        if not self.ended.done():
            self.ended.set_result(True)
        self.queue.put_nowait(None)

    def send(self, octets, *_):
        self.transport.write(octets)

    def close(self):
        self.transport.abort()


class Datagrams(asyncio.DatagramProtocol):
    """UDP; `local` is where answers come."""

    scheme = "UDP"

    def __init__(self, target):
        self.target = target
        self.queue = asyncio.Queue()
        self.octets = 0

    @classmethod
    async def to(cls, address, port, source, source_port=5060):
        loop = asyncio.get_running_loop()
        _, it = await loop.create_datagram_endpoint(lambda: cls((address, port)), local_addr=(source, source_port))
        return it

    def connection_made(self, transport):
        self.transport = transport
        self.local = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, octets, remote):
        self.octets += len(octets)
        if octets.strip():
            it = Message(octets)
            it.remote = remote
            self.queue.put_nowait(it)

    def error_received(self, _):
        pass

    def send(self, octets, where=None):
        self.transport.sendto(octets, where or self.target)

    def close(self):
        self.transport.close()


class Agent:
    """A user at the end of a line."""

    def __init__(self, user, domain, line):
        self.user, self.domain, self.line = user, domain, line
        self.tape = []
        self.etag = None
        self.host = "{}:{}".format(*line.local)

    @property
    def uri(self):
        return f"sip:{self.user}@{self.domain}"

    @property
    def contact(self):
        return f"<sip:{self.user}@{self.host};transport={self.line.scheme.lower()}>"

    def via(self):
        return f"SIP/2.0/{self.line.scheme} {self.host};branch=z9hG4bK{uuid.uuid4().hex};rport"

    async def take(self, what, condition, seconds=15):
        """The first message that fits; others stay for whoever asks later."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            for place, it in enumerate(self.tape):
                if condition(it):
                    return self.tape.pop(place)
            try:
                it = await asyncio.wait_for(self.line.queue.get(), max(0.01, end - loop.time()))
            except asyncio.TimeoutError:
                said = "\n".join(str(it)[:600] for it in self.tape[-4:])
                raise Failed(f"{self.uri} waited {seconds} s for {what}; it has:\n{said}") from None
            if it is None:
                raise Failed(f"{self.uri}: the connection ended, no {what}; it has {[it.start for it in self.tape]}")
            self.tape.append(it)

    async def silence(self, seconds, condition=lambda _: True):
        """Nothing that fits comes in this time."""
        try:
            it = await self.take("nothing", condition, seconds)
        except Failed:
            return
        raise Failed(f"{self.uri} got {it}")

    def text(self, method, uri, to, call, cseq, tag, more=(), body=b"", to_tag=None, routes=()):
        lines = [f"{method} {uri} SIP/2.0", f"Via: {self.via()}", "Max-Forwards: 70", *(f"Route: {it}" for it in routes),
                 f"From: <{self.uri}>;tag={tag}", f"To: <{to}>" + (f";tag={to_tag}" if to_tag else ""),
                 f"Call-ID: {call}", f"CSeq: {cseq} {method}", *more, f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def answer(self, call, cseq, seconds=15):
        """The final one."""
        number = str(cseq)
        return await self.take(f"an answer to {call} {cseq}", lambda it: it.status >= 200 and it.get("call-id") == call
                               and it.get("cseq").split()[0] == number, seconds)

    async def asks(self, method, uri, *more, body=b"", to=None, seconds=15):
        """One request outside any dialog, and its final answer."""
        call, tag = f"{uuid.uuid4().hex}", f"p{next(NUMBERS)}"
        self.line.send(self.text(method, uri, to or uri, call, 1, tag, more, body))
        return await self.answer(call, 1, seconds)

    async def registers(self):
        it = await self.asks("REGISTER", f"sip:{self.domain}", f"Contact: {self.contact}", "Expires: 600", to=self.uri)
        expect(it, 200)

    async def publishes(self, document):
        again = (f"SIP-If-Match: {self.etag}",) if self.etag else ()
        it = await self.asks("PUBLISH", self.uri, "Event: presence", "Expires: 600", "Content-Type: application/pidf+xml",
                             *again, body=document.encode())
        self.etag = expect(it, 200).get("sip-etag")
        return it

    async def says(self, uri, words):
        return await self.asks("MESSAGE", uri, "Content-Type: text/plain;charset=UTF-8", body=words.encode(), seconds=30)

    async def hears(self, method, condition=lambda _: True, seconds=20):
        """A request, which is answered 200."""
        it = await self.take(method, lambda it: not it.status and it.method == method and condition(it), seconds)
        self.replies(it, 200, "OK")
        return it

    def replies(self, request, status, reason, *more, body=b"", tag=None):
        to = request.get("to")
        if request.tag("to") is None:
            to += f";tag={tag or 'u' + str(next(NUMBERS))}"
        lines = [f"SIP/2.0 {status} {reason}", *(f"Via: {it}" for it in request.all("via")),
                 *(f"Record-Route: {it}" for it in request.all("record-route")), f"From: {request.get('from')}", f"To: {to}",
                 f"Call-ID: {request.get('call-id')}", f"CSeq: {request.get('cseq')}", *more, f"Content-Length: {len(body)}"]
        self.line.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body, getattr(request, "remote", None))


class Watch:
    """A subscription of an agent's."""

    def __init__(self, agent, uri, accept="application/pidf+xml"):
        self.agent, self.uri, self.accept = agent, uri, accept
        self.call, self.tag, self.cseq = uuid.uuid4().hex, f"w{next(NUMBERS)}", 0
        self.target, self.routes, self.to_tag = uri, (), None

    async def ask(self, expires=600):
        self.cseq += 1
        more = ("Event: presence", f"Accept: {self.accept}", f"Contact: {self.agent.contact}", f"Expires: {expires}")
        self.agent.line.send(self.agent.text("SUBSCRIBE", self.target, self.uri, self.call, self.cseq, self.tag, more,
                                             to_tag=self.to_tag, routes=self.routes))
        it = await self.agent.answer(self.call, self.cseq)
        if it.status in (200, 202) and self.to_tag is None:
            self.to_tag = it.tag("to")
            self.routes = tuple(reversed([one for line in it.all("record-route") for one in re.findall(r"<[^>]*>[^,]*", line)]))
            self.target = re.search(r"<([^>]*)>", it.get("contact")).group(1)
        return it

    async def told(self, state, *inside, seconds=20):
        """The next NOTIFY that says so."""
        def fits(it):
            return (it.get("call-id") == self.call and it.get("subscription-state").startswith(state)
                    and all(one.encode() in it.body for one in inside))
        return await self.agent.hears("NOTIFY", fits, seconds)


def expect(message, *statuses):
    if message.status not in statuses:
        raise Failed(f"{message.start}, not {statuses}:\n{message}")
    return message


def document(uri, basic="open", activity=None, note=None):
    """A presence document of RFC 3863, with RFC 4480's activity."""
    person = f"<dm:person id='p1'><r:activities><r:{activity}/></r:activities></dm:person>" if activity else ""
    noted = f"<note>{note}</note>" if note else ""
    return (f"<?xml version='1.0' encoding='UTF-8'?><presence xmlns='urn:ietf:params:xml:ns:pidf' "
            f"xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:r='urn:ietf:params:xml:ns:pidf:rpid' entity='{uri}'>"
            f"<tuple id='t1'><status><basic>{basic}</basic></status>{noted}</tuple>{person}</presence>")


__all__ = ["Agent", "Datagrams", "Message", "Stream", "Watch", "cut", "document", "expect"]
