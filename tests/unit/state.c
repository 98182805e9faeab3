/* SPDX-License-Identifier: MIT */
/* What outlives a bridge: lanes note it in any order. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fabric/base/process.h"
#include "fabric/machine/number.h"
#include "nbd-bridge/link/peer.h"
#include "nbd-bridge/main/state.h"

static void what_comes_late_takes_nothing_back(void **state)
{
	struct bridge_state_donor donor = {0};

	bridge_state_note(&donor, 1, 5, false);
	assert_false(donor.wrote);
	bridge_state_note(&donor, 1, 5, true);
	/* Another lane's grant at the same generation, and one of before. */
	bridge_state_note(&donor, 1, 5, false);
	assert_true(donor.granted == 5 && donor.wrote);
	bridge_state_note(&donor, 1, 4, true);
	assert_true(donor.granted == 5 && donor.wrote);
	bridge_state_note(&donor, 2, 6, false);
	assert_true(donor.epoch == 2 && donor.granted == 6 && !donor.wrote);
	bridge_state_note(&donor, 1, 5, true);
	assert_true(donor.epoch == 2 && donor.granted == 6 && !donor.wrote);
}

static void a_late_write_of_a_lower_generation_hides_no_newer_one(void **state)
{
	struct bridge_attachment attachment = {0};
	struct bridge_peer peer = {.attachment = &attachment};

	assert_int_equal(peer_note_wrote(&peer, 5), 0);
	assert_int_equal(peer_note_wrote(&peer, 4), 0);
	assert_true(atomic_load(&peer.wrote_generation) == 5);
}

/* ---- what is in the file ---- */

static char dir[] = "/tmp/weft-unit-state.XXXXXX", path[sizeof(dir) + 32];

static uint64_t borrower_of(const char *name, bool none)
{
	struct bridge_state_file state;

	assert_int_equal(bridge_state_open(name, &state, NULL), 0);
	if (none)
		state.borrower = 0;
	uint64_t borrower = state.borrower;
	free(state.uri);
	state.uri = strdup("weft://a/r");
	state.mode = 'w';
	assert_int_equal(bridge_state_write(&state, NULL), 0);
	bridge_state_fini(&state);
	return borrower;
}

static void a_name_is_one_borrower_whenever_it_attaches(void **state)
{
	if (weft_machine_number("any") == 0)
		skip(); /* in a container, or without a machine's id */
	unlink(path);
	uint64_t first = borrower_of("r", false);
	assert_int_not_equal(first, 0);
	assert_int_equal(borrower_of("r", false), first); /* taken over */
	unlink(path);
	assert_int_equal(borrower_of("r", false), first); /* anew */
	assert_int_not_equal(borrower_of("q", false), first);
	/* A bridge that had none goes on without: its target knows it by its id. */
	unlink(path);
	borrower_of("r", true);
	assert_int_equal(borrower_of("r", false), 0);
	unlink(path);
	snprintf(path + sizeof(dir) - 1, sizeof(path) - sizeof(dir), "/attach-q.json");
	unlink(path);
	snprintf(path + sizeof(dir) - 1, sizeof(path) - sizeof(dir), "/attach-r.json");
}

/* ---- what cannot be read ---- */

/* What a writer of two donors leaves when it is killed. */
static void leave_state(void)
{
	struct bridge_state_file state;
	struct weft_error err;

	unlink(path);
	assert_int_equal(bridge_state_open("r", &state, &err), 0);
	assert_false(state.takes_over);
	bridge_state_renew(&state, 2);
	state.uri = strdup("weft://a/r weft://b/r");
	state.mode = 'w';
	state.stale = true;
	state.stripe_bytes = 65536;
	for (unsigned i = 0; i < 2; i++) {
		state.donors[i].info = (struct tp_info){.size_bytes = 1 << 20,
			.max_io_bytes = 65536,
			.min_block_bytes = 1,
			.has_epoch = true};
		bridge_state_note(&state.donors[i], UINT64_C(0x1122334455667788) + i,
			state.generation, true);
	}
	assert_int_equal(bridge_state_write(&state, &err), 0);
	bridge_state_fini(&state);
}

/* Opens it as a take-over: what it remembers, or that it cannot be read.  In no case a new one. */
static void expect_the_same_or_damage(unsigned *nr_damaged)
{
	struct bridge_state_file state;
	struct weft_error err;
	int r = bridge_state_open("r", &state, &err);

	if (r < 0) {
		assert_int_equal(r, -EUCLEAN);
		(*nr_damaged)++;
	} else {
		assert_true(state.takes_over && state.stale && state.nr_donors == 2 &&
			state.mode == 'w');
		assert_true(state.stripe_bytes == 65536 && state.generation == UINT64_C(2) << 32);
		for (unsigned i = 0; i < 2; i++)
			assert_true(state.donors[i].epoch == UINT64_C(0x1122334455667788) + i &&
				state.donors[i].wrote &&
				state.donors[i].granted == UINT64_C(1) << 32);
	}
	bridge_state_fini(&state);
}

static void what_is_damaged_is_never_taken_for_new(void **state)
{
	char text[8192], bad;
	unsigned nr_damaged = 0;

	leave_state();
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ssize_t len = pread(fd, text, sizeof(text), 0);
	assert_true(len > 1000);
	for (ssize_t i = 0; i < len; i++)
		for (unsigned bit = 0; bit < 7; bit += 3) {
			bad = (char)(text[i] ^ 1 << bit);
			assert_int_equal(pwrite(fd, &bad, 1, i), 1);
			expect_the_same_or_damage(&nr_damaged);
			assert_int_equal(pwrite(fd, &text[i], 1, i), 1);
		}
	assert_true(nr_damaged > 2000);
	/* The beginning of a newer one, which a signal cut at a page's end, and cut short. */
	for (ssize_t cut = len - 2; cut > 0; cut -= 7) {
		assert_int_equal(ftruncate(fd, cut), 0);
		nr_damaged = 0;
		expect_the_same_or_damage(&nr_damaged);
		assert_int_equal(nr_damaged, 1);
	}
	/* Nothing was ever written: whoever made it was killed. */
	assert_int_equal(ftruncate(fd, 0), 0);
	struct bridge_state_file fresh;
	assert_int_equal(bridge_state_open("r", &fresh, NULL), 0);
	assert_false(fresh.takes_over);
	bridge_state_fini(&fresh);
	close(fd);
}

static void write_text(const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

#define ID "00112233445566778899aabbccddeeff"

/* Without a sum, as older ones are; each field by itself. */
static void each_field_is_of_its_kind(void **state)
{
	static const char *const bad[] = {
		"\"generation\": 4294967296, \"epoch\": \"112233445566778g\"",
		"\"generation\": 4294967296, \"epoch\": \"11223344\"",
		"\"generation\": 4294967296, \"epoch\": 17",
		"\"generation\": \"4294967296\", \"epoch\": \"1122334455667788\"",
		"\"generation\": -1, \"epoch\": \"1122334455667788\"",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"granted\": \"5\"",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"granted\": -5",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"wrote\": 1",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"stale\": \"true\"",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"mode\": \"m\"",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"boot\": 1",
		"\"generation\": 1, \"epoch\": \"1122334455667788\", \"socket_tenure\": \"x\"",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"more\": {}",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"more\": [1]",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"info\": 1",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"uri\": 1",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"version\": 4",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"sealed\": \"no\"",
		"\"generation\": 4294967296, \"epoch\": \"1122334455667788\", \"guard\": \"1\"",
		"\"generation\": 1, \"epoch\": \"1122334455667788\", \"keeps_seal\": \"1\"",
	};
	struct bridge_state_file file;
	struct weft_error err;
	char text[512];
	bool alive;

	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "{\"id\": \"" ID "\", %s}", bad[i]);
		write_text(text);
		if (bridge_state_open("r", &file, &err) != -EUCLEAN)
			fail_msg("taken: %s", text);
		bridge_state_fini(&file);
		assert_int_equal(bridge_state_peek("r", &file, &alive, &err), 0);
		assert_true(file.damaged && !alive);
		bridge_state_fini(&file);
	}
	write_text("{\"id\": \"" ID "\", \"generation\": 4294967296, \"epoch\": "
				    "\"1122334455667788\", \"uri\": \"weft://a/r\", \"later\": [], "
		   "\"socket\": null}");
	assert_int_equal(bridge_state_open("r", &file, &err), 0);
	assert_true(file.takes_over && file.donors[0].epoch == 0x1122334455667788 &&
		file.generation == UINT64_C(2) << 32);
	bridge_state_fini(&file);
}

/* JSON has no such text: a state without its path could not be taken over. */
static void a_path_that_cannot_be_kept_is_an_error(void **state)
{
	struct bridge_state_file file;
	struct weft_error err;

	unlink(path);
	assert_int_equal(bridge_state_open("r", &file, &err), 0);
	file.uri = strdup("weft://a/r");
	file.socket = strdup("/tmp/\xff");
	assert_int_equal(bridge_state_write(&file, &err), -EILSEQ);
	bridge_state_fini(&file);
}

static void *end_soon(void *ctx)
{
	usleep(600000);
	_exit(0);
}

/* A bridge of the name that is killed, but whose last thread is there a while longer. */
static pid_t leave_a_dying_one(void)
{
	struct bridge_state_file file;
	struct weft_error err = {0};
	pthread_t thread;
	int ready[2];
	char byte;

	unlink(path);
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (pid == 0) {
		bridge_state_open("r", &file, &err);
		file.pid = getpid();
		bridge_state_write(&file, &err);
		pthread_create(&thread, NULL, end_soon, NULL);
		(void)!write(ready[1], "", 1);
		syscall(SYS_exit, 0); /* its first thread alone */
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	/*
	 * Its first thread said so before it ended; the other one sees to it that this comes to an
	 * end.
	 */
	while (!weft_process_is_dying(pid))
		usleep(1000);
	return pid;
}

/*
 * A process that was killed has its descriptors until its last thread is gone: whoever attaches
 * then waits for that.
 */
static void a_name_whose_process_is_dying_is_waited_for(void **state)
{
	struct bridge_state_file file;
	struct weft_error err = {0};
	siginfo_t end;
	pid_t pid = leave_a_dying_one();

	assert_int_equal(bridge_state_open("r", &file, &err), 0);
	assert_true(file.takes_over);
	bridge_state_fini(&file);
	assert_int_equal(waitid(P_PID, (id_t)pid, &end, WEXITED), 0);
}

/* So does whoever asks whether the bridge lives: weft detach, status. */
static void one_that_is_dying_is_not_alive(void **state)
{
	struct bridge_state_file file;
	struct weft_error err = {0};
	siginfo_t end;
	bool alive = true;
	pid_t pid = leave_a_dying_one();

	assert_int_equal(bridge_state_peek("r", &file, &alive, &err), 0);
	assert_false(alive);
	assert_int_equal(file.pid, pid);
	bridge_state_fini(&file);
	assert_int_equal(waitid(P_PID, (id_t)pid, &end, WEXITED), 0);
}

static int make_dir(void **state)
{
	return mkdtemp(dir) && setenv("WEFT_RUN_DIR", dir, 1) == 0 &&
			snprintf(path, sizeof(path), "%s/attach-r.json", dir) > 0
		? 0
		: -1;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static off_t size_of(const struct bridge_state_file *file)
{
	struct stat st;

	assert_int_equal(fstat(file->fd, &st), 0);
	return st.st_size;
}

static void a_file_that_is_kept_has_its_pages_whatever_is_in_it(void **state)
{
	struct bridge_state_file file;
	off_t kept;

	assert_int_equal(bridge_state_open("kept", &file, NULL), 0);
	bridge_state_renew(&file, 1);
	file.uri = strdup("weft://a-long-name-of-a-donor.example/region");
	assert_int_equal(bridge_state_write(&file, NULL), 0);
	const off_t before = size_of(&file);
	assert_int_equal(bridge_state_keep(&file), 0);
	kept = size_of(&file);
	assert_true(kept > 40 * before);
	/* A shorter text leaves nothing of a longer one behind it. */
	strcpy(file.uri, "weft://d/r");
	assert_int_equal(bridge_state_write(&file, NULL), 0);
	assert_int_equal(size_of(&file), kept);
	char *text = calloc(1, (size_t)kept + 1);
	assert_int_equal(pread(file.fd, text, (size_t)kept, 0), kept);
	assert_null(strchr(strrchr(text, '}'), 'w'));
	assert_int_equal(strspn(strrchr(text, '}'), "} \n"), strlen(strrchr(text, '}')));
	free(text);
	bridge_state_fini(&file);
	bool alive;
	assert_int_equal(bridge_state_peek("kept", &file, &alive, NULL), 0);
	assert_true(!file.damaged && strcmp(file.uri, "weft://d/r") == 0);
	bridge_state_remove(&file);
	bridge_state_fini(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_comes_late_takes_nothing_back),
		cmocka_unit_test(a_late_write_of_a_lower_generation_hides_no_newer_one),
		cmocka_unit_test(a_name_is_one_borrower_whenever_it_attaches),
		cmocka_unit_test(what_is_damaged_is_never_taken_for_new),
		cmocka_unit_test(each_field_is_of_its_kind),
		cmocka_unit_test(a_path_that_cannot_be_kept_is_an_error),
		cmocka_unit_test(a_name_whose_process_is_dying_is_waited_for),
		cmocka_unit_test(one_that_is_dying_is_not_alive),
		cmocka_unit_test(a_file_that_is_kept_has_its_pages_whatever_is_in_it),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
