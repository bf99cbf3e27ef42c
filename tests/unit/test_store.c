/* SPDX-License-Identifier: Apache-2.0 */
#include "store_fixture.h"

#include <sqlite3.h>

#include "store/backend.h"
#include "store/entity.h"
#include "store/migrate.h"

/* Runs SQL behind the store's back. */
static void tamper(const struct fixture *f, const char *sql)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void assert_refused(const struct fixture *f, enum err_code code, const char *part)
{
	size_t before_size, after_size;
	char *before = read_file(f->path, &before_size);
	struct store *s = NULL;
	struct err e = {0};
	char *after;

	assert_true(store_open(f->url, 0, &source_system, &s, &e) < 0);
	assert_null(s);
	assert_int_equal(e.code, code);
	if (!strstr(e.message, part))
		fail_msg("'%s' lacks '%s'", e.message, part);
	assert_true(e.hint[0]);
	after = read_file(f->path, &after_size);
	assert_int_equal(before_size, after_size);
	assert_memory_equal(before, after, before_size);
	free(before);
	free(after);
}

static void a_new_store_is_whole_and_its_owners_only(void **state)
{
	const struct fixture *f = *state;
	struct store *s = open_store(f);
	struct stat st;
	uint64_t revision = 99;

	must(store_check(s, &told));
	must(store_revision(s, &revision, &told));
	assert_int_equal(revision, 0);
	store_close(s);
	assert_ok(stat(f->path, &st));
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void every_statement_is_understood(void **state)
{
	struct store *s = open_store(*state);
	struct store_value nothing[FIELDS_MAX];

	for (unsigned int i = 0; i < FIELDS_MAX; i++)
		nothing[i] = store_integer(1);
	for (unsigned int q = 0; q < STORE_QUERIES; q++) {
		CLEANUP_TRANSACTION struct store_transaction t = {0};
		struct store_rows rows = {0};

		must(store_begin(s, STORE_WRITE, &t, &told));
		must(store_query(s, (enum store_query)q, nothing, FIELDS_MAX, &rows, &told));
		store_rows_end(&rows);
	}
	store_close(s);
}

/* Those that are meant to look at every row of a table. */
static bool may_scan(unsigned int q)
{
	return q == MIGRATION_LIST || q == HOST_UNBALANCED;
}

static void no_statement_reads_a_whole_table(void **state)
{
	const struct fixture *f = *state;
	sqlite3 *db = NULL;

	store_close(open_store(f));
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	for (unsigned int q = 0; q < STORE_QUERIES; q++) {
		sqlite3_stmt *statement = NULL;
		char explain[4096];

		(void)snprintf(explain, sizeof(explain), "EXPLAIN QUERY PLAN %s",
			store_query_text((enum store_query)q));
		assert_int_equal(sqlite3_prepare_v2(db, explain, -1, &statement, NULL), SQLITE_OK);
		while (sqlite3_step(statement) == SQLITE_ROW) {
			const char *step = (const char *)sqlite3_column_text(statement, 3);

			if (str_starts_with(step, "SCAN ") && !may_scan(q))
				fail_msg("%s: %s", store_query_name((enum store_query)q), step);
		}
		assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
	}
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void what_was_committed_is_there_after_reopening(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_tenant tenant, again;
	struct store_host host, host_again;

	must(store_begin(s, STORE_WRITE, &t, &told));
	tenant = make_tenant(s, "acme");
	host = make_host(s, "h1", 8);
	must(store_commit(&t, &told));
	must(store_begin(s, STORE_WRITE, &t, &told));
	(void)make_tenant(s, "ghost");
	store_rollback(&t);
	store_close(s);

	s = open_store(*state);
	must(store_tenant_by_name(s, "acme", &again, &told));
	assert_memory_equal(&tenant, &again, sizeof(tenant));
	must(store_host_get(s, host.id, &host_again, &told));
	assert_memory_equal(&host, &host_again, sizeof(host));
	assert_int_equal(host_again.cores_free, 8);
	assert_int_equal(store_tenant_by_name(s, "ghost", &again, NULL), -ENOENT);
	store_close(s);
}

static void a_newer_schema_is_refused(void **state)
{
	const struct fixture *f = *state;

	store_close(open_store(f));
	tamper(f, "INSERT INTO migrations VALUES "
		  "((SELECT MAX(number) + 1 FROM migrations), 'future', 'x', 1)");
	assert_refused(f, ERR_VERSION, "newer version");
}

static void another_history_is_refused(void **state)
{
	const struct fixture *f = *state;

	store_close(open_store(f));
	tamper(f, "UPDATE migrations SET checksum = 'x' WHERE number = 2");
	assert_refused(f, ERR_VERSION, "migration 2 (hosts)");
}

static void an_older_schema_is_brought_up_to_date(void **state)
{
	const struct fixture *f = *state;
	struct store *s = open_store(f);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_tenant tenant;

	must(store_begin(s, STORE_WRITE, &t, &told));
	(void)make_tenant(s, "acme");
	must(store_commit(&t, &told));
	store_close(s);
	/* As if the last migrations had not been invented yet. */
	tamper(f, "DROP TABLE published_ports; DROP TABLE ports; DROP TABLE security_rules;"
		  "DROP TABLE security_groups; DROP TABLE networks;"
		  "ALTER TABLE instances DROP COLUMN desired_starts;"
		  "DELETE FROM migrations WHERE number >= 4");
	s = open_store(f);
	must(store_tenant_by_name(s, "acme", &tenant, &told));
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_network_create(s,
				 &(struct store_network){.name = "net", .tenant_id = "none"}, NULL),
		-ENOENT);
	store_rollback(&t);
	must(store_check(s, &told));
	store_close(s);
}

static void files_that_are_no_store_are_refused_and_untouched(void **state)
{
	const struct fixture *f = *state;
	char garbage[8192];
	sqlite3 *db = NULL;

	for (size_t i = 0; i < sizeof(garbage); i++)
		garbage[i] = (char)(i * 131 + 7);
	write_file(f->path, "x", 1);
	assert_refused(f, ERR_CORRUPT, "too short");
	write_file(f->path, garbage, sizeof(garbage));
	assert_refused(f, ERR_CORRUPT, "does not begin like one");
	assert_ok(unlink(f->path));
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE theirs (x)", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_refused(f, ERR_CORRUPT, "another application");
	assert_ok(unlink(f->path));
	assert_ok(mkdir(f->path, 0700));
	assert_int_equal(
		store_open(f->url, 0, &source_system, &(struct store *){0}, NULL), -EACCES);
	assert_ok(rmdir(f->path));
}

static void damaged_stores_are_refused_and_untouched(void **state)
{
	const struct fixture *f = *state;
	struct store *s = open_store(f);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	size_t size;
	char *whole, *copy;

	must(store_begin(s, STORE_WRITE, &t, &told));
	for (unsigned int i = 0; i < 500; i++)
		must(append_number(s, i, &told));
	must(store_commit(&t, &told));
	store_close(s);
	whole = read_file(f->path, &size);
	copy = malloc(size);
	assert_non_null(copy);
	for (size_t cut = 1; cut < size; cut += size / 7) {
		fixture_empty(f);
		write_file(f->path, whole, cut);
		assert_refused(f, ERR_CORRUPT, "");
	}
	/* Pages in the middle overwritten, one at a time. */
	for (size_t page = 1; page < size / 4096; page += 5) {
		fixture_empty(f);
		memcpy(copy, whole, size);
		memset(copy + page * 4096, 0xa5, 4096);
		write_file(f->path, copy, size);
		assert_refused(f, ERR_CORRUPT, "");
	}
	free(copy);
	free(whole);
}

static void urls_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = {"", "sqlite", "sqlite:", "/tmp/x", "mysql:x"};
	struct store *s = NULL;
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(store_open(bad[i], 0, &source_system, &s, &e), -EINVAL);
		assert_int_equal(e.code, ERR_USAGE);
	}
	assert_int_equal(store_open("sqlite:/nowhere/at/all", 0, &source_system, &s, &e), -ENOENT);
	must(store_open("sqlite::memory:", 0, &source_system, &s, &told));
	must(store_check(s, &told));
	store_close(s);
}

static void violations_are_told_in_the_entitys_words(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_tenant tenant;
	struct store_image image;
	struct store_instance instance;
	struct err e;

	must(store_begin(s, STORE_WRITE, &t, &told));
	tenant = make_tenant(s, "acme");
	image = make_image(s, tenant.id, "mini");
	instance = instance_of(tenant.id, image.id, "web-1");
	must(store_instance_create(s, &instance, "x", 1, &told));
	must(store_commit(&t, &told));

	must(store_begin(s, STORE_WRITE, &t, &told));
	instance = instance_of(tenant.id, image.id, "web-1");
	assert_int_equal(store_instance_create(s, &instance, NULL, 0, &e), -EEXIST);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_non_null(strstr(e.message, "instance web-1 exists already"));
	assert_string_equal(instance.id, ""); /* filled in on success only */
	assert_int_equal(store_commit(&t, &e), -EEXIST);
	assert_null(t.store);

	must(store_begin(s, STORE_WRITE, &t, &told));
	instance = instance_of(tenant.id, "m-none", "web-2");
	assert_int_equal(store_instance_create(s, &instance, NULL, 0, &e), -ENOENT);
	assert_string_equal(e.message, "no image m-none");
	store_rollback(&t);

	must(store_begin(s, STORE_WRITE, &t, &told));
	instance = instance_of(tenant.id, image.id, "web-2");
	(void)snprintf(instance.host_id, sizeof(instance.host_id), "h-none");
	assert_int_equal(store_instance_create(s, &instance, NULL, 0, &e), -ENOENT);
	assert_int_equal(e.code, ERR_NOT_FOUND);
	assert_non_null(strstr(e.message, "refers to something that does not exist"));
	store_rollback(&t);

	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_image_delete(s, store_scope_all(), image.id, &e), -EEXIST);
	assert_string_equal(e.message, "image is still in use");
	store_rollback(&t);
	must(store_begin(s, STORE_WRITE, &t, &told));
	instance = instance_of(tenant.id, image.id, "web-3");
	instance.memory = UINT64_MAX;
	assert_int_equal(store_instance_create(s, &instance, NULL, 0, &e), -EINVAL);
	store_rollback(&t);
	must(store_begin(s, STORE_WRITE, &t, &told));
	instance.memory = 0; /* against a CHECK */
	assert_int_equal(store_instance_create(s, &instance, NULL, 0, &e), -EINVAL);
	store_rollback(&t);
	must(store_check(s, &told));
	store_close(s);
}

static void a_doomed_transaction_commits_nothing(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_tenant tenant;

	must(store_begin(s, STORE_WRITE, &t, &told));
	(void)make_tenant(s, "acme");
	assert_int_equal(
		store_tenant_create(s, &(struct store_tenant){.name = "acme"}, NULL), -EEXIST);
	assert_int_equal(store_commit(&t, NULL), -EEXIST);
	assert_int_equal(store_tenant_by_name(s, "acme", &tenant, NULL), -ENOENT);
	store_close(s);
}

static void a_change_on_an_old_revision_is_refused(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host host, stale;
	struct err e;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = stale = make_host(s, "h1", 4);
	(void)snprintf(host.zone, sizeof(host.zone), "north");
	host.cores = 6;
	must(store_host_update(s, &host, &told));
	must(store_commit(&t, &told));
	assert_true(host.revision > stale.revision);

	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_host_update(s, &stale, &e), -EEXIST);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_true(e.hint[0]);
	store_rollback(&t);
	must(store_host_get(s, host.id, &stale, &told));
	assert_string_equal(stale.zone, "north");
	assert_int_equal(stale.cores_free, 6);

	must(store_begin(s, STORE_WRITE, &t, &told));
	(void)snprintf(stale.id, sizeof(stale.id), "h-none");
	assert_int_equal(store_host_update(s, &stale, &e), -ENOENT);
	store_rollback(&t);
	store_close(s);
}

/* One of everything that a tenant can own. */
struct belongings {
	struct store_tenant tenant;
	struct store_token token;
	struct store_image image;
	struct store_group group;
	struct store_instance instance;
	struct store_member member;
	struct store_volume volume;
	struct store_network network;
	struct store_security_group security_group;
	struct store_security_rule rule;
	struct store_port port;
	struct store_published_port published;
};

#define SET(field, value) (void)snprintf(field, sizeof(field), "%s", value)

static void make_network_part(
	struct store *s, struct belongings *b, const struct store_host *host, uint16_t host_port)
{
	const char *tenant = b->tenant.id;

	b->network = (struct store_network){.name = "net", .cidr = "10.0.0.0/24"};
	SET(b->network.tenant_id, tenant);
	must(store_network_create(s, &b->network, &told));
	b->security_group = (struct store_security_group){.name = "sg"};
	SET(b->security_group.tenant_id, tenant);
	must(store_security_group_create(s, &b->security_group, &told));
	b->rule = (struct store_security_rule){
		.protocol = STORE_PROTOCOL_TCP, .first_port = 80, .last_port = 81};
	SET(b->rule.tenant_id, tenant);
	SET(b->rule.security_group_id, b->security_group.id);
	must(store_security_rule_create(s, &b->rule, &told));
	b->port = (struct store_port){.mac = "52:54:00:00:00:01", .ip = "10.0.0.2"};
	SET(b->port.tenant_id, tenant);
	SET(b->port.network_id, b->network.id);
	SET(b->port.instance_id, b->instance.id);
	SET(b->port.security_group_id, b->security_group.id);
	must(store_port_create(s, &b->port, &told));
	b->published = (struct store_published_port){
		.protocol = STORE_PROTOCOL_TCP, .host_port = host_port, .guest_port = 80};
	SET(b->published.tenant_id, tenant);
	SET(b->published.port_id, b->port.id);
	SET(b->published.host_id, host->id);
	must(store_published_port_create(s, &b->published, &told));
}

static struct belongings make_belongings(
	struct store *s, const char *name, const struct store_host *host, uint16_t host_port)
{
	struct belongings b = {.tenant = make_tenant(s, name)};
	const char *tenant = b.tenant.id;

	b.token = (struct store_token){.role = STORE_ROLE_MEMBER};
	SET(b.token.tenant_id, tenant);
	SET(b.token.hash, name);
	must(store_token_create(s, &b.token, &told));
	b.image = make_image(s, tenant, "mini");
	b.group = (struct store_group){.name = "g", .size = 2, .min_copies = 1};
	SET(b.group.tenant_id, tenant);
	must(store_group_create(s, &b.group, &told));
	b.instance = instance_of(tenant, b.image.id, "web-1");
	SET(b.instance.group_id, b.group.id);
	SET(b.instance.host_id, host->id);
	must(store_instance_create(s, &b.instance, name, strlen(name), &told));
	b.member = (struct store_member){.name = "m1"};
	SET(b.member.tenant_id, tenant);
	SET(b.member.group_id, b.group.id);
	SET(b.member.instance_id, b.instance.id);
	must(store_member_create(s, &b.member, &told));
	b.volume = (struct store_volume){.name = "data", .size = GIB};
	SET(b.volume.tenant_id, tenant);
	SET(b.volume.instance_id, b.instance.id);
	must(store_volume_create(s, &b.volume, &told));
	make_network_part(s, &b, host, host_port);
	return b;
}

/* get: 0 or -ENOENT; list: how many are seen. */
#define CHECK_VISIBLE(type, variable, list_call, seen)                                  \
	do {                                                                            \
		struct store_##type one, many[8];                                       \
		assert_int_equal(store_##type##_get(s, scope, variable.id, &one, NULL), \
			seen ? 0 : -ENOENT);                                            \
		assert_int_equal(list_call, count);                                     \
		if (seen)                                                               \
			assert_memory_equal(&one, &variable, sizeof(one));              \
	} while (0)

static void check_visible(
	struct store *s, struct store_scope scope, const struct belongings *b, bool seen, int count)
{
	struct buf data = BUF_INIT(STORE_USER_DATA_MAX);

	CHECK_VISIBLE(image, b->image, store_image_list(s, scope, NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(group, b->group, store_group_list(s, scope, NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(instance, b->instance,
		store_instance_list(s, scope, "", "", NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(
		member, b->member, store_member_list(s, scope, "", NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(
		volume, b->volume, store_volume_list(s, scope, "", NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(security_group, b->security_group,
		store_security_group_list(s, scope, NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(security_rule, b->rule,
		store_security_rule_list(s, scope, "", NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(port, b->port, store_port_list(s, scope, "", "", NULL, many, 8, NULL), seen);
	CHECK_VISIBLE(published_port, b->published,
		store_published_port_list(s, scope, "", "", NULL, many, 8, NULL), seen);
	assert_int_equal(store_instance_user_data(s, scope, b->instance.id, &data, NULL),
		seen ? 0 : -ENOENT);
	assert_string_equal(buf_text(&data), seen ? b->tenant.name : "");
	buf_free(&data);
}

#define CHECK_UNTOUCHABLE(call)                                             \
	do {                                                                \
		CLEANUP_TRANSACTION struct store_transaction attempt = {0}; \
		must(store_begin(s, STORE_WRITE, &attempt, &told));         \
		assert_int_equal(call, -ENOENT);                            \
	} while (0)

static void check_untouchable(struct store *s, struct store_scope scope, const struct belongings *b)
{
	struct belongings copy = *b;

	CHECK_UNTOUCHABLE(store_token_delete(s, scope, b->token.id, NULL));
	CHECK_UNTOUCHABLE(store_image_update(s, scope, &copy.image, NULL));
	CHECK_UNTOUCHABLE(store_image_delete(s, scope, b->image.id, NULL));
	CHECK_UNTOUCHABLE(store_group_update(s, scope, &copy.group, NULL));
	CHECK_UNTOUCHABLE(store_group_delete(s, scope, b->group.id, NULL));
	CHECK_UNTOUCHABLE(store_instance_desire(s, scope, &copy.instance, NULL));
	CHECK_UNTOUCHABLE(store_instance_delete(s, scope, b->instance.id, NULL));
	CHECK_UNTOUCHABLE(store_member_delete(s, scope, b->member.id, NULL));
	CHECK_UNTOUCHABLE(store_volume_update(s, scope, &copy.volume, NULL));
	CHECK_UNTOUCHABLE(store_volume_delete(s, scope, b->volume.id, NULL));
}

static void check_network_untouchable(
	struct store *s, struct store_scope scope, const struct belongings *b)
{
	struct belongings copy = *b;

	CHECK_UNTOUCHABLE(store_network_delete(s, scope, b->network.id, NULL));
	CHECK_UNTOUCHABLE(store_port_update(s, scope, &copy.port, NULL));
	CHECK_UNTOUCHABLE(store_port_delete(s, scope, b->port.id, NULL));
	CHECK_UNTOUCHABLE(store_security_group_delete(s, scope, b->security_group.id, NULL));
	CHECK_UNTOUCHABLE(store_security_rule_delete(s, scope, b->rule.id, NULL));
	CHECK_UNTOUCHABLE(store_published_port_delete(s, scope, b->published.id, NULL));
}

/* A page mark made up to start among another's things shows none of them. */
static void check_page_marks(struct store *s, const char *mine, const char *theirs)
{
	struct store_page sly = {.tenant_id = theirs, .id = ""};
	struct store_volume volume;
	int n = store_volume_list(s, store_scope_tenant(mine), "", &sly, &volume, 1, NULL);

	/* Theirs before mine in the order: mine from the start; behind mine: nothing is left. */
	assert_int_equal(n, strcmp(theirs, mine) < 0);
	if (n > 0)
		assert_string_equal(volume.tenant_id, mine);
}

static void tenants_do_not_see_each_other(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct belongings a, b;
	struct store_host host;
	struct store_image image;
	struct store_token tokens[4];

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	a = make_belongings(s, "acme", &host, 1000);
	b = make_belongings(s, "bolt", &host, 1001);
	must(store_commit(&t, &told));

	check_visible(s, store_scope_tenant(a.tenant.id), &a, true, 1);
	check_visible(s, store_scope_tenant(a.tenant.id), &b, false, 1);
	check_visible(s, store_scope_all(), &b, true, 2);
	check_visible(s, (struct store_scope){0}, &a, false, 0);
	check_untouchable(s, store_scope_tenant(a.tenant.id), &b);
	check_network_untouchable(s, store_scope_tenant(a.tenant.id), &b);
	check_untouchable(s, (struct store_scope){0}, &a);
	check_network_untouchable(s, (struct store_scope){0}, &a);
	assert_int_equal(
		store_token_list(s, store_scope_tenant(a.tenant.id), NULL, tokens, 4, NULL), 1);

	check_page_marks(s, a.tenant.id, b.tenant.id);
	check_page_marks(s, b.tenant.id, a.tenant.id);

	/* The same name is each one's own; a public image is everybody's. */
	must(store_image_by_name(s, b.tenant.id, "mini", "", &image, &told));
	assert_string_equal(image.id, b.image.id);
	must(store_begin(s, STORE_WRITE, &t, &told));
	a.image.public = true;
	must(store_image_update(s, store_scope_all(), &a.image, &told));
	must(store_commit(&t, &told));
	must(store_image_get(s, store_scope_tenant(b.tenant.id), a.image.id, &image, &told));
	must(store_image_by_name(s, b.tenant.id, "mini", "", &image, &told));
	assert_string_equal(image.id, b.image.id);
	store_close(s);
}

static void references_cannot_lead_to_another_tenant(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct belongings a, b;
	struct store_host host;
	struct store_instance instance;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	a = make_belongings(s, "acme", &host, 1000);
	b = make_belongings(s, "bolt", &host, 1001);
	must(store_commit(&t, &told));
	instance = instance_of(a.tenant.id, b.image.id, "x");
	CHECK_UNTOUCHABLE(store_instance_create(s, &instance, NULL, 0, NULL));
	instance = instance_of(a.tenant.id, a.image.id, "x");
	SET(instance.group_id, b.group.id);
	CHECK_UNTOUCHABLE(store_instance_create(s, &instance, NULL, 0, NULL));
	SET(a.port.instance_id, b.instance.id);
	CHECK_UNTOUCHABLE(store_port_update(s, store_scope_all(), &a.port, NULL));
	SET(a.volume.instance_id, b.instance.id);
	CHECK_UNTOUCHABLE(store_volume_update(s, store_scope_all(), &a.volume, NULL));
	SET(a.member.group_id, b.group.id);
	SET(a.member.name, "m2");
	a.member.id[0] = '\0';
	CHECK_UNTOUCHABLE(store_member_create(s, &a.member, NULL));
	store_close(s);
}

static void addresses_are_unique_in_a_network(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_port port;
	struct store_host host;
	struct belongings a;
	struct err e;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	a = make_belongings(s, "acme", &host, 1000);
	must(store_commit(&t, &told));
	port = a.port;
	port.id[0] = '\0';
	SET(port.mac, "52:54:00:00:00:99");
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_port_create(s, &port, &e), -EEXIST);
	assert_non_null(strstr(e.message, "10.0.0.2"));
	store_rollback(&t);
	a.published.id[0] = '\0';
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_published_port_create(s, &a.published, &e), -EEXIST);
	assert_string_equal(e.message, "tcp port 1000 of that host is taken");
	store_rollback(&t);
	store_close(s);
}

static void delete_everything(
	struct store *s, const struct belongings *a, const struct store_host *host)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_scope all = store_scope_all();

	must(store_begin(s, STORE_WRITE, &t, &told));
	must(store_volume_delete(s, all, a->volume.id, &told));
	must(store_network_delete(s, all, a->network.id, &told));
	must(store_security_group_delete(s, all, a->security_group.id, &told));
	must(store_group_delete(s, all, a->group.id, &told));
	must(store_image_delete(s, all, a->image.id, &told));
	must(store_token_delete(s, all, a->token.id, &told));
	must(store_tenant_delete(s, a->tenant.id, &told));
	must(store_host_delete(s, host->id, &told));
	must(store_commit(&t, &told));
}

static void an_instance_takes_its_belongings_along(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_scope all = store_scope_all();
	struct store_resources need = {1, GIB, GIB};
	struct store_host host;
	struct belongings a;
	struct err e;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	a = make_belongings(s, "acme", &host, 1000);
	must(store_reserve(s, a.instance.id, host.id, &need, &told));
	must(store_commit(&t, &told));

	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_instance_delete(s, all, a.instance.id, &e), -EEXIST);
	assert_string_equal(e.message, "instance web-1 is to be running");
	store_rollback(&t);
	must(store_begin(s, STORE_WRITE, &t, &told));
	a.instance.desired = STORE_DESIRED_TERMINATED;
	must(store_instance_desire(s, all, &a.instance, &told));
	must(store_instance_delete(s, all, a.instance.id, &told));
	must(store_commit(&t, &told));
	assert_int_equal(store_port_get(s, all, a.port.id, &a.port, NULL), -ENOENT);
	assert_int_equal(store_member_get(s, all, a.member.id, &a.member, NULL), -ENOENT);
	must(store_volume_get(s, all, a.volume.id, &a.volume, &told));
	assert_string_equal(a.volume.instance_id, "");
	assert_int_equal(a.volume.state, STORE_VOLUME_AVAILABLE);
	must(store_host_get(s, host.id, &host, &told));
	assert_int_equal(host.cores_free, 8);
	must(store_check(s, &told));

	delete_everything(s, &a, &host);
	store_close(s);
}

static void reservations_need_room_and_an_online_host(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_resources need = {3, GIB, GIB};
	struct store_host host;
	struct err e;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 4);
	must(store_reserve(s, "i-1", host.id, &need, &told));
	must(store_commit(&t, &told));
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_reserve(s, "i-2", host.id, &need, &e), -ENOSPC);
	assert_int_equal(e.code, ERR_NO_CAPACITY);
	assert_non_null(strstr(e.message, "host h1 has 1 cores"));
	store_rollback(&t);
	must(store_begin(s, STORE_WRITE, &t, &told));
	need.cores = 1;
	assert_int_equal(store_reserve(s, "i-1", host.id, &need, &e), -EEXIST);
	store_rollback(&t);
	must(store_begin(s, STORE_WRITE, &t, &told));
	host.cores = 2; /* of which 3 are reserved */
	assert_int_equal(store_host_update(s, &host, &e), -EINVAL);
	store_rollback(&t);
	must(store_begin(s, STORE_WRITE, &t, &told));
	host.cores = 4;
	host.state = STORE_HOST_DRAINING;
	must(store_host_update(s, &host, &told));
	assert_int_equal(store_reserve(s, "i-3", host.id, &need, &e), -EEXIST);
	assert_string_equal(e.message, "host h1 is draining and takes nothing");
	store_rollback(&t);
	must(store_begin(s, STORE_WRITE, &t, &told));
	must(store_release(s, "i-1", host.id, &told));
	must(store_commit(&t, &told));
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_release(s, "i-1", host.id, &e), -ENOENT);
	store_rollback(&t);
	must(store_host_get(s, host.id, &host, &told));
	assert_int_equal(host.cores_free, 4);
	store_close(s);
	tamper(*state, "UPDATE hosts SET cores_free = 3");
	s = open_store(*state);
	assert_int_equal(store_check(s, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "host h1"));
	store_close(s);
}

#define RACERS     4
#define RACE_CORES 23

/* Reserves one core after another until the host has none; its exit status says how many. */
static int race_for_cores(const struct fixture *f, const char *host_id, int racer, int start)
{
	struct store *s = open_store(f);
	struct store_resources need = {1, 1, 1};
	char holder[STORE_ID_SIZE], go;
	int won = 0, r;

	if (read(start, &go, 1) != 0)
		return 200;
	for (;;) {
		struct store_transaction t = {0};

		(void)snprintf(holder, sizeof(holder), "i-%d-%d", racer, won);
		must(store_begin(s, STORE_WRITE, &t, &told));
		r = store_reserve(s, holder, host_id, &need, NULL);
		if (r < 0) {
			store_rollback(&t);
			break;
		}
		must(store_commit(&t, &told));
		won++;
	}
	store_close(s);
	return r == -ENOSPC ? won : 201;
}

static void racing_processes_never_overbook(void **state)
{
	const struct fixture *f = *state;
	struct store *s = open_store(f);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host host;
	pid_t pids[RACERS];
	int start[2], sum = 0;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", RACE_CORES);
	must(store_commit(&t, &told));
	store_close(s);
	assert_ok(pipe2(start, O_CLOEXEC));
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			in_child = true;
			(void)close(start[1]);
			_exit(race_for_cores(f, host.id, i, start[0]));
		}
	}
	(void)close(start[0]);
	(void)close(start[1]); /* off they go */
	for (int i = 0; i < RACERS; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 200);
		sum += WEXITSTATUS(status);
	}
	assert_int_equal(sum, RACE_CORES);
	s = open_store(f);
	must(store_host_get(s, host.id, &host, &told));
	assert_int_equal(host.cores_free, 0);
	must(store_check(s, &told));
	store_close(s);
}

#define UPDATES 40

/* Reads, then writes what it read plus one, again and again. */
static void count_up(const struct fixture *f, const char *host_id, int start)
{
	struct store *s = open_store(f);
	struct store_host host;
	char go;

	if (read(start, &go, 1) != 0)
		_exit(2);
	for (unsigned int i = 0; i < UPDATES; i++) {
		struct store_transaction t = {0};

		must(store_begin(s, STORE_WRITE, &t, &told));
		must(store_host_get(s, host_id, &host, &told));
		host.disk++;
		must(store_host_update(s, &host, &told));
		must(store_commit(&t, &told));
	}
	store_close(s);
}

static void a_write_transaction_is_never_overtaken_after_its_reads(void **state)
{
	const struct fixture *f = *state;
	struct store *s = open_store(f);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host host;
	pid_t pids[RACERS];
	int start[2];

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 1);
	must(store_commit(&t, &told));
	store_close(s);
	assert_ok(pipe2(start, O_CLOEXEC));
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			in_child = true;
			(void)close(start[1]);
			count_up(f, host.id, start[0]);
			_exit(0);
		}
	}
	(void)close(start[0]);
	(void)close(start[1]);
	for (int i = 0; i < RACERS; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	s = open_store(f);
	must(store_host_get(s, host.id, &host, &told));
	assert_int_equal(host.disk, 100 * GIB + RACERS * UPDATES);
	store_close(s);
}

static void open_at_once(const struct fixture *f)
{
	pid_t pids[RACERS];
	int start[2];
	struct store *s;

	assert_ok(pipe2(start, O_CLOEXEC));
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			in_child = true;
			char go;

			(void)close(start[1]);
			if (read(start[0], &go, 1) != 0)
				_exit(2);
			store_close(open_store(f));
			_exit(0);
		}
	}
	(void)close(start[0]);
	(void)close(start[1]);
	for (int i = 0; i < RACERS; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
	s = open_store(f);
	must(store_check(s, &told));
	store_close(s);
}

#define OPENING_ROUNDS 25

static void opening_a_new_store_at_once_makes_one(void **state)
{
	for (unsigned int i = 0; i < OPENING_ROUNDS; i++) {
		fixture_empty(*state);
		open_at_once(*state);
	}
}

static void only_one_reconfigures_a_group(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_group group = {.name = "g", .size = 2, .min_copies = 1};
	struct store_host h1, h2;
	struct store_tenant tenant;
	struct err e;

	must(store_begin(s, STORE_WRITE, &t, &told));
	tenant = make_tenant(s, "acme");
	h1 = make_host(s, "h1", 1);
	h2 = make_host(s, "h2", 1);
	SET(group.tenant_id, tenant.id);
	must(store_group_create(s, &group, &told));
	must(store_group_reconfigure(s, group.id, 0, h1.id, "", &told));
	must(store_commit(&t, &told));
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_group_reconfigure(s, group.id, 0, h2.id, "", &e), -EEXIST);
	store_rollback(&t);
	must(store_group_get(s, store_scope_all(), group.id, &group, &told));
	assert_int_equal(group.epoch, 1);
	assert_string_equal(group.source_host_id, h1.id);
	store_close(s);
}

static void make_network(
	struct store *s, const char *tenant, const char *id, const char *name, char *ret_id)
{
	struct store_network network = {0};

	SET(network.tenant_id, tenant);
	SET(network.id, id);
	SET(network.name, name);
	must(store_network_create(s, &network, &told));
	if (ret_id)
		memcpy(ret_id, network.id, STORE_ID_SIZE);
}

/* Between two pages: one row before all others, one behind them, and one that was seen goes. */
static void disturb(struct store *s, const char *tenant, unsigned int round, const char *seen_id)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	char first[STORE_ID_SIZE], last[STORE_ID_SIZE];

	(void)snprintf(first, sizeof(first), "n-%02u", round);
	(void)snprintf(last, sizeof(last), "n-z%02u", round);
	must(store_begin(s, STORE_WRITE, &t, &told));
	make_network(s, tenant, first, first, NULL);
	if (round < 5)
		make_network(s, tenant, last, last, NULL);
	must(store_network_delete(s, store_scope_all(), seen_id, &told));
	must(store_commit(&t, &told));
}

static void pages_neither_repeat_nor_skip_while_rows_come_and_go(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_network page[4];
	struct store_page after = {0};
	struct store_tenant tenants[2];
	char ids[30][STORE_ID_SIZE], mark[2][STORE_ID_SIZE];
	unsigned int seen[30] = {0}, all = 0;
	int n;

	must(store_begin(s, STORE_WRITE, &t, &told));
	tenants[0] = make_tenant(s, "acme");
	tenants[1] = make_tenant(s, "bolt");
	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++) {
		char name[8];

		(void)snprintf(name, sizeof(name), "n%u", i);
		make_network(s, tenants[i % 2].id, "", name, ids[i]);
	}
	must(store_commit(&t, &told));
	for (unsigned int round = 0;; round++) {
		n = store_network_list(s, store_scope_all(), &after, page, 4, NULL);
		assert_true(n >= 0);
		if (n == 0)
			break;
		for (int k = 0; k < n; k++, all++)
			for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++)
				seen[i] += strcmp(ids[i], page[k].id) == 0;
		memcpy(mark[0], page[n - 1].tenant_id, STORE_ID_SIZE);
		memcpy(mark[1], page[n - 1].id, STORE_ID_SIZE);
		after = (struct store_page){mark[0], mark[1]};
		disturb(s, tenants[1].id, round, page[0].id);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++)
		assert_int_equal(seen[i], 1);
	assert_true(all > ARRAY_SIZE(ids)); /* those that came behind the mark */
	store_close(s);
}

#define WRITERS 3
#define EVENTS  60

static void write_events(const struct fixture *f, unsigned int writer)
{
	struct store *s = open_store(f);

	for (unsigned int i = 0; i < EVENTS; i++) {
		struct store_transaction t = {0};

		must(store_begin(s, STORE_WRITE, &t, &told));
		must(append_number(s, writer * EVENTS + i, &told));
		if (i % 4 == 0) {
			store_rollback(&t); /* a number taken and given up again */
			continue;
		}
		must(append_number(s, writer * EVENTS + i, &told));
		must(store_commit(&t, &told));
	}
	store_close(s);
}

/* Follows the feed until nobody writes any more; returns how many events came by. */
static unsigned int follow(struct store *s, unsigned int running, pid_t *pids)
{
	struct store_event page[7];
	unsigned int count = 0, last[WRITERS] = {0};
	uint64_t since = 0;

	for (;;) {
		int n = store_event_since(
			s, store_scope_all(), since, page, ARRAY_SIZE(page), NULL);

		assert_true(n >= 0);
		for (int i = 0; i < n; i++) {
			unsigned int number = (unsigned int)strtoul(page[i].data, NULL, 10);

			assert_true(page[i].revision > since);
			since = page[i].revision;
			assert_true(number >= last[number / EVENTS]);
			last[number / EVENTS] = number;
			count++;
		}
		if (n == 0 && running == 0)
			return count;
		for (unsigned int i = 0; i < WRITERS; i++) {
			int status;

			if (pids[i] == 0 || waitpid(pids[i], &status, WNOHANG) == 0)
				continue;
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
			pids[i] = 0;
			running--;
		}
	}
}

static void the_feed_skips_nothing_while_others_write(void **state)
{
	const struct fixture *f = *state;
	pid_t pids[WRITERS];
	struct store *s;
	uint64_t revision;

	store_close(open_store(f));
	for (unsigned int i = 0; i < WRITERS; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			in_child = true;
			write_events(f, i);
			_exit(0);
		}
	}
	s = open_store(f);
	assert_int_equal(follow(s, WRITERS, pids), WRITERS * EVENTS * 3 / 4 * 2);
	must(store_revision(s, &revision, &told));
	assert_int_equal(revision, WRITERS * EVENTS * 3 / 4 * 2); /* no gaps either */
	store_close(s);
}

static void hosts_see_what_changed_since(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_scope all = store_scope_all();
	struct store_observation seen = {STORE_OBSERVED_RUNNING, 0, 1, "up"};
	struct store_instance found[4];
	struct store_network networks[4];
	struct store_host host;
	struct belongings a;
	uint64_t since;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	a = make_belongings(s, "acme", &host, 1000);
	must(store_commit(&t, &told));
	assert_int_equal(store_instance_of_host_since(s, host.id, 0, found, 4, NULL), 1);
	since = found[0].desired_revision;
	assert_int_equal(store_instance_of_host_since(s, host.id, since, found, 4, NULL), 0);

	/* A report wakes nobody who waits for desired states. */
	must(store_begin(s, STORE_WRITE, &t, &told));
	must(store_instance_observe(s, a.instance.id, host.id, &seen, &told));
	must(store_commit(&t, &told));
	assert_int_equal(store_instance_of_host_since(s, host.id, since, found, 4, NULL), 0);
	must(store_instance_get(s, all, a.instance.id, &a.instance, &told));
	assert_int_equal(a.instance.observed, STORE_OBSERVED_RUNNING);
	assert_string_equal(a.instance.reason, "up");
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_instance_observe(s, a.instance.id, "h-other", &seen, NULL), -ENOENT);
	store_rollback(&t);

	must(store_begin(s, STORE_WRITE, &t, &told));
	a.instance.desired_boot++;
	must(store_instance_desire(s, all, &a.instance, &told));
	must(store_commit(&t, &told));
	assert_int_equal(store_instance_of_host_since(s, host.id, since, found, 4, NULL), 1);
	assert_int_equal(found[0].desired_boot, 1);

	assert_int_equal(store_network_of_host_since(s, host.id, 0, networks, 4, NULL), 1);
	since = networks[0].revision;
	must(store_begin(s, STORE_WRITE, &t, &told));
	must(store_published_port_delete(s, all, a.published.id, &told));
	must(store_commit(&t, &told));
	assert_int_equal(store_network_of_host_since(s, host.id, since, networks, 4, NULL), 1);
	since = networks[0].revision;
	must(store_begin(s, STORE_WRITE, &t, &told));
	must(store_security_rule_delete(s, all, a.rule.id, &told));
	must(store_commit(&t, &told));
	assert_int_equal(store_network_of_host_since(s, host.id, since, networks, 4, NULL), 1);
	store_close(s);
}

/* Whether the host's agent was told of something since the last call. */
static bool was_told(struct store *s, const char *host_id, uint64_t *since)
{
	struct store_host host;
	uint64_t before = *since;

	must(store_host_get(s, host_id, &host, &told));
	*since = host.desired_revision;
	return host.desired_revision > before;
}

static struct store_transaction begin_write(struct store *s)
{
	struct store_transaction t = {0};

	must(store_begin(s, STORE_WRITE, &t, &told));
	return t;
}

/* One call in a transaction of its own; its last argument is &told. */
#define COMMITTED(call)                                                     \
	do {                                                                \
		struct store_transaction once = begin_write(s);             \
		struct err told = {0};                                      \
		check_success(call, #call, &told);                          \
		check_success(store_commit(&once, &told), "commit", &told); \
	} while (0)

static void both_hosts_are_told_of_a_move(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host from, to, other;
	uint64_t told_from = 0, told_to = 0, told_other = 0;
	struct belongings a;

	must(store_begin(s, STORE_WRITE, &t, &told));
	from = make_host(s, "h1", 8);
	to = make_host(s, "h2", 8);
	other = make_host(s, "h3", 8);
	a = make_belongings(s, "acme", &from, 1000);
	must(store_commit(&t, &told));
	assert_true(was_told(s, from.id, &told_from));
	assert_false(was_told(s, to.id, &told_to));
	COMMITTED(store_instance_place(s, &a.instance, to.id, &told));
	assert_true(was_told(s, from.id, &told_from));
	assert_true(was_told(s, to.id, &told_to));
	COMMITTED(store_instance_desire(s, store_scope_all(), &a.instance, &told));
	assert_true(was_told(s, to.id, &told_to));
	assert_false(was_told(s, from.id, &told_from));
	assert_false(was_told(s, other.id, &told_other));
	store_close(s);
}

static void hosts_are_told_of_groups_and_networks(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	uint64_t told_h1 = 0, told_h2 = 0;
	struct store_host h1, h2;
	struct belongings a;

	must(store_begin(s, STORE_WRITE, &t, &told));
	h1 = make_host(s, "h1", 8);
	h2 = make_host(s, "h2", 8);
	a = make_belongings(s, "acme", &h1, 1000);
	must(store_instance_place(s, &a.instance, h2.id, &told));
	must(store_commit(&t, &told));
	(void)was_told(s, h1.id, &told_h1);
	(void)was_told(s, h2.id, &told_h2);
	COMMITTED(store_group_reconfigure(s, a.group.id, 0, h1.id, "", &told));
	assert_true(was_told(s, h1.id, &told_h1));
	assert_true(was_told(s, h2.id, &told_h2));
	COMMITTED(store_group_reconfigure(s, a.group.id, 1, h2.id, "", &told));
	assert_true(was_told(s, h1.id, &told_h1)); /* source no longer */
	COMMITTED(store_published_port_delete(s, store_scope_all(), a.published.id, &told));
	assert_true(was_told(s, h1.id, &told_h1)); /* it was published there */
	assert_true(was_told(s, h2.id, &told_h2));
	COMMITTED(store_port_delete(s, store_scope_all(), a.port.id, &told));
	assert_true(was_told(s, h2.id, &told_h2));
	COMMITTED(store_member_delete(s, store_scope_all(), a.member.id, &told));
	assert_true(was_told(s, h2.id, &told_h2));
	assert_false(was_told(s, h1.id, &told_h1));
	store_close(s);
}

static void an_agents_events_are_taken_down_once(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host host;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	must(store_host_take_events(s, host.id, 7, &told));
	must(store_commit(&t, &told));
	must(store_begin(s, STORE_WRITE, &t, &told));
	assert_int_equal(store_host_take_events(s, host.id, 7, NULL), -EEXIST);
	store_rollback(&t);
	must(store_host_get(s, host.id, &host, &told));
	assert_int_equal(host.event_sequence, 7);
	store_close(s);
}

static void journals_keep_what_they_are_told(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_audit entry = {.tenant_id = "t-1",
		.role = "member",
		.method = "POST",
		.path = "/v1/x",
		.status = 201,
		.remote = "127.0.0.1"};
	struct store_audit entries[2];
	struct store_event events[2];

	must(store_begin(s, STORE_WRITE, &t, &told));
	must(store_audit_append(s, &entry, &told));
	must(append_number(s, 7, &told));
	must(store_commit(&t, &told));
	assert_int_equal(store_audit_since(s, store_scope_tenant("t-1"), 0, entries, 2, NULL), 1);
	assert_memory_equal(&entry, &entries[0], sizeof(entry));
	assert_int_equal(store_audit_since(s, store_scope_tenant("t-2"), 0, entries, 2, NULL), 0);
	/* The platform's own events are not for tenants. */
	assert_int_equal(store_event_since(s, store_scope_tenant("t-1"), 0, events, 2, NULL), 0);
	assert_int_equal(store_event_since(s, store_scope_all(), 0, events, 2, NULL), 1);
	must(store_begin(s, STORE_WRITE, &t, &told));
	must(store_event_trim(s, events[0].at + 1, &told));
	must(store_audit_trim(s, entry.at, &told));
	must(store_commit(&t, &told));
	assert_int_equal(store_event_since(s, store_scope_all(), 0, events, 2, NULL), 0);
	assert_int_equal(store_audit_since(s, store_scope_all(), 0, entries, 2, NULL), 1);
	store_close(s);
}

/* Every word of every table passes the schema's CHECKs: each is written once. */
static void every_word_is_accepted_by_the_schema(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_scope all = store_scope_all();
	struct store_observation seen = {0};
	struct store_host host;
	struct belongings a;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	a = make_belongings(s, "acme", &host, 1000);
	for (host.state = 0; host.state < store_host_states.count; host.state++)
		must(store_host_update(s, &host, &told));
	for (a.image.state = 0; a.image.state < store_image_states.count; a.image.state++)
		must(store_image_update(s, all, &a.image, &told));
	for (unsigned int i = 0; i < 3; i++) {
		a.group.placement = a.group.commit_mode = a.group.divergence = i;
		must(store_group_update(s, all, &a.group, &told));
	}
	for (a.member.state = 0; a.member.state < store_member_states.count; a.member.state++)
		must(store_member_update(s, &a.member, &told));
	for (a.volume.state = 0; a.volume.state < store_volume_states.count; a.volume.state++)
		must(store_volume_update(s, all, &a.volume, &told));
	for (a.instance.desired = 0; a.instance.desired < store_desired_states.count;
		a.instance.desired++)
		must(store_instance_desire(s, all, &a.instance, &told));
	for (; seen.observed < store_observed_states.count; seen.observed++)
		must(store_instance_observe(s, a.instance.id, host.id, &seen, &told));
	for (unsigned int i = 0; i < store_roles.count; i++) {
		a.token.id[0] = '\0';
		a.token.role = i;
		SET(a.token.hash, store_name(&store_roles, i));
		must(store_token_create(s, &a.token, &told));
	}
	for (unsigned int i = 0; i < store_protocols.count; i++) {
		a.rule.id[0] = '\0';
		a.rule.protocol = i;
		a.rule.direction = i % 2;
		must(store_security_rule_create(s, &a.rule, &told));
	}
	must(store_commit(&t, &told));
	assert_int_equal(store_name_parse(&store_roles, "emperor", &(unsigned int){0}), -EINVAL);
	assert_null(store_name(&store_roles, store_roles.count));
	store_close(s);
}

static void a_volumes_epoch_never_falls(void **state)
{
	struct store *s = open_store(*state);
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host host;
	struct belongings a;

	must(store_begin(s, STORE_WRITE, &t, &told));
	host = make_host(s, "h1", 8);
	a = make_belongings(s, "acme", &host, 1000);
	a.volume.epoch = 5;
	must(store_volume_update(s, store_scope_all(), &a.volume, &told));
	must(store_commit(&t, &told));
	must(store_begin(s, STORE_WRITE, &t, &told));
	a.volume.epoch = 4;
	assert_int_equal(store_volume_update(s, store_scope_all(), &a.volume, NULL), -EEXIST);
	store_rollback(&t);
	store_close(s);
}

static void a_backup_is_a_store_of_one_moment(void **state)
{
	const struct fixture *f = *state;
	struct store *s = open_store(f), *copy = NULL;
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	char path[160], url[192];
	struct store_event events[4];
	struct stat st;
	struct err e;

	(void)snprintf(path, sizeof(path), "%s/backup.db", f->folder);
	(void)snprintf(url, sizeof(url), "sqlite:%s", path);
	must(store_begin(s, STORE_WRITE, &t, &told));
	must(append_number(s, 1, &told));
	must(store_commit(&t, &told));
	/* Another connection is in the middle of a change. */
	must(store_open(f->url, STORE_TRUSTED, &source_system, &copy, &told));
	must(store_begin(copy, STORE_WRITE, &t, &told));
	must(append_number(copy, 2, &told));
	must(store_backup(s, path, &told));
	must(store_commit(&t, &told));
	store_close(copy);
	assert_int_equal(store_backup(s, path, &e), -EEXIST);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_int_equal(store_backup(s, "/nowhere/at/all", &e), -ENOENT);
	store_close(s);
	assert_ok(stat(path, &st));
	assert_int_equal(st.st_mode & 0777, 0600);
	must(store_open(url, 0, &source_system, &copy, &told));
	must(store_check(copy, &told));
	assert_int_equal(store_event_since(copy, store_scope_all(), 0, events, 4, &e), 1);
	assert_string_equal(events[0].data, "1");
	store_close(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(a_new_store_is_whole_and_its_owners_only),
		STORE_TEST(every_statement_is_understood),
		STORE_TEST(no_statement_reads_a_whole_table),
		STORE_TEST(what_was_committed_is_there_after_reopening),
		STORE_TEST(a_newer_schema_is_refused),
		STORE_TEST(another_history_is_refused),
		STORE_TEST(an_older_schema_is_brought_up_to_date),
		STORE_TEST(files_that_are_no_store_are_refused_and_untouched),
		STORE_TEST(damaged_stores_are_refused_and_untouched),
		STORE_TEST(urls_that_are_none_are_refused),
		STORE_TEST(violations_are_told_in_the_entitys_words),
		STORE_TEST(a_doomed_transaction_commits_nothing),
		STORE_TEST(a_change_on_an_old_revision_is_refused),
		STORE_TEST(tenants_do_not_see_each_other),
		STORE_TEST(references_cannot_lead_to_another_tenant),
		STORE_TEST(addresses_are_unique_in_a_network),
		STORE_TEST(an_instance_takes_its_belongings_along),
		STORE_TEST(reservations_need_room_and_an_online_host),
		STORE_TEST(racing_processes_never_overbook),
		STORE_TEST(a_write_transaction_is_never_overtaken_after_its_reads),
		STORE_TEST(opening_a_new_store_at_once_makes_one),
		STORE_TEST(only_one_reconfigures_a_group),
		STORE_TEST(pages_neither_repeat_nor_skip_while_rows_come_and_go),
		STORE_TEST(the_feed_skips_nothing_while_others_write),
		STORE_TEST(hosts_see_what_changed_since),
		STORE_TEST(both_hosts_are_told_of_a_move),
		STORE_TEST(hosts_are_told_of_groups_and_networks),
		STORE_TEST(an_agents_events_are_taken_down_once),
		STORE_TEST(journals_keep_what_they_are_told),
		STORE_TEST(every_word_is_accepted_by_the_schema),
		STORE_TEST(a_volumes_epoch_never_falls),
		STORE_TEST(a_backup_is_a_store_of_one_moment),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
