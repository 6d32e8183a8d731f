"""Bad input over SIP: which error for which input, what strangers get over UDP, and that nothing of theirs goes on."""

import asyncio
import contextlib
import re
import socket
import time

from resident import BLOCKING, Resident, cast, names, part, together
from scenarios import scenario
from sip_control import lines
from sip_stage import TCP_WIRE
from sip_torture import table
from sip_ua import Agent, Datagrams, Message, Stream, expect
from stage import Failed
from wire import client_context

FAR = "w.example"
SDP = ("v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\nt=0 0\r\n"
       "m=message 5060 sip null\r\na=accept-types:text/plain\r\n")


def request(method, **changes):
    """A sound request for `{user}` with these headers changed (None: left out; a list: as often)."""
    uri = changes.pop("uri", "sip:{user}@t.example")
    body = changes.pop("body", "")
    start = changes.pop("start", f"{method} {uri} SIP/2.0")
    tag = changes.pop("to_tag", None)
    headers = {
        "Via": "SIP/2.0/TCP 127.0.0.25:5060;branch=z9hG4bK{n}",
        "Max-Forwards": "70",
        "From": f"<sip:ann@{FAR}>;tag=f{{n}}",
        "To": "<sip:{user}@t.example>" + (f";tag={tag}" if tag else ""),
        "Call-ID": "c{n}",
        "CSeq": f"1 {method}",
        "Contact": f"<sip:ann@{FAR};opaque=user:epid:x;gruu>",
    }
    if method == "SUBSCRIBE":
        headers.update({"Event": "presence", "Accept": "application/pidf+xml"})
    if method == "INVITE" and not body:
        headers["Content-Type"], body = "application/sdp", SDP
    if method == "MESSAGE" and not body:
        headers["Content-Type"], body = "text/plain", "x"
    headers["Content-Length"] = str(len(body))
    for name, value in changes.items():
        headers[name.replace("_", "-")] = value
    rows = [f"{name}: {one}" for name, value in headers.items() if value is not None
            for one in (value if isinstance(value, list) else [value])]
    return "\r\n".join([start, *rows]) + "\r\n\r\n" + body


# Input, what is sent, answers that conform, and what the answer must hold. `gone`: the connection ends; 0: no answer.
ROWS = [
    ("start line unparseable", request("OPTIONS", start="OPTIONS sip:t.example"), (400,), ""),
    ("From missing", request("OPTIONS", From=None), (400,), ""),
    ("To missing", request("OPTIONS", To=None), (400,), ""),
    ("Call-ID missing", request("OPTIONS", Call_ID=None), (400,), ""),
    ("CSeq missing", request("OPTIONS", CSeq=None), (400,), ""),
    ("Via missing", request("OPTIONS", Via=None), (400, 0), ""),
    ("Via malformed", request("OPTIONS", Via="SIP/2.0/TCP ;;,"), (400, 0), ""),
    ("From malformed", request("OPTIONS", From="<sip:ann@"), (400,), ""),
    ("CSeq no number", request("OPTIONS", CSeq="one OPTIONS"), (400,), ""),
    ("two Froms", request("OPTIONS", From=[f"<sip:ann@{FAR}>;tag=1", f"<sip:bea@{FAR}>;tag=2"]), (400,), ""),
    ("two Call-IDs", request("OPTIONS", Call_ID=["a", "b"]), (400,), ""),
    ("two CSeqs", request("OPTIONS", CSeq=["1 OPTIONS", "2 OPTIONS"]), (400,), ""),
    ("two Tos", request("OPTIONS", To=["<sip:{user}@t.example>", "<sip:other@t.example>"]), (400,), ""),
    ("CSeq names another method", request("OPTIONS", CSeq="1 INVITE"), (400,), ""),
    ("a malformed response", "SIP/2.0 200 OK\r\nVia: ;\r\nContent-Length: 0\r\n\r\n", (0,), ""),
    ("an answer to nothing", request("OPTIONS", start="SIP/2.0 200 OK"), (0,), ""),
    ("version", request("OPTIONS", start="OPTIONS sip:{user}@t.example SIP/3.0"), (505,), ""),
    ("scheme", request("MESSAGE", uri="mailto:{user}@t.example"), (416,), ""),
    ("Max-Forwards 0", request("MESSAGE", Max_Forwards="0"), (483,), ""),
    ("method unknown", request("DANCE"), (501,), ""),
    *((f"method not allowed: {it}", request(it), (405,), "(?i)allow: .*INVITE")
      for it in ("REGISTER", "PUBLISH", "REFER", "UPDATE", "PRACK")),
    ("From domain not permitted", request("MESSAGE", From="<sip:eve@stranger.example>;tag=1"), (403,), ""),
    ("From domain not covered", request("MESSAGE", From="<sip:ann@f1.s.example>;tag=1"), (403,), "(?i)warning: 399"),
    ("From domain is ours", request("MESSAGE", From="<sip:{user}@t.example>;tag=1"), (403,), ""),
    ("Request-URI not ours", request("MESSAGE", uri="sip:{user}@elsewhere.example"), (404, 403), ""),
    ("Route to somebody else", request("MESSAGE", Route="<sip:127.0.0.67:5060;transport=tcp;lr>"), (403,), "(?i)relay"),
    ("user unknown, MESSAGE", request("MESSAGE", uri="sip:nobody@t.example"), (404,), ""),
    ("user unknown, INVITE", request("INVITE", uri="sip:nobody@t.example"), (404,), ""),
    ("user unknown, SUBSCRIBE", request("SUBSCRIBE", uri="sip:nobody@t.example"), (404,), ""),
    ("user unknown, OPTIONS", request("OPTIONS", uri="sip:nobody@t.example"), (404,), ""),
    ("blocked person, MESSAGE", request("MESSAGE", From=f"<sip:bad@{FAR}>;tag=1"), (480,), ""),
    ("blocked person, INVITE", request("INVITE", From=f"<sip:bad@{FAR}>;tag=1"), (480,), ""),
    ("Require unknown", request("INVITE", Require="unheard-of"), (420,), "(?i)unsupported: .*unheard-of"),
    ("batch of subscriptions", request("SUBSCRIBE", Require="adhoclist, categoryList"), (420,), "(?i)unsupported: .*adhoclist"),
    *((f"no such dialog: {it}", request(it, to_tag="t1.nothing"), (481,), "")
      for it in ("BYE", "INFO", "MESSAGE", "NOTIFY", "SUBSCRIBE", "INVITE")),
    ("CANCEL of nothing", request("CANCEL"), (481,), ""),
    ("ACK of nothing", request("ACK", to_tag="t1.nothing"), (0,), ""),
    ("BENOTIFY of nothing", request("BENOTIFY", to_tag="t1.nothing", Event="presence"), (0,), ""),
    ("Event missing", request("SUBSCRIBE", Event=None), (489, 400), ""),
    ("Event unknown", request("SUBSCRIBE", Event="conference"), (489,), "(?i)allow-events: .*presence"),
    ("Accept without PIDF", request("SUBSCRIBE", Accept="application/xpidf+xml"), (406,), "(?i)accept: .*application/pidf.xml"),
    ("Expires too small", request("SUBSCRIBE", Expires="5"), (423,), "(?i)min-expires: *60"),
    ("MESSAGE of an unknown type", request("MESSAGE", Content_Type="image/png", body="x"), (415,), "(?i)accept: .*text/plain"),
    ("INVITE of an unknown type", request("INVITE", Content_Type="application/strange", body="x"), (415,), "(?i)accept: "),
    ("content coding unknown", request("MESSAGE", Content_Encoding="gzip"), (415,), "(?i)accept-encoding: "),
    ("body too large", request("MESSAGE", Content_Length="1000000", Content_Type="text/plain", body="x" * 200_000), (413,), "gone"),
    ("header section too large", request("OPTIONS", Subject="x" * 40_000), (513,), "gone"),
    ("Content-Length missing", request("OPTIONS", Content_Length=None), (400,), "gone"),
    ("Content-Length negative", request("OPTIONS", Content_Length="-1"), (400,), "gone"),
    ("audio alone", request("INVITE", Content_Type="application/sdp",
                            body=SDP.replace("m=message 5060 sip null", "m=audio 5060 RTP/AVP 0")), (488,), "(?i)warning: 304"),
    ("a session description that is none", request("INVITE", Content_Type="application/sdp", body="never\r\n"), (400, 488), ""),
    ("group chat", request("INVITE", Require="com.microsoft.rtc-multiparty"), (420,), "(?i)unsupported: com.microsoft.rtc-multiparty"),
    ("conference invitation", request("INVITE", Content_Type="application/ms-conf-invite+xml", body="<Conferencing/>"), (488,), ""),
]


def filled(text, user, number):
    return text.replace("{user}", user).replace("{n}", f"{number}x{time.monotonic_ns()}").encode()


async def ask(world, octets, behind, seconds=20):
    """(statuses, all that came, whether the connection ended)."""
    async with lines(Stream.to(world.near.address, 5060, TCP_WIRE)) as (line,):
        agent = Agent("ann", FAR, line)
        line.send(octets)
        call = f"behind-{behind}-{time.monotonic_ns()}"
        line.send(agent.text("OPTIONS", "sip:t.example", "sip:t.example", call, 1, "t"))
        came, answered = [], False
        while not answered or (not came and behind != "silence"):
            try:
                it = await asyncio.wait_for(line.queue.get(), 3 if answered else seconds)
            except asyncio.TimeoutError:
                break
            if it is None:
                return came, True
            if it.get("call-id") == call:
                answered = True
            elif it.status >= 200:
                came.append(it)
        return came, False


@scenario("which error for which input, over TCP", near="tandem")
async def errors(world):
    user, = await cast(world.near, "erna")
    await user.ask("set", f"<block xmlns='{BLOCKING}'><item jid='bad@{FAR}'/></block>")
    name = user.boundjid.user

    async def one(number, row):
        _, text, may, _ = row
        return await ask(world, filled(text, name, number), "silence" if 0 in may and len(may) == 1 else "row")

    said = await asyncio.gather(*(one(*it) for it in enumerate(ROWS)))
    said += [await dialogs(world, user)]
    wrong = []
    for (what, _, may, holds), (came, ended) in zip([*ROWS, ("within a session", "", (), "")], said):
        if what == "within a session":
            wrong += came
            continue
        got = came[0].status if came else 0
        is_right = got in may and len(came) <= 1
        if holds == "gone":
            is_right = is_right and ended
        elif holds and got:
            is_right = is_right and re.search(holds, str(came[0])) is not None
        print(f"    {what:36} {' or '.join(map(str, may)):10} {got} {'' if is_right else 'WRONG'}".rstrip(), flush=True)
        if not is_right:
            wrong.append(f"{what}: {[str(it) for it in came] or 'no answer'}{', closed' if ended else ''}; not {may} {holds}")
    heard = [str(it) for it in user.tape if it.xml.tag == "{jabber:client}message"]
    await part(user)
    if wrong or heard:
        raise Failed("\n".join([f"{len(wrong)} wrong", *wrong, *heard]))


async def dialogs(world, user):
    """The rows that need a dialog or a transaction: (what is wrong, False)."""
    wrong = []
    other, = await together(Resident(world.near, *names(world.near, "edda")))
    await other.online()
    async with lines(Stream.to(world.near.address, 5060, TCP_WIRE)) as (line,):
        agent = Agent("ann", FAR, line)

        async def row(what, text, may, call):
            line.send(filled(text, other.boundjid.user, what.replace(" ", "")))
            it = await agent.take(what, lambda it: it.status >= 200 and it.get("call-id") == call, 10)
            right = it.status in may
            print(f"    {what:36} {' or '.join(map(str, may)):10} {it.status} {'' if right else 'WRONG'}".rstrip(), flush=True)
            if not right:
                wrong.append(f"{what}: {it}")
            return it

        mark = time.monotonic_ns()
        call, tag = f"session{mark}", f"<sip:ann@{FAR}>;tag=s{mark}"
        it = await row("INVITE", request("INVITE", Call_ID=call, From=tag, CSeq="10 INVITE"), (200,), call)
        ours = it.tag("to")
        line.send(filled(request("ACK", Call_ID=call, From=tag, CSeq="10 ACK", to_tag=ours), other.boundjid.user, "ack"))
        await row("merged request", request("INVITE", Call_ID=call, From=tag, CSeq="10 INVITE"), (482,), call)
        await row("CSeq lower than the last", request("MESSAGE", Call_ID=call, From=tag, CSeq="5 MESSAGE", to_tag=ours), (500,), call)
        await row("another's tag in the dialog", request("MESSAGE", Call_ID=call, From=f"<sip:ann@{FAR}>;tag=wrong",
                                                          CSeq="11 MESSAGE", to_tag=ours), (481,), call)
        await row("re-INVITE with audio", request("INVITE", Call_ID=call, From=tag, CSeq="12 INVITE", to_tag=ours,
                                                  Content_Type="application/sdp",
                                                  body=SDP.replace("m=message", "m=audio")), (488,), call)
        line.send(filled(request("ACK", Call_ID=call, From=tag, CSeq="12 ACK", to_tag=ours), other.boundjid.user, "ack2"))
        # A request of ours that comes back to us.
        other.send_raw(f"<message to='ann@{FAR}' type='chat'><body>where am I</body></message>")
        ours_out = await agent.take("our MESSAGE", lambda it: not it.status and it.method in ("MESSAGE", "INVITE"), 20)
        agent.replies(ours_out, 486, "Busy Here")
        mine = "SIP/2.0/TCP 127.0.0.25:5060;branch=z9hG4bK{n}"
        loop = f"loop{mark}"
        await row("loop", request("OPTIONS", Call_ID=loop, Via=[mine, ours_out.get("via")]), (482,), loop)
        line.send(filled(request("BYE", Call_ID=call, From=tag, CSeq="20 BYE", to_tag=ours), other.boundjid.user, "bye"))
        expect(await agent.take("the end", lambda it: it.status and it.get("cseq") == "20 BYE", 10), 200)
    await part(other)
    return wrong, False


METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "MESSAGE", "SUBSCRIBE", "NOTIFY", "BENOTIFY", "INFO",
           "REFER", "UPDATE", "PRACK", "PUBLISH", "SERVICE")
STRANGER = "127.0.0.66"
ELSEWHERE = "127.0.0.67"


def of_strangers(user):
    """Whatever a stranger may try: his own domain, a partner's, ours; to us, and through us to somebody else."""
    for method in METHODS:
        for sender in ("eve@stranger.example", "ann@v.example", "ann@w.example", "kim@k.example", "other@t.example"):
            for uri, route in ((f"sip:{user}@t.example", None), (f"sip:bob@{ELSEWHERE}", None),
                               (f"sip:{user}@t.example;maddr={ELSEWHERE}", f"<sip:{ELSEWHERE};lr>"),
                               (f"sip:bob@{ELSEWHERE}", "<sip:sip.t.example:5060;lr>")):
                more = {"Route": route} if route else {}
                yield filled(request(method, uri=uri, From=f"<sip:{sender}>;tag={{n}}", Via=f"SIP/2.0/UDP {ELSEWHERE};branch=z9hG4bK{{n}}",
                                     **more), user, "stranger")


class Counter:
    """A socket for one datagram: what came back."""

    def __init__(self, near, octets):
        self.sent = len(octets)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((STRANGER, 0))
        self.socket.setblocking(False)
        self.socket.sendto(octets, (near, 5060))
        self.came = []

    def look(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.came.append(self.socket.recv(65536))


@scenario("strangers over UDP get at most one packet of one and a half times theirs", near="tandem")
async def amplification(world):
    user, = await cast(world.near, "ulla")
    inputs = [octets for _, octets, _ in table("udp")]
    inputs += list(of_strangers(user.boundjid.user))[::3]
    whole = filled(request("SUBSCRIBE", From="<sip:ann@v.example>;tag=1"), user.boundjid.user, "cut")
    inputs += [whole[:it] for it in range(1, len(whole), 17)]
    inputs += [b"\r\n\r\n", b"\0" * 20, b"x" * 1200, b"OPTIONS sip:t.example SIP/2.0\r\n\r\n", b"INVITE sip:a SIP/2.0\r\nv: SIP/2.0/UDP a\r\n\r\n",
               b"OPTIONS sip:a SIP/2.0\r\nv:SIP/2.0/UDP a\r\n" + b"v:SIP/2.0/UDP a\r\n" * 60 + b"\r\n"]
    sockets = []
    async with lines(Datagrams.to(world.near.address, 5060, ELSEWHERE)) as (elsewhere,):
        for octets in inputs:
            sockets.append(Counter(world.near.address, octets))
            await asyncio.sleep(0)
        # Repeats would come 500 ms behind, and once more a second later.
        end = time.monotonic() + 1.8
        while time.monotonic() < end:
            for it in sockets:
                it.look()
            await asyncio.sleep(0.05)
        if elsewhere.octets:
            raise Failed(f"{elsewhere.octets} octets went where a Via said")
    worst = max(sum(map(len, it.came)) / it.sent for it in sockets)
    bad = [it for it in sockets if len(it.came) > 1 or sum(map(len, it.came)) > 1.5 * it.sent]
    answered = sum(bool(it.came) for it in sockets)
    good = [it for it in sockets for one in it.came if 200 <= Message(one).status < 300]
    for it in sockets:
        it.socket.close()
    print(f"    {len(sockets)} datagrams, {answered} answered, at worst {worst:.2f} of their octets", flush=True)
    if bad or good:
        raise Failed(f"{len(bad)} were amplified, {len(good)} granted: {[it.came for it in bad + good][:3]}")
    await part(user)


@scenario("nothing of strangers goes on: every method, over UDP, TCP and TLS", near="tandem")
async def nothing_goes_on(world):
    user, = await cast(world.near, "nele")
    near, name = world.near.address, user.boundjid.user
    reached = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(reached.append), ELSEWHERE, 5060)
    tries = list(of_strangers(name))
    try:
        async with lines(Datagrams.to(near, 5060, ELSEWHERE), Datagrams.to(near, 5060, STRANGER), Stream.to(near, 5060, STRANGER)) as wires:
            elsewhere, datagrams, stream = wires
            for it in tries:
                datagrams.send(it)
                stream.send(it)
            await drained(stream, tries)
            # A certificate of the authority, and of nobody whom we know; a partner's, who speaks for others.
            for certificate, source in (("n.example", "127.0.0.27"), ("l.example", "127.0.16.1")):
                context = client_context(world.stage, certificate)
                with contextlib.suppress(OSError):
                    async with lines(Stream.to(near, 5061, source, context, "sip.t.example")) as (secured,):
                        for it in tries:
                            secured.send(it)
                        await drained(secured, tries)
                        granted(secured)
            granted(datagrams)
            granted(stream)
            if reached or elsewhere.octets:
                raise Failed("something was forwarded")
    finally:
        server.close()
    await user.has_not("something of a stranger", lambda it: it.xml.tag != "{jabber:client}iq")
    print(f"    {len(METHODS)} methods, {len(tries)} requests on each of UDP, TCP and TLS: none granted, none forwarded", flush=True)
    await part(user)


async def drained(stream, tries):
    """All that is answered has been, or the connection has ended: the last of them is an answer to the last."""
    last = tries[-1].split(b"Call-ID: ")[1].split(b"\r\n")[0].decode()
    kept = []
    while True:
        it = await asyncio.wait_for(stream.queue.get(), 20)
        if it is None:
            break
        kept.append(it)
        if it.get("call-id") == last:
            break
    for it in kept:
        stream.queue.put_nowait(it)


def granted(wire):
    while not wire.queue.empty():
        it = wire.queue.get_nowait()
        if it is not None and (it.status < 400 or not it.status):
            raise Failed(f"a stranger got {it}")
