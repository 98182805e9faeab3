# SPDX-License-Identifier: MIT
# timeout: 280
# processors: 2
# The conformance suite over soft-RoCE, in the testbed, so that each run of the tests goes over
# RDMA.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_testbed

conformance_in_testbed 240 -- "$WEFT_BUILD/tests/conformance/verbs"
