"""Who callers are by their certificates, or by the word of a proxy, on whole platforms that speak TLS."""

import http.client
import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.cli.test_commands import hyperion
from tests.e2e.access_doors import OK, REFUSED, SUMS, UNKNOWN, bearer, grpc_door, word
from tests.e2e.admin_client import wait_until
from tests.e2e.served import Answer, Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MODELS = Path(__file__).parent / "models"
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
TENANT = "kind: Tenant\nmetadata: {name: acme}\nspec: {certificates: [jobs.acme.example]}\n"
GUARDED = "kind: Endpoint\nmetadata: {name: guarded}\nspec: {model: sums@1, access: {tenants: [acme]}}\n"


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def issue(directory: Path, name: str, names: str, file: str = "") -> None:
    """A key, and a certificate of the authority for these names."""
    file = file or name
    (directory / "names").write_text(f"subjectAltName={names}")
    openssl(directory, "req", *EC, "-keyout", f"{file}.key", "-out", f"{file}.csr", "-subj", f"/CN={name}")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl(directory, "x509", "-req", "-in", f"{file}.csr", *signing, "-out", f"{file}.pem")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, its server and two of its clients, and a stranger who is his own authority."""
    directory = tmp_path_factory.mktemp("pki")
    for name in ("ca", "stranger"):
        openssl(directory, "req", "-x509", *EC, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    issue(directory, "server", "IP:127.0.0.1,DNS:localhost")
    issue(directory, "jobs", "DNS:jobs.acme.example")
    issue(directory, "visitor", "DNS:visitor.example")
    return directory


class Secured(Served):
    """A platform that speaks TLS, asked by a client who shows a certificate, or none."""

    def __init__(self, home: Path, pki: Path, *options: str, shows: str = "") -> None:
        self.pki = pki
        self.shows = shows
        tls = ("--tls-cert", str(pki / "server.pem"), "--tls-key", str(pki / "server.key"))
        super().__init__(home, MODELS / "sums", options=(*tls, *options))
        self.url = self.url.replace("http:", "https:")

    def context(self, shows: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.pem"))
        if shows:
            context.load_cert_chain(self.pki / f"{shows}.pem", self.pki / f"{shows}.key")
        return context

    def ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None, port: int | None
    ) -> Answer:
        context = self.context(self.shows)
        connection = http.client.HTTPSConnection("127.0.0.1", port or self.port, timeout=30, context=context)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def http_as(self, shows: str, model: str = "sums", **headers: str) -> str:
        """What the HTTP door says to somebody who shows this certificate."""
        before, self.shows = self.shows, shows
        try:
            return word(self.post(f"/v2/models/{model}/infer", SUMS, headers).status)
        except (ssl.SSLError, ConnectionError):
            return "no connection"
        finally:
            self.shows = before

    def grpc_as(self, shows: str, **headers: str) -> str:
        """What the gRPC door says."""
        key, chain = ((self.pki / f"{shows}.{kind}").read_bytes() for kind in ("key", "pem")) if shows else (None, None)
        credentials = grpc.ssl_channel_credentials((self.pki / "ca.pem").read_bytes(), key, chain)
        with grpc.secure_channel(self.grpc, credentials) as channel:
            said = grpc_door(self, headers, channel)
        return "no connection" if said == "StatusCode.UNAVAILABLE" else said

    def certificate(self) -> str:
        """The serial number that the server shows."""
        text = ssl.get_server_certificate(("127.0.0.1", self.port))
        done = subprocess.run(
            ["openssl", "x509", "-noout", "-serial"], input=text, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def run(self, *arguments: str) -> str:
        where = {"HYPERION_ADMIN_URL": f"http://127.0.0.1:{self.admin_port}", "HYPERION_HOME": str(self.home)}
        done = hyperion(*arguments, cwd=self.home.parent, **where)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, text: str) -> None:
        (self.home.parent / "applied.yaml").write_text(text)
        self.run("apply", "-f", "applied.yaml")


def test_a_certificate_stands_for_a_tenant_and_a_key_goes_beside_it(tmp_path: Path, pki: Path) -> None:
    options = ("--tls-client-ca", str(pki / "ca.pem"), "--require-auth", "--trusted-proxies", "10.0.0.0/8")
    with Secured(tmp_path / "home", pki, *options) as served:
        assert (served.http_as(""), served.grpc_as("")) == (UNKNOWN, UNKNOWN)
        assert (served.http_as("stranger"), served.grpc_as("stranger")) == ("no connection", "no connection")
        served.run("model", "push", "sums", str(MODELS / "sums"), "--version", "1")
        served.apply(TENANT + "---\n" + GUARDED)
        wait_until(lambda: served.http_as("jobs", "guarded") == OK)
        assert (served.http_as("jobs"), served.grpc_as("jobs")) == (OK, OK)
        assert (served.http_as("visitor"), served.http_as("visitor", "guarded")) == (OK, REFUSED)
        assert served.http_as("", **{"x-hyperion-tenant": "acme"}) == UNKNOWN  # no proxy of ours said so
        key = served.run("key", "create", "--tenant", "acme").strip()
        assert (served.http_as("", "guarded", **bearer(key)), served.grpc_as("", **bearer(key))) == (OK, OK)
        assert served.http_as("visitor", "guarded", **bearer(key)) == OK  # what was said first counts
        wrong = bearer("hyp_" + "w" * 43)
        assert (served.http_as("jobs", **wrong), served.grpc_as("jobs", **wrong)) == (UNKNOWN, UNKNOWN)
        assert ask_with_triton(served, "jobs") == [[2.0, 4.0]] * 2


def ask_with_triton(served: Secured, shows: str) -> list[Any]:
    """What NVIDIA's clients get, over HTTPS and over gRPC with TLS."""
    files = {name: str(served.pki / file) for name, file in (("root", "ca.pem"), ("key", f"{shows}.key"))}
    chain = str(served.pki / f"{shows}.pem")
    clients: list[tuple[Any, Any]] = [
        (
            tritonclient.http,
            tritonclient.http.InferenceServerClient(
                served.url.partition("://")[2],
                ssl=True,
                ssl_options={"ca_certs": files["root"], "keyfile": files["key"], "certfile": chain},
            ),
        ),
        (
            tritonclient.grpc,
            tritonclient.grpc.InferenceServerClient(
                served.grpc,
                ssl=True,
                root_certificates=files["root"],
                private_key=files["key"],
                certificate_chain=chain,
            ),
        ),
    ]
    answers = []
    for module, client in clients:
        inputs = [module.InferInput(name, [1, 2], "FP32") for name in ("a", "b")]
        for tensor in inputs:
            tensor.set_data_from_numpy(np.array([[1, 2]], np.float32))
        with client:
            answers += client.infer("sums", inputs).as_numpy("sum").tolist()
    return answers


def test_without_credentials_needed_nobody_connects_but_with_a_certificate(tmp_path: Path, pki: Path) -> None:
    with Secured(tmp_path / "home", pki, "--tls-client-ca", str(pki / "ca.pem"), shows="visitor") as served:
        served.wait_for_line("Callers     with a client certificate only")
        assert "--cert CLIENT.pem" in served.log.read_text()
        assert [served.http_as(who) for who in ("visitor", "", "stranger")] == [OK, "no connection", "no connection"]
        assert [served.grpc_as(who) for who in ("visitor", "", "stranger")] == [OK, "no connection", "no connection"]


def test_a_proxy_that_is_trusted_says_whose_the_request_is(tmp_path: Path, serve: Callable[..., Served]) -> None:
    served = serve(MODELS / "sums", options=("--require-auth", "--trusted-proxies", "127.0.0.0/8"))
    named = {"x-hyperion-tenant": "acme"}
    assert served.post("/v2/models/sums/infer", SUMS, named).status == 200
    assert (grpc_door(served, named), grpc_door(served, {})) == (OK, UNKNOWN)
    assert served.post("/v2/models/sums/infer", SUMS, {**named, **bearer("hyp_" + "w" * 43)}).status == 401


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, pki: Path) -> None:
    mine = tmp_path / "pki"
    mine.mkdir()
    for path in pki.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    with Secured(tmp_path / "home", mine, "--open") as served:
        old, pids = served.certificate(), [served.pids(role) for role in ("supervisor", "control", "gateway", "runner")]
        issue(mine, "server", "IP:127.0.0.1", file="renewed")
        for kind in ("key", "pem"):
            os.replace(mine / f"renewed.{kind}", mine / f"server.{kind}")
        wait_until(lambda: served.certificate() != old)
        assert (served.http_as(""), served.grpc_as("")) == (OK, OK)
        assert [served.pids(role) for role in ("supervisor", "control", "gateway", "runner")] == pids
