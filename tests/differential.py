"""Reads documents on stdin and says what expat and libxml2 make of them.

Each document comes behind its length (4 octets, big endian). The answer for each is two reports,
expat's and libxml2's: a length of 4 octets and a dump, or the length 0xFFFFFFFF for a refusal. A
dump has one line per start tag (names with their namespaces, attributes sorted), end tag and run
of text; comments and instructions are lines of their own, so that nothing hides.
"""

import struct
import sys
from xml.parsers import expat

from lxml import etree


class Dump:
    def __init__(self):
        self.lines = []
        self.text = []

    def flush(self):
        if self.text:
            self.lines.append('T' + quoted(''.join(self.text)))
            self.text = []

    def start(self, name, attrs):
        self.flush()
        self.lines.append('S' + name + ''.join(f'\t{k}={quoted(v)}' for k, v in sorted(attrs)))

    def end(self):
        self.flush()
        self.lines.append('E')

    def data(self, text):
        self.text.append(text)

    def other(self, what):
        self.flush()
        self.lines.append(what)

    def octets(self):
        self.flush()
        return '\n'.join(self.lines).encode('utf-8')


def quoted(text):
    return text.replace('\\', '\\\\').replace('\n', '\\n').replace('\t', '\\t').replace('\r', '\\r')


def clark(name):
    # expat puts `}` between namespace and name when asked to.
    return '{' + name if '}' in name else name


def by_expat(document):
    dump = Dump()
    parser = expat.ParserCreate('UTF-8', '}')
    parser.StartElementHandler = lambda name, attrs: dump.start(
        clark(name), [(clark(k), v) for k, v in attrs.items()])
    parser.EndElementHandler = lambda name: dump.end()
    parser.CharacterDataHandler = dump.data
    parser.CommentHandler = lambda text: dump.other('C')
    parser.ProcessingInstructionHandler = lambda target, text: dump.other('P')
    try:
        parser.Parse(document, True)
    except expat.ExpatError:
        return None
    return dump.octets()


def by_libxml2(document):
    parser = etree.XMLParser(resolve_entities=False, no_network=True, encoding='utf-8')
    try:
        tree = etree.fromstring(document, parser)
    except etree.XMLSyntaxError:
        return None
    dump = Dump()

    def walk(node):
        if node.tag is etree.Comment:
            dump.other('C')
        elif node.tag is etree.ProcessingInstruction:
            dump.other('P')
        elif node.tag is etree.Entity:
            dump.other('R')
        else:
            dump.start(node.tag, node.attrib.items())
            if node.text:
                dump.data(node.text)
            for child in node:
                walk(child)
                if child.tail:
                    dump.data(child.tail)
            dump.end()

    walk(tree)
    return dump.octets()


def report(out, dump):
    if dump is None:
        out.write(b'\xFF\xFF\xFF\xFF')
    else:
        out.write(struct.pack('>I', len(dump)) + dump)


def main():
    sys.setrecursionlimit(10000)
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(4):
        document = source.read(struct.unpack('>I', head)[0])
        report(out, by_expat(document))
        report(out, by_libxml2(document))
    out.flush()


main()
