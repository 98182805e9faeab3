# SPDX-License-Identifier: MIT
# No line is wider than 100 columns, where a tab is eight.  Not held to it: data (JSON, XML,
# results), what documents show of a terminal or in a table, and what manuals hand to roff's
# macros.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3

cd "$WEFT_SRC"
python3 - <<'PY'
import os, re, sys

SKIP = ("build", ".git", ".cache", "perf/results", "tests/fuzz/corpus", "LICENSE")
# Files that have such lines still, and how many: programs in strings of shell scripts, mostly.
LEFT = """
fabric/packages 2
fabric/quickstart 5
nbd-bridge/device/ublk-control.h 2
perf/block-devices 7
perf/count/run 4
perf/curves 12
perf/harness/block-devices-md.jq 16
perf/harness/block-devices.jq 25
perf/harness/lines.jq 1
perf/latency 9
perf/mirror 8
perf/push 8
perf/peers/block-devices.sh 3
perf/peers/contestants.sh 6
perf/run 5
perf/suites/verbs.c 2
tests/CMakeLists.txt 1
tests/compat/lib.sh 2
tests/conformance/libweft-peer.h 1
tests/cross/toolchain.cmake 2
tests/lib.sh 1
tests/model/check 11
tests/model/moves.pml 21
tests/model/ownership.pml 31
tests/shell/attach-after-a-lapse-and-another-writer-is-stale.sh 2
tests/shell/attach-cache.sh 1
tests/shell/attach-does-not-wait-for-a-silent-server.sh 1
tests/shell/attach-is-patient-with-rdma-where-tcp-is-slow.sh 1
tests/shell/attach-refuses-a-cache-beyond-its-cgroup.sh 1
tests/shell/attach-runs-near-its-network-card.sh 4
tests/shell/attach-says-what-is-wrong.sh 3
tests/shell/attach-signal-is-a-detach.sh 3
tests/shell/attach-stripes-keep-their-order.sh 3
tests/shell/attach-stripes-over-donors.sh 1
tests/shell/bench-compares-runs.sh 8
tests/shell/bench-measures-every-path.sh 8
tests/shell/bench-over-a-line.sh 2
tests/shell/bench-over-rdma-and-tcp.sh 8
tests/shell/cache-file-lost.sh 1
tests/shell/cache-file.sh 1
tests/shell/compat-bridge-taken-over.sh 5
tests/shell/compat-donor-replaced.sh 4
tests/shell/compat-each-other.sh 5
tests/shell/compat-protects-others.sh 3
tests/shell/compat-verbs.sh 4
tests/shell/detach-clears-what-a-dead-bridge-left.sh 1
tests/shell/device-after-a-lapse-and-another-writer-is-stale.sh 1
tests/shell/device-donor-rebooted.sh 1
tests/shell/device-nbd-client-persist-names-a-tenure.sh 1
tests/shell/device-power-cut.sh 2
tests/shell/device-takes-over.sh 1
tests/shell/device-ublk-bounds.sh 1
tests/shell/device-ublk.sh 2
tests/shell/doctor-draws-the-topology.sh 1
tests/shell/doctor-fails-where-weft-cannot-work.sh 1
tests/shell/doctor-says-how-to-load-a-module.sh 2
tests/shell/doctor-sees-a-soft-roce-device-that-failed.sh 1
tests/shell/failover-device-removed.sh 1
tests/shell/failover-two-networks.sh 2
tests/shell/house-circles.sh 4
tests/shell/house-ctest-knows-every-test.sh 3
tests/shell/house-includes.sh 5
tests/shell/house-install-after-quickstart.sh 2
tests/shell/house-install.sh 1
tests/shell/house-odd-environments.sh 3
tests/shell/house-readme-commands.sh 2
tests/shell/house-results.sh 1
tests/shell/house-run-lists-skips.sh 1
tests/shell/house-tests-are-judged.sh 1
tests/shell/libweft-other-contents-are-stale.sh 1
tests/shell/libweft-works-when-installed.sh 2
tests/shell/line-rate.sh 1
tests/shell/line-runs-at-native-speed.sh 1
tests/shell/line-works-without-root.sh 1
tests/shell/perf-block-devices.sh 1
tests/shell/perf-over-a-line.sh 1
tests/shell/rescue-and-reset.sh 1
tests/shell/serve-answers-status.sh 1
tests/shell/serve-directory-cannot-be-left.sh 2
tests/shell/serve-file-restarted-goes-on.sh 1
tests/shell/serve-leaves-others-memory-alone.sh 1
tests/shell/serve-link-local-addresses.sh 1
tests/shell/serve-memory-is-kept-where-it-says.sh 1
tests/shell/serve-prints-attach-lines.sh 2
tests/shell/serve-resident-set-is-its-regions.sh 1
tests/shell/serve-says-what-became-of-a-file.sh 4
tests/shell/serve-says-what-it-cannot-do.sh 1
tests/shell/serve-stock-client-names-a-tenure.sh 2
tests/shell/serve-systemd-keeps-memory.sh 1
tests/shell/serve-units-fit-the-installation.sh 1
tests/shell/serve-warns-of-memory-given-back.sh 1
tests/shell/status-forms.sh 1
tests/shell/status-metrics.sh 6
tests/shell/status-of-a-cache-that-fails.sh 2
tests/shell/status-of-a-dead-bridge.sh 3
tests/shell/status-schema.sh 2
tests/shell/status-shows-memory-that-is-held.sh 3
tests/shell/status-tells-a-silent-donor.sh 3
tests/shell/testbed-has-soft-roce-and-kernel-nbd.sh 1
tests/shell/testbed-two-nodes-fail-apart.sh 1
tests/shell/testbed-two-nodes-lose-a-packet-in-100.sh 1
tests/shell/verbs-driver-unloaded.sh 1
tests/shell/verbs-lanes-share-what-they-register.sh 1
tests/shell/verbs-stripes-keep-their-order.sh 1
tests/shell/verbs-two-nodes.sh 2
tests/support/emulated.h 1
tests/support/flush-log.c 2
tests/support/status-schema.jq 27
tests/table.cmake 1
tests/testbed/guest/bin/node2 1
tests/testbed/image 4
tests/testbed/run 5
transports/verbs/doctor.c 5
"""

left = {path: int(nr) for path, nr in (line.split() for line in LEFT.split("\n") if line)}


def too_wide(path, text):
    """Which of its lines are."""
    numbers, fenced, literal, blank = [], False, False, True
    for number, line in enumerate(text.split("\n"), 1):
        if path.endswith(".md"):
            fenced ^= line.lstrip().startswith("```")
            shown = fenced or line.startswith("|") or (blank and line.startswith("    "))
            blank = not line.strip() or (blank and shown)
        elif re.search(r"\.[1-8]$", path):
            if re.match(r"\.(Bd .*-(literal|unfilled)|nf|TS)", line):
                literal = True
            elif re.match(r"\.(Ed|fi|TE)", line):
                literal = False
            shown = literal or line.startswith(".")
        else:
            shown = False
        if not shown and len(line.expandtabs(8)) > 100:
            numbers.append(number)
    return numbers


bad, nr = [], 0
for folder, folders, names in os.walk("."):
    folder = folder[2:]
    inside = lambda name: os.path.join(folder, name)
    folders[:] = [name for name in folders if inside(name) not in SKIP]
    for path in map(inside, names):
        if path in SKIP or path.endswith((".json", ".xml", ".pyc")):
            continue
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        try:
            numbers = too_wide(path, open(path).read())
        except UnicodeDecodeError:
            continue
        nr += 1
        at_most = left.pop(path, 0)
        if len(numbers) > at_most:
            where = ", ".join(map(str, numbers))
            bad.append(f"{path}: lines {where} are too wide; {at_most} may be")
        elif len(numbers) < at_most:
            bad.append(f"{path}: {len(numbers)} lines are too wide now; say so in this test")
bad += [f"{path}: is not there any more; take it out of this test" for path in left]
print("\n".join(bad))
sys.exit(1 if bad or nr < 500 else 0)
PY
