"""Which namespace a node id of the configuration means.

A server may give its namespaces other indices after each start, but their URIs stay. `nsu=` names the URI. `ns=` names
an index, whose URI is remembered at the first connection, so that the same index never means another namespace later.
Indices 0 and 1 are fixed (OPC 10000-3, 8.2.2): OPC UA itself, and the server.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from asyncua import ua

from aurum.edge.inputs.common.configuration import NODE_ID
from aurum.storage.durable_file import write_file

logger = logging.getLogger(__name__)

_FIXED = 2  # number of indices that always have the same meaning
_ESCAPES = (("%3B", ";"), ("%3b", ";"), ("%25", "%"))  # of a URI in a node id; OPC 10000-6, 5.1.12


class UnknownNamespaceError(LookupError):
    """The server does not have the namespace of a node id."""


class RememberedNamespaces:
    """The URIs that the indices of one input's configuration had at the first connection.

    Args:
        path: The file that keeps them. Without it, for example on the first start, they are taken from the server.
        endpoint: The server. The URIs of another one are not used.
    """

    def __init__(self, path: Path, endpoint: str) -> None:
        self._path = path
        self._endpoint = endpoint
        self._uris = self._load()

    def resolve(self, text: str, namespaces: Sequence[str]) -> ua.NodeId:
        """Returns a node id with the index that its namespace has at present.

        Args:
            text: The node id of the configuration.
            namespaces: The URIs of the server's namespaces by index.

        Raises:
            UnknownNamespaceError: If the server does not have the namespace.
        """
        match = NODE_ID.fullmatch(text)
        if match is None:
            raise UnknownNamespaceError(f"{text!r} is not a node id")
        bare = ua.NodeId.from_string(f"{match['kind']}={match['identifier']}")
        index = self._index(match["uri"], int(match["index"] or 0), namespaces)
        return ua.NodeId(bare.Identifier, ua.Int16(index), bare.NodeIdType)

    def _index(self, uri: str | None, index: int, namespaces: Sequence[str]) -> int:
        if uri is not None:
            for escape, character in _ESCAPES:
                uri = uri.replace(escape, character)
            if uri not in namespaces:
                raise UnknownNamespaceError(f"the server has no namespace {uri}; it has {_listed(namespaces)}")
            return namespaces.index(uri)
        if index < _FIXED:
            return index
        remembered = self._uris.get(index)
        if remembered is None:
            return self._remember(index, namespaces)
        if remembered not in namespaces:
            raise UnknownNamespaceError(
                f"ns={index} was {remembered}, which the server no longer has; it has {_listed(namespaces)}. Write "
                f"nsu=URI instead of ns={index}, or remove {self._path} to use the present one"
            )
        return namespaces.index(remembered)

    def _remember(self, index: int, namespaces: Sequence[str]) -> int:
        if index >= len(namespaces):
            raise UnknownNamespaceError(f"the server has no namespace {index}; it has {_listed(namespaces)}")
        self._uris[index] = namespaces[index]
        content = {"endpoint": self._endpoint, "namespaces": {str(key): uri for key, uri in self._uris.items()}}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._path, json.dumps(content, indent=1).encode())
        except OSError as error:
            logger.warning("the namespace %s of ns=%d is forgotten at a restart: %s", namespaces[index], index, error)
        return index

    def _load(self) -> dict[int, str]:
        try:
            content = json.loads(self._path.read_bytes())
            if content["endpoint"] == self._endpoint:
                return {int(index): str(uri) for index, uri in content["namespaces"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            logger.warning("%s cannot be read, so its namespaces are taken from the server: %s", self._path, error)
        return {}


def _listed(namespaces: Sequence[str]) -> str:
    return ", ".join(namespaces[_FIXED:]) or "none of its own"
