"""Follows the policy file: edits, renames, and the symlinks that Kubernetes swaps in a ConfigMap."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import awatch

from aurum.runtime.policies import Policies
from aurum.runtime.policy_location import watched_folder

logger = logging.getLogger(__name__)

_DEBOUNCE_MS = 50  # changes that come together are one
_LOOK_ANYWAY_MS = 5000  # for file systems that tell nothing: the file is compared now and then
_UNWATCHED_EVERY, _UNWATCHED_LOOKS = 1.0, 60  # seconds between two looks, and how many until a watch is tried again


async def follow_policy_file(policies: Policies) -> None:
    """Reloads the policies when their file changes, for as long as it runs."""
    if policies.path is None:
        return
    # The folder, not the file: what is swapped are names in it, and a watch on a file ends with that file.
    async for _ in _changes(watched_folder(policies.path)):
        policies.take(await asyncio.to_thread(policies.read))


async def _changes(folder: Path) -> AsyncGenerator[None]:
    """Whenever something in a folder may have changed, without end."""
    told = False
    while True:
        try:
            async for _ in awatch(
                folder,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=10,
                recursive=False,
                rust_timeout=_LOOK_ANYWAY_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
            ):
                yield
        except (OSError, RuntimeError) as error:
            # A machine has few watches for each user (fs.inotify.max_user_instances), whom pods of others share
            if not told:
                logger.warning("%s is read every %g s, for it cannot be watched: %s", folder, _UNWATCHED_EVERY, error)
            told = True
        for _ in range(_UNWATCHED_LOOKS):
            await asyncio.sleep(_UNWATCHED_EVERY)
            yield
