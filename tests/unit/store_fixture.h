/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of its own for each test, and things to put into a store.
 */
#ifndef SOSIE_TESTS_STORE_FIXTURE_H
#define SOSIE_TESTS_STORE_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/events.h"
#include "store/groups.h"
#include "store/hosts.h"
#include "store/images.h"
#include "store/instances.h"
#include "store/networks.h"
#include "store/volumes.h"
#include "unit.h"

#define GIB (1ULL << 30)

/* Where the folders are made. */
#ifndef FIXTURE_ROOT
#define FIXTURE_ROOT "/tmp"
#endif

struct fixture {
	char folder[64];
	char path[128];
	char url[160];
};

/* Removes every file of the folder, not the folder. */
static inline void fixture_empty(const struct fixture *f)
{
	DIR *directory = opendir(f->folder);
	struct dirent *entry;
	char path[PATH_MAX];

	assert_non_null(directory);
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", f->folder, entry->d_name);
		(void)unlink(path);
	}
	(void)closedir(directory);
}

static inline int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->folder, sizeof(f->folder), "%s/sosie-store.XXXXXX", FIXTURE_ROOT);
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->path, sizeof(f->path), "%s/store.db", f->folder);
	(void)snprintf(f->url, sizeof(f->url), "sqlite:%s", f->path);
	*state = f;
	return 0;
}

static inline int fixture_teardown(void **state)
{
	struct fixture *f = *state;

	fixture_empty(f);
	assert_ok(rmdir(f->folder));
	free(f);
	return 0;
}

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

/* Set in forked children: cmocka's way out of a failed test would let them run all the others. */
static bool in_child;

static inline void check_success(int r, const char *what, const struct err *told)
{
	if (r >= 0)
		return;
	if (in_child) {
		(void)fprintf(stderr, "child: %s: %s (%d)\n", what, told->message, r);
		_exit(99);
	}
	fail_msg("%s: %s (%d)", what, told->message, r);
}

/* Runs a call that must succeed; its last argument is &told. */
#define must(call)                                 \
	do {                                       \
		struct err told = {0};             \
		check_success(call, #call, &told); \
	} while (0)

static inline struct store *open_store(const struct fixture *f)
{
	struct store *s = NULL;

	must(store_open(f->url, 0, &source_system, &s, &told));
	return s;
}

static inline struct store_tenant make_tenant(struct store *s, const char *name)
{
	struct store_tenant tenant = {0};

	(void)snprintf(tenant.name, sizeof(tenant.name), "%s", name);
	must(store_tenant_create(s, &tenant, &told));
	return tenant;
}

static inline struct store_host make_host(struct store *s, const char *name, uint64_t cores)
{
	struct store_host host = {.cores = cores,
		.memory = cores * GIB,
		.disk = 100 * GIB,
		.accel = "tcg",
		.state = STORE_HOST_ONLINE};

	(void)snprintf(host.name, sizeof(host.name), "%s", name);
	must(store_host_create(s, &host, &told));
	return host;
}

static inline struct store_image make_image(struct store *s, const char *tenant, const char *name)
{
	struct store_image image = {.version = "1", .format = STORE_FORMAT_QCOW2, .size = GIB};

	(void)snprintf(image.tenant_id, sizeof(image.tenant_id), "%s", tenant);
	(void)snprintf(image.name, sizeof(image.name), "%s", name);
	must(store_image_create(s, &image, &told));
	return image;
}

static inline struct store_instance instance_of(
	const char *tenant, const char *image, const char *name)
{
	struct store_instance instance = {.cores = 1, .memory = GIB, .disk = GIB};

	(void)snprintf(instance.tenant_id, sizeof(instance.tenant_id), "%s", tenant);
	(void)snprintf(instance.image_id, sizeof(instance.image_id), "%s", image);
	(void)snprintf(instance.name, sizeof(instance.name), "%s", name);
	return instance;
}

/* Appends an event whose data is the number. */
static inline int append_number(struct store *s, unsigned int number, struct err *e)
{
	struct store_event event = {.kind = "test"};

	(void)snprintf(event.data, sizeof(event.data), "%u", number);
	return store_event_append(s, &event, e);
}

static inline void write_file(const char *path, const void *bytes, size_t n)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, n, file), n);
	assert_ok(fclose(file));
}

/* The whole file; the caller frees it. */
static inline char *read_file(const char *path, size_t *ret_size)
{
	struct stat st;
	FILE *file = fopen(path, "re");
	char *bytes;

	assert_non_null(file);
	assert_ok(fstat(fileno(file), &st));
	bytes = malloc((size_t)st.st_size + 1);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, (size_t)st.st_size, file), st.st_size);
	assert_ok(fclose(file));
	*ret_size = (size_t)st.st_size;
	return bytes;
}

#endif
