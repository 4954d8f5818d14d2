"""A site of twisted.web with an ASGI application below /talk, and a protocol of lines beside it, in one process.

``LINES`` and ``WEB`` in the environment say where to listen, as Twisted's endpoint descriptions.
"""

import os
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

from talk import Application, LineFactory, Room
from twisted.application import service, strports
from twisted.web.resource import Resource
from twisted.web.server import Site

from asgiserver.resource import ASGIResource


class Page(Resource):
    def render_GET(self, request):
        return (here / "page.html").read_bytes()


room = Room()
root = Resource()
root.putChild(b"", Page())
root.putChild(b"talk", ASGIResource(Application(room)))

application = service.Application("talk")
web = os.environ.get("WEB", "tcp:8000:interface=127.0.0.1")
lines = os.environ.get("LINES", "tcp:8001:interface=127.0.0.1")
strports.service(web, Site(root)).setServiceParent(application)
strports.service(lines, LineFactory(room)).setServiceParent(application)
