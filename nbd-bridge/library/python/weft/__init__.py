# SPDX-License-Identifier: MIT
"""Memory of other machines: regions that donors lend, as bytes to read and write, and as memory.

    import weft
    with weft.Region("weft://192.0.2.7/scratch") as region:
        region.pwrite(b"hello, weft", 0)
        with region.map(local_bytes=64 << 20) as m, memoryview(m) as bytes_there:
            bytes_there[:5] = b"HELLO"
            m.sync(flush=True)

weft(3) has more.
"""

from weft import _weft
from weft._weft import NORMAL, RANDOM, Error, Map, MapStats, __version__

__all__ = ["NORMAL", "RANDOM", "Error", "Map", "MapStats", "Region"]


class Region(_weft.Region):
    """Region(*uris, read_only=False, shared=False, write_back=False, new_contents=False,
    allow_insecure=False, connections=0, cache_bytes=0, stripe_bytes=0, timeout=None,
    dead_timeout=None, key_file=None)

    A region of a donor (weft://HOST[:PORT]/REGION) or of any NBD server (nbd://HOST[:PORT]/EXPORT);
    several URIs are one device, striped.  The region is held until close(), or until the end of a
    with statement.  Whatever fails is a weft.Error.

    read_only: it does not write, and there is no writer beside it; with shared there may be one.
    cache_bytes: memory for a cache; write_back: a write returns when the cache has it.
    new_contents: the regions may have been parts of another device.
    allow_insecure: no key is used; key_file: the file with the key that the donor knows.
    connections: to each donor; best one for each thread that calls at the same time.
    timeout: seconds that an answer may take (30); dead_timeout: seconds that calls wait for a donor
    that is gone (10).

    Any thread may use it.  A child of fork() may not.
    """

    # The loop that waits for answers, and at which descriptor.
    _watch = None

    def __enter__(self):
        if self.closed:
            raise ValueError("the region is closed")
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Release the region; nothing is flushed, but a cache is written back (write_back).

        Maps of it are closed first, each as Map.close() does it: BufferError, and nothing happens,
        while a view of one lives.  Calls of other threads are waited for; asynchronous operations
        that have not ended fail (ECANCELED).
        """
        ended = self._close()
        watch, self._watch = self._watch, None
        if watch is None:
            self._close_fd()
        else:
            _in_loop(watch[0], self._unwatch, watch)
        for future, result, error in ended:
            _in_loop(future.get_loop(), _settle, future, result, error)

    # ---- asyncio ----
    #
    # The loop has a reader as long as operations are in flight, so that nothing of the region is
    # left in a loop that goes on without it.

    def aio_pread(self, size, offset):
        """Begin to read size bytes at offset; an asyncio.Future of the bytes."""
        return self._aio(self._begin_read, size, offset)

    def aio_pread_into(self, buffer, offset):
        """Begin to fill a writable buffer from offset; an asyncio.Future of None.

        Nobody looks at the buffer before that is done, even if it is cancelled.
        """
        return self._aio(self._begin_read_into, buffer, offset)

    def aio_pwrite(self, data, offset):
        """Begin to write data at offset; an asyncio.Future of None.

        Nobody changes data before that is done, even if it is cancelled.
        """
        return self._aio(self._begin_write, data, offset)

    def aio_flush(self):
        """Begin to flush the writes that have ended by now; an asyncio.Future of None."""
        return self._aio(self._begin_flush)

    def _aio(self, begin, *what):
        # Who gets here has a loop, and so asyncio.
        from asyncio import get_running_loop

        loop = get_running_loop()
        if self._watch is not None and self._watch[0] is not loop:
            if not self._watch[0].is_closed():
                raise RuntimeError(f"{self!r} has operations in flight in another event loop")
            self._watch = None
        future = loop.create_future()
        if self._watch is None:
            watch = loop, self._fd()
            loop.add_reader(watch[1], self._answered)
            self._watch = watch
        try:
            begin(*what, future)
        finally:
            self._unwatch_idle()
        return future

    def _answered(self):
        for future, result, error in self._take():
            _settle(future, result, error)
        self._unwatch_idle()

    def _unwatch_idle(self):
        if not self._begun and self._watch is not None:
            loop, fd = self._watch
            self._watch = None
            loop.remove_reader(fd)

    def _unwatch(self, watch):
        watch[0].remove_reader(watch[1])
        self._close_fd()


def _settle(future, result, error):
    if future.done() or future.get_loop().is_closed():
        pass  # it was cancelled, or nobody waits any more
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _in_loop(loop, function, *what):
    """Call it where the loop runs: here, or on its thread."""
    from asyncio import _get_running_loop

    if loop.is_running() and _get_running_loop() is not loop:
        loop.call_soon_threadsafe(function, *what)
    else:
        function(*what)
