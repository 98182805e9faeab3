/* SPDX-License-Identifier: MIT */
/* Which connection an id leads to.  Under the listener's lock. */
#include <string.h>

#include "transports/quic/donor/session.h"

/*
 * Ids of ours are random, so any of their bytes will do.  A client may choose the one that it
 * begins with, and make one place's list longer by as many connections as the budget allows.
 */
static struct quic_route **place_of(struct quic_listener *l, const uint8_t *cid, size_t len)
{
	const unsigned low = len > 0 ? cid[0] : 0, high = len > 1 ? cid[1] : 0;

	return &l->places[(low | high << 8) % QUIC_ROUTE_PLACES];
}

static bool is(const struct quic_route *route, const uint8_t *cid, size_t len)
{
	return route->len == len && memcmp(route->cid, cid, len) == 0;
}

struct quic_session *quic_route_find(struct quic_listener *l, const uint8_t *cid, size_t len)
{
	for (struct quic_route *route = *place_of(l, cid, len); route; route = route->next)
		if (is(route, cid, len))
			return route->session;
	return NULL;
}

bool quic_route_add(struct quic_session *s, const uint8_t *cid, size_t len)
{
	if (quic_route_find(s->listener, cid, len))
		return false;
	for (unsigned i = 0; i < QUIC_ROUTES; i++) {
		struct quic_route *route = &s->routes[i];

		if (route->session)
			continue;
		route->session = s;
		route->len = (uint8_t)len;
		memcpy(route->cid, cid, len);
		route->next = *place_of(s->listener, cid, len);
		*place_of(s->listener, cid, len) = route;
		return true;
	}
	return false;
}

static void take_out(struct quic_route *route)
{
	struct quic_route **at = place_of(route->session->listener, route->cid, route->len);

	while (*at != route)
		at = &(*at)->next;
	*at = route->next;
	route->session = NULL;
}

void quic_route_drop(struct quic_session *s, const uint8_t *cid, size_t len)
{
	for (unsigned i = 0; i < QUIC_ROUTES; i++)
		if (s->routes[i].session && is(&s->routes[i], cid, len))
			take_out(&s->routes[i]);
}

void quic_route_drop_all(struct quic_session *s)
{
	for (unsigned i = 0; i < QUIC_ROUTES; i++)
		if (s->routes[i].session)
			take_out(&s->routes[i]);
}
