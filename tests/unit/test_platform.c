/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "core/platform/addresses.h"
#include "core/platform/life.h"
#include "core/platform/placement.h"
#include "core/platform/succession.h"
#include "unit.h"

#define GIB        (1ULL << 30)
#define FLEETS     20000
#define HOSTS_MOST 12
#define ZONES      4

static struct placement_host host(const char *name, const char *zone, uint64_t cores)
{
	return (struct placement_host){
		.name = name, .zone = zone, .free = {cores, cores * GIB, 100 * GIB}};
}

static const struct placement_size one = {1, GIB, GIB};

static void placement_prefers_room_and_refuses_with_reasons(void **state)
{
	struct placement_host hosts[] = {host("a", "", 1), host("b", "", 8), host("c", "", 4)};
	size_t chosen[4];
	struct err e = {0};

	(void)state;
	assert_ok(placement_choose(hosts, 3, &one, SPREAD_ANY, 1, chosen, &e));
	assert_int_equal(chosen[0], 1);
	assert_ok(placement_choose(hosts, 3, &one, SPREAD_HOSTS, 3, chosen, &e));
	assert_int_not_equal(chosen[0], chosen[1]);
	assert_int_not_equal(chosen[1], chosen[2]);
	assert_int_not_equal(chosen[0], chosen[2]);

	hosts[1].closed = "offline";
	hosts[2].members = 1;
	assert_true(placement_choose(hosts, 3, &(struct placement_size){2, GIB, GIB}, SPREAD_HOSTS,
			    1, chosen, &e) < 0);
	assert_int_equal(e.code, ERR_NO_CAPACITY);
	assert_non_null(strstr(e.message, "a: 1 cores free"));
	assert_non_null(strstr(e.message, "b: offline"));
	assert_non_null(strstr(e.message, "c: has a member of the group"));

	assert_true(placement_choose(hosts, 0, &one, SPREAD_ANY, 1, chosen, &e) < 0);
	assert_non_null(strstr(e.message, "there is no host"));
	assert_true(placement_choose(hosts, 3, &one, SPREAD_ANY, 0, chosen, &e) < 0);
	assert_int_equal(e.code, ERR_INVALID);
}

static void placement_says_which_resource_is_short(void **state)
{
	struct placement_host h = host("a", "", 4);
	size_t chosen[4];
	struct err e = {0};

	(void)state;
	assert_true(placement_choose(&h, 1, &(struct placement_size){1, 5 * GIB, 1}, SPREAD_ANY, 1,
			    chosen, &e) < 0);
	assert_non_null(strstr(e.message, "a: 4096 MiB memory free"));
	assert_true(placement_choose(&h, 1, &(struct placement_size){1, 1, 60 * GIB}, SPREAD_NONE,
			    2, chosen, &e) < 0);
	assert_non_null(strstr(e.message, "a: 40960 MiB disk free"));
	/* Sizes whose product would overflow. */
	assert_true(placement_choose(&h, 1,
			    &(struct placement_size){UINT64_MAX, UINT64_MAX, UINT64_MAX},
			    SPREAD_ANY, 4, chosen, &e) < 0);
}

static void a_long_list_of_reasons_is_cut_and_counted(void **state)
{
	struct placement_host hosts[100];
	char names[100][16];
	size_t chosen[1];
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < 100; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "host-%zu", i);
		hosts[i] = host(names[i], "", 0);
	}
	assert_true(placement_choose(hosts, 100, &one, SPREAD_ANY, 1, chosen, &e) < 0);
	assert_non_null(strstr(e.message, "host-0: 0 cores free"));
	assert_non_null(strstr(e.message, " more hosts"));
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

struct fleet {
	struct placement_host hosts[HOSTS_MOST];
	char names[HOSTS_MOST][24];
	size_t n;
	struct placement_size size;
	enum placement_spread spread;
	unsigned int count;
};

static void draw_fleet(struct fleet *f, uint64_t *seed)
{
	static const char *const zones[ZONES] = {"", "north", "south", "west"};

	f->n = next_random(seed) % (HOSTS_MOST + 1);
	for (size_t i = 0; i < f->n; i++) {
		(void)snprintf(f->names[i], sizeof(f->names[i]), "h%zu", i);
		f->hosts[i] = (struct placement_host){
			.name = f->names[i],
			.zone = zones[next_random(seed) % ZONES],
			.closed = next_random(seed) % 5 == 0 ? "offline" : NULL,
			.free = {next_random(seed) % 9, next_random(seed) % 9 * GIB,
				next_random(seed) % 9 * GIB},
			.members = next_random(seed) % 6 == 0,
		};
	}
	f->size = (struct placement_size){
		next_random(seed) % 4, next_random(seed) % 4 * GIB, next_random(seed) % 4 * GIB};
	f->spread = (enum placement_spread)(next_random(seed) % 4);
	f->count = 1 + (unsigned int)(next_random(seed) % 8);
}

static void check_choice(const struct fleet *f, const size_t *chosen)
{
	unsigned int placed[HOSTS_MOST] = {0};

	for (unsigned int i = 0; i < f->count; i++) {
		assert_true(chosen[i] < f->n);
		placed[chosen[i]]++;
	}
	for (size_t h = 0; h < f->n; h++) {
		const struct placement_host *at = &f->hosts[h];
		unsigned int members = placed[h] + at->members;

		if (placed[h] == 0)
			continue;
		assert_null(at->closed);
		assert_true(placed[h] * f->size.cores <= at->free.cores);
		assert_true(placed[h] * f->size.memory <= at->free.memory);
		assert_true(placed[h] * f->size.disk <= at->free.disk);
		if (f->spread == SPREAD_HOSTS)
			assert_int_equal(members, 1);
		if (f->spread == SPREAD_NONE)
			assert_int_equal(placed[h], f->count);
		for (size_t k = 0; f->spread == SPREAD_ZONES && k < f->n; k++)
			if (k != h && !strcmp(f->hosts[k].zone, at->zone))
				assert_int_equal(placed[k] + f->hosts[k].members, 0);
		for (size_t k = 0; f->spread == SPREAD_NONE && k < f->n; k++)
			assert_true(f->hosts[k].members == 0 || at->members > 0);
	}
}

/* How many of that size one host takes, the slow way. */
static unsigned int room(const struct placement_host *h, const struct placement_size *size)
{
	unsigned int k = 0;

	while (!h->closed && k < 64 && (k + 1) * size->cores <= h->free.cores &&
		(k + 1) * size->memory <= h->free.memory && (k + 1) * size->disk <= h->free.disk)
		k++;
	return k;
}

/* Whether any choice exists, found without choosing. */
static bool possible(const struct fleet *f)
{
	bool grouped = false;
	unsigned int n = 0;

	for (size_t h = 0; h < f->n; h++)
		grouped = grouped || f->hosts[h].members > 0;
	for (size_t h = 0; h < f->n; h++) {
		unsigned int k = room(&f->hosts[h], &f->size);
		bool counts = k > 0;

		if (f->spread == SPREAD_ANY)
			n += k;
		if (f->spread == SPREAD_HOSTS)
			n += counts && f->hosts[h].members == 0;
		if (f->spread == SPREAD_NONE && k >= f->count &&
			(!grouped || f->hosts[h].members > 0))
			return true;
		/* A zone counts once, by its first host with room, unless it has a member. */
		for (size_t i = 0; f->spread == SPREAD_ZONES && i < f->n; i++)
			if (!strcmp(f->hosts[i].zone, f->hosts[h].zone) &&
				(f->hosts[i].members > 0 ||
					(i < h && room(&f->hosts[i], &f->size) > 0)))
				counts = false;
		if (f->spread == SPREAD_ZONES)
			n += counts;
	}
	return f->spread != SPREAD_NONE && n >= f->count;
}

static void random_fleets_are_never_overbooked(void **state)
{
	const char *given = getenv("SOSIE_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : 0x5eed50510e;
	unsigned int placed = 0;

	(void)state;
	print_message("seed %#llx\n", (unsigned long long)seed);
	for (unsigned int i = 0; i < FLEETS; i++) {
		size_t chosen[PLACEMENT_BATCH_MAX], again[PLACEMENT_BATCH_MAX];
		struct err e = {0};
		struct fleet f;
		int r;

		draw_fleet(&f, &seed);
		r = placement_choose(f.hosts, f.n, &f.size, f.spread, f.count, chosen, &e);
		assert_int_equal(r == 0, possible(&f));
		if (r < 0) {
			assert_int_equal(e.code, ERR_NO_CAPACITY);
			assert_true(f.n == 0 || strstr(e.message, "h0: ") != NULL);
			continue;
		}
		placed++;
		check_choice(&f, chosen);
		assert_ok(placement_choose(f.hosts, f.n, &f.size, f.spread, f.count, again, &e));
		assert_memory_equal(chosen, again, f.count * sizeof(*chosen));
	}
	/* Both answers must have been met often, or this has shown nothing. */
	assert_in_range(placed, FLEETS / 10, FLEETS * 9 / 10);
}

static void instances_live_by_the_table(void **state)
{
	enum life_wish wish = LIFE_RUNNING;
	struct err e = {0};

	(void)state;
	assert_ok(life_apply(LIFE_RUNNING, LIFE_STOP, &wish, &e));
	assert_int_equal(wish, LIFE_STOPPED);
	assert_true(life_apply(LIFE_STOPPED, LIFE_REBOOT, &wish, &e) < 0);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_int_equal(wish, LIFE_STOPPED);
	assert_ok(life_apply(LIFE_STOPPED, LIFE_START, &wish, &e));
	assert_int_equal(wish, LIFE_RUNNING);
	for (unsigned int action = 0; action < LIFE_ACTIONS; action++) {
		int r = life_apply(LIFE_ENDED, (enum life_action)action, &wish, &e);

		assert_int_equal(r == 0, action == LIFE_TERMINATE);
		assert_int_not_equal(strlen(life_action_name((enum life_action)action)), 0);
	}
	assert_string_equal(life_state(LIFE_RUNNING, SIGHT_RUNNING, true, true), "running");
	assert_string_equal(life_state(LIFE_RUNNING, SIGHT_RUNNING, true, false), "unknown");
	assert_string_equal(life_state(LIFE_RUNNING, SIGHT_FAILED, false, false), "failed");
	assert_string_equal(life_state(LIFE_ENDED, SIGHT_RUNNING, true, true), "terminating");
	assert_false(life_lost(LIFE_RUNNING, SIGHT_PENDING, true, true));
	assert_true(life_lost(LIFE_RUNNING, SIGHT_RUNNING, true, false));
	assert_true(life_lost(LIFE_STOPPED, SIGHT_RUNNING, true, true));
}

static struct succession_member member(unsigned int at, bool heard, bool running, bool lost)
{
	return (struct succession_member){at, true, heard, running, lost};
}

static void the_next_member_takes_over(void **state)
{
	struct succession_member m[3];
	size_t primary = SUCCESSION_NONE, source = SUCCESSION_NONE;

	(void)state;
	m[0] = member(0, true, false, false);
	m[1] = member(1, true, false, false);
	m[2] = member(2, true, true, false);
	/* Nobody led yet: one that runs is preferred. */
	assert_true(succession(m, 3, &primary, &source));
	assert_int_equal(primary, 2);
	assert_int_equal(source, 2);
	assert_false(succession(m, 3, &primary, &source));
	/* Its machine dies, its host lives: the source stays where the log is. */
	m[2].lost = true;
	m[2].running = false;
	assert_true(succession(m, 3, &primary, &source));
	assert_int_equal(primary, 0);
	assert_int_equal(source, 2);
	/* It comes back and takes nothing back. */
	m[2] = member(2, true, true, false);
	assert_false(succession(m, 3, &primary, &source));
	/* The source's host falls silent. */
	m[2] = member(2, false, false, true);
	assert_true(succession(m, 3, &primary, &source));
	assert_int_equal(primary, 0);
	assert_int_equal(source, 0);
	/* With nobody left the last leader is remembered. */
	m[0] = member(0, false, false, true);
	m[1] = member(1, false, false, true);
	assert_false(succession(m, 3, &primary, &source));
	assert_int_equal(primary, 0);
	assert_false(succession(m, 0, &(size_t){SUCCESSION_NONE}, &(size_t){SUCCESSION_NONE}));
}

static void subnets_are_parsed_strictly(void **state)
{
	static const char *const bad[] = {"", "10.0.0.0", "10.0.0.1/24", "10.0.0/24", "10.0.0.0/33",
		"10.0.0.0/", "010.0.0.0/8", "10.0.0.256/32", "10.0.0.0/24 ", "a.b.c.d/8",
		"10.0.0.0.0/8", "1000.0.0.0/8"};
	static const char *const foreign[] = {
		"8.8.8.0/24", "10.0.0.0/8", "10.0.0.0/30", "172.32.0.0/16", "0.0.0.0/16"};
	struct subnet s;
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(subnet_parse(bad[i], &s) < 0);
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		assert_true(subnet_check_tenant(foreign[i], &s, &e) < 0);
	assert_ok(subnet_parse("0.0.0.0/0", &s));
	assert_ok(subnet_check_tenant("192.168.7.0/24", &s, &e));
	assert_int_equal(s.network, 0xc0a80700);
	assert_true(subnet_contains(&s, 0xc0a807ff));
	assert_false(subnet_contains(&s, 0xc0a80800));
}

static void addresses_are_given_once(void **state)
{
	static const unsigned int expected[] = {2, 4, 5, 6};
	CLEANUP_POOL struct address_pool pool = {0};
	char text[IPV4_TEXT_SIZE];
	uint32_t address = 0;
	struct subnet s;

	(void)state;
	assert_ok(subnet_parse("10.1.2.0/29", &s));
	assert_ok(address_pool_init(&pool, &s));
	assert_ok(address_pool_take(&pool, s.network + 3));
	assert_true(address_pool_take(&pool, s.network + 3) < 0);
	assert_true(address_pool_take(&pool, s.network + 8) < 0);
	/* Without network, gateway, broadcast and the one taken. */
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		assert_ok(address_pool_next(&pool, &address));
		assert_int_equal(address - s.network, expected[i]);
	}
	assert_true(address_pool_next(&pool, &address) < 0);
	ipv4_format(address, text);
	assert_string_equal(text, "10.1.2.6");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(placement_prefers_room_and_refuses_with_reasons),
		cmocka_unit_test(placement_says_which_resource_is_short),
		cmocka_unit_test(a_long_list_of_reasons_is_cut_and_counted),
		cmocka_unit_test(random_fleets_are_never_overbooked),
		cmocka_unit_test(instances_live_by_the_table),
		cmocka_unit_test(the_next_member_takes_over),
		cmocka_unit_test(subnets_are_parsed_strictly),
		cmocka_unit_test(addresses_are_given_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
