/* SPDX-License-Identifier: MIT */
/* Control sockets: questions, answers, strangers and leftovers. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fabric/base/control.h"
#include "fabric/base/util.h"

static char dir[] = "/tmp/weft-control.XXXXXX";
static struct weft_loop *loop;
static struct weft_control *control;
static struct weft_control_call *parked;
static struct weft_error err;

static void on_question(void *ctx, struct weft_control_call *call, const json_t *question)
{
	const char *op = json_string_value(json_object_get(question, "op"));

	if (op && strcmp(op, "echo") == 0)
		weft_control_answer(call,
			json_pack("{s:O}", "echo", json_object_get(question, "text")));
	else if (op && strcmp(op, "park") == 0)
		parked = call;
	else
		weft_control_answer(call,
			json_pack("{s:s, s:i}", "error", "no such op", "code", EOPNOTSUPP));
}

static void *run(void *arg)
{
	weft_loop_run(loop);
	return NULL;
}

static pthread_t thread;

static void stop_loop(void *ctx)
{
	weft_loop_stop(loop);
}

static int setup(void **state)
{
	assert_int_equal(weft_loop_new(&loop), 0);
	weft_loop_on_wake(loop, stop_loop, NULL);
	assert_int_equal(weft_control_new(loop, "serve-1.sock", on_question, NULL, &control, &err),
		0);
	return pthread_create(&thread, NULL, run, NULL);
}

static void stop_thread(void)
{
	weft_loop_wake(loop);
	pthread_join(thread, NULL);
}

static int teardown(void **state)
{
	weft_control_free(control);
	weft_loop_free(loop);
	return 0;
}

static void a_question_is_answered(void **state)
{
	json_t *text = json_string("grüße \"x\" \n"), *answer;
	json_t *question = json_pack("{s:s, s:o}", "op", "echo", "text", text);

	assert_int_equal(weft_control_ask("serve-1.sock", question, 5000, &answer, &err), 0);
	assert_true(json_equal(json_object_get(answer, "echo"), text));
	json_decref(answer);
	json_decref(question);
	stop_thread();
}

static void long_answers_arrive_whole(void **state)
{
	char *big = malloc(40000);

	memset(big, 'x', 39999);
	big[39999] = '\0';
	json_t *question = json_pack("{s:s, s:s}", "op", "echo", "text", big), *answer;
	assert_int_equal(weft_control_ask("serve-1.sock", question, 5000, &answer, &err), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "echo")), big);
	json_decref(answer);
	json_decref(question);
	free(big);
	stop_thread();
}

static void an_error_comes_back_as_one(void **state)
{
	json_t *question = json_pack("{s:s}", "op", "none"), *answer = NULL;

	assert_int_equal(weft_control_ask("serve-1.sock", question, 5000, &answer, &err),
		-EOPNOTSUPP);
	assert_string_equal(err.message, "no such op");
	assert_null(answer);
	json_decref(question);
	stop_thread();
}

static int connect_raw(const char *name)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", dir, name);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void what_is_not_json_is_refused(void **state)
{
	static const char *const bad[] = {"\n", "[]\n", "{\n", "nonsense\n", "{\"op\":1} x\n"};
	char answer[200];

	for (size_t i = 0; i < WEFT_ARRAY_LEN(bad); i++) {
		int fd = connect_raw("serve-1.sock");

		assert_int_equal(weft_write_all(fd, bad[i], strlen(bad[i])), 0);
		ssize_t n = read(fd, answer, sizeof(answer) - 1);
		assert_true(n > 0);
		answer[n] = '\0';
		assert_non_null(strstr(answer, "\"error\""));
		close(fd);
	}
	stop_thread();
}

static void an_endless_question_is_cut_off(void **state)
{
	char chunk[4096];
	int fd = connect_raw("serve-1.sock"), r = 0;

	memset(chunk, ' ', sizeof(chunk));
	for (int i = 0; i < 64 && r >= 0; i++)
		r = (int)send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL);
	char byte;
	assert_true(read(fd, &byte, 1) <= 0);
	close(fd);
	stop_thread();
}

static void whoever_hangs_up_early_is_forgotten(void **state)
{
	json_t *question = json_pack("{s:s}", "op", "park"), *answer;

	assert_int_equal(weft_control_ask("serve-1.sock", question, 50, &answer, &err), -ETIMEDOUT);
	json_decref(question);
	/* A second question shows that the loop went round and saw the hang-up. */
	question = json_pack("{s:s, s:s}", "op", "echo", "text", "");
	assert_int_equal(weft_control_ask("serve-1.sock", question, 5000, &answer, &err), 0);
	json_decref(answer);
	json_decref(question);
	stop_thread();
	assert_non_null(parked);
	weft_control_answer(parked, json_object());
	parked = NULL;
}

static void an_answer_after_the_end_is_harmless(void **state)
{
	static const char text[] = "{\"op\":\"park\"}\n";
	int fd = connect_raw("serve-1.sock");
	json_t *question = json_pack("{s:s, s:s}", "op", "echo", "text", ""), *answer;
	char byte;

	assert_int_equal(weft_write_all(fd, text, strlen(text)), 0);
	/* A second question shows that the loop went round and took the first. */
	assert_int_equal(weft_control_ask("serve-1.sock", question, 5000, &answer, &err), 0);
	json_decref(answer);
	json_decref(question);
	stop_thread();
	assert_non_null(parked);
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	weft_control_free(control);
	control = NULL;
	/* Whoever asked knows at once, and the answer that comes then goes nowhere. */
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
	answer = json_object();
	weft_control_answer(parked, json_incref(answer));
	parked = NULL;
	assert_int_equal(answer->refcount, 1);
	json_decref(answer);
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
	close(fd);
}

static void the_name_of_a_live_daemon_is_taken(void **state)
{
	struct weft_control *second = NULL;

	stop_thread();
	assert_int_equal(weft_control_new(loop, "serve-1.sock", on_question, NULL, &second, &err),
		-EADDRINUSE);
	assert_null(second);
	/* And the refusal left the live one's file alone. */
	close(connect_raw("serve-1.sock"));
}

static void a_dead_daemons_socket_is_replaced(void **state)
{
	struct weft_control *second;
	json_t *question, *answer;
	int status;

	stop_thread();
	pid_t child = fork();
	if (child == 0) {
		struct weft_loop *own;

		_exit(weft_loop_new(&own) < 0 ||
			weft_control_new(own, "serve-2.sock", on_question, NULL, &second, NULL) <
				0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	question = json_object();
	assert_int_equal(weft_control_ask("serve-2.sock", question, 1000, &answer, &err),
		-ECONNREFUSED);
	assert_int_equal(weft_control_ask("serve-3.sock", question, 1000, &answer, &err), -ENOENT);
	json_decref(question);
	assert_int_equal(weft_control_new(loop, "serve-2.sock", on_question, NULL, &second, &err),
		0);
	weft_control_free(second);
}

static int collect(void *ctx, const char *name)
{
	strcat(ctx, name);
	strcat(ctx, " ");
	return 0;
}

static void sockets_are_listed_by_prefix_and_private(void **state)
{
	struct weft_control *second, *third;
	char names[200] = "", path[200];
	struct stat st;

	stop_thread();
	assert_int_equal(weft_control_new(loop, "serve-0.sock", on_question, NULL, &second, &err),
		0);
	assert_int_equal(weft_control_new(loop, "attach-x.sock", on_question, NULL, &third, &err),
		0);
	assert_int_equal(weft_control_each("serve-", collect, names), 0);
	assert_string_equal(names, "serve-0.sock serve-1.sock ");
	snprintf(path, sizeof(path), "%s/serve-0.sock", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	weft_control_free(second);
	weft_control_free(third);
	assert_int_equal(stat(path, &st), -1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_question_is_answered),
		TEST(long_answers_arrive_whole),
		TEST(an_error_comes_back_as_one),
		TEST(what_is_not_json_is_refused),
		TEST(an_endless_question_is_cut_off),
		TEST(whoever_hangs_up_early_is_forgotten),
		TEST(an_answer_after_the_end_is_harmless),
		TEST(the_name_of_a_live_daemon_is_taken),
		TEST(a_dead_daemons_socket_is_replaced),
		TEST(sockets_are_listed_by_prefix_and_private),
	};
	char command[64];

	if (!mkdtemp(dir))
		return 1;
	setenv("WEFT_RUN_DIR", dir, 1);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) != 0 || failed;
}
