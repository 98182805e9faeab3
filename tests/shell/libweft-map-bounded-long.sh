# SPDX-License-Identifier: MIT
# A map of 8 GB with 128 MiB here, for ten minutes and a million units that leave it, in each mode.
# presets: dev
# tier: long
# timeout: 5400
# processors: 2
WEFT_SECONDS=600 exec bash "${BASH_SOURCE[0]%/*}/libweft-map-bounded.sh"
