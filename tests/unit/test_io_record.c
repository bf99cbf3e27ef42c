/* SPDX-License-Identifier: Apache-2.0 */
#include "io/record.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/hash.h"
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
	struct fixture *f = *state;

	(void)unlinkat(f->directory, "log", 0);
	(void)unlinkat(f->directory, "log.new", 0);
	(void)close(f->directory);
	assert_ok(rmdir(f->folder));
	free(f);
	return 0;
}

static struct record *reopen(struct fixture *f, struct record *old)
{
	struct record *r = NULL;

	record_free(old);
	if (record_open(f->directory, "log", &r, &f->err) < 0)
		fail_msg("%s", f->err.message);
	return r;
}

static void add(struct record *r, int value)
{
	uint64_t expected = record_next(r), sequence = 0;

	assert_ok(record_append(r, json_pack("{s:i}", "value", value), &sequence));
	assert_int_equal(sequence, expected);
}

struct sum {
	uint64_t next;
	int count, values;
};

static int check(uint64_t sequence, const json_t *entry, void *userdata)
{
	struct sum *s = userdata;

	assert_true(s->next == 0 || sequence == s->next);
	assert_int_equal(json_integer_value(json_object_get(entry, "sequence")), sequence);
	s->next = sequence + 1;
	s->count++;
	s->values += (int)json_integer_value(json_object_get(entry, "value"));
	return 0;
}

static struct sum sum_from(struct record *r, uint64_t from)
{
	struct sum s = {0};

	assert_ok(record_each(r, from, check, &s));
	return s;
}

static void entries_survive_and_are_numbered(void **state)
{
	struct fixture *f = *state;
	struct record *r = reopen(f, NULL), *second = NULL;

	assert_int_equal(record_next(r), 1);
	assert_int_equal(sum_from(r, 1).count, 0);
	for (int i = 1; i <= 10; i++)
		add(r, i);
	assert_int_equal(sum_from(r, 1).values, 55);
	assert_int_equal(record_open(f->directory, "log", &second, &f->err), -EEXIST);
	assert_int_equal(f->err.code, ERR_CONFLICT);
	r = reopen(f, r);
	assert_int_equal(record_next(r), 11);
	assert_int_equal(sum_from(r, 6).values, 40);
	assert_int_equal(sum_from(r, 11).count, 0);
	assert_int_equal(record_append(r, NULL, NULL), -ENOMEM);
	record_free(r);
}

static off_t size_of(const struct fixture *f)
{
	struct stat st;

	assert_ok(fstatat(f->directory, "log", &st, 0));
	return st.st_size;
}

/* A crash may leave any part of the last entry; all before it must be there. */
static void a_torn_tail_is_cut_off_wherever_it_is_torn(void **state)
{
	struct fixture *f = *state;
	struct record *r = reopen(f, NULL);
	off_t whole, size;

	add(r, 1);
	add(r, 2);
	whole = size_of(f);
	add(r, 3);
	size = size_of(f);
	for (off_t cut = whole; cut < size; cut++) {
		int fd = openat(f->directory, "log", O_RDWR | O_CLOEXEC);

		assert_true(fd >= 0);
		assert_ok(ftruncate(fd, cut));
		(void)close(fd);
		r = reopen(f, r);
		assert_int_equal(record_next(r), 3);
		assert_int_equal(sum_from(r, 1).values, 3);
		assert_int_equal(size_of(f), whole);
		add(r, 3);
		assert_int_equal(size_of(f), size);
	}
	record_free(r);
}

/*
 * Any byte of any entry but the last: noticed, and the file left as it is. (Its line end alone
 * makes one torn tail of both.)
 */
static void damage_before_the_end_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct record *r = reopen(f, NULL), *none = NULL;
	off_t end;
	int fd;

	add(r, 1);
	end = size_of(f);
	add(r, 2);
	record_free(r);
	fd = openat(f->directory, "log", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	for (off_t at = 0; at < end - 1; at++) {
		char kept, broken;

		assert_int_equal(pread(fd, &kept, 1, at), 1);
		broken = (char)(kept ^ 0x11);
		assert_int_equal(pwrite(fd, &broken, 1, at), 1);
		assert_true(record_open(f->directory, "log", &none, &f->err) < 0);
		assert_int_equal(f->err.code, ERR_CORRUPT);
		assert_int_equal(pwrite(fd, &kept, 1, at), 1);
	}
	(void)close(fd);
	r = reopen(f, NULL);
	assert_int_equal(sum_from(r, 1).count, 2);
	record_free(r);
}

static void another_version_is_refused(void **state)
{
	static const char head[] = "{\"format\":\"sosie-record\",\"version\":2,\"first\":1";
	struct fixture *f = *state;
	struct record *none = NULL;
	int fd = openat(f->directory, "log", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(
		dprintf(fd, "%s,\"crc\":\"%08x\"}\n", head, crc32c(0, head, sizeof(head) - 1)) > 0);
	(void)close(fd);
	assert_true(record_open(f->directory, "log", &none, &f->err) < 0);
	assert_int_equal(f->err.code, ERR_VERSION);
}

static void what_is_forgotten_leaves_the_file(void **state)
{
	struct fixture *f = *state;
	struct record *r = reopen(f, NULL);
	uint64_t largest = 0;

	for (int i = 1; i <= 5000; i++) {
		add(r, i);
		if (i % 7 == 0)
			assert_ok(record_forget(r, record_next(r) - 3));
		assert_int_equal(sum_from(r, record_next(r) - 1).values, i);
		largest = MAX(largest, record_bytes(r));
		assert_int_equal(record_bytes(r), size_of(f));
		if (i % 1000 == 0)
			r = reopen(f, r);
	}
	assert_true(largest < 3 * RECORD_SLACK);
	assert_true(record_first(r) > 1);
	assert_int_equal(record_next(r), 5001);
	assert_int_equal(sum_from(r, 1).count, record_next(r) - record_first(r));
	/* Everything may go; the numbers go on. */
	assert_ok(record_forget(r, UINT64_MAX));
	r = reopen(f, r);
	add(r, 5);
	assert_int_equal(record_next(r), 5002);
	record_free(r);
}

/* A disk that is full at each possible place in turn: what was there stays, and it goes on later.
 */
static void a_full_disk_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct record *r = reopen(f, NULL);
	struct rlimit old, low;
	void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
	off_t before;

	add(r, 1);
	before = size_of(f);
	assert_ok(getrlimit(RLIMIT_FSIZE, &old));
	for (off_t room = 0; room < 30; room++) {
		low = old;
		low.rlim_cur = (rlim_t)(before + room);
		assert_ok(setrlimit(RLIMIT_FSIZE, &low));
		assert_int_equal(record_append(r, json_pack("{s:i}", "value", 2), NULL), -EFBIG);
		assert_ok(setrlimit(RLIMIT_FSIZE, &old));
		assert_int_equal(size_of(f), before);
		assert_int_equal(record_next(r), 2);
	}
	(void)signal(SIGXFSZ, handler);
	add(r, 2);
	r = reopen(f, r);
	assert_int_equal(sum_from(r, 1).values, 3);
	record_free(r);
}

static void an_entry_that_is_too_long_is_refused(void **state)
{
	struct fixture *f = *state;
	struct record *r = reopen(f, NULL);
	char *text = malloc(RECORD_LINE_MAX);

	assert_non_null(text);
	memset(text, 'x', RECORD_LINE_MAX - 1);
	text[RECORD_LINE_MAX - 1] = '\0';
	assert_int_equal(record_append(r, json_pack("{s:s}", "value", text), NULL), -E2BIG);
	text[RECORD_LINE_MAX - 64] = '\0';
	assert_ok(record_append(r, json_pack("{s:s}", "value", text), NULL));
	add(r, 1);
	r = reopen(f, r);
	assert_int_equal(sum_from(r, 1).count, 2);
	record_free(r);
	free(text);
}

/* A writer that is killed at any moment loses at most what it was not told to be written. */
static void a_killed_writer_loses_nothing(void **state)
{
	struct fixture *f = *state;

	for (int turn = 0; turn < 20; turn++) {
		struct record *r;
		uint64_t told = 0, next;
		int fds[2];
		pid_t pid;

		assert_ok(pipe2(fds, O_CLOEXEC));
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			if (record_open(f->directory, "log", &r, NULL) < 0)
				_exit(1);
			for (;;) {
				uint64_t sequence;

				if (record_append(r, json_object(), &sequence) < 0 ||
					write(fds[1], &sequence, 8) != 8)
					_exit(1);
				if (sequence % 5 == 0)
					(void)record_forget(r, sequence - 2);
			}
		}
		(void)close(fds[1]);
		for (int i = 0; i <= turn * 7; i++)
			assert_int_equal(read(fds[0], &told, 8), 8);
		assert_ok(kill(pid, SIGKILL));
		while (read(fds[0], &next, 8) == 8)
			told = next;
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		(void)close(fds[0]);
		r = reopen(f, NULL);
		assert_true(record_next(r) == told + 1 || record_next(r) == told + 2);
		assert_int_equal(sum_from(r, 1).count, record_next(r) - record_first(r));
		record_free(r);
	}
}

#define RECORD_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RECORD_TEST(entries_survive_and_are_numbered),
		RECORD_TEST(a_torn_tail_is_cut_off_wherever_it_is_torn),
		RECORD_TEST(damage_before_the_end_is_an_error),
		RECORD_TEST(another_version_is_refused),
		RECORD_TEST(what_is_forgotten_leaves_the_file),
		RECORD_TEST(a_full_disk_changes_nothing),
		RECORD_TEST(an_entry_that_is_too_long_is_refused),
		RECORD_TEST(a_killed_writer_loses_nothing),
	};

	return cmocka_run_group_tests_name("io_record", tests, NULL, NULL);
}
