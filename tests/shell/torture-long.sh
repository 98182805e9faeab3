# SPDX-License-Identifier: MIT
# tier: long
# presets: dev asan tsan
# timeout: 3600
# 500 rounds of what torture.sh does.
WEFT_ROUNDS=500 . "${BASH_SOURCE[0]%/*}/torture.sh"
