#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/run lists what was skipped: each test and reason once, with its presets; what does not apply
# last.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

eval "$(sed -n '/^list_skips() {/,/^}/p' "$WEFT_SRC/tests/run")"
list_skips >"$TMP/list" <<-'END'
	dev conformance/mem does not apply: mem takes any offset
	dev conformance/mem does not apply: mem knows no sessions
	dev conformance/verbs RDMA_IP does not name a device
	dev shell/mount-it fuse3 is not installed
	asan conformance/mem does not apply: mem takes any offset
	asan conformance/verbs RDMA_IP does not name a device
	asan conformance/verbs RDMA_IP does not name a device
END
diff - "$TMP/list" <<-'END' || fail "not what was skipped"
	skipped: conformance/verbs: RDMA_IP does not name a device (3: dev asan)
	skipped: shell/mount-it: fuse3 is not installed (1: dev)
	skipped: conformance/mem: does not apply: mem takes any offset, knows no sessions (3: dev asan)
END
