"""The page's server from outside: who is let in, what is served, clients that are rude, slow or gone."""

import contextlib
import json
import re
import socket
import urllib.request

import pytest
from support.demo import PATIENCE_S, until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from paraedge_demo.server import MAX_CLIENTS


def get(port, path="/", **headers):
    """Status, headers and body of a request whose path is sent as it is."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
        if "Host" not in headers:
            lines.append(f"Host: 127.0.0.1:{port}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode().lower(), body


@pytest.fixture
def demo(pi_bundle, start):
    return start("--bundle", pi_bundle, "--port", 0, "--budget-ms", 500)


@contextlib.contextmanager
def follow(demo, query="", **options):
    """A client, past the greeting."""
    address = f"ws://127.0.0.1:{demo.port}/socket{query}"
    with connect(address, open_timeout=PATIENCE_S, **options) as client:
        assert json.loads(client.recv(PATIENCE_S))["type"] == "hello"
        yield client


def is_let_in(demo, query="", **options):
    try:
        with follow(demo, query, **options):
            return True
    except InvalidStatus:
        return False


def hear(client, condition):
    """The first message that is such."""
    return until(lambda: (said := json.loads(client.recv(PATIENCE_S))) and condition(said) and said, "it is not said")


def test_the_page_is_whole_without_a_network(demo):
    status, head, body = get(demo.port)
    assert status == 200
    assert "content-security-policy: default-src 'self'" in head
    files = re.findall(r'(?:src|href)="([^"]+)"', body.decode())
    assert {"static/demo.js", "static/demo.css"} <= set(files)
    for file in files:
        if not file.startswith("data:"):
            status, _, content = get(demo.port, f"/{file}")
            assert status == 200
            assert b"http://" not in content
            assert b"https://" not in content


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/../../../etc/passwd",
        "/static/",
        "/server.py",
    ],
)
def test_nothing_beside_the_page_is_served(demo, path):
    status, _, body = get(demo.port, path)
    assert status == 404
    assert b"import" not in body
    assert b"root:" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8360", "10.0.0.1", "[", "", "x@localhost", "localhost#@x"]
)
def test_a_page_of_another_name_is_not_let_in(demo, host):
    assert get(demo.port, Host=host)[0] in (400, 403)


def test_a_socket_from_a_foreign_page_is_not_let_in(demo):
    assert is_let_in(demo, origin=demo.url.rstrip("/"))
    assert not is_let_in(demo, origin="http://evil.example")


def test_frames_come_with_image_settings_and_figures(demo):
    with follow(demo) as client:
        first = hear(client, lambda said: said["frame"])
        later = hear(client, lambda said: said["frame"]["number"] > first["frame"]["number"] + 2)
    assert first["preview"].startswith("data:image/png;base64,")
    assert first["preview"] != later["preview"]
    assert first["settings"]["budget_ms"] == 500
    assert len(later["frame"]["branches"]) == 8
    assert later["summary"]["misses"] == 0
    assert first["header"]["labels"][0] == "T-shirt/top"


def test_settings_are_taken_or_refused(demo):
    with follow(demo) as client:
        client.send('{"budget_ms": 250, "policy": "static", "count": 2}')
        said = hear(client, lambda said: said["frame"] and said["frame"]["budget_ms"] == 250)
        assert said["frame"]["policy"] == "static"
        for wrong in ['{"budget_ms": -1}', '{"policy": "best"}', "[]", "{", '{"nonsense": 1}', '{"budget_ms": NaN}']:
            client.send(wrong)
            assert hear(client, lambda said: said["type"] == "refused")["message"]
        client.send(b"\x00\x01")
        assert hear(client, lambda said: said["type"] == "refused")["message"]
        assert hear(client, lambda said: said["type"] == "now")["settings"]["budget_ms"] == 250


def test_clients_that_are_rude_or_gone_disturb_nobody(demo):
    with follow(demo) as witness:
        with follow(demo) as rude:
            rude.send("x" * 100_000)  # more than anybody has to say
        with socket.create_connection(("127.0.0.1", demo.port)) as gone:  # in the middle of a frame
            gone.sendall(
                f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{demo.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            assert gone.recv(64)
            gone.sendall(b"\x81\xff\x00")
        now = hear(witness, lambda said: said["frame"])["frame"]["number"]
        hear(witness, lambda said: said["frame"]["number"] > now + 10)
    assert "Traceback" not in demo.stop()


def test_a_client_that_does_not_read_loses_frames_and_holds_up_nobody(demo):
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", demo.port))
    slow.sendall(
        f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{demo.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    with slow, follow(demo) as witness:
        first = hear(witness, lambda said: said["frame"])
        last = hear(witness, lambda said: said["frame"]["number"] > first["frame"]["number"] + 60)
    assert last["summary"]["misses"] <= 1
    assert demo.stop() == ""


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
def test_strangers_who_say_nothing_or_never_finish_keep_nobody_out(demo, said):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", demo.port)))
            with contextlib.suppress(ConnectionError):  # it had to give way already
                stranger.sendall(said)
        for _ in range(3):
            assert get(demo.port)[0] == 200
        assert is_let_in(demo)
        with follow(demo) as client:
            hear(client, lambda message: message["type"] == "now")
    assert demo.stop() == ""


def test_too_many_clients_are_turned_away(demo):
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CLIENTS):
            stack.enter_context(follow(demo))
        assert not is_let_in(demo)
    until(lambda: is_let_in(demo), "nobody is let in again")


def test_a_token_that_was_chosen_is_needed_on_this_machine_too(pi_bundle, start):
    demo = start("--bundle", pi_bundle, "--port", 0, "--token", "a-token_of.my~own")
    assert demo.url.endswith("/?token=a-token_of.my~own")
    assert get(demo.port)[0] == 403
    assert get(demo.port, "/?token=a-token_of.my~own")[0] == 303


@pytest.mark.parametrize("given", [None, "wrong", "é", ""])
def test_with_a_host_a_token_is_needed(pi_bundle, start, given):
    demo = start("--bundle", pi_bundle, "--port", 0, "--host", "127.0.0.1")
    token = re.search(r"\?token=(\S{16,})$", demo.url)[1]
    query = "" if given is None else f"?token={urllib.request.quote(given)}"
    for path in ("/", "/static/demo.js"):
        status, _, body = get(demo.port, path + query)
        assert status == 403
        assert token.encode() not in body
    cookie = {} if given is None else {"Cookie": f"paraedge-demo-token={given}"}
    assert not is_let_in(demo, query, additional_headers=cookie)

    status, head, _ = get(demo.port, f"/?token={token}", Host="raspberrypi.local")
    assert status == 303
    assert "httponly" in head
    assert "samesite=strict" in head
    right = {"Cookie": f"paraedge-demo-token={token}"}
    assert get(demo.port, "/", Host="raspberrypi.local", **right)[0] == 200
    assert is_let_in(demo, additional_headers=right)
    assert not is_let_in(demo, additional_headers=right, origin="http://evil.example")
