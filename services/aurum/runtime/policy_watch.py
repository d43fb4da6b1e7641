"""Follows the policy file: edits, renames, and the symlinks that Kubernetes swaps in a ConfigMap."""

import asyncio
import logging

from watchfiles import awatch

from aurum.runtime.policies import Policies
from aurum.runtime.policy_location import watched_folder

logger = logging.getLogger(__name__)

_DEBOUNCE_MS = 50  # changes that come together are one
_LOOK_ANYWAY_MS = 5000  # for file systems that tell nothing: the file is compared now and then


async def follow_policy_file(policies: Policies) -> None:
    """Reloads the policies when their file changes, for as long as it runs."""
    if policies.path is None:
        return
    # The folder, not the file: what is swapped are names in it, and a watch on a file ends with that file.
    async for _ in awatch(
        watched_folder(policies.path),
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        step=10,
        recursive=False,
        rust_timeout=_LOOK_ANYWAY_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    ):
        policies.take(await asyncio.to_thread(policies.read))
