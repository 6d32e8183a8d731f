"""slixmpp as a client that a scenario can wait on."""

import asyncio
import logging

import slixmpp
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from servers import PASSWORD
from stage import Failed

logging.getLogger("slixmpp").setLevel(logging.CRITICAL)
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class Client(slixmpp.ClientXMPP):
    """Keeps every stanza it was sent, by kind, in order."""

    def __init__(self, server, user, resource="desk", password=PASSWORD, mechanism=None, direct=False, domain=None,
                 as_it_comes=False, address=None, more=()):
        super().__init__(f"{user}@{domain or server.domain}/{resource}", password)
        self.ready = self.loop.create_future()
        self.messages = asyncio.Queue()
        self.presences = asyncio.Queue()
        self.ca_certs = str(server.stage.ca)
        self.auto_reconnect = False
        if not as_it_comes:
            self.bind_no_channel(mechanism)
        for plugin in ("xep_0030", "xep_0092", "xep_0199", *more):
            self.register_plugin(plugin)
        self["xep_0092"].software_name = "stage"
        self.add_event_handler("session_start", self.started)
        for event in ("failed_all_auth", "disconnected", "connection_failed", "ssl_invalid_chain"):
            self.add_event_handler(event, lambda it, event=event: self.broken(event, it))
        for name, queue in (("message", self.messages), ("presence", self.presences)):
            self.register_handler(Callback(f"every {name}", MatchXPath(f"{{jabber:client}}{name}"), queue.put_nowait))
        self.connect(address or (server.address, 5223 if direct else 5222), use_ssl=direct, force_starttls=not direct, disable_starttls=direct)

    def bind_no_channel(self, mechanism):
        """Says `n`, as a client without channel binding should.

        slixmpp 1.8.3 knows `tls-unique` alone, which TLS 1.3 does not have, and says `y` where it does not use it: a
        server that offers -PLUS must refuse both (RFC 5802, 6). The -PLUS forms are tried by hand instead.
        """
        plugin = self["feature_mechanisms"]
        usual = plugin.sasl_callback
        plugin.sasl_callback = lambda needed, wanted: usual(needed, wanted - {"channel_binding"}) | {
            it: None for it in wanted & {"channel_binding"}}
        plugin.use_mechs = {mechanism} if mechanism else {
            "PLAIN", *(f"SCRAM-SHA-{it}" for it in ("1", "256", "512"))}

    def started(self, _):
        self.send_presence()
        if not self.ready.done():
            self.ready.set_result(True)

    def broken(self, event, detail):
        if not self.ready.done():
            self.ready.set_exception(Failed(f"login of {self.requested_jid}: {event} {detail}"))

    @property
    def full(self):
        return self.boundjid.full

    async def login(self, seconds=20):
        try:
            await asyncio.wait_for(asyncio.shield(self.ready), seconds)
        except asyncio.TimeoutError:
            raise Failed(f"login of {self.requested_jid} took over {seconds} s") from None
        return self

    async def leave(self):
        """Closes the stream in order."""
        try:
            await asyncio.wait_for(self.disconnect(wait=1.0), 5)
        except asyncio.TimeoutError:
            self.abort()

    def say(self, to, body):
        self.send_message(mto=to, mbody=body, mtype="chat")

    async def message(self, seconds=20):
        try:
            return await asyncio.wait_for(self.messages.get(), seconds)
        except asyncio.TimeoutError:
            raise Failed(f"no message for {self.full} within {seconds} s") from None

    async def hears(self, sender, body, seconds=20):
        it = await self.message(seconds)
        got = (it["type"], str(it["from"]), it["body"])
        if got != ("chat", str(sender), body):
            raise Failed(f"{self.full} got {got}, not {('chat', str(sender), body)}: {it}")
        return it

    async def hears_error(self, sender, conditions, seconds=45):
        it = await self.message(seconds)
        if it["type"] != "error" or str(it["from"]) != str(sender) or it["error"]["condition"] not in conditions:
            raise Failed(f"{self.full} got no error {conditions} from {sender} but: {it}")
        return it["error"]["condition"]

    async def sees(self, sender, kind, seconds=20, condition=lambda it: True):
        """The next presence from `sender`; others, such as one's own, pass by."""
        end = self.loop.time() + seconds
        while True:
            try:
                it = await asyncio.wait_for(self.presences.get(), max(0.01, end - self.loop.time()))
            except asyncio.TimeoutError:
                raise Failed(f"{self.full} saw no presence {kind} of {sender} within {seconds} s") from None
            if str(it["from"]) == str(sender) and it["type"] == kind and condition(it):
                return it


async def together(*clients):
    await asyncio.gather(*(it.login() for it in clients))
    return clients


async def part(*clients):
    await asyncio.gather(*(it.leave() for it in clients))
