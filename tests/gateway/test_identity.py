"""Who may come in: keys, tokens of a real issuer, trusted proxies, and what is asked of callers who show nothing."""

import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hyperion.gateway.front.caller import Peer
from hyperion.gateway.front.door import Door
from hyperion.gateway.front.identity import AUTHORIZATION, Identities
from hyperion.gateway.limits.book import LimitBook
from hyperion.schema.errors import Forbidden, NotReady, Unauthenticated
from hyperion.schema.protect import Access, Directory, EndpointLimits, IssuerRecord, KeyRecord, Protection, TenantRecord
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.serving import Serving, get, infer, on_uvloop, request, serving
from tests.oidc_issuer import AUDIENCE, OidcIssuer, SigningKey, encode, make_token

SECRET = "hyp_" + "s" * 43


def bearer(secret: str) -> dict[str, Any]:
    return {"authorization": f"Bearer {secret}"}


def key(secret: str = SECRET, tenant: str = "acme", expires_at: float = 0.0, *scopes: str) -> KeyRecord:
    return KeyRecord("k1", hashlib.sha256(secret.encode()).hexdigest(), tenant, scopes or ("infer",), expires_at)


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcIssuer]:
    with OidcIssuer() as one:
        yield one


def record(issuer: OidcIssuer, **fields: Any) -> IssuerRecord:
    return IssuerRecord(issuer.url, AUDIENCE, keys=tuple(one.jwk() for one in issuer.keys), **fields)


def claims(issuer: OidcIssuer, **fields: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "tenant": "acme", "iat": now, "exp": now + 600, **fields}
    return {name: value for name, value in given.items() if value is not None}


async def status(gateway: Serving, **headers: Any) -> int:
    return (await gateway.ask(infer("echo a", **headers))).status


@on_uvloop
async def test_an_endpoint_that_asks_for_nothing_lets_anybody_in(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        assert gateway.pool().guard is None
        assert await status(gateway, **bearer("whatever")) == 200


@on_uvloop
async def test_a_key_lets_in_until_it_is_gone(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        await gateway.protect(("obedient", obedient), directory=Directory(keys=(key(),)))
        refused = await gateway.ask(infer("echo a"))
        assert refused.status == 401
        assert "hyperion key create" in refused.error
        assert refused.headers["www-authenticate"] == "bearer"
        wrong = await gateway.ask(infer("echo a", **bearer(SECRET + "x")))
        assert (wrong.status, wrong.headers["www-authenticate"]) == (401, 'bearer error="invalid_token"')
        assert await status(gateway, **bearer(SECRET)) == 200
        assert await status(gateway, **bearer(SECRET)) == 200
        assert await status(gateway, **bearer(SECRET + "x")) == 401
        assert await status(gateway, authorization=SECRET) == 401
        assert await status(gateway, authorization="Basic " + base64.b64encode(b"a:b").decode()) == 401
        await gateway.protect(("obedient", obedient))
        assert await status(gateway, **bearer(SECRET)) == 401


@on_uvloop
async def test_a_key_ends_when_it_expires_though_it_is_remembered(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        await gateway.protect(
            ("obedient", obedient), directory=Directory(keys=(key(SECRET, "acme", gateway.now_s + 60),))
        )
        assert await status(gateway, **bearer(SECRET)) == 200
        gateway.now_s += 61
        assert await status(gateway, **bearer(SECRET)) == 401


@on_uvloop
async def test_wrong_credentials_are_refused_even_where_none_are_needed(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(("obedient", obedient), directory=Directory(keys=(key(),)))
        assert await status(gateway) == 200
        assert await status(gateway, **bearer("hyp_wrong")) == 401


@pytest.mark.parametrize(
    ("access", "tenant", "scopes", "expected"),
    [
        (Access(), "acme", ("infer",), 200),
        (Access(tenants=("acme",)), "acme", ("infer",), 200),
        (Access(tenants=("acme",)), "other", ("infer",), 403),
        (None, "acme", ("deploy",), 403),
        (None, "acme", ("admin",), 200),
    ],
)
@on_uvloop
async def test_an_endpoint_says_who_may_call_it(
    obedient: ServedVersion, access: Access | None, tenant: str, scopes: tuple[str, ...], expected: int
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        await gateway.protect(
            ("obedient", obedient),
            protection=Protection(access=access),
            directory=Directory(keys=(key(SECRET, tenant, 0.0, *scopes),)),
        )
        assert await status(gateway, **bearer(SECRET)) == expected
        assert await status(gateway) == (401 if access is not None else 200)
        shown = await gateway.ask(get("/v2/models/obedient", **bearer(SECRET)))
        assert shown.status == expected  # who may not call it does not see what it takes either


@on_uvloop
async def test_what_is_no_inference_asks_for_credentials_too_but_for_signs_of_life(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        directory = Directory(keys=(key(), key("hyp_d", "acme", 0.0, "deploy")))
        await gateway.protect(("obedient", obedient), directory=directory)
        for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/v2/models/obedient/ready"):
            assert (await gateway.ask(get(path))).status == 200, path
        for path in ("/v2", "/v2/models", "/v2/models/obedient"):
            assert (await gateway.ask(get(path))).status == 401, path
            assert (await gateway.ask(get(path, **bearer(SECRET)))).status == 200, path
        load = "/v2/repository/models/obedient/load"
        refused = await gateway.ask(request(b"{}", load))
        assert (refused.status, "--scope deploy" in refused.error) == (401, True)
        assert (await gateway.ask(request(b"{}", load, **bearer(SECRET)))).status == 403
        assert (await gateway.ask(request(b"{}", load, **bearer("hyp_d")))).status == 200
        assert len(gateway.changes) == 1


@on_uvloop
async def test_metrics_name_every_endpoint_so_they_are_for_those_who_may_read(obedient: ServedVersion) -> None:
    async with serving(require_auth=True) as gateway:
        scopes = ("infer", "read", "deploy", "admin")
        keys = tuple(key(f"hyp_{scope}", "acme", 0.0, scope) for scope in scopes)
        await gateway.protect(("obedient", obedient), directory=Directory(keys=keys))
        said = {scope: (await gateway.ask(get("/metrics", **bearer(f"hyp_{scope}")))).status for scope in scopes}
        assert said == {"infer": 403, "read": 200, "deploy": 200, "admin": 200}
        assert (await gateway.ask(get("/metrics"))).status == 401


@pytest.mark.parametrize(
    "path",
    [
        *(f"/v2/models/obedient/{verb}" for verb in ("infer", "generate", "generate_stream")),
        *("/v1/models/obedient:predict", "/invocations", "/v2/models/nobody/infer", "/v2/repository/index"),
        *("/v2/repository/models/obedient/load", "/v2/repository/models/obedient/unload"),
    ],
)
@on_uvloop
async def test_nothing_is_unpacked_for_those_who_may_not_ask(obedient: ServedVersion, path: str) -> None:
    async with serving(require_auth=True) as gateway:
        await gateway.protect(("obedient", obedient), directory=Directory(keys=(key(),)))
        packed = {"content_encoding": "gzip"}
        assert (await gateway.ask(request(b"no gzip at all", path, **packed))).status == 401
        asked = await gateway.ask(request(b"no gzip at all", path, **packed, **bearer(SECRET)))
        assert asked.status == (403 if path.endswith("load") else 404 if "nobody" in path else 400)


@on_uvloop
async def test_a_packed_request_counts_once(obedient: ServedVersion) -> None:
    async with serving() as gateway:
        limits = EndpointLimits(requests_per_second=0.001, burst=2)
        await gateway.protect(("obedient", obedient), protection=Protection(limits=limits))
        body = infer("echo a").partition(b"\r\n\r\n")[2]
        packed = request(gzip.compress(body), content_encoding="gzip")
        assert [(await gateway.ask(packed)).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("elsewhere", ["origin", "forwarded", "x_forwarded_for"])
@on_uvloop
async def test_neither_a_web_page_nor_a_proxy_commands_where_no_credentials_are_needed(
    obedient: ServedVersion, elsewhere: str
) -> None:
    unload = "/v2/repository/models/obedient/unload"
    async with serving(("obedient", obedient)) as gateway:
        from_elsewhere = {elsewhere: "http://evil.example"}
        assert (await gateway.ask(request(b"", unload, **from_elsewhere))).status == 401
        assert gateway.changes == []
        directory = Directory(keys=(key(), key("hyp_d", "acme", 0.0, "deploy")))
        await gateway.protect(("obedient", obedient), directory=directory)
        assert (await gateway.ask(request(b"", unload, **from_elsewhere, **bearer(SECRET)))).status == 403
        assert (await gateway.ask(request(b"", unload, **from_elsewhere, **bearer("hyp_d")))).status == 200
        assert (await gateway.ask(request(b"", unload))).status == 200


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        *((Peer(address), True) for address in ("", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")),
        *((Peer(address), False) for address in ("10.0.0.9", "::ffff:10.0.0.9", "fe80::1%eth0", "192.0.2.1")),
        (Peer("127.0.0.1", ("jobs.example",)), False),  # who shows a certificate has its scopes
    ],
    ids=lambda given: given if isinstance(given, bool) else " ".join((given.address, *given.names)),
)
def test_without_credentials_only_this_machine_commands_a_gateway_that_is_open(peer: Peer, may: bool) -> None:
    door = Door(Identities(), LimitBook(1))
    for scope in ("", "read"):
        door.check(scope, {}, peer)
    with contextlib.nullcontext() if may else pytest.raises((Unauthenticated, Forbidden)):
        door.check("deploy", {AUTHORIZATION: b"Bearer whatever"}, peer)


@on_uvloop
async def test_who_shows_nothing_learns_nothing_of_what_is_served(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        await gateway.protect(("obedient", obedient), directory=Directory(keys=(key(),)))
        for path in ("/v2/models/nobody/infer", "/v2/models/obedient/versions/9/infer"):
            unknown = await gateway.ask(infer("a", path=path))
            assert unknown.status == 401
            assert "version" not in unknown.error
            assert (await gateway.ask(infer("a", path=path, **bearer(SECRET)))).status == 404


@on_uvloop
async def test_only_a_trusted_proxy_can_say_who_its_caller_is(obedient: ServedVersion) -> None:
    for proxies, expected in ((("127.0.0.0/8",), 200), (("10.0.0.0/8",), 401), ((), 401)):
        async with serving(("obedient", obedient), require_auth=True, trusted_proxies=proxies) as gateway:
            await gateway.protect(("obedient", obedient))
            assert await status(gateway, x_hyperion_tenant="acme") == expected
            assert await status(gateway) == 401
            if proxies and expected == 200:
                assert await status(gateway, x_hyperion_tenant="two words") == 400


@on_uvloop
async def test_the_log_names_the_tenant_and_the_keys_id_and_no_secret(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), trusted_proxies=("127.0.0.0/8",)) as gateway:
        await gateway.protect(("obedient", obedient), directory=Directory(keys=(key(),)))
        assert await status(gateway, **bearer(SECRET)) == 200
        assert (await gateway.ask(request(b"{", **bearer(SECRET)))).status == 400
        assert await status(gateway, x_hyperion_tenant="other") == 200
        assert await status(gateway) == 200
        said = [(event.get("tenant"), event.get("key")) for event in gateway.events("request")]
        assert said == [("acme", "k1"), ("acme", "k1"), ("other", None), (None, None)]
        assert SECRET not in gateway.log_stream.getvalue()


@pytest.mark.interpreted
@on_uvloop
async def test_a_tenants_priority_is_the_highest_that_it_gets(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        directory = Directory(tenants=(TenantRecord("acme", priority=4),), keys=(key(),))
        await gateway.protect(("obedient", obedient), directory=directory)
        seen = []
        enqueue = gateway.pool().enqueue
        gateway.pool().enqueue = lambda pending: (seen.append(pending.priority), enqueue(pending))[1]  # type: ignore
        for asked in ({}, {"x_hyperion_priority": 0}, {"x_hyperion_priority": 7}):
            assert await status(gateway, **bearer(SECRET), **asked) == 200
        assert seen == [4, 4, 7]


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@on_uvloop
async def test_a_token_of_a_known_issuer_lets_its_tenant_in(
    obedient: ServedVersion, issuer: OidcIssuer, algorithm: str
) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        directory = Directory(issuers=(record(issuer),))
        await gateway.protect(
            ("obedient", obedient),
            protection=Protection(access=Access(tenants=("acme",), claims={"groups": "risk"})),
            directory=directory,
        )
        good = make_token(issuer.key(algorithm), claims(issuer, groups=["ops", "risk"]))
        assert await status(gateway, **bearer(good)) == 200
        assert await status(gateway, **bearer(make_token(issuer.key(algorithm), claims(issuer)))) == 403
        other = claims(issuer, tenant="other", groups="risk")
        assert await status(gateway, **bearer(make_token(issuer.key(algorithm), other))) == 403
        gateway.now_s += 700
        assert await status(gateway, **bearer(good)) == 401


@on_uvloop
async def test_rotated_keys_are_asked_for_and_withdrawn_ones_count_no_more(
    obedient: ServedVersion, issuer: OidcIssuer
) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        await gateway.protect(("obedient", obedient), directory=Directory(issuers=(record(issuer),)))
        old = make_token(issuer.key(), claims(issuer))
        assert await status(gateway, **bearer(old)) == 200
        issuer.rotate(keep=False)
        new = make_token(issuer.key(), claims(issuer))
        assert await status(gateway, **bearer(new)) == 401
        assert gateway.unknown_keys == [issuer.url]
        await gateway.protect(("obedient", obedient), directory=Directory(issuers=(record(issuer),)))
        assert await status(gateway, **bearer(new)) == 200
        assert await status(gateway, **bearer(old)) == 401


@on_uvloop
async def test_a_token_that_names_no_key_counts_while_its_issuer_has_two(
    obedient: ServedVersion, issuer: OidcIssuer
) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        one, two = SigningKey("one"), SigningKey("two")
        both = IssuerRecord(issuer.url, AUDIENCE, keys=(one.jwk(), two.jwk()))
        await gateway.protect(("obedient", obedient), directory=Directory(issuers=(both,)))
        for signer, expected in ((one, 200), (two, 200), (SigningKey("three"), 401)):
            token = make_token(signer, claims(issuer), {"kid": None})
            assert await status(gateway, **bearer(token)) == expected, signer.kid
        assert gateway.unknown_keys == [issuer.url], "it may be of a key that is new"


def sign_with_mac(secret: bytes, issuer: OidcIssuer) -> str:
    """A token whose "signature" is an HMAC under what everybody can read."""
    head = encode({"alg": "HS256", "typ": "JWT", "kid": issuer.key().kid})
    signed = f"{head}.{encode(claims(issuer))}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"


def forge(issuer: OidcIssuer) -> dict[str, str]:
    """Tokens that nobody may come in with, by what is wrong with each."""
    rsa, ec, stranger = issuer.key("RS256"), issuer.key("ES256"), SigningKey(issuer.key().kid)
    now = int(time.time())
    good = make_token(rsa, claims(issuer))
    head, body, signature = good.split(".")
    altered = encode({**claims(issuer), "tenant": "other"})
    unsigned = f"{encode({'alg': 'none', 'typ': 'JWT'})}.{body}."
    forged = {
        "no algorithm": unsigned,
        "none, spelled otherwise": f"{encode({'alg': 'NonE', 'typ': 'JWT'})}.{body}.",
        "none with a signature": f"{encode({'alg': 'none', 'kid': rsa.kid})}.{body}.{signature}",
        "an HMAC under the public key": sign_with_mac(rsa.pem(), issuer),
        "an HMAC under the modulus": sign_with_mac(rsa.jwk()["n"].encode(), issuer),
        "an HMAC under nothing": sign_with_mac(b"", issuer),
        "another's key of the same name": make_token(stranger, claims(issuer)),
        "a key of the token's own": make_token(stranger, claims(issuer), {"jwk": stranger.jwk()}),
        "a key from an address": make_token(stranger, claims(issuer), {"jku": "https://evil.example/keys"}),
        "a certificate of the token's own": make_token(stranger, claims(issuer), {"x5c": ["MII"]}),
        "a certificate from an address": make_token(stranger, claims(issuer), {"x5u": "https://evil.example"}),
        "a good signature with a jku": make_token(rsa, claims(issuer), {"jku": issuer.url + "/keys"}),
        "critical fields": make_token(rsa, claims(issuer), {"crit": ["exp"], "exp": now}),
        "an unencoded payload": make_token(rsa, claims(issuer), {"b64": False}),
        "a compressed payload": make_token(rsa, claims(issuer), {"zip": "DEF"}),
        "altered claims": f"{head}.{altered}.{signature}",
        "an altered header": f"{encode({'alg': 'RS256', 'kid': rsa.kid})}.{body}.{signature}",
        "no signature": f"{head}.{body}.",
        "half a signature": f"{head}.{body}.{signature[: len(signature) // 2]}",
        "another's signature": f"{head}.{body}.{make_token(ec, claims(issuer)).rpartition('.')[2]}",
        "zeros for a signature": make_token(ec, claims(issuer)).rpartition(".")[0] + "." + encode(bytes(64)),
        "the other algorithm's key": make_token(rsa, claims(issuer), {"kid": ec.kid}),
        "an algorithm that is not pinned": make_token(rsa, claims(issuer), {"alg": "PS256"}),
        "expired": make_token(rsa, claims(issuer, exp=now - 3600, iat=now - 7200)),
        "not valid yet": make_token(rsa, claims(issuer, nbf=now + 3600)),
        "issued in the future": make_token(rsa, claims(issuer, iat=now + 3600)),
        "without an end": make_token(rsa, claims(issuer, exp=None)),
        "an end that is text": make_token(rsa, claims(issuer, exp=str(now + 600))),
        "an end that is true": make_token(rsa, claims(issuer, exp=True)),
        "an end beyond all time": make_token(rsa, claims(issuer, exp=10**300)),
        "an end beyond all floats": make_token(rsa, claims(issuer, exp=10**400)),
        "issued before all floats": make_token(rsa, claims(issuer, iat=-(10**400))),
        "a beginning beyond all floats": make_token(rsa, claims(issuer, nbf=10**400)),
        "another audience": make_token(rsa, claims(issuer, aud="billing")),
        "no audience": make_token(rsa, claims(issuer, aud=None)),
        "an audience within a mapping": make_token(rsa, claims(issuer, aud={AUDIENCE: True})),
        "another issuer": make_token(rsa, claims(issuer, iss="https://evil.example")),
        "the issuer with a slash": make_token(rsa, claims(issuer, iss=issuer.url + "/")),
        "no issuer": make_token(rsa, claims(issuer, iss=None)),
        "no tenant": make_token(rsa, claims(issuer, tenant=None)),
        "a tenant that is a list": make_token(rsa, claims(issuer, tenant=["acme"])),
        "an encrypted token's form": f"{good}.{signature}.{signature}",
        "two parts": f"{head}.{body}",
        "no JSON": f"{encode(b'x' * 40)}.{body}.{signature}",
        "JSON that is no object": f"{encode(b'[1]')}.{body}.{signature}",
        "JSON nested too deep": f"{head}.{encode(b'[' * 3000)}.{signature}",
        "not base64": f"!!!.{body}.{signature}",
        "plain base64": f"{head}.{body}.{signature.replace('-', '+').replace('_', '/')}=",
        "bytes that are no text": f"{encode(bytes(range(128, 200)))}.{body}.{signature}",
        "another type": make_token(rsa, claims(issuer), {"typ": "secevent+jwt"}),
        "a key's name that is a number": make_token(rsa, claims(issuer), {"kid": 7}),
        "a header of many bytes": make_token(rsa, claims(issuer), {"x": "y" * 3000}),
    }
    assert len(forged) >= 40
    return forged


@on_uvloop
async def test_no_forged_or_malformed_token_comes_in_and_none_does_harm(
    obedient: ServedVersion, issuer: OidcIssuer
) -> None:
    async with serving(("obedient", obedient), require_auth=True) as gateway:
        await gateway.protect(("obedient", obedient), directory=Directory(issuers=(record(issuer),)))
        with await gateway.connect() as client:
            for fault, token in forge(issuer).items():
                answer = await client.ask(infer("echo a", **bearer(token)))
                assert answer.status == 401, (fault, answer.body)
                assert token not in answer.error
            good = make_token(issuer.key(), claims(issuer))
            assert (await client.ask(infer("echo a", **bearer(good)))).status == 200
        logged = gateway.log_stream.getvalue()
        assert not any(token in logged for token in forge(issuer).values())
        assert "internal" not in json.dumps(gateway.events())


def test_all_jobs_of_a_tenant_are_one_caller_until_the_tenant_changes() -> None:
    identities = Identities()
    identities.update(Directory(tenants=(TenantRecord("acme", priority=3),)))
    first = identities.for_jobs("acme")
    assert identities.for_jobs("acme") is first
    assert (first.tenant, first.record.priority, first.anonymous) == ("acme", 3, False)
    assert identities.for_jobs("other") is not first
    assert identities.for_jobs("").anonymous
    identities.update(Directory(tenants=(TenantRecord("acme", priority=5),)))
    assert identities.for_jobs("acme").record.priority == 5


@pytest.mark.parametrize("credentials", [f"Bearer {SECRET}", "Bearer a.b.c", "certificate"])
def test_nobody_is_unknown_before_the_first_directory_is_there(credentials: str) -> None:
    identities = Identities()
    identities.starting = True
    shown = {} if credentials == "certificate" else {AUTHORIZATION: credentials.encode()}
    peer = Peer("127.0.0.1", ("acme.example",) if credentials == "certificate" else ())
    with pytest.raises(NotReady, match="not known here yet"):
        identities.identify(shown, peer)
    assert identities.identify({}, Peer("127.0.0.1")).anonymous
    with pytest.raises(Unauthenticated, match="form"):
        identities.identify({AUTHORIZATION: b"Basic eDp5"}, peer)
    identities.update(Directory())
    if credentials == "certificate":
        assert identities.identify(shown, peer).tenant == ""
    else:
        with pytest.raises(Unauthenticated):
            identities.identify(shown, peer)
