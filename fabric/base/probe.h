/* SPDX-License-Identifier: MIT */
/*
 * Probes for tracers: USDT, which perf(1), bpftrace(8) and SystemTap find in the program by name
 * (`readelf -n`).  A probe that nobody looks at is one nop.  Any thread; neither blocks nor
 * allocates.  perf/README.md lists them with their arguments.
 */
#ifndef WEFT_FABRIC_BASE_PROBE_H
#define WEFT_FABRIC_BASE_PROBE_H

/* Debian's systemtap-sdt-dev.  A build without it has no probes. */
#if defined(__has_include) && __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
/* Probe weft:name, with up to 12 arguments: integers or pointers that are at hand anyway. */
#define WEFT_PROBE(name, ...) STAP_PROBEV(weft, name, __VA_ARGS__)
#else
#define WEFT_PROBE(name, ...) ((void)0)
#endif

#endif
