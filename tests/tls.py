"""Redis behind TLS: a proxy that terminates it before a server's Unix socket, and the files that belong to it."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trustme


class Files(NamedTuple):
    """PEM files. `client` holds certificate and key."""

    ca: str
    other_ca: str
    client: str
    client_cert: str
    client_key: str


class Authority:
    """A CA, a server certificate for localhost, a client certificate, and a CA that knows neither."""

    def __init__(self, directory: Path) -> None:
        self._ca, other = trustme.CA(), trustme.CA()
        client = self._ca.issue_cert("client@example.org")
        names = ("ca", "other_ca", "client", "client_cert", "client_key")
        self.files = Files(*(str(directory / f"{name} 100%.pem") for name in names))
        self._ca.cert_pem.write_to_path(self.files.ca)
        other.cert_pem.write_to_path(self.files.other_ca)
        client.private_key_and_cert_chain_pem.write_to_path(self.files.client)
        client.cert_chain_pems[0].write_to_path(self.files.client_cert)
        client.private_key_pem.write_to_path(self.files.client_key)

    def write_server(self, name: str, path: Path) -> None:
        """Write certificate and key of a server that is called `name`."""
        self._ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(path))

    def server_context(self, name: str, wants_client: bool) -> ssl.SSLContext:
        """A context for a server that is called `name`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        if wants_client:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@contextmanager
def tls_proxy(socket_path: str, context: ssl.SSLContext) -> Iterator[int]:
    """Run the proxy on a loop of its own; yield its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    writers: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket_path)
        writers.add(inner_writer)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def start() -> asyncio.Server:
        return await asyncio.start_server(connected, "localhost", 0, family=2, ssl=context)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # a transport closes its socket in a later turn of the loop

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(5)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
