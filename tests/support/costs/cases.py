"""What a case of the cost matrix is: one of the largest requests of a route or an RPC."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.costs.plant import CostPlant


@dataclass(frozen=True)
class Case:
    """One of the largest requests.

    Attributes:
        name: What is large.
        ask: Makes the request and returns its outcome: an HTTP status, or the name of a code of gRPC. Its second
            argument differs between requests.
        expected: The outcomes that the request may have, if the service is not too busy.
    """

    name: str
    ask: Callable[[CostPlant, int], str]
    expected: frozenset[str]
