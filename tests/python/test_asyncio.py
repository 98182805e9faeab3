# SPDX-License-Identifier: MIT
"""weft.Region in asyncio's loops."""

import asyncio
import errno
import gc
import threading
import unittest

import support
import weft


class Asyncio(support.DonorCase):
    def run_in_loop(self, coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, support.PATIENCE_S))

    def test_many_at_a_time(self):
        region = self.open()

        async def main():
            await asyncio.gather(*[region.aio_pwrite(bytes([n]) * 4096, n << 12)
                                   for n in range(64)])
            await region.aio_flush()
            read = [region.aio_pread(4096, n << 12) for n in range(64)]
            self.assertIsInstance(read[0], asyncio.Future)
            for n, bytes_read in enumerate(await asyncio.gather(*read)):
                self.assertEqual(bytes_read, bytes([n]) * 4096)
            buffer = bytearray(4)
            self.assertIsNone(await region.aio_pread_into(buffer, 5 << 12))
            self.assertEqual(buffer, b"\5" * 4)
            self.assertEqual(await region.aio_pread(0, 0), b"")

        self.run_in_loop(main())

    def test_nothing_is_left_in_an_idle_loop(self):
        region = self.open()

        async def main():
            await region.aio_pread(1, 0)
            self.assertIsNone(region._watch)
            with self.raises(errno.ENOSPC):
                region.aio_pread(1, region.size)
            with self.raises(errno.ENOSPC):
                region.aio_pwrite(b"a", region.size)
            with self.assertRaises(TypeError):
                region.aio_pread_into(b"read-only", 0)
            self.assertIsNone(region._watch)

        for _ in range(3):  # one loop after the other
            self.run_in_loop(main())
        with self.assertRaises(RuntimeError):
            region.aio_flush()  # no loop runs

    def test_the_loop_goes_on_while_the_donor_is_silent(self):
        region = self.open()

        async def main():
            with self.donor.stopped():
                read = region.aio_pread(1, 0)
                for _ in range(20):
                    await asyncio.sleep(0.01)
                self.assertFalse(read.done())
            self.assertEqual(len(await read), 1)

        self.run_in_loop(main())

    def test_cancelling_keeps_the_buffer_until_the_end(self):
        region = self.open()
        buffer = bytearray(4)

        async def main():
            with self.donor.stopped():
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(region.aio_pread_into(buffer, 0), 0.2)
                with self.assertRaises(BufferError):
                    buffer.append(0)
            while region._watch is not None:
                await asyncio.sleep(0.01)
            buffer.append(0)

        self.run_in_loop(main())

    def test_a_loop_that_ends_leaves_its_operations_to_the_next(self):
        region = self.open()
        buffer = bytearray(4)

        async def begin():
            region.aio_pread_into(buffer, 0)

        async def go_on():
            await region.aio_pread(1, 0)
            while region._watch is not None:
                await asyncio.sleep(0.01)

        with self.donor.stopped():
            asyncio.run(begin())
            with self.assertRaises(BufferError):
                buffer.append(0)
        self.run_in_loop(go_on())
        buffer.append(0)

    def test_closing_ends_what_is_in_flight(self):
        region = self.open()

        async def main():
            with self.donor.stopped():
                read = region.aio_pread(1, 0)
                region.close()
                with self.raises(errno.ECANCELED) as caught:
                    await read
            self.assertIn("closed meanwhile", str(caught.exception))
            with self.assertRaises(ValueError):
                region.aio_pread(1, 0)

        self.run_in_loop(main())
        self.assertIsNone(region._watch)

    def test_another_thread_may_close(self):
        region = self.open()

        async def main():
            with self.donor.stopped():
                read = region.aio_pread(1, 0)
                await asyncio.to_thread(region.close)
                with self.raises(errno.ECANCELED):
                    await read

        self.run_in_loop(main())

    def test_calls_of_other_threads_take_no_answers_away(self):
        region = self.open(connections=1)
        stop = threading.Event()
        counts = []

        async def main():
            for _ in range(300):
                await region.aio_pread(4096, 0)
            stop.set()

        # This thread's calls look for signals; the other thread's do not.
        def read(name):
            while not stop.is_set():
                region.pread(1, 0)
            counts.append(name)

        loop = threading.Thread(target=lambda: self.run_in_loop(main()))
        other = threading.Thread(target=read, args=("other",))
        other.start()
        loop.start()
        read("main")
        loop.join()
        other.join()
        self.assertEqual(len(counts), 2)

    def test_two_loops_do_not_have_it_at_once(self):
        region = self.open()

        async def other():
            with self.assertRaisesRegex(RuntimeError, "another event loop"):
                region.aio_pread(1, 0)

        async def main():
            with self.donor.stopped():
                read = region.aio_pread(1, 0)
                await asyncio.to_thread(lambda: asyncio.run(other()))
            await read

        self.run_in_loop(main())

    def test_a_blocking_call_in_the_loop_leaves_the_answers_to_it(self):
        region = self.open(connections=1)

        async def main():
            for _ in range(100):
                reads = [region.aio_pread(4096, 0) for _ in range(4)]
                region.pread(1, 0)
                await asyncio.gather(*reads)

        self.run_in_loop(main())

    def test_one_that_is_dropped_in_a_loop_is_closed(self):
        region = self.open("s")
        self._cleanups.clear()

        async def main(region):
            await region.aio_pread(1, 0)

        asyncio.run(main(region))
        with self.assertWarns(ResourceWarning):
            del region
            gc.collect()
        self.open("s")


if __name__ == "__main__":
    unittest.main()
