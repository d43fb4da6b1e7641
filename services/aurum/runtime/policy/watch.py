"""Watches the policy file for edits, renames and the symlinks that Kubernetes swaps in a ConfigMap."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import awatch

from aurum.runtime.policy.files import watched_folder
from aurum.runtime.policy.policies import Policies

logger = logging.getLogger(__name__)

_DEBOUNCE_MS = 50  # changes within this time are handled together
_STEP_MS = 50  # interval in which the watching thread looks for what the kernel has reported; each look costs CPU
_LOOK_ANYWAY_MS = 5000  # interval of comparisons for file systems that report no changes
_UNWATCHED_EVERY, _UNWATCHED_LOOKS = 1.0, 60  # seconds between reads without a watch; reads until the next try


async def follow_policy_file(policies: Policies) -> None:
    """Reloads the policies whenever their file changes, until it is cancelled."""
    if policies.path is None:
        return
    # Watch the folder: swaps replace names in it, and a watch on a file ends with that file
    async for _ in _changes(watched_folder(policies.path)):
        policies.apply_loaded(await asyncio.to_thread(policies.read))


async def _changes(folder: Path) -> AsyncGenerator[None]:
    """Yields whenever something in a folder may have changed. It never ends."""
    warned = False
    while True:
        try:
            async for _ in awatch(
                folder,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                recursive=False,
                rust_timeout=_LOOK_ANYWAY_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
            ):
                yield
        except (OSError, RuntimeError) as error:
            # The number of watches per user is limited (fs.inotify.max_user_instances) and shared with other pods
            if not warned:
                logger.warning("%s is read every %g s, for it cannot be watched: %s", folder, _UNWATCHED_EVERY, error)
            warned = True
        for _ in range(_UNWATCHED_LOOKS):
            await asyncio.sleep(_UNWATCHED_EVERY)
            yield
