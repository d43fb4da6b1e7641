"""OPC UA: a node id means the same namespace, whatever its index is at present."""

import tempfile
from pathlib import Path

import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.opcua.namespaces import RememberedNamespaces, UnknownNamespaceError

_BASE = ["http://opcfoundation.org/UA/", "urn:server"]
_ENDPOINT = "opc.tcp://plant:4840"
_URIS = st.lists(st.from_regex(r"urn:[a-z]{1,8}", fullmatch=True), min_size=1, max_size=6, unique=True)


@given(_URIS.flatmap(lambda uris: st.tuples(st.just(uris), st.permutations(uris), st.integers(0, len(uris) - 1))))
def test_index_means_first_namespace_after_any_reordering(case: tuple[list[str], list[str], int]) -> None:
    before, after, position = case
    text = f"ns={position + 2};s=Temp"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state" / "cell.namespaces"
        first = RememberedNamespaces(path, _ENDPOINT)
        assert first.resolve(text, _BASE + before) == ua.NodeId("Temp", position + 2)
        for namespaces in (first, RememberedNamespaces(path, _ENDPOINT)):
            expected = ua.NodeId("Temp", 2 + after.index(before[position]))
            assert namespaces.resolve(text, _BASE + after) == expected


def test_node_id_by_uri_has_its_present_index(tmp_path: Path) -> None:
    namespaces = RememberedNamespaces(tmp_path / "x", _ENDPOINT)
    present = [*_BASE, "urn:other", "urn:plant", "urn:a;b"]
    assert namespaces.resolve("nsu=urn:plant;s=A;B=1", present) == ua.NodeId("A;B=1", 3)
    assert namespaces.resolve("nsu=urn:plant;i=1001", present) == ua.NodeId(1001, 3)
    assert namespaces.resolve("nsu=urn:a%3Bb;i=7", present) == ua.NodeId(7, 4)
    assert namespaces.resolve("i=85", present) == ua.NodeId(85, 0)
    with pytest.raises(UnknownNamespaceError, match="no namespace urn:gone; it has urn:other"):
        namespaces.resolve("nsu=urn:gone;i=7", present)
    assert not (tmp_path / "x").exists(), "a URI needs no memory"


def test_namespace_that_is_gone_gives_no_node(tmp_path: Path) -> None:
    path = tmp_path / "cell.namespaces"
    RememberedNamespaces(path, _ENDPOINT).resolve("ns=2;s=Temp", [*_BASE, "urn:plant"])
    again = RememberedNamespaces(path, _ENDPOINT)
    with pytest.raises(UnknownNamespaceError, match=f"ns=2 was urn:plant.*remove {path}"):
        again.resolve("ns=2;s=Temp", [*_BASE, "urn:other"])
    with pytest.raises(UnknownNamespaceError, match="no namespace 9"):
        again.resolve("ns=9;s=Temp", [*_BASE, "urn:other"])


def test_namespaces_of_another_server_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cell.namespaces"
    RememberedNamespaces(path, _ENDPOINT).resolve("ns=2;s=Temp", [*_BASE, "urn:plant"])
    other = RememberedNamespaces(path, "opc.tcp://elsewhere:4840")
    assert other.resolve("ns=2;s=Temp", [*_BASE, "urn:other", "urn:plant"]) == ua.NodeId("Temp", 2)


def test_index_of_the_server_itself_is_fixed(tmp_path: Path) -> None:
    namespaces = RememberedNamespaces(tmp_path / "x", _ENDPOINT)
    assert namespaces.resolve("ns=1;s=Temp", ["ua", "urn:host-1:server"]) == ua.NodeId("Temp", 1)
    assert namespaces.resolve("ns=1;s=Temp", ["ua", "urn:host-2:server"]) == ua.NodeId("Temp", 1)


def test_damaged_namespaces_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cell.namespaces"
    for content in ("", "[]", '{"endpoint": 1}', f'{{"endpoint": "{_ENDPOINT}", "namespaces": []}}', "\ud800"):
        path.write_text(content, errors="surrogatepass")
        namespaces = RememberedNamespaces(path, _ENDPOINT)
        assert namespaces.resolve("ns=2;s=T", [*_BASE, "urn:plant"]) == ua.NodeId("T", 2)
    assert RememberedNamespaces(path, _ENDPOINT).resolve("ns=2;s=T", [*_BASE, "b", "urn:plant"]) == ua.NodeId("T", 3)
