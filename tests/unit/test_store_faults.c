/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store does when the disk does not: a layer under SQLite that fails the n-th operation
 * that changes something (write, sync, truncate, open, delete), for every n until the workload
 * gets by without meeting it, once or from then on; and processes killed at any moment.
 *
 * After each: the store opens, store_check() finds nothing, every change that was acknowledged is
 * there, and of every other all or nothing.
 */
/* In memory: it is the layer that fails here, and there are thousands of stores to make. */
#define FIXTURE_ROOT "/dev/shm"
#include "store_fixture.h"

#include <signal.h>
#include <sqlite3.h>
#include <time.h>

/* ---- the failing layer ---- */

static struct {
	sqlite3_vfs *real;
	bool armed;
	bool persistent;    /* fail from the n-th on, not only the n-th */
	bool full;          /* SQLITE_FULL instead of SQLITE_IOERR_… from writes */
	unsigned int nth;   /* counted from 1 */
	unsigned int count; /* operations since it was armed */
	unsigned int fired;
} fault;

struct faulty_file {
	sqlite3_file base;
	sqlite3_file *real; /* behind this struct */
};

static bool fails(void)
{
	if (!fault.armed)
		return false;
	fault.count++;
	if (fault.count != fault.nth && !(fault.persistent && fault.count > fault.nth))
		return false;
	fault.fired++;
	return true;
}

static sqlite3_file *real_of(sqlite3_file *file)
{
	return ((struct faulty_file *)(void *)file)->real;
}

static int f_close(sqlite3_file *f)
{
	return real_of(f)->pMethods->xClose(real_of(f));
}

static int f_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
	return real_of(f)->pMethods->xRead(real_of(f), to, n, at);
}

static int f_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
	if (fails()) {
		/* A half-written page, as a full or dying disk leaves it. */
		(void)real_of(f)->pMethods->xWrite(real_of(f), from, n / 2, at);
		return fault.full ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	}
	return real_of(f)->pMethods->xWrite(real_of(f), from, n, at);
}

static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	return fails() ? SQLITE_IOERR_TRUNCATE : real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int f_sync(sqlite3_file *f, int flags)
{
	return fails() ? SQLITE_IOERR_FSYNC : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int f_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	return real_of(f)->pMethods->xFileSize(real_of(f), ret);
}

static int f_lock(sqlite3_file *f, int level)
{
	return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int f_unlock(sqlite3_file *f, int level)
{
	return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int f_check_lock(sqlite3_file *f, int *ret)
{
	return real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret);
}

static int f_control(sqlite3_file *f, int op, void *argument)
{
	return real_of(f)->pMethods->xFileControl(real_of(f), op, argument);
}

static int f_sector_size(sqlite3_file *f)
{
	return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int f_characteristics(sqlite3_file *f)
{
	return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int f_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **ret)
{
	return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, ret);
}

static int f_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void f_shm_barrier(sqlite3_file *f)
{
	real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int f_shm_unmap(sqlite3_file *f, int remove)
{
	return real_of(f)->pMethods->xShmUnmap(real_of(f), remove);
}

static const sqlite3_io_methods faulty_methods = {
	.iVersion = 2,
	.xClose = f_close,
	.xRead = f_read,
	.xWrite = f_write,
	.xTruncate = f_truncate,
	.xSync = f_sync,
	.xFileSize = f_size,
	.xLock = f_lock,
	.xUnlock = f_unlock,
	.xCheckReservedLock = f_check_lock,
	.xFileControl = f_control,
	.xSectorSize = f_sector_size,
	.xDeviceCharacteristics = f_characteristics,
	.xShmMap = f_shm_map,
	.xShmLock = f_shm_lock,
	.xShmBarrier = f_shm_barrier,
	.xShmUnmap = f_shm_unmap,
};

static int v_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	struct faulty_file *f = (struct faulty_file *)(void *)file;
	int result;

	(void)vfs;
	f->base.pMethods = NULL;
	f->real = (sqlite3_file *)(void *)(f + 1);
	if (fails())
		return SQLITE_CANTOPEN;
	result = fault.real->xOpen(fault.real, name, f->real, flags, ret_flags);
	if (f->real->pMethods)
		f->base.pMethods = &faulty_methods;
	return result;
}

static int v_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	(void)vfs;
	return fails() ? SQLITE_IOERR_DELETE : fault.real->xDelete(fault.real, name, sync);
}

/* The real layer with open and delete replaced; from now on everybody's. */
static int install_faulty_layer(void **state)
{
	static sqlite3_vfs faulty;

	(void)state;
	fault.real = sqlite3_vfs_find(NULL);
	assert_non_null(fault.real);
	faulty = *fault.real;
	faulty.zName = "faulty";
	faulty.pNext = NULL;
	faulty.szOsFile = (int)sizeof(struct faulty_file) + fault.real->szOsFile;
	faulty.xOpen = v_open;
	faulty.xDelete = v_delete;
	return sqlite3_vfs_register(&faulty, 1) == SQLITE_OK ? 0 : -1;
}

static void arm(unsigned int nth, bool persistent, bool full)
{
	fault.nth = nth;
	fault.persistent = persistent;
	fault.full = full;
	fault.count = fault.fired = 0;
	fault.armed = true;
}

/* ---- a workload whose effects can be told apart ---- */

#define CHANGES 6

/* Each change is a host, a reservation on it and an event: all of them or none. */
static int change(struct store *s, unsigned int number, struct err *e)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host host = {.cores = 4, .memory = 4, .disk = 4, .state = STORE_HOST_ONLINE};
	struct store_resources need = {number % 4, 1, 1};
	int r;

	(void)snprintf(host.name, sizeof(host.name), "h%u", number);
	r = store_begin(s, STORE_WRITE, &t, e);
	if (r == 0)
		r = store_host_create(s, &host, e);
	if (r == 0)
		r = store_reserve(s, host.name, host.id, &need, e);
	if (r == 0)
		r = append_number(s, number, e);
	return r < 0 ? r : store_commit(&t, e);
}

static bool has_event(struct store *s, unsigned int number)
{
	struct store_event events[2 * CHANGES];
	char data[16];
	int n = store_event_since(s, store_scope_all(), 0, events, ARRAY_SIZE(events), NULL);
	bool found = false;

	assert_true(n >= 0);
	(void)snprintf(data, sizeof(data), "%u", number);
	for (int i = 0; i < n; i++)
		found = found || strcmp(events[i].data, data) == 0;
	return found;
}

/* A change is there as a whole, or not at all; one acknowledged is there. */
static void check_change(struct store *s, unsigned int number, bool acknowledged)
{
	struct store_host host;
	char name[STORE_NAME_SIZE];
	int r;

	(void)snprintf(name, sizeof(name), "h%u", number);
	r = store_host_by_name(s, name, &host, NULL);
	assert_true(r == 0 || r == -ENOENT);
	if (acknowledged)
		assert_ok(r);
	assert_int_equal(has_event(s, number), r == 0);
	if (r == 0)
		assert_int_equal(host.cores_free, 4 - number % 4);
}

/* Errors of a failing disk are I/O errors or "no room", and always explained. */
static void check_error(const struct err *e)
{
	assert_true(e->code == ERR_INTERNAL || e->code == ERR_NO_CAPACITY ||
		    e->code == ERR_FORBIDDEN || e->code == ERR_NOT_FOUND);
	assert_true(e->message[0]);
}

/* Opens, makes CHANGES changes, backs up, closes; says which changes were acknowledged. */
static void workload(const struct fixture *f, bool acknowledged[CHANGES], bool *backed_up)
{
	struct store *s = NULL;
	struct err e = {0};
	char backup[160];

	(void)snprintf(backup, sizeof(backup), "%s/backup.db", f->folder);
	if (store_open(f->url, 0, &source_system, &s, &e) < 0) {
		check_error(&e);
		return;
	}
	for (unsigned int i = 0; i < CHANGES; i++) {
		acknowledged[i] = change(s, i, &e) == 0;
		if (!acknowledged[i])
			check_error(&e);
	}
	*backed_up = store_backup(s, backup, &e) == 0;
	if (!*backed_up)
		check_error(&e);
	store_close(s);
}

static void check_backup(const struct fixture *f, const bool acknowledged[CHANGES], bool backed_up)
{
	struct store *s = NULL;
	char path[160], url[192];

	(void)snprintf(path, sizeof(path), "%s/backup.db", f->folder);
	(void)snprintf(url, sizeof(url), "sqlite:%s", path);
	if (!backed_up) {
		assert_int_equal(access(path, F_OK), -1);
		return;
	}
	must(store_open(url, 0, &source_system, &s, &told));
	must(store_check(s, &told));
	for (unsigned int i = 0; i < CHANGES; i++)
		check_change(s, i, acknowledged[i]);
	store_close(s);
}

/* prepare: makes the state in which the workload begins. */
static unsigned int sweep(const struct fixture *f, bool persistent, bool full,
	void (*prepare)(const struct fixture *))
{
	unsigned int nth;

	for (nth = 1;; nth++) {
		bool acknowledged[CHANGES] = {false}, backed_up = false;
		struct store *s;

		fixture_empty(f);
		prepare(f);
		arm(nth, persistent, full);
		workload(f, acknowledged, &backed_up);
		fault.armed = false;
		s = open_store(f);
		must(store_check(s, &told));
		for (unsigned int i = 0; i < CHANGES; i++)
			check_change(s, i, acknowledged[i]);
		store_close(s);
		check_backup(f, acknowledged, backed_up);
		if (fault.fired == 0)
			break;
		assert_true(nth < 10000);
	}
	/* The last round met no failure: everything was done. */
	assert_int_equal(fault.count, nth - 1);
	return nth - 1;
}

static void nothing(const struct fixture *f)
{
	(void)f;
}

/* A store in use, so that the sweep need not begin with the schema. */
static void a_store(const struct fixture *f)
{
	struct store *s = open_store(f);
	struct store_transaction t = {0};

	must(store_begin(s, STORE_WRITE, &t, &told));
	(void)make_tenant(s, "acme");
	must(store_commit(&t, &told));
	store_close(s);
}

static void every_failing_operation_from_creation_on(void **state)
{
	unsigned int once = sweep(*state, false, false, nothing);

	print_message("%u operations, each failed once\n", once);
	assert_true(once > 40);
}

static void every_operation_failing_for_good_from_creation_on(void **state)
{
	unsigned int points = sweep(*state, true, false, nothing);

	print_message("%u operations, failing from each on\n", points);
	assert_true(points > 40);
}

static void a_full_disk_at_every_operation(void **state)
{
	unsigned int points = sweep(*state, true, true, a_store);

	print_message("%u operations, disk full from each on\n", points);
	assert_true(points > 20);
}

static void a_full_disk_says_so_and_changes_nothing(void **state)
{
	struct store *s = open_store(*state);
	struct err e = {0};

	must(change(s, 0, &told));
	arm(1, true, true);
	for (unsigned int i = 1; i < 4; i++) {
		assert_int_equal(change(s, i, &e), -ENOSPC);
		assert_int_equal(e.code, ERR_NO_CAPACITY);
		assert_true(e.hint[0]);
	}
	assert_true(fault.fired >= 3);
	check_change(s, 0, true); /* readable meanwhile */
	fault.armed = false;
	must(change(s, 4, &told)); /* and writable when there is room again */
	for (unsigned int i = 0; i < 5; i++)
		check_change(s, i, i == 0 || i == 4);
	assert_false(has_event(s, 1));
	must(store_check(s, &told));
	store_close(s);
}

/* ---- killed processes ---- */

#define KILLS 20

/* Commits numbered changes for ever and reports each one when it is acknowledged. */
static void commit_for_ever(const struct fixture *f, unsigned int first, int report)
{
	struct store *s = open_store(f);

	for (unsigned int i = first;; i++) {
		struct store_transaction t = {0};

		must(store_begin(s, STORE_WRITE, &t, &told));
		must(append_number(s, i, &told));
		must(append_number(s, i, &told));
		must(store_commit(&t, &told));
		if (write(report, &i, sizeof(i)) != sizeof(i))
			_exit(3);
	}
}

/* Kills the child some time after its `after`-th report; returns the last number reported. */
static unsigned int run_and_kill(const struct fixture *f, unsigned int first, unsigned int after)
{
	unsigned int number, last = first - 1;
	int report[2], status;
	pid_t pid;

	assert_ok(pipe2(report, O_CLOEXEC));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		in_child = true;
		commit_for_ever(f, first, report[1]);
	}
	(void)close(report[1]);
	for (unsigned int i = 0; i < after; i++) {
		assert_int_equal(read(report[0], &number, sizeof(number)), sizeof(number));
		last = number;
	}
	/* The child is somewhere in the middle of the next one now. */
	assert_ok(kill(pid, SIGKILL));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	while (read(report[0], &number, sizeof(number)) == sizeof(number))
		last = number;
	(void)close(report[0]);
	return last;
}

/* Every number from 1 to last came twice, and at most one more change is there. */
static unsigned int check_numbers(struct store *s, unsigned int last)
{
	static struct store_event page[STORE_PAGE_MAX];
	unsigned int expected = 1, twice = 0;
	uint64_t since = 0;
	int n;

	while ((n = store_event_since(s, store_scope_all(), since, page, ARRAY_SIZE(page), NULL)) >
		0) {
		for (int i = 0; i < n; i++) {
			assert_int_equal(strtoul(page[i].data, NULL, 10), expected);
			expected += twice;
			twice ^= 1;
			since = page[i].revision;
		}
	}
	assert_int_equal(n, 0);
	assert_int_equal(twice, 0);
	assert_true(expected - 1 == last || expected - 1 == last + 1);
	return expected - 1;
}

static void what_a_killed_process_had_acknowledged_is_there(void **state)
{
	const struct fixture *f = *state;
	const char *given = getenv("SOSIE_TEST_SEED");
	unsigned int seed = given ? (unsigned int)strtoul(given, NULL, 10) : (unsigned int)getpid();
	unsigned int last = 0;

	print_message("SOSIE_TEST_SEED=%u\n", seed);
	for (unsigned int i = 0; i < KILLS; i++) {
		unsigned int after = (unsigned int)rand_r(&seed) % 60;
		struct store *s;

		last = run_and_kill(f, last + 1, after);
		s = open_store(f);
		must(store_check(s, &told));
		last = check_numbers(s, last);
		store_close(s);
	}
	print_message("%u changes over %d kills\n", last, KILLS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(every_failing_operation_from_creation_on),
		STORE_TEST(every_operation_failing_for_good_from_creation_on),
		STORE_TEST(a_full_disk_at_every_operation),
		STORE_TEST(a_full_disk_says_so_and_changes_nothing),
		STORE_TEST(what_a_killed_process_had_acknowledged_is_there),
	};

	return cmocka_run_group_tests_name("store_faults", tests, install_faulty_layer, NULL);
}
