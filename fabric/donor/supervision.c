/* SPDX-License-Identifier: MIT */
/* What the service manager does when we crash; see supervision.h.  No state. */
#include "fabric/donor/supervision.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "fabric/base/util.h"

#define BUS_TIMEOUT_US UINT64_C(1000000)
#define MANAGER "org.freedesktop.systemd1"
#define SERVICE MANAGER ".Service"

static unsigned number_in(const char *variable)
{
	const char *text = getenv(variable);

	return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}

/*
 * The private socket of a manager (root's, or the user's own), or the system's message bus (NULL).
 */
static sd_bus *connect_manager(const char *socket)
{
	char address[256];
	sd_bus *bus = NULL;
	int r;

	if (!socket) {
		r = sd_bus_open_system(&bus);
	} else {
		r = access(socket, W_OK) == 0 ? sd_bus_new(&bus) : -1;
		snprintf(address, sizeof(address), "unix:path=%s", socket);
		if (r >= 0)
			r = sd_bus_set_address(bus, address);
		if (r >= 0)
			r = sd_bus_start(bus);
	}
	if (r >= 0)
		r = sd_bus_set_method_call_timeout(bus, BUS_TIMEOUT_US);
	return r < 0 ? sd_bus_flush_close_unref(bus) : bus;
}

/*
 * Whether descriptors stay in the store over a crash: while the unit is started anew, or in any
 * case (since systemd 254).
 */
static bool keeps_store(sd_bus *bus, const char *unit)
{
	static const char *const restarts[] = {"always", "on-failure", "on-abnormal", "on-abort"};
	char *restart = NULL, *preserve = NULL;
	bool keeps = false;

	if (sd_bus_get_property_string(bus, MANAGER, unit, SERVICE, "FileDescriptorStorePreserve",
		    NULL, &preserve) >= 0)
		keeps = strcmp(preserve, "yes") == 0;
	if (sd_bus_get_property_string(bus, MANAGER, unit, SERVICE, "Restart", NULL, &restart) >= 0)
		for (size_t i = 0; i < WEFT_ARRAY_LEN(restarts); i++)
			keeps |= strcmp(restart, restarts[i]) == 0;
	free(preserve);
	free(restart);
	return keeps;
}

static bool ask_unit(sd_bus *bus, const char *unit, struct weft_supervision *ret)
{
	uint32_t store_max = 0, main_pid = 0;
	char *notify = NULL, *kill = NULL;
	bool known = sd_bus_get_property_trivial(bus, MANAGER, unit, SERVICE, "MainPID", NULL, 'u',
			     &main_pid) >= 0 &&
		sd_bus_get_property_trivial(bus, MANAGER, unit, SERVICE, "FileDescriptorStoreMax",
			NULL, 'u', &store_max) >= 0 &&
		sd_bus_get_property_string(bus, MANAGER, unit, SERVICE, "NotifyAccess", NULL,
			&notify) >= 0 &&
		sd_bus_get_property_string(bus, MANAGER, unit, SERVICE, "KillMode", NULL, &kill) >=
			0;

	if (known) {
		/* systemd listens only to processes that may notify it. */
		bool heard = getenv("NOTIFY_SOCKET") && (strcmp(notify, "all") == 0 ||
			(strcmp(notify, "none") != 0 && main_pid == (uint32_t)getpid()));

		ret->store_max = heard && keeps_store(bus, unit) ? store_max : 0;
		ret->ends_children =
			strcmp(kill, "control-group") == 0 || strcmp(kill, "mixed") == 0;
	}
	free(notify);
	free(kill);
	return known;
}

static bool ask_manager(const char *socket, struct weft_supervision *ret)
{
	sd_bus *bus = connect_manager(socket);
	sd_bus_message *reply = NULL;
	const char *unit;
	bool known = false;

	if (!bus)
		return false;
	if (sd_bus_call_method(bus, MANAGER, "/org/freedesktop/systemd1", MANAGER ".Manager",
		    "GetUnitByPID", NULL, &reply, "u", (uint32_t)getpid()) >= 0 &&
		sd_bus_message_read(reply, "o", &unit) >= 0)
		known = ask_unit(bus, unit, ret);
	sd_bus_message_unref(reply);
	sd_bus_flush_close_unref(bus);
	return known;
}

void weft_supervision_find(struct weft_supervision *ret)
{
	/* A service's children inherit both variables, and systemd need not listen to children. */
	bool is_service = number_in("SYSTEMD_EXEC_PID") == (unsigned)getpid();
	bool may_notify = getenv("NOTIFY_SOCKET");
	const char *user_dir = getenv("XDG_RUNTIME_DIR");
	char user[200] = "";

	/*
	 * Without an answer: the default of KillMode; and all processes of a PID namespace end with
	 * its first.
	 */
	*ret = (struct weft_supervision){.ends_children = is_service || getpid() == 1};
	if (!is_service && !may_notify)
		return;
	if (user_dir)
		snprintf(user, sizeof(user), "%s/systemd/private", user_dir);
	if (*user && ask_manager(user, ret))
		return;
	if (ask_manager("/run/systemd/private", ret) || ask_manager(NULL, ret))
		return;
	if (is_service && may_notify)
		ret->store_max = number_in("FDSTORE");
}
