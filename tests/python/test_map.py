# SPDX-License-Identifier: MIT
"""weft.Map: a region as memory."""

import errno
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import unittest
import weakref

import support
import weft

LOCAL = 4 << 20


class Map(support.DonorCase):
    options = ("--memory", "r=16M", "--memory", "s=1M")

    def map(self, *place, name="r", **options):
        region = self.open(name)
        m = region.map(*place, local_bytes=options.pop("local_bytes", LOCAL), **options)
        # Closed before the region, and whatever the test left.
        self.addCleanup(m.close)
        return region, m

    def test_is_the_regions_bytes(self):
        region, m = self.map()
        region.pwrite(b"hello, weft", 5000)
        self.assertEqual(len(m), region.size)
        with memoryview(m) as view:
            self.assertEqual((view.nbytes, view.format, view.readonly), (16 << 20, "B", False))
            self.assertEqual(bytes(view[5000:5011]), b"hello, weft")
            view[5000:5005] = b"HELLO"
            m.sync(4096, 4096, flush=True)
            self.assertEqual(region.pread(11, 5000), b"HELLO, weft")

    def test_has_four_times_more_data_than_room(self):
        region, m = self.map()
        seed = random.Random(1)
        block = [seed.randbytes(65536) for _ in range(9)]
        order = list(range(len(m) >> 16))
        seed.shuffle(order)
        with memoryview(m) as view:
            for n in order:
                view[n << 16:(n + 1) << 16] = block[n % 9]
            for n in order:
                self.assertEqual(view[n << 16:(n + 1) << 16], block[n % 9])
            stats = m.stats()
        self.assertGreater(stats.evicted, 0)
        self.assertLessEqual(stats.resident_bytes + stats.staged_bytes, stats.local_bytes)
        self.assertEqual(stats.mode, "paged")
        m.close()
        for n in order:
            self.assertEqual(region.pread(65536, n << 16), block[n % 9])

    def test_has_the_mode_that_was_asked_for(self):
        for mode, local_bytes in (
            ("paged", LOCAL), ("compat", LOCAL), ("resident", 0), (None, LOCAL),
        ):
            with self.subTest(mode):
                region, m = self.map(mode=mode, local_bytes=local_bytes)
                region.pwrite(b"hello, weft", 5000)
                self.assertEqual(m.stats().mode, mode or "paged")
                with memoryview(m) as view:
                    self.assertEqual(bytes(view[5000:5011]), b"hello, weft")
                    view[5000:5005] = b"HELLO"
                    view[-5:] = b"HELLO"
                m.close()
                self.assertEqual(region.pread(11, 5000), b"HELLO, weft")
                self.assertEqual(region.pread(5, region.size - 5), b"HELLO")
                region.close()

    def test_has_all_here_in_resident_mode_alone(self):
        region, m = self.map(mode="resident", local_bytes=0)
        m.prefetch(wait=True)
        self.assertEqual(m.stats().resident_bytes, region.size)
        with self.raises(errno.EINVAL):
            region.map(mode="resident", local_bytes=LOCAL)

    def test_has_no_mode_that_is_none(self):
        region, m = self.map()
        for wrong in ("any", "Paged", "", "paged\0"):
            with self.assertRaisesRegex(ValueError, "'paged', 'compat' or 'resident'"):
                region.map(mode=wrong)
        with self.assertRaisesRegex(TypeError, "a str or None, not int"):
            region.map(mode=1)

    def test_is_a_part_of_the_region(self):
        region, m = self.map(1 << 20, 5000)
        region.pwrite(b"x" * 5000, 1 << 20)
        self.assertEqual((len(m), m.offset, m.read_only), (5000, 1 << 20, False))
        self.assertIs(m.region, region)
        self.assertEqual(bytes(m), b"x" * 5000)
        self.assertIn("5000 bytes at 1048576", repr(m))

    def test_what_cannot_be_is_refused(self):
        region, m = self.map()
        with self.raises(errno.EINVAL) as caught:
            region.map(1, 4096)
        self.assertIn("a multiple of 4096", str(caught.exception))
        for call in (lambda: region.map(region.size), lambda: region.map(0, region.size + 1),
                     lambda: region.map(local_bytes=5), lambda: region.map(unit_bytes=5000)):
            with self.raises(errno.EINVAL):
                call()
        for call in (lambda: m.sync(1, len(m)), lambda: m.evict(len(m) + 1),
                     lambda: m.prefetch(0, 1 << 63), lambda: m.advise(7)):
            self.assertRaises(ValueError, call)
        self.assertRaises(OverflowError, m.sync, -1)
        self.assertRaises(TypeError, weft.Map)
        with self.raises(errno.ENOSPC) as caught:
            m.prefetch(wait=True)
        self.assertIn("three quarters", str(caught.exception))

    def test_read_only_is_not_written(self):
        region, m = self.map(read_only=True)
        with memoryview(m) as view:
            self.assertTrue(view.readonly)
            with self.assertRaises(TypeError):
                view[0] = 1
        with self.assertRaises((BufferError, TypeError)):
            region.pread_into(m, 0)
        reader = self.open("s", read_only=True)
        with self.raises(errno.EROFS):
            reader.map()

    def test_stays_as_long_as_anybody_views_it(self):
        region, m = self.map()
        view = memoryview(m)
        part = view[10:20]
        for close in (m.close, region.close, lambda: m.close(discard=True)):
            with self.assertRaisesRegex(BufferError, "views"):
                close()
        view.release()
        self.assertEqual(part.nbytes, 10)
        with self.assertRaises(BufferError):
            m.close()
        part.release()
        m.close()
        m.close()
        self.assertTrue(m.closed)
        self.assertIn("closed", repr(m))
        for call in (m.sync, m.stats, m.dirty, m.reset, lambda: len(m), lambda: memoryview(m),
                     m.__enter__, lambda: m.advise(0), lambda: m.rescue(print)):
            with self.assertRaisesRegex(ValueError, "closed"):
                call()
        self.assertEqual(len(region.pread(1, 0)), 1)

    def test_closing_the_region_closes_its_maps(self):
        region, m = self.map()
        with region.map(8 << 20, 4096, local_bytes=LOCAL) as other, memoryview(other) as view:
            view[0] = 7
        memoryview(m)[4096] = 8
        region.close()
        self.assertTrue(m.closed)
        again = self.open()
        self.assertEqual((again.pread(1, 8 << 20), again.pread(1, 4096)), (b"\7", b"\10"))

    def test_discarding_writes_nothing_back(self):
        region, m = self.map()
        region.pwrite(b"old", 1 << 20)
        with memoryview(m) as view:
            self.assertEqual(bytes(view[1 << 20:(1 << 20) + 3]), b"old")
            with self.donor.stopped():  # nothing goes home by itself meanwhile
                view[1 << 20:(1 << 20) + 3] = b"new"
                view.release()
                m.close(discard=True)
        self.assertEqual(region.pread(3, 1 << 20), b"old")

    def test_tells_what_was_written(self):
        region, m = self.map()
        m.dirty(reset=True)
        with memoryview(m) as view:
            view[0] = view[4096] = view[3 << 20] = 1
        self.assertEqual(m.dirty(), [(0, 8192), (3 << 20, 4096)])
        self.assertEqual(m.dirty(8192, reset=True), [(3 << 20, 4096)])
        self.assertEqual(m.dirty(), [(0, 8192)])
        # More than are asked for at a time.
        with memoryview(m) as view:
            for n in range(600):
                view[n << 13] = 2
        self.assertEqual(m.dirty(reset=True),
                         [(0, 12288)] + [(n << 13, 4096) for n in range(2, 600)])

    def test_fetches_ahead_and_frees(self):
        region, m = self.map()
        m.prefetch(0, 1 << 20, wait=True)
        self.assertEqual(m.stats().resident_bytes, 1 << 20)
        with memoryview(m) as view:
            self.assertEqual(view[5], 0)
        self.assertEqual(m.stats().faults, 0)
        m.evict()
        support.wait_for(lambda: m.stats().resident_bytes == 0, "all to leave")
        m.advise(weft.RANDOM)
        m.advise(weft.NORMAL)

    def test_other_buffers_and_system_calls_take_it(self):
        region, m = self.map()
        region.pwrite(b"hello", 12 << 20)
        self.assertEqual(bytes(memoryview(m)[12 << 20:(12 << 20) + 5]), b"hello")
        if not m.stats().user_faults_only:
            read_fd, write_fd = os.pipe()
            os.write(write_fd, memoryview(m)[12 << 20:(12 << 20) + 5])
            self.assertEqual(os.read(read_fd, 9), b"hello")
            os.close(read_fd)
            os.close(write_fd)
        with self.raises(errno.EINVAL) as caught:
            region.pread_into(m, 0)
        self.assertIn("a map of this region", str(caught.exception))

    def test_threads_use_it_side_by_side(self):
        region, m = self.map()
        region.pwrite(bytes(region.size), 0)
        view = memoryview(m).cast("Q")

        def work(n):
            seed = random.Random(n)
            for _ in range(100):
                view[seed.randrange(len(view) // 4) * 4 + n] += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            m.sync()
        for thread in threads:
            thread.join()
        self.assertEqual(sum(view), 400)
        view.release()

    def test_one_that_is_dropped_is_written_back_with_a_warning(self):
        region, m = self.map()
        self._cleanups.pop()
        memoryview(m)[0] = 9
        with self.assertWarnsRegex(ResourceWarning, "unclosed <weft.Map"):
            del m
            gc.collect()
        self.assertEqual(region.pread(1, 0), b"\t")

    def test_garbage_that_refers_to_itself_is_found(self):
        for with_view in False, True:
            region, m = self.map(name="s", local_bytes=2 << 20)
            self._cleanups.clear()
            memoryview(m)[0] += 1
            region.me, region.m = region, m
            if with_view:
                region.view = memoryview(m)
            reference = weakref.ref(region)
            with self.assertWarns(ResourceWarning):
                del region, m
                gc.collect()
            # The warning, which was kept until now, has them too.
            gc.collect()
            self.assertIsNone(reference())
        self.assertEqual(self.open("s").pread(1, 0), b"\2")

    def test_a_child_does_not_have_it(self):
        region, m = self.map()
        memoryview(m)[0] = 1
        child = os.fork()
        if child == 0:
            status = 1
            try:
                memoryview(m)
            except RuntimeError:
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(memoryview(m)[0], 1)


class Large(support.DonorCase):
    """More than fits into an int of C, in a file that is nearly all holes."""

    SIZE = 5 << 30

    @classmethod
    def setUpClass(cls):
        path = os.path.join(os.environ["TMP"], "large")
        with open(path, "wb") as file:
            file.truncate(cls.SIZE)
        cls.options = ("--file", f"r={path}")
        super().setUpClass()

    def test_slices_beyond_2_gib(self):
        region = self.open()
        region.pwrite(b"far away", self.SIZE - 8)
        with region.map(local_bytes=LOCAL) as m, memoryview(m) as view:
            self.assertEqual(len(m), self.SIZE)
            with view[1 << 30:] as part, part.cast("Q") as numbers:
                self.assertEqual(len(part), 4 << 30)
                self.assertEqual(bytes(part[-8:]), b"far away")
                numbers[(3 << 30) // 8] = 77
            m.sync(4 << 30)
        self.assertEqual(region.pread(8, 4 << 30), (77).to_bytes(8, sys.byteorder))
        with region.map(3 << 30, local_bytes=LOCAL) as m, memoryview(m) as view:
            self.assertEqual(view.cast("Q")[(1 << 30) // 8], 77)


class Interrupts(support.DonorCase):
    def test_what_waits_for_the_donor_ends(self):
        region = self.open()
        with region.map(local_bytes=LOCAL) as m:
            with memoryview(m) as view:
                view[0] = 1
                with self.donor.stopped():
                    with self.interrupted():
                        m.sync()
                    with self.interrupted():
                        m.prefetch(4 << 20, 1 << 20, wait=True)
                    view.release()
                    with self.interrupted():
                        m.close()
            m.close()
            self.assertTrue(m.closed)
        self.assertEqual(region.pread(1, 0), b"\1")


class Lost(unittest.TestCase):
    def lose(self, region, donor):
        """Another donor with other contents."""
        donor.end(signal.SIGKILL)
        other = support.Donor(*self.OPTIONS, port=donor.port)
        self.addCleanup(other.end)
        return other

    OPTIONS = ("--memory", "r=1M")

    def test_what_the_donor_did_not_get_can_be_rescued(self):
        donor = support.Donor(*self.OPTIONS)
        region = weft.Region(donor.uri("r"), dead_timeout=1)
        self.addCleanup(region.close)
        m = region.map(local_bytes=2 << 20)
        with self.assertRaises(weft.Error) as caught:
            m.rescue(print)
        self.assertIn("not gone", str(caught.exception))
        with memoryview(m) as view:
            view[:8192] = b"a" * 8192
            donor.process.send_signal(signal.SIGSTOP)
            view[:4096] = b"b" * 4096
        self.lose(region, donor)
        saved = {}

        def is_rescued():
            saved.clear()
            try:
                return m.rescue(saved.__setitem__) == sum(map(len, saved.values()))
            except weft.Error as error:
                return self.assertIn(error.errno, (errno.EINVAL, errno.EAGAIN))

        support.wait_for(is_rescued, "the loss")
        self.assertEqual(b"".join(saved[off] for off in sorted(saved))[:4096], b"b" * 4096)
        self.assertEqual(m.stats().error, errno.ESTALE)
        with self.assertRaises(ZeroDivisionError):
            m.rescue(lambda off, data: 1 / 0)
        # What closes waits for the rescue, which waits for the function.
        for close in (lambda off, data: m.close(discard=True),
                      lambda off, data: region.close()):
            with self.assertRaises(RuntimeError):
                m.rescue(close)
        with self.assertRaises(weft.Error) as caught:
            m.sync()
        self.assertEqual(caught.exception.errno, errno.ESTALE)

        def is_reset():
            try:
                return m.reset() is None
            except weft.Error:
                return False

        support.wait_for(is_reset, "a reset")
        with memoryview(m) as view:
            self.assertEqual(bytes(view[:8192]), bytes(8192))
            view[0] = 5
        m.close()
        self.assertEqual(region.pread(1, 0), b"\5")

    def test_a_map_that_cannot_be_written_back_stays(self):
        donor = support.Donor(*self.OPTIONS)
        region = weft.Region(donor.uri("r"), dead_timeout=0.5)
        m = region.map(local_bytes=2 << 20)
        with memoryview(m) as view:
            view[0] = 5
            donor.process.send_signal(signal.SIGSTOP)
            view[0] = 6
        self.lose(region, donor)
        with self.assertRaises(weft.Error):
            m.close()
        with self.assertRaises(weft.Error):
            region.close()
        self.assertFalse(m.closed)
        m.close(discard=True)
        region.close()

    TOUCHES = """
import os, sys, signal, weft
region = weft.Region(sys.argv[1], dead_timeout=1)
m = region.map(local_bytes=2 << 20)
view = memoryview(m)
view[0] = 1
print("mapped", flush=True)
sys.stdin.readline()
while m.stats().error == 0:
    pass
r, w = os.pipe()
try:
    while True: # what it has is taken away page by page
        os.write(w, view[:10])
        os.read(r, 10)
except OSError as error:
    print("write:", error.errno, flush=True)
try:
    view[0]
except BaseException as error:
    print("an exception:", error)
"""

    def test_touching_what_is_gone_is_sigbus_with_a_traceback(self):
        donor = support.Donor(*self.OPTIONS)
        child = subprocess.Popen([sys.executable, "-X", "faulthandler", "-c", self.TOUCHES,
                                  donor.uri("r")], stdin=subprocess.PIPE, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(child.stdout.readline(), "mapped\n")
        self.lose(None, donor)
        said, errors = child.communicate("go\n", timeout=support.PATIENCE_S)
        self.assertEqual(child.returncode, -signal.SIGBUS, (said, errors))
        self.assertEqual(said, f"write: {errno.EFAULT}\n")
        self.assertIn("Fatal Python error: Bus error", errors)
        self.assertIn('File "<string>", line 19 in <module>', errors)


if __name__ == "__main__":
    unittest.main()
