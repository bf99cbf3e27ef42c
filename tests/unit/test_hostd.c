/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/reader.h"
#include "hostd/accel.h"
#include "hostd/image.h"
#include "hostd/journal.h"
#include "hostd/lifecycle.h"
#include "hostd/privileged.h"
#include "hostd/resources.h"
#include "io/json.h"
#include "unit.h"

struct fixture {
	char folder[32];
	int directory;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/sosie-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->directory = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->directory >= 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {
		"events", "shipped.json", "image", "accel.json", "qemu-system-x86_64"};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		(void)unlinkat(f->directory, names[i], 0);
	(void)close(f->directory);
	assert_ok(rmdir(f->folder));
	free(f);
	return 0;
}

/* The event that begins an action; LIFE_EVENTS for those that begin none. */
static enum life_event event_of(enum life_action action, enum life_state state)
{
	switch (action) {
	case ACT_PREPARE:
		return LIFE_PREPARE;
	case ACT_START:
		return LIFE_START;
	case ACT_REMOVE:
		return LIFE_REMOVE;
	case ACT_STOP:
	case ACT_KILL:
		return state == LIFE_RUNNING ? LIFE_STOP : LIFE_EVENTS;
	case ACT_REBOOT:
	case ACT_NONE:
		break;
	}
	return LIFE_EVENTS;
}

static struct life_view view_of(unsigned int bits)
{
	return (struct life_view){.state = (enum life_state)(bits & 7),
		.want = (enum life_want)((bits >> 3) % 3),
		.prepared = bits >> 5 & 1,
		.latched = bits >> 6 & 1,
		.start_due = bits >> 7 & 1,
		.reboot_due = bits >> 8 & 1,
		.forced = bits >> 9 & 1,
		.cooling = bits >> 10 & 1};
}

/* Every view there is: what is decided is possible in that state. */
static void every_decision_is_an_allowed_move(void **state)
{
	int actions = 0;

	(void)state;
	static_assert(LIFE_STATES == 8, "view_of() takes three bits");
	for (unsigned int bits = 0; bits < 1U << 11; bits++) {
		struct life_view v = view_of(bits);
		enum life_action action = life_decide(&v);
		enum life_event event = event_of(action, v.state);

		if (!life_holds(v.state, v.prepared,
			    v.state == LIFE_RUNNING || v.state == LIFE_STOPPING))
			continue;
		actions += action != ACT_NONE;
		if (event != LIFE_EVENTS)
			assert_int_not_equal(life_next(v.state, event), LIFE_STATES);
		if (action == ACT_START)
			assert_true(v.prepared && v.want == WANT_RUNNING);
		if (action == ACT_REMOVE || action == ACT_KILL)
			assert_int_equal(v.want, WANT_ABSENT);
		if (v.latched && !v.start_due && !v.reboot_due)
			assert_int_not_equal(action, ACT_START);
	}
	assert_true(actions > 100);
}

/* What the next event is when all goes well. */
static enum life_event good_end(enum life_state state)
{
	switch (state) {
	case LIFE_PREPARING:
		return LIFE_PREPARED;
	case LIFE_STARTING:
		return LIFE_STARTED;
	case LIFE_STOPPING:
		return LIFE_ENDED;
	case LIFE_REMOVING:
		return LIFE_REMOVED;
	default:
		return LIFE_EVENTS;
	}
}

/* From each state, what is wanted is reached in a few steps, and then nothing more is done. */
static void every_want_is_reached(void **state)
{
	static const enum life_state goals[] = {[WANT_ABSENT] = LIFE_ABSENT,
		[WANT_STOPPED] = LIFE_STOPPED,
		[WANT_RUNNING] = LIFE_RUNNING};

	(void)state;
	for (unsigned int from = 0; from < LIFE_STATES; from++) {
		for (unsigned int want = 0; want < 3; want++) {
			struct life_view v = {.state = (enum life_state)from,
				.want = (enum life_want)want,
				.prepared = from != LIFE_ABSENT && from != LIFE_PREPARING};
			int steps;

			for (steps = 0; steps < 10; steps++) {
				enum life_event event = event_of(life_decide(&v), v.state);

				if (event == LIFE_EVENTS)
					event = good_end(v.state);
				if (event == LIFE_EVENTS)
					break;
				v.state = life_next(v.state, event);
				assert_int_not_equal(v.state, LIFE_STATES);
				if (event == LIFE_PREPARED || event == LIFE_REMOVED)
					v.prepared = event == LIFE_PREPARED;
				assert_true(life_holds(v.state, v.prepared,
					v.state == LIFE_RUNNING || v.state == LIFE_STOPPING));
			}
			assert_true(steps < 10);
			/* One that failed and has its disk is as good as stopped. */
			if (v.state != LIFE_FAILED || goals[want] != LIFE_STOPPED)
				assert_int_equal(v.state, goals[want]);
		}
	}
}

static void impossible_events_are_refused(void **state)
{
	(void)state;
	assert_int_equal(life_next(LIFE_ABSENT, LIFE_STARTED), LIFE_STATES);
	assert_int_equal(life_next(LIFE_RUNNING, LIFE_REMOVE), LIFE_STATES);
	assert_int_equal(life_next(LIFE_PREPARING, LIFE_START), LIFE_STATES);
	assert_string_equal(life_state_told(LIFE_PREPARING), "creating");
	assert_string_equal(life_state_name(LIFE_PREPARING), "preparing");
	assert_string_equal(life_event_name(LIFE_BROKE), "broke");
	assert_false(life_holds(LIFE_RUNNING, true, false));
	assert_false(life_holds(LIFE_STOPPED, true, true));
	assert_false(life_holds(LIFE_STARTING, false, false));
}

static const char *put_image(struct fixture *f, const void *bytes, size_t n, char path[64])
{
	int fd = openat(f->directory, "image", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	(void)close(fd);
	(void)snprintf(path, 64, "%s/image", f->folder);
	return path;
}

static void images_are_looked_into_before_qemu_is(void **state)
{
	struct fixture *f = *state;
	struct image image = {0};
	uint8_t head[112] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};
	char path[64];

	put_u32_be(head + 28, 5 << 20); /* the low half of the size */
	assert_ok(image_inspect(put_image(f, head, sizeof(head), path), &image, &f->err));
	assert_false(image.raw);
	assert_int_equal(image.bytes, 5 << 20);
	for (size_t n = 1; n < 80; n++)
		if (n % 512)
			assert_true(
				image_inspect(put_image(f, head, n, path), &image, &f->err) < 0);
	put_u32_be(head + 76, 4);
	assert_true(image_inspect(put_image(f, head, sizeof(head), path), &image, &f->err) < 0);
	assert_non_null(strstr(f->err.message, "data in another file"));
	put_u32_be(head + 76, 0);
	put_u32_be(head + 12, 104);
	assert_true(image_inspect(put_image(f, head, sizeof(head), path), &image, &f->err) < 0);
	assert_non_null(strstr(f->err.message, "backing file"));
	memset(head, 0, sizeof(head));
	assert_true(image_inspect(put_image(f, head, sizeof(head), path), &image, &f->err) < 0);
	assert_non_null(strstr(f->err.message, "whole sectors"));
	assert_ok(truncate(path, 1024));
	assert_ok(image_inspect(path, &image, &f->err));
	assert_true(image.raw);
	assert_int_equal(image.bytes, 1024);
	assert_true(image_inspect("/nowhere", &image, &f->err) < 0);
	assert_true(image_inspect("/dev/null", &image, &f->err) < 0);
}

static struct journal *reopen(struct fixture *f, struct journal *old)
{
	struct journal *j = NULL;

	journal_free(old);
	if (journal_open(f->directory, &j, &f->err) < 0)
		fail_msg("%s", f->err.message);
	return j;
}

static size_t batch_size(struct journal *j, int64_t *first)
{
	CLEANUP_JSON json_t *batch = journal_batch(j);
	const json_t *events = json_object_get(batch, "events");

	*first = json_integer_value(json_object_get(json_array_get(events, 0), "sequence"));
	return json_array_size(events);
}

static void events_are_taken_once_and_kept_until_acknowledged(void **state)
{
	struct fixture *f = *state;
	struct journal *j = reopen(f, NULL);
	int64_t first;

	assert_int_equal(batch_size(j, &first), 0);
	for (uint64_t n = 1; n <= 250; n++) {
		assert_int_equal(journal_wanted(j, "i-1"), n);
		assert_ok(journal_add(j, "instance.qmp", "i-1", n, n, json_object()));
	}
	assert_ok(journal_add(j, "host.note", "i-1", 1, 0, NULL));
	j = reopen(f, j);
	assert_int_equal(journal_wanted(j, "i-1"), 251);
	assert_int_equal(journal_wanted(j, "i-2"), 1);
	assert_int_equal(batch_size(j, &first), JOURNAL_BATCH_MAX);
	assert_int_equal(first, 1);
	assert_ok(journal_acknowledge(j, 100, &f->err));
	assert_ok(journal_acknowledge(j, 100, &f->err));
	assert_true(journal_acknowledge(j, 99, &f->err) < 0);
	assert_true(journal_acknowledge(j, 1000, &f->err) < 0);
	j = reopen(f, j);
	assert_int_equal(batch_size(j, &first), JOURNAL_BATCH_MAX);
	assert_int_equal(first, 101);
	assert_ok(journal_acknowledge(j, 251, &f->err));
	assert_int_equal(batch_size(j, &first), 0);
	/* Also when the entries that said it have long left the file. */
	for (uint64_t n = 1; n <= 2000; n++) {
		assert_ok(journal_add(j, "host.note", "i-2", n, n, NULL));
		assert_ok(journal_acknowledge(j, 251 + n, &f->err));
	}
	j = reopen(f, j);
	assert_int_equal(journal_wanted(j, "i-1"), 251);
	assert_int_equal(journal_wanted(j, "i-2"), 2001);
	assert_ok(journal_removed(j, "i-1", 5));
	assert_int_equal(journal_wanted(j, "i-1"), 1);
	j = reopen(f, j);
	assert_int_equal(journal_wanted(j, "i-1"), 1);
	assert_int_equal(batch_size(j, &first), 1);
	assert_int_equal(journal_lost(j), 0);
	journal_free(j);
}

static void users_are_understood(void **state)
{
	struct guest_user user = {.uid = 1};
	struct err e;

	(void)state;
	assert_ok(guest_user_parse("none", &user, &e));
	assert_false(user.drops);
	if (geteuid() == 0) {
		assert_ok(guest_user_parse(NULL, &user, &e));
		assert_true(user.drops && user.uid != 0);
		assert_ok(guest_user_parse("12:34", &user, &e));
		assert_int_equal(user.uid, 12);
		assert_int_equal(user.gid, 34);
		assert_true(guest_user_parse("0:34", &user, &e) < 0);
		assert_true(guest_user_parse("root", &user, &e) < 0);
		assert_true(guest_user_parse("no-such-user", &user, &e) < 0);
	}
}

static void folders_are_made_and_removed_by_name_only(void **state)
{
	struct fixture *f = *state;
	int fd = -1;

	assert_ok(privileged_make_folder(f->directory, "i-1", &fd, &f->err));
	assert_ok(privileged_write(fd, "a", "b", 1, 0600, &f->err));
	(void)close(fd);
	assert_true(privileged_make_folder(f->directory, "../i-1", &fd, &f->err) < 0);
	assert_true(privileged_remove_folder(f->directory, "..", &f->err) < 0);
	assert_ok(symlinkat("/etc", f->directory, "i-2"));
	assert_true(privileged_remove_folder(f->directory, "i-2", &f->err) < 0);
	assert_ok(unlinkat(f->directory, "i-2", 0));
	assert_ok(privileged_remove_folder(f->directory, "i-1", &f->err));
	assert_ok(privileged_remove_folder(f->directory, "i-1", &f->err));
}

static void the_test_guest_comes_through_where_guests_run(void **state)
{
	const struct guest_user nobody = {0};
	struct accel verdict = {0};
	struct err e;

	(void)state;
	/* TCG is slow under sanitizers and on a loaded machine; the limit is not what is tested. */
	assert_ok(accel_try("tcg", &nobody, 60 * NSEC_PER_SEC, &verdict, &e));
	assert_string_equal(verdict.reason, "a test guest came through its early boot");
	assert_true(verdict.kvm);
	assert_ok(accel_try("no-such", &nobody, 60 * NSEC_PER_SEC, &verdict, &e));
	assert_false(verdict.kvm);
	assert_non_null(strstr(verdict.reason, "no-such"));
}

/* A QEMU that hangs: stood in for by a program that does nothing else. */
static void a_guest_that_hangs_is_ended_in_time(void **state)
{
	static const char script[] = "#!/bin/sh\nprintf rp\nexec /bin/sleep 1000\n";
	const struct guest_user nobody = {0};
	struct fixture *f = *state;
	struct accel verdict = {.kvm = true};
	const char *set = getenv("PATH");
	char *path = strdup(set ? set : "/usr/bin:/bin");
	int fd = openat(f->directory, "qemu-system-x86_64", O_WRONLY | O_CREAT | O_CLOEXEC, 0700);

	assert_int_equal(write(fd, script, sizeof(script) - 1), sizeof(script) - 1);
	(void)close(fd);
	assert_ok(setenv("PATH", f->folder, 1));
	assert_ok(accel_try("kvm", &nobody, 300 * NSEC_PER_MSEC, &verdict, &f->err));
	assert_ok(setenv("PATH", path, 1));
	assert_false(verdict.kvm);
	assert_non_null(strstr(verdict.reason, "a test guest hung: within 300 ms it came to "
					       "protected mode"));
	free(path);
}

static void resources_are_those_of_the_host(void **state)
{
	const struct resources none = {0}, part = {.cores = 3, .disk_bytes = 5};
	struct fixture *f = *state;
	struct resources found;
	char boot_id[BOOT_ID_SIZE];

	assert_ok(resources_read(f->directory, &none, &found, &f->err));
	assert_true(found.cores >= 1 && found.memory_bytes > 1 << 20 && found.disk_bytes > 0);
	assert_true(found.cpu_model[0] != '\0');
	assert_ok(resources_read(f->directory, &part, &found, &f->err));
	assert_int_equal(found.cores, 3);
	assert_int_equal(found.disk_bytes, 5);
	assert_true(found.memory_bytes > 1 << 20);
	assert_ok(read_boot_id(boot_id, &f->err));
	assert_int_equal(strlen(boot_id), 36);
}

#define HOSTD_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_decision_is_an_allowed_move),
		cmocka_unit_test(every_want_is_reached),
		cmocka_unit_test(impossible_events_are_refused),
		HOSTD_TEST(images_are_looked_into_before_qemu_is),
		HOSTD_TEST(events_are_taken_once_and_kept_until_acknowledged),
		cmocka_unit_test(users_are_understood),
		HOSTD_TEST(folders_are_made_and_removed_by_name_only),
		cmocka_unit_test(the_test_guest_comes_through_where_guests_run),
		HOSTD_TEST(a_guest_that_hangs_is_ended_in_time),
		HOSTD_TEST(resources_are_those_of_the_host),
	};

	return cmocka_run_group_tests_name("hostd", tests, NULL, NULL);
}
