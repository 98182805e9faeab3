# SPDX-License-Identifier: MIT
# tier: long
# timeout: 900
# presets: dev asan
# What move-survives-each-step.sh does, at each step of a move of a file, and of a post-copy move.
export WEFT_ALL_STEPS=yes
. "${BASH_SOURCE[0]%/*}/move-survives-each-step.sh"
