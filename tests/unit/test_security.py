"""Identities, keys, tokens, sessions, limits: through what a caller could send."""

import asyncio
import base64
import datetime
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from aurum.runtime import damage
from aurum.runtime.errors import ResourceExhaustedError
from aurum.runtime.http.bind_policy import is_loopback
from aurum.runtime.http.csrf import has_foreign_host, is_cross_site, is_same_origin
from aurum.security.api_keys import ApiKeys, KeyFile, KeyFileError, make_key, read_keys, write_keys
from aurum.security.identity import ASSIGNABLE, Identity, Role, parse_roles
from aurum.security.rate_limits import RateLimits
from aurum.security.sessions import Sessions
from aurum.security.tokens import Issuer, TokenError, Tokens, parse_keys

ISSUER, AUDIENCE = "https://login.example.com/", "aurumai"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


JWKS = {"keys": [jwk(RSA_KEY, "one", alg="RS256"), jwk(EC_KEY, "two", alg="ES256")]}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    base = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "iat": now, "exp": now + 300, "roles": ["operator"]}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def signed(content: Mapping[str, Any], key: Any = RSA_KEY, algorithm: str = "RS256", **header: Any) -> str:
    return jwt.encode(dict(content), key, algorithm=algorithm, headers={"kid": "one", **header})


def tokens(fetch: Any = None, issuer: Issuer | None = None, **options: Any) -> Tokens:
    async def known() -> Mapping[str, Any]:
        return JWKS

    return Tokens(issuer or Issuer(ISSUER, AUDIENCE), fetch or known, **options)


async def refusal(token: str, checker: Tokens | None = None) -> str:
    with pytest.raises(TokenError) as raised:
        await (checker or tokens()).identify(token)
    assert token not in str(raised.value)
    return str(raised.value)


async def test_token_of_issuer_yields_identity() -> None:
    found = await tokens().identify(signed(claims(preferred_username="ada", sites=["plant-a"])))
    assert (found.user_id, found.roles, found.kind) == ("ada", {Role.OPERATOR}, "token")
    assert found.sites == {"plant-a"}
    assert 0 < found.until - time.time() < 3600, "a session that it begins ends with it"
    by_curve = signed(claims(), EC_KEY, "ES256", kid="two")
    assert (await tokens().identify(by_curve)).user_id == "u-1"


@pytest.mark.parametrize("changes", [{"sub": ""}, {"sub": " "}, {"preferred_username": "key:line 3"}])
async def test_token_of_nobody_or_of_a_key_is_rejected(changes: dict[str, Any]) -> None:
    assert "user" in await refusal(signed(claims(**changes)))


async def test_users_with_odd_names_are_told_apart() -> None:
    """What is not printable, or too long for logs, makes two users one nowhere: a user owns sources."""
    names = ["ada", "ada?", "ada\n", "ada\t", "a" * 200, "a" * 201, "a" * 202]
    found = [await tokens().identify(signed(claims(preferred_username=name))) for name in names]
    assert len({each.owner for each in found}) == len(names)
    assert all(each.user_id.isprintable() and len(each.user_id) < 220 for each in found)
    assert [each.user_id for each in found[:2]] == names[:2]


async def test_roles_claim_may_be_nested_and_mapped() -> None:
    issuer = Issuer(ISSUER, AUDIENCE, roles_claim="realm_access.roles", role_of={"plant-managers": "engineer"})
    content = claims(roles=None, realm_access={"roles": ["plant-managers", "offline_access"]})
    assert (await tokens(issuer=issuer).identify(signed(content))).roles == {Role.ENGINEER}
    assert "no role" in await refusal(signed(claims(roles=["nothing"])))
    assert "no role" in await refusal(signed(claims(roles=["service"]))), "that of the platform's own is not given out"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": int(time.time()) - 120}, "expired"),
        ({"aud": "another"}, "Audience"),
        ({"iss": "https://evil.example.com/"}, "issuer"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"sub": None}, "sub"),
        ({"aud": None}, "aud"),
        ({"iss": None}, "iss"),
    ],
)
async def test_invalid_or_missing_claims_are_rejected(changes: dict[str, Any], why: str) -> None:
    assert why in await refusal(signed(claims(**changes)))


@pytest.mark.parametrize("claim", ["roles", "sites"])
@pytest.mark.parametrize(
    "value",
    [[], "", "  ", 7, True, None, {}, {"plant-a": True}, [{"id": "plant-a"}], ["plant-a", 7], ["plant-a", ""], [None]],
    ids=str,
)
async def test_empty_or_malformed_claim_is_rejected(claim: str, value: Any) -> None:
    content = claims()
    content[claim] = value
    assert claim in await refusal(signed(content))


async def test_sites_claim_of_a_nested_path_is_strict() -> None:
    checker = tokens(issuer=Issuer(ISSUER, AUDIENCE, sites_claim="plant.sites"))
    assert (await checker.identify(signed(claims()))).sites == frozenset()
    assert (await checker.identify(signed(claims(plant={"sites": "a b"})))).sites == {"a", "b"}
    for unreadable in ([], "a", 7, {"sites": []}):
        await refusal(signed(claims(plant=unreadable)), checker)


@pytest.mark.parametrize(
    "value", [10**400, 1e308, float("inf"), float("nan"), "soon", [], {}, True, -1, 0, 253_402_300_800], ids=str
)
@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
async def test_absurd_times_never_escape(claim: str, value: Any) -> None:
    content = claims()
    content[claim] = value
    try:
        found = await tokens().identify(signed(content))
    except TokenError:
        return
    assert claim != "exp"
    assert found.until < 253_402_300_800


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["roles", "sites", "exp", "iat", "sub", "nbf", "email"]), _JSON, max_size=4))
@settings(deadline=None, max_examples=200)
def test_no_claims_open_more_sites_than_they_name(changes: dict[str, Any]) -> None:
    """Whatever a signed token says, it is refused or means what it says: all sites only without a claim of sites."""
    try:
        token = signed({**claims(), **changes})
    except (TypeError, ValueError):
        reject()  # such claims cannot be signed
    try:
        found = asyncio.run(tokens().identify(token))
    except TokenError:
        return
    assert found.roles
    assert bool(found.sites) == ("sites" in changes)


async def test_token_not_yet_valid_is_rejected() -> None:
    assert "not yet valid" in await refusal(signed(claims(nbf=int(time.time()) + 600)))


async def test_token_with_foreign_signature_is_rejected() -> None:
    assert "Signature" in await refusal(signed(claims(), OTHER_KEY))
    assert "not a key of its issuer" in await refusal(signed(claims(), OTHER_KEY, kid="their-own"))
    body, _, _ = signed(claims()).rpartition(".")
    assert "Signature" in await refusal(f"{body}.{'A' * 342}")


async def test_none_and_confused_algorithms_are_rejected() -> None:
    none = jwt.encode(claims(), None, algorithm="none", headers={"kid": "one"})
    assert "algorithm" in await refusal(none)
    public = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "HS256", "typ": "JWT", "kid": "one"}
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims())]
    import hashlib
    import hmac

    signature = hmac.new(public, b".".join(parts), hashlib.sha256).digest()
    confused = b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()
    assert "algorithm" in await refusal(confused)
    assert "algorithm differs from that of its key" in await refusal(signed(claims(), RSA_KEY, "RS512"))


@pytest.mark.parametrize("kid", ["", "../../etc/passwd", "one' OR '1'='1", "x" * 300, 7, None, ["one"]])
async def test_malformed_or_malicious_key_id_is_rejected(kid: Any) -> None:
    header = {"alg": "RS256", "typ": "JWT", **({} if kid is None else {"kid": kid})}
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in (header, claims())]
    await refusal(".".join([*parts, "c2lnbmF0dXJl"]))


async def test_keys_embedded_in_token_are_ignored() -> None:
    await refusal(signed(claims(), OTHER_KEY, kid="mine", jwk=jwk(OTHER_KEY, "mine"), jku="https://evil.example.com/"))


@given(st.text(max_size=300))
async def test_arbitrary_text_is_rejected_as_token(text: str) -> None:
    with pytest.raises(TokenError):
        await tokens().identify(text)


async def test_unknown_key_ids_refetch_keys_at_limited_rate() -> None:
    now, asked, served = [1000.0], [0], {"keys": JWKS["keys"][:1]}

    async def fetch() -> Mapping[str, Any]:
        asked[0] += 1
        return served

    checker = tokens(fetch, clock=lambda: now[0])
    await checker.identify(signed(claims()))
    for number in range(50):
        await refusal(signed(claims(), OTHER_KEY, kid=f"unknown-{number}"), checker)
    assert asked[0] == 1
    served["keys"] = [jwk(OTHER_KEY, "new")]
    now[0] += 11
    await checker.identify(signed(claims(), OTHER_KEY, kid="new"))
    assert asked[0] == 2


async def test_known_keys_stay_valid_during_issuer_outage() -> None:
    now, away = [1000.0], [False]

    async def fetch() -> Mapping[str, Any]:
        if away[0]:
            raise OSError("no route")
        return JWKS

    checker = tokens(fetch, clock=lambda: now[0])
    await checker.identify(signed(claims()))
    away[0] = True
    now[0] += 3600
    assert (await checker.identify(signed(claims()))).user_id == "u-1"
    assert checker.problem is not None
    assert "no route" in await refusal(signed(claims(), OTHER_KEY, kid="new"), checker)


def test_key_set_without_public_keys_is_rejected() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"}
    for content in ({"keys": [secret]}, {"keys": []}, {}, {"keys": [{"kty": "RSA", "kid": "x"}, 7]}):
        with pytest.raises(ValueError, match="key set"):
            parse_keys(content)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


async def test_api_key_is_valid_until_revoked(key_file: Path) -> None:
    now = [0.0]
    key, record = make_key("line 3", ("operator",), ("plant-a",))
    write_keys(key_file, KeyFile(keys=(record,)))
    keys = ApiKeys(key_file, clock=lambda: now[0])
    found = await keys.identify(key, "here")
    assert found == record.identity()
    assert (found.user_id, found.roles, found.sites) == ("key:line 3", {Role.OPERATOR}, {"plant-a"})
    session = keys.session_identity(found.key_id)
    assert session is not None
    assert session.kind == "session"
    assert await keys.identify(key[:-1] + ("A" if key[-1] != "A" else "B"), "here") is None
    write_keys(key_file, KeyFile())
    now[0] += 6
    assert await keys.identify(key, "here") is None
    assert keys.session_identity(found.key_id) is None, "nor does a session that it began"


async def test_key_guessing_is_rate_limited_per_client(key_file: Path) -> None:
    now = [0.0]
    key, record = make_key("line 3", ("operator",))
    write_keys(key_file, KeyFile(keys=(record,)))
    keys = ApiKeys(key_file, clock=lambda: now[0])
    for number in range(20):
        assert await keys.identify(f"aurum_{record.id}_{number:043}", "there") is None
    with pytest.raises(ResourceExhaustedError) as raised:
        await keys.identify(f"aurum_{record.id}_{99:043}", "there")
    assert raised.value.retry_after == pytest.approx(5)
    assert await keys.identify("aurum_aaaaaaaaaa_" + "b" * 43, "there") is None, "a key that is none costs no hash"
    assert await keys.identify(key, "here") is not None
    assert await keys.identify(key, "there") is not None, "who has been in lately is not kept out by others there"
    now[0] += 6
    assert await keys.identify(f"aurum_{record.id}_{99:043}", "there") is None


async def test_invalid_key_file_keeps_last_good_keys(key_file: Path) -> None:
    now = [0.0]
    key, record = make_key("line 3", ("operator",))
    write_keys(key_file, KeyFile(keys=(record,)))
    keys = ApiKeys(key_file, clock=lambda: now[0])
    await asyncio.to_thread(key_file.write_text, "keys: [nonsense")
    now[0] += 6
    assert await keys.identify(key, "here") is not None


@pytest.mark.parametrize("sites", [("",), ("plant-a", ""), (" ",), ("x" * 65,)])
def test_key_of_a_site_without_a_name_is_not_made(sites: tuple[str, ...]) -> None:
    """An empty site would be no bond: it stands for all sites in questions, and for machines that have none."""
    with pytest.raises(ValueError, match="sites"):
        make_key("x", ("viewer",), sites)


@pytest.mark.parametrize("wrong", [{"id": "bbbbbbbbbb", "name": "x", "roles": ["boss"]}, "nonsense", None, {}])
async def test_wrong_key_costs_the_others_nothing(key_file: Path, wrong: object) -> None:
    key, record = make_key("line 3", ("operator",))
    content = {"keys": [wrong, record.model_dump(mode="json")]}
    await asyncio.to_thread(key_file.write_text, yaml.safe_dump(content))
    keys = ApiKeys(key_file)
    assert await keys.identify(key, "here") is not None
    assert await keys.identify("aurum_bbbbbbbbbb_" + key.split("_", 2)[2], "here") is None
    assert damage.counts()["key"] == 1
    with pytest.raises(KeyFileError, match=r"keys\.0"):
        read_keys(key_file)  # as commands do, which would write the file without it


def test_key_file_is_private_and_has_no_secret(key_file: Path) -> None:
    key, record = make_key("line 3", ("operator",))
    write_keys(key_file, KeyFile(keys=(record,)))
    assert key_file.stat().st_mode & 0o077 == 0
    assert key.split("_", 2)[2] not in key_file.read_text()


async def test_expired_and_malformed_keys_are_rejected(key_file: Path) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    key, record = make_key("old", ("viewer",), expires=past)
    write_keys(key_file, KeyFile(keys=(record,)))
    keys = ApiKeys(key_file)
    assert await keys.identify(key, "here") is None
    for text in ("", "aurum_", "aurum_aaaaaaaaaa_short", "Bearer x", key + "x", "aurum_" + "a" * 10 + "_" + "b" * 43):
        assert await keys.identify(text, "here") is None


def test_invalid_key_file_is_rejected_by_field(key_file: Path) -> None:
    key_file.write_text("keys: [{id: abc, name: x, roles: [boss], created: 2026-01-01, hash: plain}]")
    with pytest.raises(KeyFileError, match=r"keys\.0"):
        read_keys(key_file)
    with pytest.raises(ValueError, match="boss"):
        make_key("x", ("boss",))


def test_session_yields_identity_until_it_expires() -> None:
    now = [1000.0]
    sessions = Sessions(b"s" * 32, 3600, clock=lambda: now[0])
    ada = Identity("ada", frozenset({Role.ENGINEER}), "token", frozenset({"plant-a"}))
    cookie = sessions.begin(ada)
    found = sessions.identify(cookie)
    assert found == Identity("ada", ada.roles, "session", ada.sites, until=now[0] + 3600)
    assert Sessions(b"t" * 32, 3600, clock=lambda: now[0]).identify(cookie) is None
    now[0] += 3601
    assert sessions.identify(cookie) is None
    short = sessions.begin(replace(ada, until=now[0] + 5))
    now[0] += 6
    assert sessions.identify(short) is None
    with pytest.raises(ValueError, match="32 bytes"):
        Sessions(b"short", 1)


@given(st.text(max_size=200), st.integers(0, 400))
def test_altered_session_is_rejected(text: str, at: int) -> None:
    sessions = Sessions(b"s" * 32, 3600)
    cookie = sessions.begin(Identity("ada", frozenset({Role.VIEWER}), "key"))
    assert sessions.identify(text) is None
    changed = (
        cookie[: at % len(cookie)] + ("A" if cookie[at % len(cookie)] != "A" else "B") + cookie[at % len(cookie) + 1 :]
    )
    found = sessions.identify(changed)
    assert found is None or changed.rpartition(".")[0] == cookie.rpartition(".")[0], (
        "the last bits of base64 say nothing"
    )


def test_each_role_includes_exactly_the_intended_roles() -> None:
    def of(role: Role) -> Identity:
        return Identity("x", frozenset({role}), "key")

    reach = {role: {other for other in ASSIGNABLE if of(role).has(other)} for role in ASSIGNABLE}
    assert reach[Role.VIEWER] == {Role.VIEWER}
    assert reach[Role.OPERATOR] == {Role.VIEWER, Role.OPERATOR}
    assert reach[Role.ENGINEER] == {Role.VIEWER, Role.OPERATOR, Role.ENGINEER}
    assert reach[Role.INGEST] == {Role.INGEST}
    assert reach[Role.ADMIN] == set(ASSIGNABLE)
    assert not of(Role.ADMIN).has(Role.SERVICE)
    with pytest.raises(ValueError, match="service"):
        parse_roles(["service"])


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), max_size=60))
def test_rate_limit_never_exceeds_rate_and_burst(steps: list[tuple[float, float]]) -> None:
    now, taken = [0.0], 0.0
    limits = RateLimits(rate=10, burst=20, clock=lambda: now[0])
    for wait, tokens_ in steps:
        now[0] += wait
        if limits.take("one", tokens_) == 0:
            taken += tokens_
    assert taken <= 20 + 10 * now[0] + 1e-6


def test_rate_limit_buckets_refill_and_are_separate() -> None:
    now = [0.0]
    limits = RateLimits(rate=2, burst=4, kept=3, clock=lambda: now[0])
    assert [limits.take("loud") for _ in range(4)] == [0, 0, 0, 0]
    assert limits.take("loud") == pytest.approx(0.5)
    assert limits.take("quiet") == 0
    now[0] += 0.5
    assert limits.take("loud") == 0
    for number in range(10):
        limits.take(f"many-{number}")
    assert len(limits) == 3


@pytest.mark.parametrize(
    ("headers", "elsewhere", "ourselves"),
    [
        ({}, False, False),
        ({"sec-fetch-site": "same-origin"}, False, True),
        ({"sec-fetch-site": "none"}, False, True),
        ({"sec-fetch-site": "cross-site"}, True, False),
        ({"sec-fetch-site": "same-site"}, True, False),
        ({"origin": "http://localhost:8000", "host": "localhost:8000"}, False, True),
        ({"origin": "http://localhost:9000", "host": "localhost:8000"}, True, False),
        ({"origin": "null", "host": "localhost:8000"}, True, False),
        ({"origin": "http://evil.example", "host": "localhost:8000", "sec-fetch-site": "same-origin"}, False, True),
    ],
)
def test_request_origin_is_recognized(headers: dict[str, str], elsewhere: bool, ourselves: bool) -> None:
    assert (is_cross_site(headers), is_same_origin(headers)) == (elsewhere, ourselves)


def test_foreign_host_names_are_recognized() -> None:
    own = ("localhost", "localhost:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "[::1]", "a.localhost:1", "")
    assert not any(has_foreign_host({"host": each}) for each in own)
    foreign = ("evil.example", "evil.example:8000", "10.0.0.1:8000", "localhost.evil.example", "[fe80::1]:8000")
    assert all(has_foreign_host({"host": each}) for each in foreign)
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")


def test_threat_model_names_existing_tests() -> None:
    root = Path(__file__).parents[2]
    rows = [line for line in (root / "docs/security.md").read_text().splitlines() if line.startswith("|")]
    model = rows[rows.index("| threat | attack | defence | test |") + 2 :]
    assert len(model) > 10
    for row in model:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert named, row
        assert [each for each in named if not (root / each).is_file()] == [], row
