"""Keeps in the store from which gateway the readings of each machine come.

Without it, a gateway that is away while ingestion restarts could not be named in the alarm of its silent machines.
"""

import asyncio
import logging

from aurum.ingestion.gateways import Gateways
from aurum.ingestion.store import Store
from aurum.runtime.errors import AurumError

logger = logging.getLogger(__name__)

_WRITE_SECONDS = 1.0  # between two looks at what is to be stored
_READ_ROUNDS = 60  # such looks between two reads of what other replicas have stored


class StoredGateways:
    """The gateways of machines in the store.

    Args:
        store: The store.
        gateways: What this process knows.
    """

    def __init__(self, store: Store, gateways: Gateways) -> None:
        self._store = store
        self._gateways = gateways

    async def load(self) -> None:
        """Takes over what is stored. Raises AurumError if the store did not answer."""
        self._gateways.restore(await self._store.gateways())

    async def write(self) -> None:
        """Stores what is not stored yet. Raises AurumError if the store did not answer."""
        unwritten = self._gateways.unwritten
        if unwritten:
            await self._store.record_gateways(unwritten)
            self._gateways.written(unwritten)

    async def run(self) -> None:
        """Stores what is new, and reads what other replicas have stored, until cancelled."""
        failed = False
        rounds = 0
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            rounds += 1
            try:
                await self.write()
                if self._store.shared and rounds % _READ_ROUNDS == 0:
                    await self.load()
                failed = False
            except AurumError as error:
                if not failed:
                    logger.warning(
                        "the gateways of machines were not stored or read, and this is retried: %s", error.message
                    )
                failed = True
