/* weft status --prometheus. */
#ifndef WEFT_NBD_BRIDGE_MAIN_STATUS_PROMETHEUS_H
#define WEFT_NBD_BRIDGE_MAIN_STATUS_PROMETHEUS_H

#include <jansson.h>

/* Arrays of what attachments and donors answered, to standard output. */
void status_print_prometheus(const json_t *attachments, const json_t *donors);

#endif
