# SPDX-License-Identifier: MIT
# timeout: 500
# presets: dev
# processors: 2
# Keys over RDMA, in the testbed: who proves one is let in, who does not is not, and what somebody
# overhears is worthless.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

conformance_in_testbed 400 -- "$WEFT_BUILD/tests/conformance/verbs-keys"
