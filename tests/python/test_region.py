# SPDX-License-Identifier: MIT
"""weft.Region: what blocks."""

import array
import errno
import gc
import os
import pickle
import threading
import time
import unittest
import warnings
import weakref

import support
import weft


class Region(support.DonorCase):
    def test_reads_what_it_wrote(self):
        region = self.open()
        region.pwrite(b"hello, weft", 4097)
        region.flush()
        self.assertEqual(region.pread(11, 4097), b"hello, weft")
        self.assertEqual(region.pread(0, 0), b"")
        self.assertEqual(region.size, 8 << 20)
        self.assertEqual(region.transports, ("tcp",))
        self.assertIs(type(region.pread(1, 4097)), bytes)

    def test_takes_any_contiguous_buffer(self):
        region = self.open()
        numbers = array.array("Q", range(1000))
        region.pwrite(numbers, 64)
        back = array.array("Q", bytes(8000))
        region.pread_into(back, 64)
        self.assertEqual(back, numbers)
        part = bytearray(20)
        region.pread_into(memoryview(part)[4:12], 72)
        self.assertEqual(part, bytes(4) + (1).to_bytes(8, "little") + bytes(8))
        with self.assertRaises(BufferError):
            region.pwrite(memoryview(bytes(16))[::2], 0)

    def test_arguments_have_names(self):
        region = self.open()
        region.pwrite(data=b"ab", offset=0)
        buffer = bytearray(2)
        region.pread_into(buffer=buffer, offset=0)
        self.assertEqual((buffer, region.pread(size=1, offset=1)), (b"ab", b"b"))

    def test_what_cannot_be_is_refused(self):
        region = self.open()
        with self.raises(errno.ENOSPC) as caught:
            region.pread(10, region.size - 9)
        self.assertIn(f"10 bytes at {region.size - 9} of {self.donor.uri('r')} cannot be read",
                      str(caught.exception))
        with self.raises(errno.ENOSPC):
            region.pread(1 << 62, 0)
        with self.raises(errno.ENOSPC):
            region.pwrite(b"a", 1 << 63)
        for call in (lambda: region.pread(-1, 0), lambda: region.pread(1, 1 << 64)):
            self.assertRaises(OverflowError, call)
        for call in (lambda: region.pread_into(b"read-only", 0), lambda: region.pread(1.0, 0),
                     lambda: region.pwrite("text", 0)):
            self.assertRaises(TypeError, call)

    def test_reading_only_is_told(self):
        region = self.open(read_only=True)
        with self.raises(errno.EPERM) as caught:
            region.pwrite(b"a", 0)
        self.assertIn("opened to read only", str(caught.exception))

    def test_opening_says_why_not(self):
        with self.raises(errno.ENOENT) as caught:
            weft.Region(self.donor.uri("nothing"))
        self.assertIn("no region 'nothing'", str(caught.exception))
        self.assertIsInstance(caught.exception, OSError)
        with self.raises(errno.EINVAL):
            weft.Region("http://here")
        with self.raises(errno.EINVAL):
            weft.Region(self.donor.uri("r"), shared=True)
        self.assertRaises(ValueError, weft.Region)
        self.assertRaises(ValueError, weft.Region, "u", timeout=-1)
        self.assertRaises(TypeError, weft.Region, 5)
        self.assertRaises(TypeError, weft.Region, "u", no_such_option=1)
        self.assertRaises(TypeError, weft.Region, "u", key_file=5)

    def test_a_key_file_is_a_path(self):
        import pathlib
        with self.raises(errno.ENOKEY) as caught:
            weft.Region(self.donor.uri("r"), key_file=pathlib.Path("/no/such/key"))
        self.assertIn("/no/such/key", str(caught.exception))

    def test_several_regions_are_one_device(self):
        donor = support.Donor("--memory", "r=8M", "--memory", "s=8M")
        self.addCleanup(donor.end)
        uris = donor.uri("r"), donor.uri("s")
        with weft.Region(*uris, stripe_bytes=4096, connections=1) as region:
            self.assertEqual(region.size, 16 << 20)
            region.pwrite(bytes(4096) + b"s" * 4096, 0)
            self.assertEqual(region.transports, ("tcp", "tcp"))
        with self.raises(errno.EINVAL) as caught:
            weft.Region(*reversed(uris))
        self.assertIn("device", str(caught.exception))
        support.wait_for(lambda: self.opens(*reversed(uris), new_contents=True), "other contents")

    def test_a_cache_is_written_back_by_closing(self):
        donor = support.Donor("--memory", "r=8M")
        self.addCleanup(donor.end)
        with weft.Region(donor.uri("r"), cache_bytes=4 << 20, write_back=True) as region:
            region.pwrite(b"cached", 0)
        support.wait_for(lambda: self.opens(donor.uri("r")), "the donor to hear of the end")
        with weft.Region(donor.uri("r")) as region:
            self.assertEqual(region.pread(6, 0), b"cached")

    def opens(self, *uris, **options):
        try:
            weft.Region(*uris, **options).close()
            return True
        except weft.Error:
            return False

    def test_a_closed_region_says_so(self):
        region = self.open()
        self.assertFalse(region.closed)
        with region as same:
            self.assertIs(same, region)
        self.assertTrue(region.closed)
        self.assertIn("closed", repr(region))
        region.close()
        for call in (lambda: region.pread(1, 0), lambda: region.size, region.flush, region.map,
                     region.__enter__, lambda: region.transports):
            with self.assertRaisesRegex(ValueError, "closed"):
                call()

    def test_is_opened_once(self):
        region = self.open()
        with self.assertRaisesRegex(RuntimeError, "before"):
            region.__init__(self.donor.uri("s"))
        self.assertEqual(region.size, 8 << 20)
        never = weft.Region.__new__(weft.Region)
        self.assertIn("weft.Region", repr(never))
        with self.assertRaises(ValueError):
            never.pread(1, 0)

    def test_may_be_derived_from_and_referred_to_weakly(self):
        class Mine(weft.Region):
            def __init__(self, uri, *, note):
                super().__init__(uri, connections=1)
                self.note = note

        with Mine(self.donor.uri("r"), note="mine") as region:
            region.pwrite(b"x", 0)
            self.assertEqual(region.note, "mine")
        reference = weakref.ref(region)
        del region
        self.assertIsNone(reference())

    def test_cannot_be_pickled(self):
        self.assertRaises(TypeError, pickle.dumps, self.open())

    def test_one_that_is_dropped_is_closed_with_a_warning(self):
        region = self.open("s")
        region.me = region
        self._cleanups.pop()
        with self.assertWarnsRegex(ResourceWarning, "unclosed <weft.Region"):
            del region
            gc.collect()
        self.open("s")

    def test_a_warning_that_is_an_error_closes_it_too(self):
        region = self.open("s")
        self._cleanups.pop()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with support.unraisable() as told:
                del region
        self.assertIsInstance(told[0], ResourceWarning)
        self.open("s")

    def test_threads_run_side_by_side_and_let_others_run(self):
        region = self.open(connections=2)
        parts = [bytes([n]) * 65536 for n in range(4)]

        def work(n):
            for _ in range(50):
                region.pwrite(parts[n], n << 16)
                self.assertEqual(region.pread(65536, n << 16), parts[n])

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([region.pread(65536, n << 16) for n in range(4)], parts)

    def test_a_thread_that_waits_does_not_have_the_interpreter(self):
        region = self.open()
        got = []
        with self.donor.stopped():
            thread = threading.Thread(target=lambda: got.append(region.pread(4, 0)))
            thread.start()
            begin = time.monotonic()
            n = 0
            while time.monotonic() < begin + 0.3:
                n += 1
            self.assertGreater(n, 1000)
            self.assertEqual(got, [])
        thread.join()
        self.assertEqual(len(got), 1)

    def test_closing_waits_for_calls_of_other_threads(self):
        region = self.open()
        ends = []

        def read():
            region.pread(4, 0)
            ends.append("read")

        with self.donor.stopped():
            reader = threading.Thread(target=read)
            reader.start()
            time.sleep(0.2)  # it is inside by then, or is refused, which ends as well
            closer = threading.Thread(target=lambda: (region.close(), ends.append("closed")))
            closer.start()
            closer.join(0.3)
            self.assertEqual(ends, [])
        reader.join()
        closer.join()
        self.assertEqual(ends, ["read", "closed"])

    def test_a_child_leaves_its_parents_region_alone(self):
        region = self.open()
        region.pwrite(b"parent", 0)
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                said = "nothing"
                try:
                    region.pread(1, 0)
                except RuntimeError as error:
                    said = str(error)
                del region
                gc.collect()
                os.write(write_fd, said.encode())
            finally:
                os._exit(0)
        os.close(write_fd)
        with open(read_fd) as pipe:
            self.assertIn("child process", pipe.read())
        os.waitpid(child, 0)
        self.assertEqual(region.pread(6, 0), b"parent")


class Interrupts(support.DonorCase):
    """Ctrl-C ends what waits; what is under way goes on, and keeps its buffer until then."""

    def test_a_read(self):
        region = self.open()
        buffer = bytearray(b"before")
        region.pwrite(b"there!", 0)
        with self.donor.stopped():
            with self.interrupted():
                region.pread_into(buffer, 0)
            with self.assertRaises(BufferError):
                buffer.append(0)  # the library has it
        self.assertEqual(region.pread(6, 0), b"there!")

        def is_ours():
            region.pread(1, 0)
            try:
                buffer.append(0)
                return True
            except BufferError:
                return False

        support.wait_for(is_ours, "the buffer to be given back")
        self.assertEqual(buffer[:6], b"there!")

    def test_a_write_and_a_flush(self):
        region = self.open()
        with self.donor.stopped(), self.interrupted():
            region.pwrite(b"late", 0)
        with self.donor.stopped(), self.interrupted():
            region.flush()
        region.flush()
        self.assertEqual(region.pread(4, 0), b"late")

    def test_opening(self):
        with self.donor.stopped(), self.interrupted():
            weft.Region(self.donor.uri("s"))
        self.open("s")  # the one that was interrupted has gone

    def test_closing_what_is_left(self):
        region = self.open()
        with self.donor.stopped(), self.interrupted():
            region.pread(1 << 20, 0)
        region.close()
        self.open()

    def test_a_handler_may_close_what_nobody_waits_for(self):
        import signal
        region, other = self.open(), self.open("s")
        said = []

        def handler(number, frame):
            for one in (other, region):
                try:
                    one.close()
                    said.append("closed")
                except RuntimeError as error:
                    said.append(str(error))
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        with self.donor.stopped(), self.interrupted(within_s=15):
            region.pread(1, 0)
        self.assertEqual(said[0], "closed")
        self.assertIn("a signal's handler", said[1])


class Lost(unittest.TestCase):
    def test_a_donor_that_is_gone_and_other_contents(self):
        donor = support.Donor("--memory", "r=1M")
        region = weft.Region(donor.uri("r"), dead_timeout=0.5)
        region.pwrite(b"old", 0)
        donor.end()
        with self.assertRaises(weft.Error) as caught:
            region.pread(3, 0)
        self.assertIn(caught.exception.errno, (errno.ENOTCONN, errno.ESTALE))
        donor = support.Donor("--memory", "r=1M", port=donor.port)
        self.addCleanup(donor.end)

        def is_stale():
            try:
                self.fail(f"it read {region.pread(3, 0)}")
            except weft.Error as error:
                return error.errno == errno.ESTALE and "contents are gone" in str(error)

        support.wait_for(is_stale, "other contents to be found")
        region.close()


class Interpreters(support.DonorCase):
    def test_another_interpreter_has_a_module_of_its_own(self):
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            self.skipTest("this Python has no module for other interpreters")
        region = self.open("s")
        other = interpreters.create()
        interpreters.run_string(other, f"""
import weft
with weft.Region({self.donor.uri("r")!r}) as region:
    region.pwrite(b"other", 0)
    with region.map(local_bytes=2 << 20) as m, memoryview(m) as v:
        assert bytes(v[:5]) == b"other"
    try:
        region.pread(1, region.size)
    except weft.Error:
        pass
""")
        interpreters.destroy(other)
        self.assertEqual(self.open("r").pread(5, 0), b"other")
        with self.raises(errno.ENOSPC):
            region.pread(1, region.size)


if __name__ == "__main__":
    unittest.main()
