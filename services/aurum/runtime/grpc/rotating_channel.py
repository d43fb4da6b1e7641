"""A channel whose certificates can change: new calls use a new channel, and calls in progress end on the old one."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

_LET_END = 120.0  # seconds for the calls in progress on a replaced channel


class RotatingChannel(grpc.aio.Channel):
    """A channel that delegates to the current one. Stubs are bound to it once and follow each rotation."""

    def __init__(self, make: Callable[[], grpc.aio.Channel]) -> None:
        self._make = make
        self._channel = make()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def present(self) -> grpc.aio.Channel:
        """The channel for new calls."""
        return self._channel

    def rotate(self) -> None:
        """Replaces the current channel by a new one. The old one is closed after its calls have ended."""
        old, self._channel = self._channel, self._make()
        task = asyncio.get_running_loop().create_task(old.close(_LET_END), name="end-channel")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self, grace: float | None = None) -> None:
        """Closes the current channel and those that were replaced. grace: Seconds for the calls in progress."""
        for task in list(self._ending):
            task.cancel()
        await self._channel.close(grace)

    async def __aenter__(self) -> "RotatingChannel":
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the connectivity of the current channel."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the connectivity of the current channel differs from the given one."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the current channel is connected."""
        await self._channel.channel_ready()

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns a callable for a unary method. Each call uses the channel that is current then."""
        return self._bound("unary_unary", method, *arguments, **options)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns a callable for a method with a response stream. Each call uses the channel that is current then."""
        return self._bound("unary_stream", method, *arguments, **options)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns a callable for a method with a request stream. Each call uses the channel that is current then."""
        return self._bound("stream_unary", method, *arguments, **options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns a callable for a method with two streams. Each call uses the channel that is current then."""
        return self._bound("stream_stream", method, *arguments, **options)

    def _bound(self, kind: str, method: str, *arguments: Any, **options: Any) -> "_Method":
        return _Method(self, method, lambda channel: getattr(channel, kind)(method, *arguments, **options))


class _Method:
    """One method of a stub, bound to the current channel."""

    def __init__(self, channel: RotatingChannel, name: str, bind: Callable[[grpc.aio.Channel], Any]) -> None:
        self._method = name  # the attribute name of grpc's own multi-callables
        self._channel = channel
        self._bind = bind
        self._bound_to: grpc.aio.Channel | None = None
        self._callable: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        present = self._channel.present
        if self._bound_to is not present:
            self._callable, self._bound_to = self._bind(present), present
        return self._callable(*arguments, **options)
